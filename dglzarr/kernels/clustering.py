"""Owns k-means of samples: scikit-learn's, seeded and on one thread, so that bits do not vary.

Points have no missing values and lie about 0. scikit-learn is imported where it is used: it takes
half a second and 60 MB, which workers do without.
"""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

N_STARTS = 5
BATCH = 1024
MAX_PASSES = 100


def fit_kmeans(
    points: NDArray[np.floating],
    is_fitted: NDArray[np.bool_],
    n_clusters: int,
    rng: np.random.Generator,
    *,
    epochs: int = 3,
) -> NDArray[np.float32]:
    """Return k-means centroids (cluster, dimension) of some of the points.

    Five starts by k-means++ are moved by mini-batches. The one of least inertia is then moved by
    whole passes, at most a hundred, until no point changes its cluster.

    Parameters
    ----------
    points : (point, dimension)
    is_fitted : (point,), the points to fit on; they are copied, and nothing else is that large
    n_clusters : number of centroids, at most the number of points to fit on
    rng : source of all draws
    epochs : mini-batch passes over the points

    References
    ----------
    Arthur and Vassilvitskii (2007), k-means++: doi 10.5555/1283383.1283494.
    Sculley (2010), mini-batches: doi 10.1145/1772690.1772862.

    Examples
    --------
    >>> points = np.array([[0.0], [2.0], [10.0], [12.0], [99.0]])
    >>> is_fitted = np.array([True, True, True, True, False])
    >>> np.sort(fit_kmeans(points, is_fitted, 2, np.random.default_rng(0)), axis=0).tolist()
    [[1.0], [11.0]]
    """
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    fitted = points[is_fitted]
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters
        starts = [_fit_batches(fitted, n_clusters, rng, epochs) for _ in range(N_STARTS)]
        best = max(starts, key=lambda start: start.score(fitted)).cluster_centers_
        passes = KMeans(
            n_clusters, init=best, n_init=1, max_iter=MAX_PASSES, tol=0, copy_x=False
        ).fit(fitted)
    return np.asarray(passes.cluster_centers_, dtype=np.float32)


def _fit_batches(
    points: NDArray[np.floating], n_clusters: int, rng: np.random.Generator, epochs: int
) -> Any:  # noqa: ANN401
    """Return a mini-batch k-means of points in random order, started on the first few of them."""
    from sklearn.cluster import MiniBatchKMeans  # noqa: PLC0415

    size = max(BATCH, n_clusters)
    seed = int(rng.integers(2**32))
    model = MiniBatchKMeans(n_clusters, batch_size=size, random_state=seed, compute_labels=False)
    model.partial_fit(points[rng.permutation(len(points))[: 3 * size]])
    for _ in range(epochs):
        order = rng.permutation(len(points))
        for at in range(0, len(points), size):
            model.partial_fit(points[order[at : at + size]])
    return model


def nearest_centroids(
    points: NDArray[np.float32], centroids: NDArray[np.float32]
) -> NDArray[np.intp]:
    """Return which centroid is nearest to each point (point,), of equally near ones the first.

    Parameters
    ----------
    points : (point, dimension)
    centroids : (cluster, dimension)

    Examples
    --------
    >>> nearest_centroids(np.float32([[1.0], [7.0]]), np.float32([[9.0], [0.0]]))
    array([1, 0])
    """
    from sklearn.metrics import pairwise_distances_argmin  # noqa: PLC0415

    with threadpool_limits(1):
        return np.asarray(pairwise_distances_argmin(points, centroids))
