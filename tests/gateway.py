"""A real Dask gateway on this machine, whose clusters are processes of its own."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from importlib.util import find_spec

import psutil

from tests.prefect_server import free_port

CONF = """\
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.Proxy.address = "127.0.0.1:{port}"
c.DBBackendBase.check_timeouts_period = 1
c.LocalBackend.sigint_timeout = 3
c.LocalBackend.clusters_directory = "{folder}/clusters"
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "dask", "worker"]
"""


def is_installed():
    """Return whether there is a server to start here."""
    return find_spec("dask_gateway_server") is not None and find_spec("sqlalchemy") is not None


@contextmanager
def gateway(folder):
    """Yield the address of a gateway; its scheduler and workers are gone in the end."""
    (folder / "clusters").mkdir(parents=True)
    port = free_port()
    conf = folder / "conf.py"
    conf.write_text(CONF.format(port=port, folder=folder, python=sys.executable))
    command = [sys.executable, "-m", "dask_gateway_server", "-f", str(conf)]
    with (folder / "gateway.log").open("ab") as log:
        server = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _is_up(address):
            assert time.monotonic() < deadline, (folder / "gateway.log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.wait(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=10)


def processes(address):
    """Return the command lines of schedulers and workers that a gateway runs; waits for none."""
    deadline = time.monotonic() + 20
    while (found := _processes(address)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def _processes(address):
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DASK_GATEWAY_API_URL", "").startswith(address):
                found.append(process.cmdline())
    return found


def _is_up(address):
    with suppress(OSError):
        urllib.request.urlopen(f"{address}/api/health", timeout=5).close()  # noqa: S310
        return True
    return False
