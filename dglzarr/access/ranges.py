"""A remote file by ranges of bytes: a file to whoever opens it, and stretches of it on disk."""

from __future__ import annotations

import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dglzarr.access.http import AgainError, Client, RefusedError, pieces
from dglzarr.storage.files import put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import requests

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_BLOCK, _FIRST, _MOST_AHEAD = 1 << 18, 1 << 20, 1 << 23
MOST_GAP, MOST_STRETCH = 1 << 20, 1 << 24
"""Bytes that are read unwanted rather than asking once more; bytes of one request."""


def stretches(wanted: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what to ask for so that all wanted pieces, (offset, length), come: (start, stop).

    Examples
    --------
    >>> stretches([(5_000_000, 10), (10, 5), (20, 5)])
    [(10, 25), (5000000, 5000010)]
    """
    found: list[tuple[int, int]] = []
    for offset, length in sorted(wanted):
        end = offset + length
        if found and offset - found[-1][1] <= MOST_GAP and end - found[-1][0] <= MOST_STRETCH:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((offset, end))
    return found


class Ranged(io.RawIOBase):
    """A remote file that stays as it was when it was opened, or is refused.

    Small reads are answered by blocks that stay in memory; reads that follow each other ask for
    more and more.

    Parameters
    ----------
    client, address
        Who asks, and where it is.
    on_bytes
        Called with how many more bytes there are, and how many more to come.

    Attributes
    ----------
    size, etag, modified
        As the server says them.
    n_bytes, n_requests
        What came, and how often was asked.

    Raises
    ------
    RefusedError
        When it cannot be had, the server gives no ranges, or does not say when a file changes.
    """

    def __init__(
        self, client: Client, address: str, *, on_bytes: Callable[[int, int], None] | None = None
    ) -> None:
        super().__init__()
        self._client, self._address = client, address
        self._on_bytes = on_bytes or (lambda _more, _of: None)
        self._counting = threading.Lock()
        self._blocks: dict[int, bytes] = {}
        self._error: RefusedError | None = None
        self._at = self.size = self.n_bytes = self.n_requests = 0
        self._next, self._ahead = 0, 1
        self.etag = self.modified = ""
        self._load(0, _FIRST // _BLOCK)

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Raise what a read was refused for, whatever a library makes of that."""
        try:
            yield
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise

    def save(self, wanted: Sequence[tuple[int, int]], folder: Path, *, at_once: int) -> None:
        """Write stretches to files of a folder, named by their bounds; those there are kept."""
        self._blocks.clear()  # what was read to know what is wanted
        todo = [one for one in wanted if not _place(folder, one).exists()]
        self._on_bytes(0, sum(stop - start for start, stop in todo))
        with ThreadPoolExecutor(at_once) as pool:
            asked = [pool.submit(self._save, one, _place(folder, one)) for one in todo]
            try:
                for done in asked:
                    done.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _save(self, wanted: tuple[int, int], path: Path) -> None:
        put(path, self._get(*wanted))

    def _get(self, start: int, stop: int) -> bytes:
        """Return the bytes from start up to stop, or to the end of the file."""
        try:
            return self._client.patiently(lambda: self._ask(start, stop))
        except RefusedError as error:
            self._error = error
            raise

    def _ask(self, start: int, stop: int) -> bytes:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if condition := self.etag or self.modified:
            headers["If-Range"] = condition
        with self._client.open(self._address, headers=headers) as response:
            expected = self._told(response, start, stop)
            found = b"".join(
                pieces(response, self._client.options.time_out, self._client.check_stopped)
            )
        with self._counting:
            self.n_requests += 1
            self.n_bytes += len(found)
            self._on_bytes(len(found), 0)
        if len(found) != expected:
            raise AgainError(f"expected {expected} bytes, got {len(found)}")
        return found

    def _told(self, response: requests.Response, start: int, stop: int) -> int:
        """Return how many bytes come, of the file as it was; note what it is at first."""
        said, etag = response.headers, response.headers.get("ETag", "")
        if not self.size:
            self._begin(response)
        modified = said.get("Last-Modified", self.modified)
        bounds = _RANGE.fullmatch(said.get("Content-Range", ""))
        is_same = (
            response.status_code == 206
            and bounds is not None
            and int(bounds[1]) == start
            and int(bounds[3]) == self.size
            and (etag == self.etag if self.etag else modified == self.modified)
        )
        if not is_same:
            raise RefusedError(
                f"expected a file as it was a moment ago ({self.etag or self.modified}), got "
                "another: it changed while it was read. Run again"
            )
        return min(stop, self.size) - start

    def _begin(self, response: requests.Response) -> None:
        said = response.headers
        bounds = _RANGE.fullmatch(said.get("Content-Range", ""))
        if response.status_code != 206 or bounds is None:
            raise RefusedError(
                f"expected a server that gives ranges of bytes, got all of the file "
                f"({said.get('Content-Length', 'unknown')} bytes). Remove by_ranges to fetch it "
                "whole, or name another mirror"
            )
        etag = said.get("ETag", "")
        self.etag = "" if etag.startswith("W/") else etag
        self.modified = said.get("Last-Modified", "")
        if not self.etag and not self.modified:
            raise RefusedError(
                "expected a server that says when a file changes (ETag or Last-Modified), got "
                "neither. Remove by_ranges to fetch it whole, or name another mirror"
            )
        self.size = int(bounds[3])

    # ------------------------------------------------------------ as a file

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return the place that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move there."""
        from_where = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}
        self._at = max(0, from_where[whence] + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer; return how many bytes that took."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self.size)
        n_read = max(0, stop - self._at)
        at = self._at
        while at < stop:
            number, inside = divmod(at, _BLOCK)
            if number not in self._blocks:
                self._load(number, -(-stop // _BLOCK) - number)
            part = self._blocks[number][inside : inside + stop - at]
            view[at - self._at : at - self._at + len(part)] = part
            at += len(part)
        self._at = stop if n_read else self._at
        return n_read

    def _load(self, number: int, at_least: int) -> None:
        """Get blocks; twice as many as the last time where they follow those."""
        self._ahead = min(2 * self._ahead, _MOST_AHEAD // _BLOCK) if number == self._next else 1
        n = max(at_least, self._ahead)
        n = next((k for k in range(1, n) if number + k in self._blocks), n)
        found = self._get(number * _BLOCK, (number + n) * _BLOCK)
        for place in range(0, len(found), _BLOCK):
            self._blocks[number + place // _BLOCK] = found[place : place + _BLOCK]
        self._next = number + n


def _place(folder: Path, wanted: tuple[int, int]) -> Path:
    return folder / f"{wanted[0]}-{wanted[1]}"


class Stretches:
    """Pieces of a file of which stretches stand in a folder.

    Parameters
    ----------
    folder
        Where `Ranged.save` wrote them.
    wanted
        As it was told.
    """

    def __init__(self, folder: Path, wanted: Sequence[tuple[int, int]]) -> None:
        self._folder, self._wanted = folder, sorted(wanted)

    def read(self, offset: int, length: int) -> bytes:
        """Return a piece that one of the stretches holds."""
        one = max(bounds for bounds in self._wanted if bounds[0] <= offset)
        with _place(self._folder, one).open("rb") as file:
            file.seek(offset - one[0])
            return file.read(length)
