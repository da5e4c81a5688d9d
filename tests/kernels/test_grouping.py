"""Grouping: against scikit-learn, by hand, and where there is nothing to agree with."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix

from dglzarr.kernels.grouping import (
    adjusted_rand_index,
    group_samples,
    mean_silhouette,
    normalized_mutual_information,
    principal_components,
)

RNG = np.random.default_rng(3)


@st.composite
def partitions(draw):
    n = draw(st.integers(3, 20))
    return tuple(draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3))) for _ in range(2))


def blobs(n=40, n_groups=4, spread=0.5):
    groups = np.arange(n) % n_groups
    return RNG.normal(0, spread, (n, 6)) + 3 * np.eye(n_groups, 6)[groups], groups


def test_group_samples__hand_worked():
    # 0 and 1, 2 and 3 merge first; the third group's one sample stands with the second
    found = group_samples(np.array([[0.0], [1.0], [9.0], [10.5]]), np.array([0, 0, 1, 2]))
    assert found.tree[0, :3].tolist() == [0, 1, 1.0]
    assert found.cluster.tolist() == [1, 1, 2, 3]
    assert (found.ari, found.nmi, found.reason) == (1.0, 1.0, "")
    # own group 1 away, next 9 and 8; samples alone count 0
    assert found.silhouette == pytest.approx((8 / 9 + 7 / 8) / 4)


@pytest.mark.parametrize("method", ["ward", "average", "complete"])
def test_group_samples__equals_scikit_learn(method):
    features, groups = blobs(spread=1.3)
    found = group_samples(features, groups, method=method)
    theirs = AgglomerativeClustering(4, linkage=method).fit_predict(features)
    assert adjusted_rand_score(found.cluster, theirs) == 1.0
    assert 0 < found.ari < 1
    assert found.ari == pytest.approx(adjusted_rand_score(groups, found.cluster))
    assert found.nmi == pytest.approx(normalized_mutual_info_score(groups, found.cluster))
    assert found.silhouette == pytest.approx(silhouette_score(features, groups))


@given(partitions())
def test_agreement__equals_scikit_learn(pair):
    table = contingency_matrix(*pair).astype(float)
    assert adjusted_rand_index(table) == pytest.approx(adjusted_rand_score(*pair))
    expected = normalized_mutual_info_score(*pair)
    assert normalized_mutual_information(table) == pytest.approx(expected, abs=1e-9)


@given(partitions())
def test_agreement__does_not_depend_on_names_or_order(pair):
    table = contingency_matrix(*pair).astype(float)
    for func in (adjusted_rand_index, normalized_mutual_information):
        assert func(table.T) == pytest.approx(func(table), abs=1e-12)
        assert func(table[::-1]) == pytest.approx(func(table), abs=1e-12)


def test_mean_silhouette__in_slices(monkeypatch):
    from dglzarr.kernels import grouping

    features, groups = blobs()
    whole = mean_silhouette(features, groups)
    monkeypatch.setattr(
        grouping, "iter_slices", lambda n, _: [slice(i, i + 7) for i in range(0, n, 7)]
    )
    assert mean_silhouette(features, groups) == pytest.approx(whole)


def test_mean_silhouette__equal_samples_count_0():
    assert mean_silhouette(np.zeros((4, 2)), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize(
    ("groups", "reason"), [([0, 0, 0], "of one group"), ([0, 1, 2], "a group of its own")]
)
def test_group_samples__nothing_to_agree_with(groups, reason):
    found = group_samples(RNG.normal(size=(3, 2)), np.array(groups))
    assert reason in found.reason
    assert np.isnan([found.ari, found.nmi, found.silhouette]).all()
    assert found.tree.shape == (2, 4)


def test_principal_components__equals_scikit_learn():
    fitted, samples = RNG.normal(size=(12, 30)), RNG.normal(size=(5, 30))
    expected = PCA(4).fit(fitted).transform(samples)
    np.testing.assert_allclose(np.abs(principal_components(fitted, samples, 4)), np.abs(expected))


def test_principal_components__no_more_than_there_are():
    fitted = np.outer(RNG.normal(size=6), RNG.normal(size=9))
    assert principal_components(fitted, fitted, 5).shape == (6, 1)
