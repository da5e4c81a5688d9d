"""Greedy selection: the recursion chooses what trying every gene out chooses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.kernels.greedy import Products, greedy_order, ordered_gain

NONE = np.empty(0, dtype=np.int64)


def every(n):
    return np.ones(n, dtype=bool)


def ridge_error(rows, panel, ridge, importance):
    """Weighted sum of squares and penalty that ridge regression on a panel leaves, all targets."""
    x, total = rows[:, panel], 0.0
    for target, weight in zip(rows.T, importance, strict=True):
        coef = np.linalg.solve(x.T @ x + ridge * np.eye(len(panel)), x.T @ target)
        total += weight * (np.sum((target - x @ coef) ** 2) + ridge * np.sum(coef**2))
    return total


def gains(rows, panel, ridge, importance):
    before = ridge_error(rows, panel, ridge, importance)
    errors = [ridge_error(rows, [*panel, g], ridge, importance) for g in range(rows.shape[1])]
    return before - np.array(errors)


def test_greedy_order__by_hand():
    rows = np.array([[2.0, 2.0, 0.0], [0.0, 0.1, 1.0]])
    # gains without a panel: (16 + 16) / (0.1 + 4), about 32.9 / 4.11, (0.01 + 1) / 1.1
    assert greedy_order(rows, 3, ridge=0.1, forced=NONE, allowed=every(3)).tolist()[0] == 1
    # what gene 1 explains, gene 0 need not
    assert greedy_order(rows, 3, ridge=0.1, forced=NONE, allowed=every(3)).tolist() == [1, 2, 0]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_greedy_order__every_step_is_the_best_of_all(dtype, weighted):
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((9, 14)).astype(dtype)
    rows[:, 7:] += 2 * rows[:, :7]
    importance = rng.uniform(0.1, 2, 14) if weighted else None
    forced, allowed = np.array([3, 8]), every(14)
    allowed[[0, 12]] = False
    found = greedy_order(
        rows, 8, ridge=2.0, forced=forced, allowed=allowed, products=Products.of(rows, importance)
    )
    panel = [3, 8]
    for gene in found:
        gain = gains(rows.astype(float), panel, 2.0, importance if weighted else np.ones(14))
        gain[panel] = gain[~allowed] = -np.inf
        assert gene == gain.argmax()
        panel.append(int(gene))
    assert len(set(panel)) == 10


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 8), st.integers(2, 12), st.floats(0.01, 50))
def test_greedy_order__permuted_genes_give_the_same_panel(seed, n_rows, n_genes, ridge):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, n_genes))
    order = rng.permutation(n_genes)
    options = {"ridge": ridge, "forced": NONE, "allowed": every(n_genes)}
    n = min(3, n_rows - 1)
    np.testing.assert_array_equal(
        order[greedy_order(rows[:, order], min(n, n_genes), **options)],
        greedy_order(rows, min(n, n_genes), **options),
    )


def test_greedy_order__a_copy_adds_little():
    rng = np.random.default_rng(2)
    rows = np.repeat(rng.standard_normal((50, 5)), 3, axis=1)
    rows += 0.01 * rng.standard_normal(rows.shape)
    found = greedy_order(rows, 5, ridge=0.5, forced=NONE, allowed=every(15))
    assert sorted((found // 3).tolist()) == [0, 1, 2, 3, 4]


def test_greedy_order__first_genes_are_the_smaller_panel():
    rows = np.random.default_rng(3).standard_normal((20, 30)).astype(np.float32)
    large = greedy_order(rows, 12, ridge=1.0, forced=NONE, allowed=every(30))
    np.testing.assert_array_equal(
        greedy_order(rows, 5, ridge=1.0, forced=NONE, allowed=every(30)), large[:5]
    )


@pytest.mark.parametrize(
    ("n", "ridge", "message"),
    [(4, 1.0, "n: expected at most 3 genes, got 4"), (1, 0.0, "ridge: expected over 0, got 0.0")],
)
def test_greedy_order__refused(n, ridge, message):
    allowed = np.array([True, False, True, True, True])
    with pytest.raises(ValueError, match=message):
        greedy_order(np.ones((2, 5)), n, ridge=ridge, forced=np.array([4]), allowed=allowed)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("begin", [0, 3])
def test_ordered_gain__is_what_the_error_falls_by(dtype, begin):
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((9, 14)).astype(dtype)
    rows[:, 7:] += 2 * rows[:, :7]
    panel = [11, 4, 3, 0, 10, 5]
    ones, exact = np.ones(14), rows.astype(float)
    expected = [gains(exact, panel[:i], 1.5, ones)[gene] for i, gene in enumerate(panel)]
    found = ordered_gain(rows, np.array(panel), ridge=1.5, begin=begin)
    np.testing.assert_allclose(found, expected[begin:], rtol=1e-5 if dtype == np.float32 else 1e-10)


def test_ordered_gain__of_a_greedy_panel_is_the_highest_of_all():
    rows = np.random.default_rng(3).standard_normal((30, 90)).astype(np.float32)
    panel = greedy_order(rows, 70, ridge=2.0, forced=NONE, allowed=every(90))
    found = ordered_gain(rows, panel, ridge=2.0, begin=0)
    for i in (0, 1, 40):
        rivals = gains(rows.astype(float), panel[:i].tolist(), 2.0, np.ones(90))
        rivals[panel[:i]] = -np.inf
        assert found[i] == pytest.approx(rivals.max(), rel=1e-4)
    assert (found > 0).all()
