"""Metrics: double loops and scipy as oracles, missing truth, constant genes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from dglzarr.kernels.metrics import (
    finish_null,
    known_mean,
    known_means,
    mae_per_gene,
    mae_within_series,
    null_counts,
    null_fraction,
    pcc_per_gene,
)
from tests.strategies import matrices


def predictions(seed=0, n_samples=30, n_genes=12, missing=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(8, 2, (n_samples, 4)) @ rng.normal(size=(4, n_genes))
    predicted = truth + rng.normal(0, 3, truth.shape)
    truth[rng.random(truth.shape) < missing] = np.nan
    return truth.astype(np.float32), predicted.astype(np.float32)


def known_pair(truth, predicted):
    known = ~np.isnan(truth)
    return truth[known].astype(np.float64), predicted[known].astype(np.float64)


def naive_null_fraction(truth, predicted):
    n_genes = truth.shape[1]
    correlation = np.full((n_genes, n_genes), np.nan)
    for j in range(n_genes):
        for i in range(n_genes):
            x, y = known_pair(truth[:, i], predicted[:, j])
            if x.size >= 3 and np.ptp(x) > 0 and np.ptp(y) > 0:
                correlation[j, i] = pearsonr(x, y)[0]
    result = np.full(n_genes, np.nan)
    for j in range(n_genes):
        others = [correlation[j, i] for i in range(n_genes) if i != j]
        others = [value for value in others if not np.isnan(value)]
        if others and not np.isnan(correlation[j, j]):
            result[j] = sum(v > correlation[j, j] + 1e-6 for v in others) / len(others)
    return result


def test_mae_per_gene__hand_worked():
    truth = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan], [5.0, 2.0, np.nan]])
    predicted = np.array([[2.0, 2.0, 1.0], [3.0, 9.0, 1.0], [3.0, 3.0, 1.0]])
    np.testing.assert_array_equal(mae_per_gene(truth, predicted), [1, 0.5, np.nan])


@given(st.data())
def test_known_means__naive_loop(data):
    values = data.draw(matrices(missing=True))
    means = known_means(values)
    for row, mean in zip(values, means, strict=True):
        known = row[~np.isnan(row)].astype(np.float64)
        if known.size:
            assert mean == pytest.approx(known.mean(), rel=1e-12)
        else:
            assert np.isnan(mean)
        np.testing.assert_equal(known_mean(row), float(mean))


@given(st.data())
def test_mae_per_gene__naive_loop(data):
    truth = data.draw(matrices(missing=True))
    predicted = np.random.default_rng(0).normal(size=truth.shape)
    result = mae_per_gene(truth, predicted)
    for gene, value in enumerate(result):
        x, y = known_pair(truth[:, gene], predicted[:, gene])
        if x.size:
            assert value == pytest.approx(np.mean(np.abs(x - y)), rel=1e-12)
        else:
            assert np.isnan(value)


def test_mae_per_gene__many_genes_in_blocks():
    truth, predicted = predictions(n_samples=2000, n_genes=1200)
    expected = np.abs(truth.astype(np.float64) - predicted).mean(axis=0)
    np.testing.assert_allclose(mae_per_gene(truth, predicted), expected, rtol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_pcc_per_gene__equals_scipy(missing):
    truth, predicted = predictions(missing=missing)
    result = pcc_per_gene(truth, predicted)
    expected = [pearsonr(*known_pair(truth[:, gene], predicted[:, gene]))[0] for gene in range(12)]
    np.testing.assert_allclose(result, expected, rtol=1e-10)


def test_pcc_per_gene__many_genes_in_blocks():
    truth, predicted = predictions(n_samples=2000, n_genes=400)
    x, y = (m.astype(np.float64) - m.mean(axis=0, dtype=np.float64) for m in (truth, predicted))
    expected = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    np.testing.assert_allclose(pcc_per_gene(truth, predicted), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [
        ([0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4]),
        ([1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1]),
        ([1, 2, np.nan, np.nan], [1, 2, 3, 4]),
        ([np.nan, 5, 5, 5], [1, 2, 3, 4]),
        ([np.nan] * 4, [1, 2, 3, 4]),
    ],
    ids=["constant truth", "constant prediction", "2 samples", "constant where known", "none"],
)
def test_pcc_per_gene__undefined(truth, predicted):
    truth, predicted = np.array([truth, [4, 1, 3, 2]]).T, np.array([predicted, [4, 1, 3, 2]]).T
    np.testing.assert_allclose(pcc_per_gene(truth, predicted), [np.nan, 1])
    np.testing.assert_array_equal(null_fraction(truth, predicted)[0], np.nan)


def test_pcc_per_gene__constant_truth_whose_mean_is_rounded():
    truth, predicted = np.full((10, 2), 0.1), np.arange(20.0).reshape(10, 2)
    assert truth.mean(axis=0)[0] != truth[0, 0]
    assert np.isnan(pcc_per_gene(truth, predicted)).all()


@pytest.mark.parametrize("n_samples", [0, 2])
def test_metrics__too_few_samples(n_samples):
    few = np.arange(2.0 * n_samples).reshape(n_samples, 2)
    assert np.isnan(pcc_per_gene(few, few)).all()
    assert np.isnan(null_fraction(few, few)).all()
    np.testing.assert_array_equal(mae_per_gene(few, few), [0, 0] if n_samples else [np.nan] * 2)


@given(st.floats(0.1, 100), st.floats(-50, 50))
def test_pcc_per_gene__invariant_to_scale_and_shift(scale, shift):
    truth, predicted = predictions()
    changed = predicted.astype(np.float64) * scale + shift
    np.testing.assert_allclose(
        pcc_per_gene(truth, changed), pcc_per_gene(truth, predicted), rtol=1e-9
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.85], ids=["complete", "missing", "sparse"])
def test_null_fraction__double_loop(seed, missing):
    truth, predicted = predictions(seed, missing=missing, n_samples=16)
    predicted[:, 0] = np.random.default_rng(seed).normal(size=16)
    truth[:, 5] = 3.0
    truth[3:, 7] = truth[0, 7]
    predicted[:, 3] = 0
    result = null_fraction(truth, predicted)
    assert 0 <= np.nanmin(result) <= np.nanmax(result) <= 1
    assert missing == 0.85 or np.nanmax(result) > 0
    np.testing.assert_allclose(result, naive_null_fraction(truth, predicted), atol=1e-12)


def test_null_fraction__many_genes_in_blocks():
    truth, predicted = predictions(n_samples=6, n_genes=1500)
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    correlation = np.corrcoef(predicted.T, truth.T)[:1500, 1500:]
    expected = (correlation > np.diag(correlation)[:, None] + 1e-6).sum(axis=1) / 1499
    np.testing.assert_allclose(null_fraction(truth, predicted), expected, atol=2.1 / 1499)


def test_null_fraction__perfect_prediction_is_0_also_among_equal_genes():
    truth, _ = predictions()
    truth = np.concatenate([truth, truth[:, :3]], axis=1)
    np.testing.assert_array_equal(null_fraction(truth, truth), np.zeros(15))


def test_null_fraction__no_other_gene():
    truth, predicted = predictions(n_genes=2)
    truth[:, 1] = 4.0
    assert np.isnan(null_fraction(truth, predicted)).all()
    assert np.isnan(null_fraction(truth[:, :1], predicted[:, :1])).all()


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_null_counts__blocks_of_truths_and_predictions_add_up(cut):
    truth, predicted = predictions(missing=0.2, n_samples=16)
    right = pcc_per_gene(truth, predicted)
    found = np.full(12, np.nan)
    for chosen in (slice(0, cut), slice(cut, 12)):
        at = np.arange(12)[chosen]
        counts = [
            null_counts(truth[:, genes], predicted[:, chosen], right[chosen], _places(at, genes))
            for genes in (slice(0, 4), slice(4, 12))
        ]
        above, others = (sum(parts) for parts in zip(*counts, strict=True))
        found[chosen] = finish_null(above, others, right[chosen])
    np.testing.assert_array_equal(found, null_fraction(truth, predicted))


def _places(at, genes):
    return np.where((at >= genes.start) & (at < genes.stop), at - genes.start, -1)


def test_mae_within_series__hand_worked():
    truth = np.array([[1.0, 1.0], [3.0, np.nan], [10.0, 2.0], [10.0, 4.0], [5.0, 5.0]])
    predicted = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [4.0, 0.0], [9.0, 9.0]])
    series = np.array(["a", "a", "b", "b", "c"])
    np.testing.assert_array_equal(mae_within_series(truth, predicted, series), [1.5, 1.0])


@given(st.data())
def test_mae_within_series__naive_loop(data):
    truth = data.draw(matrices(missing=True))
    rng = np.random.default_rng(0)
    predicted, series = rng.normal(size=truth.shape), rng.integers(3, size=len(truth))
    result = mae_within_series(truth, predicted, series)
    for gene, value in enumerate(result):
        errors = []
        for one in range(3):
            x, y = known_pair(truth[series == one, gene], predicted[series == one, gene])
            if x.size > 1:
                errors += np.abs((x - x.mean()) - (y - y.mean())).tolist()
        assert value == pytest.approx(np.mean(errors), rel=1e-9) if errors else np.isnan(value)


@given(st.floats(-9, 9))
def test_mae_within_series__a_shift_of_a_series_does_not_count(shift):
    truth, predicted = predictions()
    series = np.arange(30) % 4
    shifted = predicted + np.where(series == 2, shift, 0)[:, np.newaxis]
    np.testing.assert_allclose(
        mae_within_series(truth, shifted, series),
        mae_within_series(truth, predicted, series),
        rtol=1e-6,
    )


def test_mae_within_series__one_sample_a_series_is_undefined():
    truth, predicted = predictions()
    assert np.isnan(mae_within_series(truth, predicted, np.arange(30))).all()
