"""K-means of genes: naive loops, scikit-learn on blobs, determinism, empty clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans, MiniBatchKMeans

from dglzarr.kernels.gene_kmeans import (
    _init_centroids,
    _partial,
    _reseed_empty,
    _update,
    centroid_distances,
    fit_gene_kmeans,
)
from tests.strategies import matrices


def blobs(seed=0, n_samples=600, n_genes=20, n_clusters=8):
    rng = np.random.default_rng(seed)
    centres = rng.normal(8, 3, (n_clusters, n_genes))
    noise = rng.normal(0, 1, (n_samples, n_genes))
    return (centres[rng.integers(n_clusters, size=n_samples)] + noise).astype(np.float32)


def inertia_of(points, centroids):
    return (cdist(points, centroids).min(axis=1) ** 2).sum()


@given(block=matrices(), centroids=matrices(dtype=np.float64))
def test_centroid_distances__equals_scipy(block, centroids):
    n_genes = min(block.shape[1], centroids.shape[1])
    block, centroids = block[:, :n_genes], centroids[:, :n_genes]
    result = centroid_distances(block, centroids)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, cdist(block, centroids), rtol=1e-5, atol=1e-4)


def test_centroid_distances__error_is_a_millionth_beside_large_levels():
    rng = np.random.default_rng(0)
    block = rng.uniform(5e3, 1.5e4, (40, 2000))
    centroids = block[::5] + rng.normal(0, 1e-3, (8, 2000))
    result = centroid_distances(block, centroids)
    error = np.abs(result - cdist(block, centroids)).max()
    assert error < 2.1e-6 * result.max() < 5


@pytest.mark.parametrize("n_samples", [0, 1, 200])
def test_partial__naive_loop(n_samples):
    batch = blobs(n_genes=12000 if n_samples == 200 else 5)[:n_samples]
    centroids = blobs(seed=0, n_genes=batch.shape[1])[300:307]
    sums, counts = _partial(batch, centroids)
    expected_sums = np.zeros(centroids.shape)
    expected_counts = np.zeros(len(centroids), dtype=int)
    for sample in batch.astype(np.float64):
        squared = [((sample - centroid) ** 2).sum() for centroid in centroids]
        nearest = int(np.argmin(squared))
        expected_sums[nearest] += sample
        expected_counts[nearest] += 1
    np.testing.assert_array_equal(counts, expected_counts)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-12)


def test_partial__large_common_level_does_not_cancel():
    batch = blobs().astype(np.float64) + 1e4
    centroids = (blobs()[:5].astype(np.float64) + 1e4).astype(np.float32)
    _, counts = _partial(batch, centroids)
    squared = cdist(batch, centroids.astype(np.float64)) ** 2
    np.testing.assert_array_equal(counts, np.bincount(squared.argmin(axis=1), minlength=5))


def test_update__batches_give_the_mean_of_all_samples():
    batch = np.array([[1.0, 1.0], [3.0, 5.0], [9.0, 9.0]], dtype=np.float32)
    centroids, seen = np.array([[0.0, 0.0], [70.0, 70.0]], dtype=np.float32), np.zeros(2, int)
    for rows in (slice(0, 2), slice(2, 3)):
        sums, counts = _partial(batch[rows], centroids)
        centroids, seen = _update(centroids, seen, sums, counts)
    np.testing.assert_array_equal(seen, [3, 0])
    np.testing.assert_allclose(centroids, [[13 / 3, 5], [70, 70]], rtol=1e-6)


def test_init_centroids__are_different_samples():
    matrix = blobs()
    centroids = _init_centroids(matrix, 8, np.random.default_rng(1))
    assert centroids.dtype == np.float32
    assert (cdist(centroids, matrix).min(axis=1) == 0).all()
    assert len(np.unique(centroids, axis=0)) == 8


def test_init_centroids__prefers_far_samples():
    matrix = np.concatenate([np.zeros((500, 3)), np.full((1, 3), 1e4)])
    for seed in range(20):
        assert _init_centroids(matrix, 2, np.random.default_rng(seed)).max() == 1e4


@pytest.mark.parametrize("seed", range(5))
def test_init_centroids__no_sample_twice_where_rounding_exceeds_distances(seed):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(0, 0.05, (30, 40)) + np.repeat([[1e3], [-1e3]], 15, axis=0)
    centroids = _init_centroids(matrix, 10, rng)
    assert len(np.unique(centroids, axis=0)) == 10


def test_init_centroids__identical_samples():
    centroids = _init_centroids(np.ones((4, 2)), 3, np.random.default_rng(0))
    np.testing.assert_array_equal(centroids, np.ones((3, 2)))


def test_reseed_empty__draws_far_samples_and_keeps_the_others():
    batch = np.concatenate([np.zeros((50, 2)), np.full((1, 2), 9.0), np.full((1, 2), -9.0)])
    centroids = np.array([[0.0, 0.0], [99.0, 99.0], [98.0, 98.0]], dtype=np.float32)
    for seed in range(10):
        result = _reseed_empty(centroids, np.array([5, 0, 0]), batch, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.sort(result[:, 0]), [-9, 0, 9])
    np.testing.assert_array_equal(centroids[1], [99, 99])


def test_reseed_empty__all_empty():
    batch = np.array([[1.0], [5.0]])
    centroids = np.full((2, 1), 50, dtype=np.float32)
    result = _reseed_empty(centroids, np.zeros(2, int), batch, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(result[:, 0]), [1, 5])


@given(st.integers(0, 1000))
def test_fit_gene_kmeans__same_seed_same_centroids(seed):
    matrix = blobs(seed, n_samples=40, n_genes=4)
    first, second = (
        fit_gene_kmeans(matrix, 5, np.random.default_rng(seed), epochs=2, batch_size=16)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("batch_size", [600, 100], ids=["full batch", "mini-batch"])
def test_fit_gene_kmeans__inertia_as_scikit_learn(batch_size):
    matrix = blobs()
    best = min(
        inertia_of(
            matrix,
            fit_gene_kmeans(
                matrix, 8, np.random.default_rng(seed), epochs=5, batch_size=batch_size
            ),
        )
        for seed in range(4)
    )
    lloyd = KMeans(8, n_init=4, random_state=0).fit(matrix).inertia_
    minibatch = MiniBatchKMeans(8, n_init=4, random_state=0, batch_size=100).fit(matrix).inertia_
    assert best == pytest.approx(lloyd, rel=0.03)
    assert best < minibatch * 1.03


def test_fit_gene_kmeans__finds_blobs(rng):
    centers = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
    points = np.repeat(centers, 50, axis=0) + rng.normal(size=(150, 2))
    found = fit_gene_kmeans(points, 3, np.random.default_rng(1))
    means = points.reshape(3, 50, 2).mean(axis=1)
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(means, axis=0), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_fit_gene_kmeans__fits_as_well_as_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(2000, 8)).astype(np.float32) + 3 * rng.integers(0, 3, (2000, 8))
    centroids = fit_gene_kmeans(points, 20, np.random.default_rng(seed))
    inertia = (centroid_distances(points, centroids).min(axis=1).astype(np.float64) ** 2).sum()
    peer = MiniBatchKMeans(20, max_iter=10, batch_size=1000, random_state=seed).fit(points)
    assert inertia < 1.02 * peer.inertia_


def test_fit_gene_kmeans__is_a_function_of_the_seed(rng):
    points = rng.normal(size=(300, 4))
    a, b, c = (fit_gene_kmeans(points, 9, np.random.default_rng(s), max_iter=0) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_fit_gene_kmeans__one_point_a_cluster(rng):
    points = rng.normal(size=(6, 3)).astype(np.float32)
    centroids = fit_gene_kmeans(points, 6, np.random.default_rng(0))
    np.testing.assert_allclose(centroid_distances(points, centroids).min(axis=1), 0, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_fit_gene_kmeans__inertia_within_2_percent_of_sklearn(seed):
    """On 4,000 points of 60 overlapping groups in 32 dimensions, with the settings of the bench."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 3, (60, 32))
    points = (centers[rng.integers(60, size=4000)] + rng.normal(0, 2, (4000, 32))).astype("f4")
    peer = MiniBatchKMeans(100, max_iter=10, batch_size=1000, n_init=3, random_state=seed)
    theirs = peer.fit(points).inertia_
    ours = inertia_of(points, fit_gene_kmeans(points, 100, np.random.default_rng(seed)))
    assert ours <= 1.02 * theirs
