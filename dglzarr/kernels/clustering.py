"""Owns mini-batch k-means: first centroids, the partial result of a batch, the update, distances.

Blocks are complete (no missing values). Distances to centroids are matrix products of values
centred at the mean of the centroids, so that large common levels do not cancel.

References
----------
Arthur and Vassilvitskii (2007), k-means++: doi 10.5555/1283383.1283494.
Sculley (2010), doi 10.1145/1772690.1772862.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import iter_slices


def init_centroids(
    block: NDArray[np.floating], n_clusters: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return centroids (cluster, gene) drawn from a block by greedy k-means++.

    Of a few samples drawn, far ones rather than near ones, each centroid is the one that leaves the
    smallest inertia.

    Parameters
    ----------
    block : (sample, gene)
    n_clusters : number of centroids
    rng : source of the draws; the same state draws the same centroids

    References
    ----------
    Arthur and Vassilvitskii (2007), doi 10.5555/1283383.1283494; scikit-learn starts so too.

    Raises
    ------
    ValueError
        If there are fewer samples than clusters.

    Examples
    --------
    >>> corners = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    >>> sorted(init_centroids(corners, 3, np.random.default_rng(0)).tolist())
    [[0.0, 0.0], [0.0, 9.0], [9.0, 0.0]]
    """
    n_samples = len(block)
    if not 1 <= n_clusters <= n_samples:
        raise ValueError(f"n_clusters: expected 1 to {n_samples}, got {n_clusters!r}.")
    centred = block - block.mean(axis=0)
    squares = np.einsum("sg,sg->s", centred, centred)
    chosen = [int(rng.integers(n_samples))]
    nearest = np.full(n_samples, np.inf)
    while len(chosen) < n_clusters:
        latest = block[chosen[-1]]
        for rows in iter_slices(n_samples, block.itemsize * block.shape[1]):
            difference = block[rows] - latest
            squared = np.einsum("sg,sg->s", difference, difference)
            nearest[rows] = np.minimum(nearest[rows], squared)
        drawn = _draw(nearest, rng, 2 + int(np.log(n_clusters)))
        between = squares[:, None] + squares[drawn] - 2 * centred @ centred[drawn].T
        inertia = np.minimum(nearest[:, None], between).sum(axis=0)
        chosen.append(int(drawn[inertia.argmin()]))
    return block[chosen].astype(np.float32)


def fit_kmeans(
    points: NDArray[np.floating],
    n_clusters: int,
    rng: np.random.Generator,
    *,
    epochs: int = 3,
    batch_size: int = 1024,
    max_iter: int = 50,
) -> NDArray[np.float32]:
    """Return k-means centroids (cluster, dimension): mini-batches first, then whole passes.

    Starts by k-means++, moves centroids by mini-batches with the learning rate of their counts,
    reseeds empty clusters, and ends with full-batch passes until nothing moves.

    Parameters
    ----------
    points : (sample, dimension)
    n_clusters : number of centroids, at most the number of points
    rng : source of all draws
    epochs : mini-batch passes over the points
    batch_size : points a mini-batch
    max_iter : full-batch passes at most

    References
    ----------
    Sculley (2010), doi 10.1145/1772690.1772862.

    Examples
    --------
    >>> points = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> np.sort(fit_kmeans(points, 2, np.random.default_rng(0)), axis=0).tolist()
    [[1.0], [11.0]]
    """
    start = points[rng.permutation(len(points))[: max(3 * batch_size, 3 * n_clusters)]]
    centroids = init_centroids(start, n_clusters, rng)
    counts = np.zeros(n_clusters, dtype=np.int64)
    for _ in range(epochs):
        order = rng.permutation(len(points))
        for at in range(0, len(points), batch_size):
            sums, added = batch_partial(points[order[at : at + batch_size]], centroids)
            centroids, counts = update_centroids(centroids, counts, sums, added)
        centroids = reseed_empty(centroids, counts, start, rng)
    for _ in range(max_iter):
        sums, counts = batch_partial(points, centroids)
        moved, _ = update_centroids(centroids, np.zeros_like(counts), sums, counts)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids


def centroid_distances(
    block: NDArray[np.floating], centroids: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return Euclidean distances (sample, cluster), accurate to float32.

    Notes
    -----
    The products are float64, which leaves a rounding error of a few millionths of the largest.

    Examples
    --------
    >>> centroid_distances(np.array([[3.0, 4.0]]), np.zeros((1, 2)))
    array([[5.]], dtype=float32)
    """
    result = np.empty((len(block), len(centroids)), dtype=np.float32)
    origin = centroids.mean(axis=0, dtype=np.float64)
    centred = centroids - origin
    squares = np.einsum("cg,cg->c", centred, centred)
    for rows in iter_slices(len(block), 8 * block.shape[1]):
        result[rows] = np.sqrt(_squared_distances(block[rows] - origin, centred, squares))
    return result


def batch_partial(
    batch: NDArray[np.floating], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what a batch adds to every cluster: sums (cluster, gene) and counts.

    Parameters
    ----------
    batch : (sample, gene)
    centroids : (cluster, gene)

    Examples
    --------
    >>> sums, counts = batch_partial(np.array([[1.0], [2.0], [9.0]]), np.array([[1], [8]]))
    >>> sums.tolist(), counts.tolist()
    ([[3.0], [9.0]], [2, 1])
    """
    n_clusters, n_genes = centroids.shape
    sums = np.zeros((n_clusters, n_genes))
    counts = np.zeros(n_clusters, dtype=np.int64)
    origin = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = centroids - origin
    squares = np.einsum("cg,cg->c", centred, centred)
    for rows in iter_slices(len(batch), 8 * n_genes):
        shifted = (batch[rows] - origin).astype(np.float32)
        nearest = _squared_distances(shifted, centred, squares).argmin(axis=1)
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums[found] += np.add.reduceat(batch[rows][order], starts, axis=0, dtype=np.float64)
        counts += np.bincount(nearest, minlength=n_clusters)
    return sums, counts


def update_centroids(
    centroids: NDArray[np.float32],
    counts_so_far: NDArray[np.int64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return centroids moved to the mean of all samples seen, and the counts seen so far.

    Parameters
    ----------
    centroids : (cluster, gene), the mean of the samples seen before
    counts_so_far : (cluster,); zeros make this the update of full-batch k-means
    sums, counts : what `batch_partial` returned

    Examples
    --------
    >>> update_centroids(np.array([[1.0]]), np.array([1]), np.array([[8.0]]), np.array([2]))
    (array([[3.]], dtype=float32), array([3]))
    """
    total = counts_so_far + counts
    weighted = centroids.astype(np.float64) * counts_so_far[:, None] + sums
    moved = weighted / np.maximum(total, 1)[:, None]
    return np.where((counts > 0)[:, None], moved, centroids).astype(np.float32), total


def reseed_empty(
    centroids: NDArray[np.float32],
    counts: NDArray[np.int64],
    batch: NDArray[np.floating],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Return centroids in which every cluster without samples starts again at a sample.

    The samples are drawn as k-means++ does, with odds of their squared distance to the centroids.

    Parameters
    ----------
    centroids : (cluster, gene)
    counts : (cluster,), samples seen so far
    batch : (sample, gene)
    rng : source of the draws

    Examples
    --------
    >>> reseed_empty(
    ...     np.array([[0.0], [50.0]], dtype=np.float32),
    ...     np.array([2, 0]),
    ...     np.array([[0.0], [7.0]]),
    ...     np.random.default_rng(0),
    ... )
    array([[0.],
           [7.]], dtype=float32)
    """
    result = centroids.copy()
    is_seeded = counts > 0
    for cluster in np.flatnonzero(~is_seeded):
        weight = np.ones(len(batch))
        if is_seeded.any():
            nearest = centroid_distances(batch, result[is_seeded]).min(axis=1)
            weight = nearest.astype(np.float64) ** 2
        result[cluster] = batch[_draw(weight, rng, 1)[0]]
        is_seeded[cluster] = True
    return result


def _squared_distances(
    shifted: NDArray[Any], centred: NDArray[Any], squares: NDArray[Any]
) -> NDArray[Any]:
    """Return squared distances (sample, cluster) in the precision of the arguments."""
    products: NDArray[Any] = shifted @ centred.T
    products *= -2
    products += np.einsum("sg,sg->s", shifted, shifted)[:, None]
    products += squares
    np.maximum(products, 0, out=products)
    return products


def _draw(weight: NDArray[np.float64], rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Return indices drawn with the given odds; all the same odds where there are none."""
    total = weight.sum()
    return rng.choice(weight.size, n, p=weight / total if total > 0 else None)
