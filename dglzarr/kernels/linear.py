"""Owns ridge regression from accumulated normal equations: partial, merged, solved; float64.

References
----------
Hoerl and Kennard (1970), doi 10.1080/00401706.1970.10488634.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class RidgePartial:
    """Sums over n samples: ``xtx (landmark, landmark)``, ``xty (landmark, target)``, x and y."""

    xtx: Float64
    xty: Float64
    x_sum: Float64
    y_sum: Float64
    n: int


def ridge_partial(landmarks: NDArray[np.floating], targets: NDArray[np.floating]) -> RidgePartial:
    """Return the sums that a block of samples adds to the normal equations.

    Parameters
    ----------
    landmarks : (sample, landmark), without missing values
    targets : (sample, target), without missing values

    Raises
    ------
    ValueError
        If a value is missing or infinite.

    Examples
    --------
    >>> ridge_partial(np.array([[1.0], [2.0]]), np.array([[3.0], [5.0]])).xty
    array([[13.]])
    """
    n_samples, n_landmarks = landmarks.shape
    n_targets = targets.shape[1]
    xtx, xty = np.zeros((n_landmarks, n_landmarks)), np.zeros((n_landmarks, n_targets))
    x_sum, y_sum = np.zeros(n_landmarks), np.zeros(n_targets)
    for rows in iter_slices(n_samples, 8 * (n_landmarks + n_targets), limit_nbytes=2**26):
        x, y = landmarks[rows].astype(np.float64), targets[rows].astype(np.float64)
        with np.errstate(invalid="ignore"):  # of infinities, which are refused
            x_sum += x.sum(axis=0)
            y_sum += y.sum(axis=0)
        if not (np.isfinite(x_sum).all() and np.isfinite(y_sum).all()):
            raise ValueError(
                "landmarks, targets: expected finite values, got a missing or infinite one."
            )
        xtx += x.T @ x
        xty += x.T @ y
    return RidgePartial(xtx, xty, x_sum, y_sum, n_samples)


def merge_ridge(a: RidgePartial, b: RidgePartial) -> RidgePartial:
    """Return the sums of two disjoint sets of samples together."""
    return RidgePartial(
        a.xtx + b.xtx, a.xty + b.xty, a.x_sum + b.x_sum, a.y_sum + b.y_sum, a.n + b.n
    )


def without_ridge(total: RidgePartial, part: RidgePartial) -> RidgePartial:
    """Return the sums of all samples but those of a part of them.

    Differences of float64 sums: exact to their rounding, which a penalty over 0 outweighs.
    """
    return RidgePartial(
        total.xtx - part.xtx,
        total.xty - part.xty,
        total.x_sum - part.x_sum,
        total.y_sum - part.y_sum,
        total.n - part.n,
    )


@dataclass(frozen=True)
class RidgePath:
    """Ridge solutions of all penalties, on the principal axes of the landmarks.

    ``axes (landmark, axis)``, ``spread (axis,)``, ``rotated (axis, target)``: the normal equations
    on these axes; ``smallest`` is the spread that rounding may leave of none.
    """

    axes: Float64
    spread: Float64
    rotated: Float64
    x_mean: Float64
    y_mean: Float64
    smallest: float

    def of(self, targets: slice) -> "RidgePath":
        """Return the solutions of some targets alone."""
        return replace(self, rotated=self.rotated[:, targets], y_mean=self.y_mean[targets])


def ridge_path(partial: RidgePartial) -> RidgePath:
    """Return the solutions of all penalties, from one eigendecomposition.

    Raises
    ------
    ValueError
        If there is no sample.
    """
    if partial.n == 0:
        raise ValueError("ridge: expected at least one sample, got none.")
    x_mean, y_mean = partial.x_sum / partial.n, partial.y_sum / partial.n
    xtx = partial.xtx - np.outer(partial.x_sum, x_mean)
    xty = partial.xty - np.outer(partial.x_sum, y_mean)
    spread, axes = scipy.linalg.eigh(xtx)
    smallest = len(spread) * np.finfo(np.float64).eps * max(spread[-1], np.trace(partial.xtx))
    return RidgePath(axes, spread, axes.T @ xty, x_mean, y_mean, float(smallest))


def predict_ridge(
    path: RidgePath, landmarks: NDArray[np.floating], alphas: Sequence[float]
) -> list[NDArray[np.float32]]:
    """Return the targets (sample, target) that the landmarks predict, for each penalty.

    Parameters
    ----------
    path : what `ridge_path` returned
    landmarks : (sample, landmark)
    alphas : penalties

    Raises
    ------
    ValueError
        If an alpha is negative.

    Notes
    -----
    Samples are few beside landmarks, so they are turned onto the axes instead of turning the
    solutions back: a penalty costs samples x landmarks x targets, in float32.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> predict_ridge(ridge_path(ridge_partial(x, 3 * x + 1)), np.array([[4.0]]), [0.0])
    [array([[13.]], dtype=float32)]
    """
    turned = (landmarks - path.x_mean) @ path.axes
    rotated = path.rotated.astype(np.float32)
    return [
        (turned * _inverse(path, alpha)).astype(np.float32) @ rotated
        + path.y_mean.astype(np.float32)
        for alpha in alphas
    ]


def ridge_coefficients(
    path: RidgePath, alpha: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return coefficients (landmark, target) and intercepts (target,) of one penalty.

    Raises
    ------
    ValueError
        If the alpha is negative.

    Examples
    --------
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> ridge_coefficients(ridge_path(ridge_partial(x, 3 * x + 1)), 0.0)
    (array([[3.]], dtype=float32), array([1.], dtype=float32))
    """
    coefficients = path.axes @ (_inverse(path, alpha)[:, None] * path.rotated)
    intercepts = path.y_mean - path.x_mean @ coefficients
    return coefficients.astype(np.float32), intercepts.astype(np.float32)


def _inverse(path: RidgePath, alpha: float) -> Float64:
    """Return one over spread plus penalty, 0 on axes along which there is nothing to solve."""
    if alpha < 0:
        raise ValueError(f"alpha: expected 0 or more, got {alpha!r}.")
    is_solvable = path.spread + alpha > path.smallest
    inverse = np.zeros_like(path.spread)
    return np.divide(1.0, path.spread + alpha, where=is_solvable, out=inverse)
