"""What keeps the workers of a cluster from working, told before work and while a run waits."""

from __future__ import annotations

import logging
import os
import platform
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from dask.utils import format_bytes

from dglzarr.errors import DglzarrError
from dglzarr.storage.buckets import is_bucket
from dglzarr.storage.files import PARTIAL, place_of, put, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)

Why = Callable[[], tuple[str, str]]
"""Tells why there are no workers, and what to do."""

WAIT_LIMIT = 600
"""Seconds that a run waits for workers that do not work, by default."""

PACKAGES = ("dglzarr", "dask", "distributed", "numpy", "zarr")
"""What must be of one version everywhere, beside Python."""

SECONDS_FOR_A_WORKER = 8.0
SECONDS_TO_ANSWER = 12.0
SECONDS_UNTOLD = 60.0
SECONDS_BETWEEN_LOOKS = 5.0
_LOOKS_FOR_A_MARK = 5
_MORE = "cluster.memory_limit, or --memory-limit of dask worker"

_watches: dict[Any, Watch] = {}


# ---------------------------------------------------------------- in a worker


@dataclass(frozen=True)
class Ticket:
    """What a worker must show before its first task of a run.

    Attributes
    ----------
    mark
        A file in the root that it must see.
    token
        What the file holds.
    versions
        Name and version of each package, of which it must have the same.
    """

    mark: str
    token: str
    versions: tuple[tuple[str, str], ...]


@contextmanager
def issued(root: str) -> Iterator[Ticket]:
    """Yield a ticket for workers that see a root; its file is gone in the end.

    A killed run leaves it; the next one removes it, as any unfinished file.
    """
    token = uuid.uuid4().hex
    mark = place_of(root, f".workers-{token}{PARTIAL}")
    with told(root, remedy="Choose a writable root."):
        put(mark, token.encode())
    try:
        yield Ticket(str(mark), token, tuple(_versions().items()))
    finally:
        with suppress(OSError):
            mark.unlink(missing_ok=True)


def check_ticket(ticket: Ticket) -> None:
    """Refuse to work where a ticket does not hold; a process looks once.

    Raises
    ------
    DglzarrError
        Naming the worker and what it lacks.
    """
    if reason := refusal(ticket):
        from distributed import get_worker  # noqa: PLC0415  (is loaded in a worker)

        raise DglzarrError(f"worker {get_worker().address}: {reason}")


def refusal(ticket: Ticket, files: Sequence[str] = ()) -> str:
    """Return why a process may not work, "" where it may."""
    if is_bucket(ticket.mark):  # whose run may have lost its lease since
        _refusal.cache_clear()
    if reason := _refusal(ticket):
        return reason
    for path in files:
        try:
            os.stat(path)  # noqa: PTH116  (thousands of files)
        except OSError as error:
            return (
                f"cannot see the source {path}: {error.strerror}. Let it see the source under "
                "the same path."
            )
    return ""


@lru_cache(maxsize=16)
def _refusal(ticket: Ticket) -> str:
    here = _versions()
    if other := [
        f"{name} {here[name] or 'none'} for {wanted}"
        for name, wanted in ticket.versions
        if here[name] != wanted
    ]:
        return f"has {', '.join(other)} of the run. Install the same versions."
    root = place_of(ticket.mark).parent
    for _ in range(_LOOKS_FOR_A_MARK):  # a network may show a new file late
        try:
            seen, why = place_of(ticket.mark).read_text(encoding="ascii"), "it sees another folder"
        except (OSError, UnicodeDecodeError) as error:
            seen, why = "", getattr(error, "strerror", None) or str(error)
        if seen == ticket.token:
            return ""
        time.sleep(0.2)
    return f"cannot see the root {root}: {why}. Let it see the same folder under the same path."


def _versions() -> dict[str, str]:
    """Return the versions in this process, "" of what is not installed; of Python the minor one."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


# ---------------------------------------------------------------- in the run


class Need(NamedTuple):
    """Bytes of memory that a worker takes: once, and for each task that it is at."""

    once: float
    each: float


@dataclass
class Watch:
    """Watches the workers of a client, and says what keeps them from working.

    Attributes
    ----------
    client
        Of the cluster.
    limit
        Seconds to wait while nobody works.
    ticket
        What a worker must show before it works, if anything.
    why
        Tells why no worker has come yet, and what to do, where they come in time: a batch system's
        do once their jobs begin. There is no work before the first has come.
    """

    client: Any
    limit: float = WAIT_LIMIT
    ticket: Ticket | None = None
    why: Why | None = None
    _looked: float = field(default=0.0, init=False)
    _since: float | None = field(default=None, init=False)
    _is_told: bool = field(default=False, init=False)

    def greet(self, files: Sequence[str] = (), needs: Mapping[str, Need] | None = None) -> None:
        """Look at the workers before there is work; its first task looks at one that comes later.

        Parameters
        ----------
        files
            What each must see beside the root.
        needs
            Memory that a worker needs, by stage.

        Raises
        ------
        DglzarrError
            When a worker does not see the root or a file, or has other packages.
        """
        deadline = time.monotonic() + SECONDS_FOR_A_WORKER
        while not (workers := self._workers()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if idle := self._idle(workers):
            self._warn("cluster", *idle)
        while self.why is not None and not workers:
            self.wait("cluster")
            time.sleep(0.5)
            workers = self._workers()
        _tell_memory(workers or {}, needs or {})
        self.check(files)

    def check(self, files: Sequence[str] = ()) -> None:
        """Run one task on each worker that runs, which tells whether it may work.

        Raises
        ------
        DglzarrError
            Naming the first worker that may not, and how many others there are.
        """
        if self.ticket is None:
            return
        from distributed import wait  # noqa: PLC0415  (takes a second to import)

        running = [a for a, w in (self._workers() or {}).items() if w["status"] == "running"]
        how = {"allow_other_workers": False, "pure": False, "priority": 1}
        asked = {
            address: self.client.submit(refusal, self.ticket, files, workers=[address], **how)
            for address in running
        }
        with suppress(TimeoutError):
            wait(list(asked.values()), timeout=SECONDS_TO_ANSWER)
        reasons = {address: reason for address, task in asked.items() if (reason := _answer(task))}
        self.client.cancel(list(asked.values()))
        for address, reason in reasons.items():
            others = f" ({len(reasons) - 1} more cannot work)" if len(reasons) > 1 else ""
            raise DglzarrError(f"worker {address}{others}: {reason}")

    def wait(self, what: str) -> None:
        """Look whether anybody works, now and then; to be called while no task ends.

        Raises
        ------
        DglzarrError
            When nobody has worked for as long as the limit.
        """
        now = time.monotonic()
        if now - self._looked < SECONDS_BETWEEN_LOOKS:
            return
        idle = self._idle(self._workers())
        self._looked = time.monotonic()
        if idle is None:
            self.progressed()
            return
        cause, remedy = idle
        self._since = now if self._since is None else self._since
        waited = now - self._since
        if waited >= self.limit:
            raise DglzarrError(
                f"{what}: {cause}, for {waited:.0f} s (cluster.wait_limit). {remedy} and run "
                "again; finished work is kept."
            )
        if waited >= SECONDS_UNTOLD and not self._is_told:
            self._warn(what, cause, remedy)

    def progressed(self) -> None:
        """Note that somebody works."""
        self._looked = time.monotonic()
        self._since, self._is_told = None, False

    def _warn(self, what: str, cause: str, remedy: str) -> None:
        self._is_told = True
        logger.warning(
            "%s: %s. %s; the run waits up to %g s (cluster.wait_limit).",
            *(what, cause, remedy, self.limit),
        )

    def _workers(self) -> dict[str, Any] | None:
        """Return what the scheduler knows of each worker, None where it does not answer."""
        client = self.client
        try:
            known = client.sync(
                client.scheduler.identity, n_workers=-1, callback_timeout=SECONDS_TO_ANSWER
            )
        except (OSError, RuntimeError):  # also a timeout
            return None
        return dict(known["workers"])

    def _idle(self, workers: Mapping[str, Any] | None) -> tuple[str, str] | None:
        """Return why nobody works, and what to do; None where somebody works or could."""
        address = self.client.scheduler.address
        if workers is None:
            return f"the Dask scheduler at {address} does not answer", "Mend or restart it"
        if not workers:
            return self.why() if self.why else (f"there are no workers at {address}", "Start some")
        if any(map(_works, workers.values())):
            return None
        first, worker = next(iter(workers.items()))
        if worker["status"] != "paused":
            return f"no worker of {len(workers)} is running at {address}", "Restart them"
        held, limit = worker["metrics"].get("memory", 0), worker["memory_limit"] or 0
        paused = (
            f"all workers ({len(workers)}) are paused at their memory limit: {first} holds "
            f"{format_bytes(held)} of {format_bytes(limit)}"
        )
        return paused, f"Give them more memory ({_MORE})"


def watch_of(client: Any) -> Watch:  # noqa: ANN401
    """Return the watch of a client: the one that is kept, or one that asks for no ticket."""
    return _watches.get(client) or Watch(client)


def is_watched() -> bool:
    """Return whether a run has a cluster, reachable or not."""
    return bool(_watches)


@contextmanager
def kept(watch: Watch) -> Iterator[None]:
    """Let tasks of a client be watched so."""
    _watches[watch.client] = watch
    try:
        yield
    finally:
        del _watches[watch.client]


def _works(worker: Mapping[str, Any]) -> bool:
    """Return whether a worker takes tasks, or is at one."""
    counts = worker["metrics"].get("task_counts") or {}
    return worker["status"] == "running" or bool(counts.get("executing"))


def _answer(task: Any) -> str:  # noqa: ANN401
    """Return why a worker may not work, "" where it may or has not answered.

    One that is busy answers late; its first task asks the same.
    """
    if task.status == "error":  # it could not even load the question
        own = _versions()["dglzarr"]
        return f"cannot load dglzarr {own}: {task.exception()}. Install it there."
    return str(task.result()) if task.status == "finished" else ""


def _tell_memory(workers: Mapping[str, Any], needs: Mapping[str, Need]) -> None:
    """Warn of the worker that lacks most of the memory that a stage is expected to need."""
    lacks = [
        (need.once + worker["nthreads"] * need.each - worker["memory_limit"], address, stage)
        for address, worker in workers.items()
        if worker["memory_limit"]
        for stage, need in needs.items()
    ]
    lack, address, stage = max(lacks, default=(0, "", ""))
    if lack > 0:
        limit = workers[address]["memory_limit"]
        logger.warning(
            "cluster: worker %s has %s of memory, but %s needs about %s. Give it more (%s) or "
            "fewer threads, or fewer samples to a shard (ingest.shard_samples).",
            *(address, format_bytes(limit), stage, format_bytes(int(limit + lack)), _MORE),
        )
