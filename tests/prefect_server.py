"""A Prefect server and a worker as processes, on PostgreSQL where it is installed; for tests."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil
import yaml

REPO = Path(__file__).resolve().parents[1]
PREFECT = str(Path(sys.executable).with_name("prefect"))
SECONDS = 240  # a run is due within one minute; the rest is for programs to start
SMALL = {
    "ingest": {"split_by": "sample"},
    "dedup": {"n_clusters": 4},
    "train": {"epochs": 1, "hidden": 8, "n_latent": 3},
    "select": {"n_landmarks": 5, "n_random": 2},
    "cluster": {"kind": "none"},
}


def load_flows():
    """Return the module that flows/mine.py makes; flows/ is no package."""
    spec = importlib.util.spec_from_file_location("mine", REPO / "flows" / "mine.py")
    module = sys.modules["mine"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """A Prefect server on a port and in a home of its own, and programs that talk to it."""

    def __init__(self, folder, database=""):
        self.folder, self.port = folder, free_port()
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
        if database:
            self.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
        self.programs = []

    def serve(self):
        """Start the server itself and wait until it answers."""
        self.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        wait(self.is_up, self)

    def start(self, name, *arguments):
        """Start a program that goes on; what it says is in NAME.log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            program = subprocess.Popen(
                [PREFECT, *arguments], cwd=self.folder, env=self.environment,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.programs.append(program)

    def call(self, *arguments):
        """Run a program to its end; return what it says."""
        done = subprocess.run(
            [PREFECT, *arguments], cwd=self.folder, env=self.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

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


def wait(is_time, server):
    deadline = time.monotonic() + SECONDS
    while not (found := is_time()):
        assert time.monotonic() < deadline, "\n".join(
            f"{path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in server.folder.glob("*.log")
        )
        time.sleep(1)
    return found


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def database_server(*options):
    """Yield how to call its programs, where its socket is, and its port; None without PostgreSQL.

    ``options`` are those of Debian's ``initdb``.
    """
    programs = [*Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not programs:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgresql-") as place:
        other = {}
        if os.geteuid() == 0:  # as whom it refuses to run
            other = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(place, "postgres")

        def call(name, *arguments):
            words = [programs[-1].with_name(name), *arguments]
            subprocess.run(words, check=True, cwd=place, stdout=subprocess.DEVNULL, **other)

        call("initdb", "-D", "data", "--no-sync", *options)
        words = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
        call("pg_ctl", "-D", "data", "-o", words, "-l", "log", "-w", "start")
        try:
            yield call, place, port
        finally:
            call("pg_ctl", "-D", "data", "-m", "immediate", "stop")


@contextlib.contextmanager
def postgresql():
    """Yield the address of a database of PostgreSQL's, "" where Debian's is not installed."""
    with database_server("-U", "prefect", "--auth=trust") as found:
        if found is None:
            yield ""
            return
        call, _, port = found
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"


def deployed(server, name, study, *, each_minute=False, active=True):
    """Deploy a flow as shipped, but with a study of ours and, if asked, an active schedule."""
    shipped = yaml.safe_load((REPO / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))
    (found,) = [one for one in shipped["deployments"] if one["name"] == name]
    found["parameters"] = {"settings": study}
    if each_minute:
        (schedule,) = found["schedules"]
        assert not schedule["active"]
        schedule |= {"cron": "* * * * *", "active": active}
    here = {**shipped, "deployments": [found]}
    (server.folder / "prefect.yaml").write_text(json.dumps(here), encoding="utf-8")
    server.call("--no-prompt", "deploy", "--name", name, "--prefect-file", "prefect.yaml")
