"""Prefect's server keeps its state in a real PostgreSQL, and a run of the flow goes through it."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.flows.test_schedule import REPO, SMALL, Server, wait

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
needs_postgres = pytest.mark.skipif(
    not BINARIES and not shutil.which("initdb"), reason="PostgreSQL is not installed: make parts"
)


class Postgres:
    """A database server of its own, which does not run as root."""

    def __init__(self):
        self.user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        self.binaries = BINARIES[-1] if BINARIES else Path(shutil.which("initdb")).parent
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def call(self, program, *arguments):
        done = subprocess.run(
            [self.binaries / program, *arguments], cwd=self.folder, check=False,
            user=self.user if os.geteuid() == 0 else None, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self):
        data, log = self.folder / "data", self.folder / "log"
        self.call("initdb", "--pgdata", data, "--auth", "trust", "--username", "prefect")
        where = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        subprocess.run(
            [self.binaries / "pg_ctl", "--pgdata", data, "--log", log, "-o", where, "-w", "start"],
            user=self.user if os.geteuid() == 0 else None, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.ask("postgres", "create database prefect")

    def ask(self, database, statement):
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "prefect", "-d", database]
        return self.call("psql", *where, "-t", "-A", "-c", statement).strip()

    def stop(self):
        self.call("pg_ctl", "--pgdata", self.folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.folder)


@pytest.fixture
def postgres():
    started = Postgres()
    started.start()
    try:
        yield started
    finally:
        started.stop()


@needs_postgres
@pytest.mark.slow
def test_postgres__a_run_of_the_flow_is_kept_there(postgres, tmp_path):
    from dglzarr.testing import write_study

    file = write_study(tmp_path, n_samples=120, n_genes=60)
    server = Server(tmp_path)
    address = f"postgresql+asyncpg://prefect@127.0.0.1:{postgres.port}/prefect"
    server.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
    where = ["--host", "127.0.0.1", "--port", str(server.port)]
    try:
        server.start("server", "server", "start", *where)
        wait(server.is_up, server)
        changes = [f"--set={s}.{k}={_toml(v)}" for s, o in SMALL.items() for k, v in o.items()]
        done = subprocess.run(
            [sys.executable, REPO / "flows" / "mine.py", file, *changes], cwd=tmp_path,
            env=server.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = server.runs("COMPLETED")
    finally:
        server.stop()
    found = postgres.ask("prefect", "select id, state_type from flow_run")
    assert found == f"{run['id']}|COMPLETED"


def _toml(value):
    return f'"{value}"' if isinstance(value, str) else str(value)
