import functools

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.detection import count_detected, detection_rate, merge_detected


def draw(seed, n=30, n_genes=6):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 8, (n, n_genes))
    values[rng.random(values.shape) < 0.1] = np.nan
    least = rng.choice([1.0, 4.0, np.nan], n)
    return values, least, rng.integers(0, 4, n)


@given(st.integers(0, 999))
def test_rate__is_what_pandas_finds(seed):
    values, least, group = draw(seed)
    rate = detection_rate(count_detected(values, least, group, 4))
    told = ~np.isnan(values) & ~np.isnan(least)[:, None]
    is_detected = pd.DataFrame(np.where(told, (values >= least[:, None]).astype(float), np.nan))
    np.testing.assert_allclose(rate[0], is_detected.mean(), rtol=1e-6)
    by = is_detected.groupby(group).mean()
    for one in range(1, 4):
        expected = by.loc[one] if one in by.index else np.full(6, np.nan)
        np.testing.assert_allclose(rate[one], expected, rtol=1e-6)


@given(st.integers(0, 999), st.integers(0, 30))
def test_counts__of_parts_merge_to_those_of_the_whole(seed, cut):
    drawn = draw(seed)
    parts = [
        count_detected(*(of[part] for of in drawn), 4) for part in (slice(0, cut), slice(cut, 30))
    ]
    merged, whole = functools.reduce(merge_detected, parts), count_detected(*drawn, 4)
    np.testing.assert_array_equal(merged.detected, whole.detected)
    np.testing.assert_array_equal(merged.told, whole.told)
