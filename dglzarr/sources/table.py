"""Expression tables (TSV or CSV, genes in rows) and sample sheets.

A table has ids in its first column and one column a sample; a column of gene symbols may stand
anywhere. A sheet has one row a sample and joins on the column that covers the samples.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from dglzarr.errors import SourceError
from dglzarr.sources.base import Source, series_name, symbols_or_none
from dglzarr.sources.matrix import Layout, check_samples, read_matrix, require_rows
from dglzarr.sources.text import TextStream, header_cells, split_cells

SYMBOL_COLUMNS = ("gene symbol", "symbol", "identifier", "hgnc symbol", "pr gene symbol")
"""Headers of a column of gene symbols, in lower case, `_` read as a blank."""

PLATFORM_COLUMNS = ("platform", "platform_id")
"""Columns of a sample sheet that name the platform."""

_DECIMAL = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")


def symbol_column(columns: Sequence[str]) -> int | None:
    """Return the place of the column that holds gene symbols, or None."""
    for place, column in enumerate(columns):
        if column.lower().replace("_", " ") in SYMBOL_COLUMNS and place:
            return place
    return None


def read_table(stream: TextStream, *, scratch: Path | None = None) -> Source:
    """Return an expression table: ids in the first column, one column a sample.

    Raises
    ------
    SourceError
        If the header or a row is not what it should be; names file and line.
    """
    while (stream.peek() or "").startswith("#"):
        stream.readline()
    line = stream.line
    header = stream.readline() or ""
    separator = "\t" if "\t" in header else ","
    columns = _columns(stream, header_cells(header, separator), separator)
    if len(columns) < 2:
        raise stream.error(
            "expected a series matrix, SOFT, GCT, GCTX or a tab- or comma-separated table with "
            f"sample columns, got {header[:60]!r}.",
            line=line,
        )
    symbols = symbol_column(columns)
    if symbols not in (None, 1, len(columns) - 1):
        raise stream.error(
            f"expected {columns[symbols or 0]!r} as second or last column, got it as column "
            f"{(symbols or 0) + 1}. Move it.",
            line=line,
        )
    values = range(2 if symbols == 1 else 1, len(columns) - (symbols == len(columns) - 1 > 1))
    samples = [columns[place] for place in values]
    check_samples(stream, samples, line=line)
    if any(map(_DECIMAL.fullmatch, samples)):
        raise stream.error("expected a header of sample ids, got numbers. Add a header.", line=line)
    text = (0,) if symbols is None else (0, symbols)
    matrix = read_matrix(stream, Layout(columns, separator, text, values), scratch=scratch)
    require_rows(stream, matrix)
    genes = matrix.text[0]
    return Source(
        path=stream.path,
        format="table",
        samples=samples,
        genes=genes,
        series=series_name(stream.path),
        platform=[""] * len(samples),
        values=matrix.values,
        gene_symbol=symbols_or_none(matrix.text[1], genes) if symbols is not None else None,
    )


def _columns(stream: TextStream, columns: list[str], separator: str) -> list[str]:
    """Return the header, with an id column added where rows have one cell more (R's way)."""
    stream.skip_blank()
    row = split_cells(stream.peek() or "", separator)
    return ["", *columns] if len(row) == len(columns) + 1 and row[-1] else columns


def read_sample_sheet(
    path: Path, samples: Sequence[str], *, column: str | None = None
) -> dict[str, list[str]]:
    """Return the sheet's other columns as labels in the order of the samples.

    Parameters
    ----------
    path
        TSV or CSV with a header, plain or gzip; rows of other samples are left out.
    samples
        Sample ids to find.
    column
        Column of sample ids; by default the first column that covers the samples.

    Raises
    ------
    SourceError
        If no column covers the samples, or one of them has two rows.
    """
    with TextStream(path) as stream:
        header, rows = _sheet_rows(stream)
    if column is not None and column not in header:
        raise SourceError(
            f"{path.name}: expected a column {column!r}, got {_some(header)}. "
            "Name one of these as join_column."
        )
    found = {
        name: len({row[place] for row in rows}.intersection(samples))
        for place, name in enumerate(header)
    }
    names = header if column is None else [column]
    join = next((name for name in names if found[name] == len(set(samples))), None)
    if join is None:
        tried = ", ".join(f"{name!r} ({found[name]})" for name in names[:5])
        raise SourceError(
            f"{path.name}: expected a column with all {len(samples)} samples such as "
            f"{samples[0]!r}, got (samples found) {tried}{_more(names)}. "
            "Name the column of sample ids as join_column or complete the sheet."
        )
    return _labels(path, header, rows, samples, join)


def _sheet_rows(stream: TextStream) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a sheet, cut or padded to the header."""
    stream.skip_blank()
    line = stream.readline() or ""
    separator = "\t" if "\t" in line else ","
    header = header_cells(line, separator)
    if len(set(header)) < len(header):
        raise stream.error("expected each column once, got a repeated one.", line=1)
    rows = []
    while (text := stream.readline()) is not None:
        if text.strip():
            cells = header_cells(text, separator)
            if len(cells) > len(header):
                raise stream.error(
                    f"expected {len(header)} columns, got {len(cells)}.", line=stream.line - 1
                )
            rows.append(cells + [""] * (len(header) - len(cells)))
    return header, rows


def _labels(
    path: Path, header: list[str], rows: list[list[str]], samples: Sequence[str], join: str
) -> dict[str, list[str]]:
    """Return the columns beside the join column, one value a sample."""
    key = header.index(join)
    row_of: dict[str, list[str]] = {}
    wanted = set(samples)
    for row in rows:
        if row[key] in row_of and row[key] in wanted:
            raise SourceError(
                f"{path.name}: expected one row a sample, got {row[key]!r} again in column "
                f"{join!r}. Drop the repeat."
            )
        row_of[row[key]] = row
    return {
        name: [row_of[sample][place] for sample in samples]
        for place, name in enumerate(header)
        if place != key and name
    }


def _some(names: Sequence[str]) -> str:
    """Return up to five names for a message."""
    return ", ".join(map(repr, names[:5])) + _more(names)


def _more(names: Sequence[str]) -> str:
    """Return how many names a message leaves out."""
    return f" and {len(names) - 5} more" if len(names) > 5 else ""
