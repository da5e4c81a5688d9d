"""What a cross-validated comparison of panels found: rows of a table, and plain sentences.

Reads ``comparison.zarr``; fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.kernels.comparison import Paired, paired_difference
from dglzarr.report.tables import formatted, interval
from dglzarr.storage.schemas import COMPARISON
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

COLUMNS = (
    "size", "panel", "predictor", "MAE (z)", "95 % interval", "best to worst", "minus random",
    "95 % interval", "random better", "genes better", "within series", "failing",
)  # fmt: skip


@dataclass(frozen=True)
class ComparisonRow:
    """The panels of one family and size by one predictor; NaN and None where nothing is known.

    Attributes
    ----------
    mae, low, high
        Mean error of held-out samples in z units, and its 95 % interval over series.
    best, worst
        Lowest and highest error of a panel of the row.
    versus_random, versus_low, versus_high
        The error less that of the random panels of this size, paired by sample, and its interval.
    n_random_better, n_random
        Random panels of this size with a lower error, of how many.
    share_better
        Share of target genes with a lower error than with random panels of this size.
    mae_within
        Mean error after truth and prediction are centred by series.
    share_failed
        Share of targets that fail the permutation test; NaN for random panels.
    versus_twice
        How it differs from random panels of twice its size; None where there are none.
    n_series
        Series that were held out.
    """

    kind: str
    family: str
    size: int
    predictor: str
    n_panels: int
    mae: float
    low: float
    high: float
    best: float
    worst: float
    versus_random: float
    versus_low: float
    versus_high: float
    n_random_better: int | None
    n_random: int
    share_better: float
    t_pvalue: float
    wilcoxon_pvalue: float
    mae_within: float
    share_failed: float
    versus_twice: Paired | None = None
    n_series: int = 0

    @property
    def paired(self) -> Paired:
        """How the row differs from random panels of its size."""
        return Paired(self.versus_random, self.versus_low, self.versus_high, self.wilcoxon_pvalue)


def comparison_rows(uri: str) -> list[ComparisonRow]:
    """Return the rows of a comparison store: by predictor, by size, best first; the mean on top."""
    ds = open_store(uri, COMPARISON).load()
    found = [
        _row(ds.sel(predictor=predictor), i)
        for predictor in ds["predictor"].values
        for i in range(ds.sizes["row"])
    ]
    order = [str(name) for name in ds["predictor"].values]
    return sorted(found, key=lambda row: (order.index(row.predictor), row.size, row.mae))


def _row(here: xr.Dataset, i: int) -> ComparisonRow:
    row = here.isel(row=i)
    family, size = str(row["row_family"].values), int(row["row_size"])
    own = (here["size"].values == size) & (here["family"].values == family)
    random = (here["row_size"].values == size) & (here["row_kind"].values == "random")
    low, high = (float(v) for v in row["row_interval"].values)
    versus_low, versus_high = (float(v) for v in row["versus_random_interval"].values)
    n_better = int(row["n_random_better"])
    return ComparisonRow(
        kind=str(row["row_kind"].values),
        family=family,
        size=size,
        predictor=str(here["predictor"].values),
        n_panels=int(row["n_panels"]),
        mae=float(row["row_mae"]),
        low=low,
        high=high,
        best=float(row["row_best"]),
        worst=float(row["row_worst"]),
        versus_random=float(row["versus_random"]),
        versus_low=versus_low,
        versus_high=versus_high,
        n_random_better=None if n_better < 0 else n_better,
        n_random=int(here["n_panels"].values[random].sum()),
        share_better=float(row["share_better"]),
        t_pvalue=float(row["t_pvalue"]),
        wilcoxon_pvalue=float(row["wilcoxon_pvalue"]),
        mae_within=float(here["mae_within"].values[own].mean()),
        share_failed=float(here["share_failed"].values[own].mean()),
        versus_twice=_versus_twice(here, own, size),
        n_series=len(set(here["series"].values)),
    )


def _versus_twice(here: xr.Dataset, own: NDArray[np.bool_], size: int) -> Paired | None:
    """Return how panels differ from random panels of twice their size."""
    twice = (here["size"].values == 2 * size) & (here["kind"].values == "random")
    if not size or not twice.any():
        return None
    error, mae = (
        [here[name].values[panels].mean(axis=0, dtype=np.float64) for panels in (own, twice)]
        for name in ("sample_error", "mae")
    )
    return paired_difference(
        error[0],
        error[1],
        here["series"].values.astype(object),
        (mae[0], mae[1]),
        seed=here.attrs.get("parameters", {}).get("seed", 0),
    )


def cells(row: ComparisonRow) -> tuple[str, ...]:
    """Return a row as text, in the order of ``COLUMNS``."""
    many = f" ({row.n_panels})" if row.n_panels > 1 else ""
    return (
        str(row.size or "-"),
        "predict the mean" if row.kind == "baseline" else f"{row.family}{many}",
        row.predictor,
        formatted(row.mae),
        interval((row.low, row.high)),
        interval((row.best, row.worst)) if row.n_panels > 1 else "-",
        formatted(row.versus_random, "+.4f"),
        interval((row.versus_low, row.versus_high), "+.4f"),
        "-" if row.n_random_better is None else f"{row.n_random_better} of {row.n_random}",
        formatted(row.share_better, ".1%"),
        formatted(row.mae_within),
        formatted(row.share_failed, ".1%"),
    )


def by_size(rows: Sequence[ComparisonRow]) -> dict[str, Any] | None:
    """Return sizes, errors and kinds by family, and best and worst random panel, for the figure.

    Of the first predictor; None where there are no random panels of two sizes.
    """
    own = [row for row in rows if row.predictor == rows[0].predictor]
    random = {row.size: row for row in own if row.kind == "random"}
    if len(random) < 2:
        return None
    at = {(row.family, row.size): row.mae for row in own}
    sizes = sorted(random)
    kinds = {row.family: row.kind for row in own if row.size in random}
    families = sorted(kinds)
    return {
        "sizes": np.array(sizes),
        "errors": {f: np.array([at.get((f, size), np.nan) for size in sizes]) for f in families},
        "kinds": kinds,
        "best": np.array([random[size].best for size in sizes]),
        "worst": np.array([random[size].worst for size in sizes]),
    }


def comparison_verdict(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return what the rows say, a sentence a predictor and size, and what half a panel is worth.

    The panel with the lowest error is held to the level of the lowest of all chosen ones.
    """
    said = []
    for predictor in dict.fromkeys(row.predictor for row in rows):
        own = [row for row in rows if row.predictor == predictor]
        said += [*_by_size(own), *_half_size(own)]
    return said


def _by_size(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    for random in (row for row in rows if row.kind == "random"):
        rivals = _chosen(rows, random.size)
        if not rivals:
            continue
        best = min(rivals, key=lambda row: row.mae)
        found = best.paired.lowest_of(len(rivals), best.n_series)
        shown = interval((found.low, found.high), "+.4f")
        several = f", as the lowest of {len(rivals)}" if len(rivals) > 1 else ""
        yield (
            f"{best.size} genes, {best.predictor}: {best.family} has the lowest error of "
            f"{len(rivals)}, {best.mae:.4f}; random panels have {random.mae:.4f} "
            f"({random.best:.4f} the lowest of {random.n_panels}). The difference is "
            f"{formatted(best.versus_random, '+.4f')} ({shown} over series{several}): "
            f"{_word(found, best.n_series)}."
        )


def _word(found: Paired, n_series: int) -> str:
    """Return what the paired difference to random panels says."""
    better, worse = "better than random panels", "worse than random panels"
    return found.word(better, worse, over=f"{n_series} held-out series")


def _half_size(rows: Sequence[ComparisonRow]) -> Iterator[str]:
    """Yield for each size how its lowest panel compares with random panels of twice its size."""
    random = {row.size: row for row in rows if row.kind == "random"}
    for size in (size for size in random if 2 * size in random):
        if own := _chosen(rows, size):
            best = min(own, key=lambda row: row.mae)
            if best.versus_twice and np.isnan(best.versus_twice.low):
                continue  # what `_by_size` says
            found = best.versus_twice and best.versus_twice.lowest_of(len(own), best.n_series)
            word = {-1: "better than", 1: "worse than"}.get(
                found.sign if found else 0, "without detectable difference to"
            )
            yield (
                f"{best.family} with {size} genes ({best.mae:.4f}) is {word} random panels of "
                f"{2 * size} ({random[2 * size].mae:.4f})."
            )


def _chosen(rows: Sequence[ComparisonRow], size: int) -> list[ComparisonRow]:
    """Return the rows of a size whose panels were not drawn at random."""
    return [row for row in rows if row.size == size and row.kind not in ("random", "subset")]
