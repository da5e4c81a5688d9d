"""Text matrices: blocks of lines in, one float32 array out.

Owns the parsing of ids and numbers and the messages for wrong cells. Reads no file by itself:
it is given a `TextStream` that stands on the first data row.
"""

import io
import re
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dglzarr.errors import SourceError, StoreError
from dglzarr.kernels.decimals import parse_decimals
from dglzarr.kernels.slices import iter_slices
from dglzarr.sources.base import LeftOut, first_repeat
from dglzarr.sources.columns import reserved_row
from dglzarr.sources.text import TextStream, decode, split_cells, unquote

WIDE_COLUMNS = 128
"""From this many value columns on, cells are parsed as one long column."""

PARSERS = 2
"""Blocks of text parsed at once, each by a thread."""

_CELLS_AT_ONCE = 2**15
"""Cells parsed in one go: what they need stays in the processor's cache."""

SHARD_SAMPLES = 2048
"""A matrix of more samples goes to a scratch file where a folder is given."""

NA_TOKENS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
"""Cells that mean a missing value."""

_BOOLEANS = (b"True", b"TRUE", b"true", b"False", b"FALSE", b"false")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_COMMA = re.compile(r"[+-]?\d+,\d+")
_FLOAT32_MAX = float(np.finfo(np.float32).max)

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Which columns of a text table hold what.

    `text` names the columns kept as text, the id first; `values` those kept as numbers; the
    others are counted and left out. `n_cells` bounds the cells of a row with those that pad its
    end, None where any number may.
    """

    columns: list[str]
    separator: str
    text: tuple[int, ...]
    values: Sequence[int]
    n_cells: tuple[int, int] | None = None

    @property
    def is_wide(self) -> bool:
        """Whether the cells of a line after its text form one run worth parsing at once."""
        n = len(self.values)
        return n >= WIDE_COLUMNS and self.values[0] == len(self.columns) - n


@dataclass(frozen=True)
class TextMatrix:
    """A parsed table: text columns (id first), values `(sample, gene)`, rows that are no genes."""

    text: list[list[str]]
    values: Values
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class _Block:
    """Parsed rows: text columns, values `(row, column)`, the line of each row."""

    text: list[list[str]]
    values: Values
    lines: Sequence[int]


class _Rows:
    """Rows appended to one array, or to an unnamed scratch file."""

    def __init__(self, n_columns: int, scratch: Path | None, *, n_expected: int = 0) -> None:
        self.n_rows = 0
        self._n_columns = n_columns
        self._file: BinaryIO | None = None
        if scratch is not None and n_columns > SHARD_SAMPLES:
            try:
                file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115, closed by close
            except OSError as error:
                raise StoreError(
                    f"{scratch}: expected a folder for a scratch matrix, got {error.strerror}."
                ) from error
            self._file = cast("BinaryIO", file)
            n_expected = 0
        # an eighth more than expected: memory that no row reaches is none, and growing may copy
        self._values = np.empty((n_expected * 9 // 8, n_columns), np.float32)

    def append(self, rows: Values) -> None:
        """Append rows `(row, column)`."""
        stop = self.n_rows + len(rows)
        if self._file is not None:
            self._write(self._file, rows)
        else:
            if stop > len(self._values):
                self._resize(max(stop, len(self._values) * 9 // 8))
            self._values[self.n_rows : stop] = rows
        self.n_rows = stop

    def finish(self) -> Values:
        """Return the rows as `(column, row)`, a view."""
        if self._file is None or not self.n_rows:
            self._resize(self.n_rows)
            return self._values.T
        self._file.flush()
        shape = (self.n_rows, self._n_columns)
        return np.memmap(self._file, np.float32, mode="r", shape=shape).T

    def close(self) -> None:
        """Close the scratch file; values mapped from it stay."""
        if self._file is not None:
            self._file.close()

    def _resize(self, n_rows: int) -> None:
        """Grow or cut the array, in place where the system can."""
        self._values.resize((n_rows, self._n_columns), refcheck=False)

    def _write(self, file: BinaryIO, rows: Values) -> None:
        """Write rows to the scratch file."""
        try:
            file.write(np.ascontiguousarray(rows).tobytes())
            file.flush()
        except OSError as error:
            raise StoreError(
                f"scratch matrix: expected room for more rows, got {error.strerror}. "
                "Free space or name another folder."
            ) from error


def read_matrix(
    stream: TextStream,
    layout: Layout,
    *,
    stop: tuple[bytes, ...] = (),
    scratch: Path | None = None,
) -> TextMatrix:
    """Return the table from the next line up to a stop line.

    Parameters
    ----------
    stream
        Text that stands on the first data row.
    layout
        The columns of the table.
    stop
        A line that starts with one of these ends the table and stays unread.
    scratch
        Folder for the values of more than one shard of samples; the file vanishes with them.

    Returns
    -------
    TextMatrix
        Values `(sample, gene)` are a view of a gene-major array: 4 bytes a cell. Counters of
        reads are left out.

    Raises
    ------
    SourceError
        If a row has the wrong number of cells, a cell is no finite number, an id is empty or
        occurs twice.
    StoreError
        If the scratch folder has no room.
    """
    text: list[list[str]] = [[] for _ in layout.text]
    seen: set[str] = set()
    counters: list[tuple[str, str]] = []
    shortest = len(layout.columns)  # a separator a column
    n_expected = stream.expect_lines(shortest=shortest) if layout.is_wide else 0
    with closing(_Rows(len(layout.values), scratch, n_expected=n_expected)) as rows:
        for block in _iter_parsed(stream, layout, stop):
            _check_ids(stream, block, seen)
            if found := [(why, i) for i in block.text[0] if (why := reserved_row(i))]:
                counters += found
                block = _without_counters(block)
            rows.append(block.values)
            for column, cells in zip(text, block.text, strict=True):
                column.extend(cells)
        return TextMatrix(text, rows.finish(), LeftOut.group("rows", counters))


def _without_counters(block: _Block) -> _Block:
    """Return a block without the rows that count reads of no gene."""
    kept = [row for row, name in enumerate(block.text[0]) if not reserved_row(name)]
    text = [[column[row] for row in kept] for column in block.text]
    return _Block(text, block.values[kept], [block.lines[row] for row in kept])


def _iter_parsed(stream: TextStream, layout: Layout, stop: tuple[bytes, ...]) -> Iterator[_Block]:
    """Yield parsed blocks in order; a few are parsed by threads while the next one is read."""
    waiting: deque[Future[_Block]] = deque()
    with ThreadPoolExecutor(PARSERS) as pool:
        for first_line, raw in stream.blocks(stop):
            waiting.append(pool.submit(_parse_block, stream, layout, raw, first_line))
            if len(waiting) > PARSERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _check_ids(stream: TextStream, block: _Block, seen: set[str]) -> None:
    """Refuse empty and repeated ids; add the others to `seen`."""
    ids = block.text[0]
    new = set(ids)
    if "" in new:
        raise stream.error("expected an id, got ''.", line=block.lines[ids.index("")])
    if len(new) < len(ids) or not seen.isdisjoint(new):
        for line, name in zip(block.lines, ids, strict=True):
            if name in seen:
                raise stream.error(
                    f"expected each id once, got {name!r} again. Average or drop the repeats.",
                    line=line,
                )
            seen.add(name)
    seen |= new


def _parse_block(stream: TextStream, layout: Layout, raw: bytes, first_line: int) -> _Block:
    """Return the rows of a block: parsed at once where it is regular, else line by line."""
    raw = raw.replace(b"\r\n", b"\n") if b"\r" in raw else raw
    n_lines = _count_regular(raw, layout)
    if n_lines:
        parse = _parse_wide if layout.is_wide else _parse_frame
        try:
            with np.errstate(over="ignore"):
                text, values = parse(raw, layout)
        except ValueError:
            return _parse_lines(stream, layout, raw, first_line)
        if len(values) == n_lines and not np.isinf(values).any():
            return _Block(text, values, range(first_line, first_line + n_lines))
    return _parse_lines(stream, layout, raw, first_line)


def _count_regular(raw: bytes, layout: Layout) -> int:
    """Return the number of lines if each has one separator less than columns, else 0.

    A quote around a separator or a line end makes a block irregular.
    """
    data = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    is_separator = data == ord(layout.separator)
    n_separators = len(layout.columns) - 1
    if layout.is_wide:  # few lines: each is counted, which takes no memory
        starts = np.append(0, ends + 1)
        counts = [np.count_nonzero(is_separator[a:b]) for a, b in pairwise(starts.tolist())]
        is_regular = all(count == n_separators for count in counts)
    else:
        expected = np.arange(1, len(ends) + 1) * n_separators
        separators = np.flatnonzero(is_separator)
        found = np.searchsorted(separators, ends)
        is_regular = np.array_equal(found, expected)
        if is_regular and b'"' in raw:
            quotes = np.flatnonzero(data == ord('"'))
            is_regular = not any(
                (np.searchsorted(quotes, at) & 1).any() for at in (separators, ends)
            )
    return len(ends) if is_regular and b"\r" not in raw else 0


def _parse_frame(raw: bytes, layout: Layout) -> tuple[list[list[str]], Values]:
    """Return text columns and values `(row, column)` by one column-wise parse."""
    names = [str(place) for place in range(len(layout.columns))]
    values = [names[place] for place in layout.values]
    kinds: dict[str, type] = {names[place]: object for place in layout.text}
    kinds |= dict.fromkeys(values, np.float64)
    frame = pd.read_csv(
        io.BytesIO(raw),
        sep=layout.separator,
        header=None,
        names=names,
        usecols=list(kinds),
        index_col=False,
        dtype=kinds,
        keep_default_na=False,
        na_values=dict.fromkeys(values, NA_TOKENS),
        skip_blank_lines=False,
        low_memory=False,
    )
    text = [[cell.strip() for cell in frame[names[place]]] for place in layout.text]
    numbers = frame[values].to_numpy(np.float32)
    _refuse_booleans(raw, numbers)
    return text, numbers


def _parse_wide(raw: bytes, layout: Layout) -> tuple[list[list[str]], Values]:
    """Return text columns and values `(row, column)`, cells parsed as one long column."""
    separator = layout.separator.encode()
    n_lead = layout.values[0]
    heads, cells = [], []
    for line in raw[:-1].split(b"\n"):
        *head, rest = line.split(separator, n_lead)
        heads.append(head)
        cells.append(rest)
    text = [[unquote(decode(head[column])) for head in heads] for column in layout.text]
    if any(cell.startswith('"') for column in text for cell in column):
        raise ValueError("an open quote")
    values = np.empty((len(cells), len(layout.values)), np.float32)
    for rows in iter_slices(len(cells), len(layout.values), limit_nbytes=_CELLS_AT_ONCE):
        column = separator.join(cells[rows]) + separator
        numbers = parse_decimals(column, separator)
        if numbers is None:
            numbers = _parse_column(column, layout.separator)
        values[rows] = numbers.reshape(-1, len(layout.values))
    return text, values


def _parse_column(column: bytes, separator: str) -> NDArray[np.float64]:
    """Return the numbers of cells that each end with a separator, NaN for missing ones."""
    frame = pd.read_csv(
        io.BytesIO(column),
        sep="\n",
        lineterminator=separator,
        header=None,
        names=["value"],
        index_col=False,
        dtype=np.float64,
        keep_default_na=False,
        na_values=list(NA_TOKENS),
        skip_blank_lines=False,
        low_memory=False,
    )
    numbers = frame["value"].to_numpy()
    _refuse_booleans(column, numbers[:, np.newaxis])
    return numbers


def _refuse_booleans(raw: bytes, values: NDArray[np.floating]) -> None:
    """Refuse a column of words alone that pandas takes for 1 and 0.

    Raises
    ------
    ValueError
        If there is one; the block is then read line by line, which names the cell.
    """
    if any(word in raw for word in _BOOLEANS) and ((values == 0) | (values == 1)).all(axis=0).any():
        raise ValueError("a column of booleans")


def _parse_lines(stream: TextStream, layout: Layout, raw: bytes, first_line: int) -> _Block:
    """Return the rows of a block parsed one by one, or raise what is wrong with a line.

    Blank lines and empty cells past the last column are left out.
    """
    text: list[list[str]] = [[] for _ in layout.text]
    rows, lines = [], []
    for line, raw_line in enumerate(raw[:-1].split(b"\n"), start=first_line):
        if not raw_line.strip():
            continue
        cells = _row_cells(stream, layout, decode(raw_line.rstrip(b"\r")), line)
        for column, name in zip(text, layout.text, strict=True):
            column.append(cells[name])
        rows.append([_number(stream, layout, cells, column, line) for column in layout.values])
        lines.append(line)
    values = np.array(rows, np.float32).reshape(-1, len(layout.values))
    return _Block(text, values, lines)


def _row_cells(stream: TextStream, layout: Layout, row: str, line: int) -> list[str]:
    """Return the cells of a row, which are as many as the table has columns."""
    n_columns = len(layout.columns)
    cells = split_cells(row, layout.separator)
    least, most = layout.n_cells or (0, len(cells))
    if not least <= len(cells) <= most and not any(cells[n_columns:]):
        n_expected = max(least, min(most, n_columns))
        raise stream.error(
            f"expected {n_expected} columns, got {len(cells)}. Quote cells that hold "
            f"{layout.separator!r}, or pad every row alike.",
            line=line,
        )
    while len(cells) > n_columns and not cells[-1]:
        cells.pop()
    if len(cells) != n_columns:
        remedy = " Its quotes do not close in this line." if row.count('"') % 2 else ""
        raise stream.error(f"expected {n_columns} columns, got {len(cells)}.{remedy}", line=line)
    return cells


def _number(stream: TextStream, layout: Layout, cells: list[str], column: int, line: int) -> float:
    """Return a cell as a finite float, NaN where it is missing."""
    cell = cells[column]
    if cell in NA_TOKENS:
        return float("nan")
    name = layout.columns[column]
    is_number = _NUMBER.fullmatch(cell) is not None
    if is_number and abs(float(cell)) <= _FLOAT32_MAX:
        return float(cell)
    is_infinite = is_number or cell.lstrip("+-").lower() in ("inf", "infinity")
    kind = "a finite number" if is_infinite else "a number"
    kind += " with a decimal point" if _COMMA.fullmatch(cell) else ""
    raise stream.error(f"expected {kind}, got {cell!r} in column {name!r}.", line=line)


def check_samples(stream: TextStream, samples: Sequence[str], *, line: int) -> None:
    """Refuse a header without samples, or with an empty or repeated sample id.

    Raises
    ------
    SourceError
        Naming the line of the header.
    """
    if not samples:
        raise stream.error("expected at least one sample column, got none.", line=line)
    if "" in samples:
        place = list(samples).index("") + 1
        raise stream.error(f"expected a sample id, got '' as sample {place}.", line=line)
    if (repeated := first_repeat(samples)) is not None:
        raise stream.error(
            f"expected each sample once, got {repeated!r} again. Rename or drop the repeat.",
            line=line,
        )


def require_rows(stream: TextStream, matrix: TextMatrix, remedy: str = "") -> None:
    """Refuse an empty table.

    Raises
    ------
    SourceError
        With the remedy given.
    """
    if not matrix.text[0]:
        raise SourceError(
            f"{stream.error('expected rows of values, got an empty table.')} {remedy}".rstrip()
        )
