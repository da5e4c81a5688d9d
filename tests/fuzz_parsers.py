"""What a file of text holds by another parser than the package's: pandas.

Each function compares a result of the package with the bytes it came from. It raises
`NotComparableError` where the other parser cannot read them, AssertionError where both differ.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.sources.aliases import lookup_key
from dglzarr.sources.identifiers import SYMBOL_COLUMNS, first_symbol, has_name, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from dglzarr.sources import Source
    from dglzarr.sources.aliases import NameTable
    from dglzarr.sources.identifiers import Annotation
    from dglzarr.sources.terms import Terms

IN_ROWS = "samples are in rows"
"""What a reader notes of a matrix that lies so."""
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")


class NotComparableError(Exception):
    """The other parser does not read the file."""


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, UTF-8 or latin-1 each."""
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as error:
        raise NotComparableError(str(error)) from error
    while raw.startswith(b"\xef\xbb\xbf"):
        raw = raw[3:]
    raw = raw if b"\n" in raw else raw.replace(b"\r", b"\n")
    return [decoded(line.rstrip(b"\r")) for line in raw.split(b"\n")]


def decoded(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def frame(lines: Iterable[str], mark: str = "\t", **more: Any) -> pd.DataFrame:
    """Return the cells of lines as pandas splits them, blank lines left out."""
    text = "\n".join(line for line in lines if line.strip())
    options: dict[str, Any] = {"sep": mark, "header": None, "dtype": str, "keep_default_na": False}
    try:
        if '"' in text:  # pandas takes quotes that follow no rule for something, and tells nobody
            blanks = more.get("skipinitialspace", False)
            list(
                csv.reader(io.StringIO(text), delimiter=mark, skipinitialspace=blanks, strict=True)
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells = pd.read_csv(io.StringIO(text), lineterminator="\n", **options, **more)
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise NotComparableError(str(error)) from error
    return cells.map(lambda cell: cell.strip() if isinstance(cell, str) else "")


def number(cell: str) -> float:
    """Return a cell as Python's float reads it, NaN where it says that nothing is known."""
    return float("nan") if cell in MISSING else float(cell)


def equal(got: Any, expected: Any, what: str) -> None:
    if got != expected:
        raise AssertionError(f"{what}: got {got!r}, the other parser has {expected!r}")


def close(got: Sequence[float], expected: Sequence[float], what: str) -> None:
    one, other = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    if one.shape != other.shape or not np.allclose(
        one, other, rtol=2e-7, atol=1e-38, equal_nan=True
    ):
        raise AssertionError(f"{what}: got {list(one)}, the other parser has {list(other)}")


# ---------------------------------------------------------------- matrices


def _compare_matrix(
    source: Source, head: str, body: Sequence[str], mark: str = "\t", *, n_lead: int = 1
) -> None:
    """Compare a matrix with its header and its rows."""
    names, cells = list(frame([head], mark).iloc[0]), frame(body, mark)
    while names and not names[-1]:
        names.pop()
    if cells.shape[1] == len(names) + 1 and any(cells[len(names)]):
        names = ["", *names]
    if any(any(cells[place]) for place in range(len(names), cells.shape[1])):
        raise NotComparableError("cells without a header")
    rows_out = {n for one in source.left_out if one.what == "rows" for n in one.names}
    cells = cells[~cells[0].isin(rows_out)]
    equal(source.genes, list(cells[0]), "genes")
    out = {n for one in source.left_out if one.what == "columns" for n in one.names}
    values = source.read(0, len(source.samples))
    for place, sample in enumerate(source.samples):
        column = cells[names.index(sample, 1 + n_lead * (source.format == "gct"))]
        close(values[place], [number(cell) for cell in column], f"sample {sample!r}")
    others = set(names[1:]) - set(source.samples) - out
    if len(others) > (0 if source.format == "series-matrix" else n_lead + 1):
        raise AssertionError(f"columns: nothing is said of {sorted(others)}")


def _between(lines: Sequence[str], begin: str, ends: tuple[str, ...]) -> list[list[str]]:
    """Return the lines of the tables that begin after a marker."""
    tables: list[list[str]] = []
    is_open = False
    for line in lines:
        if is_open and line.startswith(ends):
            is_open = False
        if is_open:
            tables[-1].append(line)
        elif line.strip().lower() == begin:
            tables.append([])
            is_open = True
    return tables


def compare_text(path: Path, source: Source) -> None:
    """Compare an opened file of text."""
    {
        "series-matrix": _compare_series_matrix,
        "soft": _compare_soft,
        "gct": _compare_gct,
        "table": _compare_table,
    }[source.format](path, source)


def _compare_series_matrix(path: Path, source: Source) -> None:
    head, *body = _between(lines_of(path), "!series_matrix_table_begin", ("!",))[0]
    _compare_matrix(source, head, body)


def _compare_gct(path: Path, source: Source) -> None:
    lines = lines_of(path)
    start = next(place for place, line in enumerate(lines) if line.strip())
    sizes = list(frame([lines[start + 1]]).iloc[0])
    n_lead, n_labels = (int(sizes[2]), int(sizes[3])) if len(sizes) > 3 and sizes[3] else (1, 0)
    _compare_matrix(source, lines[start + 2], lines[start + 3 + n_labels :], n_lead=n_lead)


def _compare_table(path: Path, source: Source) -> None:
    lines = list(lines_of(path))
    while not lines[0].strip() or (
        lines[0].startswith("#") and not _is_header_of(lines[0], next(filter(str.strip, lines[1:])))
    ):
        lines.pop(0)
    lines[0] = lines[0].lstrip("#").lstrip(" ")
    if IN_ROWS in source.notes:
        _compare_turned(source, lines)
        return
    _compare_matrix(source, lines[0], lines[1:], "\t" if "\t" in lines[0] else _mark(lines[0]))


def _is_header_of(comment: str, row: str) -> bool:
    """Return whether a comment has a word for each cell of a row of numbers."""
    mark = "\t" if "\t" in row else _mark(row)
    cells = [line.split(mark)[1:] for line in (comment, row)]
    is_number = re.compile(r"[-+.\d]+(e[-+]?\d+)?", re.IGNORECASE).fullmatch
    numbers = [any(is_number(cell.strip()) for cell in one) for one in cells]
    return len(cells[0]) == len(cells[1]) and numbers == [False, True]


def _compare_soft(path: Path, source: Source) -> None:
    lines = lines_of(path)
    tables = _between(lines, "!dataset_table_begin", ("!", "^"))
    if tables:
        head, *body = tables[0]
        _compare_matrix(source, head, body)
        return
    values = source.read(0, len(source.samples))
    out = {n for one in source.left_out if one.what == "rows" for n in one.names}
    for place, found in enumerate(_soft_samples(lines, source.samples)):
        got = dict(zip(source.genes, values[place].tolist(), strict=True))
        known = {name: value for name, value in found.items() if name not in out}
        expected = {**dict.fromkeys(got, float("nan")), **known}
        equal(list(expected), list(got), "genes")
        close(list(got.values()), list(expected.values()), source.samples[place])


def _soft_samples(lines: Sequence[str], wanted: Sequence[str]) -> list[Mapping[str, float]]:
    """Return the values of wanted samples by id."""
    at: list[tuple[str, list[str]]] = []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "^SAMPLE":
            at.append((value, []))
        elif key == "!Sample_geo_accession" and at:
            at[-1] = (value, at[-1][1])
        if at:
            at[-1][1].append(line)
    tables = {
        name: found
        for name, part in at
        if (found := _between(part, "!sample_table_begin", ("!", "^")))
    }
    samples = []
    for name in wanted:
        cells = frame(tables[name][-1])
        head = list(cells.iloc[0])
        column = cells.iloc[1:, head.index("VALUE")]
        samples.append(dict(zip(cells.iloc[1:, 0], map(number, column), strict=True)))
    return samples


def _compare_turned(source: Source, lines: Sequence[str]) -> None:
    """Compare a table with samples in rows."""
    cells = frame(lines, "\t" if "\t" in lines[0] else ",")
    head = list(cells.iloc[0])
    ids = next(
        (p for p in cells if set(source.samples) <= set(cells[p]) and head[p] not in source.labels),
        None,
    )
    if ids is None or len(set(head)) < len(head):
        raise NotComparableError("no column of ids as pandas splits the rows")
    rows = cells.iloc[1:]
    equal(source.samples, list(rows[ids]), "samples")
    values = source.read(0, len(source.samples))
    for place, gene in enumerate(source.genes):
        close(values[:, place], [number(cell) for cell in rows[head.index(gene)]], f"gene {gene!r}")
    for name, found in source.labels.items():
        equal(found, list(rows[head.index(name)]), f"label {name!r}")


def compare_coverage(path: Path, source: Source, counts: Source) -> None:
    """Compare counts with what a table of coverage and the lengths of its samples make."""
    compare_text(path, source)
    name = "recount_qc.star.average_mapped_length"
    lengths = [float(cell) for cell in source.labels[name]]
    equal(counts.samples, source.samples, "samples")
    values = source.read(0, len(source.samples))
    for found, row, length in zip(
        counts.read(0, len(source.samples)), values, lengths, strict=True
    ):
        close(found, [float(np.round(float(x) / length)) for x in row], "counts")


# ---------------------------------------------------------------- other files


def _mark(line: str) -> str:
    bare = "".join(line.split('"')[::2])
    return next((mark for mark in "\t,;" if mark in bare), ",")


def _as_frame(path: Path) -> pd.DataFrame:
    lines = [line for line in lines_of(path) if line.strip()]
    if any(line.lstrip().lstrip('"').startswith(("!", "#", "^")) for line in lines):
        raise NotComparableError("markers or comments")
    return frame(lines, _mark(lines[0]), skipinitialspace=True)


def _refuse_open_quotes(cells: Iterable[str]) -> None:
    if any(cell.count('"') % 2 for cell in cells):
        raise NotComparableError("a quote that stands for itself, as a row of its own shows")


def compare_sheet(path: Path, samples: Sequence[str], labels: Mapping[str, list[str]]) -> None:
    """Compare the labels that a sample sheet gives."""
    cells = _as_frame(path)
    head = list(cells.iloc[0])
    rows = cells.iloc[1:]
    _refuse_open_quotes(cell for values in labels.values() for cell in values)
    able = [p for p in rows if set(samples) <= set(rows[p]) and head[p]]
    join = next((p for p in able if head[p] not in labels), None)
    if join is None:
        raise NotComparableError("no column that covers the samples as pandas splits the rows")
    by_sample = {row[join]: row for row in rows.itertuples(index=False)}
    for name, values in labels.items():
        place = head.index(name)
        equal(values, [by_sample[sample][place] for sample in samples], f"label {name!r}")
    equal(set(labels), {n for n in head if n} - {head[join]}, "labels")


def compare_annotation(path: Path, annotation: Annotation) -> None:
    """Compare the symbols that an annotation table gives."""
    cells = _as_frame(path)
    names = [plain(name) for name in cells.iloc[0]]
    place = next((names.index(n) for n in SYMBOL_COLUMNS if n in names[1:]), None)
    if place is None or not place or not names[0] or "geneassignment" in names:
        raise NotComparableError("other columns")
    _refuse_open_quotes([*annotation.symbol, *annotation.symbol.values()])
    expected: dict[str, str] = {}
    for row in cells.iloc[1:].itertuples(index=False):
        expected[row[0]] = expected.get(row[0]) or first_symbol(row[place])
    told = [name for name in expected.values() if name]
    are_titles = 2 * sum(" " in name for name in told) > len(told)
    if not annotation.symbol and (are_titles or all(map(str.isdecimal, told))):
        raise NotComparableError("ids or titles under the name of symbols")
    equal(annotation.symbol, expected, "symbols")


def compare_list(path: Path, names: Sequence[str]) -> None:
    """Compare the ids of a list."""
    lines = [line.strip().strip('"') for line in lines_of(path)]
    if any("#" in line for line in lines):
        raise NotComparableError("comments")
    found = [line for line in lines if line]
    equal(list(names), found if len(found) == len(names) else found[1:], "ids")


def compare_sets(path: Path, terms: Terms) -> None:
    """Compare the sets of a GMT file."""
    rows = [[cell.strip() for cell in line.split("\t")] for line in lines_of(path) if line.strip()]
    found = {row[0]: set(row[2:]) - {""} for row in rows}
    equal(dict(zip(terms.ids, map(set, terms.genes), strict=True)), found, "sets")


def compare_values(path: Path, values: Mapping[str, str]) -> None:
    """Compare what is said of each gene."""
    lines = [line for line in lines_of(path) if line.strip() and not line.startswith("#")]
    rows = [[cell.strip().strip('"') for cell in re.split(r"[\t,]", line)] for line in lines]
    while rows and rows[0][0] not in values:
        rows.pop(0)  # a header, of however many cells
    equal(dict(values), dict(rows), "values")


def compare_names(path: Path, names: NameTable) -> None:
    """Compare the symbols of a table of names, and that every other name stands beside its own."""
    lines = [line for line in lines_of(path) if line.strip()]
    mark = _mark(lines[0])
    if '"' in "".join(lines):
        raise NotComparableError("quotes")
    cells = frame(lines, mark)
    head = [plain(name) for name in cells.iloc[0]]
    symbol = next(head.index(n) for n in ("symbol", "approvedsymbol", "genesymbol") if n in head)
    rows = cells.iloc[1:]
    known = {lookup_key(cell) for cell in rows[symbol] if has_name(cell)}
    equal(set(names.symbols), known, "symbols")
    for name, of in names.others.items():
        for one in of:
            beside = rows[rows[symbol] == one].drop(columns=symbol)
            texts = " ".join(beside.to_numpy().ravel()).upper()
            if name not in texts and name not in lookup_key(texts):
                raise AssertionError(f"{name!r} of {one!r}: it stands in none of its rows")
