"""How each panel did on each cohort: table rows and plain sentences.

Owns the summary of ``evaluation.zarr`` over its target genes. It reads Datasets of the stores
``evaluation`` and ``landmarks`` and fits nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.evaluation.cohorts import HELD_OUT
from dglzarr.evaluation.panels import KINDS
from dglzarr.kernels.metrics import SIGNIFICANT, known_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.panels import Kind


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


def texts(ds: xr.Dataset, name: str) -> list[str]:
    """Return the values of a text array as str."""
    return [str(value) for value in ds[name].values]


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
            here = evaluation.isel(cohort=at).sel(predictor=predictor)
            random_mae = _mean_of(here["mae"].values[is_random])
            for i in order:
                size = _size(sizes.get(names[i]), int(measured[i]))
                rows.append(_row(here.isel(panel=i), cohort, predictor, random_mae, size))
    return rows


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


def shown_rows(rows: Sequence[PanelRow]) -> list[PanelRow]:
    """Return the rows of one cohort with random panels told as their mean, best and worst."""
    random = sorted(
        (row for row in rows if row.kind == "random" and np.isfinite(row.mean_mae)),
        key=lambda row: row.mean_mae,
    )
    others = [row for row in rows if row.kind != "random"]
    if not random:
        return others
    mean = replace(
        random[0],
        panel=f"random, mean of {len(random)}",
        mean_mae=known_mean(np.array([row.mean_mae for row in random])),
        median_pcc=known_mean(np.array([row.median_pcc for row in random])),
        share_below_random=known_mean(np.array([row.share_below_random for row in random])),
        mean_mae_within=known_mean(np.array([row.mean_mae_within for row in random])),
        low=np.nan,
        high=np.nan,
    )
    best = replace(random[0], panel=f"random, best ({random[0].panel})")
    worst = replace(random[-1], panel=f"random, worst ({random[-1].panel})")
    return [*others, mean, best, worst]


def verdict(rows: Sequence[PanelRow]) -> list[str]:
    """Return what the rows of one cohort say about the mined panel, as plain sentences."""
    of = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    mined = next((row.mean_mae for row in of["mined"]), np.nan)
    if not np.isfinite(mined):
        return ["The mined panel could not be judged here: no target gene has an error."]
    random = np.array([row.mean_mae for row in of["random"]])
    said = {
        "selector": "The {} panel",
        "published": "The published list {}",
        "baseline": "Predicting the training mean of each gene, with no panel,",
    }
    return [
        *_against_random(mined, random[np.isfinite(random)]),
        *(
            _against(words.format(row.panel), row.mean_mae, mined)
            for kind, words in said.items()
            for row in of[kind]  # type: ignore[index]
        ),
    ]


def _against_random(mined: float, random: NDArray[np.float64]) -> list[str]:
    """Tell the mined panel's place among random panels, and its error."""
    error = f"Its mean error is {mined:.4f} standard deviations of a gene; lower is better."
    n = random.size
    if n == 0:
        return ["There is no random panel to compare the mined panel with.", error]
    n_beaten = int((random > mined).sum())
    noun = "random panel" if n == 1 else "random panels"
    if n_beaten == n:
        words = f"better than all {n} {noun}"
    elif n_beaten == 0:
        words = f"better than none of the {n} {noun}"
    elif n_beaten > n / 2:
        words = f"better than most random panels ({n_beaten} of {n})"
    else:
        words = f"better than only {n_beaten} of the {n} {noun}"
    place = 1 + int((random < mined).sum())
    spread = f"from {random.min():.4f} (best) to {random.max():.4f} (worst)"
    return [
        f"The mined panel is {words}: place {place} of {n + 1}.",
        error,
        f"Random panels of the same size have a mean error of {random.mean():.4f}, {spread}.",
    ]


def _against(who: str, mae: float, mined: float) -> str:
    if not np.isfinite(mae):
        return f"{who} could not be judged here."
    if mae == mined:
        return f"{who} has {mae:.4f}, the same as the mined panel."
    word = "better" if mae < mined else "worse"
    return f"{who} has {mae:.4f}, which is {word} than the mined panel."


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
    return known_mean(np.where(np.isfinite(values + limit), values < limit, np.nan))
