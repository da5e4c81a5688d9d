"""Owns a panel's own genes: how samples are brought to the reference, which are unlike training.

A panel is measured alone, so it is its own genes that a sample is normalized by, that stand in for
a missing one, and that tell whether the sample hangs together as those of training do.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.quantile import apply_quantile

Float64 = NDArray[np.float64]
Matrix = NDArray[np.float32]

PanelScale = Literal["quantile", "shift", "given"]
"""How panel values become those of the study: see `to_study_scale`."""

PANEL_SCALES = get_args(PanelScale)


def to_study_scale(
    values: NDArray[np.floating], scale: PanelScale, *, mean: Float64, reference: Float64
) -> Matrix:
    """Return the values of panel genes as the study has them, (sample, landmark); NaN stays.

    Parameters
    ----------
    values : (sample, landmark), log2; NaN where a gene is not measured
    scale : "quantile" gives the panel genes of a sample the values of the frozen reference by
        their ranks; "shift" adds one number to a sample, so that its mean is that of training;
        "given" takes values that are normalized as the study is
    mean : (landmark,), of the training samples
    reference : (landmark,), ascending: the mean of the panel's order statistics in training

    Notes
    -----
    With "quantile" a missing gene keeps the place that its mean has among the others, so that
    those measured are not spread over ranks that are not theirs.

    Examples
    --------
    >>> mean, reference = np.array([1.0, 2.0, 6.0]), np.array([0.0, 2.0, 7.0])
    >>> to_study_scale(np.array([[30.0, 10.0, 20.0]]), "quantile", mean=mean, reference=reference)
    array([[7., 0., 2.]], dtype=float32)
    >>> to_study_scale(np.array([[3.0, np.nan, 6.0]]), "shift", mean=mean, reference=reference)
    array([[ 2., nan,  5.]], dtype=float32)
    """
    block = np.array(values, dtype=np.float32)
    if scale == "given":
        return block
    missing = np.isnan(block)
    if scale == "shift":
        n_known = np.maximum((~missing).sum(axis=1, keepdims=True), 1)
        block -= np.nansum(block - mean, axis=1, keepdims=True) / n_known
        return block
    for rows, known in patterns(missing):
        if known.all():
            block[rows] = apply_quantile(block[rows], reference)
        elif known.any():
            whole = np.tile(mean.astype(np.float32), (len(rows), 1))
            whole[:, known] = apply_quantile(block[np.ix_(rows, known)], np.sort(mean[known]))
            block[rows] = np.where(known, apply_quantile(whole, reference), np.float32(np.nan))
    return block


def patterns(missing: NDArray[np.bool_]) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return which rows share what is known: their index, and which columns are known.

    Examples
    --------
    >>> patterns(np.array([[False, True], [False, False], [False, True]]))
    [(array([1]), array([ True,  True])), (array([0, 2]), array([ True, False]))]
    """
    if not missing.any():
        return [(np.arange(len(missing)), np.ones(missing.shape[1], dtype=bool))]
    kinds, of = np.unique(missing, axis=0, return_inverse=True)
    return [(np.flatnonzero(of == k), ~kind) for k, kind in enumerate(kinds)]


@dataclass(frozen=True)
class PanelSpace:
    """How the genes of a panel hang together in training: a ridge regression of each on the others.

    ``precision (landmark, landmark)`` is the inverse of their correlation with the penalty on its
    diagonal, in z units.
    """

    precision: Float64

    @classmethod
    def of(cls, correlation: NDArray[np.floating], ridge: float) -> "PanelSpace":
        """Return the space of a correlation (landmark, landmark); ``ridge`` is over 0."""
        whole = correlation.astype(np.float64) + ridge * np.eye(len(correlation))
        return cls(np.asarray(np.linalg.inv(whole), dtype=np.float64))

    def others(self, z: NDArray[np.floating]) -> Float64:
        """Return what each panel gene is less what the others say of it, (sample, landmark)."""
        found: Float64 = (z @ self.precision) / np.diag(self.precision)
        return found

    def novelty(self, z: NDArray[np.floating]) -> Float64:
        """Return how far each sample is from what its own genes say of each other, (sample,).

        The root mean square over panel genes of their standardized difference from what the others
        predict; missing genes do not count.
        """
        known = ~np.isnan(z)
        whole = np.where(known, z, 0.0) if known.all() else self.fill(z)
        u = self.others(whole) * np.sqrt(np.diag(self.precision))
        total = np.where(known, u**2, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return np.sqrt(np.asarray(total, dtype=np.float64))

    def fill(self, z: NDArray[np.floating]) -> Float64:
        """Return z units in which missing panel genes are predicted from the others.

        Examples
        --------
        >>> space = PanelSpace.of(np.array([[1.0, 0.8], [0.8, 1.0]]), 1e-9)
        >>> space.fill(np.array([[2.0, np.nan]])).round(3)
        array([[2. , 1.6]])
        """
        filled = np.array(z, dtype=np.float64)
        for rows, known in patterns(np.isnan(filled)):
            if known.all() or not known.any():
                filled[np.ix_(rows, ~known)] = 0.0
                continue
            among = self.precision[np.ix_(~known, ~known)]
            between = self.precision[np.ix_(~known, known)]
            said = np.linalg.solve(among, between @ filled[np.ix_(rows, known)].T)
            filled[np.ix_(rows, ~known)] = -said.T
        return filled
