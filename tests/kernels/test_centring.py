import functools
import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.centring import grand_mean, group_offsets, merge_groups, sum_groups


def draw(seed, n_samples, n_genes=5, n_groups=4, missing=0.2):
    rng = np.random.default_rng(seed)
    values = rng.normal(8, 3, (n_samples, n_genes))
    values[rng.random(values.shape) < missing] = np.nan
    return values, rng.integers(0, n_groups, n_samples)


@given(st.integers(0, 999), st.integers(1, 40))
def test_offsets__bring_each_group_to_the_grand_mean_as_pandas_finds_it(seed, n):
    values, group = draw(seed, n)
    sums = sum_groups(values, group)
    frame = pd.DataFrame(values)
    grand = grand_mean(sums, np.unique(group))
    np.testing.assert_allclose(grand, frame.mean().to_numpy(), rtol=1e-12)
    expected = (frame.mean() - frame.groupby(group).transform("mean")).fillna(0.0)
    offsets = group_offsets(sums, grand, 4)
    np.testing.assert_allclose(offsets[group], expected, rtol=1e-5, atol=1e-6)
    centred = pd.DataFrame(values + offsets[group]).groupby(group).mean().to_numpy()
    np.testing.assert_allclose(centred, np.where(np.isnan(centred), np.nan, grand), rtol=1e-5)


@given(st.integers(0, 999), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_sums__of_parts_merge_to_those_of_the_whole(seed, cuts):
    values, group = draw(seed, 30)
    edges = [0, *sorted(cuts), 30]
    parts = [sum_groups(values[a:b], group[a:b]) for a, b in itertools.pairwise(edges) if a < b]
    merged, whole = functools.reduce(merge_groups, parts), sum_groups(values, group)
    np.testing.assert_array_equal(merged.group, whole.group)
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_allclose(merged.total, whole.total, rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 2.5, -7.0])
def test_offsets__take_away_whatever_is_added_to_a_group(shift):
    values, group = draw(3, 30, missing=0)
    moved = values + np.where(group == 2, shift, 0)[:, None]

    def centred(block):
        sums = sum_groups(block, group)
        return block + group_offsets(sums, np.zeros(5), 4)[group]

    np.testing.assert_allclose(centred(moved), centred(values), atol=1e-5)


def test_offsets__where_nothing_is_known_values_stay():
    sums = sum_groups([[np.nan, 1.0]], [1])
    np.testing.assert_array_equal(
        group_offsets(sums, np.array([4.0, np.nan]), 3), np.zeros((3, 2), np.float32)
    )
