"""Nearest genes: scikit-learn's neighbours as the oracle."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from dglzarr.kernels.linear import merge_ridge, ridge_partial
from dglzarr.kernels.neighbors import nearest_landmarks, predict_nearest


def data(seed=0, n_samples=30):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_samples, 12))
    return x, x @ rng.normal(size=(12, 25)) / 3 + 0.2 * rng.normal(size=(n_samples, 25))


@pytest.mark.parametrize("k", [1, 5, 12])
def test_nearest_landmarks__equals_scikit_learn(k):
    x, y = data()
    oracle = NearestNeighbors(n_neighbors=k).fit(x.T).kneighbors(y.T, return_distance=False)
    np.testing.assert_array_equal(nearest_landmarks(ridge_partial(x, y), k), oracle)


@given(st.integers(1, 29))
def test_nearest_landmarks__blocks_add_up(cut):
    x, y = data()
    merged = merge_ridge(ridge_partial(x[:cut], y[:cut]), ridge_partial(x[cut:], y[cut:]))
    np.testing.assert_array_equal(
        nearest_landmarks(merged, 4), nearest_landmarks(ridge_partial(x, y), 4)
    )


def test_nearest_landmarks__equal_distances_by_index():
    x = np.ones((3, 4))
    assert nearest_landmarks(ridge_partial(x, x[:, :1]), 3).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("k", [0, 13])
def test_nearest_landmarks__impossible_number(k):
    with pytest.raises(ValueError, match=f"expected 1 to 12, got {k}"):
        nearest_landmarks(ridge_partial(*data()), k)


def test_predict_nearest__is_the_mean_of_the_neighbours():
    x, y = data()
    nearest = nearest_landmarks(ridge_partial(x, y), 6)
    new = data(1)[0]
    for k, found in zip((1, 4, 6), predict_nearest(new, nearest, (1, 4, 6)), strict=True):
        naive = np.stack([new[:, row[:k]].mean(axis=1) for row in nearest], axis=1)
        np.testing.assert_allclose(found, naive, rtol=1e-5, atol=1e-6)
