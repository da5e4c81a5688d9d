"""The only maker of Dask graphs: many calls of one function, on whatever scheduler is active."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from dask.callbacks import Callback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Progress = Callable[[str, int, int], None]

logger = logging.getLogger(__name__)


def run_tasks(
    func: Callable[..., Any],
    tasks: Sequence[tuple[Any, ...]],
    *,
    what: str,
    on_progress: Progress | None = None,
    retries: int = 2,
    **arguments: Any,  # noqa: ANN401
) -> list[Any]:
    """Run ``func(*task, **arguments)`` for each task on the active Dask scheduler, in order.

    The one place where a graph is made. With a distributed client, tasks run on its workers and
    are tried again when a worker dies; otherwise Dask's configured local scheduler runs them.
    """
    report = on_progress or _no_progress
    report(what, 0, len(tasks))
    client = _active_client()
    shared = {name: _once(value) for name, value in arguments.items()} if client else arguments
    graph = [dask.delayed(func, pure=False)(*task, **shared) for task in tasks]
    if client is None:
        with _Count(lambda done: report(what, done, len(tasks))):
            return list(dask.compute(*graph))
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "4 GiB"}):
        futures = client.compute(graph, retries=retries, sync=False)
    for done, _ in enumerate(_as_completed(futures), start=1):
        report(what, done, len(tasks))
    return list(client.gather(futures))


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
    from distributed import get_client  # noqa: PLC0415  (takes a second to import)

    try:
        return get_client()
    except ValueError:
        return None


def _as_completed(futures: Iterable[Any]) -> Iterable[Any]:
    from distributed import as_completed  # noqa: PLC0415

    return as_completed(futures)  # type: ignore[no-any-return]
