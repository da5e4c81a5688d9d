"""Folds: every label tested once, whole, in folds of nearly equal size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.errors import ConfigError
from dglzarr.kernels.split import fold_split

SERIES = [f"GSE{i}" for i, n in enumerate([40, 20, 9, 8, 8, 7, 5, 2, 1]) for _ in range(n)]


def folds(labels, n_folds, validation=0.1, seed=0):
    return [
        fold_split(labels, fold=k, n_folds=n_folds, validation=validation, seed=seed)
        for k in range(n_folds)
    ]


def test_fold_split__hand_worked():
    found = folds(["a"] * 3 + ["b"] * 2 + ["c"] * 2 + ["d"], 2, validation=0.0)
    np.testing.assert_array_equal(found[0], [2, 2, 2, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(found[1], [0, 0, 0, 2, 2, 2, 2, 0])


@given(st.lists(st.sampled_from("abcdefgh"), min_size=20).filter(lambda v: len(set(v)) > 3))
def test_fold_split__every_label_is_tested_once_and_whole(labels):
    for found in (folds(labels, 3), folds(labels, 4, 0.3, seed=5)):
        stacked = np.stack(found)
        np.testing.assert_array_equal((stacked == 2).sum(axis=0), 1)
        assert ((stacked == 0).any(axis=1)).all()
        for label in set(labels):
            use = stacked[:, np.array(labels) == label]
            assert (use == use[:, :1]).all()


def test_fold_split__nearly_equal_folds_and_some_validation():
    found = folds(SERIES, 3)
    assert sorted((f == 2).sum() for f in found) == [30, 30, 40]
    assert all(0 < (f == 1).sum() < 0.3 * len(SERIES) for f in found)
    assert not any((f == 1).any() for f in folds(SERIES, 3, validation=0.0))


def test_fold_split__order_of_samples_does_not_matter():
    order = np.random.default_rng(0).permutation(len(SERIES))
    shuffled = [SERIES[i] for i in order]
    for a, b in zip(folds(SERIES, 4), folds(shuffled, 4), strict=True):
        np.testing.assert_array_equal(a[order], b)


def test_fold_split__the_seed_deals_equal_labels_anew():
    labels = [f"s{i}" for i in range(40)]
    assert (folds(labels, 4, seed=0)[0] != folds(labels, 4, seed=1)[0]).any()


@pytest.mark.parametrize("n_folds", [0, 1, 10])
def test_fold_split__impossible_number_of_folds(n_folds):
    with pytest.raises(ConfigError, match=f"expected 2 to 9, the number of series.*got {n_folds}"):
        fold_split(SERIES, fold=0, n_folds=n_folds, validation=0.1, seed=0)
