"""Expression tables (TSV or CSV, genes in rows) and sample sheets.

A table has ids in its first column and one column a sample; a column of gene symbols may stand
anywhere, and columns that `columns` names are left out. A sheet has one row a sample and joins on
the column that covers the samples.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dglzarr.errors import SourceError
from dglzarr.sources.base import LeftOut, Reading, Source, SourceFormat, Values, matrix_source
from dglzarr.sources.columns import (
    Columns,
    check_first_column,
    check_header,
    check_unique,
    counts_rows,
    find_ids,
    is_alone,
    is_header,
    names_cells,
    sort_columns,
)
from dglzarr.sources.matrix import (
    NA_TOKENS,
    Layout,
    TextMatrix,
    check_samples,
    read_matrix,
    require_rows,
)
from dglzarr.sources.text import (
    TextStream,
    find_separator,
    header_cells,
    read_rows,
    refuse_surplus,
    split_cells,
)
from dglzarr.sources.turned import names_samples, refuse_gene_ids, refuse_turned
from dglzarr.sources.wide import Picked, gene_columns, has_samples_in_rows, pair_symbols, sort_rows

PLATFORM_COLUMNS = ("platform", "platform_id")
"""Columns of a sample sheet that name the platform."""

SERIES_COLUMNS = ("series_id", "series", "gse")
"""Columns of a sample sheet, and labels of a file without a series, that name the study."""

_MANY_IDS = 1000
_FEWEST_THOUSANDS = 2


def read_table(
    stream: TextStream, *, scratch: Path | None = None, reading: Reading = Reading()
) -> Source:
    """Return an expression table: ids in the first column, one column a sample, or turned.

    Parameters
    ----------
    stream
        Text that stands on the header, or on comments before it.
    scratch
        Folder for the values of more than one shard of samples.
    reading
        Where the samples are, and which columns hold values; these are not doubted then.

    Raises
    ------
    SourceError
        If the header or a row is not what it should be; names file and line.
    """
    header = _read_header(stream)
    line = stream.line - 1
    place = f"{stream.name}, line {line}"
    separator = "\t" if "\t" in header else find_separator(header)
    columns = _columns(stream, header, separator, line=line)
    n_cells = _count_cells(stream, header, separator)
    if len(columns) < 2:
        raise stream.error(
            "expected a series matrix, SOFT, GCT, GCTX or a tab- or comma-separated table with "
            f"sample columns, got {header[:60]!r}.",
            line=line,
        )
    if has_samples_in_rows(columns[1:], reading):
        return _read_turned(stream, columns, separator, n_cells, scratch, reading)
    value_columns = reading.value_columns
    found, ids = _sort_columns(place, columns, value_columns)
    samples = [columns[at] for at in found.samples]
    is_doubted = not value_columns and reading.samples_in is None
    if not value_columns:
        check_header(place, columns, samples)
        check_first_column(place, columns, split_cells(stream.peek() or "", separator)[:1])
    if is_doubted:
        refuse_gene_ids(place, samples)
    if not samples and found.left_out:
        told = "; ".join(map(str, found.left_out))
        raise stream.error(f"expected at least one sample column, got none: {told}.", line=line)
    check_samples(stream, samples, line=line)
    text = tuple(dict.fromkeys(p for p in (0, found.symbols, ids) if p is not None))
    layout = Layout(columns, separator, text, found.samples, n_cells)
    matrix = _read_values(stream, place, header, layout, scratch)
    if counts_rows(columns[0], matrix.text[0], has_ids=ids is not None):
        matrix, found = _without_numbers(stream, matrix, found, columns, ids)
    if is_doubted:
        refuse_turned(stream.name, matrix.text[0], samples, corner=columns[0])
    if not value_columns:
        check_first_column(stream.name, columns, matrix.text[0])
        _refuse_decimals(stream.name, place, header, layout, matrix)
    return _as_source(stream.path, matrix, found, samples)


def _read_header(stream: TextStream) -> str:
    """Return the header behind comments; the last of these where it names the cells below it."""
    while (text := stream.readline() or "").startswith("#"):
        separator, below = find_separator(text), stream.peek() or ""
        names, cells = (header_cells(one, separator) for one in (text, below))
        if names_cells(names, cells):
            return text.lstrip("#").lstrip(" ")
    return text


def _sort_columns(
    place: str, columns: list[str], chosen: Sequence[str]
) -> tuple[Columns, int | None]:
    """Return what columns hold, and which has ids where the first may count rows: no sample."""
    found, ids = sort_columns(place, columns, chosen), find_ids(columns)
    if ids not in found.samples:
        return found, ids
    if chosen:
        return found, None
    samples = tuple(at for at in found.samples if at != ids)
    other = LeftOut("columns", "other identifiers", (columns[ids],))
    return found._replace(samples=samples, left_out=(*found.left_out, other)), ids


def _read_values(
    stream: TextStream, place: str, header: str, layout: Layout, scratch: Path | None
) -> TextMatrix:
    """Return the rows of a table with genes in rows."""
    matrix = read_matrix(stream, layout, scratch=scratch)
    require_rows(stream, matrix)
    is_added = len(layout.columns) > len(header_cells(header, layout.separator))
    if is_added and 1 in layout.text:
        _refuse_shifted(place, layout.columns, matrix, matrix.text[layout.text.index(1)])
    return matrix


def _refuse_shifted(
    place: str, columns: list[str], matrix: TextMatrix, cells: Sequence[str]
) -> None:
    """Refuse a header one name short whose first name is that of the ids, over numbers.

    R leaves out the name of the ids alone; what it names next are symbols or whole ids.
    """
    known = [cell for cell in cells if cell not in NA_TOKENS]
    try:
        numbers = np.array(known, np.float64)
    except ValueError:
        return
    are_ids = len(set(known)) == len(known) and (numbers == np.rint(numbers)).all()
    if are_ids and (len(known) >= _MANY_IDS or counts_rows("", matrix.text[0])):
        return
    values = matrix.values
    if not known or (are_ids and not np.array_equal(values, np.rint(values), equal_nan=True)):
        return
    raise SourceError(
        f"{place}: expected a name for each column, got {len(columns) - 1} over rows of "
        f"{len(columns)} cells, with numbers such as {known[0]!r} under {columns[1]!r}. Add the "
        "name that is missing; write decimals with points."
    )


def _refuse_decimals(
    name: str, place: str, header: str, layout: Layout, matrix: TextMatrix
) -> None:
    """Refuse numbers as another country writes them, which are read as others."""
    _refuse_thousands(name, matrix)
    is_short = len(layout.columns) > len(header_cells(header, layout.separator))
    if layout.separator == "," and is_short and '"' not in header:  # as R quotes it
        _refuse_decimal_commas(place, [layout.columns[at] for at in layout.values], matrix)


def _refuse_decimal_commas(place: str, samples: Sequence[str], matrix: TextMatrix) -> None:
    """Refuse a header one name short whose first name may be that of the ids, over whole numbers.

    These may be the parts of decimals before a comma.
    """
    first = matrix.values[:, 0]
    is_doubted = is_header(samples[0]) or (len(samples) <= 2 and is_alone(samples))
    if is_doubted and np.array_equal(first, np.rint(first), equal_nan=True):
        raise SourceError(
            f"{place}: expected a name for each column, got {len(samples)} over rows of "
            f"{len(samples) + 1} cells, with whole numbers under {samples[0]!r}. Add the name that "
            "is missing, or write decimals with points; where it is a sample, state value_columns "
            "= ['*']."
        )


def _without_numbers(
    stream: TextStream, matrix: TextMatrix, found: Columns, columns: list[str], ids: int | None
) -> tuple[TextMatrix, Columns]:
    """Return a table whose first column counts its rows by the ids in another one."""
    first = matrix.text[0]
    if ids is None:
        raise SourceError(
            f"{stream.name}: expected ids of genes in the first column, got numbers of rows, "
            f"{first[0]} to {first[-1]}, and no other column of ids. Take it out, or name the "
            "column of ids gene_id."
        )
    genes = matrix.text[-1]
    check_unique(stream.path, "gene", genes)
    numbers = LeftOut("columns", "numbers of rows", (columns[0],))
    kept = [
        LeftOut(one.what, one.reason, names)
        for one in found.left_out
        if (names := tuple(name for name in one.names if name != columns[ids]))
    ]
    text = [genes, *(matrix.text[1:2] if found.symbols is not None else [])]
    return replace(matrix, text=text), found._replace(left_out=(numbers, *kept))


def _read_turned(
    stream: TextStream,
    columns: list[str],
    separator: str,
    n_cells: tuple[int, int] | None,
    scratch: Path | None,
    reading: Reading,
) -> Source:
    """Return a table with samples in rows, whose columns of text are labels."""
    stream.skip_blank()
    first = split_cells(stream.peek() or "", separator)
    values = gene_columns(stream.name, columns, first, reading)
    text = tuple(sorted({*range(len(columns))}.difference(values)))
    genes = [columns[place] for place in values]
    check_unique(stream.path, "gene", genes)
    matrix = read_matrix(stream, Layout(columns, separator, text, values, n_cells), scratch=scratch)
    require_rows(stream, matrix)
    named = ([columns[place] for place in text], matrix.text)
    source = turned_source(stream.path, "table", genes, named, matrix.values.T)
    return replace(source, left_out=(*matrix.left_out, *source.left_out))


def turned_source(
    path: Path,
    kind: SourceFormat,
    genes: list[str],
    text: tuple[Sequence[str], Sequence[Sequence[str]]],
    values: Values,
) -> Source:
    """Return a matrix with samples in rows as a source.

    Parameters
    ----------
    path, kind
        The file, and its format.
    genes
        Names of the columns of values.
    text
        Names and cells of the other columns.
    values
        All rows ``(row, gene)``.

    Raises
    ------
    SourceError
        If no column names the samples.
    """
    found = sort_rows(path.name, *text)
    is_whole = found.rows.size == values.shape[0]
    values = values if is_whole else Picked(values, found.rows)
    more: dict[str, Any] = {
        "labels": found.labels,
        "left_out": found.left_out,
        "notes": ("samples are in rows",),
    }
    return matrix_source(
        path, kind, found.samples, genes, values, symbols=pair_symbols(genes), **more
    )


def _as_source(path: Path, matrix: TextMatrix, found: Columns, samples: list[str]) -> Source:
    """Return a parsed table as a source."""
    genes = matrix.text[0]
    named = matrix.text[1] if found.symbols is not None else pair_symbols(genes)
    left_out = (*found.left_out, *matrix.left_out)
    return matrix_source(
        path, "table", samples, genes, matrix.values, symbols=named, left_out=left_out
    )


def _columns(stream: TextStream, header: str, separator: str, *, line: int) -> list[str]:
    """Return the header, with an id column added where rows have one cell more (R's way)."""
    stream.skip_blank()
    named, row = header_cells(header, separator), split_cells(stream.peek() or "", separator)
    n_header, n_row = len(split_cells(header, separator)), len(row)
    filled = header_cells(stream.peek() or "", separator)
    if len(filled) == len(named) + 1 and n_row > n_header:
        return ["", *named]
    if len(named) < len(filled) <= n_header:
        raise stream.error(
            f"expected a name for column {len(named) + 1}, which holds {filled[len(named)]!r}, got "
            "none. Name it or take it out.",
            line=line,
        )
    return named


def _count_cells(stream: TextStream, header: str, separator: str) -> tuple[int, int] | None:
    """Return how few and how many cells a row may have, those that pad its end included.

    As many as the header at most; where the first row has more, each row has as many. None, any
    number, between tabs, which are seldom part of a cell as commas are.
    """
    if separator == "\t":
        return None
    n_header = len(split_cells(header, separator))
    n_row = len(split_cells(stream.peek() or "", separator))
    return (n_row, n_row) if n_row > n_header else (0, n_header)


def _refuse_thousands(name: str, matrix: TextMatrix) -> None:
    """Refuse numbers such as 1.206 beside whole ones below 1000: points that part thousands."""
    known = matrix.values[~np.isnan(matrix.values)]
    has_point = known != np.rint(known)
    parted, whole = known[has_point], known[~has_point]
    thousands = parted.astype(np.float64) * 1000
    if np.count_nonzero(np.rint(thousands) % 10) < _FEWEST_THOUSANDS:  # fewer decimals
        return
    are_thousands = np.isclose(thousands, np.rint(thousands), rtol=2e-7, atol=0) & (parted >= 1)
    if not parted.size or whole.size < 0.2 * known.size or known.max() >= 1000:
        return
    if are_thousands.all():
        shown = f"{parted[0]:.3f}"
        raise SourceError(
            f"{name}: expected decimals, got numbers such as {shown} beside whole ones below 1000, "
            f"as where points part thousands. Write {shown.replace('.', '')}; where {shown} is "
            "meant, state value_columns = ['*']."
        )


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
        Column of sample ids; by default the one that covers the samples.

    Raises
    ------
    SourceError
        If no column covers the samples, several do and differ, or one of them has two rows.
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
    able = [name for name in names if found[name] == len(set(samples))]
    if not able:
        tried = ", ".join(f"{name!r} ({found[name]})" for name in names[:5])
        raise SourceError(
            f"{path.name}: expected a column with all {len(samples)} samples such as "
            f"{samples[0]!r}, got (samples found) {tried}{_more(names)}. "
            "Name the column of sample ids as join_column or complete the sheet."
        )
    return _labels(path, header, rows, samples, _join_column(path, header, rows, able))


def _join_column(path: Path, header: list[str], rows: list[list[str]], able: list[str]) -> str:
    """Return which of the columns that cover the samples has their ids.

    That which is called so, where others say the same or are none: sheets also name the matched
    sample of each, or count them.

    Raises
    ------
    SourceError
        When two of them differ, and none or several are called so.
    """
    columns = {name: [row[header.index(name)] for row in rows] for name in able}
    if all(cells == columns[able[0]] for cells in columns.values()):
        return able[0]
    called = [name for name in able if names_samples(name)]
    if len(called) == 1:
        return called[0]
    raise SourceError(
        f"{path.name}: expected one column of sample ids, got {_some(able)}, which differ. Name "
        "the one to join by as join_column."
    )


def _sheet_rows(stream: TextStream) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a sheet, cut or padded to the header."""
    stream.skip_blank()
    separator = find_separator(stream.peek() or "")
    lines = list(read_rows(stream.name, stream.lines(), separator=separator))
    refuse_surplus(stream.name, lines, separator)
    line, header = lines[0] if lines else (1, [])
    n_named = len(header)
    if not (header := _cut(header)):
        raise stream.error("expected a header, got blank lines.", line=line)
    if len(set(header)) < len(header):
        raise stream.error("expected each column once, got a repeated one.", line=line)
    below = [row for _, row in lines[1:]]
    if all(len(row) == n_named + 1 for row in below) and any(row[-1] for row in below):
        header = ["", *header]  # as R writes row names
    rows = []
    for line, row in lines[1:]:
        cells = _cut(row)
        if len(cells) > len(header):
            raise stream.error(f"expected {len(header)} columns, got {len(cells)}.", line=line)
        rows.append(cells + [""] * (len(header) - len(cells)))
    return header, rows


def _cut(cells: list[str]) -> list[str]:
    """Return cells without the empty ones that pad their end."""
    while cells and not cells[-1]:
        cells.pop()
    return cells


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
