"""A cache of arrays that never holds more than it may."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from numpy.typing import NDArray


class ArrayCache:
    """Arrays by a key, the last used; together at most ``limit_nbytes``, of which 0 keeps none."""

    def __init__(self, limit_nbytes: int) -> None:
        self.limit_nbytes, self.nbytes = limit_nbytes, 0
        self._known: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array of a key, made where it is not known."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = make()
        made.flags.writeable = False
        with self._lock:
            if key not in self._known and made.nbytes <= self.limit_nbytes:
                self._known[key] = made
                self.nbytes += made.nbytes
            while self.nbytes > self.limit_nbytes:
                self.nbytes -= self._known.popitem(last=False)[1].nbytes
        return made

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._known.clear()
            self.nbytes = 0
