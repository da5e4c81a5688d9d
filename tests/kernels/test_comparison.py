"""Comparison: scipy's bootstrap and tests as oracles, chance of few groups, undefined cases."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.comparison import Paired, bootstrap_interval, paired_test


def widened(ends, mean, n):
    """Return percentile ends stretched about the mean as Student's t of n groups asks."""
    factor = math.sqrt(n / (n - 1)) * scipy.stats.t.ppf(0.975, n - 1) / scipy.stats.norm.ppf(0.975)
    return mean + factor * (np.asarray(ends) - mean)


def test_bootstrap_interval__equals_scipy_over_samples():
    values = np.random.default_rng(1).gamma(2, 1, 60)
    ours = bootstrap_interval(values[np.newaxis], np.arange(60), n_draws=20_000)[0]
    oracle = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(ours, widened(oracle, values.mean(), 60), atol=0.02)


def test_bootstrap_interval__whole_groups_are_drawn():
    series = np.repeat(np.arange(6), [1, 2, 3, 4, 20, 6])
    values = np.repeat(np.random.default_rng(0).normal(size=6), [1, 2, 3, 4, 20, 6])
    ours = bootstrap_interval(values[np.newaxis], series, n_draws=4000, seed=3)[0]
    rng = np.random.default_rng(9)
    draws = []
    for _ in range(4000):
        rows = np.concatenate([np.flatnonzero(series == s) for s in rng.integers(6, size=6)])
        draws.append(values[rows].mean())
    oracle = widened(np.quantile(draws, [0.025, 0.975]), values.mean(), 6)
    np.testing.assert_allclose(ours, oracle, atol=0.06)
    by_sample = bootstrap_interval(values[np.newaxis], np.arange(36), n_draws=4000)[0]
    assert np.ptp(ours) > 1.3 * np.ptp(by_sample)


@given(st.floats(-5, 5), st.integers(0, 5))
def test_bootstrap_interval__a_shift_shifts_it_and_rows_share_their_draws(shift, seed):
    values = np.random.default_rng(seed).normal(size=(2, 20))
    values[1] = values[0] + shift
    found = bootstrap_interval(values, np.arange(20) // 4, n_draws=100, seed=seed)
    np.testing.assert_allclose(found[1] - found[0], [shift, shift], atol=1e-9)


def test_bootstrap_interval__missing_values_do_not_count():
    values = np.random.default_rng(0).normal(size=(1, 12))
    some = np.concatenate([values, np.full((1, 12), np.nan)], axis=1)
    twice = np.concatenate([np.arange(12), np.arange(12)])
    np.testing.assert_allclose(
        bootstrap_interval(some, twice), bootstrap_interval(values, np.arange(12))
    )
    assert np.isnan(bootstrap_interval(np.full((1, 4), np.nan), np.arange(4))).all()


def test_bootstrap_interval__two_series_are_too_few():
    assert np.isnan(bootstrap_interval(np.ones((3, 10)), np.arange(10) % 2)).all()
    values = np.array([[1.0, 2.0, np.nan], [1.0, 2.0, 3.0]])
    found = bootstrap_interval(values, np.arange(3))
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [True, False])


def test_bootstrap_interval__three_groups_by_hand():
    """Of 3 groups the percentiles are the lowest and the highest."""
    found = bootstrap_interval(np.array([[1.0, 2.0, 6.0]]), np.arange(3))[0]
    np.testing.assert_allclose(found, [3 - 2 * 2.68865, 3 + 3 * 2.68865], rtol=1e-5)


@pytest.mark.parametrize("n_series", [3, 5, 8])
def test_bootstrap_interval__few_series_tell_nothing_by_chance(n_series):
    rng = np.random.default_rng(n_series)
    series = np.repeat(np.arange(n_series), 20)
    effect = rng.normal(0, 1, (1500, n_series))[:, series]
    found = bootstrap_interval(effect + rng.normal(0, 1, effect.shape), series)
    told = np.mean((found[:, 0] > 0) | (found[:, 1] < 0))
    assert 0.03 < told < 0.08


@pytest.mark.parametrize("n_series", [3, 8])
def test_lowest_of__the_lowest_of_five_tells_nothing_by_chance(n_series):
    rng = np.random.default_rng(n_series)
    told = []
    for panels in rng.normal(0, 1, (500, 5, n_series)):
        found = bootstrap_interval(panels, np.arange(n_series), n_draws=500)
        best = panels.mean(axis=1).argmin()
        alone = Paired(float(panels[best].mean()), *found[best].tolist(), 0.001)
        told.append((alone.sign < 0, alone.lowest_of(5, n_series).sign < 0))
    alone, lowest = np.mean(told, axis=0)
    assert alone > 0.07
    assert lowest < 0.05


def test_lowest_of__by_hand():
    found = Paired(-0.2, -0.3, -0.1, 0.02)
    assert found.lowest_of(1, 5) is found
    wider = scipy.stats.t.ppf(0.995, 4) / scipy.stats.t.ppf(0.975, 4)
    np.testing.assert_allclose(
        found.lowest_of(5, 5), [-0.2, -0.2 - 0.1 * wider, -0.2 + 0.1 * wider, 0.1]
    )
    assert Paired(-0.2, -0.3, -0.1, 0.3).lowest_of(5, 5).pvalue == 1
    assert found.sign == -1
    assert found.lowest_of(5, 5).sign == 0
    assert np.isnan(Paired(-0.2, np.nan, np.nan, 0.02).lowest_of(5, 2).low)


def test_paired_test__equals_scipy():
    rng = np.random.default_rng(4)
    a, b = rng.gamma(2, 1, (2, 40))
    holes = b.copy()
    holes[[3, 7]] = np.nan
    known = ~np.isnan(holes)
    found = paired_test(a, holes)
    assert found.share_better == np.mean(a[known] < b[known])
    assert found.t_pvalue == pytest.approx(scipy.stats.ttest_rel(a[known], b[known]).pvalue)
    assert found.wilcoxon_pvalue == pytest.approx(scipy.stats.wilcoxon(a[known], b[known]).pvalue)


def test_paired_test__hand_worked_t():
    found = paired_test(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
    assert found.t_pvalue == pytest.approx(2 * scipy.stats.t.sf(2 / (1 / np.sqrt(3)), 2))


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [([1, 2, 3], [1, 2, 3], 0.0), ([1, 2], [2, 1], 0.5), ([np.nan] * 3, [1, 2, 3], np.nan)],
    ids=["equal", "two targets", "none in common"],
)
def test_paired_test__undefined(a, b, share):
    found = paired_test(np.array(a, float), np.array(b, float))
    np.testing.assert_array_equal(found, [share, np.nan, np.nan])
