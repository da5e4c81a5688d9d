"""Predictors behind one interface: target genes from the landmarks of a panel, in z units.

Reads ``normalized.zarr`` and ``samples.zarr`` by regions, writes nothing. Whatever a predictor
leaves open (the penalty, the number of neighbours) is chosen on the tuning samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from dglzarr.kernels.linear import RidgePath, merge_ridge, predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.neighbors import nearest_landmarks, predict_nearest
from dglzarr.rows import Rows, read_array
from dglzarr.store import regions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.linear import RidgePartial

    Mask = NDArray[np.bool_]
    Index = NDArray[np.int64]
    Matrix = NDArray[np.float32]

PredictorName = Literal["ridge", "knn"]

FIT, TUNE, TEST = 0, 1, 2


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

    def blocks(self, use: int) -> Iterator[Matrix]:
        """Yield the samples of one use in z units, a region at a time, missing values at 0."""
        mean, std = (read_array(self.samples, name) for name in ("gene_mean", "gene_std"))
        rows, chosen = Rows(self.source), self.fold == use
        for region in regions(self.source):
            if (here := chosen[region.rows]).any():
                yield standardize(rows[region.rows][here], mean, std)


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


def fit_predictors(
    names: Sequence[str],
    landmarks: Index,
    targets: Index,
    training: Training,
    *,
    alphas: Sequence[float],
    neighbors: Sequence[int],
) -> dict[str, Predictor]:
    """Return the fitted predictors of a panel by name; without landmarks they predict the mean.

    Parameters
    ----------
    names
        ``"ridge"``, ``"knn"``.
    landmarks, targets
        Genes, as indices.
    training
        The samples to fit and to tune on.
    alphas, neighbors
        Penalties of ridge, numbers of nearest landmarks; the one of lowest error on the tuning
        samples is kept. Numbers above that of the landmarks are left out.

    Notes
    -----
    One pass over the training samples for all of them, one over the tuning samples for each.
    Memory: landmarks x targets in float64, and one region.
    """
    if not landmarks.size:
        return dict.fromkeys(names, Mean())
    partial = reduce(
        merge_ridge,
        (ridge_partial(z[:, landmarks], z[:, targets]) for z in training.blocks(FIT)),
    )
    fitted: dict[str, Predictor] = {}
    if "ridge" in names:
        fitted["ridge"] = _fit_ridge(partial, landmarks, targets, training, alphas)
    if "knn" in names:
        fitted["knn"] = _fit_nearest(partial, landmarks, targets, training, neighbors)
    return fitted


def _fit_ridge(
    partial: RidgePartial,
    landmarks: Index,
    targets: Index,
    training: Training,
    alphas: Sequence[float],
) -> Ridge:
    path = ridge_path(partial)
    errors = np.zeros(len(alphas))
    for z in training.blocks(TUNE):
        errors += _errors(predict_ridge(path, z[:, landmarks], alphas), z[:, targets])
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
    for z in training.blocks(TUNE):
        errors += _errors(predict_nearest(z[:, landmarks], nearest, ks), z[:, targets])
    return Nearest(nearest, float(ks[int(errors.argmin())]))


def _errors(predictions: Sequence[Matrix], truth: Matrix) -> NDArray[np.float64]:
    return np.array([np.abs(p - truth).sum(dtype=np.float64) for p in predictions])
