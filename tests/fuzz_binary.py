"""What a binary file holds by other parsers: h5py, anndata, and pandas for Parquet and Feather.

Compares as `fuzz_parsers` does, which has the files of text.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata.io
import h5py
import numpy as np
import pandas as pd
import pyarrow.feather
import scipy.sparse

from dglzarr.sources.base import Reading
from tests.fuzz_parsers import IN_ROWS, NotComparableError, close, compare_text, decoded, equal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dglzarr.sources import Source

_MOST_SINGLE = 0.5


def compare_source(path: Path, source: Source, reading: Reading = Reading()) -> None:
    """Compare an opened file of any format."""
    if source.format == "gctx":
        _compare_gctx(path, source)
    elif source.format == "archs4":
        _compare_archs4(path, source, reading)
    elif source.format == "h5ad":
        _compare_h5ad(path, source, reading)
    elif source.format in ("parquet", "feather"):
        _compare_arrow(path, source)
    else:
        compare_text(path, source)


def _compare_gctx(path: Path, source: Source) -> None:
    with h5py.File(path) as file:
        matrix = np.asarray(file["0/DATA/0/matrix"][()], np.float64)
        ids = [_texts(file[f"0/META/{of}/id"]) for of in ("COL", "ROW")]
    equal(source.samples, ids[0], "samples")
    equal(source.genes, ids[1], "genes")
    _close_matrix(source, matrix)


def _compare_archs4(path: Path, source: Source, reading: Reading) -> None:
    with h5py.File(path) as file:
        is_new = "meta/samples/geo_accession" in file
        lead = "meta/samples/" if is_new else "meta/Sample_"
        samples = _texts(file[f"{lead}geo_accession"])
        names = (
            *("ensembl_gene", "ensembl_gene_id", "ensembl_id"),
            *("symbol", "gene_symbol", "genes"),
        )
        found = [file[f"meta/genes/{n}"] for n in names if f"meta/genes/{n}" in file]
        genes = _texts(next((f for f in found if isinstance(f, h5py.Dataset)), file["meta/genes"]))
        matrix = np.asarray(file["data/expression"][()], np.float64)
        series = _optional(file, f"{lead}series_id", len(samples))
        told = _optional(file, f"{lead}characteristics_ch1", len(samples))
        single = file.get("meta/samples/singlecellprobability")
        is_single = np.zeros(len(samples), bool)
        if isinstance(single, h5py.Dataset) and single.size == len(samples):
            is_single = single[()].ravel() > (reading.max_single_cell or _MOST_SINGLE)
    is_turned = matrix.shape == (len(genes), len(samples))
    matrix = matrix.T if is_turned and (is_new or len(genes) != len(samples)) else matrix
    kept = ~is_single
    if reading.only_series and any(series):
        kept &= np.array(["GSE1" in text for text in series])
    if reading.only_matching and any(told):
        kept &= np.array(["tissue: a" in text.lower() for text in told])
    if not reading.only_matching:
        equal(
            source.samples,
            [s for s, is_kept in zip(samples, kept, strict=True) if is_kept],
            "samples",
        )
    equal(
        [gene.partition("#")[0] for gene in source.genes],
        [g.partition("#")[0] for g in genes],
        "genes",
    )
    rows = [samples.index(sample) for sample in source.samples]
    _close_matrix(source, matrix.reshape(len(samples), len(genes))[rows])


def _optional(file: h5py.File, name: str, n: int) -> list[str]:
    found = file.get(name)
    return _texts(found) if isinstance(found, h5py.Dataset) and found.size == n else [""] * n


def _texts(found: h5py.Dataset) -> list[str]:
    """Return a dataset of any shape as text."""
    return [_as_id(value) for value in np.ravel(found[()]).tolist()]


def _as_id(name: bytes | str | float) -> str:
    if isinstance(name, bytes):
        return decoded(name).strip()
    return str(int(name) if isinstance(name, float) and name.is_integer() else name).strip()


def _close_matrix(source: Source, matrix: NDArray[Any]) -> None:
    values = source.read(0, len(source.samples))
    with np.errstate(over="ignore"):
        close(values.ravel(), matrix.astype(np.float32).ravel(), "matrix")


# ---------------------------------------------------------------- AnnData


def _compare_h5ad(path: Path, source: Source, reading: Reading) -> None:
    """Compare with what anndata reads of the parts, each on its own."""
    name = f"layers/{reading.layer}" if reading.layer else "X"
    try:
        with warnings.catch_warnings(), h5py.File(path) as file:
            warnings.simplefilter("ignore")
            matrix, obs, var = (anndata.io.read_elem(file[part]) for part in (name, "obs", "var"))
            matrix = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
    except Exception as error:
        raise NotComparableError(str(error)) from error
    for names, frame, what in ((source.samples, obs, "samples"), (source.genes, var, "genes")):
        equal(names, [_as_id(one) for one in frame.index], what)
    _close_matrix(source, np.asarray(matrix, np.float64))
    for label, cells in source.labels.items():
        kind = obs[label].dtype if label in obs else None
        if isinstance(kind, pd.CategoricalDtype) and not any(map(np.ndim, kind.categories)):
            equal(cells, ["" if pd.isna(c) else _as_id(c) for c in obs[label]], f"label {label!r}")


# ---------------------------------------------------------------- Parquet and Feather


def _compare_arrow(path: Path, source: Source) -> None:
    """Compare with the frame that pandas reads."""
    try:
        if source.format == "parquet":
            frame = pd.read_parquet(path)
        else:
            table = pyarrow.feather.read_table(path, memory_map=True)
            table.validate(full=True)  # of a damaged one pandas ends the process
            frame = table.to_pandas(use_threads=False)
    except Exception as error:
        raise NotComparableError(str(error)) from error
    if frame.index.name is not None:
        frame = frame.reset_index()
    columns = {str(name): frame[name] for name in frame}
    if IN_ROWS in source.notes:
        rows = _rows_of(columns, source.samples)
        for place, gene in enumerate(source.genes):
            values = source.read(0, len(source.samples))[:, place]
            _close_column(values, columns[gene], rows, gene)
        return
    out = {n for one in source.left_out if one.what == "rows" for n in one.names}
    rows = _rows_of(columns, source.genes, out)
    values = source.read(0, len(source.samples))
    for place, sample in enumerate(source.samples):
        _close_column(values[place], columns[sample], rows, sample)


def _rows_of(
    columns: dict[str, Any], names: Sequence[str], out: set[str] = frozenset()
) -> list[int]:  # type: ignore[assignment]
    """Return where names stand in the column that holds just them."""
    for cells in columns.values():
        texts = ["" if cell is None or cell is np.nan else str(cell).strip() for cell in cells]
        rows = [i for i, text in enumerate(texts) if text not in out]
        if [texts[i] for i in rows] == list(names):
            return rows
    raise NotComparableError("no column of these names as pandas reads them")


def _close_column(found: Any, column: Any, rows: list[int], name: str) -> None:
    expected = column.to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    with np.errstate(over="ignore"):
        close(found, expected.astype(np.float32), f"column {name!r}")
