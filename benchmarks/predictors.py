"""Predictors of all other genes from one panel, on held-out series of real data, with their speed.

    python benchmarks/predictors.py --folder ../shared/data --root sizes --panel-size 200

The folds are those of benchmarks/panel_sizes.py, and so is the root: data that are there are kept.
In each fold a greedy panel is chosen on the training series, every predictor is fitted on them, and
whatever it leaves open is chosen on the fold's validation series; it predicts 4,096 drawn genes
that the panel does not measure, of the series that are held out. Prints the mean absolute error,
its difference to ridge regression with a 95 % interval over series, the seconds of a fit, choices
included, and the samples predicted a second. D-GEX is trained where it is named.
"""

from __future__ import annotations

import sys
import tempfile
import time
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from common import show_row
from panel_sizes import (
    ALPHAS,
    N_JUDGED,
    Fold,
    asked_settings,
    difference,
    made_fold,
    parser_of,
    read_fold,
)
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import KNeighborsRegressor

from dglzarr.cli import guarded
from dglzarr.evaluation.predictors import fit_predictors, train_network, training_of
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.linear import predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.panels import principal_axes, select_panel
from dglzarr.models.options import DGexOptions
from dglzarr.stages.evaluate import EvaluateOptions, fit_and_test
from dglzarr.storage.schemas import NORMALIZED, SAMPLES
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]
    Predict = Callable[[Matrix], Matrix]

PACKAGE = {"nearest landmarks": "knn", "D-GEX": "dgex"}
RANKS, NEIGHBORS, WIDTHS = (10, 30, 100, 200), (1, 3, 5, 10, 20, 40), (0.1, 0.3, 1.0, 3.0)


def ridge(x: Matrix, y: Matrix) -> Iterator[Predict]:
    """Yield ridge regression with each penalty."""
    path = ridge_path(ridge_partial(x, y))
    for alpha in ALPHAS:
        yield lambda new, alpha=alpha: predict_ridge(path, new, [alpha])[0]


def reduced_rank(x: Matrix, y: Matrix) -> Iterator[Predict]:
    """Yield ridge regression whose predictions lie on the first axes of those of training."""
    path = ridge_path(ridge_partial(x, y))
    for alpha in ALPHAS[::2]:
        axes, _ = principal_axes(predict_ridge(path, x, [alpha])[0], 1.0, n_most=max(RANKS))
        for rank in (rank for rank in RANKS if rank <= len(axes)):
            yield (
                lambda new, alpha=alpha, own=axes[:rank]: (
                    predict_ridge(path, new, [alpha])[0] @ own.T @ own
                )
            )


def kernel_ridge(x: Matrix, y: Matrix) -> Iterator[Predict]:
    """Yield ridge regression in the space of a Gaussian kernel of each width and penalty."""
    for width, alpha in product(WIDTHS, (0.01, 0.1, 1.0, 10.0)):
        model = KernelRidge(alpha=alpha, kernel="rbf", gamma=width / x.shape[1])
        yield model.fit(x, y).predict


def nearest_samples(x: Matrix, y: Matrix) -> Iterator[Predict]:
    """Yield the mean of the nearest training samples, the nearer counting more."""
    for k in (k for k in NEIGHBORS if k <= len(x)):
        yield KNeighborsRegressor(k, weights="distance").fit(x, y).predict


WAYS: dict[str, Callable[[Matrix, Matrix], Iterator[Predict]]] = {
    "ridge": ridge,
    "reduced-rank ridge": reduced_rank,
    "kernel ridge": kernel_ridge,
    "nearest samples": nearest_samples,
}


def best(
    way: Callable[[Matrix, Matrix], Iterator[Predict]], fold: Fold, panel: Index, to: Index
) -> Predict:
    """Return the one of a way that predicts the tuning samples best."""
    x, truth = fold.tune[:, panel], fold.tune[:, to]
    made = way(fold.fit[:, panel], fold.fit[:, to])
    return min(made, key=lambda predict: float(np.abs(predict(x) - truth).mean()))


def of_package(name: str, uris: tuple[str, str], panel: Index, to: Index) -> Predict:
    """Return a predictor of the package, fitted as `evaluate` does."""
    source, samples = uris
    split, keep = (
        open_store(source, NORMALIZED)["split"].values,
        open_store(samples, SAMPLES)["keep"],
    )
    training = training_of(source, samples, fit_and_test(split, keep.values))
    asked: Any = {"alphas": (), "neighbors": EvaluateOptions().neighbors}
    with tempfile.TemporaryDirectory() as folder:
        if name == "dgex":
            asked["network"] = train_network(
                folder, panel, to, training, config=DGexOptions(), seed=0
            )
        fitted = fit_predictors([name], panel, to, training, **asked)[name]
    return lambda new: fitted.predict(new, slice(0, to.size))


def judge(
    uris: tuple[str, str], names: Sequence[str], size: int, n_judged: int = N_JUDGED
) -> dict[str, Any]:
    """Return the mean errors of a fold's samples, (sample,), by predictor; and what it took."""
    fold = read_fold(*uris)
    sketch = sketch_training(*uris, np.full(fold.varies.size, np.nan), seed=0)
    panel = select_panel("greedy", sketch, size)
    open_ = np.setdiff1d(np.flatnonzero(fold.varies), panel)
    to = np.sort(np.random.default_rng(0).permutation(open_)[:n_judged])
    found: dict[str, Any] = {"series": [str(s) for s in fold.series]}
    truth, x = fold.held[:, to], fold.held[:, panel]
    found["mean"] = np.abs(truth).mean(axis=1).tolist()
    for name in names:
        start = time.perf_counter()
        if name in WAYS:
            predict = best(WAYS[name], fold, panel, to)
        else:
            predict = of_package(PACKAGE[name], uris, panel, to)
        middle = time.perf_counter()
        found[name] = np.abs(predict(x) - truth).mean(axis=1).tolist()
        rate = len(x) / (time.perf_counter() - middle)
        found[f"{name}/speed"] = [middle - start, rate]
        sys.stderr.write(f"{name}: {np.mean(found[name]):.4f}, {middle - start:.1f} s\n")
    return found


def show(folds: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Print a row a predictor."""
    show_row("predictor", "MAE", "minus ridge", "95 %", "s to fit", "samples/s")
    show_row(*["---"] * 6)
    for name in ("mean", *names):
        told = [f"{np.concatenate([fold[name] for fold in folds]).mean():.4f}"]
        if name != "ridge":
            mean, low, high = difference(folds, name, "ridge")
            told += [f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}"]
        else:
            told += ["", ""]
        if name != "mean":
            seconds, rate = np.median([fold[f"{name}/speed"] for fold in folds], axis=0)
            told += [f"{seconds:.1f}", f"{rate:,.0f}"]
        show_row(name, *told)


def main() -> None:
    """Judge the predictors, print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--panel-size", type=int, default=200)
    parser.add_argument("--folds", type=int, default=5)
    every = [*WAYS, *PACKAGE]
    parser.add_argument("--predictors", nargs="+", choices=every, default=every)
    asked = parser.parse_args()
    settings = asked_settings(asked)
    names = list(dict.fromkeys(["ridge", *asked.predictors]))
    folds = []
    for k in range(asked.folds):
        fold = made_fold(settings, k, asked.folds)
        folds.append(judge((fold.uri("normalized"), fold.uri("samples")), names, asked.panel_size))
    show(folds, names)


if __name__ == "__main__":
    sys.exit(guarded(main))
