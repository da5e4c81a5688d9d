"""A Dask client for the time of a run: local processes, or a scheduler that already runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Annotated, Any, Literal

import dask
from pydantic import Field, model_validator

from dglzarr.errors import ConfigError
from dglzarr.storage.options import Options, choice
from dglzarr.storage.workers import WAIT_LIMIT, Watch, issued, kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dglzarr.storage.workers import Need

_BYTES = r"^(\d+(\.\d+)? *[kMGT]i?B|auto)$"

Count = Annotated[int, Field(gt=0)]


class ClusterOptions(Options):
    """Where Dask runs."""

    section = "cluster"

    kind: Literal["local", "address", "none"] = choice(
        "local", "workers of its own, a scheduler that runs already, or this process alone"
    )
    n_workers: Count = choice(2, "local worker processes")
    threads_per_worker: Count = choice(1, "threads of each")
    memory_limit: str = choice("4GiB", "memory of each, or auto", pattern=_BYTES)
    address: str | None = choice(
        None, "of the running scheduler; without it DASK_SCHEDULER_ADDRESS in the environment"
    )
    wait_limit: Count = choice(
        WAIT_LIMIT,
        "seconds that a run waits while no worker works (there is none, or all are paused at "
        "their memory limit) before it ends; told after 60",
    )

    @model_validator(mode="after")
    def _address_goes_with_kind(self) -> ClusterOptions:
        if self.kind == "address" and not self.scheduler:
            raise ValueError("cluster.kind: 'address' needs address or DASK_SCHEDULER_ADDRESS")
        return self

    @property
    def scheduler(self) -> str:
        """The address of the running scheduler, "" where none is told."""
        return self.address or os.environ.get("DASK_SCHEDULER_ADDRESS", "")


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
        When no scheduler answers at the address, or Dask has no certificates for it.
    DglzarrError
        When a worker does not see the root or a file, or has other packages.
    """
    if options.kind == "none":
        with dask.config.set(scheduler="synchronous"):
            yield None
        return
    import distributed  # noqa: F401, PLC0415  (takes a second, and sets levels of its own)

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error that matters is raised

    opened = _at_address(options.scheduler) if options.kind == "address" else _local(options)
    with opened as connected, ExitStack() as stack:
        ticket = stack.enter_context(issued(root)) if root else None
        watch = Watch(connected, options.wait_limit, ticket)
        stack.enter_context(kept(watch))
        watch.greet(files, needs)
        yield connected


@contextmanager
def _at_address(address: str) -> Iterator[Any]:
    """Yield a client of a scheduler that runs already."""
    from distributed import Client  # noqa: PLC0415  (takes a second to import)

    if address.startswith("tls://"):
        _check_certificates(address)
    with dask.config.set(scheduler="distributed"):  # a client restores what it finds
        try:
            opened = Client(address, timeout="20s")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cluster.address: no Dask scheduler answers at {address!r}: {error}."
            ) from error
        with opened as connected:
            yield connected


def _check_certificates(address: str) -> None:
    """Refuse a TLS address where Dask is not told of certificates, or cannot read them."""
    from distributed.security import Security  # noqa: PLC0415  (takes a second to import)

    keys = "distributed.comm.tls.ca-file, .client.cert and .client.key of Dask's configuration"
    try:
        found = Security().get_connection_args("client")["ssl_context"]
    except (OSError, ValueError) as error:  # ssl's errors are the former
        raise ConfigError(
            f"cluster.address: {address!r} needs certificates, but they cannot be read: {error}. "
            f"Correct {keys}."
        ) from error
    if found is None:
        raise ConfigError(
            f"cluster.address: {address!r} needs certificates, but Dask is told of none. Set {keys}"
            " (in the environment DASK_DISTRIBUTED__COMM__TLS__CA_FILE and so on)."
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
            scheduler="distributed",
        ),
    ):
        resource_tracker.ensure_running()  # starting it lets its thread hear signals again
        runner = LoopRunner()
        with _held(signal.SIGINT):
            runner.start()  # processes inherit what the thread that starts them does not hear
        with _held(signal.SIGINT, signal.SIGTERM):
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
        try:
            yield connected
        finally:
            with _held(signal.SIGINT, signal.SIGTERM):
                connected.close()
                cluster.close()
                runner.stop()


@contextmanager
def _held(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals wait until the end of a block that would leave processes behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _worker_environment() -> dict[str, str]:
    """Return how a worker's memory is managed, beside what Dask sets.

    Dask makes it go back to the system at once, so that every temporary above 128 KiB costs a
    system call and fresh pages: quantiles take twice the time. Some may stay with the worker.
    """
    return {
        **dask.config.get("distributed.nanny.pre-spawn-environ"),
        "MALLOC_TRIM_THRESHOLD_": str(2**25),
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_ARENA_MAX": "1",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # TensorFlow takes a whole GPU otherwise
    }


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
