"""Panels: best scores in order, random genes, and what all selectors have in common."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.greedy import Products, greedy_order
from dglzarr.kernels.panels import (
    RIDGE,
    SELECTORS,
    principal_axes,
    select_panel,
)
from dglzarr.kernels.sketch import GeneSketch


def scored(score):
    return GeneSketch(np.ones((1, len(score)), np.float32), np.ones(len(score)), np.array(score), 1)


def test_select_panel__ties_by_index_and_missing_scores_never():
    sketch = scored([0.5, np.nan, 0.9, 0.5, 0.9, 0.1])
    np.testing.assert_array_equal(select_panel("top-score", sketch, 5), [2, 4, 0, 3, 5])
    with pytest.raises(ValueError, match="n_landmarks: expected 1 to 5, got 6"):
        select_panel("top-score", sketch, 6)


@given(
    st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(np.nan)), min_size=1, max_size=12),
    st.integers(1, 12),
)
def test_select_panel__top_score_is_a_naive_sort(score, n):
    known = sorted((-value, i) for i, value in enumerate(score) if not np.isnan(value))
    if n > len(known):
        with pytest.raises(ValueError, match=f"n_landmarks: expected 1 to {len(known)}, got {n}"):
            select_panel("top-score", scored(score), n)
    else:
        assert select_panel("top-score", scored(score), n).tolist() == [i for _, i in known[:n]]


def test_select_panel__random_may_choose_every_gene():
    panels = [select_panel("random", scored([0.0] * 6), 3, seed=[1, i]) for i in range(200)]
    counts = np.bincount(np.concatenate(panels), minlength=6)
    assert counts.min() > 60


# ---------------------------------------------------------------- selectors


def sketch(n_rows=12, n_genes=30, *, constant=()):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((n_rows, n_genes)).astype(np.float32)
    rows[:, n_genes // 2 :] += 2 * rows[:, : n_genes // 2]
    rows /= rows.std(axis=0)
    std, score = rng.uniform(0.5, 2, n_genes), rng.random(n_genes)
    for gene in constant:
        rows[:, gene], std[gene] = 0, 0
    return GeneSketch(rows, std, score, n_rows)


@pytest.mark.parametrize("name", SELECTORS)
def test_select_panel__forced_first_excluded_and_constant_never(name):
    found = select_panel(
        name, sketch(constant=[7, 8]), 25, forced=[9, 2], excluded=[0, 20], seed=1
    ).tolist()
    assert found[:2] == [9, 2]
    assert len(set(found)) == 25
    assert not {0, 20, 7, 8} & set(found)


@pytest.mark.parametrize("name", SELECTORS)
def test_select_panel__same_seed_same_panel(name):
    first, second = (select_panel(name, sketch(), 9, seed=4).tolist() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", SELECTORS)
def test_select_panel__nested_where_it_says_so(name):
    large = select_panel(name, sketch(), 14, forced=[3]).tolist()
    assert SELECTORS[name].nested == (name != "medoids")
    if SELECTORS[name].nested:
        assert select_panel(name, sketch(), 6, forced=[3]).tolist() == large[:6]


@pytest.mark.parametrize("name", SELECTORS)
def test_select_panel__reads_scores_where_it_says_so(name):
    known, unknown = sketch(), sketch()
    unknown.score[:] = unknown.score[::-1].copy()
    differs = select_panel(name, known, 8).tolist() != select_panel(name, unknown, 8).tolist()
    assert differs == SELECTORS[name].uses_score


@pytest.mark.parametrize("name", SELECTORS)
def test_select_panel__all_that_may_be_chosen(name):
    found = select_panel(name, sketch(constant=[1]), 28, excluded=[5])
    assert sorted(found.tolist()) == [g for g in range(30) if g not in (1, 5)]
    with pytest.raises(ValueError, match="n_landmarks: expected 1 to 28, got 29"):
        select_panel(name, sketch(constant=[1]), 29, excluded=[5])


def test_select_panel__forced_genes_alone_even_a_constant_one():
    assert select_panel("greedy", sketch(constant=[1]), 2, forced=[1, 0]).tolist() == [1, 0]
    with pytest.raises(ValueError, match="n_landmarks: expected 2 to 30, got 1"):
        select_panel("greedy", sketch(constant=[1]), 1, forced=[1, 0])


@pytest.mark.parametrize("forced", [[3, 3], [3, 4]])
def test_select_panel__forced_twice_or_excluded(forced):
    with pytest.raises(ValueError, match="forced: expected different genes, none of them excluded"):
        select_panel("random", sketch(), 5, forced=forced, excluded=[4])


def test_select_panel__unknown_name():
    with pytest.raises(ValueError, match=r"selector: expected one of .*got 'best'"):
        select_panel("best", sketch(), 5)


def test_select_panel__deeplift_greedy_counts_errors_by_score():
    known = sketch()
    order = [int(g) for g in select_panel("deeplift-greedy", known, 6)]
    free = np.empty(0, dtype=np.int64)
    expected = greedy_order(
        known.rows,
        6,
        ridge=RIDGE * 12,
        forced=free,
        allowed=known.varies,
        products=Products.of(known.rows, known.score),
    )
    assert order == expected.tolist()
    known.score[:] = 0.3
    alike = select_panel("deeplift-greedy", known, 6).tolist()
    assert alike == select_panel("greedy", known, 6).tolist()


def test_select_panel__variance_is_that_before_standardising():
    found = select_panel("variance", sketch(), 30)
    assert found.tolist() == np.argsort(-sketch().std).tolist()


def test_select_panel__leverage_is_that_of_singular_vectors():
    rows = sketch().rows
    _, singular, axes = np.linalg.svd(rows.astype(float), full_matrices=False)
    n_axes = int((np.cumsum(singular**2) < 0.9 * (singular**2).sum()).sum()) + 1
    expected = np.argsort(-(axes[:n_axes] ** 2).sum(axis=0))
    np.testing.assert_array_equal(select_panel("leverage", sketch(), 30), expected)


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_principal_axes__no_more_than_genes(rng, share):
    axes, length = principal_axes(rng.normal(size=(40, 3)).astype(np.float32), share)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(length)), atol=1e-5)


def test_principal_axes__of_rows_without_any_spread():
    axes, length = principal_axes(np.zeros((3, 4), np.float32))
    assert np.isfinite(axes).all()
    assert length.tolist() == [0.0]


def test_select_panel__greedy_avoids_what_is_repeated():
    found = select_panel("greedy", sketch(n_rows=40), 15).tolist()
    assert len({gene % 15 for gene in found}) > 12
