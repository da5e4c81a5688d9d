"""A panel's own genes: bringing samples to the reference, standing in for others, novelty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.kernels.panel_space import PANEL_SCALES, PanelSpace, patterns, to_study_scale
from dglzarr.kernels.quantile import apply_quantile


@pytest.fixture
def space(rng):
    z = rng.standard_normal((200, 3)) @ rng.standard_normal((3, 6)) + rng.normal(0, 0.5, (200, 6))
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    return PanelSpace.of(z.T @ z / 200, 0.1), z


def test_others__is_ridge_regression_of_each_gene_on_the_rest(space):
    found, z = space
    said = found.others(z)
    for gene in range(6):
        rest = np.delete(z, gene, axis=1)
        coef = np.linalg.solve(rest.T @ rest + 20 * np.eye(5), rest.T @ z[:, gene])
        np.testing.assert_allclose(said[:, gene], z[:, gene] - rest @ coef, atol=1e-9)


def test_fill__is_ridge_regression_on_those_present(space):
    found, z = space
    given_ = z[:5].copy()
    given_[1, 2] = np.nan
    given_[3, [0, 4]] = np.nan
    filled = found.fill(given_)
    for row, lacking in ((1, [2]), (3, [0, 4])):
        rest = np.delete(np.arange(6), lacking)
        coef = np.linalg.solve(
            z[:, rest].T @ z[:, rest] + 20 * np.eye(rest.size), z[:, rest].T @ z[:, lacking]
        )
        np.testing.assert_allclose(filled[row, lacking], given_[row, rest] @ coef, atol=1e-9)
    known = ~np.isnan(given_)
    np.testing.assert_array_equal(filled[known], given_[known])


def test_fill__nothing_known_is_the_mean(space):
    assert space[0].fill(np.full((1, 6), np.nan)).tolist() == [[0.0] * 6]


def test_novelty__higher_where_genes_do_not_hang_together(space, rng):
    found, z = space
    mixed = np.stack([rng.permutation(row) for row in z])
    assert np.median(found.novelty(mixed)) > 1.5 * np.median(found.novelty(z))
    lacking = z.copy()
    lacking[:, 0] = np.nan
    ratio = found.novelty(lacking) / found.novelty(z)
    assert 0.8 < np.median(ratio) < 1.2


def test_patterns__cover_every_row_once(rng):
    missing = rng.random((30, 4)) < 0.3
    found = patterns(missing)
    assert sorted(np.concatenate([rows for rows, _ in found]).tolist()) == list(range(30))
    for rows, known in found:
        assert (missing[rows] == ~known).all()


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_to_study_scale__quantile_sees_ranks_alone(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(8, 2, (3, 7)).astype(np.float32)
    mean, reference = rng.normal(8, 1, 7), np.sort(rng.normal(8, 1, 7))
    arguments = {"mean": mean, "reference": reference}
    found = to_study_scale(values, "quantile", **arguments)
    np.testing.assert_array_equal(found, apply_quantile(values, reference))
    np.testing.assert_array_equal(found, to_study_scale(2 * values + 1, "quantile", **arguments))
    values[1, 3] = np.nan
    lacking = to_study_scale(values, "quantile", **arguments)
    np.testing.assert_array_equal(np.isnan(lacking), np.isnan(values))
    np.testing.assert_array_equal(lacking[[0, 2]], found[[0, 2]])
    known = ~np.isnan(values[1])
    np.testing.assert_array_equal(
        np.argsort(lacking[1, known], kind="stable"), np.argsort(values[1, known], kind="stable")
    )


def test_to_study_scale__a_missing_gene_keeps_its_place():
    """Without the highest gene the others stay low, instead of spreading over the reference."""
    mean = np.array([1.0, 2.0, 3.0, 9.0])
    found = to_study_scale(
        np.array([[5.0, 6.0, 7.0, np.nan]]), "quantile", mean=mean, reference=mean
    )
    np.testing.assert_array_equal(found, [[1, 2, 3, np.nan]])


def test_to_study_scale__nothing_known_stays_unknown():
    for scale in PANEL_SCALES:
        found = to_study_scale(
            np.full((1, 3), np.nan), scale, mean=np.arange(3.0), reference=np.arange(3.0)
        )
        assert np.isnan(found).all()
