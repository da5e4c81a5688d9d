"""How long work shows on stderr: as bars on a terminal, as plain lines elsewhere.

A place of some work is ``(done, seconds)``: how much was done, and at which time.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES = 10

err = Console(stderr=True, soft_wrap=True)


class _Rate(ProgressColumn):
    """What is done in a second, lately."""

    def render(self, task: Task) -> Text:
        """Return it, nothing before it is known."""
        return Text("" if task.speed is None else _per_second(task.speed))


def rate_and_time_left(begun: tuple[int, float], now: tuple[int, float], total: int) -> str:
    """Return how fast work goes from one place to another and how long the rest takes, in words.

    It is empty where nothing was done in between, or nothing is left.

    Examples
    --------
    >>> rate_and_time_left((1, 10.0), (4, 11.5), 10)
    ', 2/s, about 3 s left'
    """
    (first, since), (done, at) = begun, now
    if done <= first or at <= since or done >= total:
        return ""
    rate = (done - first) / (at - since)
    return f", {_per_second(rate)}, about {(total - done) / rate:.0f} s left"


def _per_second(rate: float) -> str:
    return f"{rate:,.0f}/s" if rate >= 100 else f"{rate:.3g}/s"


def _print(line: str) -> None:
    err.print(line, markup=False, highlight=False)


class Bars:
    """Progress on stderr: bars with rate and time left on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=err,
            transient=True,
            disable=not err.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said: tuple[str, float] = ("", 0.0)
        self._begun: tuple[int, float] = (0, 0.0)

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that so much of some work is done."""
        if not err.is_terminal:
            self._say(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(what))

    def _say(self, what: str, done: int, total: int) -> None:
        shown, at = self._said
        now = time.monotonic()
        if what != shown:
            self._begun = done, now
            _print(f"{what} ({total})")
        elif done < total and now - at >= SECONDS_BETWEEN_LINES:
            left = rate_and_time_left(self._begun, (done, now), total)
            _print(f"{what}: {done} of {total}{left}")
        else:
            return
        self._said = (what, now)
