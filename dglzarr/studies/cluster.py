"""A Dask client for the time of a run: local processes, or a scheduler that already runs."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import dask

from dglzarr.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["local", "address", "none"]


@contextmanager
def client(
    *,
    kind: Kind = "local",
    n_workers: int = 2,
    threads_per_worker: int = 1,
    memory_limit: str = "4GiB",
    address: str | None = None,
) -> Iterator[Any]:
    """Yield a Dask client, closed at the end; None for ``"none"`` (work in this process).

    Raises
    ------
    ConfigError
        When no scheduler answers at the address.
    """
    if kind == "none":
        with dask.config.set(scheduler="synchronous"):
            yield None
        return
    from distributed import Client, LocalCluster  # noqa: PLC0415  (takes a second to import)

    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # an error that matters is raised

    if kind == "address":
        where = address or os.environ.get("DASK_SCHEDULER_ADDRESS", "")
        try:
            opened = Client(where, timeout="20s")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"cluster.address: no Dask scheduler answers at {where!r}: {error}."
            ) from error
        with dask.config.set(scheduler="distributed"), opened as connected:
            yield connected
        return
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
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads_per_worker,
            memory_limit=memory_limit,
            dashboard_address="127.0.0.1:0",
            processes=True,
            silence_logs=logging.CRITICAL,  # a task that fails is told by its own error
        ) as cluster,
        Client(cluster) as connected,
    ):
        yield connected


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
