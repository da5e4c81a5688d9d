"""Fits what a bundle predicts with, and how wide its intervals are, on series that were left out.

Reads ``normalized.zarr`` and ``samples.zarr`` by regions, writes nothing. Ridge regression in z
units of the kept training samples; penalty, intervals, and what is like training are found by
leaving whole series out. The panel itself is given: it was chosen with these series.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.intervals import (
    group_spread,
    interval_factor,
    weighted_quantile,
    without_each,
)
from dglzarr.kernels.linear import (
    RidgePartial,
    merge_ridge,
    predict_ridge,
    ridge_coefficients,
    ridge_partial,
    ridge_path,
    without_ridge,
)
from dglzarr.kernels.moments import standardize
from dglzarr.kernels.panel_space import PANEL_SCALES, PanelSpace, to_study_scale
from dglzarr.kernels.penalties import ALPHAS
from dglzarr.kernels.quantile import finish_quantile, merge_quantile, sum_sorted
from dglzarr.kernels.split import inner_folds
from dglzarr.sources.chosen import studies_of
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import regions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from dglzarr.storage.options import Progress

    Index = NDArray[np.int64]
    Float64 = NDArray[np.float64]
    Matrix = NDArray[np.float32]

N_FOLDS, N_GROUPS = 10, 30
"""Parts that are left out in turn; groups of series that intervals are calibrated over, at most."""

N_TUNED, N_OF_GROUP = 2048, 64
"""Genes that the penalty and the factor are chosen on; samples of a group that the factor sees."""

LEVEL, NOVELTY_LEVEL = 0.95, 0.99
_BLOCK = 256
_LEAST = 8


@dataclass(frozen=True, eq=False)
class Training:
    """Samples of a study, some of which are fitted on; genes of its panel, and those predicted.

    Attributes
    ----------
    source, samples
        URIs of the normalized and samples stores.
    landmarks, targets
        Genes, as indices.
    """

    source: str
    samples: str
    landmarks: Index
    targets: Index

    @property
    def moments(self) -> tuple[Float64, Float64]:
        """Mean and deviation of every gene, (gene,)."""
        mean, std = (read_array(self.samples, name) for name in ("gene_mean", "gene_std"))
        return mean, std

    def blocks(self, chosen: Index, targets: Index) -> Iterator[tuple[Index, Matrix, Matrix]]:
        """Yield some samples, a few at a time.

        Their places among those chosen, values of the panel in log2, and targets in z units; NaN
        where missing.
        """
        mean, std = (values[targets] for values in self.moments)
        rows = Rows(self.source)
        for region in regions(self.source):
            here = np.flatnonzero((chosen >= region.start) & (chosen < region.stop))
            for start in range(0, here.size, _BLOCK):
                some = here[start : start + _BLOCK]
                block = rows.take(chosen[some])
                z = standardize(block[:, targets], mean, std)
                z[np.isnan(block[:, targets])] = np.nan
                yield some, block[:, self.landmarks], z


class Groups(NamedTuple):
    """What is left out together: the group of each sample, and the fold of each group."""

    group: Index
    fold: Index
    are_series: bool

    @property
    def fold_of_sample(self) -> Index:
        """The fold of each sample."""
        return self.fold[self.group]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What left-out series say, by scale (`PANEL_SCALES`), in z units.

    Attributes
    ----------
    half_width, mean_half_width
        Half the width of each gene's interval, (scale, gene), and of one around the training mean.
    explained
        1 - mean square error / that of the training mean, (scale, gene).
    factor
        By what spreads were multiplied, (scale,).
    error, mean_error
        Mean absolute error, (scale,), and that of the training mean.
    landmark_mse
        Mean square error of each panel gene where the others stand in for it, (landmark,).
    novelty_usual, novelty_limit
        Median and 99 % of the novelty of samples, (scale,).
    """

    half_width: Float64
    mean_half_width: Float64
    explained: Float64
    factor: Float64
    error: Float64
    mean_error: float
    landmark_mse: Float64
    novelty_usual: Float64
    novelty_limit: Float64


@dataclass(frozen=True, eq=False)
class Fitted:
    """A panel's predictor, in z units, with its intervals.

    Attributes
    ----------
    alpha
        The penalty.
    coefficient, intercept
        (landmark, target) and (target,).
    correlation
        Of panel genes, (landmark, landmark).
    reference, low, high
        The panel's mean order statistics, and each gene's range, in log2, (landmark,).
    left_out
        What left-out series say.
    n_samples, n_groups, are_series
        Samples fitted on; groups left out; whether these are whole series.
    """

    alpha: float
    coefficient: Matrix
    intercept: Matrix
    correlation: Float64
    reference: Float64
    low: Matrix
    high: Matrix
    left_out: Calibration
    n_samples: int
    n_groups: int
    are_series: bool


def training_groups(series: list[str], seed: int) -> Groups:
    """Return which samples are left out together: whole series, or samples where there is one.

    Examples
    --------
    >>> training_groups(["a", "a", "b"], 0)
    Groups(group=array([0, 0, 1]), fold=array([0, 1]), are_series=True)
    """
    group = inner_folds(series, n_folds=N_GROUPS, seed=seed)
    _, group = np.unique(group, return_inverse=True)
    labels = [str(g) for g in range(int(group.max()) + 1)]
    fold = np.arange(len(labels)) % N_FOLDS
    return Groups(group.astype(np.int64), fold, len(set(series)) > 1)


def fit_panel(data: Training, *, seed: int = 0, on_progress: Progress | None = None) -> Fitted:
    """Return the predictor of a panel, fitted on the kept training samples.

    Parameters
    ----------
    data
        The study, the panel and what is predicted.
    seed
        Of the groups, and of the genes that the penalty is chosen on.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When there are too few samples.

    Notes
    -----
    The store is read five times, by regions. Memory: four times landmarks x targets in
    float64, and a block of samples.
    """
    chosen = np.flatnonzero(kept_samples(data.source, data.samples)).astype(np.int64)
    if chosen.size < _LEAST:
        raise ConfigError(
            f"bundle: expected at least {_LEAST} kept training samples, got {chosen.size}. Add "
            "sources to the study."
        )
    groups = training_groups(studies_of(read_array(data.source, "series")[chosen]), seed)
    return _Fit(data, chosen, groups, seed).run(on_progress or (lambda *_: None))


class _Fit:
    """One fit: what all its steps share."""

    def __init__(self, data: Training, chosen: Index, groups: Groups, seed: int) -> None:
        self._data, self._chosen, self._groups = data, chosen, groups
        mean, std = data.moments
        self._mean, self._std = mean[data.landmarks], std[data.landmarks]
        n = data.targets.size
        tuned = np.random.default_rng([seed, 3]).permutation(n)[:N_TUNED]
        self._tuned: Index = np.sort(tuned)
        self._n_folds = int(groups.fold.max()) + 1
        self._n_groups = groups.fold.size
        self._alphas = [alpha * chosen.size for alpha in ALPHAS]

    def run(self, tell: Progress) -> Fitted:
        what = "fitting the panel"
        n_steps = 2 * self._n_folds + 1
        tell(what, 0, n_steps)
        total, reference, low, high = self._total()
        errors = np.zeros(len(self._alphas))
        for k in range(self._n_folds):
            errors += self._tuning_errors(total, k)
            tell(what, k + 1, n_steps)
        alpha = self._alphas[int(errors.argmin())]
        left_out = _LeftOut(self._n_groups, self._data.targets.size, self._data.landmarks.size)
        for k in range(self._n_folds):
            self._judge_fold(total, k, alpha, reference, left_out)
            tell(what, self._n_folds + k + 1, n_steps)
        coefficient, intercept = ridge_coefficients(ridge_path(total), alpha)
        tell(what, n_steps, n_steps)
        return Fitted(
            alpha=alpha,
            coefficient=coefficient,
            intercept=intercept,
            correlation=total.xtx / total.n,
            reference=reference,
            low=low,
            high=high,
            left_out=left_out.finish(self._tuned),
            n_samples=self._chosen.size,
            n_groups=self._n_groups,
            are_series=self._groups.are_series,
        )

    def _z(self, panel: Matrix) -> Matrix:
        return standardize(panel, self._mean, self._std)

    def _total(self) -> tuple[RidgePartial, Float64, Matrix, Matrix]:
        """Return the sums of all samples, the panel's reference, and its range in training."""
        partials: list[RidgePartial] = []
        sums = []
        low = np.full(self._mean.size, np.inf, dtype=np.float32)
        high = -low
        for _, panel, y in self._data.blocks(self._chosen, self._data.targets):
            part = ridge_partial(self._z(panel), np.nan_to_num(y))
            partials = [reduce(merge_ridge, [*partials, part])]
            whole = np.where(np.isnan(panel), self._mean.astype(np.float32), panel)
            sums.append(sum_sorted(whole))
            low, high = np.minimum(low, whole.min(axis=0)), np.maximum(high, whole.max(axis=0))
        reference = finish_quantile(reduce(merge_quantile, sums))
        return partials[0], reference, low, high

    def _of_fold(self, k: int) -> Index:
        return np.flatnonzero(self._groups.fold_of_sample == k)

    def _without(self, total: RidgePartial, k: int, targets: Index) -> RidgePartial:
        """Return the sums of all samples but a fold's; ``total`` is of the same targets."""
        parts = (
            ridge_partial(self._z(panel), np.nan_to_num(y))
            for _, panel, y in self._data.blocks(self._chosen[self._of_fold(k)], targets)
        )
        return without_ridge(total, reduce(merge_ridge, parts))

    def _tuning_errors(self, total: RidgePartial, k: int) -> Float64:
        """Return the error of each penalty on the samples of a fold, over some of the targets."""
        some, tuned = self._data.targets[self._tuned], self._tuned
        of_some = RidgePartial(
            total.xtx, total.xty[:, tuned], total.x_sum, total.y_sum[tuned], total.n
        )
        path = ridge_path(self._without(of_some, k, some))
        errors = np.zeros(len(self._alphas))
        for _, panel, y in self._data.blocks(self._chosen[self._of_fold(k)], some):
            said = predict_ridge(path, self._z(panel), self._alphas)
            errors += [float(np.nansum(np.abs(p - y), dtype=np.float64)) for p in said]
        return errors

    def _judge_fold(
        self, total: RidgePartial, k: int, alpha: float, reference: Float64, left_out: _LeftOut
    ) -> None:
        """Add what predictors of the other folds say of one's samples."""
        others = self._without(total, k, self._data.targets)
        path, space = ridge_path(others), PanelSpace.of(others.xtx / others.n, alpha / total.n)
        places = self._of_fold(k)
        for at, panel, y in self._data.blocks(self._chosen[places], self._data.targets):
            group = self._groups.group[places[at]]
            left_out.add_mean(y - path.y_mean.astype(np.float32), group, self._tuned)
            for s, scale in enumerate(PANEL_SCALES):
                values = to_study_scale(panel, scale, mean=self._mean, reference=reference)
                z = self._z(values)
                said = predict_ridge(path, z, [alpha])[0]
                left_out.add(s, said - y, group, self._tuned)
                left_out.novelty[s].append(space.novelty(z))
                if scale == "quantile":
                    left_out.add_landmarks(space.others(z), group)
            left_out.group.append(group)


class _LeftOut:
    """Residuals of samples that were left out: mean squares by group, and some of them."""

    def __init__(self, n_groups: int, n_targets: int, n_landmarks: int) -> None:
        shape = (len(PANEL_SCALES) + 1, n_groups, n_targets)  # the last is the training mean
        self._squares, self._count = np.zeros(shape), np.zeros(shape[1:])
        self._absolute = np.zeros(shape[:2])
        self._landmarks, self._n_of = np.zeros((n_groups, n_landmarks)), np.zeros(n_groups)
        self._some: list[list[Matrix]] = [[] for _ in range(shape[0])]
        self._some_group: list[Index] = []
        self._n_some = np.zeros(n_groups, dtype=np.int64)
        self.novelty: list[list[Float64]] = [[] for _ in PANEL_SCALES]
        self.group: list[Index] = []

    def add_mean(self, residual: Matrix, group: Index, tuned: Index) -> None:
        """Add the residuals of the training mean; the first of a block."""
        self._taken = self._take(group)
        self._some_group.append(group[self._taken])
        known = ~np.isnan(residual)
        for one in np.unique(group):
            self._count[one] += known[group == one].sum(axis=0)
            self._n_of[one] += (group == one).sum()
        self.add(len(PANEL_SCALES), residual, group, tuned)

    def add(self, s: int, residual: Matrix, group: Index, tuned: Index) -> None:
        """Add the residuals (sample, target) of one way of measuring."""
        self._some[s].append(residual[np.ix_(self._taken, tuned)])
        for one in np.unique(group):
            of = np.nan_to_num(residual[group == one])
            self._squares[s, one] += np.square(of, dtype=np.float64).sum(axis=0)
            self._absolute[s, one] += np.abs(of).sum(dtype=np.float64)

    def add_landmarks(self, residual: Float64, group: Index) -> None:
        """Add what panel genes are less what the others say of them, (sample, landmark)."""
        for one in np.unique(group):
            self._landmarks[one] += np.square(residual[group == one]).sum(axis=0)

    def _take(self, group: Index) -> Index:
        """Return which samples of a block the factor sees: the first of each group."""
        taken = []
        for place, one in enumerate(group):
            if self._n_some[one] < N_OF_GROUP:
                self._n_some[one] += 1
                taken.append(place)
        return np.array(taken, dtype=np.int64)

    def finish(self, tuned: Index) -> Calibration:
        """Return intervals, errors and limits."""
        with np.errstate(invalid="ignore"):
            squares = self._squares / np.where(self._count > 0, self._count, np.nan)
        group = np.concatenate(self._some_group)
        factors = np.array(
            [
                interval_factor(np.concatenate(some), without_each(of[:, tuned]), group)
                for some, of in zip(self._some, squares, strict=True)
            ]
        )
        widths = factors[:, None] * np.stack([group_spread(of) for of in squares])
        whole = self._squares.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = 1 - whole[:-1] / whole[-1]
        errors = self._absolute.sum(axis=1) / self._count.sum()
        usual, limit = self._novelty_levels()
        return Calibration(
            half_width=widths[:-1],
            mean_half_width=widths[-1],
            explained=np.nan_to_num(explained, nan=0.0, neginf=0.0),
            factor=factors[:-1],
            error=errors[:-1],
            mean_error=float(errors[-1]),
            landmark_mse=(self._landmarks / self._n_of[:, None]).mean(axis=0),
            novelty_usual=usual,
            novelty_limit=limit,
        )

    def _novelty_levels(self) -> tuple[Float64, Float64]:
        """Return the median novelty of left-out samples and their limit, groups counting alike."""
        group = np.concatenate(self.group)
        weight = 1 / np.bincount(group)[group]
        levels = [
            [weighted_quantile(np.concatenate(of), weight, level) for of in self.novelty]
            for level in (0.5, NOVELTY_LEVEL)
        ]
        return np.array(levels[0]), np.array(levels[1])
