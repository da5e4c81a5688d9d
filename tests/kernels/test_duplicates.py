"""Near-duplicates: brute force as the oracle, planted pairs, and both keep rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist, squareform

from dglzarr.kernels.duplicates import (
    candidate_pairs,
    distance_basis,
    find_near_duplicates,
    keep_mask,
    pair_distances,
    project,
    projection_slack,
)


def brute_pairs(matrix, threshold):
    distances = squareform(pdist(matrix.astype(np.float64)))
    first, second = np.nonzero(np.triu(distances < threshold, k=1))
    return np.stack([first, second], axis=1), distances


def brute_keep(matrix, threshold, rule):
    """The definition, one sample after the other."""
    distances = squareform(pdist(matrix.astype(np.float64)))
    keep = np.ones(len(matrix), dtype=bool)
    for j in range(len(matrix)):
        near = [i for i in range(j) if distances[i, j] < threshold]
        keep[j] = not (any(keep[i] for i in near) if rule == "greedy" else near)
    return keep


def clumps(seed, n_samples=60, n_genes=30, level=8.0):
    """Samples in clumps whose distances lie around 1."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(level, 2, (max(1, n_samples // 6), n_genes))
    noise = rng.normal(0, 1, (n_samples, n_genes)) / np.sqrt(2 * n_genes)
    return (centres[rng.integers(len(centres), size=n_samples)] + noise).astype(np.float32)


def plant(rng, n_genes, distances, level):
    """Pairs of samples at given distances, all pairs far from each other."""
    base = rng.uniform(0.5 * level, 1.5 * level, (len(distances), n_genes))
    direction = rng.normal(size=base.shape)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return base, base + direction * np.array(distances)[:, None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_pivots", [1, 5, 12])
def test_candidate_pairs__misses_nothing(seed, n_pivots):
    matrix = clumps(seed)
    pivots = np.random.default_rng(seed).normal(8, 2, (n_pivots, matrix.shape[1]))
    pairs = candidate_pairs(cdist(matrix, pivots).astype(np.float32), 1.0, 1e-4)
    found = {tuple(pair) for pair in pairs}
    expected, _ = brute_pairs(matrix, 1.0)
    assert len(expected) > 20
    assert {tuple(pair) for pair in expected} <= found
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert pairs.tolist() == sorted(pairs.tolist())


def test_candidate_pairs__are_those_within_reach_of_every_pivot():
    distances = np.random.default_rng(0).uniform(0, 4, (80, 11)).astype(np.float32)
    distances[:, 3:] /= 2
    gaps = squareform(pdist(distances.astype(np.float64), "chebyshev"))
    expected = np.argwhere(np.triu(gaps < 1.5, k=1))
    np.testing.assert_array_equal(candidate_pairs(distances, 1.0, 0.5), expected)
    in_tree = np.triu(squareform(pdist(distances[:, :8], "chebyshev")) < 1.5, k=1).sum()
    assert 0 < len(expected) < in_tree


def test_candidate_pairs__exactly_at_the_threshold_is_outside():
    distances = np.array([[0.0], [1.0], [1.5]])
    np.testing.assert_array_equal(candidate_pairs(distances, 1.0, 0.0), [[1, 2]])
    np.testing.assert_array_equal(candidate_pairs(distances, 1.0, 0.1), [[0, 1], [1, 2]])


def test_candidate_pairs__slack_of_float32_projections_is_needed_and_enough():
    """Pairs just under the threshold, apart along one direction of the basis only."""
    rng = np.random.default_rng(0)
    basis = distance_basis(rng.normal(size=(40, 400)).astype(np.float32), 5)
    left = 1e4 * rng.normal(size=(60, 400))
    matrix = np.concatenate([left, left + np.resize(basis, (60, 400))]).astype(np.float32)
    distances = np.linalg.norm(matrix[:60].astype(np.float64) - matrix[60:], axis=1)
    threshold = float(distances.max()) * (1 + 1e-9)
    projected = project(matrix, basis)
    slack = projection_slack(float(np.linalg.norm(matrix, axis=1).max()), matrix.shape[1])
    found = [len(candidate_pairs(projected, threshold, s)) for s in (0.0, slack)]
    assert found[0] < 60
    assert found[1] == 60


def test_candidate_pairs__none():
    assert candidate_pairs(np.array([[0.0], [5.0]]), 1.0, 0.0).shape == (0, 2)
    assert candidate_pairs(np.zeros((1, 3)), 1.0, 0.0).shape == (0, 2)


def test_pair_distances__equals_scipy():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 5000, 300)).astype(np.float32)
    expected = [np.linalg.norm(a.astype(np.float64) - b) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(pair_distances(left, right), expected, rtol=1e-12)


def test_pair_distances__norms_of_1e6_do_not_cancel():
    left, right = plant(np.random.default_rng(0), 22268, [0.9, 1.1], level=1e4)
    assert np.linalg.norm(left, axis=1).min() > 1.4e6
    np.testing.assert_allclose(pair_distances(left, right), [0.9, 1.1], rtol=1e-6)


CHAIN = np.array([[0, 1], [1, 2], [2, 3]])


@pytest.mark.parametrize(
    ("rule", "keep", "duplicate_of"),
    [
        ("greedy", [True, False, True, False], [-1, 0, -1, 2]),
        ("dgex", [True, False, False, False], [-1, 0, 0, 0]),
    ],
)
def test_keep_mask__chain(rule, keep, duplicate_of):
    result = keep_mask(4, CHAIN, np.array([0.5, 0.6, 0.7]), threshold=1.0, rule=rule)
    np.testing.assert_array_equal(result[0], keep)
    np.testing.assert_array_equal(result[1], duplicate_of)


def test_keep_mask__threshold_is_strict():
    keep, _ = keep_mask(4, CHAIN, np.array([1.0, 0.999, 2.0]), threshold=1.0)
    np.testing.assert_array_equal(keep, [True, True, False, True])


def test_keep_mask__nearest_kept_sample_is_named():
    pairs = np.array([[0, 3], [1, 3], [2, 3]])
    keep, duplicate_of = keep_mask(4, pairs, np.array([0.5, 0.2, 0.2]), threshold=1.0)
    np.testing.assert_array_equal(keep, [True, True, True, False])
    assert duplicate_of[3] == 1


@pytest.mark.parametrize("rule", ["greedy", "dgex"])
def test_keep_mask__order_decides_who_stays(rule):
    order = np.array([3, 2, 1, 0])
    keep, duplicate_of = keep_mask(
        4, CHAIN, np.array([0.5, 0.6, 0.7]), threshold=1.0, order=order, rule=rule
    )
    expected = [False, True, False, True] if rule == "greedy" else [False, False, False, True]
    np.testing.assert_array_equal(keep, expected)
    np.testing.assert_array_equal(
        duplicate_of, [1, -1, 3, -1] if rule == "greedy" else [3, 3, 3, -1]
    )


def test_keep_mask__dgex_stays_within_clusters():
    cluster = np.array([0, 0, 1, 1])
    distances = np.array([0.5, 0.6, 0.7])
    keep, duplicate_of = keep_mask(4, CHAIN, distances, threshold=1.0, rule="dgex", cluster=cluster)
    np.testing.assert_array_equal(keep, [True, False, True, False])
    np.testing.assert_array_equal(duplicate_of, [-1, 0, -1, 2])
    greedy, _ = keep_mask(4, CHAIN[1:2], distances[1:2], threshold=1.0, cluster=cluster)
    np.testing.assert_array_equal(greedy, [True, True, False, True])


def test_keep_mask__no_pairs():
    keep, duplicate_of = keep_mask(3, np.empty((0, 2), dtype=int), np.empty(0), threshold=1.0)
    assert keep.all()
    np.testing.assert_array_equal(duplicate_of, [-1, -1, -1])


def test_keep_mask__unknown_rule_refused():
    with pytest.raises(ValueError, match="rule: expected 'greedy' or 'dgex', got 'first'"):
        keep_mask(4, CHAIN, np.ones(3), threshold=1.0, rule="first")


@given(seed=st.integers(0, 10_000), n_samples=st.integers(1, 40), shuffle=st.booleans())
def test_keep_mask__greedy_properties(seed, n_samples, shuffle):
    matrix = clumps(seed, n_samples=n_samples, n_genes=5)
    pairs, distances = brute_pairs(matrix, np.inf)
    order = np.random.default_rng(seed).permutation(n_samples) if shuffle else None
    keep, duplicate_of = keep_mask(
        n_samples, pairs, distances[tuple(pairs.T)], threshold=1.0, order=order
    )
    kept = np.flatnonzero(keep)
    apart = distances[np.ix_(kept, kept)] + np.diag(np.full(kept.size, np.inf))
    assert (apart >= 1.0).all()
    np.testing.assert_array_equal(duplicate_of == -1, keep)
    for dropped in np.flatnonzero(~keep):
        assert keep[duplicate_of[dropped]]
        assert distances[dropped, duplicate_of[dropped]] < 1.0
    if order is None:
        np.testing.assert_array_equal(keep, brute_keep(matrix, 1.0, "greedy"))


@pytest.mark.parametrize("rule", ["greedy", "dgex"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=st.integers(0, 10_000), n_samples=st.integers(1, 60), n_genes=st.integers(1, 20))
def test_find_near_duplicates__equals_brute_force(rule, dtype, seed, n_samples, n_genes):
    matrix = clumps(seed, n_samples=n_samples, n_genes=n_genes).astype(dtype)
    result = find_near_duplicates(matrix, threshold=0.9, rule=rule)
    np.testing.assert_array_equal(result, brute_keep(matrix, 0.9, rule))


@pytest.mark.parametrize("threshold", [1.0, 3.0])
@pytest.mark.parametrize("level", [8.0, 1e4], ids=["log2", "raw with norms of 1.5e6"])
def test_find_near_duplicates__planted_pairs_around_the_threshold(threshold, level):
    ratios = np.concatenate([np.linspace(0.90, 0.99, 10), np.linspace(1.01, 1.10, 10)])
    left, right = plant(np.random.default_rng(5), 22268, ratios * threshold, level)
    keep = find_near_duplicates(np.concatenate([left, right]), threshold=threshold)
    np.testing.assert_array_equal(keep, np.append(np.ones(20, bool), ratios > 1))


def test_find_near_duplicates__missing_values_count_as_the_mean():
    matrix = np.array([[1.0, 5.0], [1.0, np.nan], [1.0, 7.0], [9.0, 6.0]])
    filled = np.where(np.isnan(matrix), 6.0, matrix)
    assert np.isnan(matrix).any()
    np.testing.assert_array_equal(
        find_near_duplicates(matrix, threshold=1.01), brute_keep(filled, 1.01, "greedy")
    )
    np.testing.assert_array_equal(
        find_near_duplicates(matrix, threshold=1.01), [True, False, True, True]
    )


def test_find_near_duplicates__gene_without_values_is_ignored():
    matrix = np.array([[1.0, np.nan], [1.1, np.nan], [4.0, np.nan]], dtype=np.float32)
    np.testing.assert_array_equal(find_near_duplicates(matrix), [True, False, True])


def test_find_near_duplicates__identical_samples():
    np.testing.assert_array_equal(find_near_duplicates(np.full((300, 4), 7.0)), np.arange(300) == 0)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(3), r"matrix: expected \(sample, gene\), got shape \(3,\)"),
        (np.zeros((0, 3)), r"matrix: expected \(sample, gene\), got shape \(0, 3\)"),
        (np.array([[1.0, np.inf]]), "matrix: expected finite values or NaN"),
    ],
)
def test_find_near_duplicates__refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        find_near_duplicates(matrix)


@pytest.mark.parametrize(("n_rows", "n_genes", "wanted"), [(5, 40, 5), (40, 5, 5), (30, 60, 12)])
def test_distance_basis__is_orthonormal_and_never_lengthens(rng, n_rows, n_genes, wanted):
    block = rng.normal(size=(n_rows, n_genes)).astype(np.float32)
    basis = distance_basis(block, min(12, wanted))
    np.testing.assert_allclose(basis @ basis.T, np.eye(min(12, wanted)), atol=1e-6)
    projected = block @ basis.T
    assert (pdist(projected) <= pdist(block) + projection_slack(50.0, n_genes)).all()


def test_distance_basis__spans_the_principal_axes(rng):
    block = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 20))
    basis = distance_basis(block, 10)
    assert basis.shape == (3, 20)
    np.testing.assert_allclose(pdist(block @ basis.T), pdist(block), rtol=1e-4)
    first = np.linalg.svd(block)[2][0]
    assert abs(first @ basis[0]) == pytest.approx(1, abs=1e-5)


def test_distance_basis__without_variation():
    assert distance_basis(np.zeros((4, 7), np.float32), 3).shape == (1, 7)


def test_projection_slack__bounds_the_rounding(rng):
    block = (100 * rng.normal(size=(64, 5000))).astype(np.float32)
    axis = distance_basis(block, 1)
    exact = block.astype(np.float64) @ axis[0].astype(np.float64)
    error = np.abs((block @ axis[0]).astype(np.float64) - exact).max()
    assert 0 < 2 * error < projection_slack(float(np.linalg.norm(block, axis=1).max()), 5000)
