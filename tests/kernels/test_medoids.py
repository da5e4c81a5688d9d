"""Medoids and peel-off: points that stand for their clusters."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.kernels import medoids
from dglzarr.kernels.medoids import cluster_medoids, peel_off


def rng(*seed):
    return np.random.default_rng([0, *seed])


def blobs(sizes, spread=0.1):
    """Points around centres far apart, and which centre each is of."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    centres = 10 * np.eye(len(sizes), 5)
    points = centres[label] + spread * rng(1).standard_normal((label.size, 5))
    return points.astype(np.float32), label


def test_cluster_medoids__one_a_blob_largest_first_nearest_to_the_mean():
    points, label = blobs([4, 9, 6])
    found = cluster_medoids(points, 3, rng())
    assert label[found].tolist() == [1, 2, 0]
    for medoid, blob in zip(found, [1, 2, 0], strict=True):
        members = np.flatnonzero(label == blob)
        offset = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        assert medoid == members[offset.argmin()]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 30))
def test_cluster_medoids__different_points_also_where_points_repeat(seed, n):
    points = np.random.default_rng(seed).integers(0, 3, (30, 2)).astype(np.float32)
    found = cluster_medoids(points, n, np.random.default_rng(seed))
    assert len(set(found.tolist())) == n


def test_cluster_medoids__none():
    assert cluster_medoids(np.ones((3, 2), np.float32), 0, rng()).size == 0


def test_together__by_hand():
    labels = np.array([[0, 1, 1, -1], [0, 1, -1, 2], [0, 1, 1, 2], [3, 1, 1, 2], [-1, -1, -1, -1]])
    together = medoids._together(labels.astype(np.int16), np.arange(5))
    # 0 and 1: 2 of 2; 0 and 2: 3 of 3; 0 and 3: 2 of 3; 1 and 3: 2 of 3; 2 and 3: 3 of 4
    expected = np.zeros((5, 5), dtype=bool)
    expected[:3, :3] = expected[3, 3] = True
    np.testing.assert_array_equal(together, expected)


def test_tight_clusters__most_partners_first_no_lone_points():
    labels = np.repeat(np.array([0, 1, 1, 2, 1, 3, 3]), 10).reshape(7, 10).astype(np.int16)
    found = medoids._tight_clusters(labels)
    assert [c.tolist() for c in found] == [[1, 2, 4], [5, 6]]


def test_peel_off__centres_of_tight_clusters_first():
    label = np.repeat(np.arange(4), [30, 80, 50, 70])
    points = (10 * np.eye(4, 5, dtype=np.float32))[label]
    assert peel_off(points, 4, rng(), n_trials=10).tolist() == [30, 160, 110, 0]


def test_peel_off__all_points_in_the_end():
    points = rng(2).standard_normal((25, 3)).astype(np.float32)
    assert sorted(peel_off(points, 25, rng(), n_trials=4).tolist()) == list(range(25))


def test_peel_off__first_points_are_the_smaller_panel():
    points, _ = blobs([30, 20, 40])
    large = peel_off(points, 20, rng(3), n_trials=5)
    np.testing.assert_array_equal(peel_off(points, 6, rng(3), n_trials=5), large[:6])
