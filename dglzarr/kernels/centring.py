"""Owns centring: groups of samples, such as series, are brought to one mean, gene by gene.

A partial result holds the groups of its samples alone, so that partials merge in any order of
groups. Missing values are NaN and count for nothing.

References
----------
Sims et al. (2008), doi 10.1186/1755-8794-1-42: mean-centring of series before they are joined.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class GroupSums:
    """Sums of known values: ``group (n,)`` ascending, ``total`` and ``count`` ``(n, gene)``."""

    group: NDArray[np.int64]
    total: NDArray[np.float64]
    count: NDArray[np.int64]


def sum_groups(block: ArrayLike, group: ArrayLike) -> GroupSums:
    """Return the sums and numbers of known values of each group in a block.

    Parameters
    ----------
    block : (sample, gene)
    group : (sample,), the number of each sample's group

    Examples
    --------
    >>> sum_groups([[1.0, np.nan], [3.0, 5.0]], [7, 7])
    GroupSums(group=array([7]), total=array([[4., 5.]]), count=array([[2, 1]]))
    """
    values, of = np.asarray(block, np.float64), np.asarray(group, np.int64)
    groups = np.unique(of)
    total = np.zeros((groups.size, values.shape[1]))
    count = np.zeros(total.shape, np.int64)
    for place, one in enumerate(groups):
        rows = values[of == one]
        total[place] = np.nansum(rows, axis=0)
        count[place] = (~np.isnan(rows)).sum(axis=0)
    return GroupSums(groups, total, count)


def merge_groups(a: GroupSums, b: GroupSums) -> GroupSums:
    """Return the sums of two disjoint sets of samples over the same genes."""
    groups = np.union1d(a.group, b.group)
    total = np.zeros((groups.size, a.total.shape[1]))
    count = np.zeros(total.shape, np.int64)
    for one in (a, b):
        at = np.searchsorted(groups, one.group)
        total[at] += one.total
        count[at] += one.count
    return GroupSums(groups, total, count)


def grand_mean(sums: GroupSums, of: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of each gene over the samples of some groups, NaN without any value.

    Examples
    --------
    >>> sums = sum_groups([[1.0], [3.0], [8.0]], [0, 0, 1])
    >>> grand_mean(sums, [0, 1]), grand_mean(sums, [1])
    (array([4.]), array([8.]))
    """
    chosen = np.isin(sums.group, np.asarray(of))
    with np.errstate(invalid="ignore"):
        mean = sums.total[chosen].sum(axis=0) / sums.count[chosen].sum(axis=0)
    return np.asarray(mean, np.float64)


def group_offsets(
    sums: GroupSums, grand: NDArray[np.float64], n_groups: int
) -> NDArray[np.float32]:
    """Return what brings each group to the grand mean when it is added ``(group, gene)``.

    It is 0 where a group, or the grand mean, has no value.

    Examples
    --------
    >>> group_offsets(sum_groups([[1.0], [3.0]], [1, 1]), np.array([5.0]), 2)
    array([[0.],
           [3.]], dtype=float32)
    """
    offsets = np.zeros((n_groups, sums.total.shape[1]), np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        offsets[sums.group] = np.nan_to_num(grand - sums.total / sums.count, nan=0.0)
    return offsets
