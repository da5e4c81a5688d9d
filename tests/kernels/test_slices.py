"""Slices: they cover the range, in order, within the limit."""

from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.slices import iter_slices


@given(st.integers(0, 50), st.integers(0, 40), st.integers(1, 100))
def test_iter_slices__covers_in_order_within_the_limit(length, item_nbytes, limit_nbytes):
    slices = list(iter_slices(length, item_nbytes, limit_nbytes=limit_nbytes))
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    for s in slices:
        n_items = s.stop - s.start
        assert n_items == 1 or 1 < n_items <= limit_nbytes // max(1, item_nbytes)
