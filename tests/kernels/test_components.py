import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD

from dglzarr.kernels import components
from dglzarr.kernels.components import series_weights, spherical_components


def blocks_of(samples, n=7):
    return lambda: (samples[i : i + n].copy() for i in range(0, len(samples), n))


def weighted(samples, weight):
    """What the axes are those of, sample by sample."""
    rows = [
        w * row / np.linalg.norm(row) for w, row in zip(weight, samples.astype(float), strict=True)
    ]
    return np.array(rows)


def projector(axes):
    return axes.T @ axes


@pytest.fixture
def samples(rng):
    hidden = rng.normal(size=(60, 5)) * [8, 5, 3, 2, 1]
    return (hidden @ rng.normal(size=(5, 30)) + 0.1 * rng.normal(size=(60, 30))).astype(np.float32)


@pytest.mark.parametrize("n_direct", [2048, 20], ids=["exact", "iterated"])
def test_spherical_components__are_those_of_sklearn(samples, rng, monkeypatch, n_direct):
    monkeypatch.setattr(components, "N_DIRECT", n_direct)
    weight = rng.uniform(0.2, 1, 60).astype(np.float32)
    axes = spherical_components(blocks_of(samples), weight, 4)
    expected = TruncatedSVD(4, algorithm="arpack").fit(weighted(samples, weight)).components_
    np.testing.assert_allclose(np.abs(np.sum(axes * expected, axis=1)), 1, atol=2e-4)
    np.testing.assert_allclose(axes @ axes.T, np.eye(4), atol=1e-5)


@given(st.integers(1, 60))
def test_spherical_components__do_not_depend_on_blocks(n):
    samples = np.random.default_rng(3).normal(size=(60, 9)).astype(np.float32)
    whole, parts = (
        spherical_components(blocks_of(samples, size), np.ones(60, np.float32), 3)
        for size in (60, n)
    )
    np.testing.assert_allclose(projector(whole), projector(parts), atol=1e-5)


def test_spherical_components__scale_of_a_sample_has_no_part(samples):
    weight = np.ones(60, np.float32)
    scaled = samples * np.linspace(0.1, 50, 60, dtype=np.float32)[:, np.newaxis]
    one, other = (spherical_components(blocks_of(x), weight, 3) for x in (samples, scaled))
    np.testing.assert_allclose(projector(one), projector(other), atol=1e-5)


def test_spherical_components__no_more_than_samples_span(samples):
    twice = np.concatenate([samples[:3], samples[:3], np.zeros((2, 30), np.float32)])
    assert spherical_components(blocks_of(twice), np.ones(8, np.float32), 5).shape == (3, 30)
    nothing = np.zeros((4, 30), np.float32)
    assert spherical_components(blocks_of(nothing), np.ones(4, np.float32), 5).shape == (0, 30)


def test_series_weights__a_large_series_counts_as_a_small_one(rng):
    """Each of two series of opposite taste gives one of two axes, however large it is."""
    series = np.array(["a"] * 50 + ["b"] * 2, dtype=object)
    weight = series_weights(series)
    squares = [np.sum(weight[series == name] ** 2) for name in ("a", "b")]
    np.testing.assert_allclose(squares, 1, rtol=1e-6)
    samples = np.zeros((52, 3), np.float32)
    samples[:50, :2], samples[50:, 2] = rng.normal(size=(50, 2)), 1
    first = spherical_components(blocks_of(samples), weight, 1)
    np.testing.assert_allclose(np.abs(first), [[0, 0, 1]], atol=1e-6)
