"""How well networks rebuild series that they have not seen, beside components and the mean.

    python benchmarks/network.py --root real --seeds 5 --networks default "default at 1e-3"
    python benchmarks/network.py --simulated

With a root, of a study whose samples are normalized: its training series make inner folds, whose
networks, moments and components see nothing of the series they are judged on. Held-out series of
the study are not looked at. Simulated: expression that bends, of 16,384 samples, whose generator
stands below. Prints the mean absolute error in z units, one column a fold, and their mean; then, of
each network, the epoch whose weights were kept, with the loss on the samples that are held back
before training and after the best epoch of it: on each fold, and of all training series with
several seeds. A seed is of training alone: it draws the series held back and the order of samples.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import KONG2021

from dglzarr.cli import guarded
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.components import series_weights, spherical_components
from dglzarr.kernels.moments import chunk_moments, finish_moments, standardize
from dglzarr.kernels.panels import principal_axes
from dglzarr.kernels.split import hold_back
from dglzarr.models.batches import Batches
from dglzarr.models.quiet import loading_keras
from dglzarr.stages.train import TrainOptions
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.study import open_study

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]

NETWORKS: dict[str, dict[str, Any]] = {
    "default": {},
    "default at 1e-3": {"learning_rate": 1e-3},
    "default from random weights": {"start": "random", "learning_rate": 1e-3},
    "linear from random weights": {
        "start": "random",
        "learning_rate": 1e-3,
        "is_linear": True,
    },
    "20 epochs, none held back": {"epochs": 20, "held_back": 0.0},
    "20 epochs, none held back, noise": {
        "epochs": 20,
        "held_back": 0.0,
        "dropout": 0.2,
        "dropout_position": "input",
    },
    "20 epochs at 1e-3, none held back": {
        "epochs": 20,
        "held_back": 0.0,
        "learning_rate": 1e-3,
    },
    "paper's": KONG2021,
}


class Held:
    """A matrix in memory that gives some of its rows."""

    def __init__(self, values: Matrix) -> None:
        self.values, self.shape = values, values.shape

    def read_into(
        self,
        ascending: NDArray[np.int64],
        out: Matrix,
        places: NDArray[np.int64],
        *,
        is_compiled: bool = False,
    ) -> None:
        """Write the rows at an index to their places."""
        del is_compiled
        out[places] = self.values[ascending]


def simulated(n_samples: int, n_genes: int, seed: int = 20261129) -> Matrix:
    """Return samples whose genes are sums of 200 programs, each a bent function of 20 causes."""
    rng = np.random.default_rng(seed)
    causes, mixing = rng.normal(size=(n_samples, 20)), rng.normal(size=(20, 200)) / np.sqrt(20)
    programs = np.tanh(2 * causes @ mixing + 0.5 * rng.normal(size=200))
    signal = programs @ rng.normal(size=(200, n_genes))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    noise = rng.normal(size=signal.shape)
    return np.asarray(np.sqrt(0.7) * signal + np.sqrt(0.3) * noise, np.float32)


def rebuilt(
    train: Matrix, series: NDArray[Any], test: Matrix, names: Sequence[str], seeds: Sequence[int]
) -> Iterator[tuple[str, Matrix, str]]:
    """Yield what each method makes of test samples, in z units of the training samples.

    And what is to be told of a network's training.
    """
    n = TrainOptions().n_latent
    yield "mean of each gene", np.zeros_like(test), ""
    some = train[np.unique(np.linspace(0, len(train) - 1, 2048).astype(int))]
    for n_plain in (30, n):
        axes, _ = principal_axes(some, 1.0, n_most=n_plain)
        yield f"{n_plain} principal components", test @ axes.T @ axes, ""
    weights = {
        "": np.ones(len(train), np.float32),
        ", series of equal weight": series_weights(series),
    }
    for how, weight in weights.items():
        axes = spherical_components(lambda: [train], weight, n)
        yield f"{n} spherical components{how}", test @ axes.T @ axes, ""
    for name in names:
        for seed in seeds:
            yield f"network: {name}", *network(train, series, test, NETWORKS[name], seed)


def network(
    train: Matrix, series: NDArray[Any], test: Matrix, asked: Mapping[str, Any], seed: int
) -> tuple[Matrix, str]:
    """Return what a network makes of test samples, trained as the stage does it, and its epochs.

    Where ``is_linear`` is asked for, its hidden layers are.
    """
    options = TrainOptions(**{name: value for name, value in asked.items() if name != "is_linear"})
    with loading_keras():
        from keras.activations import linear  # noqa: PLC0415

        from dglzarr.models.autoencoder import begin_with_components, build_autoencoder  # noqa: PLC0415
        from dglzarr.models.train import Schedule, fit  # noqa: PLC0415
    common: dict[str, Any] = {
        "mean": np.zeros(train.shape[1]), "std": np.ones(train.shape[1]), "options": options,
        "seed": seed,
    }  # fmt: skip
    held = hold_back(series, options.held_back, seed=seed)
    batches = Batches(Held(train), keep=~held, **common)
    validation = Batches(Held(train), keep=held, share=batches, **common) if held.any() else None

    def begin(rows: Matrix, of: NDArray[Any]) -> None:
        axes = spherical_components(lambda: [rows], series_weights(of), options.n_latent)
        begin_with_components(model, axes)

    model = build_autoencoder(train.shape[1], options, seed=seed)
    if asked.get("is_linear"):
        for layer in model.layers:
            layer.activation = linear
    starts = options.start == "components"
    if starts:
        begin(train[~held], series[~held])
    patience = options.patience if validation else None
    schedule = Schedule(options.epochs, options.learning_rate, patience, judges_start=starts)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            model, batches, schedule, validation=validation, checkpoint=Path(folder, "checkpoint")
        )
    told = f"{history.best_epoch} of {history.last_epoch}"
    if starts and validation:
        trained = np.min(history.val_loss[1:])
        told += f" ({history.val_loss[0]:.4f}, {trained:.4f})"
    if starts and not history.best_epoch:
        begin(train, series)
    made = model.predict(test, batch_size=256, verbose=0) if len(test) else test
    return np.asarray(made), told


def inner_folds(
    root: str, n_folds: int, n_genes: int
) -> Iterator[tuple[Matrix, NDArray[Any], Matrix]]:
    """Yield training samples, their series, and the samples to rebuild, by a study's series.

    At last all training samples, with none to rebuild. Of more genes some are drawn.
    """
    study = open_study(root)
    source, samples = study.uris("normalized")[0], study.uris("samples")[0]
    keep = np.flatnonzero(kept_samples(source, samples))
    values = Rows(source).take(keep)
    if n_genes < values.shape[1]:
        drawn = np.random.default_rng(0).permutation(values.shape[1])[:n_genes]
        values = values[:, np.sort(drawn)]
    series = read_array(source, "series")[keep].astype(object)
    names = np.random.default_rng(0).permutation(sorted(set(series.tolist())))
    for k in range(n_folds):
        is_test = np.isin(series, names[k::n_folds])
        moments = finish_moments(chunk_moments(values[~is_test]))
        yield (
            standardize(values[~is_test], *moments), series[~is_test],
            standardize(values[is_test], *moments),
        )  # fmt: skip
    z = standardize(values, *finish_moments(chunk_moments(values)))
    yield z, series, z[:0]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="real", help="a study whose samples are normalized")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--samples", type=int, default=16_384)
    parser.add_argument("--genes", type=int, help="2,000 simulated ones, or all of a study")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=1, help="of all training series")
    asked = parser.parse_args()
    if asked.simulated:
        values = simulated(asked.samples + 2048, asked.genes or 2_000)
        series = np.arange(asked.samples).astype(str).astype(object)
        folds: Any = [(values[:-2048], series, values[-2048:])]
    else:
        folds = inner_folds(asked.root, asked.folds, asked.genes or sys.maxsize)
    found: dict[str, list[float]] = {}
    epochs: dict[str, list[str]] = {}
    for train, of, test in folds:
        start = time.monotonic()
        seeds = range(1 if len(test) else asked.seeds)
        for name, values, told in rebuilt(train, of, test, asked.networks, seeds):
            if len(test):
                found.setdefault(name, []).append(float(np.abs(values - test).mean()))
            if told:
                epochs.setdefault(name, []).append(told)
            seconds = time.monotonic() - start
            print(f"{name}: {found[name][-1]:.4f}, {seconds:.0f} s {told}", file=sys.stderr)
    for name, errors in found.items():
        shown = " | ".join(f"{error:.4f}" for error in errors)
        print(f"| {name} | {shown} | **{np.mean(errors):.4f}** |")
    for name, said in epochs.items():
        print(f"{name}: best epoch of all (loss before, after the best): {'; '.join(said)}")


if __name__ == "__main__":
    sys.exit(guarded(main))
