"""A worker, the scheduler or the coordinating process dies; the run ends as an undisturbed one.

`make kills` runs twenty trials at real size; here is one of each kind.
"""

import re

import pytest

from tests.kills import VICTIMS, Kill, compare, prepare, trial, undisturbed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHARD = 16
LARGE = 192
"""Samples a shard of 17 MB: such are written past the page cache."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    return prepare(folder, n_samples=96, n_genes=22_268)


@pytest.fixture(scope="module")
def reference(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    undisturbed(folder, source, shard=SHARD, n_workers=2)
    return folder


@pytest.fixture(scope="module")
def large_source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    return prepare(folder, n_samples=3 * LARGE, n_genes=22_268)


@pytest.fixture(scope="module")
def large_reference(large_source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("large-runs") / "undisturbed"
    undisturbed(folder, large_source, shard=LARGE, n_workers=2)
    return folder


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed__same_objects_as_undisturbed(source, reference, tmp_path, victim):
    kill = Kill(victim, 20, in_write=False, n_workers=1, shard=SHARD)
    found = trial(tmp_path / "trial", source, kill, reference=reference)
    assert found.n_finished, "some objects were whole when the blow fell"
    check(found)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_in_a_write__same_objects_as_undisturbed(
    large_source, large_reference, tmp_path, victim
):
    kill = Kill(victim, 1, in_write=True, n_workers=2, shard=LARGE)
    found = trial(tmp_path / "trial", large_source, kill, reference=large_reference)
    assert found.n_partial, "an unfinished file was there when the blow fell"
    check(found)


def least_kept(found):
    """Of a worker that died what was reported; results it had not handed over are made again."""
    what, _, counts = found.stage.rpartition(" ")
    done, total = map(int, counts.split("/"))
    earlier = {"joining sources": 0, "normalizing": total}.get(what)
    if found.kill.victim != "worker" or earlier is None:
        return found.n_finished
    return min(found.n_finished, earlier + done)


def check(found):
    assert found.difference == ""
    assert found.n_kept >= least_kept(found)
    if found.kill.victim == "scheduler":
        assert found.status == 1
        line = r"[a-z ]+: the Dask scheduler is gone\. Start it and its workers, and run again; .*"
        assert re.fullmatch(line, found.said)
    elif found.kill.victim == "worker":
        assert (found.status, found.said) == (0, "")


def test_one_worker__same_objects_as_two(source, reference, tmp_path):
    undisturbed(tmp_path / "one", source, shard=SHARD, n_workers=1)
    assert compare(tmp_path / "one" / "study", reference / "study") == ""


@pytest.mark.parametrize("shard", [32, 96])
def test_other_shards__same_values(source, reference, tmp_path, shard):
    """Expression and duplicates to the bit; what dedup projects and averages, to rounding."""
    undisturbed(tmp_path / "other", source, shard=shard, n_workers=2)
    names = ("expression", "quantile_reference", "keep", "duplicate_of", "nearest_distance")
    roots = (tmp_path / "other" / "study", reference / "study")
    assert compare(*roots, values_only=names) == ""
    assert compare(*roots) != "", "other shards are other objects"
