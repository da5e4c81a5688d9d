"""A server, a worker and deployments as shipped: schedules fire, dead runs are told of."""

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import yaml

from dglzarr.settings import build_settings
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import mine
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

    def python(self, program):
        """Run a program in Python; return what it prints."""
        return subprocess.run(
            [sys.executable, "-c", program], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def kill_last(self):
        """Kill the program that was started last, and all that it started."""
        last = psutil.Process(self.programs[-1].pid)
        for program in [*last.children(recursive=True), last]:
            program.kill()

    def runs(self, state):
        """Return the runs that are in a state."""
        question = {"flow_runs": {"state": {"type": {"any_": [state]}}}}
        return self.ask("flow_runs/filter", question)

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


SMALL = {
    "ingest": {"split_by": "sample"},
    "dedup": {"n_clusters": 4},
    "train": {"epochs": 1, "hidden": 8, "n_latent": 3},
    "select": {"n_landmarks": 5, "n_random": 2},
    "cluster": {"kind": "none"},
}


def deployed(server, name, study, *, each_minute=False):
    """Deploy a flow as shipped, but with a study of ours and, if asked, an active schedule."""
    shipped = yaml.safe_load((REPO / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))
    (found,) = [one for one in shipped["deployments"] if one["name"] == name]
    found["parameters"] = {"settings": study}
    if each_minute:
        (schedule,) = found["schedules"]
        assert not schedule["active"]
        schedule |= {"cron": "* * * * *", "active": True}
    here = {**shipped, "deployments": [found]}
    (server.folder / "prefect.yaml").write_text(json.dumps(here), encoding="utf-8")
    server.call("--no-prompt", "deploy", "--name", name, "--prefect-file", "prefect.yaml")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schedule__the_nightly_growth_fires_and_adds_the_file_that_came(server, tmp_path):
    file = write_study(tmp_path, n_samples=120, n_genes=60)
    held = tmp_path / "GSE900017_series_matrix.txt.gz"
    shutil.move(file.parent / "data" / held.name, held)
    study = {
        "root": f"{tmp_path}/study", "sources": [{"uri": f"{tmp_path}/data/GSE*.gz"}], **SMALL
    }  # fmt: skip
    mine(build_settings(study, name="test", folder=tmp_path))
    server.call("work-pool", "create", "dglzarr", "--type", "process")
    deployed(server, "grow", study, each_minute=True)
    server.start("worker", "worker", "start", "--pool", "dglzarr")

    run, *_ = wait(lambda: server.runs("COMPLETED"), server)
    assert run["created_by"]["type"] == "SCHEDULE"
    assert open_study(str(tmp_path / "study")).segments == ("0000",)
    shutil.move(held, file.parent / "data" / held.name)  # the next day's file
    wait(lambda: open_study(str(tmp_path / "study")).segments == ("0000", "0001"), server)

    said = wait(lambda: server.log_of(run, "Finished in state Completed()"), server)
    print("\n".join(said))  # noqa: T201
    assert "bulk DML" not in server.log("server")


class _Ear(http.server.BaseHTTPRequestHandler):
    """Keeps what it is told."""

    heard: ClassVar[list[str]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.heard.append(body.decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def ear():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ear) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_automations__a_dead_run_is_marked_and_people_are_told(server, ear, tmp_path):
    """The worker and its run are killed; the server finds out and tells an address of ours."""
    block = server.python(
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        f"block = Block(name='us', url='http://127.0.0.1:{ear.server_port}', method='POST',\n"
        "    json_data={'text': '{{subject}} {{body}}'})\n"
        "print(block.save('us'))"
    ).strip()
    shipped = (REPO / "deploy" / "automations.yaml").read_text(encoding="utf-8")
    ours = shipped.replace("00000000-0000-0000-0000-000000000000", block)
    (tmp_path / "automations.yaml").write_text(ours, encoding="utf-8")
    server.call("automation", "create", "--from-file", "automations.yaml")
    file = write_study(tmp_path, n_samples=120, n_genes=60)
    long = {**SMALL, "train": {**SMALL["train"], "epochs": 10**6, "patience": 10**6}}
    uri = f"{file.parent}/data/GSE*.gz"
    study = {"root": f"{tmp_path}/study", "sources": [{"uri": uri}], **long}
    server.call("work-pool", "create", "dglzarr", "--type", "process")
    deployed(server, "mine", study)
    server.start("worker", "worker", "start", "--pool", "dglzarr")
    server.call("deployment", "run", "mine/mine")
    wait(lambda: list((tmp_path / "study" / "models").glob("*/checkpoint*")), server)

    server.kill_last()  # the worker and its run: nobody is left to say so
    (run,) = server.runs("RUNNING")
    wait(lambda: server.runs("CRASHED"), server)
    wait(lambda: _Ear.heard, server)

    assert [one["id"] for one in server.runs("CRASHED")] == [run["id"]]
    (told,) = _Ear.heard
    assert "dglzarr: mine Crashed" in told
    assert "has not been heard of" in told
