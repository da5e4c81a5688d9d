"""Ctrl-C, SIGTERM, no memory: a run ends with one line and its status; run again, it goes on."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from dglzarr.errors import NO_MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_NO_MEMORY = f"dglzarr: {NO_MEMORY}\n"
_FAULT = (
    "dglzarr: a thread ended by a fault within Python ({}), as where memory ends. Run again; "
    "finished work is kept.\n"
)
SECONDS_TO_CLEAN_UP = 20.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Somebody asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` where the first SIGINT or SIGTERM finds the main thread; ignore more of them.

    From then on nothing is logged, and the process ends after some seconds whatever it is at. It
    ends at once where another thread ends for want of memory, or by a fault within Python that may
    come of that: who waits for that one would wait for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def stop(number: int, _: FrameType | None) -> NoReturn:
        asked.append(number)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        logging.disable()
        threading.excepthook = lambda _: None  # others may stumble now
        sys.unraisablehook = lambda _: None
        late = threading.Timer(SECONDS_TO_CLEAN_UP, end, (128 + number,))
        late.daemon = True
        late.start()
        raise Stopped(number)

    def lost(args: threading.ExceptHookArgs) -> None:
        if issubclass(args.exc_type, MemoryError | SystemError):
            is_told = issubclass(args.exc_type, MemoryError)
            os.write(2, (_NO_MEMORY if is_told else _FAULT.format(args.exc_value)).encode())
            os._exit(1)
        told(args)

    told, threading.excepthook = threading.excepthook, lost
    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        if asked:  # whatever came of it on the way
            raise Stopped(asked[0]) from None
        threading.excepthook = told
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """End this program at a signal, also before it comes to what `stoppable` guards."""
    for number in _SIGNALS:
        signal.signal(number, lambda number, _: end(128 + number))


def program() -> None:
    """Run the command line; a signal ends it with the one line also while it loads."""
    listen()
    import_module("dglzarr.cli").main()


def end(status: int) -> NoReturn:
    """End this process at once where it was stopped: threads that are left would only stumble."""
    if status - 128 not in _SIGNALS:
        sys.exit(status)
    sys.stdout.flush()
    sys.stderr.write("stopped; run again to go on\n")
    sys.stderr.flush()
    os._exit(status)
