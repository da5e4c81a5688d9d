"""How large a source is, told from its header and length without parsing its values."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import h5py

from dglzarr.errors import SourceError
from dglzarr.sources.arrow import arrow_format, arrow_shape
from dglzarr.sources.base import Reading, Source
from dglzarr.sources.chosen import choose_samples
from dglzarr.sources.compendia import hdf5_format, read_archs4, read_h5ad, told_cost
from dglzarr.sources.gct import gctx_shape
from dglzarr.sources.text import GZIP_MAGIC, decode, header_cells
from dglzarr.sources.wide import has_samples_in_rows

_HEAD_NBYTES = 1 << 22


def is_lazy(path: str | Path) -> bool:
    """Return whether values of a file are read from it by slices, without the rest."""
    return h5py.is_hdf5(path) or arrow_format(Path(path)) is not None


def open_compendium(path: Path, reading: Reading) -> Source:
    """Return an ARCHS4 or h5ad file with the samples that are asked for; no value is read.

    Raises
    ------
    SourceError
        As `read_source` does.
    """
    kind = hdf5_format(path, is_checked=reading.is_bare)
    read = read_archs4 if kind == "archs4" else read_h5ad
    return choose_samples(read(path, reading), reading)


def peek_cost(path: str | Path, reading: Reading, region: int) -> str:
    """Return what it costs to read a file by regions where it is packed otherwise, else "".

    Raises
    ------
    SourceError
        If the file is damaged.
    """
    path = Path(path)
    if not h5py.is_hdf5(path) or hdf5_format(path) == "gctx":
        return ""
    bare = Reading(layer=reading.layer, is_bare=True)
    return told_cost(open_compendium(path, bare).values, region)


def peek_size(path: str | Path, reading: Reading = Reading()) -> tuple[int, int]:
    """Return about how many samples and genes a source file holds.

    A GCTX, Parquet or Feather file tells; of a text file the first 4 MiB are read: the widest line
    gives the samples, the length of a row and of the whole text the genes. A SOFT file holds one
    sample a table, so it counts as one sample of all its rows.

    Raises
    ------
    OSError
        When the file cannot be read.
    SourceError
        When it is damaged.
    """
    path = Path(path)
    if h5py.is_hdf5(path):
        if hdf5_format(path) == "gctx":
            return gctx_shape(path)
        source = open_compendium(path, reading)
        return len(source.samples), len(source.genes)
    if (kind := arrow_format(path)) is not None:
        return arrow_shape(path, kind, reading)
    try:
        head, n_bytes = _head(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path.name}: expected a complete gzip file, got a damaged one ({error}). "
            "Download it again."
        ) from error
    lines = head.splitlines()[:-1] or [head]
    separator = b"\t" if b"\t" in head else b","
    widest = max(lines, key=lambda line: line.count(separator))
    n_samples = max(1, widest.count(separator) - (1 if head.startswith(b"#1.") else 0))
    rows = [line for line in lines if line.count(separator) == widest.count(separator)]
    row_nbytes = max(1, sum(map(len, rows)) // len(rows) + 1)
    before = len(head) - row_nbytes * len(rows) if len(head) < n_bytes else 0
    n_genes = max(1, (n_bytes - max(0, before)) // row_nbytes)
    if head.startswith(b"^"):
        return 1, n_genes
    names = header_cells(decode(lines[0]), separator.decode())
    is_turned = has_samples_in_rows(names[1:], reading)
    return (n_genes, n_samples) if is_turned else (n_samples, n_genes)


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a text and about its whole length.

    A gzip file tells the length of its last member only, and that without what is over 4 GiB. So
    the length is taken from how far the head was packed, and that of the file where both agree.
    """
    n_packed = path.stat().st_size
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            file.seek(0)
            return file.read(_HEAD_NBYTES), n_packed
        file.seek(max(0, n_packed - 4))
        told = int.from_bytes(file.read(4), "little")
        file.seek(0)
        with gzip.open(file) as text:
            head = text.read(_HEAD_NBYTES)
            if not text.read(1):
                return head, len(head)
            expected = int(len(head) / file.tell() * n_packed)
    told += (expected - told + (1 << 31) >> 32) * (1 << 32)
    return head, told if abs(told - expected) < 0.2 * expected else expected
