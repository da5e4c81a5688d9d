"""Owns per-gene error and correlation from sums over blocks of samples: of a block, and their use.

Sums of disjoint blocks are merged by addition. Values are taken to be of order 1 (z units), so that
float64 sums lose nothing that matters. A sample whose truth is missing for a gene does not count.
"""

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices

STATISTICS = ("n", "error", "truth", "predicted", "truth^2", "predicted^2", "product")

_MIN_SAMPLES = 3


def sum_agreement(
    truth: NDArray[np.floating], predicted: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the sums (statistic, gene) over the samples of a block; `STATISTICS` names them.

    Parameters
    ----------
    truth, predicted : (sample, gene); missing truth is NaN

    Examples
    --------
    >>> sum_agreement(np.array([[1.0], [np.nan], [3.0]]), np.array([[2.0], [0.0], [3.0]])).tolist()
    [[2.0], [1.0], [4.0], [5.0], [10.0], [13.0], [11.0]]
    """
    total = np.zeros((len(STATISTICS), truth.shape[1]))
    for rows in iter_slices(len(truth), 64 * truth.shape[1]):
        t, p = truth[rows].astype(np.float64), predicted[rows].astype(np.float64)
        is_known = ~np.isnan(t)
        t, p = np.where(is_known, t, 0.0), np.where(is_known, p, 0.0)
        parts = (is_known, np.abs(t - p), t, p, t * t, p * p, t * p)
        total += np.stack([part.sum(axis=0) for part in parts])
    return total


def finish_agreement(total: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean absolute error and Pearson r of every gene, (gene,); NaN where undefined.

    The correlation is undefined with fewer than 3 samples, or where truth or prediction do not
    vary.

    Examples
    --------
    >>> truth = np.array([[1.0], [2.0], [3.0]])
    >>> [x.tolist() for x in finish_agreement(sum_agreement(truth, -truth))]
    [[4.0], [-1.0]]
    """
    n, error, t, p, tt, pp, tp = total
    count = np.maximum(n, 1)
    spread_t, spread_p = tt - t * t / count, pp - p * p / count
    is_defined = (n >= _MIN_SAMPLES) & (spread_t > 1e-12 * tt) & (spread_p > 1e-12 * pp)
    scale = np.sqrt(np.where(is_defined, spread_t * spread_p, np.nan))
    return np.where(n > 0, error / count, np.nan), np.clip((tp - t * p / count) / scale, -1, 1)
