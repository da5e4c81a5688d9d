"""How wide intervals are: hand-worked cases, naive loops, and coverage of groups not seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.intervals import (
    group_spread,
    interval_factor,
    weighted_quantile,
    without_each,
)


def test_group_spread__alike_in_all_groups_is_kept():
    squares = np.tile([1.0, 4.0, 0.25], (5, 1))
    np.testing.assert_allclose(group_spread(squares), [1, 2, 0.5])


def test_group_spread__chance_is_drawn_to_the_mean_over_genes(rng):
    chance = rng.chisquare(3, (6, 4000)) / 3
    truth = np.ones(4000)
    plain = np.sqrt(chance.mean(axis=0))
    drawn = group_spread(chance)
    assert np.abs(drawn - truth).mean() < 0.3 * np.abs(plain - truth).mean()


def test_group_spread__differences_of_genes_stay(rng):
    truth = np.exp(rng.normal(0, 1, 2000))
    squares = truth**2 * rng.chisquare(60, (12, 2000)) / 60
    found = group_spread(squares)
    assert np.corrcoef(np.log(found), np.log(truth))[0, 1] > 0.99


def test_group_spread__genes_without_values():
    squares = np.array([[4.0, np.nan, 0.0], [4.0, np.nan, 0.0]])
    np.testing.assert_allclose(group_spread(squares), [2, 2, 2])
    assert group_spread(np.zeros((2, 3))).tolist() == [0, 0, 0]


@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.8, 0.95]))
def test_interval_factor__smallest_that_holds_the_share_of_groups_alike(seed, level):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, 20)
    residuals = rng.standard_normal((20, 4)) * (1 + group)[:, None]
    residuals[rng.random(residuals.shape) < 0.1] = np.nan
    spread = rng.uniform(0.5, 2, (3, 4))
    factor = interval_factor(residuals, spread, group, level=level)
    ratio = np.abs(residuals) / spread[group]

    def share(bound):
        shares = []
        for one in np.unique(group):
            of = ratio[group == one]
            of = of[~np.isnan(of)]
            shares.append((of <= bound).mean())
        return np.mean(shares)

    assert share(factor) >= level - 1e-9
    assert share(np.nextafter(factor, 0)) < level


def test_interval_factor__without_residuals():
    with pytest.raises(ValueError, match="intervals: expected residuals of left-out samples"):
        interval_factor(np.full((2, 2), np.nan), np.ones((1, 2)), np.zeros(2, dtype=np.int64))


def test_weighted_quantile__as_numpy_where_weights_are_equal(rng):
    values = rng.standard_normal(101)
    for level in (0.01, 0.3, 0.95, 1.0):
        expected = np.quantile(values, level, method="inverted_cdf")
        assert weighted_quantile(values, np.ones(101), level) == expected


def test_without_each__leaves_out_one(rng):
    squares = rng.chisquare(5, (4, 30))
    found = without_each(squares)
    np.testing.assert_allclose(found[1], group_spread(squares[[0, 2, 3]]))
    assert without_each(squares[:1]).shape == (1, 30)


def test_intervals__hold_95_percent_of_a_group_that_was_not_seen(rng):
    """Groups differ by an effect of their own; spread and factor are told by 12 of them."""
    shares = []
    for _ in range(40):
        sigma = rng.uniform(0.5, 2, 60)
        effect = rng.normal(0, 0.7, (13, 1, 60)) * sigma
        values = (effect + rng.normal(0, 1, (13, 10, 60)) * sigma).astype(np.float32)
        squares = (values[:12] ** 2).mean(axis=1)
        group = np.repeat(np.arange(12), 10)
        factor = interval_factor(values[:12].reshape(120, 60), without_each(squares), group)
        shares.append((np.abs(values[12]) <= factor * group_spread(squares)).mean())
    assert 0.935 < np.mean(shares) < 0.97
