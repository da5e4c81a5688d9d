"""Damage to one object of each kind in some stores: `verify` finds it, nobody reads it silently."""

import dask
import pytest

from tests import damage


@pytest.mark.slow
def test_damage__one_object_of_each_kind_in_every_way(tmp_path):
    tally = damage.Tally()
    with dask.config.set(scheduler="synchronous"):
        damage.try_few(tmp_path, tally)
    assert tally.missed == []
    assert {what for what, _, _ in tally.silent} <= {"matrix"}
