"""A table as text, JSON or Parquet, whole or cut to a terminal."""

from __future__ import annotations

import importlib.util
import io
import json
from typing import TYPE_CHECKING, Literal

import pandas as pd

from dglzarr.errors import ConfigError
from dglzarr.storage.files import no_formula, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

Format = Literal["table", "tsv", "csv", "json", "parquet"]
FORMATS: tuple[Format, ...] = ("table", "tsv", "csv", "json", "parquet")

_WIDEST = 36
"""Characters of a cell that a terminal is shown."""

_FEW = 3
"""Rows that stand side by side where a table is too wide."""


def write_table(frame: pd.DataFrame, form: Format, *, width: int | None = None) -> bytes:
    """Return a table in a format, UTF-8.

    Parameters
    ----------
    frame
        The table; its index is left out.
    form
        ``table`` has aligned columns for people, six digits; ``tsv`` and ``csv`` six digits, and an
        apostrophe before what a spreadsheet would take for a formula;
        ``json`` is a list of records, null where a value is missing; ``parquet`` keeps types.
    width
        Of ``table``: characters of a line; columns that do not fit are named below. None: all.

    Raises
    ------
    ConfigError
        When Parquet is asked for without pyarrow.
    """
    if form == "table":
        return "".join(f"{line}\n" for line in aligned(frame, width)).encode()
    if form == "json":
        return f"{json.dumps(_records(frame), indent=1)}\n".encode()
    if form == "parquet":
        need_parquet()
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        return buffer.getvalue()
    separator = "\t" if form == "tsv" else ","
    sheet = frame.map(no_formula).rename(columns=no_formula)
    text: str = sheet.to_csv(sep=separator, index=False, float_format="%.6g", lineterminator="\n")
    return text.encode()


def need_parquet() -> None:
    """Refuse Parquet where nothing can write it.

    Raises
    ------
    ConfigError
        Saying what to install.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            "--format: parquet needs pyarrow. Run: pip install 'dglzarr[parquet]', or choose tsv."
        )


def _records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows of a table as JSON has them."""
    columns = {str(name): map(plain, frame[name].tolist()) for name in frame.columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def aligned(frame: pd.DataFrame, width: int | None = None) -> list[str]:
    r"""Return the lines of a table with aligned columns; what does not fit is told in a last line.

    Examples
    --------
    >>> frame = pd.DataFrame({"gene": ["TP53", "MYC"], "score": [0.5, 12.25], "note": ["a", "b"]})
    >>> print(*aligned(pd.concat([frame, frame]), 14), sep="\n")
    gene  score
    TP53    0.5
    MYC   12.25
    TP53    0.5
    MYC   12.25
    Not shown: note. Choose with --columns, or --format tsv.

    A table of up to three rows that is too wide stands on its side, so that every column is seen:

    >>> print(*aligned(frame.assign(place=["a chromosome", "another"]), 30), sep="\n")
    gene   TP53        MYC
    score  0.5         12.25
    note   a           b
    place  a chromos…  another
    """
    cells = {str(name): _cells(frame[name]) for name in frame.columns}
    shown: list[str] = []
    used = 0
    for name, column in cells.items():
        used += max(map(len, [name, *column])) + (2 if shown else 0)
        if width is not None and used > width and shown:
            break
        shown.append(name)
    if len(shown) < len(cells) and width is not None and len(frame) <= _FEW:
        return _on_its_side(frame, width)
    lines = _lines({name: cells[name] for name in shown}, frame)
    hidden = [name for name in cells if name not in shown]
    if hidden:
        some = ", ".join(hidden[:8]) + (f" and {len(hidden) - 8} more" if len(hidden) > 8 else "")
        lines.append(f"Not shown: {some}. Choose with --columns, or --format tsv.")
    return lines


def _on_its_side(frame: pd.DataFrame, width: int) -> list[str]:
    """Return the lines of a table of few rows, a line a column."""
    names = [str(name) for name in frame.columns]
    room = (width - max(map(len, names))) // max(1, len(frame)) - 2
    columns = [_cells(frame[name], max(room, 8)) for name in names]
    rows = [(name, *cells) for name, cells in zip(names, columns, strict=True)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:{n}}" for cell, n in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _lines(cells: dict[str, list[str]], frame: pd.DataFrame) -> list[str]:
    padded: list[Sequence[str]] = []
    for name, column in cells.items():
        widest = max(map(len, [name, *column]))
        is_number = pd.api.types.is_numeric_dtype(frame[name].dtype) and frame[name].dtype != bool
        side = ">" if is_number else "<"
        padded.append([f"{cell:{side}{widest}}" for cell in [name, *column]])
    return ["  ".join(row).rstrip() for row in zip(*padded, strict=True)]


def _cells(column: pd.Series, widest: int = _WIDEST) -> list[str]:
    """Return values as people read them: six digits, nothing that a terminal would obey."""
    values = column.tolist()
    texts = [f"{value:.6g}" if isinstance(value, float) else str(value) for value in values]
    texts = [
        "-" if text == "nan" and value != value else text
        for text, value in zip(texts, values, strict=True)
    ]
    texts = [*map(printable, texts)]
    return [text if len(text) <= widest else f"{text[: widest - 1]}…" for text in texts]


def printable(text: str) -> str:
    r"""Return text with an escape for all that cannot be printed, which no terminal or XML obeys.

    Examples
    --------
    >>> print(printable("a\x1b[2J"))
    a\x1b[2J
    """
    return text if text.isprintable() else ascii(str(text))[1:-1]
