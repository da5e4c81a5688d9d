"""Owns panels from clusters of genes: k-means medoids, and L1000's peel-off of tight clusters.

References
----------
Subramanian et al. (2017), doi 10.1016/j.cell.2017.10.049: the landmarks of L1000.
"""

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.gene_kmeans import centroid_distances, fit_gene_kmeans
from dglzarr.kernels.slices import iter_slices

Index = NDArray[np.int64]
Points = NDArray[np.float32]
Labels = NDArray[np.int16]

TRIALS = 100
SHARE_OF_GENES = 0.75
SHARE_TOGETHER = 0.8
CLUSTERS = (20, 100)
_TIE = 1 + 1e-4


def cluster_medoids(points: Points, n: int, rng: np.random.Generator) -> Index:
    """Return the point nearest to the centre of each of n k-means clusters, largest cluster first.

    Of points equally near (both of a cluster of two are) the first is taken. Where clusters stay
    empty, the points farthest from their centres follow.

    Parameters
    ----------
    points : (point, axis)
    n : number of clusters, at most the number of points
    rng : source of the first centres

    Examples
    --------
    >>> points = np.array([[0.0], [1.0], [2.0], [9.0]], dtype=np.float32)
    >>> cluster_medoids(points, 2, np.random.default_rng(0))
    array([1, 3])
    """
    if not n:
        return np.empty(0, dtype=np.int64)
    cluster, distance = _nearest(points, fit_gene_kmeans(points, n, rng))
    shortest = np.full(n, np.inf)
    np.minimum.at(shortest, cluster, distance)
    is_nearest = np.flatnonzero(distance <= shortest[cluster] * _TIE)
    found, first = np.unique(cluster[is_nearest], return_index=True)
    size = np.bincount(cluster, minlength=n)[found]
    medoids = is_nearest[first[np.lexsort((found, -size))]]
    farthest = np.argsort(distance, kind="stable")[::-1]
    others = farthest[~np.isin(farthest, medoids)]
    return np.concatenate([medoids, others[: n - medoids.size]]).astype(np.int64)


def peel_off(points: Points, n: int, rng: np.random.Generator, *, n_trials: int = TRIALS) -> Index:
    """Return the centres of tight clusters, peeled off round by round until there are n, in order.

    In a round, k-means with 20 to 100 clusters is run on random three quarters of the points that
    are left, many times. Points that share a cluster in over 80 % of the trials they are both in
    make a tight cluster; the point nearest to its centre is chosen and the cluster is removed,
    largest clusters first. A round without tight clusters ends with all its points, in random
    order.

    Parameters
    ----------
    points : (point, axis)
    n : points to choose, at most their number
    rng : source of all draws
    n_trials : k-means runs a round

    Notes
    -----
    The published text does not say how tight clusters are read off the consensus, nor in which
    order: here the point with most partners and its partners are the next cluster. No matrix of
    all pairs is kept: agreement with one point is counted when it is asked for.

    Examples
    --------
    >>> points = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]], dtype=np.float32)
    >>> sorted(peel_off(points, 2, np.random.default_rng(0), n_trials=5).tolist())
    [1, 3]
    """
    left = np.arange(len(points))
    chosen: list[int] = []
    while len(chosen) < n:
        clusters = _tight_clusters(_trials(points[left], rng, n_trials))
        chosen += [int(left[_medoid(points[left[members]], members)]) for members in clusters]
        peeled = np.concatenate([[], *clusters]).astype(np.int64)
        left = np.delete(left, peeled)
        if not peeled.size:
            chosen += rng.permutation(left).tolist()
        if not (peeled.size and left.size):
            left = np.setdiff1d(np.arange(len(points)), chosen)
    return np.array(chosen[:n], dtype=np.int64)


def _medoid(points: Points, members: Index) -> int:
    """Return the member whose point is nearest to their mean, of equally near ones the first."""
    offset = points - points.mean(axis=0, dtype=np.float64)
    distance = np.einsum("pa,pa->p", offset, offset)
    return int(members[(distance <= distance.min() * _TIE).argmax()])


def _nearest(points: Points, centres: Points) -> tuple[Index, NDArray[np.float32]]:
    """Return the nearest centre of each point, and its distance."""
    cluster, distance = np.empty(len(points), dtype=np.int64), np.empty(len(points), np.float32)
    for some in iter_slices(len(points), 8 * len(centres)):
        distances = centroid_distances(points[some], centres)
        cluster[some] = distances.argmin(axis=1)
        distance[some] = distances.min(axis=1)
    return cluster, distance


def _trials(points: Points, rng: np.random.Generator, n_trials: int) -> Labels:
    """Return the cluster of each point in each trial (point, trial), -1 where it was left out."""
    labels = np.full((len(points), n_trials), -1, dtype=np.int16)
    n_drawn = max(1, round(SHARE_OF_GENES * len(points)))
    for trial in range(n_trials):
        drawn = rng.choice(len(points), n_drawn, replace=False)
        n_clusters = min(int(rng.integers(CLUSTERS[0], CLUSTERS[1] + 1)), max(1, n_drawn // 2))
        centres = fit_gene_kmeans(points[drawn], n_clusters, rng, epochs=1, max_iter=10)
        labels[drawn, trial], _ = _nearest(points[drawn], centres)
    return labels


def _tight_clusters(labels: Labels) -> list[Index]:
    """Return the points of each tight cluster of two or more, those of most partners first."""
    is_free = np.ones(len(labels), dtype=bool)
    n_partners = np.empty(len(labels), dtype=np.int64)
    for some in iter_slices(len(labels), 8 * len(labels)):
        n_partners[some] = _together(labels, np.arange(len(labels))[some]).sum(axis=1)
    clusters = []
    for seed in np.argsort(-n_partners, kind="stable"):
        if n_partners[seed] < 2:
            break
        if is_free[seed]:
            members = np.flatnonzero(_together(labels, np.array([seed]))[0] & is_free)
            if members.size > 1:
                clusters.append(members)
                is_free[members] = False
    return clusters


def _together(labels: Labels, seeds: Index) -> NDArray[np.bool_]:
    """Return which points share a cluster with each seed in most trials of both (seed, point)."""
    shared = np.zeros((len(seeds), len(labels)), dtype=np.int16)
    for trial in labels.T:
        shared += (trial[seeds, None] == trial) & (trial >= 0)
    is_drawn = (labels >= 0).astype(np.float32)
    return np.asarray(shared > SHARE_TOGETHER * (is_drawn[seeds] @ is_drawn.T))
