"""Compendia in HDF5: ARCHS4's ``human_gene_v2.x.h5``, and AnnData's ``.h5ad``.

Labels are read whole, values by regions and straight from the file. Neither archs4py nor anndata
is needed.

References
----------
Lachmann et al. (2018), doi 10.1038/s41467-018-03751-6: ARCHS4.
Virshup et al. (2024), doi 10.21105/joss.04371: the format of AnnData.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np

from dglzarr.errors import SourceError
from dglzarr.sources.base import LeftOut, Reading, Source, Values, matrix_source
from dglzarr.sources.chosen import keep_samples, series_of
from dglzarr.sources.chunked import Chunked
from dglzarr.sources.columns import check_unique, counts_rows, find_ids, find_symbols
from dglzarr.sources.hdf5 import check_chunk, check_heaps, find_dataset, strings, told
from dglzarr.sources.turned import are_turned
from dglzarr.sources.wide import Picked

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

MOST_SINGLE_CELL = 0.5
"""ARCHS4's own threshold: samples of a higher probability to be single cells are left out."""

_ARCHS4 = "ARCHS4"
EXPRESSION = "data/expression"
_GENE_IDS = ("ensembl_gene", "ensembl_gene_id", "ensembl_id")
_SYMBOLS = ("symbol", "gene_symbol", "genes")
_LABELS = ("title", "source_name_ch1", "characteristics_ch1")
_SINGLE_CELL = "singlecellprobability"
_TISSUE = re.compile(r"(?:^|[,\t])\s*(?:tissue|tissue type|organ)\s*:\s*([^,\t]+)", re.IGNORECASE)
_VALUES_AT_ONCE = 2**22
_MOST_LABELS = 200


def hdf5_format(path: Path, *, is_checked: bool = False) -> Literal["archs4", "h5ad", "gctx"]:
    """Return which format an HDF5 file is of, by its parts: GCTX where it is of no other.

    Parameters
    ----------
    path
        The file.
    is_checked
        Whether its heaps were looked at before, as ingest does of what is linked.

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    if not is_checked:
        check_heaps(path)
    with told(path, "a complete HDF5 file"), h5py.File(path) as file:
        return "archs4" if is_archs4(file) else "h5ad" if is_h5ad(file) else "gctx"


def told_cost(values: Values, region: int) -> str:
    """Return what reading regions of a matrix costs where each chunk is unpacked often, else "".

    Parameters
    ----------
    values
        The matrix of a compendium.
    region
        Samples of a region.
    """
    while isinstance(values, Picked):
        values = values.values
    if isinstance(values, Sparse) and values.is_by_gene:
        n_times = -(-values.shape[0] // region)
        return f"values lie by gene (csc): all of them are read {n_times} times; csr is faster"
    if not isinstance(values, Chunked):
        return ""
    n_unpacked = values.n_unpacked(region)
    if n_unpacked < 2:
        return ""
    return (
        f"a chunk holds {values.width} samples, a region {region}: each is unpacked about "
        f"{n_unpacked:.0f} times; repack it in chunks of a region or less to read it once"
    )


def is_archs4(file: h5py.File) -> bool:
    """Return whether an HDF5 file is laid out as ARCHS4's are."""
    return EXPRESSION in file and "meta" in file


def is_h5ad(file: h5py.File) -> bool:
    """Return whether an HDF5 file is laid out as AnnData's are."""
    return "X" in file and "obs" in file and "var" in file


# ---------------------------------------------------------------- ARCHS4


def read_archs4(path: Path, reading: Reading = Reading()) -> Source:
    """Return an ARCHS4 file, version 1 or 2; values stay on disk.

    Genes are labelled by Ensembl id where the file has them, else by symbol, a repeated one with
    its number. Samples that are probably single cells are left out.

    Raises
    ------
    SourceError
        If the file is damaged, or its parts do not fit each other.
    """
    with told(path, "a complete HDF5 file"), h5py.File(path) as file:
        return archs4_source(path, file, reading, is_labelled=not reading.is_bare)


def archs4_source(path: Path, file: h5py.File, reading: Reading, *, is_labelled: bool) -> Source:
    """Return an opened ARCHS4 file as `read_archs4` does, with or without what only describes.

    Raises
    ------
    SourceError
        If its parts do not fit each other.
    """
    matrix = find_dataset(path, file, EXPRESSION, of=_ARCHS4)
    samples = strings(_sample_field(path, file, "geo_accession"))
    genes, symbols, notes = _archs4_genes(path, file)
    check_unique(path, "sample", samples)
    check_unique(path, "gene", genes)
    is_turned = _is_turned(path, matrix, len(samples), len(genes))
    values = Chunked.of(path, matrix, is_turned=is_turned)
    labels = _archs4_labels(file, len(samples)) if is_labelled else {}
    series = [""] * len(samples) if reading.is_bare else _archs4_series(file, len(samples))
    kept, left_out = _bulk_samples(file, samples, reading)
    more = {"sample_series": series if any(series) else None, "is_lazy": True}
    source = matrix_source(
        path, "archs4", samples, genes, values, symbols=symbols, notes=notes, labels=labels, **more
    )
    return keep_samples(source, kept, left_out) if left_out else source


def _sample_field(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """Return what a file says of each sample, by the names of version 2 or of version 1."""
    found = _optional(file, f"meta/samples/{name}", f"meta/Sample_{name}")
    if found is None:
        return find_dataset(path, file, f"meta/samples/{name}", of=_ARCHS4)
    return found


def _optional(file: h5py.File, *names: str) -> h5py.Dataset | None:
    """Return the first of some parts that a file has, or None.

    Raises
    ------
    ValueError
        If one of them cannot be opened.
    """
    for name in names:
        found = file.get(name)
        if isinstance(found, h5py.Dataset):
            return found
        if found is None and file.get(name, getlink=True) is not None:
            raise ValueError(f"nothing behind /{name}")
    return None


def _archs4_genes(path: Path, file: h5py.File) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Return label and symbol of each gene, and what is to be known of them."""
    ids = _optional(file, *(f"meta/genes/{name}" for name in _GENE_IDS))
    named = _optional(file, *(f"meta/genes/{name}" for name in _SYMBOLS), "meta/genes")
    if ids is None and named is None:
        raise SourceError(
            f"{path.name}: expected 'meta/genes/symbol', 'meta/genes/gene_symbol' or "
            "'meta/genes/ensembl_gene' of ARCHS4, got none."
        )
    symbols = strings(named) if named is not None else []
    labels = strings(ids) if ids is not None else _numbered(symbols)
    symbols = symbols or labels
    if len(symbols) != len(labels):
        raise SourceError(
            f"{path.name}: expected as many symbols as ids of genes, got {len(symbols)} and "
            f"{len(labels)}."
        )
    n_again = len(symbols) - len(set(symbols))
    note = f"{n_again} symbols of genes come again: with feature_kind 'gene' they are averaged"
    return labels, symbols, (note,) if n_again else ()


def _numbered(symbols: Sequence[str]) -> list[str]:
    """Return symbols as labels, a repeated one with its number.

    Examples
    --------
    >>> _numbered(["A", "B", "A"])
    ['A', 'B', 'A#2']
    """
    count: dict[str, int] = {}
    labels = []
    for symbol in symbols:
        count[symbol] = count.get(symbol, 0) + 1
        labels.append(symbol if count[symbol] == 1 else f"{symbol}#{count[symbol]}")
    return labels


def _is_turned(path: Path, matrix: h5py.Dataset, n_samples: int, n_genes: int) -> bool:
    """Return whether genes are the first axis, as in version 2; by the lengths of both.

    Where these are the same, the names of the fields tell the version.
    """
    is_square = n_genes == n_samples
    if matrix.shape == (n_genes, n_samples):
        return not is_square or "meta/samples" in matrix.file
    if matrix.shape == (n_samples, n_genes):
        return False
    raise SourceError(
        f"{path.name}: expected a matrix of {n_genes} genes and {n_samples} samples, got "
        f"{matrix.shape}."
    )


def _archs4_labels(file: h5py.File, n_samples: int) -> dict[str, list[str]]:
    """Return the labels of the samples, the tissue among them where their characteristics say."""
    labels = {}
    for name in _LABELS:
        found = _optional(file, f"meta/samples/{name}", f"meta/Sample_{name}")
        if found is not None and found.size == n_samples:
            labels[name] = strings(found)
    tissues = [_TISSUE.search(text) for text in labels.get("characteristics_ch1", [])]
    if any(tissues):
        labels["tissue"] = [found[1].strip() if found else "" for found in tissues]
    return labels


def _archs4_series(file: h5py.File, n_samples: int) -> list[str]:
    """Return the series of each sample, several joined by a comma."""
    found = _optional(file, "meta/samples/series_id", "meta/Sample_series_id")
    if found is None or found.size != n_samples:
        return [""] * n_samples
    return [",".join(series_of(text)) for text in strings(found)]


def archs4_fields(
    file: h5py.File, n_samples: int, rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return what an ARCHS4 file says of its genes and of some samples, named as in version 2."""
    found: dict[str, NDArray[Any]] = {}
    for name in ("geo_accession", "series_id", *_LABELS, _SINGLE_CELL):
        field = _optional(file, f"meta/samples/{name}", f"meta/Sample_{name}")
        if field is not None and field.size == n_samples:
            found[f"meta/samples/{name}"] = field[rows] if rows.size < n_samples else field[()]
    for name in (*_GENE_IDS, *_SYMBOLS):
        field = _optional(file, f"meta/genes/{name}")
        if field is not None:
            found[f"meta/genes/{name}"] = field[()]
    if (field := _optional(file, "meta/genes")) is not None:
        found["meta/genes/symbol"] = field[()]
    return found


def _bulk_samples(
    file: h5py.File, samples: Sequence[str], reading: Reading
) -> tuple[NDArray[np.int64], tuple[LeftOut, ...]]:
    """Return which samples are no single cells by ARCHS4's probability, and the others."""
    found = _optional(file, f"meta/samples/{_SINGLE_CELL}")
    every = np.arange(len(samples))
    if found is None or found.size != len(samples) or reading.is_bare:
        return every, ()
    if found.dtype.kind not in "fiu":
        raise ValueError(f"{found.name} of {found.dtype}")
    most = MOST_SINGLE_CELL if reading.max_single_cell is None else reading.max_single_cell
    is_single = np.asarray(found[()], np.float64) > most
    reason = f"probability over {most:g} to be of single cells (max_single_cell)"
    others = [(reason, samples[i]) for i in np.flatnonzero(is_single).tolist()]
    return every[~is_single], LeftOut.group("samples", others)


# ---------------------------------------------------------------- AnnData


def read_h5ad(path: Path, reading: Reading = Reading()) -> Source:
    """Return an AnnData file; values, dense or sparse, stay on disk.

    Raises
    ------
    SourceError
        If the file is damaged, its parts do not fit each other, or it has no such layer.
    """
    with told(path, "a complete HDF5 file"), h5py.File(path) as file:
        name = f"layers/{reading.layer}" if reading.layer else "X"
        found = file.get(name)
        if found is None:
            known = ", ".join(map(repr, file.get("layers", {}))) or "none"
            raise SourceError(
                f"{path.name}: expected a layer {reading.layer!r}, got {known}. Correct 'layer'."
            )
        samples, fields = _frame(path, file, "obs", is_bare=reading.is_bare)
        genes, columns = _frame(path, file, "var", is_bare=False)
        place = find_ids(["", *columns])
        left_out: tuple[LeftOut, ...] = ()
        if place is not None and counts_rows("", genes, has_ids=True):
            genes = columns.pop([*columns][place - 1])
            left_out = (LeftOut("columns", "numbers of rows", ("the index of var",)),)
        check_unique(path, "sample", samples)
        check_unique(path, "gene", genes)
        values = _anndata_values(path, found, (len(samples), len(genes)))
    if reading.samples_in is None and are_turned(genes, samples):
        raise SourceError(
            f"{path.name}: expected samples as obs and genes as var, got {samples[0]!r} among obs "
            f"and {genes[0]!r} among var. Write it transposed. Where obs are samples as they are, "
            "state samples_in = 'rows'."
        )
    place = find_symbols(["id", *columns])
    symbols = [*columns.values()][place - 1] if place else None
    return matrix_source(
        path,
        "h5ad",
        samples,
        genes,
        values,
        symbols=symbols,
        labels=fields,
        left_out=left_out,
        is_lazy=True,
    )


def _frame(
    path: Path, file: h5py.File, name: str, *, is_bare: bool
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the index and the columns of a table of an AnnData file, as text."""
    group = file[name]
    if not isinstance(group, h5py.Group):
        raise SourceError(
            f"{path.name}: expected a group '{name}' as anndata 0.7 and later write, got a table. "
            "Write it again with a newer anndata."
        )
    key = group.attrs.get("_index", "_index")
    key = key.decode() if isinstance(key, bytes) else str(key)
    index = _column(group.get(key))
    if index is None:
        raise SourceError(f"{path.name}: expected an index '{name}/{key}', got none.")
    others = [] if is_bare else [column for column in group if column not in (key, "__categories")]
    cells = {column: _column(group[column]) for column in others[:_MOST_LABELS]}
    return index, {c: found for c, found in cells.items() if found and len(found) == len(index)}


def _column(found: h5py.Dataset | h5py.Group | None) -> list[str] | None:
    """Return one column as text, "" for nothing; None of a kind that is no label."""
    if found is None:
        return None
    if isinstance(found, h5py.Dataset):
        place = found.attrs.get("categories")  # as anndata 0.7 writes them
        if isinstance(place, h5py.Reference):
            return _named(found, found.file[place])
        return strings(found) if found.ndim == 1 else None
    if {"categories", "codes"} <= set(found):
        return _named(found["codes"], found["categories"])
    if {"values", "mask"} <= set(found):
        pairs = zip(strings(found["values"]), found["mask"][()].tolist(), strict=True)
        return ["" if is_missing else value for value, is_missing in pairs]
    return None


def _named(codes: h5py.Dataset, categories: h5py.Dataset) -> list[str]:
    names = [*strings(categories), ""]
    return [names[code] for code in codes[()].tolist()]  # -1 is nothing


def _anndata_values(path: Path, found: h5py.Dataset | h5py.Group, shape: tuple[int, int]) -> Values:
    """Return the matrix of an AnnData file."""
    values: Values
    if isinstance(found, h5py.Dataset):
        own, values = found.shape, Chunked.of(path, found, is_turned=False)
    else:
        kind = found.attrs.get("encoding-type", found.attrs.get("h5sparse_format", ""))
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        own = tuple(found.attrs.get("shape", found.attrs.get("h5sparse_shape", ())))
        is_by_gene = kind.startswith("csc")
        if not kind.startswith(("csr", "csc")):
            raise SourceError(
                f"{path.name}: expected '{found.name}' to be dense, csr or csc, got {kind!r}."
            )
        for part, kinds in (("indptr", "iuf"), ("indices", "iuf"), ("data", "fiub")):
            if found[part].dtype.kind not in kinds:
                raise ValueError(f"{found.name}/{part} of {found[part].dtype}")
            if found[part].ndim != 1:
                raise ValueError(f"{found.name}/{part} of {found[part].ndim} dimensions")
            check_chunk(found[part])
        n_major = shape[1] if is_by_gene else shape[0]
        if found["indptr"].shape != (n_major + 1,):
            raise ValueError(f"indptr of shape {found['indptr'].shape}")
        values = Sparse(path, found.name, shape, is_by_gene)
    if tuple(map(int, own)) != shape:
        raise SourceError(
            f"{path.name}: expected {shape[0]} samples x {shape[1]} genes in '{found.name}', got "
            f"{tuple(map(int, own))}."
        )
    return values


@dataclass(frozen=True)
class Sparse:
    """A compressed sparse matrix of an AnnData file, read by rows without the rest.

    Of one that lies by gene, all is read for each slice, a piece at a time.
    """

    path: Path
    name: str
    shape: tuple[int, int]
    is_by_gene: bool

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the values ``(sample, gene)`` of a slice of samples.

        Raises
        ------
        SourceError
            If the file is damaged or a value is infinite.
        """
        start, stop, _ = samples.indices(self.shape[0])
        out = np.zeros((max(0, stop - start), self.shape[1]), np.float32)
        with told(self.path, "a readable sparse matrix"), h5py.File(self.path) as file:
            group = file[self.name]
            pointers = _whole(self.path, group["indptr"], slice(None))
            n_major = self.shape[1] if self.is_by_gene else self.shape[0]
            most = min(group["data"].size, math.prod(self.shape))
            if pointers[0] or (np.diff(pointers) < 0).any() or pointers[-1] > most:
                raise ValueError(f"indptr that does not rise from 0 to at most {most} values")
            first, last = (0, n_major) if self.is_by_gene else (start, stop)
            self._fill(group, pointers, (first, last), start, out)
        if np.isinf(out).any():
            row, gene = np.argwhere(np.isinf(out))[0]
            raise SourceError(
                f"{self.path.name}: expected finite values, got an infinite one in sample "
                f"{start + int(row)}, gene {int(gene)} of '{self.name}'."
            )
        return out

    def _fill(
        self,
        group: h5py.Group,
        pointers: NDArray[np.int64],
        major: tuple[int, int],
        start: int,
        out: NDArray[np.float32],
    ) -> None:
        """Write the values of some rows, or columns, to where they are expected."""
        begin, end = int(pointers[major[0]]), int(pointers[major[1]])
        for lo in range(begin, end, _VALUES_AT_ONCE):
            hi = min(lo + _VALUES_AT_ONCE, end)
            minor = _whole(self.path, group["indices"], slice(lo, hi))
            with np.errstate(over="ignore"):  # infinite values are refused
                values = np.asarray(group["data"][lo:hi], np.float32)
            if minor.size != hi - lo or values.size != hi - lo:
                raise ValueError("fewer values than indptr says")
            n_minor = self.shape[0] if self.is_by_gene else self.shape[1]
            if minor.min() < 0 or minor.max() >= n_minor:
                raise ValueError(f"an index of {int(minor.max())} of {n_minor}")
            majors = np.searchsorted(pointers, np.arange(lo, hi), side="right") - 1
            if self.is_by_gene:
                is_wanted = (minor >= start) & (minor < start + len(out))
                np.add.at(out, (minor[is_wanted] - start, majors[is_wanted]), values[is_wanted])
            else:
                np.add.at(out, (majors - start, minor), values)


def _whole(path: Path, found: h5py.Dataset, where: slice) -> NDArray[np.int64]:
    """Return places as integers; R writes them as floats."""
    values = found[where]
    with np.errstate(invalid="ignore"):
        whole = np.asarray(values, np.int64)
    if (whole != values).any():
        raise SourceError(
            f"{path.name}: expected whole numbers in '{found.name}', got fractions. Write it again "
            "with integers."
        )
    return whole
