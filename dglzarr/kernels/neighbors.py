"""Owns the k-nearest-genes predictor: a target is the mean of the landmarks nearest to it.

References
----------
Chen et al. (2016), doi 10.1093/bioinformatics/btw074 (KNN-GE).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.linear import RidgePartial
from dglzarr.kernels.slices import iter_slices


def nearest_landmarks(partial: RidgePartial, k: int) -> NDArray[np.int64]:
    """Return the k landmarks nearest to each target (target, k), nearest first, ties by index.

    Near in Euclidean distance over the samples whose sums `partial` holds: the squared distance is
    a landmark's square less twice its product with the target, but for the target's own square.

    Parameters
    ----------
    partial : sums over all samples
    k : at most the number of landmarks

    Raises
    ------
    ValueError
        If there are fewer landmarks.

    Examples
    --------
    >>> from dglzarr.kernels.linear import ridge_partial
    >>> x = np.array([[0.0, 5.0], [1.0, 6.0]])
    >>> nearest_landmarks(ridge_partial(x, np.array([[4.0], [6.0]])), 1)
    array([[1]])
    """
    n_landmarks, n_targets = partial.xty.shape
    if not 1 <= k <= n_landmarks:
        raise ValueError(f"neighbors: expected 1 to {n_landmarks}, got {k!r}.")
    square = np.diag(partial.xtx)[:, np.newaxis]
    nearest = np.empty((n_targets, k), dtype=np.int64)
    for targets in iter_slices(n_targets, 24 * n_landmarks):
        distance = square - 2 * partial.xty[:, targets]
        nearest[targets] = np.argsort(distance, axis=0, kind="stable")[:k].T
    return nearest


def predict_nearest(
    landmarks: NDArray[np.floating], nearest: NDArray[np.int64], ks: Sequence[int]
) -> list[NDArray[np.float32]]:
    """Return the mean of the nearest landmarks (sample, target), for each number of them.

    Parameters
    ----------
    landmarks : (sample, landmark)
    nearest : (target, k), what `nearest_landmarks` returned
    ks : numbers of neighbours, each at most k

    Examples
    --------
    >>> predict_nearest(np.array([[1.0, 3.0]]), np.array([[1, 0]]), [1, 2])
    [array([[3.]], dtype=float32), array([[2.]], dtype=float32)]
    """
    total = np.zeros((len(landmarks), len(nearest)), dtype=np.float32)
    found: dict[int, NDArray[np.float32]] = {}
    for k in range(1, max(ks) + 1):
        total += landmarks[:, nearest[:, k - 1]]
        if k in ks:
            found[k] = total / np.float32(k)
    return [found[k] for k in ks]
