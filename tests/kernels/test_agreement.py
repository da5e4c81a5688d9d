"""Per-gene error and correlation from sums: as numpy and SciPy on all samples at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from dglzarr.kernels.agreement import STATISTICS, finish_agreement, sum_agreement
from dglzarr.kernels.metrics import mae_per_gene, pcc_per_gene


def draw(seed, n_samples, n_genes=4, missing=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n_samples, n_genes)).astype(np.float32)
    predicted = (truth + rng.normal(size=truth.shape)).astype(np.float32)
    truth[rng.random(truth.shape) < missing] = np.nan
    return truth, predicted


def test_finish_agreement__by_hand():
    truth = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, np.nan], [np.nan, 5.0]])
    predicted = np.array([[1.0, 4.0], [3.0, 5.0], [2.0, 9.0], [7.0, 6.0]])
    mae, pcc = finish_agreement(sum_agreement(truth, predicted))
    np.testing.assert_allclose(mae, [2 / 3, 2 / 3])
    np.testing.assert_allclose(pcc, [0.5, np.nan])


def test_finish_agreement__equals_scipy():
    truth, predicted = draw(0, 30, missing=0)
    mae, pcc = finish_agreement(sum_agreement(truth, predicted))
    np.testing.assert_allclose(mae, np.abs(truth - predicted).mean(axis=0), rtol=1e-6)
    expected = [pearsonr(t, p).statistic for t, p in zip(truth.T, predicted.T, strict=True)]
    np.testing.assert_allclose(pcc, expected, rtol=1e-6)


@given(seed=st.integers(0, 99), n_samples=st.integers(0, 40), at=st.integers(0, 40))
def test_sum_agreement__blocks_add_up_and_equal_the_whole(seed, n_samples, at):
    truth, predicted = draw(seed, n_samples)
    total = sum(sum_agreement(truth[s], predicted[s]) for s in (slice(at), slice(at, None)))
    assert total.shape == (len(STATISTICS), 4)
    mae, pcc = finish_agreement(total)
    np.testing.assert_allclose(mae, mae_per_gene(truth, predicted), rtol=1e-6)
    np.testing.assert_allclose(pcc, pcc_per_gene(truth, predicted), atol=1e-6)


@pytest.mark.parametrize(
    ("truth", "predicted"),
    [([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [5, 5, 5]), ([1, 2], [1, 2])],
    ids=["constant truth", "constant prediction", "two samples"],
)
def test_finish_agreement__undefined_correlation(truth, predicted):
    columns = (np.array(v, dtype=float)[:, None] for v in (truth, predicted))
    mae, pcc = finish_agreement(sum_agreement(*columns))
    assert np.isnan(pcc).all()
    assert not np.isnan(mae).any()
