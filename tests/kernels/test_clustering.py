"""K-means of samples: by hand, all partitions, naive loops, and the same bits whatever runs it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from dglzarr.kernels import clustering
from dglzarr.kernels.clustering import fit_kmeans, nearest_centroids
from tests.strategies import matrices


def fit(points, n_clusters, seed=0, **options):
    everyone = np.ones(len(points), dtype=bool)
    return fit_kmeans(points, everyone, n_clusters, np.random.default_rng(seed), **options)


def blobs(seed=0, n_samples=600, n_axes=20, n_clusters=8):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (n_clusters, n_axes))
    noise = rng.normal(0, 1, (n_samples, n_axes))
    return (centres[rng.integers(n_clusters, size=n_samples)] + noise).astype(np.float32)


def squared(point, centroid):
    return sum((float(a) - float(b)) ** 2 for a, b in zip(point, centroid, strict=True))


def naive_nearest(points, centroids):
    """The first of the nearest centroids of each point, by two loops."""
    return [int(np.argmin([squared(p, c) for c in centroids])) for p in points]


def inertia_of(points, centroids):
    return sum(min(squared(p, c) for c in centroids) for p in points)


def naive_lloyd(points, n_clusters, rng, n_passes=20):
    """Whole passes from random points; a cluster without points stays where it is."""
    centroids = points[rng.permutation(len(points))[:n_clusters]].astype(np.float64)
    for _ in range(n_passes):
        nearest = np.array(naive_nearest(points, centroids))
        for cluster in np.unique(nearest):
            centroids[cluster] = points[nearest == cluster].mean(axis=0, dtype=np.float64)
    return centroids


def test_fit_kmeans__by_hand():
    # 0, 1, 2 and 10, 12: means 1 and 11; any other cut of the line in two costs more than 4
    found = fit(np.array([[0.0], [10.0], [1.0], [12.0], [2.0]]), 2)
    assert found.dtype == np.float32
    assert sorted(found[:, 0].tolist()) == [1, 11]


@pytest.mark.parametrize("seed", range(5))
def test_fit_kmeans__the_best_of_all_partitions(seed):
    points = np.random.default_rng(seed).normal(size=(8, 2)).astype(np.float32)
    best = np.inf
    for labels in product(range(3), repeat=8):
        means = [
            points[np.equal(labels, k)].mean(axis=0, dtype=np.float64) for k in sorted(set(labels))
        ]
        best = min(best, inertia_of(points, means))
    assert inertia_of(points, fit(points, 3)) == pytest.approx(best, rel=1e-5)


def test_fit_kmeans__centroids_are_the_means_of_their_points():
    points = blobs()
    centroids = fit(points, 8)
    nearest = np.array(naive_nearest(points, centroids))
    means = [points[nearest == k].mean(axis=0, dtype=np.float64) for k in range(8)]
    np.testing.assert_allclose(centroids, means, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_fit_kmeans__fits_as_well_as_naive_loops(seed):
    points = blobs(seed, n_samples=150, n_axes=4)
    rng = np.random.default_rng(seed)
    best = min(inertia_of(points, naive_lloyd(points, 8, rng)) for _ in range(5))
    assert inertia_of(points, fit(points, 8, seed)) <= 1.02 * best


def test_fit_kmeans__finds_blobs(rng):
    centers = np.array([[-9.0, -9.0], [11.0, -9.0], [-9.0, 11.0]])
    points = np.repeat(centers, 50, axis=0) + rng.normal(size=(150, 2))
    means = points.reshape(3, 50, 2).mean(axis=1)
    np.testing.assert_allclose(np.sort(fit(points, 3), axis=0), np.sort(means, axis=0), rtol=1e-5)


def test_fit_kmeans__other_points_do_not_matter():
    points, is_fitted = blobs(), np.arange(600) % 3 > 0
    whole = fit_kmeans(points, is_fitted, 8, np.random.default_rng(0))
    np.testing.assert_array_equal(whole, fit(points[is_fitted], 8))
    assert not np.array_equal(whole, fit(points, 8))


def test_fit_kmeans__points_stay_as_they_are():
    points = blobs() + 7
    before = points.copy()
    fit(points, 8)
    np.testing.assert_array_equal(points, before)


@given(st.integers(0, 1000))
def test_fit_kmeans__same_seed_same_centroids(seed):
    points = blobs(seed, n_samples=40, n_axes=4)
    first, second = (fit(points, 5, seed, epochs=2) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_fit_kmeans__is_a_function_of_the_seed(rng):
    points = rng.normal(size=(300, 4)).astype(np.float32)
    assert not np.array_equal(fit(points, 9, 1), fit(points, 9, 2))


@pytest.mark.parametrize("n_threads", [2, 4])
def test_fit_kmeans__threads_change_no_bit(n_threads):
    points = blobs(n_samples=5000, n_clusters=30)
    with threadpool_limits(n_threads):
        many, nearest = fit(points, 30), nearest_centroids(points, points[:30])
    with threadpool_limits(1):
        np.testing.assert_array_equal(fit(points, 30), many)
        np.testing.assert_array_equal(nearest_centroids(points, points[:30]), nearest)


def test_fit_kmeans__mini_batches_of_some_points(monkeypatch):
    monkeypatch.setattr(clustering, "BATCH", 50)
    monkeypatch.setattr(clustering, "MAX_PASSES", 1)
    points = blobs(n_samples=400, n_axes=4)
    assert inertia_of(points, fit(points, 8)) <= 1.05 * inertia_of(points, fit(points, 8, epochs=9))


@pytest.mark.parametrize("n_points", [1, 6, 1100])
def test_fit_kmeans__one_point_a_cluster(n_points, rng):
    points = rng.normal(size=(n_points, 3)).astype(np.float32)
    found = fit(points, n_points, epochs=1)
    np.testing.assert_allclose(points, found[nearest_centroids(points, found)], atol=1e-5)


def test_fit_kmeans__fewer_different_points_than_clusters():
    points = np.repeat(np.float32([[-2.0, 1.0], [3.0, 4.0]]), 20, axis=0)
    found = fit(points, 5)
    np.testing.assert_allclose(
        np.unique(found[nearest_centroids(points, found)], axis=0), points[::20]
    )


@given(points=matrices(), centroids=matrices())
def test_nearest_centroids__naive_loops(points, centroids):
    n_axes = min(points.shape[1], centroids.shape[1])
    points, centroids = points[:, :n_axes], centroids[:, :n_axes]
    assert nearest_centroids(points, centroids).tolist() == naive_nearest(points, centroids)


def test_nearest_centroids__large_common_level_does_not_cancel():
    points = blobs() + np.float32(1e4)
    expected = naive_nearest(points, points[::100])
    assert nearest_centroids(points, points[::100]).tolist() == expected
