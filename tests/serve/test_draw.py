"""Pictures: marks hold all values, outlines and boxes stand where the values are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.serve.draw import HEIGHT, WIDTH, axis, bar, strips
from dglzarr.serve.groups import group_samples, spreads


@given(st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(1e-3, 1e6, allow_subnormal=False))
def test_axis__marks_are_equally_apart_and_hold_both_ends(low, width):
    marks = axis(low, low + width)
    assert 3 <= len(marks) <= 6
    assert marks[0] <= low + 1e-9 * max(1, abs(low))
    assert marks[-1] >= low + width - 1e-9 * max(1, abs(low + width))
    steps = np.diff(marks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_strips__of_a_group_without_spread_and_of_one_without_values():
    values = np.array([5, 5, 5, np.nan, np.nan], np.float32)
    groups = group_samples("x", ["a", "a", "a", "b", "b"], np.ones(5, bool))
    picture = strips(spreads(values, groups, 9))
    assert [row.spread.name for row in picture.rows] == ["a"]
    assert picture.rows[0].median == WIDTH / 2
    assert picture.rows[0].outline == ""
    assert strips(spreads(np.full(5, np.nan, np.float32), groups, 9)) is None


@given(st.lists(st.floats(0, 16, width=32) | st.just(float("nan")), min_size=1, max_size=90))
def test_strips__all_stand_within_the_picture(values):
    array = np.array(values, np.float32)
    names = [("a", "b", "")[i % 3] for i in range(array.size)]
    found = spreads(array, group_samples("x", names, np.ones(array.size, bool)), 9)
    for row in getattr(strips(found), "rows", []):
        numbers = [*row.whisker, *row.box, row.median, *(x for x, _ in row.points)]
        numbers += [float(p.split(",")[0]) for p in row.outline.split()]
        assert min(numbers) >= 0
        assert max(numbers) <= WIDTH
        heights = [y for _, y in row.points] + [float(p.split(",")[1]) for p in row.outline.split()]
        assert all(0 <= y <= HEIGHT for y in heights)
        assert row.whisker[0] <= row.box[0] <= row.median <= row.box[1] <= row.whisker[1]
        own = array[[i for i, name in enumerate(names) if name == row.spread.name]]
        known = own[~np.isnan(own)]
        assert row.spread.counts.sum() == known.size == row.spread.n
        assert row.spread.quantiles[2] == pytest.approx(float(np.quantile(known, 0.5)), abs=1e-5)


def test_group_samples__largest_first_and_only_chosen():
    chosen = np.array([1, 1, 1, 0, 1, 1], bool)
    found = group_samples("x", ["b", "a", "a", "b", "", "c"], chosen)
    assert found.names == ["a", "b", "c"]
    assert [members.tolist() for members in found.members] == [[1, 2], [0], [5]]


def test_bar():
    assert (bar(1.0, 4.0), bar(None, 4.0), bar(1.0, 0)) == (100.0, 0.0, 0.0)
