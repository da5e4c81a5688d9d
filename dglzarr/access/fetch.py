"""Fetching for one study: a client, a cache, and files as the lock records them."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dglzarr.access.cache import Cache
from dglzarr.access.content import Checked, UnfitError
from dglzarr.access.download import Download, Fetched
from dglzarr.access.http import PIECE_NBYTES, AbsentError, Client, RefusedError
from dglzarr.access.lock import Entry
from dglzarr.access.ranges import Ranged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dglzarr.access.options import FetchOptions
    from dglzarr.storage.options import Progress


class ChangedUpstreamError(RefusedError):
    """A server has another file than the one that the lock records."""


@dataclass
class Tally:
    """How many kilobytes have come of how many, over all files, for who watches."""

    on_progress: Progress | None = None
    done: int = 0
    total: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, more: int, to_come: int) -> None:
        """Count bytes that came, and bytes that are to come."""
        with self._lock:
            self.done += more
            self.total += to_come
            total = max(self.total, self.done + 1)  # it is done when all sources are
            if self.on_progress is not None:
                self.on_progress("fetching, kB", self.done // 1000, -(-total // 1000))


class Fetcher:
    """What fetches the files of one study.

    Parameters
    ----------
    options
        Where from and where to, and how patiently.
    locked
        Files that the lock records, by address: what differs from these is not taken.
    parts
        Files that were made of a part of what stands at an address, which must be as it was then.
    on_progress
        Called with (what, kilobytes done, kilobytes in all).
    """

    def __init__(
        self,
        options: FetchOptions,
        *,
        locked: Mapping[str, Entry] | None = None,
        parts: Mapping[str, Entry] | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.options = options
        self.client = Client(options)
        self.cache = Cache(options.cache_folder())
        self.locked = dict(locked or {})
        self.parts = dict(parts or {})
        self._tally = Tally(on_progress)
        self._got: dict[str, Fetched] = {}
        self._pages: dict[str, str] = {}
        self._turns: dict[str, threading.Lock] = {}

    def text(self, address: str) -> str:
        """Return a page.

        Raises
        ------
        RefusedError
            When it cannot be had.
        """
        return self.client.text(address)

    def shared_text(self, address: str) -> str:
        """Return a page that several sources want, asked for once; "" where there is none.

        Raises
        ------
        RefusedError
            When it cannot be had.
        """
        with self._turns.setdefault(address, threading.Lock()):
            if address not in self._pages:
                try:
                    self._pages[address] = self.text(address)
                except AbsentError:
                    self._pages[address] = ""
            return self._pages[address]

    def get(self, address: str, name: str, *, is_matrix: bool = False, is_gzip: bool) -> Fetched:
        """Return a file in the cache; one that the lock records as it was, or not at all.

        Raises
        ------
        RefusedError
            When it cannot be had or is not what it should be; `ChangedUpstreamError` when it is
            another than the lock records.
        OSError
            When the disk refuses.
        """
        with self._turns.setdefault(address, threading.Lock()):
            if address in self._got and self._got[address].path.is_file():
                return self._got[address]
            if kept := self._recorded(address, is_matrix=is_matrix, is_gzip=is_gzip):
                self._got[address] = kept
                return kept
            download = Download(
                self.client,
                self.cache,
                address,
                name=name,
                is_matrix=is_matrix,
                is_gzip=is_gzip,
                on_bytes=self._tally.add,
            )
            found = download.run()
            self._check(name, address, found)
            self._got[address] = found
            return found

    def ranged(self, address: str) -> Ranged:
        """Return a remote file to read by ranges; one that the lock records as it was, or none.

        Raises
        ------
        RefusedError
            As `get`; when the server gives no ranges.
        """
        found = Ranged(self.client, address, on_bytes=self._tally.add)
        known = self.locked.get(address) or self.parts.get(address)
        before, now = (known and known.etag, known and known.modified), (found.etag, found.modified)
        if known and any(a and b and a != b for a, b in zip(before, now, strict=True)):
            raise ChangedUpstreamError(
                f"expected a file as of {known.fetched} ({known.etag or known.modified}), got "
                f"another ({found.size} bytes, of {found.modified or 'unknown time'}). Take it "
                "with 'dglzarr fetch --update'"
            )
        return found

    def _recorded(self, address: str, *, is_matrix: bool, is_gzip: bool) -> Fetched | None:
        """Return a file that the lock records where it is in the cache, as it was."""
        known = self.locked.get(address)
        path = known and self.cache.find(known.sha256, known.name, known.size)
        if not known or not path:
            return None
        checked = Checked(is_matrix=is_matrix, is_gzip=is_gzip)
        with closing(checked), suppress(UnfitError), path.open("rb") as file:
            while piece := file.read(PIECE_NBYTES):
                checked.feed(piece)
            if checked.finish() == known.sha256:
                head = checked.head()
                return Fetched(path, known.sha256, known.size, known.etag, known.modified, head)
        return None

    def _check(self, name: str, address: str, found: Fetched) -> None:
        """Refuse another file than the lock records."""
        known = self.locked.get(address)
        if known is not None and known.sha256 != found.sha256:
            raise ChangedUpstreamError(
                f"expected {name} as of {known.fetched} ({known.size} bytes, SHA-256 "
                f"{known.sha256[:8]}), got another ({found.size} bytes, {found.sha256[:8]}"
                f"{f', of {found.modified}' if found.modified else ''}). Take it with 'dglzarr "
                "fetch --update', or bring back the old file"
            )


def entry_of(source: str, kind: str, address: str, found: Fetched, **more: str) -> Entry:
    """Return what the lock records of a file that was fetched today."""
    return Entry(
        source,
        kind,
        address,
        found.path.name,
        found.size,
        found.sha256,
        found.etag,
        found.modified,
        time.strftime("%Y-%m-%d", time.gmtime()),
        **more,
    )
