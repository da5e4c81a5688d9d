"""Waiting for nothing: what keeps workers from working is told in one line that names the cause.

Scheduler and workers are processes of their own. A root under /proc/self/cwd is another folder in
each process that was started elsewhere, as it is on machines that do not share a disk.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dglzarr.errors import ConfigError, DglzarrError
from dglzarr.settings import build_settings
from dglzarr.storage import workers
from dglzarr.storage.cluster import ClusterOptions, client
from dglzarr.storage.tasks import run_tasks
from dglzarr.storage.workers import Need
from dglzarr.studies.plan import mine
from tests.builders import simulate, write_files
from tests.kills import Processes

HERE = "/proc/self/cwd"  # of whoever looks
SECONDS_TO_TELL = 30


class Cluster(Processes):
    """Processes that start with as many workers as asked, each where and how it is told."""

    def start(self):
        super().start()
        return self

    def more(self, folder, *options, n_known=1, **environment):
        """Start one more worker, in a folder."""
        where = ["--scheduler-file", str(self.folder / "scheduler.json"), "--no-dashboard"]
        local = ["--local-directory", str(self.folder / "dask")]
        known = ["--nthreads", "1", "--host", "127.0.0.1", "--memory-limit", "3GiB"]
        with (self.folder / "dask.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "dask", "worker", *where, *known, *local, *options],
                stdout=log, stderr=log, start_new_session=True, cwd=folder,
                env={**os.environ, **environment},
            )  # fmt: skip
        self.nannies.append(started)
        from distributed import Client

        with Client(self.address) as asked:
            asked.wait_for_workers(n_known, timeout=60)


@pytest.fixture
def cluster(tmp_path):
    """A scheduler without workers."""
    place = tmp_path / "cluster"
    place.mkdir()
    started = Cluster(place, 0).start()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def told(caplog, monkeypatch):
    """What is logged; and what takes a minute takes a second."""
    monkeypatch.setattr(workers, "SECONDS_FOR_A_WORKER", 1.0)
    monkeypatch.setattr(workers, "SECONDS_UNTOLD", 1.0)
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", 0.2)
    caplog.set_level(logging.WARNING, logger="dglzarr")
    return caplog


def at(cluster, wait_limit=3):
    return ClusterOptions(kind="address", address=cluster.address, wait_limit=wait_limit)


def work(options, **asked):
    """Run one task on a cluster; return the error that ends it and how long that took."""
    started = time.monotonic()
    with pytest.raises(DglzarrError) as error, client(options, **asked):
        run_tasks(os.getpid, [()], what="tasks")
    assert "\n" not in str(error.value)
    return str(error.value), time.monotonic() - started


def test_limits__are_as_the_documents_say():
    assert workers.SECONDS_FOR_A_WORKER + workers.SECONDS_TO_ANSWER < SECONDS_TO_TELL
    assert workers.SECONDS_UNTOLD == 60
    assert ClusterOptions().wait_limit == workers.WAIT_LIMIT == 600


@pytest.mark.slow
def test_no_workers_at_an_address(cluster, told):
    error, seconds = work(at(cluster))
    assert error.startswith(f"tasks: there are no workers at {cluster.address}, for ")
    assert error.endswith("Start some and run again; finished work is kept.")
    assert seconds < SECONDS_TO_TELL
    (line, *_) = told.messages
    assert line == (
        f"cluster: there are no workers at {cluster.address}. Start some; the run waits up to 3 s "
        "(cluster.wait_limit)."
    )


@pytest.mark.slow
def test_a_worker_that_comes_in_time_does_the_work(cluster, told, tmp_path):
    with client(at(cluster, wait_limit=120)) as connected:
        assert "there are no workers" in told.text
        cluster.more(tmp_path)
        assert run_tasks(os.getpid, [()], what="tasks") != [os.getpid()]
        assert connected.status == "running"


@pytest.mark.slow
def test_all_workers_paused_at_their_memory_limit(cluster, told, tmp_path):
    full = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": "False" for name in ("TARGET", "SPILL")}
    cluster.more(tmp_path, DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE="0.001", **full)
    time.sleep(1)  # a worker looks at its memory twice a second
    error, seconds = work(at(cluster))
    assert error.startswith("tasks: all workers (1) are paused at their memory limit: tcp://")
    assert " of 3.00 GiB, for " in error
    assert "cluster.memory_limit, or --memory-limit of dask worker" in error
    assert seconds < SECONDS_TO_TELL
    assert "all workers (1) are paused" in told.text


@pytest.mark.slow
def test_a_scheduler_that_dies_between_stages(cluster, tmp_path):
    cluster.more(tmp_path)
    started = time.monotonic()
    with client(at(cluster)):
        assert run_tasks(os.getpid, [()], what="first")
        os.killpg(cluster.scheduler.pid, signal.SIGKILL)
        cluster.scheduler.wait()
        with pytest.raises(DglzarrError, match="second: the Dask scheduler is gone") as error:
            run_tasks(os.getpid, [()], what="second")
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < SECONDS_TO_TELL


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "none.pem"])
def test_tls_without_certificates(key, monkeypatch):
    import dask

    asked = {} if key is None else {"distributed.comm.tls.client.cert": key}
    options = ClusterOptions(kind="address", address="tls://127.0.0.1:8786")
    with (
        dask.config.set(asked),
        pytest.raises(ConfigError, match=r"needs certificates, but .*tls\.ca-file") as error,
        client(options),
    ):
        pass
    assert "\n" not in str(error.value)
    del monkeypatch


def study(folder, cluster, root):
    """Settings of a small study on a cluster."""
    data = folder / "data"
    data.mkdir()
    write_files(data, simulate(40, 32, n_series=4))
    content = {
        "root": root,
        "sources": [{"uri": f"{data}/*_series_matrix.txt"}],
        "ingest": {"split_by": "sample"},
        "select": {"n_landmarks": 4, "n_random": 2},
        "cluster": {"kind": "address", "address": cluster.address, "wait_limit": 5},
    }
    return build_settings(content, name="test", folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize("stands", [False, True])
def test_workers_that_cannot_see_the_root(cluster, tmp_path, monkeypatch, stands):
    """The worker's own folder of that name does not pass for the root, and gets nothing."""
    mine_, its = tmp_path / "mine", tmp_path / "its"
    (mine_ / "study").mkdir(parents=True)
    its.mkdir()
    if stands:
        (its / "study").mkdir()
    cluster.more(its)
    monkeypatch.chdir(mine_)
    settings = study(tmp_path, cluster, f"{HERE}/study")
    started = time.monotonic()
    with pytest.raises(DglzarrError, match=r"^worker tcp://\S+: cannot see the root ") as error:
        mine(settings, only=("ingest", "join"))
    assert f"{HERE}/study" in str(error.value)
    assert "Let it see the same folder under the same path" in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < SECONDS_TO_TELL
    assert [p for p in its.rglob("*") if p.name != "study"] == []
    assert list(mine_.rglob("*.partial")) == []


@pytest.mark.slow
def test_a_worker_that_comes_later_and_cannot_see_the_root(cluster, tmp_path, monkeypatch):
    its, here = tmp_path / "its", tmp_path / "mine"
    its.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    cluster.more(here)
    with client(at(cluster, wait_limit=60), root=HERE) as connected:
        assert run_tasks(os.getpid, [()], what="tasks")
        first, *_ = connected.scheduler_info()["workers"]
        cluster.more(its, n_known=2)
        connected.retire_workers([first])
        with pytest.raises(DglzarrError, match=r"^worker tcp://\S+: cannot see the root"):
            run_tasks(os.mkdir, [("stray",)], what="tasks")
    assert list(its.iterdir()) == []


@pytest.mark.slow
def test_workers_that_cannot_see_a_source(cluster, tmp_path, monkeypatch):
    here = tmp_path / "mine"
    here.mkdir()
    monkeypatch.chdir(here)
    cluster.more(tmp_path)
    settings = study(here, cluster, str(tmp_path / "study"))
    moved = settings.sources[0].model_copy(update={"uri": f"{HERE}/data/*_series_matrix.txt"})
    with pytest.raises(DglzarrError, match=r"^worker tcp://\S+: cannot see the source /proc/self"):
        mine(settings.model_copy(update={"sources": (moved,)}), only=("ingest",))


@pytest.mark.slow
def test_workers_with_other_versions(cluster, tmp_path):
    other = tmp_path / "packages" / "zarr-2.0.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 2.0.0\n")
    cluster.more(tmp_path, PYTHONPATH=str(other.parent))
    error, seconds = work(at(cluster), root=str(tmp_path))
    assert "has zarr 2.0.0 for " in error
    assert error.endswith("of the run. Install the same versions.")
    assert seconds < SECONDS_TO_TELL


@pytest.mark.slow
def test_a_worker_with_less_memory_than_a_stage_needs(cluster, told, tmp_path):
    cluster.more(tmp_path)
    with client(at(cluster), root=str(tmp_path), needs={"normalize": Need(4e8, 4 * 2**30)}):
        pass
    (line,) = told.messages
    assert " has 3.00 GiB of memory, but normalize needs about 4.37 GiB. Give it more " in line
    told.clear()
    with client(at(cluster), root=str(tmp_path), needs={"normalize": Need(4e8, 2**20)}):
        pass
    assert told.messages == []


def test_relative_paths__are_refused_where_workers_are_elsewhere(tmp_path):
    content = {
        "root": str(tmp_path / "study"),
        "sources": [{"uri": str(tmp_path / "x.tsv")}],
        "cluster": {"kind": "address", "address": "tcp://127.0.0.1:1"},
    }
    settings = build_settings(content, name="test", folder=tmp_path)
    relative = settings.model_copy(update={"root": "study"})
    (tmp_path / "x.tsv").write_text("id\ta\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"root: expected an absolute path, .*got 'study'"):
        mine(relative, only=("ingest",))
    assert not Path("study").exists()


@pytest.mark.slow
def test_a_client_at_an_address_leaves_the_scheduler_as_it_was(cluster):
    import dask

    before = dask.config.get("scheduler", None)
    with client(at(cluster)):
        pass
    assert dask.config.get("scheduler", None) == before
