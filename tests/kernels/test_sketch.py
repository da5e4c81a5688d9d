"""Sketches: few samples stay as they are, many keep the products of genes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.sketch import GeneSketch, fold_samples, share_rows


def rng(*seed):
    return np.random.default_rng([0, *seed])


def test_fold_samples__few_stay():
    block = rng().standard_normal((5, 7)).astype(np.float32)
    assert fold_samples(block, 5, rng()) is block


def test_fold_samples__one_row_is_a_signed_sum():
    block = np.eye(4, dtype=np.float32)
    folded = fold_samples(block, 1, rng())
    assert folded.shape == (1, 4)
    np.testing.assert_array_equal(np.abs(folded), 1)


def test_fold_samples__each_sample_enters_one_row_rows_are_even():
    folded = fold_samples(np.eye(11, dtype=np.float32), 3, rng())
    np.testing.assert_array_equal(np.abs(folded).sum(axis=0), 1)
    assert sorted(np.abs(folded).sum(axis=1).tolist()) == [3, 4, 4]


def test_fold_samples__products_of_genes_are_right_on_average():
    block = 1 + rng(1).standard_normal((40, 6)).astype(np.float32)
    block[:, 3:] += block[:, :3]
    exact = block.T @ block
    folds = [fold_samples(block, 8, rng(2, i)) for i in range(2000)]
    mean = np.mean([f.T @ f for f in folds], axis=0)
    np.testing.assert_allclose(mean, exact, atol=0.05 * exact.max())
    assert np.abs(folds[0].T @ folds[0] - exact).max() > 0.1 * exact.max()


def test_fold_samples__no_row():
    with pytest.raises(ValueError, match="n_rows: expected 1 or more, got 0"):
        fold_samples(np.ones((2, 2), np.float32), 0, rng())


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20), st.integers(1, 300))
def test_share_rows__all_samples_or_about_the_rows(counts, n_rows):
    shared = share_rows(np.array(counts), n_rows)
    if sum(counts) <= n_rows:
        assert shared.tolist() == counts
    else:
        assert all(
            (rows > 0) == (n > 0) and rows <= n for rows, n in zip(shared, counts, strict=True)
        )
        assert n_rows <= shared.sum() < n_rows + len(counts)


def test_gene_sketch__what_varies():
    sketch = GeneSketch(np.ones((1, 3), np.float32), np.array([0.0, np.nan, 2.0]), np.ones(3), 1)
    assert sketch.varies.tolist() == [False, False, True]
