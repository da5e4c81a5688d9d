"""Evaluate beside scikit-learn's Ridge on the same rows, and beside the matrix products alone.

Stage ``evaluate-null`` is the permutation test by itself, beside its one matrix product.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from common import (
    Bench,
    Case,
    Timed,
    main,
    product_seconds,
    run_here,
    run_stage,
    simulated_matrix,
    write_normalized_and_samples,
    write_scores,
)
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from dglzarr.kernels.metrics import mae_per_gene, null_fraction, pcc_per_gene
from dglzarr.kernels.moments import standardize
from dglzarr.stages.evaluate import EvaluateOptions, evaluate
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from numpy.typing import NDArray

N_LANDMARKS = {"tiny": 10, "small": 943, "full": 943}
N_RANDOM = {"tiny": 2, "small": 3, "full": 20}
ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)


def prepare(case: Case) -> None:
    """Write a normalized store, a samples store, and panels of random scores."""
    write_normalized_and_samples(case)
    write_scores(case)
    select(
        case.path("scores.zarr"),
        case.path("landmarks.zarr"),
        normalized=case.path("normalized.zarr"),
        samples=case.path("samples.zarr"),
        options=SelectOptions(
            selector="top-score",
            selectors=(),
            n_landmarks=N_LANDMARKS[case.size],
            n_random=N_RANDOM[case.size],
        ),
    )


def with_dglzarr(case: Case) -> Timed:
    """Time the stage; a sample counts once a panel."""
    target = case.path("evaluation.zarr")
    shutil.rmtree(target, ignore_errors=True)
    timed = run_stage(
        case,
        evaluate,
        case.path("normalized.zarr"),
        target,
        samples=case.path("samples.zarr"),
        landmarks=case.path("landmarks.zarr"),
        options=EvaluateOptions(alphas=ALPHAS),
    )
    n = n_panels(case)
    return Timed(
        timed.seconds, timed.n_samples * n, timed.start_rss_mb, timed.peak_rss_mb,
        {**timed.more, "n_panels": n, "n_landmarks": N_LANDMARKS[case.size]},
    )  # fmt: skip


def with_sklearn(case: Case) -> Timed:
    """Time one panel in memory: a fit for each penalty, the best one measured."""
    uri = case.path("samples.zarr")
    mean, std = read_array(uri, "gene_mean"), read_array(uri, "gene_std")
    z = standardize(simulated_matrix(case.n_samples, case.n_genes), mean, std)
    split = read_array(case.path("normalized.zarr"), "split")
    landmarks, targets = first_panel(case)
    return run_here(case, lambda: evaluate_with_sklearn(z, split, landmarks, targets))


def evaluate_with_sklearn(
    z: NDArray[np.float32],
    split: NDArray[np.int8],
    landmarks: NDArray[np.int64],
    targets: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return error and correlation of each target, with the best penalty."""
    x, y = ([z[split == fold][:, genes] for fold in range(3)] for genes in (landmarks, targets))
    models = [Ridge(alpha).fit(x[0], y[0]) for alpha in ALPHAS]
    errors = [np.abs(model.predict(x[1]) - y[1]).mean() for model in models]
    predicted = models[int(np.argmin(errors))].predict(x[2])
    return mae_per_gene(y[2], predicted), pcc_per_gene(y[2], predicted)


def with_limit(case: Case) -> Timed:
    """Time the products of one panel in float32: normal equations, solutions, predictions."""
    n_landmarks, targets = N_LANDMARKS[case.size], first_panel(case)[1].size
    n_train, n_other = case.n_samples * 8 // 10, case.n_samples // 10
    fit = [(n_landmarks, n_train, targets), (n_landmarks, n_train, n_landmarks)]
    rotate = [(n_landmarks, n_landmarks, targets)]
    with threadpool_limits(max(1, case.workers)):
        fit_seconds, rotate_seconds = product_seconds(fit), product_seconds(rotate)
        predict_seconds = product_seconds([(n_other, n_landmarks, targets)])
    parts = {
        "normal equations": fit_seconds,
        "solutions": (1 + len(ALPHAS)) * rotate_seconds,
        "predictions": (1 + len(ALPHAS)) * predict_seconds,
    }
    more = {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}}
    return Timed(sum(parts.values()), case.n_samples, more=more)


def first_panel(case: Case) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the mined panel's genes, and the genes that no panel measures, as indices."""
    table = read_array(case.path("landmarks.zarr"), "panel_gene")
    genes = open_store(case.path("landmarks.zarr")).indexes["gene"]
    used = genes.get_indexer(pd.Index(sorted({str(g) for g in table.ravel() if g != ""})))
    targets = np.setdiff1d(np.arange(genes.size), used)
    return genes.get_indexer(pd.Index(table[0])).astype(np.int64), targets.astype(np.int64)


def n_panels(case: Case) -> int:
    """Return how many panels are fitted; the training mean needs no fit."""
    return 1 + N_RANDOM[case.size]


def null_with_dglzarr(case: Case) -> Timed:
    """Time the permutation test: every prediction against the truth of every gene."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((case.n_samples, case.n_genes), np.float32)
    predicted = truth + rng.standard_normal(truth.shape, np.float32)
    return run_here(case, lambda: null_fraction(truth, predicted))


def null_with_limit(case: Case) -> Timed:
    """Time one product of the same size in float32."""
    with threadpool_limits(max(1, case.workers)):
        seconds = product_seconds([(case.n_genes, case.n_samples, case.n_genes)])
    return Timed(seconds, case.n_samples)


ENGINES = {
    "dglzarr": with_dglzarr,
    "sklearn Ridge, in memory": with_sklearn,
    "limit: float32 matrix products": with_limit,
}
NULL_SIZES = {"tiny": (96, 200), "small": (2048, 9520), "full": (11100, 9520)}
NULL_ENGINES = {"dglzarr": null_with_dglzarr, "limit: one matrix product": null_with_limit}
BENCHES = [
    Bench("evaluate", prepare, ENGINES, packages=["scikit-learn"]),
    Bench("evaluate-null", lambda _: None, NULL_ENGINES, sizes=NULL_SIZES),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
