"""GCT 1.2 and 1.3 (text) and GCTX 1.0 (HDF5).

GCT is parsed into memory and turned; a GCTX matrix is `(sample, gene)` on disk and stays there,
read by slices of samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.base import Source, first_repeat, series_name, symbols_or_none
from dglzarr.sources.matrix import Layout, check_samples, read_matrix, require_rows
from dglzarr.sources.table import symbol_column
from dglzarr.sources.text import TextStream, decode, header_cells, split_cells

MISSING_METADATA = ("-666", "-666.0", "NA", "na", "NaN", "nan")
"""Metadata cells that mean nothing is known."""

_MATRIX = "0/DATA/0/matrix"


@dataclass(frozen=True)
class _Head:
    """Dimensions and columns of a GCT file."""

    n_rows: int
    columns: list[str]
    n_lead: int
    symbols: int | None


def read_gct(stream: TextStream, *, scratch: Path | None = None) -> Source:
    """Return a GCT 1.2 or 1.3 file; its column metadata become labels.

    Raises
    ------
    SourceError
        If version, dimensions, header or a row is not what it should be.
    """
    version = header_cells(stream.readline() or "", "\t")[0]
    if version not in ("#1.2", "#1.3"):
        raise stream.error(f"expected GCT version '#1.2' or '#1.3', got {version!r}.", line=1)
    n_rows, n_samples, n_row_meta, n_column_meta = _dimensions(stream, is_old=version == "#1.2")
    header = split_cells(stream.readline() or "", "\t")
    n_lead = 1 + n_row_meta
    columns = header[: n_lead + n_samples]
    if any(header[n_lead + n_samples :]) or len(columns) < n_lead + n_samples:
        got = len(header_cells("\t".join(header), "\t"))
        raise stream.error(
            f"expected {n_lead + n_samples} columns as line 2 says, got {got}.", line=3
        )
    samples = columns[n_lead:]
    check_samples(stream, samples, line=3)
    labels = _column_metadata(stream, columns, n_lead, n_column_meta)
    symbols = 1 if version == "#1.2" else symbol_column(columns[:n_lead])
    text = (0,) if symbols is None else (0, symbols)
    layout = Layout(columns, "\t", text, range(n_lead, len(columns)))
    matrix = read_matrix(stream, layout, scratch=scratch)
    require_rows(stream, matrix)
    genes = matrix.text[0]
    if len(genes) != n_rows:
        raise stream.error(
            f"expected {n_rows} rows as line 2 says, got {len(genes)}. The file may be cut off."
        )
    return Source(
        path=stream.path,
        format="gct",
        samples=samples,
        genes=genes,
        series=series_name(stream.path),
        platform=[""] * len(samples),
        values=matrix.values,
        gene_symbol=symbols_or_none(_known(matrix.text[1]), genes) if symbols else None,
        labels=labels,
    )


def _dimensions(stream: TextStream, *, is_old: bool) -> tuple[int, int, int, int]:
    """Return rows, samples, row metadata and column metadata of line 2."""
    line = stream.readline() or ""
    cells = header_cells(line, "\t")
    n_cells = 2 if is_old else 4
    if len(cells) != n_cells or not all(cell.isdecimal() for cell in cells):
        raise stream.error(f"expected {n_cells} dimensions, got {line[:60]!r}.", line=2)
    n_rows, n_samples, *meta = map(int, cells)
    n_row_meta, n_column_meta = (1, 0) if is_old else meta
    return n_rows, n_samples, n_row_meta, n_column_meta


def _column_metadata(
    stream: TextStream, columns: list[str], n_lead: int, n_rows: int
) -> dict[str, list[str]]:
    """Return the metadata rows under a GCT 1.3 header as labels."""
    labels = {}
    for _ in range(n_rows):
        line = stream.line
        cells = split_cells(stream.readline() or "", "\t")
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            raise stream.error(f"expected {len(columns)} columns, got {len(cells)}.", line=line)
        labels[cells[0]] = _known(cells[n_lead : len(columns)])
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
        try:
            with h5py.File(self.path) as file:
                block = np.asarray(file[_MATRIX][samples])
        except OSError as error:
            raise SourceError(
                f"{self.path.name}: expected a readable GCTX matrix, got {error}. "
                "Download it again."
            ) from error
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


def read_gctx(path: Path) -> Source:
    """Return a GCTX 1.0 file; values stay on disk.

    Raises
    ------
    SourceError
        If the file is no HDF5, lacks a part of GCTX, or its parts do not fit each other.
    """
    try:
        with h5py.File(path) as file:
            return _open_gctx(path, file)
    except OSError as error:
        raise SourceError(
            f"{path.name}: expected a complete HDF5 file, got a damaged one ({error}). "
            "Download it again."
        ) from error


def _open_gctx(path: Path, file: h5py.File) -> Source:
    """Return the labels of an open GCTX file and its values by path."""
    for part in (_MATRIX, "0/META/ROW/id", "0/META/COL/id"):
        if not isinstance(file.get(part), h5py.Dataset):
            raise SourceError(f"{path.name}: expected a dataset '/{part}' of GCTX 1.0, got none.")
    matrix = file[_MATRIX]
    row, column = file["0/META/ROW"], file["0/META/COL"]
    genes, samples = _strings(row["id"]), _strings(column["id"])
    if matrix.shape != (len(samples), len(genes)) or matrix.dtype.kind not in "fiu":
        raise SourceError(
            f"{path.name}: expected a numeric matrix of {len(samples)} samples x {len(genes)} "
            f"genes, got {matrix.dtype} {matrix.shape}."
        )
    for kind, ids in (("sample", samples), ("gene", genes)):
        _check_ids(path, kind, ids)
    symbols = next(
        (name for name in ("pr_gene_symbol", "gene_symbol", "symbol") if name in row), ""
    )
    return Source(
        path=path,
        format="gctx",
        samples=samples,
        genes=genes,
        series=series_name(path),
        platform=[""] * len(samples),
        values=GctxValues(path, (len(samples), len(genes))),
        gene_symbol=symbols_or_none(_known(_strings(row[symbols])), genes) if symbols else None,
        labels={
            name: _known(_strings(values))
            for name, values in column.items()
            if name != "id" and values.shape == (len(samples),)
        },
    )


def _check_ids(path: Path, kind: str, ids: Sequence[str]) -> None:
    """Refuse an empty table, empty ids and repeated ids."""
    if not ids:
        raise SourceError(f"{path.name}: expected at least one {kind}, got none.")
    if "" in ids:
        raise SourceError(f"{path.name}: expected a {kind} id, got ''.")
    if (repeated := first_repeat(ids)) is not None:
        raise SourceError(f"{path.name}: expected each {kind} once, got {repeated!r} again.")


def _strings(dataset: h5py.Dataset) -> list[str]:
    """Return a metadata dataset as text; whole numbers have no decimals."""
    values = dataset[()].tolist()
    return [_text(value) for value in (values if isinstance(values, list) else [values])]


def _text(value: bytes | str | float) -> str:
    """Return one metadata value as text."""
    if isinstance(value, bytes):
        return decode(value).strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
