"""Owns quantile normalization: the common reference of many samples, and its application.

Samples are rows. Missing values are NaN and stay NaN; infinite values are refused. The rules for
missing values and for a reference of another length are preprocessCore's: positions are
percentiles, and values between two quantiles are interpolated linearly.

References
----------
Bolstad et al. (2003), doi 10.1093/bioinformatics/19.2.185.
"""

import sys
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dglzarr.kernels.slices import iter_slices

Ties = Literal["midrank", "tie-mean", "dgex"]
Floats = NDArray[np.float32] | NDArray[np.float64]

_SIGN = np.uint32(0x80000000)
_LAST = np.uint32(0xFFFFFFFF)


@dataclass(frozen=True)
class QuantilePartial:
    """Sum of the ascending values of some samples, ``total (quantile,)``, and their number."""

    total: NDArray[np.float64]
    n_samples: int


def sum_sorted(block: ArrayLike) -> QuantilePartial:
    """Return the sum over samples of their ascending values.

    A sample with missing values counts with its values interpolated onto the full length; a sample
    without any value does not count.

    Parameters
    ----------
    block : (sample, gene)

    Raises
    ------
    ValueError
        If the block is not (sample, gene) or holds an infinite value.

    Examples
    --------
    >>> sum_sorted([[5.0, 2.0, 3.0], [4.0, 1.0, 4.0]])
    QuantilePartial(total=array([3., 7., 9.]), n_samples=2)
    """
    values = _as_matrix(block)
    n_genes = values.shape[1]
    total = np.zeros(n_genes)
    n_samples = 0
    for rows in iter_slices(len(values), 16 * n_genes):
        ascending = np.sort(values[rows], axis=1)
        is_complete = ~np.isnan(ascending[:, -1])
        complete = ascending if is_complete.all() else ascending[is_complete]
        _refuse_infinite(complete[:, [0, -1]])
        total += complete.sum(axis=0, dtype=np.float64)
        n_samples += len(complete)
        for sample in ascending[~is_complete]:
            known = sample[: n_genes - np.count_nonzero(np.isnan(sample))]
            if known.size:
                _refuse_infinite(known[[0, -1]])
                total += _resample(known.astype(np.float64), n_genes)
                n_samples += 1
    return QuantilePartial(total, n_samples)


def merge_quantile(a: QuantilePartial, b: QuantilePartial) -> QuantilePartial:
    """Return the partial result of two disjoint sets of samples over the same genes."""
    return QuantilePartial(a.total + b.total, a.n_samples + b.n_samples)


def finish_quantile(partial: QuantilePartial) -> NDArray[np.float64]:
    """Return the quantile reference, ascending: the mean over samples of their k-th values.

    Raises
    ------
    ValueError
        If no sample has a value.
    """
    if partial.n_samples == 0:
        raise ValueError("quantile reference: expected at least one sample with values, got none.")
    return np.maximum.accumulate(partial.total / partial.n_samples)


def apply_quantile(block: ArrayLike, reference: ArrayLike, *, ties: Ties = "midrank") -> Floats:
    """Return a block whose samples follow the reference distribution, ranks kept.

    Parameters
    ----------
    block : (sample, gene); float32 stays float32, everything else becomes float64
    reference : (quantile,), ascending; any length, matched by percentile
    ties : value of equal measurements: "midrank" the reference at their average rank (R's rule),
        "tie-mean" the mean of the reference over their ranks (qnorm's rule), "dgex" the reference
        at their average rank rounded down

    Raises
    ------
    ValueError
        If the block is not (sample, gene) or holds an infinite value, or if the reference is not
        ascending and finite, or ``ties`` is unknown.

    Notes
    -----
    A sample is sorted once, ``O(gene log gene)``; memory beside the result is a few vectors.

    Examples
    --------
    >>> apply_quantile([[30.0, 10.0, 20.0]], [1.0, 2.0, 4.0])
    array([[4., 1., 2.]])
    """
    if ties not in get_args(Ties):
        raise ValueError(f"ties: expected one of {get_args(Ties)}, got {ties!r}.")
    values = _as_matrix(block)
    quantiles = np.asarray(reference, dtype=np.float64)
    if quantiles.ndim != 1 or not quantiles.size or not np.isfinite(quantiles).all():
        raise ValueError("quantile reference: expected a vector of finite values.")
    if (np.diff(quantiles) < 0).any():
        raise ValueError("quantile reference: expected ascending values.")
    result = np.empty_like(values)
    rounded = quantiles.astype(values.dtype)
    keys = np.empty((values.shape[1], 2), dtype=np.uint32)
    for sample, normalized in zip(values, result, strict=True):
        order, n_valid = _ascending_order(sample, keys)
        normalized[order[n_valid:]] = np.nan
        if n_valid:
            ascending = sample[order[:n_valid]]
            normalized[order[:n_valid]] = _place(ascending, quantiles, rounded, ties)
    return result


def quantile_normalize(
    matrix: ArrayLike, *, ties: Ties = "midrank", reference: ArrayLike | None = None
) -> Floats:
    """Return a matrix whose samples all follow one distribution, ranks kept.

    Parameters
    ----------
    matrix : (sample, gene); float32 stays float32, everything else becomes float64
    ties : see `apply_quantile`
    reference : (quantile,), ascending: the distribution, as the ``quantile_reference`` of a study,
        of any length (interpolated where that is not the number of genes); None for the mean of
        the samples' own distributions

    Raises
    ------
    ValueError
        If the matrix is not (sample, gene), holds an infinite value or, without a reference, none
        at all; if the reference is not ascending and finite, or ``ties`` is unknown.

    References
    ----------
    Bolstad et al. (2003), doi 10.1093/bioinformatics/19.2.185.

    Examples
    --------
    >>> quantile_normalize([[5, 2, 3, 4], [4, 1, 4, 2], [3, 4, 6, 8]]).round(2)
    array([[5.67, 2.  , 3.  , 4.67],
           [5.17, 2.  , 5.17, 3.  ],
           [2.  , 3.  , 4.67, 5.67]])
    >>> quantile_normalize([[30, 10, 20, 15, 12]], reference=[2.0, 4.0, 8.0])
    array([[8., 2., 6., 4., 3.]])
    """
    quantiles = finish_quantile(sum_sorted(matrix)) if reference is None else reference
    return apply_quantile(matrix, quantiles, ties=ties)


def _ascending_order(sample: Floats, keys: NDArray[np.uint32]) -> tuple[NDArray[np.intp], int]:
    """Return the ascending order, missing values last, and the number of the others.

    Sorting 64-bit keys, the bits of a value above its index, is faster than an argsort of float32;
    ``keys (gene, 2)`` is their memory, used again for every sample.
    """
    missing = np.isnan(sample)
    n_valid = sample.size - int(np.count_nonzero(missing))
    if sample.dtype != np.float32:
        return np.argsort(sample), n_valid
    bits = sample.view(np.uint32)
    ordered_bits = (sample.view(np.int32) >> 31).view(np.uint32)  # all ones where negative
    ordered_bits |= _SIGN
    ordered_bits ^= bits
    if n_valid < sample.size:
        ordered_bits[missing] = _LAST
    low, high = (0, 1) if sys.byteorder == "little" else (1, 0)
    keys[:, high] = ordered_bits
    keys[:, low] = np.arange(sample.size, dtype=np.uint32)
    keys.view(np.uint64)[:, 0].sort()
    return keys[:, low].astype(np.intp), n_valid


def _place(
    ascending: Floats, quantiles: NDArray[np.float64], rounded: Floats, ties: Ties
) -> Floats:
    """Return the normalized values of ascending ones, from the quantiles and those as stored."""
    _refuse_infinite(ascending[[0, -1]])
    is_whole = ascending.size == quantiles.size
    exact = quantiles if is_whole else _resample(quantiles, ascending.size)
    placed: Floats = rounded if is_whole else exact.astype(ascending.dtype)  # type: ignore[assignment]
    equal_to_next = np.flatnonzero(ascending[1:] == ascending[:-1])
    if not equal_to_next.size:
        return placed
    tied, shared = _share_ties(equal_to_next, exact, quantiles, ties)
    placed = placed.copy()
    placed[tied] = shared
    return placed


def _share_ties(
    equal_to_next: NDArray[np.intp],
    exact: NDArray[np.float64],
    quantiles: NDArray[np.float64],
    ties: Ties,
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the positions of equal measurements and one value for every run of them."""
    edges = np.flatnonzero(np.diff(equal_to_next) != 1) + 1
    first = equal_to_next[np.append(0, edges)]
    last = equal_to_next[np.append(edges, 0) - 1] + 1
    lengths = last - first + 1
    begins = np.cumsum(lengths) - lengths
    tied = np.arange(lengths.sum()) + np.repeat(first - begins, lengths)
    if ties == "midrank":
        shared = _at_percentile(quantiles, (first + last) / 2, exact.size)
    elif ties == "tie-mean":
        shared = np.add.reduceat(exact[tied], begins) / lengths
    else:
        shared = exact[(first + last) // 2]
    return tied, np.repeat(shared, lengths)


def _resample(ascending: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return ascending values interpolated onto another number of equal steps."""
    return _at_percentile(ascending, np.arange(length, dtype=np.float64), length)


def _at_percentile(
    ascending: NDArray[np.float64], rank: NDArray[np.float64], n_ranks: int
) -> NDArray[np.float64]:
    """Return ascending values at the percentiles of zero-based ranks out of ``n_ranks``."""
    last = ascending.size - 1
    position = rank * last / (n_ranks - 1) if n_ranks > 1 else np.full(rank.shape, last / 2)
    below = position.astype(np.intp)
    above = np.minimum(below + 1, last)
    interpolated: NDArray[np.float64] = ascending[below] + (position - below) * (
        ascending[above] - ascending[below]
    )
    return interpolated


def _as_matrix(block: ArrayLike) -> NDArray[Any]:
    """Return the block as float32 or float64 (sample, gene)."""
    values = np.asarray(block)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"matrix: expected (sample, gene) with genes, got shape {values.shape!r}.")
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def _refuse_infinite(values: Floats) -> None:
    if np.isinf(values).any():
        raise ValueError("matrix: expected finite values or NaN, got an infinite value.")
