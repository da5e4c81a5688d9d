"""Reads and writes shards of uncompressed matrices with few system calls and no copies between.

A shard here is a Zarr v3 shard of plain little-endian chunks with its index at the end. Zarr reads
what is written here and the other way round, but takes six times as long for whole shards and a
hundred times for scattered rows, which go straight from the page cache to the caller's array here.
What is more than plain calls has its gain in docs/reproduce.md (Shards), by
``benchmarks/bench_shards.py``: the compiled calls, the asking of the disk beforehand, the writing
past the page cache and beside the laying out. Only ``store`` writes with it, only ``rows`` reads.

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
import resource
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np

from dglzarr.errors import StoreError
from dglzarr.kernels.compiled import compiled
from dglzarr.kernels.slices import copy_block, iter_slices
from dglzarr.storage.files import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.files import Place

    Index = NDArray[np.int64]
    Pair = tuple[int, int]

ABSENT = -1  # as an index holds it: all bits set
CRC_NBYTES = 4
_PAGE = mmap.PAGESIZE
_DIRECT = getattr(os, "O_DIRECT", 0)
_preadv2: Any = getattr(ctypes.CDLL(None), "preadv2", None)  # as compiled loops call it
if _preadv2 is not None:
    _preadv2.argtypes = [ctypes.c_int, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_int64, ctypes.c_int]
    _preadv2.restype = ctypes.c_ssize_t
_DIRECT_NBYTES = 2**24
_OPEN_SHARDS = 64  # at once
_MOST_MAPS = 2**13  # that stay; the system allows 2**16 of a process
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

    path: Any  # a `Path`, in a bucket a place there
    shape: tuple[int, int]
    chunks: tuple[int, int]
    shards: tuple[int, int]
    _maps: dict[int, Mapped] = field(default_factory=dict, init=False, compare=False, repr=False)

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
        columns: Any = np.arange(self._grid[1])
        if genes is not None:
            columns = np.unique(genes % self.shape[1] // self.chunks[1])
        row_nbytes = self.shape[1] * self.dtype.itemsize
        memory = Memory(
            out.reshape(-1).view(np.uint8).data,
            (places * row_nbytes).tolist(),
            row_nbytes,
            self.chunks[1] * self.dtype.itemsize,
        )
        read = memory.read_compiled if is_compiled and _preadv2 is not None else memory.read
        numbers, first = np.unique(index // self.shards[0], return_index=True)
        edges = [*first.tolist(), index.size]
        for some in iter_slices(numbers.size, 1, limit_nbytes=_OPEN_SHARDS):
            rows = slice(edges[some.start], edges[some.stop])
            with ExitStack() as stack:
                shards = [stack.enter_context(self._open_shard(n)) for n in numbers[some].tolist()]
                pieces = self._pieces(shards, index[rows], columns)
                pieces[:, 2] += rows.start
                is_absent = pieces[:, 1] == ABSENT
                for _, _, start, n_rows, column in pieces[is_absent].tolist():
                    out[places[start : start + n_rows], self._genes(column)] = np.nan
                self._read(pieces[~is_absent], shards, memory, read)

    def column(self, gene: int, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Return one gene of all samples (sample,), or of a range; NaN where nothing was written.

        The shards are mapped, so that of each row only the page is touched that the gene stands
        on, and stay so as long as the matrix: of 100,000 samples in the page cache the next gene
        takes 3 ms, the first thirty times as long.

        Raises
        ------
        StoreError
            When a shard is missing or damaged, or the disk refuses.
        """
        start, stop, _ = rows.indices(self.shape[0])
        out = np.full(max(stop - start, 0), np.nan, self.dtype)
        length = self.shards[0]
        for number in range(start // length, -(-stop // length)) if start < stop else ():
            begin = number * length
            found = np.full(min(length, self.shape[0] - begin), np.nan, self.dtype)
            self._copy_column(number, gene, found)
            low, high = max(start, begin), min(stop, begin + length)
            out[low - start : high - start] = found[low - begin : high - begin]
        return out

    def _copy_column(self, number: int, gene: int, out: NDArray[np.float32]) -> None:
        """Copy a gene of the samples of a shard."""
        mapped = self._mapped(number)
        column, within = divmod(gene, self.chunks[1])
        mapped.ask(column, self._chunk_nbytes)
        for offset, begin in zip(
            mapped.offsets[:, column].tolist(), range(0, len(out), self.chunks[0]), strict=False
        ):
            rows = out[begin : begin + self.chunks[0]]
            if offset != ABSENT:
                first = offset // self.dtype.itemsize + within
                last = first + len(rows) * self.chunks[1]
                found = mapped.values[first : last : self.chunks[1]]
                if found.size != rows.size:
                    raise damaged(self._shard_path(number))
                rows[:] = found

    def _mapped(self, number: int) -> Mapped:
        """Return a shard mapped to memory, anew where its file is another or has another size."""
        known = self._maps.get(number)
        if known is None or known.stamp != _stamp(known.path):
            with self._open_shard(number) as shard:
                try:
                    mapped = mmap.mmap(shard.file, 0, prot=mmap.PROT_READ)
                except OSError as error:
                    raise _unreadable(shard.path, error) from error
                values = np.frombuffer(mapped, self.dtype)
                stamp = _stamp(shard.file)
                known = Mapped(str(shard.path), stamp, mapped, values, shard.offsets, set())
            if number in self._maps or len(self._maps) < most_maps():
                self._maps[number] = known  # none gives way to another: all are read in turn
        return known

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
        BucketError
            When a bucket's server does.
        """
        with whole(self._shard_path(shard)) as laid_out:
            nbytes = math.prod(self.shards) * self.dtype.itemsize
            with create(laid_out, nbytes=nbytes) as file:
                written = self._write_rows(file, shard, blocks)
            before(*written)

    def _write_rows(self, file: int, shard: int, blocks: Iterable[NDArray[Any]]) -> tuple[int, int]:
        """Write all rows of a shard to its file; return its bytes and its CRC-32C."""
        n_written, nbytes, crc = self._write_chunks(file, blocks)
        n_samples = min(self.shards[0], self.shape[0] - shard * self.shards[0])
        path = self._shard_path(shard)
        assert n_written == n_samples, f"{path}: {n_written} samples of {n_samples}"
        return nbytes, crc

    @property
    def _grid(self) -> tuple[int, int]:
        """Chunks of a shard along samples and genes."""
        return self.shards[0] // self.chunks[0], self.shards[1] // self.chunks[1]

    @property
    def _chunk_nbytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    def _shard_path(self, shard: int) -> Any:  # noqa: ANN401
        return self.path / "c" / str(shard) / "0"

    @contextmanager
    def _open_shard(self, number: int) -> Iterator[Shard]:
        """Yield a shard with the offsets of its chunks."""
        path = self._shard_path(number)
        nbytes = 16 * math.prod(self._grid)
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise self._missing(number) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            at = os.fstat(file).st_size - nbytes - CRC_NBYTES
            found = _pread(path, file, nbytes + CRC_NBYTES, at) if at >= 0 else b""
            yield Shard(number, path, file, self._offsets(path, found))
        finally:
            os.close(file)

    def _missing(self, number: int) -> StoreError:
        return StoreError(
            f"{self.path.parent}: region {number} of {self.path.name!r} is missing. Run the "
            "stage that writes it again. Of a grown segment, 'dglzarr refit' alone does that."
        )

    def _offsets(self, path: Place, written: bytes) -> Index:
        """Return where each chunk of a shard begins, by its index `(row, column)`."""
        nbytes = 16 * math.prod(self._grid)
        table, crc = written[:nbytes], int.from_bytes(written[nbytes:], "little")
        if len(table) != nbytes or google_crc32c.value(table) != crc:
            raise damaged(path)
        return np.frombuffer(table, "<i8").reshape(*self._grid, 2)[..., 0]

    def _pieces(
        self, opened: Sequence[Shard], index: NDArray[np.integer[Any]], columns: Index
    ) -> Index:
        """Return where to read rows of some shards, a piece a chunk and run of neighbours.

        ``(piece, 5)`` in the order of the files: file, where in it, number of the first row in the
        index, rows, column of chunks.
        """
        is_first = np.diff(index, prepend=-2) != 1
        is_first |= index % self.chunks[0] == 0
        first = np.flatnonzero(is_first)
        which, inside = np.divmod(index[first], self.shards[0])
        shard = np.searchsorted([shard.number for shard in opened], which)
        row, skipped = np.divmod(inside, self.chunks[0])
        offset = np.stack([shard.offsets for shard in opened])[shard, row][:, columns]
        skipped_nbytes = skipped[:, np.newaxis] * self.chunks[1] * self.dtype.itemsize
        pieces = np.empty((*offset.shape, 5), np.int64)  # (run, column)
        pieces[..., 0] = np.array([shard.file for shard in opened])[shard, np.newaxis]
        pieces[..., 1] = np.where(offset == ABSENT, ABSENT, offset + skipped_nbytes)
        pieces[..., 2] = first[:, np.newaxis]
        pieces[..., 3] = np.diff(first, append=index.size)[:, np.newaxis]
        pieces[..., 4] = columns
        pieces = pieces.reshape(-1, 5)
        return pieces[np.lexsort((pieces[:, 1], pieces[:, 0]))]

    def _read(
        self,
        pieces: Index,
        opened: Sequence[Shard],
        memory: Memory,
        read: Callable[[Index, int], int],
    ) -> None:
        """Read all pieces: while the page cache has them, then what the disk has been asked for.

        By default a read waits for the one before; so the disk is asked for all that is left at
        once.

        Raises
        ------
        StoreError
            When a piece cannot be read, or its file ends before it does.
        """
        pieces = pieces[read(pieces, os.RWF_NOWAIT) :]
        if len(pieces):
            _ask(pieces, memory.nbytes)
        while len(pieces := pieces[read(pieces, 0) :]):
            _read_again(pieces[0].tolist(), opened, memory)
            pieces = pieces[1:]

    def _genes(self, column: int) -> slice:
        """Return the genes of a column of chunks."""
        return slice(column * self.chunks[1], min((column + 1) * self.chunks[1], self.shape[1]))

    def _write_chunks(self, file: int, blocks: Iterable[NDArray[Any]]) -> tuple[int, int, int]:
        """Write the chunks that hold rows, then their index; return rows, bytes and CRC-32C.

        They are laid out in memory that begins at a page, a row of chunks at a time, one while the
        one before is written; what is less than a page waits for the next.
        """
        table = np.full((*self._grid, 2), ABSENT, "<i8")
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
        index += google_crc32c.value(index).to_bytes(CRC_NBYTES, "little")
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


def open_matrix(uri: str, name: str, found: Mapping[str, Any] | None = None) -> Matrix | None:
    """Return an array of a store for direct reading and writing, None where that is not possible.

    It is possible for float32 matrices of shards, uncompressed, in a local folder, all genes in
    one shard, at most 512 samples a chunk, and missing where nothing was written. ``found`` are
    the array's metadata where they are known.
    """
    folder = uri.removeprefix("file://")
    if "://" in folder or not hasattr(os, "RWF_NOWAIT"):  # Linux has it
        return None
    path = Path(folder, name)
    if found is None:
        found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
    layout = layout_of(found)
    return Matrix(path, *layout) if layout else None


def layout_of(found: Mapping[str, Any]) -> tuple[Pair, Pair, Pair] | None:
    """Return shape, chunks and shards of an array by its metadata, None of one of other kind."""
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
    return tuple(shape), tuple(chunks), tuple(shards)


class Shard(NamedTuple):
    """An open shard, and where in its file each chunk begins: ``offsets (row, column)``."""

    number: int
    path: Any
    file: int
    offsets: Index


class Mapped(NamedTuple):
    """A shard in memory: its values, where its chunks begin in bytes, and which file it is."""

    path: str
    stamp: tuple[int, int] | None
    memory: mmap.mmap
    values: NDArray[np.float32]
    offsets: Index
    asked: set[int]

    def ask(self, column: int, nbytes: int) -> None:
        """Tell the disk once that the chunks of a column will be read, each of so many bytes.

        Page by page it would read four times as much of 100,000 samples, in four times the time.
        """
        if column not in self.asked:
            self.asked.add(column)
            for offset in self.offsets[:, column].tolist():
                begin = offset // _PAGE * _PAGE
                if offset != ABSENT and offset + nbytes <= len(self.memory):
                    with suppress(OSError):
                        self.memory.madvise(mmap.MADV_WILLNEED, begin, offset + nbytes - begin)


class Memory(NamedTuple):
    """Memory that pieces are read to.

    ``begins`` says where in ``out`` each row begins; ``nbytes`` are of a row of a chunk, which may
    hold more than is left of a row of ``row_nbytes``. All are bytes.
    """

    out: memoryview
    begins: list[int]
    row_nbytes: int
    nbytes: int

    def read(self, pieces: Index, flags: int) -> int:
        """Read pieces until one of them cannot be read whole; return how many were."""
        n_read = 0
        with suppress(OSError):
            for piece in pieces.tolist():
                if not self.read_piece(piece, flags):
                    break
                n_read += 1
        return n_read

    def read_piece(self, piece: Sequence[int], flags: int = 0) -> bool:
        """Return whether all of a piece has been read."""
        file, offset, start, n_rows, column = piece
        first = column * self.nbytes
        last = min(first + self.nbytes, self.row_nbytes)
        rows = [self.out[b + first : b + last] for b in self.begins[start : start + n_rows]]
        if last - first < self.nbytes:
            beyond = memoryview(bytearray(first + self.nbytes - last))
            rows = [part for row in rows for part in (row, beyond)]
        return os.preadv(file, rows, offset, flags) == n_rows * self.nbytes

    def read_compiled(self, pieces: Index, flags: int) -> int:
        """Do what `read` does, without Python's lock."""
        addresses = np.array(self.begins, np.int64) + np.frombuffer(self.out, np.uint8).ctypes.data
        vectors = np.empty((_MOST_VECTORS, 2), np.int64)
        beyond = np.empty(self.nbytes, np.uint8)
        sizes = self.row_nbytes, self.nbytes
        return int(compiled(_read_pieces)(pieces, flags, addresses, *sizes, vectors, beyond))


def _read_pieces(
    pieces: Index,
    flags: int,
    addresses: Index,
    row_nbytes: int,
    nbytes: int,
    vectors: Index,
    beyond: NDArray[np.uint8],
) -> int:
    """Read pieces until one of them is not read whole; the loops are meant to be compiled."""
    for i in range(len(pieces)):
        file, offset, start, n_rows, column = pieces[i]
        first = column * nbytes
        width = min(nbytes, row_nbytes - first)
        n_vectors = 0
        for address in addresses[start : start + n_rows]:
            vectors[n_vectors, 0], vectors[n_vectors, 1] = address + first, width
            n_vectors += 1
            if width < nbytes:
                vectors[n_vectors, 0], vectors[n_vectors, 1] = beyond.ctypes.data, nbytes - width
                n_vectors += 1
        n_read = _preadv2(file, vectors.ctypes.data, n_vectors, offset, flags)
        if n_read != n_rows * nbytes:
            return i
    return len(pieces)


def _ask(pieces: Index, nbytes: int) -> None:
    """Ask the disk for pieces, neighbours at once; a hint, and no error.

    Where all are neighbours, reading them in order does as much.
    """
    file, begin, end = pieces[:, 0], pieces[:, 1], pieces[:, 1] + pieces[:, 3] * nbytes
    is_first = np.ones(len(pieces), np.bool_)
    is_first[1:] = (file[1:] != file[:-1]) | (begin[1:] != end[:-1])
    is_last = np.roll(is_first, -1)  # before the first of the next, and the very last
    stretches = np.stack([file[is_first], begin[is_first], end[is_last] - begin[is_first]], axis=1)
    with suppress(OSError):
        for descriptor, offset, length in stretches.tolist() if len(stretches) > 1 else ():
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_WILLNEED)


def _read_again(piece: Sequence[int], opened: Sequence[Shard], memory: Memory) -> None:
    """Read a piece once more, or say why not all of its bytes can be read.

    A file system over a network may have cut it short, or a signal.
    """
    path = next(shard.path for shard in opened if shard.file == piece[0])
    if os.fstat(piece[0]).st_size < piece[1] + piece[3] * memory.nbytes:
        raise damaged(path)
    try:
        if not memory.read_piece(piece):
            raise OSError(errno.EIO, os.strerror(errno.EIO))  # noqa: TRY301
    except OSError as error:
        raise _unreadable(path, error) from error


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
def create(path: Path, *, nbytes: int) -> Iterator[int]:
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


def most_maps() -> int:
    """Return how many shards of a matrix stay mapped: each takes a file that may be open."""
    n_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _MOST_MAPS if n_files == resource.RLIM_INFINITY else min(n_files // 8, _MOST_MAPS)


def _stamp(file: str | int) -> tuple[int, int] | None:
    """Return what tells a file from the one that takes its place, None where there is none."""
    try:
        found = os.stat(file)  # noqa: PTH116  (also of an open one)
    except OSError:
        return None
    return found.st_ino, found.st_size


def damaged(path: Place) -> StoreError:
    """Return the error that names a shard that is not whole."""
    return StoreError(
        f"{path}: expected a whole shard, got a damaged one. Remove it and run its stage again."
    )
