"""The only maker of Dask graphs: many calls of one function, on whatever scheduler is active."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import dask
import dask.threaded
import numpy as np
from dask.callbacks import Callback

from dglzarr.errors import DglzarrError
from dglzarr.storage.workers import Ticket, Watch, check_ticket, is_watched, watch_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Progress = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.005
_RETRIES = 2  # of a task whose worker died


def run_tasks(
    func: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    what: str,
    on_progress: Progress | None = None,
    **arguments: Any,  # noqa: ANN401
) -> list[Any]:
    """Run ``func(*task, **arguments)`` for each task on the active Dask scheduler, in order.

    The one place where a graph is made. With a distributed client, tasks run on its workers and
    are tried again when a worker dies; otherwise Dask's configured local scheduler runs them.

    Raises
    ------
    DglzarrError
        When the scheduler is gone, a worker may not work (`Ticket`), a task ends one worker after
        another, or nobody works for as long as the client's `Watch` allows.
    """
    report = on_progress or _no_progress
    report(what, 0, len(tasks))
    client = _active_client()
    shared = {name: _once(value) for name, value in arguments.items()} if client else arguments
    if client is None:
        graph = [dask.delayed(func, pure=False)(*task, **shared) for task in tasks]
        with _Count(lambda done: report(what, done, len(tasks))):
            # Dask loads distributed to look for a client where it is not told what to run on.
            scheduler = dask.config.get("scheduler", None) or dask.threaded.get
            return list(dask.compute(*graph, scheduler=scheduler))
    watch = watch_of(client)
    attempt = dask.delayed(_attempt, pure=False)
    graph = [attempt(func, watch.ticket, *task, **shared) for task in tasks]
    futures = _sent(client, graph, what)
    results = dict.fromkeys(future.key for future in futures)
    for done, (key, result) in enumerate(_as_completed(watch, futures, what), start=1):
        if isinstance(result, DglzarrError):
            raise result
        results[key] = result
        report(what, done, len(tasks))
    return list(results.values())


def _sent(client: Any, graph: Sequence[Any], what: str) -> list[Any]:  # noqa: ANN401
    """Return the futures of a graph that the scheduler has been given."""
    from distributed.client import ClosedClientError  # noqa: PLC0415  (takes a second to import)

    try:
        if client.status != "running":
            raise _gone(what)
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "4 GiB"}):
            return list(client.compute(graph, retries=_RETRIES, sync=False))
    except (ClosedClientError, OSError) as error:
        raise _gone(what) from error


def _attempt(
    func: Callable[..., Any],
    ticket: Ticket | None,
    *task: Any,  # noqa: ANN401
    **arguments: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Return what a task returns, or the error a user caused: it is neither logged nor retried."""
    try:
        if ticket is not None:
            check_ticket(ticket)
        return func(*task, **arguments)
    except DglzarrError as error:
        return error


def _once(value: Any) -> Any:  # noqa: ANN401
    """Return an argument that all tasks share; an array goes to each worker once."""
    return dask.delayed(value, traverse=False) if isinstance(value, np.ndarray) else value


class _Count(Callback):  # type: ignore[misc]
    """Counts finished tasks of a local scheduler."""

    def __init__(self, report: Callable[[int], None]) -> None:
        super().__init__()
        self._report = report
        self._done = 0

    def _posttask(self, *_: object) -> None:
        self._done += 1
        self._report(self._done)


def _no_progress(what: str, done: int, total: int) -> None:
    logger.debug("%s: %d of %d", what, done, total)


def _active_client() -> Any:  # noqa: ANN401
    """Return the client to work by, None to work in this process."""
    if dask.config.get("scheduler", None) == "synchronous":
        return None
    if "distributed" not in sys.modules:  # takes a second to import; who has a client has it
        return None
    from distributed import get_client  # noqa: PLC0415

    try:
        return get_client()
    except ValueError as error:
        if is_watched():
            raise _gone("cluster") from error
        return None


def _gone(what: str) -> DglzarrError:
    return DglzarrError(
        f"{what}: the Dask scheduler is gone. Start it and its workers, and run again; finished "
        "work is kept."
    )


def _as_completed(watch: Watch, futures: Iterable[Any], what: str) -> Iterator[tuple[str, Any]]:
    """Yield key and result of each future as it ends.

    A future is let go with its result, so that it is not computed again when its worker dies. An
    iterator of Dask's waits for ever when the scheduler is gone, so the client is asked meanwhile.
    """
    from distributed import KilledWorker, as_completed  # noqa: PLC0415

    waiting = as_completed(futures, with_results=True)
    watch.progressed()
    try:
        while not waiting.is_empty():
            if waiting.has_ready():
                future, result = next(waiting)
                if future.cancelled():
                    raise _gone(what)
                yield future.key, result
                future.release()
                watch.progressed()
            elif watch.client.status != "running":
                raise _gone(what)
            else:
                watch.wait(what)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    except (ImportError, AttributeError):
        watch.check()  # a worker that came later may lack what it takes
        raise
    except KilledWorker as error:
        raise DglzarrError(
            f"{what}: expected workers to live, but a task ended several of them. Give each more "
            "memory (cluster.memory_limit), or use fewer (cluster.n_workers)."
        ) from error
