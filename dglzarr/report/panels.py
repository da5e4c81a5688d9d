"""How each panel did on each cohort: table rows and plain sentences.

Owns the summary of ``evaluation.zarr`` over its target genes. It reads Datasets of the stores
``evaluation`` and ``landmarks`` and fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.cohorts import HELD_OUT
from dglzarr.evaluation.panels import KINDS, MINED
from dglzarr.kernels.comparison import MIN_GROUPS, Paired, paired_difference
from dglzarr.kernels.metrics import SIGNIFICANT, known_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.panels import Kind

CHANCE = "random, mean"
"""The row that tells how random panels, taken together, differ from the mined one."""
_SAME = 1e-6
"""Errors of a gene that differ by less, in relation, are the same: added up in another order."""


def as_shown(error: float) -> float:
    """Return an error as it is shown: what looks the same is neither above nor below.

    Examples
    --------
    >>> as_shown(0.71654) < as_shown(0.71646), as_shown(0.7164) < as_shown(0.7166)
    (False, True)
    """
    return round(float(error), 4)


@dataclass(frozen=True)
class PanelRow:
    """One panel evaluated on one cohort; NaN and None stand for what does not exist.

    Attributes
    ----------
    mean_mae
        Mean over target genes of the mean absolute error, in z units.
    median_pcc
        Median over target genes of Pearson's r.
    share_below_random
        Share of target genes whose error is below the mean of the random panels.
    share_significant
        Share of target genes whose ``null_fraction`` is under `SIGNIFICANT`.
    n_genes, n_missing
        Genes in the panel, and listed genes that the study or the cohort does not measure.
    predictor
        What predicted the targets.
    low, high
        95 % interval of the mean error when series are drawn again; samples, of under 3 series.
    mean_mae_within
        As ``mean_mae``, after truth and prediction are centred by series.
    n_failed
        Target genes that fail the permutation test: the other side of ``share_significant``.
    versus_mined, versus_low, versus_high
        The error less that of the mined panel, paired by sample, and its 95 % interval over series.
    versus_pvalue
        Wilcoxon's signed rank test of the same, over target genes.
    n_series
        Series that the judged samples are of.
    """

    cohort: str
    panel: str
    kind: Kind
    mean_mae: float
    median_pcc: float
    share_below_random: float
    share_significant: float
    n_genes: int | None
    n_missing: int | None
    predictor: str = "ridge"
    low: float = np.nan
    high: float = np.nan
    mean_mae_within: float = np.nan
    n_failed: int | None = None
    versus_mined: float = np.nan
    versus_low: float = np.nan
    versus_high: float = np.nan
    versus_pvalue: float = np.nan
    n_series: int = 0

    @property
    def paired(self) -> Paired:
        """How the panel differs from the mined one."""
        return Paired(self.versus_mined, self.versus_low, self.versus_high, self.versus_pvalue)

    @property
    def word(self) -> str:
        """What the paired difference says of the panel beside the mined one, "" of that itself."""
        if self.kind == "mined" or not np.isfinite(self.versus_mined):
            return ""
        kind = "held-out series" if self.cohort == HELD_OUT else "series"
        return self.paired.word("better", "worse", over=f"{self.n_series} {kind}")


_NOTHING = PanelRow("", CHANCE, "random", np.nan, np.nan, np.nan, np.nan, None, None)


def texts(ds: xr.Dataset, name: str, at: Any = ...) -> list[str]:  # noqa: ANN401
    """Return the values of a text array as str, all or those at some places."""
    return [str(value) for value in ds[name].values[at]]


def kinds(ds: xr.Dataset) -> dict[str, Kind]:
    """Return the kind of each panel of a store, by its name."""
    return dict(zip(texts(ds, "panel"), ds["kind"].values.tolist(), strict=True))


def panel_rows(evaluation: xr.Dataset, landmarks: xr.Dataset) -> list[PanelRow]:
    """Return a row for each cohort, predictor and panel: held-out samples first, then by kind."""
    names, kind = texts(evaluation, "panel"), texts(evaluation, "kind")
    order = sorted(range(len(names)), key=lambda i: KINDS.index(kind[i]))
    is_random = np.array(kind) == "random"
    sizes = _panel_sizes(landmarks)
    rows = []
    for cohort in cohorts(evaluation):
        at = texts(evaluation, "cohort").index(cohort)
        measured = evaluation["n_landmarks_measured"].isel(cohort=at).values
        for predictor in texts(evaluation, "predictor"):
            here = _judged(evaluation, cohort, predictor)
            random_mae = _mean_of(here["mae"].values[is_random])
            for i in order:
                size = _size(sizes.get(names[i]), int(measured[i]))
                row = _row(here.isel(panel=i), cohort, predictor, random_mae, size)
                rows.append(_beside_mined(row, here, [i]))
            if is_random.any():
                chance = replace(_NOTHING, cohort=cohort, predictor=predictor)
                rows.append(_beside_mined(chance, here, np.flatnonzero(is_random)))
    return rows


def _judged(evaluation: xr.Dataset, cohort: str, predictor: str) -> xr.Dataset:
    """Return what a predictor achieves on the samples of a cohort."""
    is_here = evaluation["judged_cohort"].values == cohort
    at = texts(evaluation, "cohort").index(cohort)
    return evaluation.isel(cohort=at, judged=np.flatnonzero(is_here)).sel(predictor=predictor)


def _beside_mined(
    row: PanelRow, here: xr.Dataset, others: Sequence[int] | NDArray[np.int64]
) -> PanelRow:
    """Return a row with how the mean of some panels differs from the mined one."""
    kind = texts(here, "kind")
    if "mined" not in kind:
        return row
    mined = kind.index("mined")
    error, mae = here["sample_error"].values, here["mae"].values
    series = here["judged_series"].values.astype(object)
    found = paired_difference(
        error[others].mean(axis=0, dtype=np.float64),
        error[mined],
        series,
        (mae[others].mean(axis=0, dtype=np.float64), mae[mined]),
        seed=here.attrs.get("parameters", {}).get("seed", 0),
    )
    return replace(
        row,
        versus_mined=found.mean,
        versus_low=found.low,
        versus_high=found.high,
        versus_pvalue=found.pvalue,
        n_series=len(set(series)),
    )


def _row(
    here: xr.Dataset,
    cohort: str,
    predictor: str,
    random_mae: NDArray[np.float64],
    size: tuple[int | None, int | None],
) -> PanelRow:
    mae, null = here["mae"].values, here["null_fraction"].values
    significant = _share_below(null, np.full_like(null, SIGNIFICANT))
    interval = here["interval_series"].values
    if np.isnan(interval).any():
        interval = here["interval_samples"].values
    return PanelRow(
        cohort,
        str(here["panel"].values),
        here["kind"].values.item(),
        known_mean(mae),
        _median(here["pcc"].values),
        _share_below(mae, random_mae),
        significant,
        *size,
        predictor=predictor,
        low=float(interval[0]),
        high=float(interval[1]),
        mean_mae_within=known_mean(here["mae_within"].values),
        n_failed=None if np.isnan(significant) else int((null >= SIGNIFICANT).sum()),
    )


def measure(
    evaluation: xr.Dataset, name: str, panel: str, cohort: str | None = None
) -> NDArray[np.floating]:
    """Return a measure of the first predictor for each gene, on held-out samples by default."""
    at = texts(evaluation, "cohort").index(cohort or cohorts(evaluation)[0])
    here = evaluation[name].isel(predictor=0, cohort=at)
    values: NDArray[np.floating] = here.isel(panel=texts(evaluation, "panel").index(panel)).values
    return values


def cohorts(evaluation: xr.Dataset) -> list[str]:
    """Return the cohorts, held-out samples first."""
    return sorted(texts(evaluation, "cohort"), key=lambda name: name != HELD_OUT)


def rival_of(evaluation: xr.Dataset) -> str | None:
    """Return the published panel of lowest error, else the first random one."""
    panels = kinds(evaluation)
    if MINED not in panels:
        return None
    errors = {
        name: known_mean(measure(evaluation, "mae", name))
        for name, kind in panels.items()
        if kind == "published"
    }
    known = {name: e for name, e in errors.items() if np.isfinite(e)}
    if known:
        return min(known, key=known.__getitem__)
    return next((name for name, kind in panels.items() if kind == "random"), None)


def shown_rows(rows: Sequence[PanelRow]) -> list[PanelRow]:
    """Return the rows of one cohort with random panels told as their mean, best and worst."""
    random = sorted(
        (row for row in rows if row.kind == "random" and np.isfinite(row.mean_mae)),
        key=lambda row: row.mean_mae,
    )
    others = [row for row in rows if row.kind != "random"]
    if not random:
        return others
    chance = next((row for row in rows if row.panel == CHANCE), random[0])
    mean = replace(
        chance,
        panel=f"random, mean of {len(random)}",
        mean_mae=known_mean(np.array([row.mean_mae for row in random])),
        median_pcc=known_mean(np.array([row.median_pcc for row in random])),
        share_below_random=known_mean(np.array([row.share_below_random for row in random])),
        mean_mae_within=known_mean(np.array([row.mean_mae_within for row in random])),
        n_genes=random[0].n_genes,
        n_missing=random[0].n_missing,
        low=np.nan,
        high=np.nan,
    )
    best = replace(random[0], panel=f"random, best ({random[0].panel})")
    worst = replace(random[-1], panel=f"random, worst ({random[-1].panel})")
    return [*others, mean, best, worst]


def verdict(rows: Sequence[PanelRow]) -> list[str]:
    """Return what the rows of one cohort say about the mined panel, as plain sentences.

    A panel is told to be better or worse only where the paired difference says so, both over
    series and over target genes.
    """
    of = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    mined = next((row.mean_mae for row in of["mined"]), np.nan)
    if not np.isfinite(mined):
        return ["The mined panel could not be judged here: no target gene has an error."]
    said = {
        "selector": "The {} panel",
        "published": "The published list {}",
        "baseline": "Predicting the training mean of each gene, with no panel,",
    }
    return [
        *_against_random(mined, of["random"]),
        *(
            _against(words.format(row.panel), row)
            for kind, words in said.items()
            for row in of[kind]  # type: ignore[index]
        ),
        *_too_few_series(rows),
    ]


def _against_random(mined: float, rows: Sequence[PanelRow]) -> list[str]:
    """Tell whether the mined panel differs from random panels, its place among them, its error."""
    error = f"Its mean error is {mined:.4f} standard deviations of a gene; lower is better."
    random = np.array([row.mean_mae for row in rows if np.isfinite(row.mean_mae)])
    n = random.size
    if n == 0:
        return ["There is no random panel to compare the mined panel with.", error]
    chance = next((row for row in rows if row.panel == CHANCE), None)
    word = chance.word if chance else ""
    if chance and word and np.isnan(chance.versus_low):
        said = f"Whether the mined panel predicts better than panels drawn at random {word}"
    else:
        said = {
            "worse": "The mined panel predicts better than panels drawn at random",
            "better": "The mined panel predicts worse than panels drawn at random",
        }.get(word, "No detectable difference between the mined panel and panels drawn at random")
    noun = "random panel" if n == 1 else "random panels"
    shown = [as_shown(error) for error in random]
    n_above = sum(error > as_shown(mined) for error in shown)
    place = 1 + sum(error < as_shown(mined) for error in shown)
    same = f" As low: {n_same}." if (n_same := n + 1 - place - n_above) else ""
    spread = f"from {random.min():.4f} (best) to {random.max():.4f} (worst)"
    return [
        f"{said}{_interval(chance)}.",
        f"Its error is lower than that of {n_above} of {n} {noun}: place {place} of {n + 1}.{same}",
        error,
        f"Random panels of the same size have a mean error of {random.mean():.4f}, {spread}.",
    ]


def _interval(row: PanelRow | None) -> str:
    """Return the difference to the mined panel, and its interval, in brackets; "" without one."""
    if row is None or not np.isfinite(row.versus_low):
        return ""
    return (
        f" (their error less its own: {row.versus_mined:+.4f}, 95 % interval over series "
        f"{row.versus_low:+.4f} to {row.versus_high:+.4f})"
    )


def _against(who: str, row: PanelRow) -> str:
    if not np.isfinite(row.mean_mae):
        return f"{who} could not be judged here."
    if row.word in ("better", "worse"):
        return f"{who} has {row.mean_mae:.4f}, which is {row.word} than the mined panel."
    if np.isnan(row.versus_low) and row.word:
        return f"{who} has {row.mean_mae:.4f}: beside the mined panel {row.word}."
    return f"{who} has {row.mean_mae:.4f}: no detectable difference to the mined panel."


def _too_few_series(rows: Sequence[PanelRow]) -> list[str]:
    """Return why no panel is told to be better or worse, where series are too few for it."""
    told = [row for row in rows if np.isfinite(row.versus_mined) and row.kind != "mined"]
    if not told or any(np.isfinite(row.versus_low) for row in told):
        return []
    said = f"The samples are of fewer than {MIN_GROUPS} series, too few to tell better from worse"
    return [f"{said}; 'dglzarr compare' judges panels on every series."]


def _size(listed: tuple[int, int] | None, n_measured: int) -> tuple[int | None, int | None]:
    """Return a panel's genes, and how many of its list are not measured, here or in the cohort."""
    if listed is None:
        return None, None
    return listed[0], listed[1] + listed[0] - n_measured


def _panel_sizes(landmarks: xr.Dataset) -> dict[str, tuple[int, int]]:
    """Return how many genes each panel holds and misses."""
    n_genes = [sum(str(gene) != "" for gene in row) for row in landmarks["panel_gene"].values]
    n_missing = landmarks["n_missing"].values.tolist()
    pairs = zip(n_genes, n_missing, strict=True)
    return dict(zip(texts(landmarks, "panel"), pairs, strict=True))


def _mean_of(mae: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return each gene's mean error over panels, NaN where there is none, ``(gene,)``."""
    if not len(mae):
        return np.full(mae.shape[1], np.nan)
    return np.asarray(mae.astype(np.float64).mean(axis=0))


def _finite(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values[np.isfinite(values)], dtype=np.float64)


def _median(values: NDArray[np.floating]) -> float:
    return float(np.median(found)) if (found := _finite(values)).size else np.nan


def _share_below(values: NDArray[np.floating], limit: NDArray[np.floating]) -> float:
    """Return the share of known values under their limit, NaN where none is known."""
    return known_mean(np.where(np.isfinite(values + limit), values * (1 + _SAME) < limit, np.nan))
