"""Whether fetched bytes are what they should be, told while they come.

A digest of all; for gzip its checksum to the end, within bounds of what it may unpack to; for a
series matrix its head and its end. Nothing is written.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from dglzarr.access.http import RefusedError

MATRIX_BEGIN, MATRIX_END = b"!series_matrix_table_begin", b"!series_matrix_table_end"
GZIP = b"\x1f\x8b"
MOST_RATIO, FREE_NBYTES, MOST_NBYTES = 200, 1 << 26, 1 << 36
"""Text of expression packs 3 to 20 times; what unpacks to more, beyond 64 MiB, is no such text."""

_MOST_HEAD, _TAIL, _OUT = 1 << 26, 4096, 1 << 22
_AHEAD = 4
"""Pieces that may wait to be unpacked."""

_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<[!?a-z]|\{\s*\")", re.IGNORECASE)
"""How HTML, XML and JSON begin, in which servers say what is wrong; no table does."""

_IS_PAGE = "expected data, got a web page or a message. Look at the address in a browser"


class UnfitError(RefusedError):
    """What came is not what it should be; it is not kept."""


class ContentError(UnfitError):
    """What came is not what it should be, but another try may bring it."""


@dataclass(frozen=True)
class Head:
    """What a series matrix says before its table.

    Attributes
    ----------
    fields
        Values by name, as in ``Series_relation``; each once, in order.
    is_empty
        Whether the table has no row.
    """

    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    is_empty: bool = False

    def values(self, name: str) -> tuple[str, ...]:
        """Return the different values of a field, none where it is absent."""
        return self.fields.get(name, ())


class Checked:
    """Takes a file's bytes in order; `finish` tells whether it is whole.

    The digest is made by the caller's thread, while another unpacks the pieces before.

    Parameters
    ----------
    is_matrix
        Whether it must be a series matrix.
    is_gzip
        Whether it must be gzip; otherwise it may be.
    """

    def __init__(self, *, is_matrix: bool = False, is_gzip: bool = False) -> None:
        self.n_bytes = 0
        self._digest = hashlib.sha256()
        self._text = _Text(is_matrix)
        self._must_be_gzip = is_gzip
        self._gzip: _Gzip | None = None
        self._thread = ThreadPoolExecutor(1)
        self._before: deque[Future[None]] = deque()

    def close(self) -> None:
        """End its thread."""
        self._thread.shutdown()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises
        ------
        RefusedError
            As soon as they cannot be what is expected.
        """
        if not piece:
            return
        if not self.n_bytes:
            self._begin(piece)
        self.n_bytes += len(piece)
        if len(self._before) >= _AHEAD:
            self._before.popleft().result()
        take = self._text.take if self._gzip is None else self._gzip.take
        self._before.append(self._thread.submit(take, piece))
        self._digest.update(piece)

    def _begin(self, piece: bytes) -> None:
        if _PAGE.match(piece):
            raise ContentError(_IS_PAGE)
        if piece[:2] == GZIP:
            self._gzip = _Gzip(self._text)
        elif self._must_be_gzip:
            raise ContentError(f"expected gzip, got a file that begins {piece[:8]!r}")

    def finish(self) -> str:
        """Return the SHA-256 of the whole file.

        Raises
        ------
        ContentError
            When it is not whole.
        """
        while self._before:
            self._before.popleft().result()
        if not self.n_bytes:
            raise ContentError("expected data, got an empty file")
        if self._gzip is not None:
            self._gzip.finish()
        self._text.finish()
        return self._digest.hexdigest()

    def head(self) -> Head:
        """Return what a series matrix says before its table."""
        return self._text.head()


class _Gzip:
    """Unpacks gzip of one or several members, in bounds."""

    def __init__(self, text: _Text) -> None:
        self._text = text
        self._member = zlib.decompressobj(31)
        self._n_in = self._n_out = 0

    def take(self, piece: bytes) -> None:
        self._n_in += len(piece)
        data, n_more = piece, 0
        while data or n_more == _OUT:  # what was unpacked before may be held back
            if self._member.eof:  # another member follows, or padding
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._member = zlib.decompressobj(31)
            try:
                out = self._member.decompress(data, _OUT)
            except zlib.error as error:
                raise ContentError(f"expected whole gzip, got damage ({error})") from error
            n_more = len(out)
            self._n_out += n_more
            self._bound()
            self._text.take(out)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def _bound(self) -> None:
        is_bomb = self._n_out > FREE_NBYTES and self._n_out > MOST_RATIO * self._n_in
        if is_bomb or self._n_out > MOST_NBYTES:
            raise UnfitError(
                f"expected text that packs up to {MOST_RATIO} times, got {self._n_out >> 20} MiB "
                f"and more out of {self._n_in >> 10} KiB. It was not kept; tell its authors"
            )

    def finish(self) -> None:
        if not self._member.eof:
            raise ContentError("expected whole gzip, got one that is cut off")


class _Text:
    """What is known of unpacked text: the head of a series matrix, whether rows follow, its end."""

    def __init__(self, is_matrix: bool) -> None:
        self._is_matrix = is_matrix
        self._head = bytearray()
        self._tail = b""
        self._is_begun = False
        self._n_lines = 0
        self._is_looked_at = False

    def take(self, out: bytes) -> None:
        if not self._is_looked_at and out:
            self._is_looked_at = True
            if _PAGE.match(out):
                raise ContentError(_IS_PAGE)
        if not self._is_matrix:
            return
        self._tail = (self._tail + out[-_TAIL:])[-_TAIL:]
        if self._is_begun:
            self._n_lines += out.count(b"\n") if self._n_lines < 8 else 0
            return
        before = max(0, len(self._head) - len(MATRIX_BEGIN))
        self._head += out
        place = self._head.find(MATRIX_BEGIN, before)
        if place >= 0:
            self._is_begun = True
            self._n_lines = self._head.count(b"\n", place + len(MATRIX_BEGIN))
            del self._head[place:]
        elif len(self._head) > _MOST_HEAD:
            raise ContentError(
                f"expected {MATRIX_BEGIN.decode()!r}, got {_MOST_HEAD >> 20} MiB without it"
            )

    def finish(self) -> None:
        if self._is_matrix and not self._is_begun:
            raise ContentError(f"expected a series matrix, got no {MATRIX_BEGIN.decode()!r}")
        if self._is_matrix and not self._tail.rstrip().lower().endswith(MATRIX_END):
            raise ContentError(f"expected {MATRIX_END.decode()!r} at the end, got none")

    def head(self) -> Head:
        fields: dict[str, dict[str, None]] = {}
        for line in self._head.decode("utf-8", errors="replace").split("\n"):
            name, tab, rest = line.partition("\t")
            if line.startswith("!") and tab:
                cells = (cell.strip().strip('"') for cell in rest.split("\t"))
                fields.setdefault(name[1:], {}).update(dict.fromkeys(cells))
        found = {name: tuple(values) for name, values in fields.items()}
        n_ends = self._n_lines - self._tail.endswith(b"\n")  # of marker, header, and rows
        return Head(found, is_empty=n_ends <= 2)
