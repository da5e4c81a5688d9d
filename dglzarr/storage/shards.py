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

import ctypes
import errno
import fcntl
import json
import math
import mmap
import os
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np

from dglzarr.errors import StoreError
from dglzarr.kernels.compiled import compiled
from dglzarr.kernels.slices import copy_block, iter_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Index = NDArray[np.uint64]

_ABSENT = np.iinfo(np.uint64).max
_CRC_NBYTES = 4
_GAP_NBYTES = 2**15  # between pieces: to read it costs less than another request
_PAGE = mmap.PAGESIZE
_DIRECT = getattr(os, "O_DIRECT", 0)
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_preadv2: Any = getattr(ctypes.CDLL(None, use_errno=True), "preadv2", None)  # Linux has it
if _preadv2 is not None:
    _preadv2.argtypes = [ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_int64, ctypes.c_int]
    _preadv2.restype = ctypes.c_ssize_t
_DIRECT_NBYTES = 2**24
_OPEN_SHARDS = 64  # at once
_MOST_VECTORS = 1024  # of a call; a row of a chunk takes up to two
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
        *,
        is_compiled: bool = False,
    ) -> None:
        """Read the rows at ``index``, ascending and without repeats, to their places in ``out``.

        ``out (row, gene)`` is C-contiguous. Where ``genes`` are named, chunks without any of them
        are left as they are. ``is_compiled`` reads in machine code, without Python's lock: for
        threads that read scattered rows all the time.

        Raises
        ------
        StoreError
            When a shard is missing or damaged, or the disk refuses.
        """
        assert out.flags.c_contiguous, "rows are read to where they are expected"
        assert out.dtype == self.dtype, out.dtype
        assert out.shape[1] == self.shape[1], (out.shape, self.shape)
        assert not places.size or (places.min() >= 0 and places.max() < len(out)), "no such place"
        columns = np.arange(self._grid[1])
        if genes is not None:
            columns = np.unique(genes % self.shape[1] // self.chunks[1])
        which = index // self.shards[0]
        numbers, first = np.unique(which, return_index=True)
        edges = [*first.tolist(), index.size]
        for some in iter_slices(numbers.size, 1, limit_nbytes=_OPEN_SHARDS):
            rows = slice(edges[some.start], edges[some.stop])
            with ExitStack() as stack:
                shards = [stack.enter_context(self._open_shard(n)) for n in numbers[some].tolist()]
                pieces = self._pieces(shards, index[rows], columns, out, places[rows])
                pieces.read(is_compiled=is_compiled)

    def write(
        self,
        shard: int,
        blocks: Iterable[NDArray[Any]],
        *,
        before: Callable[[int, int], object] = lambda *_: None,
    ) -> None:
        """Write a whole shard, nothing or everything: the rows of some blocks (sample, gene).

        Every block but the last holds whole rows of chunks. ``before`` is called with the bytes and
        the CRC-32C of the shard before it is put in its place.

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
                n_written, *written = self._write_chunks(file, blocks)
            n_samples = min(self.shards[0], self.shape[0] - shard * self.shards[0])
            assert n_written == n_samples, f"{path}: {n_written} samples of {n_samples}"
            before(*written)
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
    def _open_shard(self, number: int) -> Iterator[_Shard]:
        """Yield a shard with the offsets of its chunks."""
        path = self._shard_path(number)
        nbytes = 16 * math.prod(self._grid)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path.parent}: region {number} of {self.path.name!r} is missing. Run the "
                "stage that writes it again. Of a grown segment, 'dglzarr refit' alone does that."
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            at = os.fstat(file).st_size - nbytes - _CRC_NBYTES
            found = _pread(path, file, nbytes + _CRC_NBYTES, at) if at >= 0 else b""
            table, crc = found[:nbytes], int.from_bytes(found[nbytes:], "little")
            if len(table) != nbytes or google_crc32c.value(table) != crc:
                raise _damaged(path)
            offsets = np.frombuffer(table, "<u8").reshape(*self._grid, 2)[..., 0]
            yield _Shard(number, path, file, offsets)
        finally:
            os.close(file)

    def _pieces(
        self,
        opened: Sequence[_Shard],
        index: NDArray[np.integer[Any]],
        columns: NDArray[np.integer[Any]],
        out: NDArray[np.float32],
        places: NDArray[np.integer[Any]],
    ) -> _Pieces:
        """Return where to read rows of some shards: a piece of each chunk for neighbouring rows.

        Chunks that are absent hold missing values, which are set here.
        """
        is_start = np.diff(index, prepend=-2) != 1
        is_start |= index % self.chunks[0] == 0
        first = np.flatnonzero(is_start)
        length = np.diff(first, append=index.size)
        which, inside = np.divmod(index[first], self.shards[0])
        shard = np.searchsorted([shard.number for shard in opened], which)
        row, skipped = np.divmod(inside, self.chunks[0])
        offset = np.stack([shard.offsets for shard in opened])[shard, row][:, columns]
        nbytes = self.chunks[1] * self.dtype.itemsize
        vectors, beyond = self._vectors(columns, out, places)
        calls = np.empty((*offset.shape, 5), np.int64)  # (run, column)
        calls[..., 0] = np.array([shard.file for shard in opened])[shard, np.newaxis]
        calls[..., 1] = vectors.ctypes.data + first[:, np.newaxis] * vectors.strides[1]
        calls[..., 1] += np.arange(columns.size) * vectors.strides[0]
        calls[..., 2] = length[:, np.newaxis] * vectors.shape[2]
        calls[..., 3] = offset.view(np.int64) + skipped[:, np.newaxis] * nbytes
        calls[..., 4] = length[:, np.newaxis] * nbytes
        is_present = offset != _ABSENT
        for run, column in np.argwhere(~is_present).tolist():
            rows = places[first[run] : first[run] + length[run]]
            out[rows, self._genes(columns[column])] = np.nan
        found = calls[is_present]
        return _Pieces(found[np.lexsort((found[:, 3], found[:, 0]))], opened, (vectors, beyond))

    def _vectors(
        self,
        columns: NDArray[np.integer[Any]],
        out: NDArray[np.float32],
        places: NDArray[np.integer[Any]],
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return address and bytes of each column's genes in each row, (column, row, part, 2).

        Where the last chunk is wider than the matrix, a second part takes what is beyond: the
        memory that is returned too.
        """
        itemsize = self.dtype.itemsize
        start = columns * self.chunks[1]
        width = np.minimum(self.chunks[1], self.shape[1] - start)
        has_beyond = bool((width < self.chunks[1]).any())
        beyond = np.empty(self.chunks[1] * itemsize, np.uint8)
        vectors = np.empty((columns.size, places.size, 1 + has_beyond, 2), np.int64)
        vectors[:, :, 0, 0] = out.ctypes.data + places * out.strides[0]
        vectors[:, :, 0, 0] += start[:, np.newaxis] * itemsize
        vectors[:, :, 0, 1] = width[:, np.newaxis] * itemsize
        vectors[:, :, 1:, 0] = beyond.ctypes.data
        vectors[:, :, 1:, 1] = (self.chunks[1] - width)[:, np.newaxis, np.newaxis] * itemsize
        return vectors, beyond

    def _genes(self, column: int) -> slice:
        """Return the genes of a column of chunks."""
        return slice(column * self.chunks[1], min((column + 1) * self.chunks[1], self.shape[1]))

    def _write_chunks(self, file: int, blocks: Iterable[NDArray[Any]]) -> tuple[int, int, int]:
        """Write the chunks that hold rows, then their index; return rows, bytes and CRC-32C.

        They are laid out in memory that begins at a page, a row of chunks at a time, one while the
        one before is written; what is less than a page waits for the next.
        """
        table = np.full((*self._grid, 2), _ABSENT, "<u8")
        row_nbytes = self._grid[1] * self._chunk_nbytes
        staged, other = (_empty_pages(row_nbytes + table.nbytes + 2 * _PAGE) for _ in range(2))
        written = waiting = n_samples = crc = 0
        with ThreadPoolExecutor(1) as thread:
            writing: Future[int] | None = None
            for row, samples in enumerate(self._chunk_rows(blocks)):
                assert row < self._grid[0], "more samples than a shard holds"
                chunks = staged[waiting : waiting + row_nbytes].view(self.dtype)
                self._lay_out(samples, chunks.reshape(self._grid[1], *self.chunks))
                starts = written + waiting + np.arange(self._grid[1]) * self._chunk_nbytes
                table[row, :, 0], table[row, :, 1] = starts, self._chunk_nbytes
                waiting += row_nbytes
                whole = waiting // _PAGE * _PAGE
                if writing is not None:
                    crc = writing.result()
                writing = thread.submit(_write_all, file, staged[:whole], crc)
                other[: waiting - whole] = staged[whole:waiting]
                staged, other = other, staged
                written, waiting = written + whole, waiting - whole
                n_samples += len(samples)
            if writing is not None:
                crc = writing.result()
        index = table.tobytes()
        index += google_crc32c.value(index).to_bytes(_CRC_NBYTES, "little")
        staged[waiting : waiting + len(index)] = np.frombuffer(index, np.uint8)
        nbytes = waiting + len(index)
        _write_all(file, staged[: math.ceil(nbytes / _PAGE) * _PAGE])
        os.ftruncate(file, written + nbytes)
        return n_samples, written + nbytes, google_crc32c.extend(crc, staged[:nbytes])

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
    one shard, at most 512 samples a chunk, and missing where nothing was written.
    """
    folder = uri.removeprefix("file://")
    if "://" in folder or _preadv2 is None:
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
    if 2 * chunks[0] > _MOST_VECTORS or found["fill_value"] != "NaN":
        return None
    return Matrix(path, tuple(shape), tuple(chunks), tuple(shards))


class _Shard(NamedTuple):
    """An open shard, and where in its file each chunk begins: ``offsets (row, column)``."""

    number: int
    path: Path
    file: int
    offsets: Index


class _Pieces(NamedTuple):
    """What to read of some shards: a system call a piece, in the order of the files.

    ``calls (piece, 5)`` holds for each the file, the address of its vectors, their number, where it
    begins in the file, and its bytes. ``memory`` is what they point to, beside the rows themselves.
    """

    calls: NDArray[np.int64]
    opened: Sequence[_Shard]
    memory: tuple[NDArray[Any], ...]

    def read(self, *, is_compiled: bool) -> None:
        """Read all: first what is in the page cache, then what the disk was asked for meanwhile.

        By default a read waits for the one before; so the disk is asked for all at once.

        Raises
        ------
        StoreError
            When a piece cannot be read, or its file ends before it does.
        """
        calls = self.calls
        if _NOWAIT is not None:
            calls = calls[_unread(calls, _NOWAIT, is_compiled=is_compiled)]
            with suppress(OSError):  # a hint; reading says what is wrong
                for file, offset, nbytes in _stretches(calls).tolist():
                    os.posix_fadvise(file, offset, nbytes, os.POSIX_FADV_WILLNEED)
        for call in calls[_unread(calls, 0, is_compiled=is_compiled)].tolist():
            path = next(shard.path for shard in self.opened if shard.file == call[0])
            if os.fstat(call[0]).st_size < call[3] + call[4]:
                raise _damaged(path)
            _read_again(path, call)


def _read_again(path: Path, call: Sequence[int]) -> None:
    """Make a call once more, or say why not all of its bytes can be read.

    A signal, or a file system over a network, may have cut it short.
    """
    n_read = _preadv2(*call[:4], 0)
    while n_read < 0 and ctypes.get_errno() == errno.EINTR:
        n_read = _preadv2(*call[:4], 0)
    if n_read != call[4]:
        code = ctypes.get_errno() if n_read < 0 else errno.EIO
        raise _unreadable(path, OSError(code, os.strerror(code)))


def _stretches(calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return file, begin and bytes of what holds the pieces: over gaps that are cheaper to read."""
    file, begin = calls[:, 0], calls[:, 3]
    end = begin + calls[:, 4]
    is_first = np.ones(len(calls), np.bool_)
    is_first[1:] = (file[1:] != file[:-1]) | (begin[1:] - end[:-1] > _GAP_NBYTES)
    is_last = np.roll(is_first, -1)  # before the first of the next, and the very last
    return np.stack([file[is_first], begin[is_first], end[is_last] - begin[is_first]], axis=1)


def _unread(calls: NDArray[np.int64], flags: int, *, is_compiled: bool) -> NDArray[np.bool_]:
    """Make the calls, and return which of them did not read all of their bytes."""
    is_unread = np.empty(len(calls), np.bool_)
    if is_compiled:
        compiled(_call)(calls, flags, is_unread)
    else:
        _call(calls.tolist(), flags, is_unread)
    return is_unread


def _call(calls: Any, flags: int, is_unread: NDArray[np.bool_]) -> None:  # noqa: ANN401
    for i in range(len(calls)):
        call = calls[i]
        is_unread[i] = _preadv2(call[0], call[1], call[2], call[3], flags) != call[4]


def _pread(path: Path, file: int, nbytes: int, offset: int) -> bytes:
    try:
        return os.pread(file, nbytes, offset)
    except OSError as error:
        raise _unreadable(path, error) from error


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


def _write_all(file: int, values: NDArray[np.uint8], crc: int = 0) -> int:
    """Write all bytes and return the CRC-32C so far, which they extend.

    What a disk takes only in part is tried on, until it says why not.
    """
    crc = google_crc32c.extend(crc, values)
    while values.size:
        try:
            values = values[os.write(file, values.data) :]
        except OSError as error:
            flags = fcntl.fcntl(file, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            fcntl.fcntl(file, fcntl.F_SETFL, flags & ~_DIRECT)  # taken by open, refused by write
    return crc


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: cannot be read: {error.strerror}. Mend that and run again.")


def _damaged(path: Path) -> StoreError:
    return StoreError(
        f"{path}: expected a whole shard, got a damaged one. Remove it and run its stage again."
    )
