import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.decimals import parse_decimals

DIGITS = st.text("0123456789", max_size=9)


def parse(*cells):
    return parse_decimals("".join(f"{cell}\t" for cell in cells).encode(), b"\t")


@pytest.mark.parametrize(
    "cells",
    [
        pytest.param(["7.25", "10.5", "0.1"], id="points"),
        pytest.param(["7", "10.5", "0"], id="some-points"),
        pytest.param(["-7", "-0.5", "3", "-12.25"], id="minus"),
        pytest.param([".5", "5.", "-.5", "00012.50"], id="bare-points"),
        pytest.param(["12345678.1234567", "1.23456789012345", "0.3"], id="fifteen-digits"),
    ],
)
def test_parse_decimals__as_float_to_the_bit(cells):
    found = parse(*cells)
    assert found.dtype == np.float64
    assert found.tolist() == [float(cell) for cell in cells]
    assert np.signbit(parse("-0.0", "0.0")).tolist() == [True, False]


@given(
    cells=st.lists(
        st.tuples(st.sampled_from(["", "-"]), DIGITS, st.sampled_from(["", "."]), DIGITS).map(
            "".join
        ),
        min_size=1,
        max_size=40,
    )
)
def test_parse_decimals__never_a_wrong_number(cells):
    found = parse(*cells)
    if found is not None:
        assert found.tolist() == [float(cell) for cell in cells]


@given(values=st.lists(st.floats(0, 20), min_size=1), n_digits=st.integers(1, 13))
def test_parse_decimals__written_values_are_plain(values, n_digits):
    cells = [f"{value:.{n_digits}f}" for value in values]
    assert parse(*cells).tolist() == [float(cell) for cell in cells]


NOT_PLAIN = ["", "-", ".", "-.", "1e3", "NA", "+1", "1-", "--1", "1.2.3", "1.-2", " 1", "1 ", "1,2"]


@pytest.mark.parametrize(
    "cell", [*NOT_PLAIN, '"1"', "1234567890123456", "123456789.5", "\u0661", "1\n"]
)
def test_parse_decimals__none_where_a_cell_is_not_plain(cell):
    assert parse("1.5", cell, "2.5") is None
    assert parse(cell) is None


@pytest.mark.parametrize("text", [b"", b"\t", b"1.5", b"1.5\t2.5", b"1.5\t\t"])
def test_parse_decimals__none_where_a_cell_does_not_end(text):
    assert parse_decimals(text, b"\t") is None
