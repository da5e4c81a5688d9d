"""Reads and writes shards of uncompressed matrices with few system calls and no copies between.

A shard here is a Zarr v3 shard of plain little-endian chunks with its index at the end. Zarr reads
what is written here and the other way round; this is about ten times faster, since rows go straight
from the page cache to the caller's array, and a large shard straight to the disk. Only ``store``
writes with it, only ``rows`` reads.

References
----------
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import mmap
import os
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from dglzarr.errors import StoreError
from dglzarr.kernels.slices import copy_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Index = NDArray[np.uint64]

_ABSENT = np.iinfo(np.uint64).max
_CRC_NBYTES = 4
_PAGE = mmap.PAGESIZE
_DIRECT = getattr(os, "O_DIRECT", 0)
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_DIRECT_NBYTES = 2**24
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

    def take(
        self,
        index: NDArray[np.integer[Any]],
        out: NDArray[np.float32],
        places: NDArray[np.integer[Any]],
        genes: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        """Read the rows at ``index``, ascending and without repeats, to their places in ``out``.

        ``out (row, gene)`` is C-contiguous. Where ``genes`` are named, chunks without any of them
        are left as they are.

        Raises
        ------
        StoreError
            When a shard is missing or damaged, or the disk refuses.
        """
        columns = list(range(self._grid[1]))
        if genes is not None:
            columns = np.unique(genes % self.shape[1] // self.chunks[1]).tolist()
        which = index // self.shards[0]
        edges = np.flatnonzero(np.diff(which, prepend=-1, append=-1)).tolist()
        for first, stop in pairwise(edges):
            with self._open_shard(int(which[first])) as (shard, table):
                inside = index[first:stop] % self.shards[0]
                self._take_of_shard(shard, table, inside, columns, out, places[first:stop])

    def write(self, shard: int, blocks: Iterable[NDArray[Any]]) -> None:
        """Write a whole shard, nothing or everything: the rows of some blocks (sample, gene).

        Every block but the last holds whole rows of chunks.

        Raises
        ------
        OSError
            When the disk refuses; the shard is then as it was before.
        """
        path = self._shard_path(shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with _create(partial, nbytes=math.prod(self.shards) * self.dtype.itemsize) as file:
                n_written = self._write_chunks(file, blocks)
            n_samples = min(self.shards[0], self.shape[0] - shard * self.shards[0])
            assert n_written == n_samples, f"{path}: {n_written} samples of {n_samples}"
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

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
                "stage that writes it again. Of a grown segment, 'dglzarr refit' alone does that."
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            at = os.fstat(opened).st_size - nbytes - _CRC_NBYTES
            found = os.pread(opened, nbytes + _CRC_NBYTES, at) if at >= 0 else b""
            table, crc = found[:nbytes], int.from_bytes(found[nbytes:], "little")
            if len(table) != nbytes or google_crc32c.value(table) != crc:
                raise _damaged(path)
            yield opened, np.frombuffer(table, "<u8").reshape(*self._grid, 2)[..., 0]
        except EOFError as error:
            raise _damaged(path) from error
        except StoreError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error
        finally:
            os.close(opened)

    def _take_of_shard(
        self,
        shard: int,
        table: Index,
        inside: NDArray[np.integer[Any]],
        columns: list[int],
        out: NDArray[np.float32],
        places: NDArray[np.integer[Any]],
    ) -> None:
        """Read rows of one shard: each run of neighbours in a chunk with one call a chunk.

        What the page cache lacks of short runs the disk is asked for beforehand, all at once: by
        default a read waits for the one before. Of long ones the system itself reads ahead.
        """
        is_start = np.diff(inside, prepend=-2) != 1
        is_start |= inside % self.chunks[0] == 0
        starts = [*np.flatnonzero(is_start).tolist(), inside.size]
        offsets, memory = table.tolist(), out.data.cast("B")
        row_nbytes, piece_nbytes = (n * self.dtype.itemsize for n in (out.shape[1], self.chunks[1]))
        starts_of_rows = (places * row_nbytes).tolist()
        for start, stop in pairwise(starts):
            row, skipped = divmod(int(inside[start]), self.chunks[0])
            if stop - start < self.chunks[0]:
                present = [offsets[row][c] for c in columns if offsets[row][c] != _ABSENT]
                ahead = [offset + skipped * piece_nbytes for offset in present]
                _read_ahead(shard, ahead, (stop - start) * piece_nbytes)
        for start, stop in pairwise(starts):
            row, skipped = divmod(int(inside[start]), self.chunks[0])
            rows = [memory[at : at + row_nbytes] for at in starts_of_rows[start:stop]]
            for column in columns:
                offset, first = offsets[row][column], column * piece_nbytes
                if offset == _ABSENT:
                    out[places[start:stop], self._genes(column)] = np.nan
                    continue
                pieces = [values[first : first + piece_nbytes] for values in rows]
                _read_pieces(shard, offset + skipped * piece_nbytes, pieces, piece_nbytes)

    def _genes(self, column: int) -> slice:
        """Return the genes of a column of chunks."""
        return slice(column * self.chunks[1], min((column + 1) * self.chunks[1], self.shape[1]))

    def _write_chunks(self, file: int, blocks: Iterable[NDArray[Any]]) -> int:
        """Write the chunks that hold rows, one after another, then their index; count the rows.

        They are laid out in memory that begins at a page, a row of chunks at a time, one while the
        one before is written; what is less than a page waits for the next.
        """
        table = np.full((*self._grid, 2), _ABSENT, "<u8")
        row_nbytes = self._grid[1] * self._chunk_nbytes
        staged, other = (_empty_pages(row_nbytes + table.nbytes + 2 * _PAGE) for _ in range(2))
        written = waiting = n_samples = 0
        with ThreadPoolExecutor(1) as thread:
            writing: Future[None] | None = None
            for row, samples in enumerate(self._chunk_rows(blocks)):
                assert row < self._grid[0], "more samples than a shard holds"
                chunks = staged[waiting : waiting + row_nbytes].view(self.dtype)
                self._lay_out(samples, chunks.reshape(self._grid[1], *self.chunks))
                starts = written + waiting + np.arange(self._grid[1]) * self._chunk_nbytes
                table[row, :, 0], table[row, :, 1] = starts, self._chunk_nbytes
                waiting += row_nbytes
                whole = waiting // _PAGE * _PAGE
                if writing is not None:
                    writing.result()
                writing = thread.submit(_write_all, file, staged[:whole])
                other[: waiting - whole] = staged[whole:waiting]
                staged, other = other, staged
                written, waiting = written + whole, waiting - whole
                n_samples += len(samples)
            if writing is not None:
                writing.result()
        index = table.tobytes()
        index += google_crc32c.value(index).to_bytes(_CRC_NBYTES, "little")
        staged[waiting : waiting + len(index)] = np.frombuffer(index, np.uint8)
        _write_all(file, staged[: math.ceil((waiting + len(index)) / _PAGE) * _PAGE])
        os.ftruncate(file, written + waiting + len(index))
        return n_samples

    def _lay_out(self, samples: NDArray[Any], chunks: NDArray[np.float32]) -> None:
        """Write the samples of a row of chunks into the chunks (column, sample, gene)."""
        chunks[-1] = np.nan
        chunks[:, len(samples) :] = np.nan
        for column, chunk in enumerate(chunks):
            values = samples[:, self._genes(column)]
            copy_block(values, chunk[: len(samples), : values.shape[1]])

    def _chunk_rows(self, blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        """Yield the samples of one row of chunks after another."""
        length, is_short = self.chunks[0], False
        for block in blocks:
            assert not is_short, "only the last block may end within a row of chunks"
            is_short = len(block) % length > 0
            assert block.shape[1:] == self.shape[1:], (block.shape, self.shape)
            for start in range(0, len(block), length):
                yield block[start : start + length]


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


def _read_ahead(shard: int, offsets: list[int], nbytes: int) -> None:
    """Ask for so many bytes from each offset on, unless the first of them are in the page cache."""
    if _NOWAIT is None or not offsets:
        return
    with suppress(OSError):  # not in the cache, or not known
        if os.preadv(shard, [bytearray(1)], offsets[0], _NOWAIT):
            return
    with suppress(OSError):  # a hint; reading says what is wrong
        for offset in offsets:
            os.posix_fadvise(shard, offset, nbytes, os.POSIX_FADV_WILLNEED)


def _read_pieces(shard: int, offset: int, pieces: list[memoryview], nbytes: int) -> None:
    """Read pieces that follow each other, each padded to so many bytes, from an offset on."""
    n_wanted = len(pieces) * nbytes
    if padding := memoryview(bytearray(nbytes - len(pieces[0]))):
        pieces = [part for piece in pieces for part in (piece, padding)]
    if os.preadv(shard, pieces, offset) != n_wanted:
        raise EOFError


def _empty_pages(nbytes: int) -> NDArray[np.uint8]:
    """Return memory that begins at a page, as direct writes need it."""
    memory = np.empty(nbytes + _PAGE, np.uint8)
    return memory[-memory.ctypes.data % _PAGE :][:nbytes]


@contextmanager
def _create(path: Path, *, nbytes: int) -> Iterator[int]:
    """Yield the descriptor of a new file; a large one goes to the disk, not through its cache."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    direct = _DIRECT if nbytes >= _DIRECT_NBYTES else 0
    try:
        file = os.open(path, flags | direct, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without direct writes
            raise
        file = os.open(path, flags & ~os.O_EXCL, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _write_all(file: int, values: NDArray[np.uint8]) -> None:
    """Write all bytes; what a disk takes only in part is tried on, until it says why not."""
    while values.size:
        try:
            values = values[os.write(file, values.data) :]
        except OSError as error:
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            fcntl.fcntl(file, fcntl.F_SETFL, flags & ~_DIRECT)  # taken by open, refused by write


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be read: {error.strerror}. Mend that and run again.")


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"{path}: expected a whole shard, got a damaged one. Remove it and run its stage again."
    )
