"""Scale: raw and log2 told apart on made and on real values; centred data refused."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from dglzarr.kernels.scale import detect_scale, to_log2, value_quantiles
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
        pytest.param([-9, -6, -3, 1, 4, 8], "log2", id="median well below 0"),
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
    "quantiles", [[-9, -1, 0.5, 1, 4, 8], [-9, 0, 0.4, 1, 4, 8], [-9, -1, -0.4, 0, 4, 8]]
)
def test_detect_scale__not_quite_centred(quantiles):
    assert detect_scale(quantiles) == "log2"


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
