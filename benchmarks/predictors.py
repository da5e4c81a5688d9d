"""Predictors of all other genes from one panel, on held-out series of real data, with their speed.

    python benchmarks/predictors.py --folder ../shared/data --root sizes --panel-size 200

The folds are those of benchmarks/panel_sizes.py, and so is the root: data that are there are kept.
In each fold a greedy panel is chosen on the training series, every predictor is fitted on them, and
whatever it leaves open is chosen on the fold's validation series; it predicts 4,096 drawn genes
that the panel does not measure, of the series that are held out. Prints the mean absolute error,
its difference to ridge regression with a 95 % interval over series, the seconds of a fit, choices
included, and the samples predicted a second. *Any panel*: what serves every panel without a fit of
its own, here used with this one. Errors of a fold are kept in the root by predictor.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
from small_networks import Network, train

from dglzarr.cli import guarded
from dglzarr.evaluation.predictors import fit_predictors, train_network, training_of
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.components import series_weights, spherical_components
from dglzarr.kernels.linear import predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.panels import principal_axes, select_panel
from dglzarr.models.options import DGexOptions
from dglzarr.stages.evaluate import EvaluateOptions, fit_and_test
from dglzarr.storage.files import put
from dglzarr.storage.schemas import NORMALIZED, SAMPLES
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]
    Predict = Callable[[Matrix, NDArray[Any]], Matrix]
    """Samples of the panel and their series in, targets out."""
    Serve = Callable[[Matrix, Index], Matrix]
    """Samples of any panel and the panel in, targets out."""

PACKAGE = {"nearest landmarks": "knn", "D-GEX": "dgex"}
RANKS, NEIGHBORS, WIDTHS = (10, 30, 100, 200), (1, 3, 5, 10, 20, 40), (0.1, 0.3, 1.0, 3.0)
DGEX = DGexOptions(hidden=1000, batch_size=32)
"""Smaller than the default, with more steps an epoch: the folds have some 350 samples to fit on."""

EPOCHS, PATIENCE, BATCH = 60, 8, 32
"""Of the networks that are no part of the package."""

SERVED = (400, 20)
"""The masked network is trained on panels of a 400th to a 20th of the genes: 55 to 1,113."""


# ---------------------------------------------------------------- fitted on one panel


class Data(NamedTuple):
    """What a predictor of one panel is fitted on: samples of the panel, of its targets, series."""

    x: Matrix
    y: Matrix
    series: NDArray[Any]


def ridge(fit: Data, _: Data) -> Iterator[Predict]:
    """Yield ridge regression with each penalty."""
    path = ridge_path(ridge_partial(fit.x, fit.y))
    for alpha in ALPHAS:
        yield lambda new, _, alpha=alpha: predict_ridge(path, new, [alpha])[0]


def reduced_rank(fit: Data, _: Data) -> Iterator[Predict]:
    """Yield ridge regression whose predictions lie on the first axes of those of training."""
    path = ridge_path(ridge_partial(fit.x, fit.y))
    for alpha in ALPHAS[::2]:
        axes, _ = principal_axes(predict_ridge(path, fit.x, [alpha])[0], 1.0, n_most=max(RANKS))
        for rank in (rank for rank in RANKS if rank <= len(axes)):
            yield (
                lambda new, _, alpha=alpha, own=axes[:rank]: (
                    predict_ridge(path, new, [alpha])[0] @ own.T @ own
                )
            )


def kernel_ridge(fit: Data, _: Data) -> Iterator[Predict]:
    """Yield ridge regression in the space of a Gaussian kernel of each width and penalty."""
    for width, alpha in product(WIDTHS, (0.01, 0.1, 1.0, 10.0)):
        model = KernelRidge(alpha=alpha, kernel="rbf", gamma=width / fit.x.shape[1])
        model.fit(fit.x, fit.y)
        yield lambda new, _, model=model: model.predict(new)


def nearest_samples(fit: Data, _: Data) -> Iterator[Predict]:
    """Yield the mean of the nearest training samples, the nearer counting more."""
    for k in (k for k in NEIGHBORS if k <= len(fit.x)):
        model = KNeighborsRegressor(k, weights="distance").fit(fit.x, fit.y)
        yield lambda new, _, model=model: model.predict(new)


def centred(fit: Data, _: Data) -> Iterator[Predict]:
    """Yield ridge regression of what is left when each series' own mean is taken off.

    Of a new series the mean of its panel is taken off, and that of its targets is unknown: 0.
    """
    parts = (values - means_of(values, fit.series) for values in (fit.x, fit.y))
    path = ridge_path(ridge_partial(*parts))
    for alpha in ALPHAS:
        yield lambda new, series, alpha=alpha: predict_ridge(
            path, new - means_of(new, series), [alpha]
        )[0]


def means_apart(fit: Data, tune: Data) -> Iterator[Predict]:
    """Yield two ridge regressions: of the means of series, and of deviations from them."""
    parts = [means_of(values, fit.series) for values in (fit.x, fit.y)]
    path = ridge_path(ridge_partial(*parts))
    for alpha, within in product(ALPHAS[::2], list(centred(fit, tune))[::2]):
        yield (
            lambda new, series, alpha=alpha, within=within: (
                predict_ridge(path, means_of(new, series), [alpha])[0] + within(new, series)
            )
        )


def means_of(values: Matrix, series: NDArray[Any]) -> Matrix:
    """Return for each sample the mean of its series, (sample, gene)."""
    names, code = np.unique(series, return_inverse=True)
    return np.stack([values[code == k].mean(axis=0) for k in range(len(names))])[code]


def network_from_ridge(fit: Data, tune: Data) -> Iterator[Predict]:
    """Yield a network that is ridge regression at first: 256 units of tanh come to it."""
    start, rng = best(ridge, fit, tune), np.random.default_rng(0)
    n = fit.x.shape[1]
    bias = start(np.zeros((1, n), dtype=np.float32), fit.series[:1])
    skip = start(np.eye(n, dtype=np.float32), fit.series[:n]) - bias
    first = rng.standard_normal((n, 256)) / np.sqrt(n)
    network = Network(first, np.zeros((256, fit.y.shape[1])), bias=bias[0], skip=skip, relu=False)

    def epoch() -> None:
        for rows in np.array_split(rng.permutation(len(fit.x)), max(1, len(fit.x) // BATCH)):
            network.learn(fit.x[rows], _squared(fit.y[rows]), 1e-4)

    def error() -> float:
        return float(np.abs(network.predict(tune.x) - tune.y).mean())

    at = train(network, epoch, error, n=EPOCHS, patience=PATIENCE)
    sys.stderr.write(f"network from ridge: best epoch {at}\n")
    yield lambda new, _: network.predict(new)


def _squared(truth: Matrix, counts: NDArray[np.bool_] | None = None) -> Callable[[Matrix], Matrix]:
    """Return the gradient of the squared error, the mean over samples, at some outputs."""

    def gradient(out: Matrix) -> Matrix:
        wrong = (out - truth) / np.float32(len(truth))
        return wrong if counts is None else wrong * counts

    return gradient


WAYS: dict[str, Callable[[Data, Data], Iterator[Predict]]] = {
    "ridge": ridge,
    "reduced-rank ridge": reduced_rank,
    "kernel ridge": kernel_ridge,
    "nearest samples": nearest_samples,
    "network from ridge": network_from_ridge,
    "ridge, series centred": centred,
    "ridge, series' means apart": means_apart,
}


def best(way: Callable[[Data, Data], Iterator[Predict]], fit: Data, tune: Data) -> Predict:
    """Return the one of a way that predicts the tuning samples best."""
    return min(
        way(fit, tune), key=lambda made: float(np.abs(made(tune.x, tune.series) - tune.y).mean())
    )


# ---------------------------------------------------------------- serving any panel


def components(fold: Fold, to: Index) -> Iterator[Serve]:
    """Yield components whose coordinates are those that the panel makes most likely.

    Each gene is the components and noise of its own, each coordinate as large as in training.
    """
    weight = series_weights(fold.fit_series)
    axes = spherical_components(lambda: [fold.fit], weight, 200)
    along = fold.fit @ axes.T
    for n, wide in product((30, 100, 200), (0.1, 0.3, 1.0, 3.0, 10.0)):
        own, spread = axes[:n], along[:, :n].var(axis=0)
        noise = np.maximum((fold.fit - along[:, :n] @ own).var(axis=0), 0.05)

        def serve(
            new: Matrix, panel: Index, own: Matrix = own, spread: Matrix = spread,
            noise: Matrix = noise, wide: float = wide,
        ) -> Matrix:  # fmt: skip
            seen = own[:, panel] / noise[panel]
            inner = seen @ own[:, panel].T + np.diag(1 / (wide * spread))
            return np.asarray(np.linalg.solve(inner, seen @ new.T).T @ own[:, to], np.float32)

        yield serve


def masked(fold: Fold, to: Index) -> Iterator[Serve]:
    """Yield a network of all genes that is trained on a panel drawn anew at each step.

    Its units begin at components and their mirror images, each shrunk as far as a panel of middle
    size leaves it uncertain. What a panel does not measure is out of the sum, which is scaled up.
    """
    rng, varying = np.random.default_rng(0), np.flatnonzero(fold.varies)
    least, most = (max(2, varying.size // share) for share in SERVED)
    middle = int(np.sqrt(least * most))
    network = _shrunk_components(fold, to, varying.size / middle)

    def serve(new: Matrix, panel: Index) -> Matrix:
        return network.predict(new * np.float32(varying.size / panel.size), panel)

    def epoch() -> None:
        for rows in np.array_split(rng.permutation(len(fold.fit)), max(1, len(fold.fit) // BATCH)):
            size = int(np.exp(rng.uniform(np.log(least), np.log(most))))
            panel = rng.choice(varying, size, replace=False)
            x = fold.fit[np.ix_(rows, panel)] * np.float32(varying.size / size)
            network.learn(x, _squared(fold.fit[np.ix_(rows, to)], ~np.isin(to, panel)), 1e-4, panel)

    def error() -> float:
        draws = (np.random.default_rng(k).permutation(varying)[:middle] for k in range(3))
        truth = fold.tune[:, to]
        return float(np.mean([np.abs(serve(fold.tune[:, p], p) - truth).mean() for p in draws]))

    at = train(network, epoch, error, n=2 * EPOCHS, patience=PATIENCE)
    sys.stderr.write(f"masked network: best epoch {at}\n")
    yield serve


def _shrunk_components(fold: Fold, to: Index, scale: float) -> Network:
    """Return a network that rebuilds genes from 100 components of noise ``scale``."""
    axes = spherical_components(lambda: [fold.fit], series_weights(fold.fit_series), 100)
    spread = (fold.fit @ axes.T).var(axis=0)
    back = axes[:, to] * (spread / (spread + scale))[:, None]
    first, second = np.hstack([axes.T, -axes.T]), np.vstack([back, -back])
    return Network(first, second, bias=np.zeros(to.size), skip=None, relu=True)


ANY: dict[str, Callable[[Fold, Index], Iterator[Serve]]] = {
    "components, any panel": components,
    "masked network, any panel": masked,
}


def best_served(
    way: Callable[[Fold, Index], Iterator[Serve]], fold: Fold, panel: Index, to: Index
) -> Predict:
    """Return the one of a way that predicts the tuning samples best, for a panel."""
    x, truth = fold.tune[:, panel], fold.tune[:, to]
    serve = min(way(fold, to), key=lambda serve: float(np.abs(serve(x, panel) - truth).mean()))
    return lambda new, _: serve(new, panel)


# ---------------------------------------------------------------- of the package, and errors


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
            asked["network"] = train_network(folder, panel, to, training, config=DGEX, seed=0)
        fitted = fit_predictors([name], panel, to, training, **asked)[name]
    return lambda new, _: fitted.predict(new, slice(0, to.size))


def judge(
    uris: tuple[str, str], names: Sequence[str], size: int, n_judged: int = N_JUDGED
) -> dict[str, Any]:
    """Return the mean errors of a fold's samples, (sample,), by predictor; and what it took.

    What stands in the fold's folder is read.
    """
    kept = Path(uris[0]).parent / f"predictors-{size}-{n_judged}.json"
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if set(names) <= found.keys():
        return found
    fold = read_fold(*uris)
    sketch = sketch_training(*uris, np.full(fold.varies.size, np.nan), seed=0)
    panel = select_panel("greedy", sketch, size)
    open_ = np.setdiff1d(np.flatnonzero(fold.varies), panel)
    to = np.sort(np.random.default_rng(0).permutation(open_)[:n_judged])
    truth, x = fold.held[:, to], fold.held[:, panel]
    found |= {"series": [str(s) for s in fold.series], "mean": np.abs(truth).mean(axis=1).tolist()}
    for name in (name for name in names if name not in found):
        start = time.perf_counter()
        predict = _fitted(name, fold, uris, panel, to)
        middle = time.perf_counter()
        found[name] = np.abs(predict(x, fold.series) - truth).mean(axis=1).tolist()
        rate = len(x) / (time.perf_counter() - middle)
        found[f"{name}/speed"] = [middle - start, rate]
        sys.stderr.write(f"{name}: {np.mean(found[name]):.4f}, {middle - start:.1f} s\n")
        put(str(kept), json.dumps(found).encode())
    return found


def _fitted(name: str, fold: Fold, uris: tuple[str, str], panel: Index, to: Index) -> Predict:
    if name in ANY:
        return best_served(ANY[name], fold, panel, to)
    if name in PACKAGE:
        return of_package(PACKAGE[name], uris, panel, to)
    fit, tune = (
        Data(z[:, panel], z[:, to], series)
        for z, series in ((fold.fit, fold.fit_series), (fold.tune, fold.tune_series))
    )
    return best(WAYS[name], fit, tune)


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
    every = [*WAYS, *ANY, *PACKAGE]
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
