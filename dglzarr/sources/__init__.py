"""Readers of expression files, one format a module, all returning a `Source`.

`read_source` looks at the content, not at the file name. Readers write no store.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import h5py

from dglzarr.errors import SourceError
from dglzarr.sources.arrow import arrow_format, read_arrow
from dglzarr.sources.base import Reading, Source, source_name
from dglzarr.sources.cel import refuse_cel
from dglzarr.sources.chosen import choose_samples
from dglzarr.sources.compendia import hdf5_format, read_archs4, read_h5ad
from dglzarr.sources.gct import read_gct, read_gctx
from dglzarr.sources.geo import read_series_matrix, read_soft
from dglzarr.sources.identifiers import read_annotation_table
from dglzarr.sources.persons import name_persons
from dglzarr.sources.table import (
    PLATFORM_COLUMNS,
    SERIES_COLUMNS,
    read_sample_sheet,
    read_table,
)
from dglzarr.sources.text import TextStream

__all__ = ["Reading", "Source", "read_source", "source_name"]

_FORMATS_OF = {
    "value_columns": ("table", "gct", "parquet", "feather"),
    "samples_in": ("table", "parquet", "feather"),
    "max_single_cell": ("archs4",),
    "layer": ("h5ad",),
}
_LIES = {"columns": ("gct", "gctx"), "rows": ("h5ad",), None: ()}
"""Formats that lie one way alone, which may be stated where names say otherwise."""
_NAMED = {"max_single_cell": "an ARCHS4 file", "layer": "an h5ad"}
_HDF5 = {
    "archs4": read_archs4,
    "h5ad": read_h5ad,
    "gctx": read_gctx,
}
_WITH_SERIES = (
    "series-matrix",
    "soft",
    "archs4",
)  # one GEO series: a characteristic "series" is no other


def read_source(
    path: str | Path,
    *,
    sample_sheet: str | Path | None = None,
    sample_column: str | None = None,
    reading: Reading = Reading(),
    annotation: str | Path | None = None,
    scratch: str | Path | None = None,
) -> Source:
    """Return an expression file of any known format, told by its content.

    Parameters
    ----------
    path
        GEO series matrix, GEO SOFT, GCT 1.2 or 1.3, GCTX 1.0, ARCHS4's HDF5, h5ad, or a wide
        matrix as TSV, CSV, Parquet or Feather, with genes or samples in rows; text may be gzip.
    sample_sheet
        Table with one row a sample; its columns are added to the labels.
    sample_column
        Column of the sheet that holds the sample ids; by default the first that covers them.
    reading
        How it is read where its content leaves that open.
    annotation
        Table of gene symbols, for genes of which the file names none.
    scratch
        Folder for the values of a text file with more samples than one shard (2048).

    Raises
    ------
    SourceError
        If the file is missing, of no known format, incomplete or wrong; names file and line.
    ConfigError
        If its format needs a package that is not installed.

    Notes
    -----
    Text is parsed in blocks into one array of 4 bytes a cell; other values stay in the file.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(
            f"{path}: expected a file, got {'a folder' if path.exists() else 'none'}."
        )
    source = _read_file(path, None if scratch is None else Path(scratch), reading)
    for setting, formats in _FORMATS_OF.items():
        is_true = setting == "samples_in" and source.format in _LIES.get(reading.samples_in, ())
        is_set = getattr(reading, setting) not in (None, ())
        if is_set and not is_true and source.format not in formats:
            raise SourceError(
                f"{path.name}: expected {_NAMED.get(setting, 'a table')} to choose {setting} of, "
                f"got {source.format}. Remove the setting."
            )
    if source.format not in _WITH_SERIES:
        source = replace(source, sample_series=_series(source.labels))
    if annotation is not None:
        source = replace(source, gene_symbol=_named(source, annotation))
    if sample_sheet is None:
        return choose_samples(name_persons(source), reading)
    if not Path(sample_sheet).is_file():
        raise SourceError(f"{sample_sheet}: expected a sample sheet, got none.")
    labels = read_sample_sheet(Path(sample_sheet), source.samples, column=sample_column)
    platform = next((labels[name] for name in PLATFORM_COLUMNS if name in labels), source.platform)
    sheeted = replace(
        source,
        labels={**source.labels, **labels},
        platform=platform,
        sample_series=_series(labels) or source.sample_series,
    )
    return choose_samples(name_persons(sheeted), reading)


def _named(source: Source, annotation: str | Path) -> list[str]:
    """Return the symbols that a file names, else those of a table."""
    table = read_annotation_table(annotation)
    own = source.gene_symbol or [""] * len(source.genes)
    return [symbol or table.symbol_of(gene) for symbol, gene in zip(own, source.genes, strict=True)]


def _series(labels: Mapping[str, list[str]]) -> list[str] | None:
    """Return the study of each sample where a label names it."""
    return next((labels[name] for name in SERIES_COLUMNS if name in labels), None)


def _read_file(path: Path, scratch: Path | None, reading: Reading) -> Source:
    """Return a file by the reader that its first bytes ask for."""
    if h5py.is_hdf5(path):
        return _HDF5[hdf5_format(path, is_checked=reading.is_bare)](path, reading)
    if (kind := arrow_format(path)) is not None:
        return read_arrow(path, kind, reading)
    refuse_cel(path)
    with TextStream(path) as stream:
        stream.skip_blank()
        first = stream.peek() or ""
        if first.startswith("#1."):
            return read_gct(stream, scratch=scratch, reading=reading)
        if first.startswith("^") or (first.startswith("!") and "\t" not in first):
            return read_soft(stream, scratch=scratch)
        if first.startswith("!"):
            return read_series_matrix(stream, scratch=scratch)
        try:
            return read_table(stream, scratch=scratch, reading=reading)
        except SourceError as error:
            if ".gct" not in path.suffixes:
                raise
            raise SourceError(
                f"{path.name}, line 1: expected '#1.2' or '#1.3', as a GCT begins, got "
                f"{first.strip()[:60]!r}; nor is it a table: {error}"
            ) from error
