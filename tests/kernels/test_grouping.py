"""Grouping: by hand, naive loops, and where there is nothing to agree with."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import AgglomerativeClustering

from dglzarr.kernels.grouping import group_samples, principal_components

RNG = np.random.default_rng(3)


@st.composite
def grouped(draw):
    """Features of 5 to 20 samples, whole numbers, and their groups: not one, not each its own."""
    n = draw(st.integers(5, 20))
    groups = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    groups[:3] = [0, 0, 1]
    features = draw(hnp.arrays(np.float64, (n, 2), elements=st.integers(-9, 9)))
    return features, np.unique(groups, return_inverse=True)[1]


def blobs(n=40, n_groups=4, spread=0.5):
    groups = np.arange(n) % n_groups
    return RNG.normal(0, spread, (n, 6)) + 3 * np.eye(n_groups, 6)[groups], groups


def naive_ari(a, b):
    """From all pairs of samples, whether each partition has them together."""
    pairs = list(combinations(range(len(a)), 2))
    together = np.array([(a[i] == a[j], b[i] == b[j]) for i, j in pairs])
    both, first, second = together.all(axis=1).sum(), *together.sum(axis=0)
    expected, most = first * second / len(pairs), (first + second) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def naive_nmi(a, b):
    """From the shares of samples in each group, each cluster, and both."""

    def entropy(labels):
        shares = [labels.count(label) / len(labels) for label in set(labels)]
        return -sum(share * np.log(share) for share in shares)

    a, b = list(a), list(b)
    total = entropy(a) + entropy(b)
    return 2 * (total - entropy(list(zip(a, b, strict=True)))) / total if total else 1.0


def naive_silhouette(features, groups):
    total = 0.0
    for i, sample in enumerate(features):
        distance = [float(np.sqrt(((sample - other) ** 2).sum())) for other in features]
        mean = {
            g: np.mean([d for j, d in enumerate(distance) if groups[j] == g and j != i] or [0.0])
            for g in set(groups.tolist())
        }
        own = mean.pop(groups[i])
        between = min(mean.values())
        if list(groups).count(groups[i]) > 1 and max(own, between) > 0:
            total += (between - own) / max(own, between)
    return total / len(features)


def test_group_samples__hand_worked():
    # 0 and 1, 2 and 3 merge first; the third group's one sample stands with the second
    found = group_samples(np.array([[0.0], [1.0], [9.0], [10.5]]), np.array([0, 0, 1, 2]))
    assert found.tree[0, :3].tolist() == [0, 1, 1.0]
    assert found.cluster.tolist() == [1, 1, 2, 3]
    assert (found.ari, found.nmi, found.reason) == (1.0, 1.0, "")
    # own group 1 away, next 9 and 8; samples alone count 0
    assert found.silhouette == pytest.approx((8 / 9 + 7 / 8) / 4)


def test_group_samples__hand_worked_where_they_disagree():
    # cut into {0, 1, 2} and {20}; the groups are {0, 1} and {2, 20}
    found = group_samples(np.array([[0.0], [1.0], [2.0], [20.0]]), np.array([0, 0, 1, 1]))
    assert found.cluster.tolist() == [1, 1, 1, 2]
    # pairs together: 2 in the groups, 3 in the clusters, 1 in both, of 6; 1 is expected
    assert found.ari == pytest.approx(0.0, abs=1e-12)
    # entropies ln 2 and 2 ln 2 - 3/4 ln 3, together 3/2 ln 2
    of_groups, of_clusters, of_both = np.log(2), 2 * np.log(2) - 0.75 * np.log(3), 1.5 * np.log(2)
    shared = of_groups + of_clusters - of_both
    assert found.nmi == pytest.approx(2 * shared / (of_groups + of_clusters))
    # 0: own 1, next 11; 1: 1 and 10; 2: 18 and 1.5; 20: 18 and 19.5
    gaps = 10 / 11, 9 / 10, -16.5 / 18, 1.5 / 19.5
    assert found.silhouette == pytest.approx(sum(gaps) / 4)


@pytest.mark.parametrize("method", ["ward", "average", "complete"])
def test_group_samples__tree_equals_scikit_learn(method):
    features, groups = blobs(spread=1.3)
    found = group_samples(features, groups, method=method)
    theirs = AgglomerativeClustering(4, linkage=method).fit_predict(features)
    assert naive_ari(found.cluster, theirs) == 1.0
    assert 0 < found.ari < 1


@given(grouped())
def test_group_samples__naive_loops(case):
    features, groups = case
    found = group_samples(features, groups)
    assert found.ari == pytest.approx(naive_ari(groups, found.cluster), abs=1e-9)
    assert found.nmi == pytest.approx(naive_nmi(groups, found.cluster), abs=1e-9)
    assert found.silhouette == pytest.approx(naive_silhouette(features, groups), abs=1e-9)


@given(grouped(), st.randoms())
def test_group_samples__does_not_depend_on_names(case, random):
    features, groups = case
    names = list(range(groups.max() + 1))
    random.shuffle(names)
    found, renamed = (group_samples(features, g) for g in (groups, np.array(names)[groups]))
    for measure in ("ari", "nmi", "silhouette"):
        assert getattr(found, measure) == pytest.approx(getattr(renamed, measure), abs=1e-12)


def test_group_samples__equal_samples_count_0():
    assert group_samples(np.zeros((4, 2)), np.array([0, 0, 1, 1])).silhouette == 0


def test_group_samples__nearly_a_group_for_each_sample():
    features = np.arange(30.0)[:, None] ** 2
    found = group_samples(features, np.maximum(np.arange(30) - 1, 0))
    assert (found.ari, found.nmi) == (1.0, pytest.approx(1.0))
    assert found.silhouette == pytest.approx((3 / 4 + 2 / 3) / 30)


@pytest.mark.parametrize(
    ("groups", "reason"), [([0, 0, 0], "of one group"), ([0, 1, 2], "a group of its own")]
)
def test_group_samples__nothing_to_agree_with(groups, reason):
    found = group_samples(RNG.normal(size=(3, 2)), np.array(groups))
    assert reason in found.reason
    assert np.isnan([found.ari, found.nmi, found.silhouette]).all()
    assert found.tree.shape == (2, 4)


def test_principal_components__by_hand():
    # the fitted lie on a line through (1, 1): along it at -5, 0 and 10, less their mean
    fitted = np.array([[-2.0, -3.0], [1.0, 1.0], [7.0, 9.0]])
    found = principal_components(fitted, np.array([[1.0, 1.0], [5.0, -2.0]]), 2)
    np.testing.assert_allclose(found, [[-5 / 3], [-5 / 3]], atol=1e-12)


@pytest.mark.parametrize("level", [0.0, 1e4])
def test_principal_components__equals_the_decomposed_matrix(level):
    fitted, samples = level + RNG.normal(size=(12, 30)), level + RNG.normal(size=(5, 30))
    axes = np.linalg.svd(fitted - fitted.mean(axis=0))[2][:4]
    expected = (np.concatenate([samples, fitted]) - fitted.mean(axis=0)) @ axes.T
    found = principal_components(fitted, np.concatenate([samples, fitted]), 4)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    farthest = np.abs(found[5:]).argmax(axis=0)
    assert (found[5:][farthest, np.arange(4)] > 0).all()


def test_principal_components__no_more_than_there_are():
    fitted = np.outer(RNG.normal(size=6), RNG.normal(size=9))
    assert principal_components(fitted, fitted, 5).shape == (6, 1)
    assert principal_components(np.ones((3, 4)), fitted[:, :4], 2).shape == (6, 0)
    many = RNG.normal(size=(40, 90)).astype(np.float32)
    assert principal_components(many, many, 99).shape == (40, 39)
