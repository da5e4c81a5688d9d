"""Compare: the folds of a cross-validation become one table, every sample tested once.

Reads the candidates and evaluation stores of all folds; writes ``comparison.zarr``. Random panels,
and random subsets of one list, make a row together; every row is set beside the random panels of
its size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from dglzarr.errors import hint
from dglzarr.evaluation.cohorts import HELD_OUT
from dglzarr.evaluation.panels import BASELINE, SizeOptions
from dglzarr.evaluation.predictors import PredictorName
from dglzarr.kernels.comparison import bootstrap_interval, paired_test
from dglzarr.kernels.metrics import SIGNIFICANT, known_means
from dglzarr.kernels.panels import SELECTORS
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Run, choice
from dglzarr.storage.schemas import CANDIDATES, COMPARISON, EVALUATION
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim

    Float64 = NDArray[np.float64]


class CompareOptions(SizeOptions):
    """What is compared by cross-validation over whole series, and in how many folds."""

    section = "compare"

    predictors: Annotated[tuple[str, ...], Field(strict=False)] = choice(
        ("ridge",), "what tells the other genes from a panel: ridge, knn, dgex"
    )
    n_folds: int = choice(5, "parts of the series, each held out once")

    @field_validator("selectors", "sizes", "predictors")
    @classmethod
    def _are_known_once(cls, values: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        name = str(info.field_name)
        place, known = _ASKED[name]
        if name == "sizes" and (not values or min(values) < 1):
            raise ValueError(f"{place}: expected numbers of genes, got {list(values)!r}")
        if known and (unknown := [value for value in values if value not in known]):
            raise ValueError(
                f"{place}: expected names of {', '.join(known)}, got {unknown!r}"
                f"{hint(str(unknown[0]), known)}"
            )
        is_absent = not values and name != "selectors"  # none: those of the settings
        if is_absent or len(set(values)) < len(values):
            raise ValueError(f"{place}: expected each once and at least one, got {list(values)!r}")
        return values

    @field_validator("n_folds")
    @classmethod
    def _are_two(cls, value: int) -> int:
        if value < 2:
            raise ValueError(f"--folds: expected 2 or more, got {value}")
        return value


_TESTS = ("share_better", "t_pvalue", "wilcoxon_pvalue")
_ASKED: Mapping[str, tuple[str, Sequence[str]]] = {
    "selectors": ("--panels", tuple(SELECTORS)),
    "sizes": ("--sizes", ()),
    "predictors": ("--predictors", get_args(PredictorName)),
}


@stage(
    COMPARISON,
    reads=("source", "candidates"),
    records=("seed",),
    constants={"cohort": HELD_OUT},
)
def compare(
    claim: Claim,
    source: Sequence[str],
    target: str,  # noqa: ARG001  (the claim's)
    *,
    candidates: Sequence[str],
    seed: int = 0,
    run: Run = Run(),  # noqa: ARG001  (it takes seconds)
) -> StoreSummary:
    """Write the cross-validated errors of all panels, and summarize them.

    Parameters
    ----------
    source
        URIs of the evaluation stores, one a fold.
    target
        URI of the comparison store.
    candidates
        URIs of the candidates stores of the same folds.
    seed
        Of the bootstrap.
    run
        How it is run.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used or the target cannot be written.
    """
    folds = [open_store(uri, EVALUATION).sel(cohort=HELD_OUT).load() for uri in source]
    labels = _labels(folds, open_store(candidates[0], CANDIDATES))
    arrays = _panel_arrays(folds)
    arrays |= _row_arrays(arrays, labels, seed)
    return write_store(claim, labels | arrays, details={"n_tested": int(labels["sample"].size)})


def _labels(folds: Sequence[xr.Dataset], candidates: xr.Dataset) -> dict[str, NDArray[Any]]:
    tested = [fold["judged_cohort"].values == HELD_OUT for fold in folds]
    kind = text_array(["baseline", *candidates["kind"].values])
    family = text_array([BASELINE, *candidates["family"].values])
    size = np.array([0, *candidates["size"].values], dtype=np.int32)
    rows = dict(zip(zip(family.tolist(), size.tolist(), strict=True), kind.tolist(), strict=True))
    panel = [f"{BASELINE}/0", *candidates["panel"].values]
    sizes = [int(here.sum()) for here in tested]
    return {
        "panel": text_array(panel),
        "kind": kind,
        "family": family,
        "size": size,
        "predictor": text_array(folds[0]["predictor"].values),
        "row": text_array([f"{name}/{n}" for name, n in rows]),
        "row_kind": text_array(list(rows.values())),
        "row_family": text_array([name for name, _ in rows]),
        "row_size": np.array([n for _, n in rows], dtype=np.int32),
        "sample": _joined(folds, tested, "judged_sample"),
        "series": _joined(folds, tested, "judged_series"),
        "fold_of": np.repeat(np.arange(len(folds), dtype=np.int32), sizes),
        "gene": folds[0]["gene"].values,
        "gene_symbol": folds[0]["gene_symbol"].values,
        "fold": np.arange(len(folds), dtype=np.int32),
        "bound": folds[0]["bound"].values,
    }


def _joined(
    folds: Sequence[xr.Dataset], tested: Sequence[NDArray[np.bool_]], name: str
) -> NDArray[Any]:
    parts = [fold[name].values[here] for fold, here in zip(folds, tested, strict=True)]
    return text_array(np.concatenate(parts))


def _panel_arrays(folds: Sequence[xr.Dataset]) -> dict[str, NDArray[Any]]:
    """Return what each panel achieves, from what it achieves in each fold."""
    total = np.zeros_like(folds[0]["mae"].values, dtype=np.float64)
    count = np.zeros(total.shape, dtype=np.int64)
    for fold in folds:
        mae = fold["mae"].values
        count += ~np.isnan(mae)
        total += np.nan_to_num(mae)
    mae = np.full(total.shape, np.nan)
    np.divide(total, count, where=count > 0, out=mae)
    tested = [fold["judged_cohort"].values == HELD_OUT for fold in folds]
    errors = [f["sample_error"].values[..., here] for f, here in zip(folds, tested, strict=True)]
    sample_error = np.concatenate(errors, axis=-1)
    null = np.stack([_share_failed(fold["null_fraction"].values) for fold in folds])
    within = np.stack([known_means(fold["mae_within"].values) for fold in folds])
    return {
        "sample_error": sample_error,
        "mae": mae,
        "n_folds": np.sum([fold["is_target"].values for fold in folds], axis=0),
        "fold_mae": np.stack([fold["mean_mae"].values for fold in folds], axis=-1),
        "mean_mae": known_means(sample_error),
        "mae_within": known_means(np.moveaxis(within, 0, -1)),
        "share_failed": known_means(np.moveaxis(null, 0, -1)),
    }


def _row_arrays(
    arrays: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[Any]], seed: int
) -> dict[str, NDArray[Any]]:
    """Return what the panels of each row achieve together, beside random panels of their size."""
    n_rows, n_predictors = labels["row"].size, labels["predictor"].size
    shape = (n_rows, n_predictors)
    names = ("row_mae", "row_best", "row_worst", "versus_random", *_TESTS)
    found: dict[str, NDArray[Any]] = {name: np.full(shape, np.nan) for name in names}
    found |= {n: np.full((*shape, 2), np.nan) for n in ("row_interval", "versus_random_interval")}
    found |= {"n_random_better": np.full(shape, -1), "n_panels": np.zeros(n_rows, dtype=np.int64)}
    series = labels["series"].astype(object)
    own_of = (labels["row_family"][:, None] == labels["family"]) & (
        labels["row_size"][:, None] == labels["size"]
    )  # (row, panel)
    is_random = own_of[labels["row_kind"] == "random"].any(axis=0)
    for row, own in enumerate(own_of):
        random = is_random & (labels["size"] == labels["row_size"][row])
        found["n_panels"][row] = own.sum()
        for p in range(n_predictors):
            mean = arrays["mean_mae"][:, p]
            error = arrays["sample_error"][own, p].astype(np.float64).mean(axis=0)
            found["row_mae"][row, p] = mean[own].mean()
            found["row_best"][row, p], found["row_worst"][row, p] = mean[own].min(), mean[own].max()
            rows = [error]
            if random.any() and labels["row_kind"][row] != "random":
                rows.append(
                    error - arrays["sample_error"][random, p].astype(np.float64).mean(axis=0)
                )
                found["versus_random"][row, p] = mean[own].mean() - mean[random].mean()
                found["n_random_better"][row, p] = (mean[random] < mean[own].mean()).sum()
                genes = (arrays["mae"][chosen, p].mean(axis=0) for chosen in (own, random))
                tested = paired_test(*genes)
                for name in _TESTS:
                    found[name][row, p] = getattr(tested, name)
            interval = bootstrap_interval(np.array(rows), series, seed=seed)
            found["row_interval"][row, p] = interval[0]
            if len(rows) > 1:
                found["versus_random_interval"][row, p] = interval[1]
    return found


def _share_failed(null: NDArray[np.float32]) -> Float64:
    return known_means(np.where(np.isnan(null), np.nan, null >= SIGNIFICANT))
