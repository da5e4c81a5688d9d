"""Streams of text: bytes of a plain or gzip file in, lines and blocks of lines out.

Owns decompression, line ends, encodings and the messages that name file and line. Knows no
file format and never holds a file's text whole.
"""

import csv
import gzip
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from dglzarr.errors import SourceError

BLOCK_NBYTES = 1 << 20
"""Text read at a time; parsing holds about ten times this."""

MAX_LINE_NBYTES = 64 << 20
"""A longer line is refused: no text matrix has one (1.3 million columns take 10 MB)."""

MAX_EXPANSION = 200
"""Most bytes of text one byte of gzip may hold; expression tables stay under 20."""

MAX_CELL_LINES = 100
"""A quoted cell of more lines is taken for one whose quote never closes."""

MIN_EXPANDED_NBYTES = 64 << 20
"""Text up to this size is read whatever its expansion."""

GZIP_MAGIC = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"(\xb5/\xfd": "a zstd file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"\x89HDF": "HDF5 inside gzip",
}


def decode(raw: bytes) -> str:
    """Return text from UTF-8 or, where that fails, from latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def unquote(cell: str) -> str:
    """Return a cell without surrounding blanks and one pair of quotes."""
    cell = cell.strip()
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"').strip()
    return cell


def split_cells(line: str, separator: str) -> list[str]:
    """Return the unquoted cells of one line; a quoted separator does not split."""
    cells = line.split(separator)
    if '"' in line:
        try:
            cells = next(csv.reader([line.replace("\r", " ")], delimiter=separator))
        except csv.Error:
            return [cell.strip() for cell in cells]
    return [cell.strip() for cell in cells]


def header_cells(line: str, separator: str) -> list[str]:
    """Return the cells of a header line without the empty ones that pad its end."""
    cells = split_cells(line, separator)
    while cells and not cells[-1]:
        cells.pop()
    return cells


def find_separator(line: str) -> str:
    """Return what separates the cells of a header: tabs, else commas, else semicolons.

    Examples
    --------
    >>> find_separator("id,note"), find_separator("id;note")
    (',', ';')
    """
    bare = "".join(line.split('"')[::2])
    return next((one for one in "\t,;" if one in bare), ",")


def read_rows(
    name: str, lines: Iterable[tuple[int, str]], *, separator: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) of every row that is not blank.

    A quoted cell may hold separators and line ends. A quote that stands for itself, as in
    ``5" arm``, is part of its cell where its line has as many cells as the first row.

    Parameters
    ----------
    name
        File that errors name.
    lines
        Number and text of each line.
    separator
        Between the cells; found in the first row where it is not given.

    Raises
    ------
    SourceError
        If a quote does not close and its line is no row without it.
    """
    rest = iter(lines)
    ahead: deque[tuple[int, str]] = deque()
    n_cells = 0
    while ahead or (ahead := deque(islice(rest, 1))):
        line, text = ahead[0]
        if not text.strip():
            ahead.popleft()
            continue
        separator = separator or find_separator(text)
        n_lines, cells = 1, text.split(separator)
        if '"' in text:
            ahead.extend(islice(rest, max(0, 2 - len(ahead))))
            is_plain = _are_rows(ahead, separator, n_cells)
            is_open = text.count('"') % 2 == 1
            quoted = None if is_plain and is_open else _quoted_row(ahead, rest, separator, n_cells)
            if quoted is None and not is_plain:
                raise SourceError(
                    f"{name}, line {line}: expected quotes that close, got {text[:60]!r}. "
                    "Correct the quotes."
                )
            n_lines, cells = quoted or (1, [unquote(cell) for cell in cells])
        for _ in range(n_lines):
            ahead.popleft()
        n_cells = n_cells or len(cells)
        yield line, [cell.strip() for cell in cells]


def refuse_surplus(name: str, rows: Sequence[tuple[int, list[str]]], separator: str) -> None:
    """Refuse a row with empty cells behind the header's where not every row is padded so.

    A comma that is not quoted makes a cell more, which an empty last cell would hide. Rows
    separated by tabs may end with any number of them.

    Raises
    ------
    SourceError
        Naming the line.
    """
    n_header = len(rows[0][1]) if rows else 0
    widths = {len(row) for _, row in rows[1:]}
    if separator == "\t" or len(widths) < 2 or max(widths) <= n_header:
        return
    for line, row in rows[1:]:
        if len(row) > n_header and not any(row[n_header:]):
            raise SourceError(
                f"{name}, line {line}: expected {n_header} cells as in the header, got {len(row)}. "
                f"Quote cells that hold {separator!r}, or pad every row alike."
            )


def _are_rows(ahead: deque[tuple[int, str]], separator: str, n_cells: int) -> bool:
    """Return whether a line, and the next one if any, are rows with quotes that mean nothing."""
    lines = [text for _, text in islice(ahead, 2)]
    return all(not text.strip() or len(text.split(separator)) == n_cells for text in lines)


def _quoted_row(
    ahead: deque[tuple[int, str]], rest: Iterator[tuple[int, str]], separator: str, n_cells: int
) -> tuple[int, list[str]] | None:
    """Return how many of the lines ahead are the next row, and its cells; None if no quote closes.

    A row of several lines has as many cells as the first one.
    """
    for n_lines in range(1, MAX_CELL_LINES + 1):
        ahead.extend(islice(rest, max(0, n_lines - len(ahead))))
        lines = [text for _, text in islice(ahead, n_lines)]
        if len(lines) < n_lines:
            return None
        if n_lines > 1 and '"' not in lines[-1]:
            continue
        try:
            (cells,) = csv.reader(
                ["\n".join(lines)], delimiter=separator, strict=True, skipinitialspace=True
            )
        except csv.Error as error:
            if "end of data" in str(error):
                continue
            return None
        return (n_lines, cells) if n_lines == 1 or not n_cells or len(cells) == n_cells else None
    return None


class TextStream:
    """Lines and blocks of a plain or gzip text file, counting lines.

    Lines end with LF or CRLF; a file without any LF is read with CR as its line end. A CR
    elsewhere is part of its cell.

    Raises
    ------
    SourceError
        If the file is empty, no text, damaged, or expands beyond the caps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.line = 1
        self._at = 0
        self._n_read = 0
        self._buffer = b""
        self._is_cr_only = False
        try:
            self._file = path.open("rb")
            head = self._file.peek(2)[:2]
            self._limit = path.stat().st_size * MAX_EXPANSION
        except OSError as error:
            raise SourceError(f"{path}: expected a readable file, got {error.strerror}.") from error
        self.is_gzip = head == GZIP_MAGIC
        self._text = (
            cast("BinaryIO", gzip.GzipFile(fileobj=self._file)) if self.is_gzip else self._file
        )
        try:
            self._start()
        except SourceError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._text.close()
        self._file.close()

    def error(self, message: str, *, line: int | None = None) -> SourceError:
        """Return the error that names this file and a line (the next one unless given)."""
        return SourceError(f"{self.name}, line {self.line if line is None else line}: {message}")

    def peek(self) -> str | None:
        """Return the next line and leave it unread; None at the end of the file."""
        end = self._line_end()
        if end == self._at == len(self._buffer):
            return None
        return decode(self._buffer[self._at : end].rstrip(b"\r"))

    def readline(self) -> str | None:
        """Return the next line without its end, or None at the end of the file."""
        text = self.peek()
        if text is not None:
            self._at = min(self._line_end() + 1, len(self._buffer))
            self.line += 1
        return text

    def expect_lines(self, *, shortest: int) -> int:
        """Return about how many lines are left, as long as those read ahead; 0 where none tells.

        No line is taken to be under ``shortest`` bytes.
        """
        n_ahead = len(self._buffer) - self._at
        n_lines = self._buffer.count(b"\n", self._at)
        if self.is_gzip or not n_lines:
            return 0
        n_left = max(0, os.fstat(self._file.fileno()).st_size - self._n_read + n_ahead)
        return int(n_left / max(n_ahead / n_lines, shortest)) + 1

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield (number, text) of the lines that are left."""
        while (text := self.readline()) is not None:
            yield self.line - 1, text

    def skip_blank(self) -> None:
        """Read on to the next line that is not blank."""
        while (text := self.peek()) is not None and not text.strip():
            self.readline()

    def blocks(self, stop: tuple[bytes, ...] = ()) -> Iterator[tuple[int, bytes]]:
        """Yield (number of its first line, block of whole lines) up to a stop line.

        A stop line starts with one of the bytes given and stays unread.
        """
        while True:
            end = self._buffer.rfind(b"\n", self._at) + 1
            if end <= self._at and self._fill():
                continue
            block = self._buffer[self._at : end] if end > self._at else self._last_line()
            cut = _find_line(block, stop)
            block = block if cut < 0 else block[:cut]
            if block:
                yield self.line, block
            self._at = min(self._at + len(block), len(self._buffer))
            self.line += block.count(b"\n")
            if not block or cut >= 0:
                return

    def drain(self) -> None:
        """Read to the end of the file, so that a gzip checksum is verified."""
        while self._fill():
            self._at = len(self._buffer)

    def _start(self) -> None:
        """Read the first block; refuse what is no text; find the line end."""
        self._fill()
        head = self._buffer
        if not head.strip():
            raise SourceError(f"{self.name}: expected a table, got an empty file.")
        for magic, kind in _FOREIGN_MAGIC.items():
            if head.startswith(magic):
                raise SourceError(
                    f"{self.name}: expected plain or gzip text, got {kind}. Unpack or convert it."
                )
        if b"\0" in head[:4096]:
            raise SourceError(f"{self.name}: expected plain or gzip text, got binary data.")
        while head.startswith(BYTE_ORDER_MARK, self._at):  # a tool may add one to another's
            self._at += len(BYTE_ORDER_MARK)
        self._is_cr_only = b"\n" not in head and b"\r" in head
        if self._is_cr_only:
            self._buffer = head.replace(b"\r", b"\n")

    def _fill(self) -> bool:
        """Append one block to the unread bytes; False at the end of the file."""
        try:
            chunk = self._text.read(BLOCK_NBYTES)
        except (EOFError, OSError, zlib.error) as error:
            got = "a truncated or damaged one" if self.is_gzip else "a read error"
            raise self.error(
                f"expected a complete {'gzip ' * self.is_gzip}file, got {got} ({error}). "
                "Download it again."
            ) from error
        self._n_read += len(chunk)
        if self.is_gzip and self._n_read > max(MIN_EXPANDED_NBYTES, self._limit):
            raise self.error(
                f"expected at most {MAX_EXPANSION} bytes of text per byte of gzip, got more. "
                "Unpack the file if it is to be trusted."
            )
        if self._is_cr_only:
            chunk = chunk.replace(b"\r", b"\n")
        self._buffer = self._buffer[self._at :] + chunk
        self._at = 0
        if len(self._buffer) > MAX_LINE_NBYTES + BLOCK_NBYTES:
            raise self.error(
                f"expected a line of at most {MAX_LINE_NBYTES} bytes, got a longer one."
            )
        return bool(chunk)

    def _last_line(self) -> bytes:
        """Return what follows the last line end, ended."""
        rest = self._buffer[self._at :]
        return rest + b"\n" if rest else b""

    def _line_end(self) -> int:
        """Return where the next line ends in the buffer, filled as far as that."""
        while (end := self._buffer.find(b"\n", self._at)) < 0:
            if not self._fill():
                return len(self._buffer)
        return end


def _find_line(block: bytes, starts: tuple[bytes, ...]) -> int:
    """Return where the first line with one of these starts begins, or -1."""
    if block.startswith(starts) and starts:
        return 0
    likely = [start for start in starts if start[:1] in block]  # as one byte: far faster
    found = [at + 1 for start in likely if (at := block.find(b"\n" + start)) >= 0]
    return min(found, default=-1)
