"""Fetched files are read while others are on their way: what is waited for is the servers."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dglzarr.errors import DglzarrError
from dglzarr.stages.ingest import ingest
from dglzarr.storage.study import create_study, locked

if TYPE_CHECKING:
    from dglzarr.stages.ingest import SourceFile

logger = logging.getLogger(__name__)

MOST_NBYTES = 1 << 25
"""Files of more are left to the workers: who stops a run waits for the one that is being read."""


class Landing:
    """Writes raw stores of files as they come, one after the other, in a thread of this process.

    What it has not begun in the end is left to `dglzarr.stages.ingest.ingest_all`, and so is what
    cannot be read, which is told there. It holds the study's lock from the first file on.

    Parameters
    ----------
    root
        The study.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._held = ExitStack()
        self._thread = ThreadPoolExecutor(1)
        self._stopped = threading.Event()
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.shutdown(cancel_futures=True)
        self._held.close()

    def read(self, source: SourceFile) -> None:
        """Let a file be read as soon as those before it are; a large one is not."""
        if Path(source.path).stat().st_size > MOST_NBYTES or self._stopped.is_set():
            return
        try:
            self._open()
        except DglzarrError:  # whoever reads the others will tell
            self._stopped.set()
            return
        self._thread.submit(self._read, source)

    def _open(self) -> None:
        if not self._is_open:
            self._held.enter_context(locked(self._root, is_new=True))
            create_study(self._root)
            self._is_open = True

    def _read(self, source: SourceFile) -> None:
        if self._stopped.is_set():
            return
        try:
            ingest(source.path, source.raw, options=source.options)
        except (DglzarrError, OSError) as error:
            logger.debug("%s: left to the workers: %s", source.name, error)
