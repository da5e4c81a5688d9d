"""Scale: raw and log2 told apart on made and on real values; centred data refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from dglzarr.kernels.scale import (
    are_probabilities,
    detect_scale,
    find_rescaling,
    to_log2,
    unlike_the_rest,
    value_quantiles,
)
from tests.strategies import matrices


def test_value_quantiles__hand_worked():
    values = np.array([[0.0, 10.0, np.nan], [20.0, 40.0, 30.0]], dtype=np.float32)
    np.testing.assert_allclose(value_quantiles(values), [0, 10, 20, 30, 39.6, 40])


@given(matrices(missing=True, dtype=np.float64))
def test_value_quantiles__equals_nanquantile(values):
    values[0, 0] = 3.0
    np.testing.assert_allclose(
        value_quantiles(values, q=(0.1, 0.9)), np.nanquantile(values, (0.1, 0.9))
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(3, np.nan), "expected at least one number, got only missing"),
        (np.array([]), "expected at least one number, got only missing"),
        (np.array([1.0, -np.inf]), "expected finite values or NaN"),
    ],
)
def test_value_quantiles__refused(values, message):
    with pytest.raises(ValueError, match=message):
        value_quantiles(values)


@pytest.mark.parametrize(
    ("quantiles", "expected"),
    [
        pytest.param([0, 20, 64, 150, 4000, 18067], "raw", id="MAS5 with zeros"),
        pytest.param([-900, -20, 30, 180, 3000, 28000], "raw", id="MAS4 average differences"),
        pytest.param([-900, -300, 0.2, 180, 3000, 28000], "raw", id="MAS4 with median near 0"),
        pytest.param([1, 2, 5, 9, 80, 60000], "raw", id="long tail"),
        pytest.param([0, 0, 0, 2, 60, 5000], "raw", id="sparse counts"),
        pytest.param([-0.4, 4.1, 6.2, 8.0, 12.9, 14.8], "log2", id="log2 with negatives"),
        pytest.param([2.1, 4.1, 6.2, 8.0, 12.9, 15.1], "log2", id="log2"),
        pytest.param([-30, -1, 6, 8, 14, 25], "log2", id="wide log2 with a negative quartile"),
        pytest.param([0, 0, 0, 3, 9, 14], "log2", id="log2 counts"),
        pytest.param([-9, -6, -3, 1, 7, 11], "log2", id="median well below 0"),
        pytest.param([0, 1, 2, 3, 100, 50], "log2", id="on both limits"),
        pytest.param([0, 1, 2, 3, 100.1, 101], "raw", id="just above 100"),
        pytest.param([0, 1, 2, 3, 10, 50.1], "raw", id="spans just above 50"),
    ],
)
def test_detect_scale__known_kinds(quantiles, expected):
    assert detect_scale(quantiles) == expected


@pytest.mark.parametrize(
    "quantiles", [[-4, -0.3, 0, 0.3, 2, 6], [-9, -1, 0.4, 1, 4, 8], [-60, -1, -0.4, 1, 4, 8]]
)
def test_detect_scale__centred_refused(quantiles):
    with pytest.raises(ValueError, match=r"got median .* look median-centred\. Use the series"):
        detect_scale(quantiles)


@pytest.mark.parametrize(
    "quantiles", [[-9, -1, 0.5, 1, 6, 8], [-9, 0, 0.4, 1, 4, 8], [-9, -1, -0.4, 0, 6, 8]]
)
def test_detect_scale__not_quite_centred(quantiles):
    assert detect_scale(quantiles) == "log2"


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        ([0, 0.2, 0.4, 0.7, 0.98, 1], r"all between 0 and 1 .*probabilities.* Use the file of exp"),
        ([-53, 0.2, 0.9, 1.5, 8.5, 28], r"down to -53 and 99 % up to 8.5, which look like diff"),
        ([-2, 0, 0, 0, 1, 2], r"quartiles 0 and 0 .* look like ratios to a reference or calls of"),
        ([-13, -3.2, -1.4, 0.4, 3.3, 5], r"quartiles -3.2 and 0.4 .* look like ratios to a ref"),
    ],
    ids=["fractions", "z-scores", "calls", "ratios"],
)
def test_detect_scale__no_expression_refused(quantiles, message):
    with pytest.raises(ValueError, match=message):
        detect_scale(quantiles)


def test_are_probabilities__whole_numbers_and_few_values_are_none():
    fractions = np.linspace(0, 1, 40)
    values = np.array([fractions, np.where(fractions > 0.5, np.nan, fractions), fractions.round()])
    assert are_probabilities(values).tolist() == [True, True, False]
    assert not are_probabilities(values[:, :10]).any()


@pytest.mark.parametrize("column", ["random", "below", "above", "constant"])
def test_unlike_the_rest__finds_the_column_that_is_no_sample(rng, column):
    values = rng.normal(8, 2, 300) + rng.normal(0, 0.4, (9, 300))
    values[0, :5] = np.nan
    assert not unlike_the_rest(values).any()
    lowest, highest = values[1].min(), values[1].max()
    values[3] = {
        "random": rng.permutation(values[1]),
        "below": np.sort(values[1]) - highest,
        "above": values[1] + highest - lowest,
        "constant": np.full(300, 7.0),
    }[column]
    assert np.flatnonzero(unlike_the_rest(values)).tolist() == [3]
    assert not unlike_the_rest(values[:3]).any()
    assert not unlike_the_rest(values[:, :40]).any()


@pytest.mark.parametrize("make", [np.mean, np.sum, np.max])
def test_unlike_the_rest__finds_what_is_made_of_the_others(rng, make):
    values = rng.poisson(rng.lognormal(4, 1, 300), (6, 300))
    values[:, :30] = 0
    values = np.concatenate([values, make(values[:3], axis=0)[None], make(values, axis=0)[None]])
    found = np.flatnonzero(unlike_the_rest(values)).tolist()
    assert found == ([7] if make is np.max else [6, 7])


def test_unlike_the_rest__a_pool_of_many_samples_and_few_genes_is_not_told(rng):
    values = rng.normal(8, 2, 300) + rng.normal(0, 0.4, (40, 300))
    values[3] = values.mean(axis=0)
    assert not unlike_the_rest(values).any()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda values: 30 * (values - values.mean(axis=0)) / values.std(axis=0),
            "z-scores",
        ),
        (lambda values: (values - values.mean(axis=0)).round(2) + 10, "z-scores"),
        (lambda values: (values - np.median(values, axis=0)).round(2) + 10, "one mean, median"),
        (lambda values: (values / values.max(axis=0) * 100).round(1), "one mean, median or max"),
        (lambda values: np.maximum(values - 50, 0), ""),
        (lambda values: 100 * values / values.sum(axis=1, keepdims=True), "percentages"),
        (lambda values: (values.argsort(axis=1).argsort(axis=1) / 3).round(2), "percentiles"),
        (lambda values: values, ""),
        (lambda values: values / values.sum(axis=1, keepdims=True) * 1e6, ""),
        (lambda values: values * 0, ""),
    ],
)
def test_find_rescaling(rng, make, expected):
    values = rng.lognormal(3, 2, 300) * rng.lognormal(0, 0.5, (6, 300))
    assert expected in find_rescaling(make(values))
    assert bool(find_rescaling(make(values))) == bool(expected)


def test_unlike_the_rest__samples_without_a_common_order_are_all_alike(rng):
    assert not unlike_the_rest(rng.normal(8, 2, (9, 300))).any()


def test_to_log2__raw():
    block = np.array([[0.0, 1.0, 7.0], [-5.0, np.nan, 1023.0]])
    result, n_negative = to_log2(block, "raw")
    np.testing.assert_array_equal(result, [[0, 1, 3], [0, np.nan, 10]])
    assert result.dtype == np.float32
    assert n_negative == 1
    assert block[1, 0] == -5


def test_to_log2__log2_stays():
    block = np.array([[-0.5, 7.0, np.nan]], dtype=np.float32)
    result, n_negative = to_log2(block, "log2")
    np.testing.assert_array_equal(result, block)
    assert n_negative == 0


def _table(path: Path, n_rows: int, *, skip: int = 1, labels: int = 1) -> np.ndarray:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [
            line.rstrip("\n").split("\t")[labels:]
            for _, line in zip(range(n_rows), lines, strict=False)
        ]
    return np.array(rows[skip:], dtype=np.float64)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("GSE6481", "raw"),
        ("GSE3726", "raw"),
        ("GSE1751", "raw"),
        ("GSE5109", "raw"),
        ("GSE781", "log2"),
        ("GSE3585", "log2"),
        ("GSE20164", "log2"),
        ("GSE24739_G0", "log2"),
        ("GSE19420", "log2"),
    ],
)
def test_detect_scale__real_series(data_dir, name, expected):
    path = data_dir / "tables" / f"{name}_expr.tsv.gz"
    assert detect_scale(value_quantiles(_table(path, 4000))) == expected


@pytest.mark.data
def test_detect_scale__real_average_differences(data_dir):
    path = data_dir / "gctx" / "Leukemia_hgu95av2.gct"
    values = _table(path, 4000, skip=3, labels=2)
    assert detect_scale(value_quantiles(values)) == "raw"
    result, n_negative = to_log2(values, "raw")
    assert n_negative == np.count_nonzero(values < 0) > 0
    assert result.min() == 0
