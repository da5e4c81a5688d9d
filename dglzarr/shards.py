"""Reads and writes shards of uncompressed matrices: a system call a chunk, and no copies between.

A shard here is a Zarr v3 shard of plain little-endian chunks with its index at the end. Zarr reads
what is written here and the other way round; this is about ten times faster, since rows go straight
between the page cache and the caller's array. Only ``store`` writes with it, only ``rows`` reads.

References
----------
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import errno
import json
import math
import os
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from dglzarr.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Index = NDArray[np.uint64]

_ABSENT = np.iinfo(np.uint64).max
_CRC_NBYTES = 4
_PLAIN = [{"name": "bytes", "configuration": {"endian": "little"}}]
_SHARDS = {
    "codecs": _PLAIN,
    "index_codecs": [*_PLAIN, {"name": "crc32c"}],
    "index_location": "end",
}


@dataclass(frozen=True)
class Matrix:
    """An uncompressed, sharded float32 array (sample, gene) in a local folder."""

    path: Path
    shape: tuple[int, int]
    chunks: tuple[int, int]
    shards: tuple[int, int]

    dtype = np.dtype("<f4")

    def take(self, index: NDArray[np.integer[Any]], out: NDArray[np.float32]) -> None:
        """Read the rows at ``index``, ascending and without repeats, into ``out (row, gene)``.

        Raises
        ------
        StoreError
            When a shard is missing or damaged.
        """
        which = index // self.shards[0]
        edges = np.flatnonzero(np.diff(which, prepend=-1, append=-1)).tolist()
        for first, stop in pairwise(edges):
            with self._open_shard(int(which[first])) as (shard, table):
                inside = index[first:stop] % self.shards[0]
                self._take_of_shard(shard, table, inside, out[first:stop])

    def write(self, shard: int, block: NDArray[np.float32]) -> None:
        """Write a whole shard: all rows of ``block (sample, gene)``, nothing or everything.

        Raises
        ------
        OSError
            When the disk refuses; the shard is then as it was before.
        """
        path = self._shard_path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("wb", buffering=0) as file:
                self._write_chunks(file.fileno(), np.ascontiguousarray(block, self.dtype))
            partial.replace(path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise

    @property
    def _grid(self) -> tuple[int, int]:
        """Chunks of a shard along samples and genes."""
        return self.shards[0] // self.chunks[0], self.shards[1] // self.chunks[1]

    @property
    def _chunk_nbytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    def _shard_path(self, shard: int) -> Path:
        return self.path / "c" / str(shard) / "0"

    @contextmanager
    def _open_shard(self, shard: int) -> Iterator[tuple[int, Index]]:
        """Yield the descriptor of a shard and the offsets of its chunks."""
        path = self._shard_path(shard)
        nbytes = 16 * math.prod(self._grid)
        try:
            opened = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path.parent}: region {shard} of {self.path.name!r} is missing. Run the "
                "stage that writes it again."
            ) from error
        try:
            at = os.fstat(opened).st_size - nbytes - _CRC_NBYTES
            found = os.pread(opened, nbytes + _CRC_NBYTES, at) if at >= 0 else b""
            table, crc = found[:nbytes], int.from_bytes(found[nbytes:], "little")
            if len(table) != nbytes or google_crc32c.value(table) != crc:
                raise _damaged(path)
            yield opened, np.frombuffer(table, "<u8").reshape(*self._grid, 2)[..., 0]
        finally:
            os.close(opened)

    def _take_of_shard(
        self,
        shard: int,
        table: Index,
        inside: NDArray[np.integer[Any]],
        out: NDArray[np.float32],
    ) -> None:
        """Read rows of one shard: each run of neighbours in a chunk with one call a chunk."""
        is_start = np.diff(inside, prepend=-2) != 1
        is_start |= inside % self.chunks[0] == 0
        starts = [*np.flatnonzero(is_start).tolist(), inside.size]
        for start, stop in pairwise(starts):
            row, skipped = divmod(int(inside[start]), self.chunks[0])
            skipped *= self.chunks[1] * self.dtype.itemsize
            for column, genes in self._gene_chunks():
                self._read_run(shard, int(table[row, column]), skipped, out[start:stop, genes])

    def _gene_chunks(self) -> Iterator[tuple[int, slice]]:
        for column in range(self._grid[1]):
            start = column * self.chunks[1]
            yield column, slice(start, min(start + self.chunks[1], self.shape[1]))

    def _read_run(self, shard: int, offset: int, skipped: int, out: NDArray[np.float32]) -> None:
        """Read neighbouring rows of a chunk that begin ``skipped`` bytes after its start."""
        if offset == _ABSENT:
            out[...] = np.nan
            return
        padding = bytearray((self.chunks[1] - out.shape[1]) * self.dtype.itemsize)
        pieces: list[Any] = list(out)
        if padding:
            pieces = [piece for row in out for piece in (row, padding)]
        if os.preadv(shard, pieces, offset + skipped) != sum(map(_nbytes, pieces)):
            raise _damaged(self.path)

    def _write_chunks(self, file: int, block: NDArray[np.float32]) -> None:
        """Write the chunks that hold rows of the block, one after another, then their index."""
        nan = np.full(self._chunk_nbytes // self.dtype.itemsize, np.nan, self.dtype)
        table = np.full((*self._grid, 2), _ABSENT, "<u8")
        offset = 0
        for row in range(math.ceil(len(block) / self.chunks[0])):
            samples = block[row * self.chunks[0] : (row + 1) * self.chunks[0]]
            below = nan[: (self.chunks[0] - len(samples)) * self.chunks[1]]
            for column, genes in self._gene_chunks():
                values = samples[:, genes]
                beside = nan[: self.chunks[1] - values.shape[1]]
                pieces: list[Any] = list(values)
                if beside.size:
                    pieces = [piece for sample in values for piece in (sample, beside)]
                _write_all(file, [*pieces, below] if below.size else pieces)
                table[row, column] = offset, self._chunk_nbytes
                offset += self._chunk_nbytes
        crc = google_crc32c.value(table.tobytes())
        _write_all(file, [table, crc.to_bytes(_CRC_NBYTES, "little")])


def open_matrix(uri: str, name: str) -> Matrix | None:
    """Return an array of a store for direct reading and writing, None where that is not possible.

    It is possible for float32 matrices of shards, uncompressed, in a local folder, all genes in
    one shard.
    """
    folder = uri.removeprefix("file://")
    if "://" in folder or not hasattr(os, "preadv"):
        return None
    path = Path(folder, name)
    found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    codecs = found["codecs"]
    if found["data_type"] != "float32" or [c["name"] for c in codecs] != ["sharding_indexed"]:
        return None
    shape, shards = found["shape"], found["chunk_grid"]["configuration"]["chunk_shape"]
    inner = dict(codecs[0]["configuration"])
    chunks = inner.pop("chunk_shape")
    separator = found["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
    if inner != _SHARDS or separator != "/" or len(shape) != 2 or shards[1] < shape[1]:
        return None
    return Matrix(path, tuple(shape), tuple(chunks), tuple(shards))


def _write_all(file: int, pieces: list[Any]) -> None:
    if os.writev(file, pieces) != sum(map(_nbytes, pieces)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _nbytes(piece: Any) -> int:  # noqa: ANN401
    return memoryview(piece).nbytes


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"{path}: expected a whole shard, got a damaged one. Remove it and run its stage again."
    )
