"""Owns near-duplicate samples: candidate pairs, exact distances, and which samples to keep.

Projections, and distances to a few pivots, differ between two samples by at most the distance of
the samples, so pairs far apart in any of them are ruled out without looking at their genes.
"""

from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

from dglzarr.kernels.slices import iter_slices

Rule = Literal["greedy", "dgex"]

_TREE_COORDINATES = 8
_PIVOTS = 16
_SUMMED_GENES = 256


def distance_basis(block: NDArray[np.floating], n_components: int) -> NDArray[np.float32]:
    """Return orthonormal directions (component, gene) along which a block varies most.

    Projecting on them never lengthens a distance, so samples that are apart in the projection are
    apart. They are the principal axes of the block's rows, fewer where it has fewer.

    Parameters
    ----------
    block : (sample, gene), centred, without missing values
    n_components : directions at most

    Examples
    --------
    >>> abs(distance_basis(np.array([[3.0, 0.0], [-1.0, 0.0]]), 5)).tolist()
    [[1.0, 0.0]]
    """
    values = block.astype(np.float64)
    square, vectors = np.linalg.eigh(values @ values.T)
    order = np.argsort(square)[::-1][:n_components]
    order = order[square[order] > 1e-10 * max(float(square.max(initial=0.0)), 1e-300)]
    if not order.size:
        return np.eye(1, values.shape[1], dtype=np.float32)
    axes = (vectors[:, order] / np.sqrt(square[order])).T @ values
    orthonormal, _ = np.linalg.qr(axes.T)
    return orthonormal.T.astype(np.float32)


def project(block: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return samples on a basis (sample, component), products summed in float64 after few genes.

    Parameters
    ----------
    block : (sample, gene), without missing values
    basis : (component, gene)

    Examples
    --------
    >>> project(np.array([[3.0, 4.0]], np.float32), np.array([[0.6, 0.8]], np.float32)).tolist()
    [[5.0]]
    """
    total = np.zeros((len(block), len(basis)))
    with threadpool_limits(1, user_api="blas"):  # threads would sum in another order
        for start in range(0, block.shape[1], _SUMMED_GENES):
            genes = slice(start, start + _SUMMED_GENES)
            total += block[:, genes] @ basis[:, genes].T
    return total.astype(np.float32)


def projection_slack(largest_norm: float, n_genes: int) -> float:
    """Return a bound on the rounding error of a difference of two values of `project`.

    Parameters
    ----------
    largest_norm : largest Euclidean norm of a projected sample
    n_genes : number of genes it was summed over
    """
    n_summed = min(n_genes, _SUMMED_GENES) + 2  # the last ones: rounding of the total
    return 2.0 * largest_norm * n_summed * float(np.finfo(np.float32).eps)


def candidate_pairs(
    coordinates: NDArray[np.floating], threshold: float, slack: float
) -> NDArray[np.int64]:
    """Return all pairs (pair, 2) that may be closer than a threshold, i < j, in ascending order.

    Parameters
    ----------
    coordinates : (sample, coordinate); none differs between two samples by more than their distance
    threshold : distance below which two samples are near-duplicates
    slack : bound on the rounding error of a difference of two coordinates

    Notes
    -----
    No pair closer than ``threshold`` is missed. Memory grows with the number of candidates.

    Examples
    --------
    >>> candidate_pairs(np.array([[1.0, 5.0], [1.5, 9.0], [1.8, 5.1]]), 1.0, 0.0)
    array([[0, 2]])
    """
    widest = np.argsort(-coordinates.var(axis=0), kind="stable")[:_TREE_COORDINATES]
    reach = threshold + slack
    pairs = cKDTree(coordinates[:, widest]).query_pairs(reach, p=np.inf, output_type="ndarray")
    is_near = np.ones(len(pairs), dtype=bool)
    for rows in iter_slices(len(pairs), 32 * coordinates.shape[1]):
        ends = coordinates[pairs[rows]].astype(np.float64)
        is_near[rows] = (np.abs(ends[:, 0] - ends[:, 1]) < reach).all(axis=1)
    near = np.sort(pairs[is_near].astype(np.int64), axis=1)
    return near[np.lexsort((near[:, 1], near[:, 0]))]


def pair_distances(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the Euclidean distance of every row of one block to the same row of another.

    Parameters
    ----------
    left, right : (pair, gene), without missing values

    Examples
    --------
    >>> pair_distances(np.array([[1.0, 1.0]]), np.array([[4.0, 5.0]]))
    array([5.])
    """
    result = np.empty(len(left))
    for rows in iter_slices(len(left), 16 * left.shape[1]):
        difference = left[rows].astype(np.float64) - right[rows]
        result[rows] = np.sqrt(np.einsum("pg,pg->p", difference, difference))
    return result


def keep_mask(
    n_samples: int,
    pairs: NDArray[np.integer],
    distances: NDArray[np.floating],
    *,
    threshold: float,
    order: NDArray[np.integer] | None = None,
    rule: Rule = "greedy",
    cluster: NDArray[np.integer] | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return which samples to keep, and for each dropped one the kept sample it repeats (else -1).

    Parameters
    ----------
    n_samples : number of samples
    pairs : (pair, 2), every pair of samples that may be closer than the threshold, once
    distances : (pair,)
    threshold : samples strictly closer than this are near-duplicates
    order : (sample,), the order in which samples are visited, ascending by default
    rule : "greedy" drops a sample that is near a kept one visited before; "dgex" drops a sample
        that is near any one visited before, dropped or not
    cluster : (sample,), for "dgex" only: pairs within one cluster count, others do not

    Raises
    ------
    ValueError
        If the rule is unknown.

    Notes
    -----
    A dropped sample points to the nearest kept one that was visited before it. With "dgex" there
    may be none; it then points to where its nearest neighbour points.

    Examples
    --------
    >>> chain, distances = np.array([[0, 1], [1, 2]]), np.array([0.6, 0.7])
    >>> keep_mask(3, chain, distances, threshold=1.0)
    (array([ True, False,  True]), array([-1,  0, -1]))
    >>> keep_mask(3, chain, distances, threshold=1.0, rule="dgex")
    (array([ True, False, False]), array([-1,  0,  0]))
    """
    if rule not in ("greedy", "dgex"):
        raise ValueError(f"rule: expected 'greedy' or 'dgex', got {rule!r}.")
    visited = np.arange(n_samples) if order is None else np.asarray(order)
    place = np.empty(n_samples, dtype=np.int64)
    place[visited] = np.arange(n_samples)
    is_near = distances < threshold
    if rule == "dgex" and cluster is not None:
        is_near &= cluster[pairs[:, 0]] == cluster[pairs[:, 1]]
    ends = np.sort(place[pairs[is_near]], axis=1)
    ranked = np.lexsort((ends[:, 0], distances[is_near], ends[:, 1]))
    earlier, later = visited[ends[ranked].T]
    keep = np.ones(n_samples, dtype=bool)
    duplicate_of = np.full(n_samples, -1, dtype=np.int64)
    edges = np.append(np.flatnonzero(np.diff(later, prepend=-1)), later.size)
    for start, stop in pairwise(edges):
        near = earlier[start:stop]
        kept = near[keep[near]]
        if kept.size or rule == "dgex":
            keep[later[start]] = False
            duplicate_of[later[start]] = kept[0] if kept.size else duplicate_of[near[0]]
    return keep, duplicate_of


def find_near_duplicates(
    matrix: ArrayLike, *, threshold: float = 1.0, rule: Rule = "greedy"
) -> NDArray[np.bool_]:
    """Return a mask (sample,) that keeps one of every group of near-duplicate samples.

    Parameters
    ----------
    matrix : (sample, gene); missing values count as the mean of their gene
    threshold : samples with a Euclidean distance strictly below this are near-duplicates
    rule : see `keep_mask`

    Raises
    ------
    ValueError
        If the matrix is not (sample, gene) or holds an infinite value, or the rule is unknown.

    Notes
    -----
    Exact. No sample-by-sample matrix is made: memory is at most one copy of the matrix and the
    candidate pairs.

    References
    ----------
    Chen et al. (2016), doi 10.1093/bioinformatics/btw074, for the threshold and the "dgex" rule.

    Examples
    --------
    >>> find_near_duplicates([[4.0, 8.0, 6.0], [9.0, 5.0, 7.0], [4.2, 8.1, 5.9]])
    array([ True,  True, False])
    """
    values = np.asarray(matrix)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"matrix: expected (sample, gene), got shape {values.shape!r}.")
    if np.isinf(values).any():
        raise ValueError("matrix: expected finite values or NaN, got an infinite value.")
    values = _fill_missing(values)
    pivots = _pivot_distances(values)
    slack = 1e-9 * float(pivots.max(initial=0.0))
    pairs = candidate_pairs(pivots, threshold, slack)
    distances = np.empty(len(pairs))
    for rows in iter_slices(len(pairs), 32 * values.shape[1]):
        left, right = pairs[rows].T
        distances[rows] = pair_distances(values[left], values[right])
    return keep_mask(len(values), pairs, distances, threshold=threshold, rule=rule)[0]


def _fill_missing(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the matrix itself when complete, else a copy with the mean of the gene filled in."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    n_known = values.shape[0] - missing.sum(axis=0)
    mean = np.nansum(values, axis=0, dtype=np.float64) / np.maximum(n_known, 1)
    return np.where(missing, mean.astype(values.dtype), values)


def _pivot_distances(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return distances (sample, pivot) to evenly spaced samples, without cancellation."""
    chosen = np.unique(np.linspace(0, len(values) - 1, _PIVOTS).astype(np.int64))
    columns = [pair_distances(values, np.broadcast_to(values[i], values.shape)) for i in chosen]
    return np.stack(columns, axis=1)
