"""The studies that are served, each as it stands: before a change or after it, never between."""

from __future__ import annotations

import logging
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dglzarr.errors import DglzarrError
from dglzarr.serve.cache import ArrayCache
from dglzarr.serve.later import Later
from dglzarr.serve.refusals import Busy, NotFound
from dglzarr.serve.stamps import stamp_of
from dglzarr.storage.buckets import is_bucket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.serve.answers import Answers
    from dglzarr.serve.genes import Aliases

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at whether a study has changed."""
LOAD_SECONDS = 1.0
"""That a request waits for a study that is being opened; longer, and it keeps others waiting."""


class Served:
    """One study: opened in a thread of its own, and again when its stores have changed.

    Until the new state is in memory the old one answers.
    """

    def __init__(
        self, name: str, root: str, cache: ArrayCache, aliases: Aliases | None = None
    ) -> None:
        self.name, self.root, self._cache, self._aliases = name, root, cache, aliases
        self._lock = threading.Lock()
        self._now, self._next = self._later(), self._later()
        self._is_opening = False
        self._looked = 0.0
        self._told = ""

    def begin(self) -> None:
        """Begin to open the study."""
        self._now.begin()

    def answers(self) -> Answers:
        """Return what answers for the study at this moment.

        Raises
        ------
        Busy
            When it is not open yet.
        StoreError, SchemaError
            When it cannot be opened.
        """
        self._look()
        return self._now.get(wait=LOAD_SECONDS)

    def _look(self) -> None:
        """Open the study again where it has changed, take the new state where it is there."""
        with self._lock:
            if self._is_opening and self._next.state != "begun":
                self._is_opening = False
                if self._next.state == "made" or self._now.state == "failed":
                    self._now = self._next
            if self._is_opening or time.monotonic() - self._looked < LOOK_SECONDS:
                return
            self._looked = time.monotonic()
            if self._now.state == "begun":
                return
            if self._now.state == "failed" or self._now.get().stamp != stamp_of(self.root):
                self._next, self._is_opening = self._later(), True
                self._next.begin()

    def _later(self) -> Later[Answers]:
        return Later(self._open, f"The study {self.name}")

    def _open(self) -> Answers:
        from dglzarr.serve.answers import Answers  # noqa: PLC0415  (it takes a second)

        try:
            answers = Answers(self.name, self.root, self._cache, self._aliases)
        except Busy:
            raise
        except (DglzarrError, OSError) as error:
            if str(error) != self._told:  # it is tried again each second
                logger.warning("%s", error)
            self._told = str(error)
            raise
        answers.begin()
        return answers


class Shelf:
    """All studies that are served, by name.

    Parameters
    ----------
    roots
        Their folders.
    cache_nbytes
        Of the values of genes that are kept in memory, of all studies together.
    aliases
        Other names of genes, as `dglzarr.serve.genes.GeneIndex` has them.
    """

    def __init__(
        self, roots: Sequence[str], *, cache_nbytes: int, aliases: Aliases | None = None
    ) -> None:
        cache = ArrayCache(cache_nbytes)
        named = zip(name_studies(roots), roots, strict=True)
        self._studies = {name: Served(name, root, cache, aliases) for name, root in named}

    def begin(self) -> None:
        """Begin to open all studies."""
        for served in self._studies.values():
            served.begin()

    @property
    def names(self) -> list[str]:
        """The names of the studies, in the order that they were given in."""
        return list(self._studies)

    def __getitem__(self, name: str) -> Served:
        if name not in self._studies:
            raise NotFound(f"There is no study {name!r} here.", tuple(self.names)[:5])
        return self._studies[name]


def name_studies(roots: Sequence[str]) -> list[str]:
    """Return a name for each study: its folder's, with that above it where two share it.

    Examples
    --------
    >>> name_studies(["a/study", "b/study", "c/Skin & more"])
    ['a-study', 'b-study', 'Skin-more']
    """
    paths = [Path(root if is_bucket(root) else Path(root).resolve()) for root in roots]
    last = [_plain(path.name) for path in paths]
    names = [
        name if last.count(name) == 1 else f"{_plain(path.parent.name)}-{name}"
        for name, path in zip(last, paths, strict=True)
    ]
    taken: list[str] = []
    for name in names:
        free = (n for n in (name, *(f"{name}-{i}" for i in range(2, 9999))) if n not in taken)
        taken.append(next(free))
    return taken


def _plain(name: str) -> str:
    """Return a name as it can stand in an address."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "study"
