"""How large a source is, told from its header and length without parsing its values."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import h5py

_HEAD_NBYTES = 1 << 22


def peek_size(path: str | Path) -> tuple[int, int]:
    """Return about how many samples and genes a source file holds.

    A GCTX tells; of a text file the first 4 MiB are read: the widest line gives the samples, the
    length of a row and of the whole text the genes. A SOFT file holds one sample a table, so it
    counts as one sample of all its rows.

    Raises
    ------
    OSError
        When the file cannot be read.
    """
    path = Path(path)
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            n_samples, n_genes = file["/0/DATA/0/matrix"].shape
        return int(n_samples), int(n_genes)
    head, n_bytes = _head(path)
    lines = head.splitlines()[:-1] or [head]
    separator = b"\t" if b"\t" in head else b","
    widest = max(lines, key=lambda line: line.count(separator))
    n_samples = max(1, widest.count(separator) - (1 if head.startswith(b"#1.") else 0))
    rows = [line for line in lines if line.count(separator) == widest.count(separator)]
    row_nbytes = max(1, sum(map(len, rows)) // len(rows) + 1)
    before = len(head) - row_nbytes * len(rows) if len(head) < n_bytes else 0
    n_genes = max(1, (n_bytes - max(0, before)) // row_nbytes)
    return (1, n_genes) if head.startswith(b"^") else (n_samples, n_genes)


def _head(path: Path) -> tuple[bytes, int]:
    """Return the first bytes of a text and its whole length."""
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        if is_gzip:
            file.seek(-4, os.SEEK_END)
            n_bytes = int.from_bytes(file.read(4), "little")
    if not is_gzip:
        with path.open("rb") as file:
            return file.read(_HEAD_NBYTES), path.stat().st_size
    with gzip.open(path) as file:
        return file.read(_HEAD_NBYTES), n_bytes
