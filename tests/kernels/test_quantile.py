"""Quantile normalization: published vectors, naive loop, qnorm, and properties."""

import numpy as np
import pytest
import qnorm
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from dglzarr.kernels.quantile import (
    apply_quantile,
    finish_quantile,
    merge_quantile,
    quantile_normalize,
    sum_sorted,
)
from tests.strategies import cuts, matrices

# Genes as rows, as published; the kernels take samples as rows.
WIKIPEDIA = np.array([[5.0, 4, 3], [2, 1, 4], [3, 4, 6], [4, 2, 8]])
THREE_TIED = np.array([[5.0, 4, 3], [2, 4, 4], [3, 4, 7], [4, 2, 8]])
PREPROCESS_CORE = np.array([[100.0, 110, 120], [15, 16.5, 18], [200, 220, 240], [250, 275, 300]])


def naive_normalize(sample, reference, ties):
    """One sample by the definition: average ranks, then the reference at those ranks."""
    result = np.full(sample.shape, np.nan)
    known = ~np.isnan(sample)
    n, steps = known.sum(), np.arange(reference.size)
    at = lambda rank: np.interp(  # noqa: E731
        rank / (n - 1) * (reference.size - 1) if n > 1 else (reference.size - 1) / 2,
        steps,
        reference,
    )
    values = sample[known]
    middle = rankdata(values, "average") - 1
    if ties == "midrank":
        result[known] = [at(rank) for rank in middle]
    elif ties == "dgex":
        result[known] = [at(np.floor(rank)) for rank in middle]
    else:
        low, high = rankdata(values, "min") - 1, rankdata(values, "max") - 1
        result[known] = [
            np.mean([at(rank) for rank in range(int(a), int(b) + 1)])
            for a, b in zip(low, high, strict=True)
        ]
    return result


@pytest.mark.parametrize(
    ("matrix", "ties", "column", "expected"),
    [
        (WIKIPEDIA, "midrank", 0, [5.666667, 2, 3, 4.666667]),
        (WIKIPEDIA, "midrank", 1, [5.166667, 2, 5.166667, 3]),
        (WIKIPEDIA, "tie-mean", 1, [5.166667, 2, 5.166667, 3]),
        (WIKIPEDIA, "dgex", 1, [4.666667, 2, 4.666667, 3]),
        (WIKIPEDIA, "midrank", 2, [2, 3, 4.666667, 5.666667]),
        (THREE_TIED, "midrank", 1, [5, 5, 5, 2.333333]),
        (THREE_TIED, "tie-mean", 1, [4.777778, 4.777778, 4.777778, 2.333333]),
        (THREE_TIED, "dgex", 1, [5, 5, 5, 2.333333]),
    ],
)
def test_quantile_normalize__published_vectors(matrix, ties, column, expected):
    result = quantile_normalize(matrix.T, ties=ties)
    np.testing.assert_allclose(result[column], expected, atol=1e-6)


def test_quantile_normalize__preprocess_core_complete():
    expected = np.repeat([[110.0, 16.5, 220, 275]], 3, axis=0)
    np.testing.assert_allclose(quantile_normalize(PREPROCESS_CORE.T), expected, atol=1e-8)


def test_quantile_normalize__preprocess_core_missing():
    matrix = PREPROCESS_CORE.T.copy()
    matrix[1, 1] = np.nan
    reference = finish_quantile(sum_sorted(matrix))
    np.testing.assert_allclose(reference, [47.66666667, 134.44444444, 226.11111111, 275], atol=1e-8)
    expected = [
        [134.44444444, 47.66666667, 226.11111111, 275],
        [47.66666667, np.nan, 180.27777778, 275],
        [134.44444444, 47.66666667, 226.11111111, 275],
    ]
    np.testing.assert_allclose(quantile_normalize(matrix), expected, atol=1e-8)


def test_quantile_normalize__zero_sample_gets_the_midrank_value():
    matrix = np.array([[5.0, 2, 3, 4], [0, 0, 0, 0], [3, 4, 7, 8]])
    reference = finish_quantile(sum_sorted(matrix))
    np.testing.assert_allclose(quantile_normalize(matrix)[1], (reference[1] + reference[2]) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tied", [False, True], ids=["different", "tied"])
def test_quantile_normalize__equals_qnorm(dtype, tied):
    matrix = np.random.default_rng(3).normal(8, 3, (7, 500)).astype(dtype)
    if tied:
        matrix = matrix.round(1)
    expected = qnorm.quantile_normalize(matrix.T.astype(np.float64)).T
    result = quantile_normalize(matrix, ties="tie-mean")
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("ties", ["midrank", "tie-mean", "dgex"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_apply_quantile__equals_naive(ties, dtype, data):
    matrix = data.draw(matrices(dtype=dtype, missing=True))
    n_quantiles = data.draw(st.sampled_from([matrix.shape[1], 1, 4, 13]))
    reference = np.sort(np.random.default_rng(n_quantiles).normal(8, 3, n_quantiles))
    result = apply_quantile(matrix, reference, ties=ties)
    expected = [naive_normalize(sample, reference, ties) for sample in matrix]
    np.testing.assert_allclose(result, expected, rtol=1e-6 if dtype == np.float32 else 1e-10)


def test_apply_quantile__negative_values_zeros_and_missing_signs():
    sample = np.array([[2.0, -np.nan, -3.0, 0.0, -0.0, -1e-30]], dtype=np.float32)
    result = apply_quantile(sample, np.arange(5.0))
    np.testing.assert_array_equal(result, [[4, np.nan, 0, 2.5, 2.5, 1]])


def test_apply_quantile__sample_without_values_stays_missing():
    matrix = np.array([[np.nan, np.nan], [2.0, 1.0]])
    partial = sum_sorted(matrix)
    assert partial.n_samples == 1
    np.testing.assert_array_equal(quantile_normalize(matrix), [[np.nan, np.nan], [2, 1]])


def test_apply_quantile__one_value_gets_the_median():
    result = apply_quantile(np.array([[np.nan, 3.0, np.nan]]), np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(result, [[np.nan, 2, np.nan]])


def test_apply_quantile__arguments_unchanged():
    matrix = np.array([[3.0, 1.0, 1.0]], dtype=np.float32)
    reference = np.array([1.0, 2.0, 4.0])
    apply_quantile(matrix, reference)
    np.testing.assert_array_equal(matrix, [[3, 1, 1]])
    np.testing.assert_array_equal(reference, [1, 2, 4])


def test_quantile_normalize__integers_become_float64():
    assert quantile_normalize([[1, 2], [5, 3]]).dtype == np.float64


@given(matrices(tied=False, min_genes=2))
def test_apply_quantile__sorted_samples_equal_the_reference(matrix):
    reference = finish_quantile(sum_sorted(matrix))
    result = quantile_normalize(matrix)
    for before, sample in zip(matrix, result, strict=True):
        if np.unique(before).size == before.size:
            np.testing.assert_array_equal(np.sort(sample), reference.astype(np.float32))
            np.testing.assert_array_equal(np.argsort(sample), np.argsort(before))


@given(matrices(missing=True, dtype=np.float64))
def test_apply_quantile__twice_changes_nothing(matrix):
    reference = np.linspace(1, 9, matrix.shape[1]) ** 2
    once = apply_quantile(matrix, reference)
    np.testing.assert_allclose(apply_quantile(once, reference), once, rtol=1e-12)


@given(st.data())
def test_sum_sorted__any_chunks_and_order_give_the_same_reference(data):
    matrix = data.draw(matrices(missing=True))
    matrix[0] = np.arange(matrix.shape[1])
    whole = finish_quantile(sum_sorted(matrix))
    first, *others = [sum_sorted(matrix[rows]) for rows in data.draw(cuts(len(matrix)))]
    for other in others:
        first = merge_quantile(other, first)
    np.testing.assert_allclose(finish_quantile(first), whole, rtol=1e-12)
    np.testing.assert_array_equal(np.sort(whole), whole)


def test_sum_sorted__slices_of_a_tall_block_equal_the_whole():
    matrix = np.random.default_rng(0).normal(size=(900, 2500)).astype(np.float32)
    expected = np.sort(matrix, axis=1).astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(sum_sorted(matrix).total, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_quantile__infinite_values_refused(value, dtype):
    matrix = np.array([[1.0, 2.0, np.nan], [1.0, value, np.nan]], dtype=dtype)
    with pytest.raises(ValueError, match="expected finite values or NaN, got an infinite"):
        sum_sorted(matrix)
    with pytest.raises(ValueError, match="expected finite values or NaN, got an infinite"):
        apply_quantile(matrix, np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("matrix", [np.zeros(3), np.zeros((2, 0)), np.zeros((1, 2, 2))])
def test_quantile_normalize__shape_refused(matrix):
    with pytest.raises(ValueError, match=r"matrix: expected \(sample, gene\)"):
        quantile_normalize(matrix)


@pytest.mark.parametrize("matrix", [np.zeros((0, 3)), np.full((2, 3), np.nan)])
def test_finish_quantile__nothing_to_fit_refused(matrix):
    with pytest.raises(ValueError, match="expected at least one sample with values"):
        quantile_normalize(matrix)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ([2.0, 1.0], "expected ascending"),
        ([1.0, np.nan], "expected a vector of finite"),
        ([1.0, np.inf], "expected a vector of finite"),
        ([], "expected a vector of finite"),
        ([[1.0]], "expected a vector of finite"),
    ],
)
def test_apply_quantile__reference_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        apply_quantile(np.ones((1, 2)), reference)


def test_apply_quantile__unknown_ties_refused():
    with pytest.raises(ValueError, match=r"ties: expected one of .*midrank.*, got 'mean'"):
        apply_quantile(np.ones((1, 2)), [1.0, 2.0], ties="mean")
