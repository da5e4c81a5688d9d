"""Predictors behind one interface: target genes from the landmarks of a panel, in z units.

Reads ``normalized.zarr`` and ``samples.zarr`` by regions, writes nothing. Whatever a predictor
leaves open (the penalty, the number of neighbours) is chosen on the tuning samples.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.linear import RidgePath, merge_ridge, predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.neighbors import nearest_landmarks, predict_nearest
from dglzarr.models import check_installed
from dglzarr.models.files import MODEL, load_model
from dglzarr.models.quiet import loading_keras
from dglzarr.storage.files import place_of
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import regions, store_input

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.linear import RidgePartial
    from dglzarr.models.files import Layer
    from dglzarr.models.options import DGexOptions

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Matrix = NDArray[np.float32]

PredictorName = Literal["ridge", "knn", "dgex"]

FIT, TUNE, TEST = 0, 1, 2
_TRAINING = "adam in one operation, windows as the batch wants"
"""How networks are trained; those of another way are not used beside them."""


class Predictor(Protocol):
    """A fitted predictor."""

    @property
    def setting(self) -> float:
        """What was chosen on the tuning samples; NaN where nothing is to be chosen."""
        ...

    def predict(self, landmarks: Matrix, targets: slice) -> Matrix:
        """Return some of the targets (sample, target) from all landmarks (sample, landmark)."""
        ...


class Training(NamedTuple):
    """What a predictor is fitted on: stores, and 0 (fit), 1 (tune) or other for each sample."""

    source: str
    samples: str
    fold: NDArray[np.int8]

    def blocks(self, use: int, landmarks: Index, targets: Index) -> Iterator[tuple[Matrix, Matrix]]:
        """Yield landmarks and targets of the samples of one use in z units, missing values at 0.

        A region at a time.
        """
        mean, std = (read_array(self.samples, name) for name in ("gene_mean", "gene_std"))
        rows, chosen = Rows(self.source), np.flatnonzero(self.fold == use)
        for region in regions(self.source):
            here = chosen[(chosen >= region.start) & (chosen < region.stop)]
            if here.size:
                block = rows.take(here)
                yield (
                    standardize(block[:, landmarks], mean[landmarks], std[landmarks]),
                    standardize(block[:, targets], mean[targets], std[targets]),
                )


@dataclass(frozen=True)
class Mean:
    """Predicts the training mean of every target, whatever the landmarks."""

    setting: float = float("nan")

    def predict(self, landmarks: Matrix, targets: slice) -> Matrix:
        """Return zeros: z units are centred on the training mean."""
        return np.zeros((len(landmarks), targets.stop - targets.start), dtype=np.float32)


@dataclass(frozen=True)
class Ridge:
    """Ridge regression with one penalty for all targets."""

    path: RidgePath
    setting: float

    def predict(self, landmarks: Matrix, targets: slice) -> Matrix:
        """Return some of the targets (sample, target)."""
        return predict_ridge(self.path.of(targets), landmarks, [self.setting])[0]


@dataclass(frozen=True)
class Nearest:
    """The mean of the nearest landmarks, as many for every target."""

    nearest: Index
    setting: float

    def predict(self, landmarks: Matrix, targets: slice) -> Matrix:
        """Return some of the targets (sample, target)."""
        return predict_nearest(landmarks, self.nearest[targets], [int(self.setting)])[0]


@dataclass(frozen=True)
class Network:
    """A trained network of dense layers, applied without keras."""

    layers: list[Layer]
    setting: float = float("nan")

    def predict(self, landmarks: Matrix, targets: slice) -> Matrix:
        """Return some of the targets (sample, target)."""
        kernel, bias, activation = self.layers[-1]
        last = (kernel[:, targets], bias[targets], activation)
        out: Matrix = forward([*self.layers[:-1], last], landmarks)[-1][1].astype(np.float32)
        return out


def fit_predictors(
    names: Sequence[str],
    landmarks: Index,
    targets: Index,
    training: Training,
    *,
    alphas: Sequence[float],
    neighbors: Sequence[int],
    network: str | None = None,
) -> dict[str, Predictor]:
    """Return the fitted predictors of a panel by name; without landmarks they predict the mean.

    Parameters
    ----------
    names
        ``"ridge"``, ``"knn"``, ``"dgex"``.
    landmarks, targets
        Genes, as indices.
    training
        The samples to fit and to tune on.
    alphas, neighbors
        Penalties of ridge, numbers of nearest landmarks; the one of lowest error on the tuning
        samples is kept. Numbers above that of the landmarks are left out.
    network
        Folder of the network that `train_network` wrote, for ``"dgex"``.

    Notes
    -----
    One pass over the training samples for all of them, one over the tuning samples for each.
    Memory: landmarks x targets in float64, and one region.
    """
    if not landmarks.size:
        return dict.fromkeys(names, Mean())
    fitted: dict[str, Predictor] = {}
    if "dgex" in names:
        assert network is not None
        fitted["dgex"] = Network(load_model(place_of(network)).layers)
    if not {"ridge", "knn"} & set(names):
        return fitted
    partial = reduce(
        merge_ridge,
        (ridge_partial(x, y) for x, y in training.blocks(FIT, landmarks, targets)),
    )
    if "ridge" in names:
        fitted["ridge"] = _fit_ridge(partial, landmarks, targets, training, alphas)
    if "knn" in names:
        fitted["knn"] = _fit_nearest(partial, landmarks, targets, training, neighbors)
    return fitted


def train_network(
    folder: str,
    landmarks: Index,
    targets: Index,
    training: Training,
    *,
    config: DGexOptions,
    seed: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> str:
    """Return the folder of a panel's trained D-GEX network, under ``folder``.

    It is named by all that it is made from, so that what stands there finished is used and what
    stands there begun goes on.

    Raises
    ------
    DglzarrError
        When the loss is not finite.
    """
    ids = [store_input(uri)["store_id"] for uri in (training.source, training.samples)]
    made_from = hashlib.sha256(json.dumps([_TRAINING, ids, config.model_dump(), seed]).encode())
    for values in (landmarks, targets, training.fold):
        made_from.update(values.tobytes())
    place = place_of(folder, made_from.hexdigest()[:16])
    if not (place / MODEL).exists():
        check_installed("keras", "numba", extra="train")
        with loading_keras():
            from dglzarr.models.dgex import Samples, train_dgex  # noqa: PLC0415  (loads keras)

        mean, std = (read_array(training.samples, name) for name in ("gene_mean", "gene_std"))
        uses = (training.fold == use for use in (FIT, TUNE))
        train_dgex(
            place,
            Samples(Rows(training.source), mean, std, *uses),
            landmarks=landmarks,
            targets=targets,
            options=config,
            seed=seed,
            genes=[str(g) for g in read_array(training.source, "gene")],
            on_progress=on_progress,
        )
    return str(place)


def _fit_ridge(
    partial: RidgePartial,
    landmarks: Index,
    targets: Index,
    training: Training,
    alphas: Sequence[float],
) -> Ridge:
    path = ridge_path(partial)
    errors = np.zeros(len(alphas))
    for x, y in training.blocks(TUNE, landmarks, targets):
        errors += _errors(predict_ridge(path, x, alphas), y)
    return Ridge(path, float(alphas[int(errors.argmin())]))


def _fit_nearest(
    partial: RidgePartial,
    landmarks: Index,
    targets: Index,
    training: Training,
    neighbors: Sequence[int],
) -> Nearest:
    ks = [k for k in neighbors if k <= landmarks.size] or [int(landmarks.size)]
    nearest = nearest_landmarks(partial, max(ks))
    errors = np.zeros(len(ks))
    for x, y in training.blocks(TUNE, landmarks, targets):
        errors += _errors(predict_nearest(x, nearest, ks), y)
    return Nearest(nearest, float(ks[int(errors.argmin())]))


def _errors(predictions: Sequence[Matrix], truth: Matrix) -> NDArray[np.float64]:
    return np.array([np.abs(p - truth).sum(dtype=np.float64) for p in predictions])
