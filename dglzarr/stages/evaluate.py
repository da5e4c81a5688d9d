"""Evaluate: predict every gene that no panel measures from each panel, on samples never fitted on.

Reads ``normalized.zarr``, ``samples.zarr``, ``landmarks.zarr`` and the raw stores of cohorts;
writes ``evaluation.zarr``. All panels are judged on the same targets: genes that no panel measures,
neither themselves nor through another probe. Errors are in z units of the training samples.
"""

from __future__ import annotations

import time
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.genes import match_genes
from dglzarr.graph import run_tasks
from dglzarr.kernels.linear import RidgePath, merge_ridge, predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.metrics import mae_per_gene, null_fraction, pcc_per_gene
from dglzarr.kernels.moments import chunk_moments, finish_moments, standardize
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.kernels.scale import to_log2
from dglzarr.query import gene_keys
from dglzarr.rows import Rows, read_array
from dglzarr.schema import EVALUATION, LANDMARKS, NORMALIZED, RAW, SAMPLES
from dglzarr.store import (
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    regions,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.genes import GeneMatch
    from dglzarr.graph import Progress

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]

CohortScale = Literal["train", "cohort"]

BASELINE = "mean"
MIN_COHORT_SHARE = 0.2
TEST = "test"


class Panel(NamedTuple):
    """One task: a panel's name and its genes, as indices."""

    name: str
    landmarks: Index


class Judgement(NamedTuple):
    """What a panel achieves: each array is (cohort, target)."""

    mae: NDArray[np.float32]
    pcc: NDArray[np.float32]
    null_fraction: NDArray[np.float32]
    alpha: float


def evaluate(
    source: str,
    target: str,
    *,
    samples: str,
    landmarks: str,
    cohorts: Sequence[str] = (),
    alphas: Sequence[float] = (1.0, 10.0, 100.0, 1000.0, 10000.0),
    cohort_scale: CohortScale = "train",
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write how well each panel predicts the common targets, and summarize it.

    Parameters
    ----------
    source, samples, landmarks
        URIs of the normalized, samples and landmarks stores.
    target
        URI of the evaluation store.
    cohorts
        Raw stores of other platforms or studies; genes are matched by label, then symbol. One
        that measures under a fifth of the study's genes is not judged (NaN).
    alphas
        Ridge penalties; the one with the lowest error on the validation split (without one: on
        every tenth training sample, then left out of the fit) is used.
    cohort_scale
        Standardise a cohort's genes by the training samples (``"train"``, fits nothing on it), or
        by the cohort itself, as D-GEX does (``"cohort"``).
    overwrite
        Replace a store made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When the panels leave no common target, no sample is left to fit or to test on, or two
        cohorts have one name.
    StoreError, SchemaError
        When an input cannot be used or the target cannot be written.

    Notes
    -----
    One task a panel: samples x landmarks x targets for the normal equations, landmarks cubed for
    their solution. A task holds landmarks x targets in float64 and one region.

    References
    ----------
    Chen et al. 2016, doi:10.1093/bioinformatics/btw074 (landmark and target genes, MAE)
    """
    started = time.monotonic()
    names = [TEST, *(_name(c) for c in cohorts)]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"evaluate: expected cohorts of different names, none of them {TEST!r}, got "
            f"{names[1:]!r}. Rename the file."
        )
    ds, chosen = open_store(source, NORMALIZED), open_store(landmarks, LANDMARKS)
    mask = open_store(samples, SAMPLES)
    claim = claim_store(
        target,
        EVALUATION,
        inputs=[store_input(u) for u in (source, samples, landmarks, *cohorts)],
        parameters={
            "predictor": "ridge",
            "alphas": list(alphas),
            "cohort_scale": cohort_scale,
            "scale": "z",
            "targets": "measured by no panel, sharing no gene with one",
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    panels = _panels(ds, chosen)
    is_target = _common_targets(ds, panels)
    fold = _folds(ds["split"].values, mask["keep"].values)
    judged = run_tasks(
        _judge,
        [(panel,) for panel in panels],
        source=source,
        samples=samples,
        targets=np.flatnonzero(is_target),
        fold=fold,
        cohorts=tuple(cohorts),
        alphas=tuple(alphas),
        cohort_scale=cohort_scale,
        what="judging panels",
        on_progress=on_progress,
    )
    if claim.state == "new":
        text = np.dtypes.StringDType()
        coords = {name: ds[name].values for name in ("gene", "gene_symbol")}
        coords["panel"] = np.array([p.name for p in panels], dtype=text)
        coords["cohort"] = np.array(names, dtype=text)
        create_store(claim, coords)
    counts = [int((fold == 2).sum()), *(len(Rows(c)) for c in cohorts)]
    found = [np.ones(ds.sizes["gene"], dtype=bool), *(_measured(c, source) for c in cohorts)]
    arrays = {
        **_spread(judged, is_target),
        "alpha": np.array([j.alpha for j in judged]),
        "n_samples": np.array(counts),
        "n_measured": np.array([f.sum() for f in found]),
        "n_landmarks_measured": np.array([[f[p.landmarks].sum() for f in found] for p in panels]),
        "is_target": is_target,
    }
    means = {p.name: _mean(j.mae[0]) for p, j in zip(panels, judged, strict=True)}
    details = {
        "n_targets": int(is_target.sum()),
        "mean_mae": means,
        "cohorts": {
            name: _cohort_details(i, panels, judged, found[i]) for i, name in enumerate(names) if i
        },
    }
    return finish(target, started=started, arrays=arrays, details=details)


def _name(raw: str) -> str:
    return raw.rsplit("/", 1)[-1].removesuffix(".zarr")


def _mean(values: NDArray[np.float32]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")


def _panels(ds: xr.Dataset, chosen: xr.Dataset) -> list[Panel]:
    """Return the baseline, which has no landmarks, and every panel."""
    index = ds.indexes["gene"]
    panels = [Panel(BASELINE, np.empty(0, dtype=np.int64))]
    for name, row in zip(chosen["panel"].values, chosen["panel_gene"].values, strict=True):
        genes = row[row != ""]
        panels.append(Panel(str(name), index.get_indexer(genes).astype(np.int64)))
    return panels


def _folds(split: NDArray[np.int8], keep: Mask) -> NDArray[np.int8]:
    """Return 0 (fit), 1 (choose the penalty), 2 (test) or -1 (unused) for each sample.

    Raises
    ------
    ConfigError
        When there is nothing to fit or to test on.
    """
    fold = np.where(keep, split, -1).astype(np.int8)
    if not (fold == 1).any():
        fold[np.flatnonzero(fold == 0)[::10]] = 1
    n_fit, n_test = int((fold == 0).sum()), int((fold == 2).sum())
    if not n_fit or not n_test:
        raise ConfigError(
            "evaluate: expected kept samples to fit and to test on, got "
            f"{n_fit} and {n_test} of {fold.size} ({int((~keep).sum())} are near-duplicates). "
            "Add samples, or set another seed or dedup.threshold."
        )
    return fold


def _common_targets(ds: xr.Dataset, panels: Sequence[Panel]) -> Mask:
    """Return which features measure a gene that no panel measures.

    Raises
    ------
    ConfigError
        When there is none.
    """
    keys = gene_keys(ds).astype(object)
    used = {key for panel in panels for key in keys[panel.landmarks]}
    is_target = np.array([key not in used for key in keys], dtype=bool)
    if not is_target.any():
        raise ConfigError(
            f"select: expected genes that no panel measures, but the {len(panels) - 1} panels "
            f"cover all {len(keys)}. Lower select.n_landmarks or select.n_random."
        )
    return is_target


def _cohort_details(
    cohort: int, panels: Sequence[Panel], judged: Sequence[Judgement], found: Mask
) -> dict[str, float | int | None]:
    """Return mean errors on one cohort, None where it measures too few genes to be judged."""
    errors = {p.name: _mean(j.mae[cohort]) for p, j in zip(panels, judged, strict=True)}
    random = [e for name, e in errors.items() if name.startswith("random-")]
    known = {
        "mined": errors["mined"],
        "mean": errors[BASELINE],
        "random": float(np.mean(random)) if random else float("nan"),
    }
    landmarks = next(p.landmarks for p in panels if p.name == "mined")
    return {
        "n_measured": int(found.sum()),
        "n_genes": int(found.size),
        "n_landmarks": int(found[landmarks].sum()),
        **{name: e if np.isfinite(e) else None for name, e in known.items()},
    }


def _spread(judged: Sequence[Judgement], is_target: Mask) -> dict[str, NDArray[np.float32]]:
    """Return the measures as (panel, cohort, gene), NaN where a gene is no target."""
    n_cohorts = len(judged[0].mae)
    spread = {}
    for name in ("mae", "pcc", "null_fraction"):
        full = np.full((len(judged), n_cohorts, is_target.size), np.nan, dtype=np.float32)
        full[:, :, is_target] = np.stack([getattr(j, name) for j in judged])
        spread[name] = full
    return spread


# ---------------------------------------------------------------- one panel


def _judge(
    panel: Panel,
    *,
    source: str,
    samples: str,
    targets: Index,
    fold: NDArray[np.int8],
    cohorts: Sequence[str],
    alphas: Sequence[float],
    cohort_scale: CohortScale,
) -> Judgement:
    """Fit one panel's predictor and judge it on the test samples and on every cohort."""
    mean, std = read_array(samples, "gene_mean"), read_array(samples, "gene_std")
    model, alpha = _fit(panel, source, mean, std, targets, fold, alphas)
    tests = [_truth_of(source, fold == 2, mean, std)]
    for cohort in cohorts:
        ids = tuple(store_input(uri)["store_id"] for uri in (cohort, source, samples))
        tests.append(_cohort_z(cohort, source, samples, cohort_scale, ids))
    judged = []
    for z in tests:
        truth = z[:, targets]
        predicted = _predict(model, np.nan_to_num(z[:, panel.landmarks]), alpha, targets.size)
        is_null_wanted = bool(panel.landmarks.size) and not panel.name.startswith("random-")
        fraction = null_fraction(truth, predicted) if is_null_wanted else None
        judged.append(
            (
                mae_per_gene(truth, predicted),
                pcc_per_gene(truth, predicted),
                np.full(targets.size, np.nan) if fraction is None else fraction,
            )
        )
    mae, pcc, fractions = (np.stack(v).astype(np.float32) for v in zip(*judged, strict=True))
    return Judgement(mae, pcc, fractions, alpha)


def _fit(
    panel: Panel,
    source: str,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    targets: Index,
    fold: NDArray[np.int8],
    alphas: Sequence[float],
) -> tuple[RidgePath | None, float]:
    """Return the ridge predictor with the best penalty; None is the training mean."""
    if not panel.landmarks.size:
        return None, float("nan")
    tune = fold == 1
    partials = (
        ridge_partial(z[:, panel.landmarks], z[:, targets])
        for z in _blocks(source, fold == 0, mean, std)
    )
    path = ridge_path(reduce(merge_ridge, partials))
    errors = np.zeros(len(alphas))
    for z in _blocks(source, tune, mean, std):
        x, y = z[:, panel.landmarks], z[:, targets]
        errors += [
            np.abs(predicted - y).sum(dtype=np.float64)
            for predicted in predict_ridge(path, x, alphas)
        ]
    return path, float(alphas[int(errors.argmin())])


def _predict(
    model: RidgePath | None, landmarks: NDArray[np.float32], alpha: float, n_targets: int
) -> NDArray[np.float32]:
    if model is None:
        return np.zeros((len(landmarks), n_targets), dtype=np.float32)
    return predict_ridge(model, landmarks, [alpha])[0]


def _blocks(
    source: str, chosen: Mask, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> Iterator[NDArray[np.float32]]:
    """Yield the chosen samples in z units, a region at a time, missing values at 0."""
    rows = Rows(source)
    for region in regions(source):
        if chosen[region.rows].any():
            yield standardize(rows[region.rows][chosen[region.rows]], mean, std)


def _truth_of(
    source: str, chosen: Mask, mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the chosen samples in z units, missing values missing."""
    block = Rows(source).take(np.flatnonzero(chosen))
    return np.where(np.isnan(block), np.nan, standardize(block, mean, std)).astype(np.float32)


# ---------------------------------------------------------------- cohorts


@lru_cache(maxsize=4)
def _cohort_z(
    cohort: str,
    source: str,
    samples: str,
    cohort_scale: CohortScale,
    ids: tuple[str, ...],  # noqa: ARG001  (make the cache see a replaced store)
) -> NDArray[np.float32]:
    """Return a cohort in the study's genes and z units, (sample, gene), NaN where unmeasured.

    Its measured genes are mapped onto the frozen quantile reference by their percentiles.
    """
    table = open_store(cohort, RAW)
    block, _ = to_log2(Rows(cohort)[0 : table.sizes["sample"]], table.attrs["details"]["scale"])
    match = _match(cohort, source)
    aligned = match.apply(block)
    if match.found.mean() < MIN_COHORT_SHARE:
        return np.full_like(aligned, np.nan)
    normalized = apply_quantile(aligned, read_array(source, "quantile_reference"))
    if cohort_scale == "cohort":
        mean, std = finish_moments(chunk_moments(normalized))
    else:
        mean, std = read_array(samples, "gene_mean"), read_array(samples, "gene_std")
    z = standardize(normalized, mean, std)
    return np.where(np.isnan(normalized), np.nan, z).astype(np.float32)


def _match(cohort: str, source: str) -> GeneMatch:
    """Return which genes of a cohort measure which genes of the study."""
    return match_genes(
        [str(g) for g in read_array(cohort, "gene")],
        [str(s) for s in read_array(cohort, "gene_symbol")],
        [str(g) for g in read_array(source, "gene")],
        [str(s) for s in read_array(source, "gene_symbol")],
        gene_ids=[str(i) for i in read_array(source, "gene_id")],
    )


def _measured(cohort: str, source: str) -> Mask:
    """Return which genes of the study a cohort measures."""
    return _match(cohort, source).found
