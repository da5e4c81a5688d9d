"""Answers that are asked for again and again, kept up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")


class Kept(Generic[T]):
    """A function whose last answers are kept, the last one in any case.

    ``functools.lru_cache`` bounds their number: by one that fits a study of many segments, a few
    large answers fill the memory.

    Examples
    --------
    >>> upper = Kept(str.upper, nbytes=4, weigh=len)
    >>> [upper(word) for word in ("ab", "cd", "ab", "ef")]
    ['AB', 'CD', 'AB', 'EF']
    >>> list(upper.answers)
    [('ab',), ('ef',)]
    """

    def __init__(
        self, function: Callable[..., T], *, nbytes: int, weigh: Callable[[T], int]
    ) -> None:
        self.function, self.nbytes, self.weigh = function, nbytes, weigh
        self.answers: OrderedDict[tuple[Hashable, ...], T] = OrderedDict()
        self._weight = 0
        self._lock = Lock()

    def __call__(self, *asked: Hashable) -> T:
        """Return the answer; what is raised is not kept."""
        with self._lock:
            if asked in self.answers:
                self.answers.move_to_end(asked)
                return self.answers[asked]
        answer = self.function(*asked)
        with self._lock:
            if asked not in self.answers:
                self.answers[asked] = answer
                self._weight += self.weigh(answer)
            while self._weight > self.nbytes and len(self.answers) > 1:
                _, oldest = self.answers.popitem(last=False)
                self._weight -= self.weigh(oldest)
        return answer
