"""Pool: the folds of a comparison become one table, every sample tested once.

Reads the lineup and evaluation stores of all folds; writes ``comparison.zarr``. Random panels, and
random subsets of one list, make a row together; every row is set beside the random panels of its
size.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.cohorts import HELD_OUT
from dglzarr.evaluation.panels import BASELINE, RANDOM
from dglzarr.kernels.comparison import bootstrap_interval, paired_test
from dglzarr.kernels.metrics import SIGNIFICANT, known_means
from dglzarr.storage.schemas import COMPARISON, EVALUATION, LINEUP
from dglzarr.storage.store import (
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


def pool(
    source: Sequence[str],
    target: str,
    *,
    lineups: Sequence[str],
    seed: int = 0,
    overwrite: bool = False,
) -> StoreSummary:
    """Write the cross-validated errors of all panels, and summarize them.

    Parameters
    ----------
    source
        URIs of the evaluation stores, one a fold.
    target
        URI of the comparison store.
    lineups
        URIs of the lineup stores of the same folds.
    seed
        Of the bootstrap.
    overwrite
        Replace a store made from other inputs or parameters.

    Raises
    ------
    StoreError, SchemaError
        When an input cannot be used or the target cannot be written.
    """
    started = time.monotonic()
    claim = claim_store(
        target,
        COMPARISON,
        inputs=[store_input(uri) for uri in (*source, *lineups)],
        parameters={"n_folds": len(source), "seed": seed, "cohort": HELD_OUT},
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    folds = [open_store(uri, EVALUATION).sel(cohort=HELD_OUT).load() for uri in source]
    lineup = open_store(lineups[0], LINEUP)
    labels = _labels(folds, lineup)
    arrays = _panel_arrays(folds)
    arrays |= _row_arrays(arrays, labels, seed)
    if claim.state == "new":
        create_store(claim, labels)
    n_tested = labels["sample"].size
    return finish(target, started=started, arrays=arrays, details={"n_tested": int(n_tested)})


def _labels(folds: Sequence[xr.Dataset], lineup: xr.Dataset) -> dict[str, NDArray[Any]]:
    text = np.dtypes.StringDType()
    tested = [fold["judged_cohort"].values == HELD_OUT for fold in folds]
    family = np.array([BASELINE, *lineup["family"].values], dtype=text)
    size = np.array([0, *lineup["size"].values], dtype=np.int32)
    rows = list(dict.fromkeys(zip(family.tolist(), size.tolist(), strict=True)))
    panel = [f"{BASELINE}/0", *lineup["panel"].values]
    sizes = [int(here.sum()) for here in tested]
    return {
        "panel": np.array(panel, dtype=text),
        "family": family,
        "size": size,
        "predictor": folds[0]["predictor"].values.astype(text),
        "row": np.array([f"{name}/{n}" for name, n in rows], dtype=text),
        "row_family": np.array([name for name, _ in rows], dtype=text),
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
    return np.concatenate(parts).astype(np.dtypes.StringDType())


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
    names = (
        "row_mae", "row_best", "row_worst", "versus_random", "share_better", "t_pvalue",
        "wilcoxon_pvalue",
    )  # fmt: skip
    found: dict[str, NDArray[Any]] = {name: np.full(shape, np.nan) for name in names}
    found |= {n: np.full((*shape, 2), np.nan) for n in ("row_interval", "versus_random_interval")}
    found |= {"n_random_better": np.full(shape, -1), "n_panels": np.zeros(n_rows, dtype=np.int64)}
    series = labels["series"].astype(object)
    for row, (family, size) in enumerate(
        zip(labels["row_family"], labels["row_size"], strict=True)
    ):
        of_size = labels["size"] == size
        own, random = of_size & (labels["family"] == family), of_size & (labels["family"] == RANDOM)
        found["n_panels"][row] = own.sum()
        for p in range(n_predictors):
            mean = arrays["mean_mae"][:, p]
            error = arrays["sample_error"][own, p].astype(np.float64).mean(axis=0)
            found["row_mae"][row, p] = mean[own].mean()
            found["row_best"][row, p], found["row_worst"][row, p] = mean[own].min(), mean[own].max()
            rows = [error]
            if random.any() and family != RANDOM:
                rows.append(
                    error - arrays["sample_error"][random, p].astype(np.float64).mean(axis=0)
                )
                found["versus_random"][row, p] = mean[own].mean() - mean[random].mean()
                found["n_random_better"][row, p] = (mean[random] < mean[own].mean()).sum()
                genes = (arrays["mae"][chosen, p].mean(axis=0) for chosen in (own, random))
                tested = paired_test(*genes)
                for name in ("share_better", "t_pvalue", "wilcoxon_pvalue"):
                    found[name][row, p] = getattr(tested, name)
            interval = bootstrap_interval(np.array(rows), series, seed=seed)
            found["row_interval"][row, p] = interval[0]
            if len(rows) > 1:
                found["versus_random_interval"][row, p] = interval[1]
    return found


def _share_failed(null: NDArray[np.float32]) -> Float64:
    return known_means(np.where(np.isnan(null), np.nan, null >= SIGNIFICANT))
