"""Moments: numpy as the oracle, any chunking, and z-scores with gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.moments import (
    Standardizer,
    chunk_moments,
    finish_moments,
    merge_moments,
    standardize,
)
from tests.strategies import cuts, matrices


def test_finish_moments__hand_worked():
    block = np.array([[1.0, np.nan, np.nan], [3.0, 4.0, np.nan]])
    mean, std = finish_moments(chunk_moments(block))
    np.testing.assert_array_equal(mean, [2, 4, np.nan])
    np.testing.assert_array_equal(std, [1, 0, np.nan])


def test_chunk_moments__naive_loop():
    block = np.random.default_rng(0).normal(7, 2, (40, 6))
    block[np.random.default_rng(1).random(block.shape) < 0.3] = np.nan
    moments = chunk_moments(block)
    for gene, column in enumerate(block.T):
        values = [value for value in column if not np.isnan(value)]
        mean = sum(values) / len(values)
        assert moments.count[gene] == len(values)
        assert moments.mean[gene] == pytest.approx(mean, rel=1e-12)
        assert moments.m2[gene] == pytest.approx(sum((v - mean) ** 2 for v in values), rel=1e-12)


def test_chunk_moments__large_common_level_does_not_cancel():
    block = 1e8 + np.random.default_rng(0).normal(size=(5000, 500))
    mean, std = finish_moments(chunk_moments(block))
    np.testing.assert_allclose(mean, block.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(std, block.std(axis=0), rtol=1e-7)


@given(st.data())
def test_merge_moments__any_chunks_and_order(data):
    block = data.draw(matrices(missing=True, dtype=np.float64))
    parts = [chunk_moments(block[rows]) for rows in data.draw(cuts(len(block)))]
    merged = parts[0]
    for part in parts[1:]:
        merged = merge_moments(part, merged)
    whole = chunk_moments(block)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(merged.m2, whole.m2, rtol=1e-10, atol=1e-8)


def test_chunk_moments__no_samples():
    mean, std = finish_moments(chunk_moments(np.empty((0, 2))))
    assert np.isnan(mean).all()
    assert np.isnan(std).all()


def test_standardize__hand_worked():
    block = np.array([[5.0, np.nan, 3.0, 4.0]])
    mean, std = np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 1.0, 0.0, np.nan])
    result = standardize(block, mean, std)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[2, 0, 0, 0]])


@given(matrices(min_samples=2, missing=True))
def test_standardize__genes_have_mean_0_and_std_1(block):
    mean, std = finish_moments(chunk_moments(block))
    result = standardize(block, mean, std)
    assert np.isfinite(result).all()
    result[np.isnan(block)] = np.nan
    for column, spread in zip(result.T, std, strict=True):
        known = column[~np.isnan(column)].astype(np.float64)
        if spread > 0:
            assert known.mean() == pytest.approx(0, abs=1e-5)
            assert known.std() == pytest.approx(1, abs=1e-5)
        else:
            assert not known.any()


def test_standardize__slices_of_a_tall_block():
    block = np.random.default_rng(0).normal(5, 2, (3000, 1000)).astype(np.float32)
    mean, std = finish_moments(chunk_moments(block))
    expected = (block - block.mean(axis=0, dtype=np.float64)) / block.std(axis=0, dtype=np.float64)
    np.testing.assert_allclose(standardize(block, mean, std), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_rows", [0, 1, 16, 17])
def test_standardizer_take__same_bits_as_the_whole_block(n_rows):
    rng = np.random.default_rng(0)
    block = rng.normal(8, 3, (40, 23)).astype(np.float32)
    block[rng.random(block.shape) < 0.2] = np.nan
    block[3, 4] = np.inf
    standardizer = Standardizer(rng.normal(8, 1, 23), np.array([0.0, *rng.random(22)]))
    index = rng.permutation(40)[:n_rows]
    found = standardizer.take(block, index, np.full((n_rows, 23), 7, np.float32))
    assert found.tobytes() == standardizer(block[index]).tobytes()
