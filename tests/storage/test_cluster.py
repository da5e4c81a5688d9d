"""Where Dask runs: in this process, in local processes, or at an address."""

import os
import socket
import subprocess
import sys
import threading

import dask
import distributed
import pytest

from dglzarr.errors import ConfigError
from dglzarr.storage import cluster
from dglzarr.storage.cluster import ClusterOptions, _environment_restored, client
from dglzarr.storage.store import run_tasks


def test_client__none_works_in_this_process():
    with client(ClusterOptions(kind="none")) as connected:
        assert connected is None
        assert dask.config.get("scheduler") == "synchronous"
        assert run_tasks(os.getpid, [(), ()], what="tasks") == [os.getpid()] * 2


def test_client__none_works_here_whatever_client_there_is(monkeypatch):
    monkeypatch.setattr(distributed, "get_client", lambda: pytest.fail("asked for a client"))
    with client(ClusterOptions(kind="none")):
        assert run_tasks(os.getpid, [()], what="tasks") == [os.getpid()]


def test_client__none_restores_the_scheduler():
    with dask.config.set(scheduler="threads"):
        with client(ClusterOptions(kind="none")):
            pass
        assert dask.config.get("scheduler") == "threads"


def test_environment_restored(monkeypatch):
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("DGLZARR_TEST", raising=False)
    with _environment_restored():
        os.environ |= {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "DGLZARR_TEST": "stays"}
    assert (os.environ["MALLOC_ARENA_MAX"], os.environ["DGLZARR_TEST"]) == ("3", "stays")
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_client__local_and_address(monkeypatch):
    """A local cluster of two processes, and a second client at its address."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "3")
    before = dict(os.environ)
    with client(ClusterOptions(kind="local", n_workers=2, memory_limit="1GiB")) as connected:
        workers = connected.scheduler_info()["workers"]
        assert len(workers) == 2
        assert {w["nthreads"] for w in workers.values()} == {1}
        assert {w["memory_limit"] for w in workers.values()} == {2**30}
        pids = run_tasks(os.getpid, [() for _ in range(4)], what="tasks")
        assert os.getpid() not in pids
        address = connected.scheduler.address
        assert "127.0.0.1" in address
        with client(ClusterOptions(kind="address", address=address)) as second:
            assert second.scheduler.address == address
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        with client(ClusterOptions(kind="address")) as third:
            assert third.scheduler.address == address
    assert os.environ == before | {"DASK_SCHEDULER_ADDRESS": address}
    with pytest.raises(ValueError, match="No global client found"):
        distributed.get_client()


def test_client__nobody_at_the_address(monkeypatch):
    monkeypatch.setattr(cluster, "TIME_TO_CONNECT", "0.2s")
    message = r"cluster\.address: no Dask scheduler answers at 'tcp://127\.0\.0\.1:1': Timed out"
    with (
        pytest.raises(ConfigError, match=message),
        client(ClusterOptions(kind="address", address="tcp://127.0.0.1:1")),
    ):
        pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_client__something_else_at_the_address(answer, monkeypatch):
    """Such as a web server, or a scheduler that was stopped: a client waited without an end."""

    def serve():
        taken, _ = listening.accept()
        with taken:
            taken.sendall(answer)
            while taken.recv(2**10):
                pass

    monkeypatch.setattr(cluster, "SECONDS_TO_GREET", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        message = rf"something answers at '{address}' that is no Dask scheduler"
        with (
            pytest.raises(ConfigError, match=message),
            client(ClusterOptions(kind="address", address=address)),
        ):
            pass
        thread.join()


@pytest.mark.parametrize("address", ["nonsense://somewhere", "tcp://"])
def test_client__no_address_at_all(address):
    before = dask.config.get("scheduler")
    with (
        pytest.raises(ConfigError, match="no Dask scheduler answers at"),
        client(ClusterOptions(kind="address", address=address)),
    ):
        pass
    assert dask.config.get("scheduler") == before


PROGRAM = """
import sys
import prefect_stands_here
from dglzarr.storage import cluster
from dglzarr.storage.cluster import ClusterOptions, client

if __name__ == "__main__":
    with client(ClusterOptions(n_workers=1)) as connected:
        print(connected.submit(eval, "'prefect_stands_here' in __import__('sys').modules").result())
    print(__file__ == sys.argv[0], __spec__)
"""


@pytest.mark.slow
def test_client__workers_do_not_load_the_main_module(tmp_path):
    (tmp_path / "prefect_stands_here.py").touch()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["False", "True", "None"]


STOPPED = """
import multiprocessing, os
from dglzarr.storage.cluster import ClusterOptions, client

if __name__ == "__main__":
    with client(ClusterOptions(n_workers=1)):
        lock = multiprocessing.get_context("spawn").Lock()
        os._exit(143)
"""


@pytest.mark.slow
def test_client__a_stopped_run_warns_of_nothing(tmp_path):
    """What it leaves is removed; that was told as "leaked semaphore objects"."""
    program = tmp_path / "stopped.py"
    program.write_text(STOPPED, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (143, "")
