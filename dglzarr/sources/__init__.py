"""Readers of expression files, one format a module, all returning a `Source`.

`read_source` looks at the content, not at the file name. Readers write no store.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py

from dglzarr.errors import SourceError
from dglzarr.sources.base import Source, source_name
from dglzarr.sources.gct import read_gct, read_gctx
from dglzarr.sources.geo import read_series_matrix, read_soft
from dglzarr.sources.table import (
    PLATFORM_COLUMNS,
    SERIES_COLUMNS,
    read_sample_sheet,
    read_table,
)
from dglzarr.sources.text import TextStream

__all__ = ["Source", "read_source", "source_name"]

_WITH_COLUMNS = ("table", "gct")
_WITH_SERIES = ("series-matrix", "soft")  # one GEO series: a characteristic "series" is no other


def read_source(
    path: str | Path,
    *,
    sample_sheet: str | Path | None = None,
    sample_column: str | None = None,
    value_columns: Sequence[str] = (),
    scratch: str | Path | None = None,
) -> Source:
    """Return an expression file of any known format, told by its content.

    Parameters
    ----------
    path
        GEO series matrix, GEO SOFT, GCT 1.2 or 1.3, GCTX 1.0 or an expression table (TSV or
        CSV, genes in rows); text may be gzip.
    sample_sheet
        Table with one row a sample; its columns are added to the labels.
    sample_column
        Column of the sheet that holds the sample ids; by default the first that covers them.
    value_columns
        Patterns of the columns of a table that are samples, such as ``*.AVG_Signal``; by default
        all that are no annotation, p-values or identifiers by their names.
    scratch
        Folder for the values of a text file with more samples than one shard (2048).

    Raises
    ------
    SourceError
        If the file is missing, of no known format, incomplete or wrong; names file and line.

    Notes
    -----
    Text is parsed in blocks into one array of 4 bytes a cell; GCTX values stay in the file.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(
            f"{path}: expected a file, got {'a folder' if path.exists() else 'none'}."
        )
    source = read_gctx(path) if h5py.is_hdf5(path) else _read_text(path, scratch, value_columns)
    if value_columns and source.format not in _WITH_COLUMNS:
        raise SourceError(
            f"{path.name}: expected a table or GCT to choose value_columns of, got "
            f"{source.format}. Remove the setting."
        )
    if source.format not in _WITH_SERIES:
        source = replace(source, sample_series=_series(source.labels))
    if sample_sheet is None:
        return source
    if not Path(sample_sheet).is_file():
        raise SourceError(f"{sample_sheet}: expected a sample sheet, got none.")
    labels = read_sample_sheet(Path(sample_sheet), source.samples, column=sample_column)
    platform = next((labels[name] for name in PLATFORM_COLUMNS if name in labels), source.platform)
    return replace(
        source,
        labels={**source.labels, **labels},
        platform=platform,
        sample_series=_series(labels) or source.sample_series,
    )


def _series(labels: Mapping[str, list[str]]) -> list[str] | None:
    """Return the study of each sample where a label names it."""
    return next((labels[name] for name in SERIES_COLUMNS if name in labels), None)


def _read_text(path: Path, scratch: str | Path | None, value_columns: Sequence[str]) -> Source:
    """Return a text file by the reader that its first line asks for."""
    folder = None if scratch is None else Path(scratch)
    with TextStream(path) as stream:
        stream.skip_blank()
        first = stream.peek() or ""
        if first.startswith("#1."):
            return read_gct(stream, scratch=folder, value_columns=value_columns)
        if first.startswith("^") or (first.startswith("!") and "\t" not in first):
            return read_soft(stream, scratch=folder)
        if first.startswith("!"):
            return read_series_matrix(stream, scratch=folder)
        try:
            return read_table(stream, scratch=folder, value_columns=value_columns)
        except SourceError as error:
            if ".gct" not in path.suffixes:
                raise
            raise SourceError(
                f"{path.name}, line 1: expected '#1.2' or '#1.3', as a GCT begins, got "
                f"{first.strip()[:60]!r}; nor is it a table: {error}"
            ) from error
