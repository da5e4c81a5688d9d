"""GCT 1.2 and 1.3 (text) and GCTX 1.0 (HDF5).

GCT is parsed into memory and turned; a GCTX matrix is `(sample, gene)` on disk and stays there,
read by slices of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.base import Reading, Source, matrix_source
from dglzarr.sources.columns import check_unique, find_symbols, sort_columns
from dglzarr.sources.hdf5 import check_chunk, find_dataset, strings, told
from dglzarr.sources.matrix import Layout, check_samples, read_matrix, require_rows
from dglzarr.sources.text import TextStream, header_cells, split_cells
from dglzarr.sources.turned import refuse_turned

MISSING_METADATA = ("-666", "-666.0", "NA", "na", "NaN", "nan")
"""Metadata cells that mean nothing is known."""

_TURN = "Write the matrix the other way round"
_MATRIX = "0/DATA/0/matrix"
_IDS = ("0/META/ROW/id", "0/META/COL/id")


def read_gct(
    stream: TextStream, *, scratch: Path | None = None, reading: Reading = Reading()
) -> Source:
    """Return a GCT 1.2 or 1.3 file; its column metadata become labels.

    Parameters
    ----------
    stream
        Text that stands on the version.
    scratch
        Folder for the values of more than one shard of samples.
    reading
        Which columns hold values, and whether they are samples; these are not doubted then.

    Raises
    ------
    SourceError
        If version, dimensions, header or a row is not what it should be.
    """
    version = header_cells(stream.readline() or "", "\t")[0]
    if version not in ("#1.2", "#1.3"):
        raise stream.error(f"expected GCT version '#1.2' or '#1.3', got {version!r}.", line=1)
    n_rows, n_samples, n_row_meta, n_column_meta = _dimensions(stream, is_old=version == "#1.2")
    n_lead = 1 + n_row_meta
    columns = _header(stream, n_lead + n_samples)
    found = sort_columns(f"{stream.name}, line 3", columns, reading.value_columns, n_lead=n_lead)
    samples = [columns[place] for place in found.samples]
    check_samples(stream, samples, line=3)
    labels = _column_metadata(stream, columns, found.samples, n_column_meta)
    symbols = 1 if version == "#1.2" else find_symbols(columns[:n_lead])
    text = (0,) if symbols is None else (0, symbols)
    matrix = read_matrix(stream, Layout(columns, "\t", text, found.samples), scratch=scratch)
    require_rows(stream, matrix)
    genes, left_out = matrix.text[0], (*found.left_out, *matrix.left_out)
    n_found = len(genes) + sum(len(one.names) for one in matrix.left_out)
    if n_found != n_rows:
        under = f" under {n_column_meta} of labels" if n_column_meta else ""
        raise stream.error(
            f"expected {n_rows} rows{under} as line 2 says, got {n_found}. The file may be cut off."
        )
    if not reading.value_columns and reading.samples_in is None:
        refuse_turned(stream.name, genes, samples, remedy=_TURN)
    named = matrix.text[1] if symbols else None
    more: dict[str, Any] = {"labels": labels, "left_out": left_out}
    return matrix_source(stream.path, "gct", samples, genes, matrix.values, symbols=named, **more)


def _header(stream: TextStream, n_columns: int) -> list[str]:
    """Return the names of the columns, which are as many as line 2 says."""
    header = split_cells(stream.readline() or "", "\t")
    columns = header[:n_columns]
    if any(header[n_columns:]) or len(columns) < n_columns:
        got = len(header_cells("\t".join(header), "\t"))
        raise stream.error(f"expected {n_columns} columns as line 2 says, got {got}.", line=3)
    return columns


def _dimensions(stream: TextStream, *, is_old: bool) -> tuple[int, int, int, int]:
    """Return rows, samples, row metadata and column metadata of line 2."""
    line = stream.readline() or ""
    cells = header_cells(line, "\t")
    n_cells = 2 if is_old else 4
    if len(cells) != n_cells or not all(c.isdecimal() and len(c) < 10 for c in cells):
        raise stream.error(f"expected {n_cells} dimensions, got {line[:60]!r}.", line=2)
    n_rows, n_samples, *meta = map(int, cells)
    n_row_meta, n_column_meta = (1, 0) if is_old else meta
    return n_rows, n_samples, n_row_meta, n_column_meta


def _column_metadata(
    stream: TextStream, columns: list[str], samples: Sequence[int], n_rows: int
) -> dict[str, list[str]]:
    """Return the metadata rows under a GCT 1.3 header as labels."""
    labels = {}
    for _ in range(n_rows):
        line = stream.line
        cells = split_cells(stream.readline() or "", "\t")
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise stream.error(f"expected {len(columns)} columns, got {len(cells)}.", line=line)
        labels[cells[0]] = _known([cells[place] for place in samples])
    return labels


def _known(cells: Sequence[str]) -> list[str]:
    """Return the cells with "" for those that mean nothing is known."""
    return ["" if cell in MISSING_METADATA else cell for cell in cells]


@dataclass(frozen=True)
class GctxValues:
    """The matrix of a GCTX file, opened for each slice so that it can be sent to workers."""

    path: Path
    shape: tuple[int, int]

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the values `(sample, gene)` of a slice of samples.

        Raises
        ------
        SourceError
            If the file is damaged or a value is infinite.
        """
        with told(self.path, "a readable GCTX matrix"), h5py.File(self.path) as file:
            block = np.asarray(file[_MATRIX][samples])
        with np.errstate(over="ignore"):
            values = block.astype(np.float32, copy=False)
        if np.isinf(values).any():
            sample, gene = np.argwhere(np.isinf(values))[0]
            row = int(sample) + (samples.start or 0)
            raise SourceError(
                f"{self.path.name}: expected finite values, got {block[sample, gene]!r} in "
                f"sample {row}, gene {int(gene)} of {_MATRIX}."
            )
        return values


def read_gctx(path: Path, reading: Reading = Reading()) -> Source:
    """Return a GCTX 1.0 file; values stay on disk.

    Ids may be of any type, also in one column; groups among the metadata are no labels.

    Raises
    ------
    SourceError
        If the file is no HDF5, lacks a part of GCTX, or its parts do not fit each other.
    """
    with told(path, "a complete HDF5 file"), h5py.File(path) as file:
        return _open_gctx(path, file, reading)


def gctx_shape(path: Path) -> tuple[int, int]:
    """Return how many samples and genes a GCTX file holds.

    Raises
    ------
    SourceError
        If the file is no GCTX.
    """
    with told(path, "a complete HDF5 file"), h5py.File(path) as file:
        n_samples, n_genes = find_dataset(path, file, _MATRIX).shape
        return int(n_samples), int(n_genes)


def _open_gctx(path: Path, file: h5py.File, reading: Reading) -> Source:
    """Return the labels of an open GCTX file and its values by path."""
    matrix, *ids = (find_dataset(path, file, name) for name in (_MATRIX, *_IDS))
    genes, samples = map(strings, ids)
    row, column = file["0/META/ROW"], file["0/META/COL"]
    if matrix.shape != (len(samples), len(genes)) or matrix.dtype.kind not in "fiu":
        raise SourceError(
            f"{path.name}: expected a numeric matrix of {len(samples)} samples x {len(genes)} "
            f"genes, got {matrix.dtype} {matrix.shape}."
        )
    check_chunk(matrix)
    for kind, names in (("sample", samples), ("gene", genes)):
        check_unique(path, kind, names)
    if reading.samples_in is None:
        refuse_turned(path.name, genes, samples, remedy=_TURN)
    fields = _fields(row, len(genes))
    place = find_symbols(["id", *fields])
    symbols = None if place is None else strings(row[[*fields][place - 1]])
    told = _fields(column, len(samples)).items()
    labels = {name: _known(strings(values)) for name, values in told}
    values = GctxValues(path, (len(samples), len(genes)))
    return matrix_source(
        path, "gctx", samples, genes, values, symbols=symbols, labels=labels, is_lazy=True
    )


def _fields(group: h5py.Group, n: int) -> dict[str, h5py.Dataset]:
    """Return the metadata that have one value an id, without the ids; groups have none.

    Raises
    ------
    ValueError
        If one of them cannot be opened.
    """
    found = dict(group.items())
    if lost := [name for name, values in found.items() if values is None]:
        raise ValueError(f"nothing behind {group.name}/{lost[0]}")
    return {
        name: values
        for name, values in found.items()
        if name != "id" and isinstance(values, h5py.Dataset) and values.size == n
    }
