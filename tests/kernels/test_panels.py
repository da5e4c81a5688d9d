"""Panels: best scores in order, random genes without repetition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.panels import random_panel, top_score_panel


def test_top_score_panel__ties_by_index_and_missing_never():
    score = np.array([0.5, np.nan, 0.9, 0.5, 0.9, 0.1])
    np.testing.assert_array_equal(top_score_panel(score, 5), [2, 4, 0, 3, 5])


def test_top_score_panel__many_ties_by_index():
    score = np.tile([0.0, 1.0], 500)
    np.testing.assert_array_equal(top_score_panel(score, 400), np.arange(1, 800, 2))


@given(
    st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(np.nan)), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_top_score_panel__naive_sort(score, n):
    known = [(-value, i) for i, value in enumerate(score) if not np.isnan(value)]
    if n > len(known):
        with pytest.raises(ValueError, match=f"n_landmarks: expected 1 to {len(known)}, got {n}"):
            top_score_panel(np.array(score), n)
    else:
        expected = [i for _, i in sorted(known)[:n]]
        assert top_score_panel(np.array(score), n).tolist() == expected


@pytest.mark.parametrize("n", [0, 3, -1])
def test_top_score_panel__number_refused(n):
    with pytest.raises(ValueError, match=f"n_landmarks: expected 1 to 2, got {n}"):
        top_score_panel(np.array([1.0, 2.0, np.nan]), n)


def test_random_panel__different_genes_every_gene_possible():
    rng = np.random.default_rng(0)
    panels = [random_panel(6, 3, rng) for _ in range(200)]
    for panel in panels:
        assert len(set(panel.tolist())) == 3
        assert panel.tolist() == sorted(panel.tolist())
    counts = np.bincount(np.concatenate(panels), minlength=6)
    assert counts.min() > 60


def test_random_panel__same_seed_same_panel():
    first, second = (random_panel(50, 9, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("n", [0, 7])
def test_random_panel__number_refused(n):
    with pytest.raises(ValueError, match=f"n_landmarks: expected 1 to 6, got {n}"):
        random_panel(6, n, np.random.default_rng(0))
