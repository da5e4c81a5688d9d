"""Quantile normalization against R: frozen results of Bioconductor's preprocessCore.

Left out because R divides by zero there: a sample with one known value (it gets the largest
quantile, here the median), and a sample without any (it spoils the target, here it does not count).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from dglzarr.kernels.quantile import (
    apply_quantile,
    finish_quantile,
    merge_quantile,
    quantile_normalize,
    sum_sorted,
)

FIXTURE = json.loads(
    (Path(__file__).parents[1] / "data" / "preprocesscore.json").read_text(encoding="utf-8")
)
CASES, TARGETS = FIXTURE["cases"], FIXTURE["targets"]
TIED = {
    "two_way_ties": {2},
    "three_way_ties": {3},
    "many_way_ties": {4, 5, 10},
    "ties_at_both_ends": {6, 7},
    "zero_block": {9, 20},
    "constant_sample": {20},
}


def table(values):
    return np.array(values, dtype=np.float64)


def assert_equal(result, expected):
    np.testing.assert_allclose(result, table(expected), rtol=1e-9, atol=0)


def run_lengths(matrix):
    counts = [np.unique(row[~np.isnan(row)], return_counts=True)[1] for row in matrix]
    return {int(n) for n in np.concatenate(counts)} - {1}


def test_fixture__holds_what_the_cases_promise():
    assert FIXTURE["preprocessCore"]
    for name, case in CASES.items():
        matrix = table(case["matrix"])
        if name in TIED:
            assert run_lengths(matrix) == TIED[name]
        assert np.isnan(matrix).any() == (
            name in {"missing", "two_known_values", "ties_and_missing"}
        )
        assert matrix.shape[1] not in {len(target) for target in TARGETS.values()}
    assert max(run_lengths(table(CASES["ties_and_missing"]["matrix"]))) > 2


@pytest.mark.parametrize("name", CASES)
def test_finish_quantile__equals_determine_target(name):
    matrix = table(CASES[name]["matrix"])
    assert_equal(finish_quantile(sum_sorted(matrix)), CASES[name]["target"])
    split = merge_quantile(sum_sorted(matrix[:1]), sum_sorted(matrix[1:]))
    assert_equal(finish_quantile(split), CASES[name]["target"])


@pytest.mark.parametrize("name", CASES)
def test_quantile_normalize__equals_normalize_quantiles(name):
    assert_equal(quantile_normalize(table(CASES[name]["matrix"])), CASES[name]["normalized"])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_apply_quantile__equals_use_target_of_another_length(name, target):
    result = apply_quantile(table(CASES[name]["matrix"]), TARGETS[target])
    assert_equal(result, CASES[name]["use_target"][target])


@pytest.mark.parametrize("name", CASES)
def test_quantile_normalize__single_precision_follows_r(name):
    matrix = table(CASES[name]["matrix"]).astype(np.float32)
    result = quantile_normalize(matrix)
    np.testing.assert_allclose(result, table(CASES[name]["normalized"]), rtol=1e-6)


@pytest.mark.parametrize("ties", ["tie-mean", "dgex"])
def test_quantile_normalize__other_rules_are_not_r(ties):
    case = CASES["many_way_ties"]
    gap = np.abs(quantile_normalize(table(case["matrix"]), ties=ties) - table(case["normalized"]))
    assert gap.max() > 1e-3
