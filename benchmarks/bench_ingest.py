"""Ingest: a series matrix beside pandas.read_csv, a GCTX beside a plain loop."""

from __future__ import annotations

import gzip
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import pandas as pd
import zarr
from common import (
    SIZES,
    TEXT_SIZES,
    Bench,
    Case,
    Timed,
    labels,
    main,
    run_here,
    run_stage,
    simulated_matrix,
    write_text_matrix,
)

from dglzarr.sources import read_source
from dglzarr.stages.ingest import SourceFile, ingest, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.declare import CHUNK_SAMPLES, chunk_genes, shard_samples
from dglzarr.testing import write_gctx

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "GSE1_series_matrix.txt"
READ_NBYTES = 1 << 20


def prepare_text(case: Case) -> None:
    """Write a series matrix, plain and compressed."""
    plain = write_text_matrix(case, NAME)
    with plain.open("rb") as text, gzip.open(f"{plain}.gz", "wb", compresslevel=6) as packed:
        shutil.copyfileobj(text, packed, READ_NBYTES)


def prepare_gctx(case: Case) -> None:
    """Write a GCTX."""
    write_gctx(
        case.path("GSE1.gctx"),
        simulated_matrix(case.n_samples, case.n_genes),
        samples=labels("s", case.n_samples),
        genes=labels("g", case.n_genes),
    )


def stage_on(name: str) -> Callable[[Case], Timed]:
    """Return an engine that makes the expression store of a file: hashed, read, checked, joined."""

    def with_dglzarr(case: Case) -> Timed:
        target = case.path("expression.zarr")
        for old in ("raw", "expression.zarr"):
            shutil.rmtree(case.path(old), ignore_errors=True)
        source = SourceFile(case.path(name), case.path("raw/GSE1.zarr"))
        modules = [ingest.__module__, join.__module__]
        return run_stage(case, ingest_and_join, source, target, modules=modules)

    return with_dglzarr


def ingest_and_join(source: SourceFile, target: str) -> None:
    """Make the expression store of one file."""
    ingest_all([source])
    join([source.raw], target, options=JoinOptions(split_by="sample"))


def reader_on(name: str) -> Callable[[Case], Timed]:
    """Return an engine that only reads a file."""

    def with_reader(case: Case) -> Timed:
        return run_here(case, lambda: read_source(case.path(name)))

    return with_reader


def pandas_on(name: str) -> Callable[[Case], Timed]:
    """Return an engine that reads the table of a file with pandas."""

    def with_pandas(case: Case) -> Timed:
        path = case.path(name)
        return run_here(case, lambda: pd.read_csv(path, sep="\t", comment="!", index_col=0))

    return with_pandas


def bytes_of(name: str) -> Callable[[Case], Timed]:
    """Return an engine that reads, and unpacks, the bytes of a file and does nothing with them."""

    def with_bytes(case: Case) -> Timed:
        return run_here(case, lambda: read_bytes(Path(case.path(name))))

    return with_bytes


def read_bytes(path: Path) -> None:
    """Read a file piece by piece, unpacking a .gz."""
    unpack = zlib.decompressobj(wbits=31) if path.suffix == ".gz" else None
    with path.open("rb") as file:
        while piece := file.read(READ_NBYTES):
            if unpack is not None:
                unpack.decompress(piece)


def with_plain_loop(case: Case) -> Timed:
    """Time reading a GCTX by h5py and writing it by zarr, in the layout of the stores."""

    def loop() -> None:
        length = shard_samples(case.n_samples)
        genes = chunk_genes(case.n_genes)
        with h5py.File(case.path("GSE1.gctx")) as file:
            matrix = file["0/DATA/0/matrix"]
            array = zarr.create_array(
                case.path("loop.zarr"),
                shape=matrix.shape,
                dtype="float32",
                chunks=(min(CHUNK_SAMPLES, length), genes),
                shards=(length, genes * -(-case.n_genes // genes)),
                compressors=None,
                overwrite=True,
            )
            for start in range(0, case.n_samples, length):
                array[start : start + length] = matrix[start : start + length]

    return run_here(case, loop)


def with_h5py_and_file(case: Case) -> Timed:
    """Time reading a GCTX by h5py and writing its bytes to a file."""

    def copy() -> None:
        with h5py.File(case.path("GSE1.gctx")) as file, Path(case.path("bytes")).open("wb") as out:
            matrix = file["0/DATA/0/matrix"]
            starts = range(0, case.n_samples, CHUNK_SAMPLES)
            out.writelines(matrix[start : start + CHUNK_SAMPLES].tobytes() for start in starts)

    return run_here(case, copy)


def text_bench(stage: str, name: str) -> Bench:
    """Return the comparison for a series matrix, plain or compressed."""
    engines = {
        "dglzarr": stage_on(name),
        "dglzarr: reader alone": reader_on(name),
        "pandas.read_csv": pandas_on(name),
        "limit: bytes of the file": bytes_of(name),
    }
    return Bench(stage, prepare_text, engines, packages=["pandas"], sizes=TEXT_SIZES)


GCTX_ENGINES = {
    "dglzarr": stage_on("GSE1.gctx"),
    "h5py read and zarr write": with_plain_loop,
    "limit: h5py read, bytes written": with_h5py_and_file,
}
BENCHES = [
    text_bench("ingest-series-matrix", NAME),
    text_bench("ingest-series-matrix-gz", f"{NAME}.gz"),
    Bench("ingest-gctx", prepare_gctx, GCTX_ENGINES, packages=["h5py"], sizes=SIZES),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
