"""Slices: they cover the range, in order, within the limit. Blocks are copied as they are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.kernels.slices import copy_block, iter_slices


@given(st.integers(0, 50), st.integers(0, 40), st.integers(1, 100))
def test_iter_slices__covers_in_order_within_the_limit(length, item_nbytes, limit_nbytes):
    slices = list(iter_slices(length, item_nbytes, limit_nbytes=limit_nbytes))
    assert [i for s in slices for i in range(length)[s]] == list(range(length))
    for s in slices:
        n_items = s.stop - s.start
        assert n_items == 1 or 1 < n_items <= limit_nbytes // max(1, item_nbytes)


@given(st.integers(0, 9), st.integers(0, 70), st.sampled_from("CF"), st.sampled_from([1, -1]))
def test_copy_block__any_layout(n_rows, n_columns, order, step):
    block = np.asarray(np.arange(n_rows * n_columns).reshape(n_rows, n_columns), order=order)
    out = np.full((n_rows, n_columns + 2), -1)
    copy_block(block[::step], out[:, 1:-1])
    np.testing.assert_array_equal(out[:, 1:-1], block[::step])
    assert (out[:, [0, -1]] == -1).all()
