"""Tables to download: tab- or comma-separated, for people and their spreadsheets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from dglzarr.report.tables import separated
from dglzarr.storage.files import no_formula

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS = {"tsv": ("\t", "text/tab-separated-values"), "csv": (",", "text/csv")}


def sheet(rows: Sequence[Mapping[Any, Any]], name: str, kind: str) -> Response:
    """Return rows as a file to download."""
    separator, media = KINDS[kind]
    cells = (map(cell, row.values()) for row in rows)
    text = separated(list(rows[0]), cells, separator=separator) if rows else ""
    file = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
    return Response(
        text.encode("utf-8", "replace"),
        media_type=f"{media}; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{file}.{kind}"'},
    )


def cell(value: object) -> str:
    """Return a value as a cell; a text that a spreadsheet would take for a formula is quoted.

    Examples
    --------
    >>> cell(0.123456), cell(None), cell("=1+1")
    ('0.1235', '', "'=1+1")
    """
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(no_formula(value))
