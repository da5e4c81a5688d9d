"""Predictors behind one interface: target genes from the landmarks of a panel, in z units.

Reads ``normalized.zarr`` and ``samples.zarr`` by regions, writes nothing. Whatever a predictor
leaves open (the penalty, the number of neighbours) is chosen on samples that are held back from its
fit: the validation samples, or else whole training series in turn.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from dglzarr.evaluation.sketch import INNER_FOLDS
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.linear import (
    RidgePath,
    merge_ridge,
    predict_ridge,
    ridge_partial,
    ridge_path,
    without_ridge,
)
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.neighbors import nearest_landmarks, predict_nearest
from dglzarr.kernels.split import inner_folds
from dglzarr.models import check_installed
from dglzarr.models.files import MODEL, load_model
from dglzarr.models.quiet import loading_keras
from dglzarr.sources.chosen import studies_of
from dglzarr.storage.files import place_of
from dglzarr.storage.rows import Rows, read_array, read_arrays
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
    Tried = Callable[[Matrix], Sequence[Matrix]]

PredictorName = Literal["ridge", "knn", "dgex"]

FIT, TUNE, TEST = 0, 1, 2
N_CHOOSING = 2048
"""Targets at most on which the penalty and the number of neighbours are chosen, evenly drawn."""
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
    """What a predictor is fitted on: stores, the samples to fit on, and those to choose on.

    ``held`` are parts, (sample,) each. What a predictor leaves open is chosen on each part when the
    others were fitted on; the fit itself takes all of ``fit``, parts of it too.
    """

    source: str
    samples: str
    fit: Mask
    held: tuple[Mask, ...]

    def blocks(
        self, wanted: Mask, landmarks: Index, targets: Index
    ) -> Iterator[tuple[Matrix, Matrix]]:
        """Yield landmarks and targets of some samples in z units, missing values at 0.

        A region at a time.
        """
        mean, std = read_arrays(self.samples, "gene_mean", "gene_std")
        rows, chosen = Rows(self.source), np.flatnonzero(wanted)
        for region in regions(self.source):
            here = chosen[(chosen >= region.start) & (chosen < region.stop)]
            if here.size:
                block = rows.take(here)
                yield (
                    standardize(block[:, landmarks], mean[landmarks], std[landmarks]),
                    standardize(block[:, targets], mean[targets], std[targets]),
                )

    def sums(self, wanted: Mask, landmarks: Index, targets: Index) -> RidgePartial:
        """Return the normal equations of some samples."""
        blocks = self.blocks(wanted, landmarks, targets)
        return reduce(merge_ridge, (ridge_partial(x, y) for x, y in blocks))


def training_of(
    source: str, samples: str, fold: NDArray[np.int8], *, n_parts: int = INNER_FOLDS
) -> Training:
    """Return what predictors of a study are fitted on, and chosen on.

    Parameters
    ----------
    source, samples : URIs of the normalized and samples stores
    fold : (sample,), 0 (fit), 1 (validation) or others
    n_parts : of the training samples, held back in turn where there is no validation sample;
        samples of one series stay together, where there are several
    """
    if (fold == TUNE).any():
        return Training(source, samples, fold == FIT, (fold == TUNE,))
    chosen = np.flatnonzero(fold == FIT)
    part = np.full(fold.size, -1)
    studies = studies_of(read_array(source, "series")[chosen])
    part[chosen] = inner_folds(studies, n_folds=n_parts, seed=0)
    held = tuple(part == k for k in range(int(part.max(initial=-1)) + 1))
    return Training(source, samples, fold == FIT, held)


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
        The samples to fit on, and those to choose on.
    alphas, neighbors
        Penalties of ridge, numbers of nearest landmarks; the one of lowest error on the samples
        held back is kept. Numbers above that of the landmarks are left out.
    network
        Folder of the network that `train_network` wrote, for ``"dgex"``.

    Notes
    -----
    One pass over the training samples for all of them; for each a pass over the samples held back,
    of 2048 targets at most, and one more where they are training samples. Memory: landmarks x
    targets in float64, and one region.
    """
    if not landmarks.size:
        return dict.fromkeys(names, Mean())
    fitted: dict[str, Predictor] = {}
    if "dgex" in names:
        assert network is not None
        fitted["dgex"] = Network(load_model(place_of(network)).layers)
    if not {"ridge", "knn"} & set(names):
        return fitted
    total = training.sums(training.fit, landmarks, targets)
    choosing = _Choosing(training, landmarks, targets, total)
    if "ridge" in names:
        chosen = alphas[0] if len(alphas) == 1 else choosing.penalty(alphas)
        fitted["ridge"] = Ridge(ridge_path(total), float(chosen))
    if "knn" in names:
        k = choosing.number([k for k in neighbors if k <= landmarks.size] or [landmarks.size])
        fitted["knn"] = Nearest(nearest_landmarks(total, k), float(k))
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
    for values in (landmarks, targets, training.fit, training.held[0]):
        made_from.update(values.tobytes())
    place = place_of(folder, made_from.hexdigest()[:16])
    if not (place / MODEL).exists():
        check_installed("keras", "numba", extra="train")
        with loading_keras():
            from dglzarr.models.dgex import Samples, train_dgex  # noqa: PLC0415  (loads keras)

        mean, std = read_arrays(training.samples, "gene_mean", "gene_std")
        stops = training.held[0]
        train_dgex(
            place,
            Samples(Rows(training.source), mean, std, training.fit & ~stops, stops),
            landmarks=landmarks,
            targets=targets,
            options=config,
            seed=seed,
            genes=[str(g) for g in read_array(training.source, "gene")],
            on_progress=on_progress,
        )
    return str(place)


class _Choosing:
    """What is left open in a fit, chosen on the samples that are held back from it."""

    def __init__(
        self, training: Training, landmarks: Index, targets: Index, total: RidgePartial
    ) -> None:
        some = np.arange(0, targets.size, -(-targets.size // N_CHOOSING))
        self._training, self._landmarks, self._targets = training, landmarks, targets[some]
        self._total = replace(total, xty=total.xty[:, some], y_sum=total.y_sum[some])

    def penalty(self, alphas: Sequence[float]) -> float:
        """Return the penalty of ridge regression."""

        def tried(sums: RidgePartial) -> Tried:
            path = ridge_path(sums)
            return lambda x: predict_ridge(path, x, alphas)

        return alphas[self._least(tried, len(alphas))]

    def number(self, ks: Sequence[int]) -> int:
        """Return the number of nearest landmarks."""

        def tried(sums: RidgePartial) -> Tried:
            nearest = nearest_landmarks(sums, max(ks))
            return lambda x: predict_nearest(x, nearest, ks)

        return ks[self._least(tried, len(ks))]

    def _least(self, fit: Callable[[RidgePartial], Tried], n_choices: int) -> int:
        """Return which choice has the lowest error over all parts that are held back."""
        training, genes = self._training, (self._landmarks, self._targets)
        errors = np.zeros(n_choices)
        for held in training.held:
            sums = self._total
            if (held & training.fit).any():
                sums = without_ridge(sums, training.sums(held, *genes))
            predict = fit(sums)
            for x, y in training.blocks(held, *genes):
                errors += [np.abs(p - y).sum(dtype=np.float64) for p in predict(x)]
        return int(errors.argmin())
