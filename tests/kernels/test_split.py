"""The split is a function of label and seed; folds test every label once, whole."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.errors import ConfigError
from dglzarr.kernels.split import assign_split, fold_split, hold_back, split_units

TRAIN, TEST = 0, 2
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


@pytest.mark.parametrize("validation", [0.5, 0.67, 0.8, 0.99])
def test_fold_split__most_may_be_validation(validation):
    labels = [f"s{i}" for i in range(30)]
    split = fold_split(labels, fold=0, n_folds=3, validation=validation, seed=0)
    n_train, n_validation, n_test = np.bincount(split)
    assert n_test == 10
    assert n_train >= 1
    assert n_validation == pytest.approx(20 * validation, abs=1)


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


# ---------------------------------------------------------------- one split


def test_assign_split__depends_on_label_and_seed_alone():
    labels = [f"GSE{i}" for i in range(200)]
    split = assign_split(labels, "series", test=0.2, validation=0.1, seed=3)
    backwards = assign_split(labels[::-1], "series", test=0.2, validation=0.1, seed=3)
    np.testing.assert_array_equal(split, backwards[::-1])
    some = assign_split(labels[:50] * 2, "series", test=0.2, validation=0.1, seed=3)
    np.testing.assert_array_equal(some, np.tile(split[:50], 2))
    assert (assign_split(labels, "series", test=0.2, validation=0.1, seed=4) != split).any()
    shares = np.bincount(split) / 200
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.1)


def test_assign_split__is_the_same_in_another_process():
    code = (
        "from dglzarr.kernels.split import assign_split\n"
        "print(assign_split([f'GSE{i}' for i in range(40)], 'series', "
        "test=0.2, validation=0.1, seed=5).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    split = assign_split([f"GSE{i}" for i in range(40)], "series", test=0.2, validation=0.1, seed=5)
    assert done.stdout.strip() == str(split.tolist())


def test_assign_split__more_validation_moves_no_test_sample():
    labels = [f"s{i}" for i in range(300)]
    a = assign_split(labels, "sample", test=0.2, validation=0.1, seed=0)
    b = assign_split(labels, "sample", test=0.2, validation=0.4, seed=0)
    np.testing.assert_array_equal(a == TEST, b == TEST)
    assert (b[a == 1] == 1).all()


@pytest.mark.parametrize("split_by", ["series", "sample"])
def test_assign_split__names_a_seed_that_works(split_by):
    labels = ["GSE1"] * 3 + ["GSE2"] * 2
    seed = next(s for s in range(99) if not _is_split(labels, s))
    with pytest.raises(
        ConfigError, match=rf"{split_by!r}: expected train and test.*Set seed = "
    ) as e:
        assign_split(labels, split_by, test=0.2, validation=0.1, seed=seed)
    proposed = int(str(e.value).split("Set seed = ")[1].split(",")[0].rstrip("."))
    split = assign_split(labels, split_by, test=0.2, validation=0.1, seed=proposed)
    assert {TRAIN, TEST} <= set(split.tolist())


def _is_split(labels, seed):
    try:
        assign_split(labels, "series", test=0.2, validation=0.1, seed=seed)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("split_by", "remedy"),
    [("series", "Add sources of another series, or set ingest.split_by = 'sample'"),
     ("sample", "Add samples")],
)  # fmt: skip
def test_assign_split__one_label_cannot_be_split(split_by, remedy):
    with pytest.raises(ConfigError, match=remedy):
        assign_split(["GSE1"] * 5, split_by, test=0.2, validation=0.1, seed=0)


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3), min_size=1))
def test_split_units__as_connected_components_are(keys):
    """As scipy's connected components of the graph of samples and keys."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names = sorted({key for own in keys for key in own})
    pairs = [(row, len(keys) + names.index(key)) for row, own in enumerate(keys) for key in own]
    n = len(keys) + len(names)
    graph = coo_matrix((np.ones(len(pairs)), tuple(np.transpose(pairs))), shape=(n, n))
    component = connected_components(graph, directed=False)[1]
    units = split_units(keys)
    for row, unit in enumerate(units):
        of_same = component[len(keys) :] == component[row]
        assert unit == min(np.array(names)[of_same])
    assert split_units(keys[::-1]) == units[::-1]


def test_split_units__one_key_is_itself():
    assert split_units([["b"], ["a"], ["b"]]) == ["b", "a", "b"]


def test_hold_back__whole_series_about_the_share_and_never_over_half():
    series = np.repeat(np.array(["a", "b", "c", "d"], dtype=object), [60, 20, 15, 5])
    for seed in range(20):
        held = hold_back(series, 0.1, seed=seed)
        names = set(series[held].tolist())
        assert names
        assert "a" not in names
        assert all(held[series == name].all() for name in names)
        assert held.sum() <= 40
    np.testing.assert_array_equal(hold_back(series, 0.1, seed=3), hold_back(series, 0.1, seed=3))


@pytest.mark.parametrize(("n", "share", "expected"), [(1, 0.1, 0), (2, 0.1, 1), (9, 0.0, 0)])
def test_hold_back__of_a_single_series(n, share, expected):
    assert hold_back(np.array(["a"] * n, dtype=object), share, seed=0).sum() == expected
