"""Owns the tables of a report: in memory, as TSV files, and embedded in the page.

A table is columns of equal length. What stands in the page can be read from its file too, so that
a picture and the data behind it cannot differ.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.storage.files import Place, no_formula, place_of, put, told

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FOLDER = "report_data"
INDEX = "index.tsv"
DIGITS = 6
"""Significant digits of a number that is embedded in the page; files have all of them."""


@dataclass(frozen=True)
class Table:
    """A table that can be searched, sorted, drawn and downloaded.

    Attributes
    ----------
    name
        Of its file, without the suffix, and of it in the page.
    title
        What it holds, in a few words.
    columns
        Name of each column to its values, all of one length.
    n_embedded
        How many of the first rows the page holds; None for all.
    """

    name: str
    title: str
    columns: Mapping[str, Sequence[Any]]
    n_embedded: int | None = None

    def __post_init__(self) -> None:
        assert len({len(values) for values in self.columns.values()}) <= 1, self.name

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def text(self) -> str:
        """Return the table as TSV, nothing where a number is unknown."""
        rows = zip(*self.columns.values(), strict=True)
        return separated(list(self.columns), (map(cell, row) for row in rows))

    def embedded(self) -> dict[str, Any]:
        """Return the table for the page: names and columns, ``None`` where a number is unknown."""
        return {
            "title": self.title,
            "names": list(self.columns),
            "n": self.n_rows,
            "columns": [
                [_short(value) for value in values[: self.n_embedded]]
                for values in self.columns.values()
            ],
        }


def of_rows(name: str, title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table from one mapping a row, all of the same keys."""
    keys = list(rows[0]) if rows else []
    return Table(name, title, {key: [row[key] for row in rows] for key in keys})


def separated(
    header: Sequence[str], rows: Iterable[Iterable[object]], *, separator: str = "\t"
) -> str:
    """Return rows as separated text, quoted where a value holds a separator or a new line."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def cell(value: object) -> object:
    """Return a value of a table, nothing where a number is unknown, and never a formula."""
    if isinstance(value, float | np.floating) and not math.isfinite(value):
        return ""
    return no_formula(value)


def formatted(value: float | None, form: str = ".4f") -> str:
    """Return a number in a format, '-' where it is unknown: nan is never printed.

    Examples
    --------
    >>> formatted(-0.00001), formatted(-0.00001, "+.4f"), formatted(float("nan"))
    ('0.0000', '+0.0000', '-')
    """
    if value is None or not math.isfinite(value):
        return "-"
    text = format(value, form)
    return format(0.0, form) if text.startswith("-") and not text.strip("-0.%") else text


def interval(ends: tuple[float, float], form: str = ".4f") -> str:
    """Return both ends of an interval, '-' where it is unknown."""
    return (
        " to ".join(formatted(end, form) for end in ends) if all(map(math.isfinite, ends)) else "-"
    )


def _short(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def for_script(value: object) -> str:
    r"""Return JSON that can stand in a script element, whatever the names in it.

    No character that HTML gives a meaning to is left, so that no name can end the element.

    Examples
    --------
    >>> for_script("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def write(target: str, content: str | bytes) -> None:
    """Write a file whole, making its folder."""
    with told(target, remedy="Choose a writable root with free space."):
        put(target, content.encode() if isinstance(content, str) else content)


def write_tables(folder: str, tables: Sequence[Table], more: Mapping[str, str]) -> None:
    """Write every table as TSV, other texts by their file name, and an index of all.

    What an earlier report wrote by its index, and this one does not have, is removed: it would
    tell of another state of the study.
    """
    made = {f"{table.name}.tsv": table.text() for table in tables} | dict(more)
    titles = {f"{table.name}.tsv": table.title for table in tables}
    old = _listed(place_of(folder, INDEX))
    for name, text in made.items():
        write(f"{folder}/{name}", text)
    rows = [(name, titles.get(name, "for MultiQC")) for name in sorted(made)]
    write(f"{folder}/{INDEX}", separated(["file", "what"], rows))
    for name in sorted(old - made.keys()):
        with told(f"{folder}/{name}", "removed", remedy="Choose a writable root."):
            place_of(folder, name).unlink(missing_ok=True)


def _listed(index: Place) -> set[str]:
    """Return the files that an index lists, in its own folder only."""
    try:
        lines = index.read_text(encoding="utf-8").splitlines()[1:]
    except (OSError, ValueError):
        return set()
    names = {line.partition("\t")[0] for line in lines}
    return {name for name in names if name and Path(name).name == name and name != INDEX}
