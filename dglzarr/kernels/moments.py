"""Owns per-gene mean and standard deviation: of a chunk, merged over chunks, and their use.

References
----------
Chan, Golub and LeVeque (1983), doi 10.1080/00031305.1983.10483115.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.compiled import compiled
from dglzarr.kernels.slices import iter_slices

_SHIFT_SAMPLES = 16
_CACHE_NBYTES = 2**20  # of a slice that stays in the processor's cache from step to step


@dataclass(frozen=True)
class Moments:
    """Number of values, their mean, and the sum of squared deviations; all ``(gene,)``."""

    count: NDArray[np.float64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]


def chunk_moments(block: NDArray[np.floating]) -> Moments:
    """Return the moments of the genes of a block (sample, gene), missing values ignored.

    Examples
    --------
    >>> chunk_moments(np.array([[1.0, 5.0], [3.0, np.nan]])).mean
    array([2., 5.])
    """
    n_genes = block.shape[1]
    moments = Moments(np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes))
    for rows in iter_slices(len(block), 8 * n_genes):
        moments = merge_moments(moments, _slice_moments(block[rows]))
    return moments


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Return the moments of two disjoint sets of samples together."""
    count = a.count + b.count
    share = b.count / np.maximum(count, 1)
    delta = b.mean - a.mean
    return Moments(count, a.mean + delta * share, a.m2 + b.m2 + delta**2 * a.count * share)


def finish_moments(moments: Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and population standard deviation, NaN for genes without values.

    Examples
    --------
    >>> finish_moments(chunk_moments(np.array([[1.0], [3.0]])))
    (array([2.]), array([1.]))
    """
    is_known = moments.count > 0
    variance = moments.m2 / np.maximum(moments.count, 1)
    return np.where(is_known, moments.mean, np.nan), np.where(is_known, np.sqrt(variance), np.nan)


def standardize(
    block: NDArray[np.floating], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return z-scores (sample, gene); missing values and genes without spread become 0.

    Parameters
    ----------
    block : (sample, gene)
    mean, std : (gene,)

    Examples
    --------
    >>> standardize(np.array([[4.0, 7.0], [np.nan, 7.0]]), np.array([2.0, 7.0]), np.array([4.0, 0]))
    array([[0.5, 0. ],
           [0. , 0. ]], dtype=float32)
    """
    return Standardizer(mean, std)(block)


class Standardizer:
    """Makes z-scores as `standardize` does, prepared once for many blocks.

    Parameters
    ----------
    mean, std : (gene,)
    limit_nbytes : bytes of the values that are worked on at once

    Notes
    -----
    In float32: the mean is off by at most half a unit in its last place, as the values are.
    """

    def __init__(
        self,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        *,
        limit_nbytes: int = _CACHE_NBYTES // 2,
    ) -> None:
        has_spread = std > 0
        scale = np.divide(1.0, std, where=has_spread, out=np.zeros_like(std))
        self._center = np.where(has_spread, mean, 0.0).astype(np.float32)
        self._scale = scale.astype(np.float32)
        self._limit_nbytes = limit_nbytes

    def __call__(
        self, block: NDArray[np.floating], out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return the z-scores of a block (sample, gene), in ``out`` where it is given."""
        result = np.empty(block.shape, dtype=np.float32) if out is None else out
        for rows in iter_slices(len(block), 4 * block.shape[1], limit_nbytes=self._limit_nbytes):
            z = np.subtract(block[rows], self._center, out=result[rows], casting="same_kind")
            z *= self._scale
            if np.isnan(z.max(initial=0.0)):
                z[np.isnan(z)] = 0.0
        return result

    def take(
        self, block: NDArray[np.float32], index: NDArray[np.int64], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the z-scores of the rows of a block at an index, made in one pass, in ``out``.

        Bit for bit what a call makes of ``block[index]``. The index is not checked.
        """
        compiled(_take)(block, index, self._center, self._scale, out)
        return out


def _take(
    block: NDArray[np.float32],
    index: NDArray[np.int64],
    center: NDArray[np.float32],
    scale: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write z-scores of some rows; the loops are meant to be compiled.

    Two rows at a time, which share what is loaded of the moments. The last of an odd number is
    its own neighbour.
    """
    last = index.size - 1
    for i in range(0, index.size, 2):
        j = min(i + 1, last)
        row, next_row = block[index[i]], block[index[j]]
        for gene in range(center.size):
            z = (row[gene] - center[gene]) * scale[gene]
            next_z = (next_row[gene] - center[gene]) * scale[gene]
            out[i, gene] = np.float32(0.0) if np.isnan(z) else z
            out[j, gene] = np.float32(0.0) if np.isnan(next_z) else next_z


def _complete_moments(block: NDArray[np.floating]) -> Moments:
    """Return the moments of a block without missing values, summed about a typical sample.

    Sample by sample, so that the running sums stay in the processor's cache.
    """
    shift = block[:_SHIFT_SAMPLES].mean(axis=0, dtype=np.float64)
    total, squares = np.zeros(block.shape[1]), np.zeros(block.shape[1])
    deviation = np.empty(block.shape[1])
    for sample in block:
        np.subtract(sample, shift, out=deviation)
        total += deviation
        deviation *= deviation
        squares += deviation
    m2 = np.maximum(squares - total**2 / len(block), 0.0)
    return Moments(np.full(block.shape[1], float(len(block))), shift + total / len(block), m2)


def _slice_moments(block: NDArray[np.floating]) -> Moments:
    is_known = ~np.isnan(block)
    if is_known.all():
        return _complete_moments(block)
    values = block.astype(np.float64)
    count = is_known.sum(axis=0, dtype=np.float64)
    mean = np.where(is_known, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    deviation = np.where(is_known, values - mean, 0.0)
    return Moments(count, mean, np.einsum("sg,sg->g", deviation, deviation))
