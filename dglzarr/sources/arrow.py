"""Parquet and Feather matrices, read through pyarrow; values stay in the file.

With genes in rows, as GTEx has them, a slice of samples is a few columns. With samples in rows it
is a few row groups, so each of these is read once where it is no longer than a region.
"""
# ruff: noqa: PLC0415  (pyarrow is an extra, and takes a while to be imported)

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import ConfigError, DglzarrError, SourceError
from dglzarr.sources.base import LeftOut, Reading, Source, matrix_source
from dglzarr.sources.columns import (
    check_header,
    check_unique,
    counts_rows,
    find_ids,
    find_symbols,
    reserved_row,
    sort_columns,
)
from dglzarr.sources.table import turned_source
from dglzarr.sources.turned import refuse_gene_ids, refuse_turned
from dglzarr.sources.wide import gene_columns, has_samples_in_rows, pair_symbols

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

ArrowFormat = Literal["parquet", "feather"]

_MAGIC: dict[bytes, ArrowFormat] = {b"PAR1": "parquet", b"ARRO": "feather"}
_OLD_FEATHER = b"FEA1"
_UNNAMED = re.compile(r"__index_level_\d+__")
_COLUMNS_AT_ONCE = 512


def arrow_format(path: Path) -> ArrowFormat | None:
    """Return which of both formats a file is of, by its first bytes; None for another.

    Raises
    ------
    SourceError
        Of Feather 1, which is read no more.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return None  # which the reader of text tells of
    if head == _OLD_FEATHER:
        raise SourceError(
            f"{path.name}: expected Feather 2, got Feather 1. Write it again with a newer pyarrow "
            "or arrow, or as Parquet."
        )
    return _MAGIC.get(head)


def read_arrow(path: Path, kind: ArrowFormat, reading: Reading = Reading()) -> Source:
    """Return a Parquet or Feather matrix: ids and labels are its columns of text.

    Raises
    ------
    SourceError
        If the file is damaged, or its columns are no matrix of expression.
    ConfigError
        If pyarrow is not installed.
    """
    with _told(path):
        schema, n_rows, text, numbers = _columns_of(path, kind)
        if not text:
            raise SourceError(
                f"{path.name}: expected a column of ids beside those of numbers, got none. Write "
                "the index of the table too."
            )
        if len(set(schema.names)) < len(schema.names):
            raise SourceError(f"{path.name}: expected each column once, got a repeated one.")
        others = [
            ("neither numbers nor text", n) for n in schema.names if n not in {*text, *numbers}
        ]
        left_out = LeftOut.group("columns", others)
        if has_samples_in_rows(numbers, reading):
            source = _turned(path, kind, (text, numbers), n_rows, reading)
        else:
            source = _upright(path, kind, text, numbers, reading)
    return replace(source, left_out=(*left_out, *source.left_out), is_lazy=True)


def arrow_shape(path: Path, kind: ArrowFormat, reading: Reading = Reading()) -> tuple[int, int]:
    """Return about how many samples and genes a file holds, from its schema.

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    with _told(path):
        _, n_rows, _, numbers = _columns_of(path, kind)
        is_turned = has_samples_in_rows(numbers, reading)
        return (n_rows, len(numbers)) if is_turned else (len(numbers), n_rows)


@dataclass(frozen=True)
class ArrowValues:
    """The numbers of a file, opened for each slice so that it can be sent to workers.

    Of a file with genes in rows these are ``columns``, each a sample, without the ``dropped``
    rows; of one with samples in rows each column is a gene.
    """

    path: Path
    kind: ArrowFormat
    columns: tuple[str, ...]
    n_rows: int
    is_turned: bool = False
    dropped: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of genes."""
        n_rows = self.n_rows - len(self.dropped)
        return (n_rows, len(self.columns)) if self.is_turned else (len(self.columns), n_rows)

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the values ``(sample, gene)`` of a slice of samples.

        Raises
        ------
        SourceError
            If the file is damaged or a value is infinite.
        """
        start, stop, _ = samples.indices(self.shape[0])
        with _told(self.path):
            if self.is_turned:
                return self._rows(start, stop)
            return self._columns(self.columns[start:stop])

    def _columns(self, names: Sequence[str]) -> NDArray[np.float32]:
        values = np.empty((len(names), self.n_rows), np.float32)
        for first in range(0, len(names), _COLUMNS_AT_ONCE):
            some = names[first : first + _COLUMNS_AT_ONCE]
            table = _read(self.path, self.kind, some)
            for place, name in enumerate(some, start=first):
                _fill(self.path, name, table.column(name), values[place])
        return np.delete(values, self.dropped, axis=1) if self.dropped else values

    def _rows(self, start: int, stop: int) -> NDArray[np.float32]:
        values = np.empty((len(self.columns), stop - start), np.float32)
        for first, table in _parts(self.path, self.kind, self.columns, start, stop):
            lo, hi = max(start, first), min(stop, first + table.num_rows)
            part = table.slice(lo - first, hi - lo)
            for place, name in enumerate(self.columns):
                _fill(self.path, name, part.column(name), values[place, lo - start : hi - start])
        return values.T


def _upright(
    path: Path, kind: ArrowFormat, text: list[str], numbers: list[str], reading: Reading
) -> Source:
    """Return a matrix with genes in rows."""
    columns = [*text, *numbers]
    found = sort_columns(path.name, columns, reading.value_columns, n_lead=len(text))
    samples = [columns[place] for place in found.samples]
    if not samples:
        told = "; ".join(map(str, found.left_out)) or "it has no columns of numbers"
        raise SourceError(f"{path.name}: expected at least one sample column, got none: {told}.")
    text, numbers_of_rows = _without_numbers(path, kind, text)
    place = find_symbols(text)
    names = [text[0], *([] if place is None else [text[place]])]
    cells = _cells(path, kind, names)
    why = {i: told for i, gene in enumerate(cells[0]) if (told := reserved_row(gene))}
    dropped = tuple(why)
    counters = LeftOut.group("rows", ((why[i], cells[0][i]) for i in dropped))
    n_rows = len(cells[0])
    if dropped:
        cells = [[cell for i, cell in enumerate(column) if i not in dropped] for column in cells]
    genes = cells[0]
    check_unique(path, "gene", genes)
    if not reading.value_columns:
        check_header(path.name, ["id", *samples], samples)
        if reading.samples_in is None:
            refuse_gene_ids(path.name, samples)
            refuse_turned(path.name, genes, samples, corner=text[0])
    unused = LeftOut.group("columns", (("text", name) for name in text if name not in names))
    named = cells[1] if place is not None else pair_symbols(genes)
    values = ArrowValues(path, kind, tuple(samples), n_rows, dropped=dropped)
    left_out = (*numbers_of_rows, *unused, *found.left_out, *counters)
    return matrix_source(path, kind, samples, genes, values, symbols=named, left_out=left_out)


def _without_numbers(
    path: Path, kind: ArrowFormat, text: list[str]
) -> tuple[list[str], tuple[LeftOut, ...]]:
    """Return columns of text, ids first, without an index that counts rows beside such ids."""
    name = "" if _UNNAMED.fullmatch(text[0]) else text[0]  # as pandas writes an index without one
    place = find_ids([name, *text[1:]])
    if place is None:
        return text, ()
    (first,) = _cells(path, kind, text[:1])
    if not counts_rows(name, first, has_ids=True):
        return text, ()
    others = [name for name in text[1:] if name != text[place]]
    return [text[place], *others], (LeftOut("columns", "numbers of rows", (text[0],)),)


def _turned(
    path: Path,
    kind: ArrowFormat,
    columns: tuple[list[str], list[str]],
    n_rows: int,
    reading: Reading,
) -> Source:
    """Return a matrix with samples in rows: numbers that are no genes are labels, as text is."""
    text, numbers = columns
    first_row = ["", *("0" for _ in numbers)]
    found = gene_columns(path.name, [text[0], *numbers], first_row, reading)
    genes = [numbers[place - 1] for place in found]
    known = set(genes)
    text = [*text, *(name for name in numbers if name not in known)]
    check_unique(path, "gene", genes)
    values = ArrowValues(path, kind, tuple(genes), n_rows, is_turned=True)
    return turned_source(path, kind, genes, (text, _cells(path, kind, text)), values)


# ---------------------------------------------------------------- the file


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell what pyarrow raises of a damaged file, or that it is absent, in one line."""
    if find_spec("pyarrow") is None:
        raise ConfigError(
            f"{path.name}: expected pyarrow for Parquet and Feather, got none. Install "
            "'dglzarr[parquet]'."
        )
    import pyarrow as pa

    try:
        yield
    except DglzarrError:
        raise
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError, SystemError) as error:
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(
            f"{path.name}: expected a complete Parquet or Feather file, got a damaged one ({got}). "
            "Download it again."
        ) from error


@lru_cache(maxsize=8)
def _parquet_metadata(path: Path, nbytes: int, changed: int) -> Any:  # noqa: ANN401, ARG001
    """Return the footer of a Parquet file, which takes long where columns are many."""
    import pyarrow.parquet as pq

    return pq.read_metadata(path)


def _parquet(path: Path) -> Any:  # noqa: ANN401  (pyarrow has no types)
    import pyarrow.parquet as pq

    stat = path.stat()
    known = _parquet_metadata(path, stat.st_size, stat.st_mtime_ns)
    return pq.ParquetFile(path, metadata=known, memory_map=True)


def _ipc(path: Path, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401
    import pyarrow as pa

    file = pa.memory_map(str(path))
    if columns is None:
        return pa.ipc.open_file(file)
    names = pa.ipc.open_file(file).schema.names
    place = {name: i for i, name in enumerate(names)}
    options = pa.ipc.IpcReadOptions(included_fields=sorted(place[name] for name in columns))
    return pa.ipc.open_file(file, options=options)


def _columns_of(path: Path, kind: ArrowFormat) -> tuple[pa.Schema, int, list[str], list[str]]:
    """Return the schema, the number of rows, and the names of the columns of text and numbers."""
    schema, n_rows = _schema(path, kind)
    text = _text_columns(schema)
    numbers = [n for n in schema.names if n not in text and _is_number(schema.field(n).type)]
    return schema, n_rows, text, numbers


def _schema(path: Path, kind: ArrowFormat) -> tuple[pa.Schema, int]:
    """Return the columns of a file and the number of its rows."""
    if kind == "parquet":
        file = _parquet(path)
        told = file.metadata
        n_rows = sum(told.row_group(group).num_rows for group in range(told.num_row_groups))
        if n_rows != told.num_rows:
            raise ValueError(f"{told.num_rows} rows, its groups have {n_rows}")
        return file.schema_arrow, n_rows
    opened = _ipc(path)
    ids = _text_columns(opened.schema)[:1] or opened.schema.names[:1]
    return opened.schema, int(_read(path, kind, ids).num_rows)


def _read(path: Path, kind: ArrowFormat, columns: Sequence[str]) -> pa.Table:
    """Return some columns whole."""
    if kind == "parquet":
        return _valid(_parquet(path).read(columns=list(columns), use_pandas_metadata=False))
    return _valid(_ipc(path, columns).read_all())


def _valid(table: pa.Table) -> pa.Table:
    """Return a table of which no text lies outside its file: pyarrow would read it from there."""
    table.validate(full=True)
    return table


def _parts(
    path: Path, kind: ArrowFormat, columns: Sequence[str], start: int, stop: int
) -> Iterator[tuple[int, pa.Table]]:
    """Yield the row groups or batches that meet some rows, with the row that each begins at."""
    import pyarrow as pa

    file = _parquet(path) if kind == "parquet" else _ipc(path, columns)
    first = 0
    for group in range(file.num_row_groups if kind == "parquet" else file.num_record_batches):
        if kind == "parquet":
            n_rows, part = file.metadata.row_group(group).num_rows, None
        else:
            part = _valid(pa.Table.from_batches([file.get_batch(group)]))
            n_rows = part.num_rows
        if first < stop and first + n_rows > start:
            if part is None:
                part = _valid(file.read_row_group(group, list(columns)))
            yield first, part
        first += n_rows


def _cells(path: Path, kind: ArrowFormat, names: Sequence[str]) -> list[list[str]]:
    """Return columns as text, "" for nothing."""
    table = _read(path, kind, names)
    columns = (
        [("" if c is None else str(c).strip()) for c in table.column(n).to_pylist()] for n in names
    )
    return list(columns)


def _fill(path: Path, name: str, column: Any, out: NDArray[np.float32]) -> None:  # noqa: ANN401
    """Write a column of numbers to an array, nothing as NaN.

    Raises
    ------
    SourceError
        If a value is infinite.
    """
    if len(column) != out.size:  # one value would stand for all
        raise ValueError(f"{len(column)} values in column {name!r}, {out.size} expected")
    with np.errstate(over="ignore"):
        out[:] = column.to_numpy()
    if np.isinf(out).any():
        row = int(np.flatnonzero(np.isinf(out))[0])
        raise SourceError(
            f"{path.name}: expected finite values, got an infinite one in row {row} of column "
            f"{name!r}."
        )


def _text_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that are no numbers, the index that pandas wrote before the others."""
    try:
        told = schema.pandas_metadata["index_columns"]
        index = [name for name in told if isinstance(name, str) and name in schema.names]
    except (ValueError, TypeError, LookupError):  # there is none, or it is not as pandas writes it
        index = []
    others = [n for n in schema.names if n not in index and _is_text(schema.field(n).type)]
    return [*index, *others]


def _is_text(kind: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    of_text = ("is_string", "is_large_string", "is_string_view", "is_boolean")
    return any(getattr(pa.types, is_kind)(kind) for is_kind in of_text)


def _is_number(kind: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
