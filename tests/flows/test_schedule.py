"""A schedule fires: a server, a worker and the deployment as shipped, but active, each minute."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from dglzarr.query import describe
from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[2]
PREFECT = str(Path(sys.executable).with_name("prefect"))
SECONDS = 240  # a run is due within one minute; the rest is for programs to start


class Server:
    """A Prefect server on a port and in a home of its own, and programs that talk to it."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = {
            **kept,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PWD": str(folder),
            "DGLZARR_FLOWS": str(REPO / "flows"),
        }
        self.programs = []

    def start(self, name, *arguments):
        """Start a program that goes on; what it says is in NAME.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            program = subprocess.Popen(
                [PREFECT, *arguments], cwd=self.folder, env=self.environment,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.programs.append(program)

    def call(self, *arguments):
        """Run a program to its end."""
        done = subprocess.run(
            [PREFECT, *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def ask(self, place, question=None):
        """Return what the server answers."""
        asked = urllib.request.Request(  # noqa: S310  (our own address)
            f"{self.url}/{place}",
            data=None if question is None else json.dumps(question).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())

    def is_up(self):
        with contextlib.suppress(OSError):
            return self.ask("health")
        return False

    def scheduled(self, state):
        """Return the runs that a schedule made and that are in a state."""
        runs = self.ask("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}})
        return [run for run in runs if run["auto_scheduled"]]

    def log_of(self, run, last):
        """Return the log of a run, oldest line first, once it ends with a line."""
        question = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC"}
        said = [f"{r['timestamp'][:19]} {r['message']}" for r in self.ask("logs/filter", question)]
        return said if said and said[-1].endswith(last) else []

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self):
        for program in reversed(self.programs):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            program.wait(timeout=30)


@pytest.fixture
def server(tmp_path):
    started = Server(tmp_path)
    try:
        started.start(
            "server", "server", "start", "--host", "127.0.0.1", "--port", str(started.port)
        )
        wait(started.is_up, started)
        yield started
    finally:
        started.stop()


def wait(is_time, server):
    deadline = time.monotonic() + SECONDS
    while not (found := is_time()):
        assert time.monotonic() < deadline, "\n".join(
            f"{path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in server.folder.glob("*.log")
        )
        time.sleep(1)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schedule__an_active_one_fires_and_its_run_completes(server, tmp_path):
    write_study(tmp_path, n_samples=40, n_genes=60)
    shipped = (REPO / "deploy" / "prefect.yaml").read_text(encoding="utf-8")
    active = shipped.replace("active: false", "active: true").replace("0 3 * * *", "* * * * *")
    assert active.count("active: true") == active.count("* * * * *") == 1
    here = active.replace("uri: geo/*_series_matrix.txt.gz", "uri: data/*.gctx")
    small = "ingest: {split_by: sample}, select: {n_landmarks: 5}, cluster: {kind: none}"
    here = here.replace("root: study", "\n    ".join(["root: study", *small.split(", ")]))
    (tmp_path / "prefect.yaml").write_text(here, encoding="utf-8")
    server.call("work-pool", "create", "dglzarr", "--type", "process")
    server.call("--no-prompt", "deploy", "--name", "ingest", "--prefect-file", "prefect.yaml")
    server.start("worker", "worker", "start", "--pool", "dglzarr")

    run, *_ = wait(lambda: server.scheduled("COMPLETED"), server)

    assert run["created_by"]["type"] == "SCHEDULE"
    said = wait(lambda: server.log_of(run, "Finished in state Completed()"), server)
    print("\n".join(said))  # noqa: T201
    assert "bulk DML" not in server.log("server")
    expression = tmp_path / "study" / "segments" / "0000" / "expression.zarr"
    assert describe(str(expression))["complete"]
