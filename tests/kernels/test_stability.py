import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from dglzarr.kernels.stability import panel_overlap, rank_correlation, rank_genes


def test_panel_overlap__by_hand():
    panels = np.zeros((3, 6), bool)
    panels[0, [0, 1, 2]] = panels[1, [1, 2, 3]] = panels[2, [3, 4, 5]] = True
    expected = [[1, 2 / 3, 0], [2 / 3, 1, 1 / 3], [0, 1 / 3, 1]]
    np.testing.assert_allclose(panel_overlap(panels), expected)


@given(seed=st.integers(0, 99), n=st.integers(1, 9), size=st.integers(1, 12))
def test_panel_overlap__equals_sets(seed, n, size):
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(12, size, replace=False) for _ in range(n)]
    panels = np.zeros((n, 12), bool)
    for row, genes in zip(panels, chosen, strict=True):
        row[genes] = True
    expected = [[len(set(a) & set(b)) / size for b in chosen] for a in chosen]
    np.testing.assert_allclose(panel_overlap(panels), expected)


@given(seed=st.integers(0, 99), n=st.integers(1, 4))
def test_rank_genes__equals_scipy(seed, n):
    score = np.random.default_rng(seed).integers(0, 5, (n, 12)).astype(float)
    np.testing.assert_array_equal(rank_genes(score), rankdata(-score, "ordinal", axis=1))


@given(seed=st.integers(0, 99), n=st.integers(2, 5))
def test_rank_correlation__equals_scipy(seed, n):
    score = np.random.default_rng(seed).integers(0, 9, (n, 30)).astype(float)
    found = rank_correlation(score)
    for i in range(n):
        for j in range(n):
            np.testing.assert_allclose(found[i, j], spearmanr(score[i], score[j])[0], atol=1e-12)


def test_rank_correlation__one_replicate():
    assert rank_correlation(np.array([[1.0, 2.0]])).shape == (1, 1)
