"""Owns the k-means of genes behind the panels of medoids: mini-batches, then whole passes.

Apart from `kernels.clustering`, so that a panel keeps its genes whatever version of scikit-learn
stands beside. Points have no missing values. Distances are matrix products of values about the mean
of the centroids, so that large common levels do not cancel.

References
----------
Arthur and Vassilvitskii (2007), k-means++: doi 10.5555/1283383.1283494.
Sculley (2010), mini-batches: doi 10.1145/1772690.1772862.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices


def fit_gene_kmeans(
    points: NDArray[np.floating],
    n_clusters: int,
    rng: np.random.Generator,
    *,
    epochs: int = 3,
    batch_size: int = 1024,
    max_iter: int = 50,
) -> NDArray[np.float32]:
    """Return the centroids of genes (cluster, axis).

    Starts by k-means++, moves centroids by mini-batches with the learning rate of their counts,
    reseeds empty clusters, and ends with whole passes until nothing moves.

    Parameters
    ----------
    points : (point, axis)
    n_clusters : number of centroids, at most the number of points
    rng : source of all draws
    epochs : mini-batch passes over the points
    batch_size : points a mini-batch
    max_iter : whole passes at most

    Examples
    --------
    >>> points = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> np.sort(fit_gene_kmeans(points, 2, np.random.default_rng(0)), axis=0).tolist()
    [[1.0], [11.0]]
    """
    start = points[rng.permutation(len(points))[: max(3 * batch_size, 3 * n_clusters)]]
    centroids = _init_centroids(start, n_clusters, rng)
    counts = np.zeros(n_clusters, dtype=np.int64)
    for _ in range(epochs):
        order = rng.permutation(len(points))
        for at in range(0, len(points), batch_size):
            sums, added = _partial(points[order[at : at + batch_size]], centroids)
            centroids, counts = _update(centroids, counts, sums, added)
        centroids = _reseed_empty(centroids, counts, start, rng)
    for _ in range(max_iter):
        sums, counts = _partial(points, centroids)
        moved, _ = _update(centroids, np.zeros_like(counts), sums, counts)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def centroid_distances(
    points: NDArray[np.floating], centroids: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return Euclidean distances (point, cluster), accurate to float32.

    Notes
    -----
    The products are float64, which leaves a rounding error of a few millionths of the largest.

    Examples
    --------
    >>> centroid_distances(np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    array([[5.]], dtype=float32)
    """
    result = np.empty((len(points), len(centroids)), dtype=np.float32)
    origin = centroids.mean(axis=0, dtype=np.float64)
    centred = centroids - origin
    squares = np.einsum("ca,ca->c", centred, centred)
    for rows in iter_slices(len(points), 8 * points.shape[1]):
        result[rows] = np.sqrt(_squared_distances(points[rows] - origin, centred, squares))
    return result


def _init_centroids(
    points: NDArray[np.floating], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return points as centroids (cluster, axis), drawn by greedy k-means++.

    Of a few points drawn, far ones rather than near ones, each centroid is the one that leaves the
    smallest inertia.
    """
    n_points = len(points)
    assert 1 <= n_clusters <= n_points
    centred = points - points.mean(axis=0)
    squares = np.einsum("pa,pa->p", centred, centred)
    chosen = [int(rng.integers(n_points))]
    nearest = np.full(n_points, np.inf)
    while len(chosen) < n_clusters:
        latest = points[chosen[-1]]
        for rows in iter_slices(n_points, points.itemsize * points.shape[1]):
            difference = points[rows] - latest
            squared = np.einsum("pa,pa->p", difference, difference)
            nearest[rows] = np.minimum(nearest[rows], squared)
        drawn = _draw(nearest, rng, 2 + int(np.log(n_clusters)))
        between = squares[:, None] + squares[drawn] - 2 * centred @ centred[drawn].T
        inertia = np.minimum(nearest[:, None], between).sum(axis=0)
        chosen.append(int(drawn[inertia.argmin()]))
    return points[chosen].astype(np.float32)


def _partial(
    batch: NDArray[np.floating], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what a batch adds to every cluster: sums (cluster, axis) and counts (cluster,)."""
    n_clusters, n_axes = centroids.shape
    sums = np.zeros((n_clusters, n_axes))
    counts = np.zeros(n_clusters, dtype=np.int64)
    origin = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = centroids - origin
    squares = np.einsum("ca,ca->c", centred, centred)
    for rows in iter_slices(len(batch), 8 * n_axes):
        shifted = (batch[rows] - origin).astype(np.float32)
        nearest = _squared_distances(shifted, centred, squares).argmin(axis=1)
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums[found] += np.add.reduceat(batch[rows][order], starts, axis=0, dtype=np.float64)
        counts += np.bincount(nearest, minlength=n_clusters)
    return sums, counts


def _update(
    centroids: NDArray[np.float32],
    counts_so_far: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return centroids moved to the mean of all points seen, and the counts seen so far.

    With counts so far of zero it is the update of k-means by whole passes.
    """
    total = counts_so_far + counts
    weighted = centroids.astype(np.float64) * counts_so_far[:, None] + sums
    moved = weighted / np.maximum(total, 1)[:, None]
    return np.where((counts > 0)[:, None], moved, centroids).astype(np.float32), total


def _reseed_empty(
    centroids: NDArray[np.float32],
    counts: NDArray[np.int64],
    points: NDArray[np.floating],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return centroids in which every cluster without points starts again at a point.

    The points are drawn as k-means++ does, with odds of their squared distance to the centroids.
    """
    result = centroids.copy()
    is_seeded = counts > 0
    for cluster in np.flatnonzero(~is_seeded):
        weight = np.ones(len(points))
        if is_seeded.any():
            nearest = centroid_distances(points, result[is_seeded]).min(axis=1)
            weight = nearest.astype(np.float64) ** 2
        result[cluster] = points[_draw(weight, rng, 1)[0]]
        is_seeded[cluster] = True
    return result


def _squared_distances(
    shifted: NDArray[Any], centred: NDArray[Any], squares: NDArray[Any]
) -> NDArray[Any]:
    """Return squared distances (point, cluster) in the precision of the arguments."""
    products: NDArray[Any] = shifted @ centred.T
    products *= -2
    products += np.einsum("pa,pa->p", shifted, shifted)[:, None]
    products += squares
    np.maximum(products, 0, out=products)
    return products


def _draw(weight: NDArray[np.float64], rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Return indices drawn with the given odds; all the same odds where there are none."""
    total = weight.sum()
    return rng.choice(weight.size, n, p=weight / total if total > 0 else None)
