"""Work that is begun once, in a thread of its own, and asked for when it is done."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from dglzarr.serve.refusals import Busy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")


class Later(Generic[T]):
    """A value that takes long to make; who asks before it is made is told to come again."""

    def __init__(self, make: Callable[[], T], what: str) -> None:
        self._make, self._what = make, what
        self._lock, self._done = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._value: T | None = None
        self._error: Exception | None = None
        self._traceback: TracebackType | None = None

    def begin(self) -> None:
        """Begin, where nobody has; nothing is waited for."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._what, daemon=True)
                self._thread.start()

    @property
    def state(self) -> str:
        """``"made"``, ``"failed"`` or ``"begun"``."""
        if not self._done.is_set():
            return "begun"
        return "made" if self._error is None else "failed"

    def get(self, *, wait: float = 0.2) -> T:
        """Return the value.

        Raises
        ------
        Busy
            When it is not made after some seconds.
        Exception
            What its making raised.
        """
        self.begin()
        if not self._done.wait(wait):
            raise Busy(f"{self._what} is being prepared. Ask again in some seconds.")
        if self._error is not None:
            raise self._error.with_traceback(self._traceback)  # without frames of who asked before
        assert self._value is not None
        return self._value

    def _run(self) -> None:
        try:
            self._value = self._make()
        except Exception as error:  # noqa: BLE001  (told to whoever asks)
            self._error, self._traceback = error, error.__traceback__
        finally:
            self._done.set()
