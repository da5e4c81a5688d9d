"""Owns the components that a network begins with: spherical, every series of equal weight.

A sample far from the mean would turn the axes to itself, and a large series to itself; so each
sample is scaled to unit length, and each series counts alike. What such axes rebuild of other
series is better than what plain ones do (docs/reproduce.md).

References
----------
Locantore et al. (1999), doi 10.1007/BF02595862: spherical principal components.
Halko, Martinsson and Tropp (2011), doi 10.1137/090771806: subspace iteration on many samples.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.panels import principal_axes

Blocks = Callable[[], Iterable[NDArray[np.float32]]]

N_DIRECT = 2048
"""Up to so many samples the components are exact; of more, evenly spaced ones give a start."""

_N_EXTRA = 10  # directions beyond those wanted, which subspace iteration needs
_N_PASSES = 2


def series_weights(series: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the weight of each sample (sample,): those of a series have squares that add to 1.

    Examples
    --------
    >>> series_weights(np.array(["a", "b", "b", "b", "b"], dtype=object)).tolist()
    [1.0, 0.5, 0.5, 0.5, 0.5]
    """
    _, code, count = np.unique(series.astype(object), return_inverse=True, return_counts=True)
    return np.asarray(1 / np.sqrt(count[code]), dtype=np.float32)


def spherical_components(
    blocks: Blocks, weight: NDArray[np.float32], n_axes: int
) -> NDArray[np.float32]:
    """Return orthonormal axes (axis, gene), the longest first; fewer where samples span fewer.

    Parameters
    ----------
    blocks : called for each pass; yields the samples in order, (sample, gene), z units, missing 0
    weight : of each sample (sample,), as `series_weights` gives it
    n_axes : axes at most

    Notes
    -----
    Up to 2,048 samples take one pass and are exact; more take three: evenly spaced samples give a
    start, and two steps of subspace iteration over all of them follow. Memory is that of a block,
    of 2,048 samples and of twice the axes.

    Examples
    --------
    >>> samples = np.array([[9.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.5, 0.0]], np.float32)
    >>> abs(spherical_components(lambda: [samples], np.ones(3, np.float32), 1)).tolist()
    [[0.0, 1.0, 0.0]]
    """
    chosen = np.unique(np.linspace(0, len(weight) - 1, min(N_DIRECT, len(weight))).astype(np.int64))
    first = np.concatenate(
        [rows[_within(chosen, start, rows)] for start, rows in _rows(blocks, weight)]
    )
    if len(chosen) == len(weight):
        return _axes(first, n_axes)
    axes = _axes(first, n_axes + _N_EXTRA)
    del first
    for _ in range(_N_PASSES):
        total = np.zeros(axes.shape, np.float64)  # (axis, gene)
        for _start, rows in _rows(blocks, weight):
            total += (rows @ axes.T).T @ rows
        _, square, turned = np.linalg.svd(total, full_matrices=False)
        axes = turned[square > 0].astype(np.float32)
    return axes[:n_axes]


def _axes(rows: NDArray[np.float32], n_axes: int) -> NDArray[np.float32]:
    """Return the axes that rows have a length along; those of rounding alone are left out."""
    axes, length = principal_axes(rows, 1.0, n_most=n_axes)
    return axes[length > 1e-3 * length[0]] if length[0] > 0 else axes[:0]


def _rows(blocks: Blocks, weight: NDArray[np.float32]) -> Iterable[tuple[int, NDArray[np.float32]]]:
    """Yield where each block begins, and its samples: of unit length, times their weight."""
    start = 0
    for block in blocks():
        length = np.sqrt(np.einsum("sg,sg->s", block, block, dtype=np.float64))
        scale = np.divide(
            weight[start : start + len(block)], length, where=length > 0, out=np.zeros(len(block))
        )
        yield start, block * scale[:, np.newaxis].astype(np.float32)
        start += len(block)


def _within(chosen: NDArray[np.int64], start: int, rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return which rows of a block are among some samples."""
    first, last = np.searchsorted(chosen, [start, start + len(rows)])
    return chosen[first:last] - start
