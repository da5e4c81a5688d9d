"""Evaluate: predict every gene that no panel measures from each panel, on samples never fitted on.

Reads ``normalized.zarr``, ``samples.zarr``, ``landmarks.zarr`` and the raw stores of cohorts;
writes ``evaluation.zarr``. All panels are judged on the same targets: genes that no panel measures,
neither themselves nor through another probe. Errors are in z units of the training samples.
"""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import HELD_OUT, MIN_SHARE, Foreign, HeldOut, measured_genes
from dglzarr.evaluation.measures import Judgement, judge
from dglzarr.evaluation.panels import BASELINE, MINED, RANDOM
from dglzarr.evaluation.predictors import FIT, TEST, TUNE, Training, fit_predictors, train_network
from dglzarr.kernels.comparison import bootstrap_interval, paired_test
from dglzarr.kernels.metrics import known_mean
from dglzarr.models.options import DGexOptions
from dglzarr.query import gene_keys
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EVALUATION, NORMALIZED, SAMPLES
from dglzarr.storage.store import (
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    store_input,
    summarize,
)
from dglzarr.storage.study import raw_name
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.cohorts import Cohort, CohortScale
    from dglzarr.evaluation.predictors import PredictorName
    from dglzarr.storage.tasks import Progress

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Float64 = NDArray[np.float64]

TargetRule = Literal["gene", "feature"]

RULES = {
    "gene": "measured by no panel, sharing no gene with one",
    "feature": "measured by no panel, though perhaps through another probe",
}
MIN_SAMPLES = 3


class Panel(NamedTuple):
    """One task: a panel's name and its genes, as indices."""

    name: str
    landmarks: Index

    @property
    def is_named(self) -> bool:
        """Whether its permutation test is of interest: not for the mean and random panels."""
        return bool(self.landmarks.size) and not self.name.startswith(f"{RANDOM}-")


class Judged(NamedTuple):
    """What a panel achieves: for each predictor what was chosen, and one judgement a cohort."""

    setting: list[float]
    results: list[list[Judgement]]


def evaluate(
    source: str,
    target: str,
    *,
    samples: str,
    landmarks: str,
    cohorts: Sequence[str] = (),
    predictors: Sequence[PredictorName] = ("ridge",),
    alphas: Sequence[float] = (1.0, 10.0, 100.0, 1000.0, 10000.0),
    neighbors: Sequence[int] = (1, 2, 5, 10, 20, 50),
    dgex: Mapping[str, Any] | None = None,
    target_rule: TargetRule = "gene",
    cohort_scale: CohortScale = "train",
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write how well each panel predicts the common targets, and summarize it.

    Parameters
    ----------
    source, samples, landmarks
        URIs of the normalized, samples and landmarks (or lineup) stores.
    target
        URI of the evaluation store.
    cohorts
        Raw stores of other platforms or studies; genes are matched by label, then symbol. One
        that measures under a fifth of the study's genes is not judged (NaN).
    predictors
        ``"ridge"``: linear regression; ``"knn"``: the mean of the nearest landmarks; ``"dgex"``:
        D-GEX's network, trained for each panel in turn in this process.
    alphas, neighbors
        Penalties of ridge and numbers of nearest landmarks; those with the lowest error on the
        validation split (without one: on every tenth training sample, then left out of the fit)
        are used.
    dgex
        Fields of `DGexOptions`.
    target_rule
        ``"gene"``: no target shares a gene with a landmark of any panel. ``"feature"`` is the
        papers' way: a landmark's gene may be a target through another probe.
    cohort_scale
        Standardise a cohort's genes by the training samples (``"train"``, fits nothing on it), or
        by the cohort itself, as D-GEX does (``"cohort"``).
    seed
        Of the bootstrap, and of D-GEX's networks.
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
    their solution. A task holds landmarks x targets in float64, one region, and slices of the
    truth and of the prediction; a cohort of role ``cohort`` is whole in memory.

    References
    ----------
    Chen et al. 2016, doi:10.1093/bioinformatics/btw074 (landmark and target genes, MAE)
    """
    started = time.monotonic()
    names = [HELD_OUT, *(raw_name(c) for c in cohorts)]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"evaluate: expected cohorts of different names, none of them {HELD_OUT!r}, got "
            f"{names[1:]!r}. Rename the file."
        )
    config = DGexOptions(**(dgex or {}))
    folder = f"{target.removesuffix('.zarr')}-networks"
    ds, chosen = open_store(source, NORMALIZED), open_store(landmarks)
    mask = open_store(samples, SAMPLES)
    claim = claim_store(
        target,
        EVALUATION,
        inputs=[store_input(u) for u in (source, samples, landmarks, *cohorts)],
        parameters={
            "predictors": list(predictors),
            "alphas": list(alphas),
            "neighbors": list(neighbors),
            "dgex": config.model_dump(),
            "target_rule": target_rule,
            "cohort_scale": cohort_scale,
            "seed": seed,
            "scale": "z",
            "targets": RULES[target_rule],
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        return summarize(target, claim.state)
    panels = _panels(ds, chosen)
    is_target = _common_targets(ds, panels, target_rule)
    fold = _folds(ds["split"].values, mask["keep"].values)
    training, targets = Training(source, samples, fold), np.flatnonzero(is_target)
    trained = [""] * len(panels)
    if "dgex" in predictors:
        trained = _networks(folder, panels, training, targets, config, seed, on_progress)
    judged = run_tasks(
        _judge,
        list(zip(panels, trained, strict=True)),
        source=source,
        samples=samples,
        targets=targets,
        fold=fold,
        cohorts=tuple(cohorts),
        predictors=tuple(predictors),
        choices={"alphas": tuple(alphas), "neighbors": tuple(neighbors)},
        cohort_scale=cohort_scale,
        what="judging panels",
        on_progress=on_progress,
    )
    labels = _judged_labels(source, names, fold == TEST, cohorts)
    if claim.state == "new":
        text = np.dtypes.StringDType()
        coords = {name: ds[name].values for name in ("gene", "gene_symbol")}
        coords["panel"] = np.array([p.name for p in panels], dtype=text)
        coords["predictor"] = np.array(predictors, dtype=text)
        coords["cohort"] = np.array(names, dtype=text)
        create_store(claim, coords | labels)
    found = [np.ones(ds.sizes["gene"], dtype=bool), *(measured_genes(c, source) for c in cohorts)]
    arrays: dict[str, NDArray[Any]] = {
        **_spread(judged, is_target),
        **_summaries(judged, labels, names, seed),
        "setting": np.array([j.setting for j in judged]),
        "size": np.array([p.landmarks.size for p in panels]),
        "n_measured": np.array([f.sum() for f in found]),
        "n_landmarks_measured": np.array([[f[p.landmarks].sum() for f in found] for p in panels]),
        "is_target": is_target,
        **_cohort_notes(labels, names, found),
    }
    details = _details(panels, names, arrays)
    summary = finish(target, started=started, arrays=arrays, details=details)
    shutil.rmtree(folder, ignore_errors=True)
    return summary


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
    if not (fold == TUNE).any():
        fold[np.flatnonzero(fold == FIT)[::10]] = TUNE
    n_fit, n_test = int((fold == FIT).sum()), int((fold == TEST).sum())
    if not n_fit or not n_test:
        raise ConfigError(
            "evaluate: expected kept samples to fit and to test on, got "
            f"{n_fit} and {n_test} of {fold.size} ({int((~keep).sum())} are near-duplicates). "
            "Add samples, or set another seed or dedup.threshold."
        )
    return fold


def _common_targets(ds: xr.Dataset, panels: Sequence[Panel], rule: TargetRule) -> Mask:
    """Return which features measure a gene that no panel measures.

    Raises
    ------
    ConfigError
        When there is none.
    """
    keys = (gene_keys(ds) if rule == "gene" else ds["gene"].values).astype(object)
    used = {key for panel in panels for key in keys[panel.landmarks]}
    is_target = np.array([key not in used for key in keys], dtype=bool)
    if not is_target.any():
        raise ConfigError(
            f"select: expected genes that no panel measures, but the {len(panels) - 1} panels "
            f"cover all {len(keys)}. Lower select.n_landmarks, the sizes compared, or "
            "select.n_random."
        )
    return is_target


def _networks(
    folder: str,
    panels: Sequence[Panel],
    training: Training,
    targets: Index,
    config: DGexOptions,
    seed: int,
    on_progress: Progress | None,
) -> list[str]:
    """Return the folder of each panel's network, "" without landmarks; finished ones are kept."""

    def train(panel: Panel) -> str:
        return train_network(
            folder, panel.landmarks, targets, training, config=config, seed=seed,
            on_progress=lambda done, total: (
                on_progress(f"training {panel.name}", done, total) if on_progress else None
            ),
        )  # fmt: skip

    return [train(panel) if panel.landmarks.size else "" for panel in panels]


def _judge(
    panel: Panel,
    network: str,
    *,
    source: str,
    samples: str,
    targets: Index,
    fold: NDArray[np.int8],
    cohorts: Sequence[str],
    predictors: Sequence[PredictorName],
    choices: Mapping[str, Sequence[Any]],
    cohort_scale: CohortScale,
) -> Judged:
    """Fit one panel's predictors and judge them on the test samples and on every cohort."""
    training = Training(source, samples, fold)
    fitted = fit_predictors(
        predictors, panel.landmarks, targets, training, **choices, network=network
    )
    judges: list[Cohort] = [
        HeldOut(source, samples, fold == TEST),
        *(Foreign(cohort, source, samples, cohort_scale) for cohort in cohorts),
    ]
    results = [
        [
            judge(
                fitted[name], cohort, landmarks=panel.landmarks, targets=targets,
                with_null=panel.is_named,
            )
            for cohort in judges
        ]
        for name in predictors
    ]  # fmt: skip
    return Judged([fitted[name].setting for name in predictors], results)


# ---------------------------------------------------------------- what is written


def _judged_labels(
    source: str, names: Sequence[str], is_test: Mask, cohorts: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return name, study and cohort of every sample that is judged, cohort by cohort."""
    parts = [[read_array(source, n)[is_test] for n in ("sample", "series")]]
    parts += [[read_array(c, n) for n in ("sample", "series")] for c in cohorts]
    sample, series = (list(v) for v in zip(*parts, strict=True))
    cohort = [name for name, values in zip(names, sample, strict=True) for _ in values]
    text = np.dtypes.StringDType()
    return {
        "judged": np.arange(len(cohort), dtype=np.int32),
        "judged_sample": np.concatenate(sample).astype(text),
        "judged_series": np.concatenate(series).astype(text),
        "judged_cohort": np.array(cohort, dtype=text),
        "bound": np.array(["low", "high"], dtype=text),
    }


def _spread(judged: Sequence[Judged], is_target: Mask) -> dict[str, NDArray[np.float32]]:
    """Return measures as (panel, predictor, cohort, gene), NaN where a gene is no target."""
    shape = (len(judged), len(judged[0].results), len(judged[0].results[0]), is_target.size)
    spread = {}
    for name in ("mae", "mae_within", "pcc", "null_fraction"):
        full = np.full(shape, np.nan, dtype=np.float32)
        full[..., is_target] = [
            [[getattr(r, name) for r in row] for row in j.results] for j in judged
        ]
        spread[name] = full
    errors = [[np.concatenate([r.sample_error for r in row]) for row in j.results] for j in judged]
    return spread | {"sample_error": np.array(errors, dtype=np.float32)}


def _summaries(
    judged: Sequence[Judged], labels: Mapping[str, NDArray[Any]], names: Sequence[str], seed: int
) -> dict[str, Float64]:
    """Return mean errors with their intervals, and the first panel tested against each other."""
    shape = (len(judged), len(judged[0].results), len(names))
    found = {"mean_mae": np.full(shape, np.nan)}
    found |= {n: np.full((*shape, 2), np.nan) for n in ("interval_samples", "interval_series")}
    tests = ("share_better", "t_pvalue", "wilcoxon_pvalue")
    found |= {name: np.full(shape, np.nan) for name in tests}
    first = judged[min(1, len(judged) - 1)].results
    for at in range(len(names)):
        here = labels["judged_cohort"] == names[at]
        series = labels["judged_series"][here].astype(object)
        for way, group in (("samples", np.arange(series.size)), ("series", series)):
            rows = np.array([r[at].sample_error for j in judged for r in j.results])
            interval = bootstrap_interval(rows, group, seed=seed)
            found[f"interval_{way}"][:, :, at] = interval.reshape(*shape[:2], 2)
        for p, panel in enumerate(judged):
            for r, row in enumerate(panel.results):
                found["mean_mae"][p, r, at] = known_mean(row[at].mae)
                for name, value in zip(
                    tests, paired_test(first[r][at].mae, row[at].mae), strict=True
                ):
                    found[name][p, r, at] = value
    return found


def _cohort_notes(
    labels: Mapping[str, NDArray[Any]], names: Sequence[str], found: Sequence[Mask]
) -> dict[str, NDArray[Any]]:
    """Return the size of each cohort, and why it was judged in part or not at all."""
    here = [labels["judged_cohort"] == name for name in names]
    n_samples = [int(h.sum()) for h in here]
    n_series = [len(set(labels["judged_series"][h].tolist())) for h in here]
    reasons = [
        f"measures {share:.0%} of the study's genes, under {MIN_SHARE:.0%}: not judged"
        if (share := float(measured.mean())) < MIN_SHARE
        else f"{n} samples, fewer than {MIN_SAMPLES}: no correlations and no intervals"
        if n < MIN_SAMPLES
        else f"{k} series, fewer than {MIN_SAMPLES}: no interval over series"
        if k < MIN_SAMPLES
        else ""
        for n, k, measured in zip(n_samples, n_series, found, strict=True)
    ]
    return {
        "n_samples": np.array(n_samples),
        "n_series": np.array(n_series),
        "reason": np.array(reasons, dtype=np.dtypes.StringDType()),
    }


def _details(
    panels: Sequence[Panel], names: Sequence[str], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return what the first predictor achieves, in a few numbers."""
    is_target, mae = arrays["is_target"], arrays["mae"][0, 0, 0]
    errors = [
        {p.name: float(e) for p, e in zip(panels, arrays["mean_mae"][:, 0, i], strict=True)}
        for i in range(len(names))
    ]
    return {
        "n_targets": int(is_target.sum()),
        "n_unjudged_targets": int(np.isnan(mae[is_target]).sum()),
        "mean_mae": errors[0],
        "cohorts": {
            name: _cohort_details(errors[i], i, arrays) for i, name in enumerate(names) if i
        },
    }


def _cohort_details(
    errors: Mapping[str, float], cohort: int, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, float | int | None]:
    """Return mean errors on one cohort, None where it measures too few genes to be judged."""
    random = [e for name, e in errors.items() if name.startswith(f"{RANDOM}-")]
    known = {
        "mined": errors[MINED],
        "mean": errors[BASELINE],
        "random": float(np.mean(random)) if random else float("nan"),
    }
    return {
        "n_measured": int(arrays["n_measured"][cohort]),
        "n_genes": int(arrays["is_target"].size),
        "n_landmarks": int(arrays["n_landmarks_measured"][list(errors).index(MINED), cohort]),
        **{name: e if np.isfinite(e) else None for name, e in known.items()},
    }
