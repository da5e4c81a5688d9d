"""Damage to one object of each kind in some stores: `verify` finds it, nobody reads it silently."""

import dask
import pytest

from tests import damage


@pytest.mark.slow
def test_damage__one_object_of_each_kind_in_every_way(tmp_path):
    tally = damage.Tally()
    with dask.config.set(scheduler="synchronous"):
        settings = damage.prepare(tmp_path, all_stores=False)
        wanted = ("normalized.zarr", "scores.zarr", "seed-0", "study")
        for place in damage.places(settings):
            if place.uri.endswith(wanted):
                first = {what: name for name, what in reversed(place.whats.items())}
                damage.try_place(place, tally, names=first.values(), root=settings.root)
            if damage.is_needed(place, settings.root):
                damage.take_away(place, tally, settings.root)
    assert tally.missed == []
    assert {what for what, _, _ in tally.silent} <= {"matrix"}
