"""A Dask client for the time of a run: of local processes, or of a cluster that is elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import dask

from dglzarr.errors import ConfigError
from dglzarr.storage.cluster_options import LAUNCHED, ClusterOptions
from dglzarr.storage.launch import WORKER_ENVIRONMENT, held, launched, security, waiting
from dglzarr.storage.workers import Watch, issued, kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dglzarr.storage.workers import Need, Why


TIME_TO_CONNECT = "20s"
"""How long a scheduler that runs already may take to answer."""

SECONDS_TO_GREET = 25.0
"""How long it may take to say that it is one: a client would wait for that without an end."""


@contextmanager
def client(
    options: ClusterOptions = ClusterOptions(),
    *,
    root: str = "",
    files: Sequence[str] = (),
    needs: Mapping[str, Need] | None = None,
) -> Iterator[Any]:
    """Yield a Dask client, closed at the end; None for kind ``"none"`` (work in this process).

    Parameters
    ----------
    options
        Where Dask runs.
    root
        A folder that all workers must see as this process does; without it they are not asked.
    files
        What they must see beside it.
    needs
        Memory that a worker needs, by stage.

    Raises
    ------
    ConfigError
        When no scheduler answers at the address, or Dask has no certificates for it; when a
        cluster cannot be started.
    DglzarrError
        When a worker does not see the root or a file, or has other packages.
    """
    if options.kind == "none":
        with dask.config.set(scheduler="synchronous"):
            yield None
        return
    import distributed  # noqa: F401, PLC0415  (takes a second, and sets levels of its own)

    for name in ("distributed", "distributed.client", "tornado.application", "dask_kubernetes"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error that matters is raised

    with _opened(options, root) as (connected, why), ExitStack() as stack:
        ticket = stack.enter_context(issued(root)) if root else None
        watch = Watch(connected, options.wait_limit, ticket, why)
        stack.enter_context(kept(watch))
        watch.greet(files, needs)
        yield connected


@contextmanager
def _opened(options: ClusterOptions, root: str) -> Iterator[tuple[Any, Why | None]]:
    """Yield a client, and what tells why there are no workers yet where they come in time."""
    if options.kind in LAUNCHED:
        with _scheduler_restored(), launched(options, root) as (cluster, opened):
            yield opened, waiting(options, cluster)
    elif options.kind == "address":
        with _at_address(options) as opened:
            yield opened, None
    else:
        with _local(options) as opened:
            yield opened, None


def _scheduler_restored() -> Any:  # noqa: ANN401
    """Let a client find no scheduler that it could put back too late: when it is collected."""
    return dask.config.set(scheduler=None)


@contextmanager
def _at_address(options: ClusterOptions) -> Iterator[Any]:
    """Yield a client of a scheduler that runs already."""
    from distributed import Client  # noqa: PLC0415  (takes a second to import)

    address, certificates = options.scheduler, security(options)
    if address.startswith("tls://"):
        _check_certificates(address, certificates)
    with _scheduler_restored():
        try:
            with ThreadPoolExecutor(1) as thread:  # which runs no loop, whoever calls
                greeted = thread.submit(asyncio.run, _is_scheduler(address, certificates)).result()
            opened = greeted and Client(address, timeout=TIME_TO_CONNECT, security=certificates)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cluster.address: no Dask scheduler answers at {address!r}: {error}."
            ) from error
        if not opened:
            what = "is no Dask scheduler, or one that was stopped"
            if certificates is not None:
                what += ", or takes no such certificates"
            raise ConfigError(
                f"cluster.address: something answers at {address!r} that {what}. Give the "
                "scheduler's own port (8786 unless another was chosen; 8787 is its dashboard), or "
                "start it again."
            )
        with opened as connected:
            yield connected


async def _is_scheduler(address: str, certificates: Any) -> bool:  # noqa: ANN401
    """Return whether what takes a connection at an address greets as a scheduler does, in time.

    Raises
    ------
    OSError, ValueError
        When nobody takes it, or it is no address.
    """
    from distributed.comm import CommClosedError, connect  # noqa: PLC0415  (takes a second)
    from distributed.security import Security  # noqa: PLC0415

    keys = (certificates or Security()).get_connection_args("client")
    try:
        async with asyncio.timeout(SECONDS_TO_GREET):
            comm = await connect(address, timeout=TIME_TO_CONNECT, **keys)
            await comm.write({"op": "identity", "reply": True})
            found = await comm.read()
            comm.abort()
    except (
        TimeoutError,
        CommClosedError,
        MemoryError,
    ):  # what is no message of Dask's has any size
        return False
    return isinstance(found, dict) and found.get("type") == "Scheduler"


def _check_certificates(address: str, certificates: Any) -> None:  # noqa: ANN401
    """Refuse a TLS address without certificates, or with such that cannot be read."""
    from distributed.security import Security  # noqa: PLC0415  (takes a second to import)

    keys = (
        "cluster.tls_ca, tls_cert and tls_key, or distributed.comm.tls.ca-file, .client.cert and "
        ".client.key of Dask's configuration"
    )
    try:
        known = certificates or Security()
        found = known.get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:  # ssl's errors are the former
        raise ConfigError(
            f"cluster.address: {address!r} needs certificates, but they cannot be read: {error}. "
            f"Correct {keys}."
        ) from error
    if found is None:
        raise ConfigError(
            f"cluster.address: {address!r} needs certificates, but there are none. Set {keys} "
            "(in the environment DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on)."
        )


@contextmanager
def _local(options: ClusterOptions) -> Iterator[Any]:
    """Yield a client of workers of its own, which a Ctrl-C at a terminal does not reach."""
    from distributed import Client, LocalCluster  # noqa: PLC0415  (takes a second to import)
    from distributed.utils import LoopRunner  # noqa: PLC0415

    with (
        _environment_restored(),
        _main_module_hidden(),
        dask.config.set(
            {
                "distributed.worker.daemon": True,
                "distributed.nanny.pre-spawn-environ": _worker_environment(),
            },
        ),
        _scheduler_restored(),
    ):
        _track_resources()  # starting that lets its thread hear signals again
        runner = LoopRunner()
        with held(signal.SIGINT):
            runner.start()  # processes inherit what the thread that starts them does not hear
        with held(signal.SIGINT, signal.SIGTERM):
            cluster = LocalCluster(
                n_workers=options.n_workers,
                threads_per_worker=options.threads_per_worker,
                memory_limit=options.memory_limit,
                dashboard_address="127.0.0.1:0",
                processes=True,
                silence_logs=logging.CRITICAL,  # a task that fails is told by its own error
                loop=runner.loop,
            )
            connected = Client(cluster)
            if options.max_workers:
                cluster.adapt(minimum=options.n_workers, maximum=options.max_workers)
        try:
            yield connected
        finally:
            with held(signal.SIGINT, signal.SIGTERM):
                connected.close()
                cluster.close()
                runner.stop()


def _track_resources() -> None:
    """Start the process that removes what a stopped run leaves, and let it do so without a word."""
    before = list(sys.warnoptions)
    sys.warnoptions.append("ignore:resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions[:] = before


def _worker_environment() -> dict[str, str]:
    """Return the environment of a worker."""
    return {**dask.config.get("distributed.nanny.pre-spawn-environ"), **WORKER_ENVIRONMENT}


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Take back, in the end, what Dask sets for its workers in this process too and leaves there.

    All that is started after the cluster would have one thread for linear algebra.
    """
    names = (*_worker_environment(), "PYTHONHASHSEED", "__DASK_PARENT_PID")
    before = {name: os.environ[name] for name in names if name in os.environ}
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Let processes be spawned without the program's main module, which no task needs.

    They import it otherwise; where it loads Prefect, that takes longer than all else they do.
    """
    names = vars(sys.modules["__main__"])
    hidden: dict[str, Any] = {n: names.pop(n) for n in ("__file__", "__spec__") if n in names}
    names["__spec__"] = None
    try:
        yield
    finally:
        names.update(hidden)
