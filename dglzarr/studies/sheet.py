"""The sheet of an RNA-seq series' samples: from the heads of its matrices, beside NCBI's counts."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from dglzarr.access.http import RefusedError
from dglzarr.sources.geo import read_series_labels
from dglzarr.sources.text import TextStream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_SAMPLE = "Sample"
_SHOWN = 3


def series_sheet(matrices: Sequence[Path]) -> bytes:
    """Return a table of samples, a row each, with platforms and labels."""
    rows = [row for path in matrices for row in _rows(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, delimiter="\t", restval="", lineterminator="\n")
    table.writeheader()
    table.writerows({k: " ".join(v.split()) for k, v in row.items()} for row in rows)
    return text.getvalue().encode()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with TextStream(path) as stream:
        samples, platforms, labels = read_series_labels(stream)
    for place, sample in enumerate(samples):
        own = {name: values[place] for name, values in labels.items()}
        own = {name: value for name, value in own.items() if name not in (_SAMPLE, "platform")}
        yield {_SAMPLE: sample, "platform": platforms[place], **own}


def compare_counts(counts: Path, sheet: bytes) -> str:
    """Return which samples of a sheet have no counts, in words; "" where all have.

    Raises
    ------
    RefusedError
        When there are counts of none, or of samples that the sheet does not have.
    """
    table = csv.DictReader(io.StringIO(sheet.decode()), delimiter="\t", quoting=csv.QUOTE_MINIMAL)
    described = dict.fromkeys(row[_SAMPLE] for row in table)
    with TextStream(counts) as stream:
        counted = [cell.strip().strip('"') for cell in (stream.readline() or "").split("\t")[1:]]
    unknown = [sample for sample in counted if sample not in described]
    if unknown or not counted:
        raise RefusedError(
            f"expected NCBI's counts of samples that its series matrix describes, got "
            f"{_listed(unknown) or 'none'}. Remove it, or download the counts, and name the file"
        )
    has_counts = set(counted)
    missing = [sample for sample in described if sample not in has_counts]
    if not missing:
        return ""
    return f"{len(counted)} of {len(described)} samples: NCBI has no counts of {_listed(missing)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
