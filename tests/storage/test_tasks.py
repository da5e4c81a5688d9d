"""Tasks: in order, each once, on any scheduler, over killed workers and full disks."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import pytest

from dglzarr.errors import StoreError
from dglzarr.storage import store
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import KnownStore, shard, shard_digests


def test_map_regions__resumes_with_the_missing_ones_only(study):
    study.create().write_missing()
    before = shard_digests(study)
    shard(study.uri, 3).unlink()
    study.ran.clear()
    assert store.map_regions(study.write, study.uri, what="write") == [3]
    assert study.ran == [3]
    assert shard_digests(study) == before


def test_map_regions__failing_task_leaves_the_store_incomplete_and_resumable(study):
    study.create()

    def fail_at_two(uri, region):
        if region.index == 2:
            raise RuntimeError("lost power")
        return study.write(uri, region)

    with pytest.raises(RuntimeError, match="lost power"):
        store.map_regions(fail_at_two, study.uri, what="write")
    assert not store.is_complete(study.uri)
    missing = [r.index for r in store.missing_regions(study.uri)]
    assert 2 in missing
    assert store.map_regions(study.write, study.uri, what="write") == missing
    study.finish()


def test_map_regions__passes_keyword_arguments(study):
    study.create()
    got = store.map_regions(
        lambda uri, region, *, scale: (uri, region.index * scale), study.uri, what="x", scale=10
    )
    assert got == [(study.uri, 10 * i) for i in range(5)]


def test_reduce_regions__all_regions_in_order_also_when_written(study):
    study.create().write_missing()
    got = store.reduce_regions(lambda _, region: region.start, study.uri, what="read")
    assert got == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_run_tasks__results_in_the_order_of_the_tasks(scheduler):
    def wait(number):
        time.sleep(0.002 * (8 - number))
        return number

    with dask.config.set(scheduler=scheduler):
        assert store.run_tasks(wait, [(i,) for i in range(8)], what="wait") == list(range(8))


def test_run_tasks__equal_tasks_each_run():
    calls = []
    assert store.run_tasks(calls.append, [(1,), (1,), (1,)], what="append") == [None] * 3
    assert calls == [1, 1, 1]


def test_run_tasks__no_tasks():
    seen = []
    assert store.run_tasks(len, [], what="none", on_progress=lambda *a: seen.append(a)) == []
    assert seen == [("none", 0, 0)]


def test_run_tasks__reports_each_finished_task():
    seen = []
    tasks = [("{} {names}", {"a": [1, i]}) for i in range(3)]
    got = store.run_tasks(
        str.format, tasks, what="work", on_progress=lambda *a: seen.append(a), names=["x", "y"]
    )
    assert got[2] == "{'a': [1, 2]} ['x', 'y']"
    assert seen == [("work", i, 3) for i in range(4)]


@pytest.mark.slow
def test_run_tasks__cluster_survives_a_killed_worker(tmp_path):
    from distributed import Client, LocalCluster

    study = KnownStore(tmp_path / "x").create()
    mark, uri, seen = str(tmp_path / "killed"), study.uri, []
    values = [study.values(region) for region in store.regions(uri)]

    def work(uri, region, values):
        if region.index == 2 and not os.path.exists(mark):  # noqa: PTH110
            os.close(os.open(mark, os.O_CREAT))
            os.kill(os.getpid(), signal.SIGKILL)
        store.write_region(uri, region, values[region.index])
        return region.index, threading.get_ident(), os.getpid()

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster),
    ):
        got = store.map_regions(
            work, uri, what="write", values=values, on_progress=lambda *a: seen.append(a)
        )
        assert store.reduce_regions(lambda _, r: r.index, uri, what="read") == [0, 1, 2, 3, 4]
    assert Path(mark).exists()
    assert [index for index, *_ in got] == [0, 1, 2, 3, 4]
    assert os.getpid() not in {pid for *_, pid in got}
    assert seen[0] == ("write", 0, 5)
    assert seen[-1] == ("write", 5, 5)
    study.finish()
    assert (store.open_store(uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.mark.slow
def test_write_region__concurrent_neighbours_give_the_same_bytes(tmp_path):
    alone = KnownStore(tmp_path / "alone", n_samples=300).create().write_missing()
    study = KnownStore(tmp_path / "together", n_samples=300).create()
    tasks = [(study.uri, region, study.values(region)) for region in store.regions(study.uri)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(store.write_region, tasks * 3, chunksize=1)
    assert shard_digests(study) == shard_digests(alone)
    study.finish()
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    as_root = ["/usr/bin/env", *(() if os.geteuid() == 0 else ("sudo", "-n"))]
    options = f"size=64m,uid={os.geteuid()},mode=700"
    command = [*as_root, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("mounting a small disk needs root")
    yield place
    subprocess.run([*as_root, "umount", str(place)], check=True)


@pytest.mark.slow
def test_write_region__disk_full_and_then_resumed(small_disk):
    study = KnownStore(
        small_disk / "x", NORMALIZED, n_samples=320, region_length=64, n_genes=20_000
    )
    study.create()
    filler = small_disk / "filler"
    filler.write_bytes(bytes(50 << 20))
    message = r"region \d: cannot be written: .*No space left"
    with dask.config.set(scheduler="synchronous"), pytest.raises(StoreError, match=message):
        study.write_missing()
    left = [r.index for r in store.missing_regions(study.uri)]
    *kept, failed = study.ran
    assert kept
    assert left == sorted({*range(5)} - {*kept})
    assert failed in left
    assert list(Path(study.uri).rglob("*.partial")) == [], "what could not be written is removed"
    with pytest.raises(StoreError, match=r"regions, \d are missing"):
        study.finish()
    assert not store.is_complete(study.uri)
    filler.unlink()
    study.ran.clear()
    assert study.claim().state == "resumed"
    study.write_missing().finish()
    assert sorted(study.ran) == left, "what was written is not written again"
    assert (store.open_store(study.uri)["expression"].to_numpy() == study["expression"]).all()


@pytest.mark.slow
def test_create_store__disk_full(small_disk):
    (small_disk / "filler").write_bytes(bytes((64 << 20) - 4096))
    study = KnownStore(small_disk / "x")
    with pytest.raises(StoreError, match=r"x: cannot be created: .*No space left.* free space"):
        study.create()
    (small_disk / "filler").unlink()
    assert study.claim().state == "new"
    study.complete()


def test_run_tasks__in_this_process_distributed_is_not_loaded():
    code = (
        "import os, sys\n"
        "from dglzarr.storage.tasks import run_tasks\n"
        "print(set(run_tasks(os.getpid, [(), ()], what='asking')) == {os.getpid()})\n"
        "print('distributed' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["True", "False"]
