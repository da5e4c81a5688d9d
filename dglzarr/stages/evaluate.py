"""Evaluate: predict every gene that no panel measures from each panel, on samples never fitted on.

Reads ``normalized.zarr``, ``samples.zarr``, ``landmarks.zarr`` and the raw stores of cohorts;
writes ``evaluation.zarr``. All panels are evaluated on the same targets: genes that no panel
measures, neither themselves nor through another probe. Errors are in z units of the training
samples.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, Field

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import (
    HELD_OUT,
    MIN_SHARE,
    CohortScale,
    External,
    HeldOut,
    measured_genes,
)
from dglzarr.evaluation.measures import Measures, evaluate_predictor
from dglzarr.evaluation.panels import (
    BASELINE,
    ListOptions,
    Panel,
    panel_labels,
    stored_panels,
)
from dglzarr.evaluation.predictors import (
    FIT,
    TEST,
    TUNE,
    PredictorName,
    Training,
    fit_predictors,
    train_network,
    training_of,
)
from dglzarr.kernels.comparison import bootstrap_interval, paired_test
from dglzarr.kernels.metrics import known_mean
from dglzarr.models.options import DGexOptions
from dglzarr.query import gene_keys
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Run, choice
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EVALUATION, NORMALIZED, SAMPLES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, summarize, write_store
from dglzarr.storage.study import raw_name
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.cohorts import Cohort
    from dglzarr.storage.claims import Claim

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Float64 = NDArray[np.float64]

TargetRule = Literal["gene", "feature"]

RULES = {
    "gene": "measured by no panel, sharing no gene with one",
    "feature": "measured by no panel, though perhaps through another probe",
}
MIN_SAMPLES = 3


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected each once, got {list(names)!r}")
    return names


class EvaluateOptions(ListOptions):
    """How well panels predict the genes that they do not measure."""

    section = "evaluate"

    predictors: Annotated[
        tuple[PredictorName, ...], Field(min_length=1, strict=False), AfterValidator(_distinct)
    ] = choice(
        ("ridge",),
        "ridge regression, the mean of the nearest landmarks, D-GEX's network",
        paper="dgex",
    )
    alphas: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, strict=False)
    ] = choice(
        (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0),
        "ridge penalties, of which series held back choose",
    )
    neighbors: Annotated[
        tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, strict=False)
    ] = choice(
        (1, 2, 5, 10, 20, 50), "numbers of nearest landmarks, of which series held back choose"
    )
    dgex: DGexOptions = choice(
        DGexOptions(), "D-GEX's network, trained for every panel where predictors names it"
    )
    target_rule: TargetRule = choice(
        "gene", "gene: no target shares its gene with a landmark; feature: it may", paper="feature"
    )
    cohort_scale: CohortScale = choice(
        "train",
        "samples whose mean and deviation standardise a cohort: training's or its own",
        paper="cohort",
    )

    def inputs(self) -> dict[str, str]:
        """Return no files: the lists are in the panels already."""
        return {}

    def recorded(self) -> dict[str, Any]:
        """Return the values that belong to the lineage, and what the targets are in words."""
        return {**super().recorded(), "targets": RULES[self.target_rule]}


class Evaluated(NamedTuple):
    """What a panel achieves: for each predictor what was chosen, and its measures by cohort."""

    setting: list[float]
    measures: list[list[Measures]]


def _folder(target: str) -> str:
    """Return where the networks of an evaluation are kept until it is done."""
    return f"{target.removesuffix('.zarr')}-networks"


def _summarize(claim: Claim) -> StoreSummary:
    shutil.rmtree(_folder(claim.uri), ignore_errors=True)  # what a killed run left
    return summarize(claim)


@stage(
    EVALUATION,
    reads=("source", "samples", "landmarks", "cohorts"),
    records=("seed",),
    constants={"scale": "z"},
    summary=_summarize,
)
def evaluate(  # noqa: PLR0913  (eight, and the claim)
    claim: Claim,
    source: str,
    target: str,
    *,
    samples: str,
    landmarks: str,
    cohorts: Sequence[str] = (),
    seed: int = 0,
    options: EvaluateOptions = EvaluateOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write how well each panel predicts the common targets, and summarize it.

    Parameters
    ----------
    source, samples, landmarks
        URIs of the normalized, samples and landmarks (or candidates) stores.
    target
        URI of the evaluation store.
    cohorts
        Raw stores of other platforms or studies; genes are matched by label, then symbol. One
        that measures under a fifth of the study's genes is not evaluated (NaN).
    seed
        Of the bootstrap, and of D-GEX's networks.
    options, run
        Its choices, and how it is run. The penalty and the number of nearest landmarks are those
        of the lowest error on the validation split; without one on the training series, a fifth
        of them left out at a time, and the fit takes them all. D-GEX's networks are trained in
        this process, a panel at a time.

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
    names = _cohort_names(cohorts)
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    index = ds.indexes["gene"]
    nothing = np.empty(0, dtype=np.int64)
    panels = [Panel(BASELINE, "baseline", BASELINE, nothing)]
    panels += stored_panels(open_store(landmarks), index)
    is_target = common_targets(ds, panels, options.target_rule)
    fold = fit_and_test(ds["split"].values, mask["keep"].values)
    training, targets = training_of(source, samples, fold), np.flatnonzero(is_target)
    networks = [""] * len(panels)
    if "dgex" in options.predictors:
        networks = _networks(_folder(target), panels, training, targets, options.dgex, seed, run)
    evaluated = run_tasks(
        _evaluate_panel,
        list(zip(panels, networks, strict=True)),
        training=training,
        targets=targets,
        is_test=fold == TEST,
        cohorts=tuple(cohorts),
        options=options,
        what="evaluating panels",
        on_progress=run.on_progress,
    )
    labels = _labels(ds, panels, names, options) | _sample_labels(source, names, fold, cohorts)
    found = [np.ones(index.size, dtype=bool), *(measured_genes(c, source) for c in cohorts)]
    arrays: dict[str, NDArray[Any]] = {
        **_spread(evaluated, is_target),
        **_summaries(evaluated, labels, names, seed),
        "setting": np.array([e.setting for e in evaluated]),
        "size": np.array([p.size for p in panels]),
        "n_measured": np.array([f.sum() for f in found]),
        "n_landmarks_measured": np.array([[f[p.genes].sum() for f in found] for p in panels]),
        "is_target": is_target,
        **_cohort_notes(labels, names, found),
    }
    summary = write_store(claim, labels | arrays, details=_details(panels, names, arrays))
    shutil.rmtree(_folder(target), ignore_errors=True)
    return summary


def _cohort_names(cohorts: Sequence[str]) -> list[str]:
    """Return what is evaluated on: the held-out samples, and each external cohort.

    Raises
    ------
    ConfigError
        When two have one name.
    """
    names = [HELD_OUT, *(raw_name(c) for c in cohorts)]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"evaluate: expected cohorts of different names, none of them {HELD_OUT!r}, got "
            f"{names[1:]!r}. Rename the file."
        )
    return names


def fit_and_test(split: NDArray[np.int8], keep: Mask) -> NDArray[np.int8]:
    """Return 0 (fit), 1 (validation), 2 (test) or -1 (unused) for each sample.

    Raises
    ------
    ConfigError
        When there is nothing to fit or to test on.
    """
    fold = np.where(keep, split, -1).astype(np.int8)
    n_fit, n_test = int((fold == FIT).sum()), int((fold == TEST).sum())
    n_least = 1 if (fold == TUNE).any() else 2
    if n_fit < n_least or not n_test:
        raise ConfigError(
            f"evaluate: expected kept samples, {n_least} to fit and 1 to test on, got "
            f"{n_fit} and {n_test} of {fold.size} ({int((~keep).sum())} are near-duplicates). "
            "Add samples, or set another seed or dedup.threshold."
        )
    return fold


def common_targets(ds: xr.Dataset, panels: Sequence[Panel], rule: TargetRule) -> Mask:
    """Return which features measure a gene that no panel measures.

    Raises
    ------
    ConfigError
        When there is none.
    """
    keys = (gene_keys(ds) if rule == "gene" else ds["gene"].values).astype(object)
    used = {key for panel in panels for key in keys[panel.genes]}
    is_target = np.array([key not in used for key in keys], dtype=bool)
    if not is_target.any():
        raise ConfigError(
            f"select: expected genes that no panel measures, but {len(panels) - 1} panels "
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
    run: Run,
) -> list[str]:
    """Return the folder of each panel's network, "" without landmarks; finished ones are kept."""

    def train(panel: Panel) -> str:
        def tell(done: int, total: int) -> None:
            if run.on_progress is not None:
                run.on_progress(f"training {panel.name}", done, total)

        return train_network(
            folder, panel.genes, targets, training, config=config, seed=seed, on_progress=tell
        )

    return [train(panel) if panel.size else "" for panel in panels]


def _evaluate_panel(
    panel: Panel,
    network: str,
    *,
    training: Training,
    targets: Index,
    is_test: Mask,
    cohorts: Sequence[str],
    options: EvaluateOptions,
) -> Evaluated:
    """Fit one panel's predictors and evaluate them on the test samples and on every cohort."""
    fitted = fit_predictors(
        options.predictors,
        panel.genes,
        targets,
        training,
        alphas=options.alphas,
        neighbors=options.neighbors,
        network=network,
    )
    source, samples = training.source, training.samples
    parts: list[Cohort] = [
        HeldOut(source, samples, is_test),
        *(External(cohort, source, samples, options.cohort_scale) for cohort in cohorts),
    ]
    measures = [
        [
            evaluate_predictor(
                fitted[name],
                part,
                landmarks=panel.genes,
                targets=targets,
                with_null=bool(panel.size) and not panel.is_drawn,  # by far the longest
            )
            for part in parts
        ]
        for name in options.predictors
    ]
    return Evaluated([fitted[name].setting for name in options.predictors], measures)


# ---------------------------------------------------------------- what is written


def _labels(
    ds: xr.Dataset, panels: Sequence[Panel], names: Sequence[str], options: EvaluateOptions
) -> dict[str, NDArray[Any]]:
    return {
        **{name: ds[name].values for name in ("gene", "gene_symbol")},
        **panel_labels(panels, [panel.name for panel in panels]),
        "predictor": text_array(options.predictors),
        "cohort": text_array(names),
        "bound": text_array(["low", "high"]),
    }


def _sample_labels(
    source: str, names: Sequence[str], fold: NDArray[np.int8], cohorts: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return name, study and cohort of every sample that is evaluated, cohort by cohort."""
    parts = [[read_array(source, n)[fold == TEST] for n in ("sample", "series")]]
    parts += [[read_array(c, n) for n in ("sample", "series")] for c in cohorts]
    sample, series = (list(v) for v in zip(*parts, strict=True))
    cohort = [name for name, values in zip(names, sample, strict=True) for _ in values]
    return {
        "judged": np.arange(len(cohort), dtype=np.int32),
        "judged_sample": text_array(np.concatenate(sample)),
        "judged_series": text_array(np.concatenate(series)),
        "judged_cohort": text_array(cohort),
    }


def _spread(evaluated: Sequence[Evaluated], is_target: Mask) -> dict[str, NDArray[np.float32]]:
    """Return measures as (panel, predictor, cohort, gene), NaN where a gene is no target."""
    found = [panel.measures for panel in evaluated]
    shape = (len(found), len(found[0]), len(found[0][0]), is_target.size)
    spread = {}
    for name in ("mae", "mae_within", "pcc", "null_fraction"):
        full = np.full(shape, np.nan, dtype=np.float32)
        full[..., is_target] = [
            [[getattr(m, name) for m in row] for row in panel] for panel in found
        ]
        spread[name] = full
    errors = [[np.concatenate([m.sample_error for m in row]) for row in panel] for panel in found]
    return spread | {"sample_error": np.array(errors, dtype=np.float32)}


def _summaries(
    evaluated: Sequence[Evaluated],
    labels: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    seed: int,
) -> dict[str, Float64]:
    """Return mean errors with their intervals, and the first panel tested against each other."""
    panels = [panel.measures for panel in evaluated]
    shape = (len(panels), len(panels[0]), len(names))
    found = {"mean_mae": np.full(shape, np.nan)}
    found |= {n: np.full((*shape, 2), np.nan) for n in ("interval_samples", "interval_series")}
    tests = ("share_better", "t_pvalue", "wilcoxon_pvalue")
    found |= {name: np.full(shape, np.nan) for name in tests}
    first = panels[min(1, len(panels) - 1)]
    for at in range(len(names)):
        here = labels["judged_cohort"] == names[at]
        series = labels["judged_series"][here].astype(object)
        for way, group in (("samples", np.arange(series.size)), ("series", series)):
            rows = np.array([row[at].sample_error for panel in panels for row in panel])
            interval = bootstrap_interval(rows, group, seed=seed)
            found[f"interval_{way}"][:, :, at] = interval.reshape(*shape[:2], 2)
        for p, panel in enumerate(panels):
            for r, row in enumerate(panel):
                found["mean_mae"][p, r, at] = known_mean(row[at].mae)
                tested = paired_test(first[r][at].mae, row[at].mae)
                for name, value in zip(tests, tested, strict=True):
                    found[name][p, r, at] = value
    return found


def _cohort_notes(
    labels: Mapping[str, NDArray[Any]], names: Sequence[str], found: Sequence[Mask]
) -> dict[str, NDArray[Any]]:
    """Return the size of each cohort, and why it was evaluated in part or not at all."""
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
        "reason": text_array(reasons),
    }


def _details(
    panels: Sequence[Panel], names: Sequence[str], arrays: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return what the first predictor achieves, in a few numbers."""
    is_target, mae = arrays["is_target"], arrays["mae"][0, 0, 0]
    errors = arrays["mean_mae"][:, 0]
    of = [panel.name for panel in panels]
    return {
        "n_targets": int(is_target.sum()),
        "n_unjudged_targets": int(np.isnan(mae[is_target]).sum()),
        "mean_mae": dict(zip(of, errors[:, 0].tolist(), strict=True)),
        "cohorts": {
            name: _cohort_details(panels, errors[:, i], i, arrays)
            for i, name in enumerate(names)
            if i
        },
    }


def _cohort_details(
    panels: Sequence[Panel], errors: Float64, cohort: int, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, float | int | None]:
    """Return mean errors on one cohort, None where it measures too few genes to be evaluated."""
    mined = [panel.kind for panel in panels].index("mined")
    random = errors[[panel.is_drawn for panel in panels]]
    known = {
        "mined": float(errors[mined]),
        "mean": float(errors[0]),
        "random": float(np.mean(random)) if random.size else float("nan"),
    }
    return {
        "n_measured": int(arrays["n_measured"][cohort]),
        "n_genes": int(arrays["is_target"].size),
        "n_landmarks": int(arrays["n_landmarks_measured"][mined, cohort]),
        **{name: e if np.isfinite(e) else None for name, e in known.items()},
    }
