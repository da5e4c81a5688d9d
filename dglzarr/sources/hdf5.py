"""HDF5 files as they come: what h5py raises of a damaged one told in one line, and text read.

Knows no format: GCTX, ARCHS4 and h5ad are read by their own modules.
"""

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from dglzarr.errors import SourceError
from dglzarr.sources.text import MAX_EXPANSION, MIN_EXPANDED_NBYTES, decode

_HEAP = b"GCOL\x01\0\0\0"
_HEAP_NBYTES = 1 << 30
"""How much of a file is looked through for its heaps."""
_PIECE_NBYTES = 1 << 23
"""How much of it in one go, with as much behind it, where a heap may go on."""
_LENGTHS = {2: "H", 4: "I", 8: "Q"}
"""How a length is packed, by the bytes that a file gives it; in a heap 8 are kept for it."""
_CHECKSUM_NBYTES = 4
_GUARDED: dict[str, "Guarded"] = {}
"""What is read by ranges now, by the name that HDF5 gives it."""
_UNPACKED = {
    *(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32),
}
_DAMAGED = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError),
    *(AttributeError, MemoryError, SystemError, zlib.error),
)


class Chunk(NamedTuple):
    """A chunk of a matrix: where it lies in the matrix and in the file, and how it is packed."""

    place: tuple[int, ...]
    mask: int
    offset: int
    nbytes: int


@contextmanager
def told(path: Path, expected: str) -> Iterator[None]:
    """Tell whatever h5py raises of a damaged file in one line."""
    try:
        yield
    except SourceError:
        raise
    except _DAMAGED as error:
        got = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(
            f"{path.name}: expected {expected}, got a damaged one ({got}). Download it again."
        ) from error


def check_heaps(path: Path) -> None:
    """Refuse a file in which HDF5 would look for a text for ever: its heap holds zeros.

    A heap of texts is a run of objects, each told by its length; HDF5 1.14 does not go on behind
    one of no length. The first GiB of a file is looked at, once as long as it stays the same.

    Raises
    ------
    SourceError
        If there is such a heap.
    """
    with told(path, "a complete HDF5 file"):
        found = path.stat()
        at = _stuck_heap(path, found.st_size, found.st_mtime_ns)
    if at is not None:
        raise SourceError(
            f"{path.name}: expected a complete HDF5 file, got a damaged one (zeros in the texts at "
            f"byte {at}). Download it again; one that opens elsewhere can be written anew with "
            "h5repack."
        )


class Guarded(io.RawIOBase):
    """A file that HDF5 reads by ranges, in which no heap keeps it for ever: see `check_heaps`.

    Parameters
    ----------
    file
        What is read, by ``seek`` and ``readinto``.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self._kind: str | None = None
        self._unread: list[tuple[int, int]] | None = None

    @contextmanager
    def opened(self) -> Iterator[h5py.File]:
        """Open it, and look at the texts that are read from now on."""
        with h5py.File(self) as file:
            self._kind = _LENGTHS.get(file.id.get_create_plist().get_sizes()[1])
            _GUARDED[file.filename] = self
            try:
                yield file
            finally:
                del _GUARDED[file.filename]

    def find_chunk(self, dataset: h5py.Dataset, place: tuple[int, ...]) -> Chunk | None:
        """Return where a chunk of the opened file is, unread; None where the file has none.

        ``H5Dget_chunk_info_by_coord`` walks the index of chunks from its beginning. Reading a chunk
        goes down the index: once into no room, which stops before the chunk, and once with what
        HDF5 asks for noted and left unread.

        Raises
        ------
        RuntimeError, ValueError
            If the index is damaged, or HDF5 asks for more than one chunk.
        """
        try:
            dataset.id.read_direct_chunk(place, out=bytearray())
        except ValueError:  # no room
            pass
        except RuntimeError:  # there is none, or the index is damaged
            found = dataset.id.get_chunk_info_by_coord(place)
            if found.byte_offset is None:
                return None
            return Chunk(place, found.filter_mask, found.byte_offset, found.size)
        self._unread = []
        try:
            mask, _ = dataset.id.read_direct_chunk(place)
            ((offset, nbytes),) = self._unread
        finally:
            self._unread = None
        return Chunk(place, mask, offset, nbytes)

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that places can be sought."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401  (a buffer)
        """Fill a buffer; return how many bytes that took.

        Raises
        ------
        ValueError
            Where they are a heap with zeros within.
        """
        view = memoryview(buffer).cast("B")
        if self._unread is not None:
            self._unread.append((self.tell(), len(view)))
            return len(view)
        n_read = self._file.readinto(buffer)
        view = view[: n_read or 0]
        if self._kind is None or view[: len(_HEAP)] != _HEAP:
            return n_read
        if _heap(bytes(view), 0, self._kind) is None:
            raise ValueError(f"zeros in the texts at byte {self.tell() - len(view)}")
        return n_read


@lru_cache(maxsize=1024)
def _stuck_heap(path: Path, _size: int, _mtime_ns: int) -> int | None:
    """Return where the first heap with an object of no length begins."""
    with h5py.File(path) as opened:
        kind = _LENGTHS.get(opened.id.get_create_plist().get_sizes()[1])
    if kind is None:
        return None
    start, raw = 0, b""
    with path.open("rb") as file:
        while start < _HEAP_NBYTES and (raw or not start):
            raw += file.read(2 * _PIECE_NBYTES - len(raw))
            at = raw.find(_HEAP, 0, _PIECE_NBYTES + len(_HEAP) - 1)
            while at >= 0:
                if _heap(raw, at, kind) is None:
                    return start + at
                at = raw.find(_HEAP, at + 1, _PIECE_NBYTES + len(_HEAP) - 1)
            start, raw = start + _PIECE_NBYTES, raw[_PIECE_NBYTES:]
    return None


def _heap(raw: bytes, at: int, kind: str) -> dict[int, int] | None:
    """Return the length of each object of a heap by its number, None where one has no length."""
    (size,) = struct.unpack_from(f"<{kind}", raw, at + 8) if at + 16 <= len(raw) else (0,)
    read = struct.Struct(f"<H6x{kind}").unpack_from
    place, stop = at + 16, min(at + size, len(raw))
    lengths = {}
    while place + 16 <= stop:
        number, length = read(raw, place)
        step = (16 + (length + 7) // 8 * 8 if number else length) % 2**64
        if not step:
            return None
        place += step
        if number and place <= stop:
            lengths[number] = length
    return lengths


def find_dataset(path: Path, file: h5py.File, name: str, *, of: str = "GCTX 1.0") -> h5py.Dataset:
    """Return a part of a file, or refuse a file without it.

    Raises
    ------
    SourceError
        Naming the part and the format that has it.
    """
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{path.name}: expected a dataset '/{name}' of {of}, got none.")
    return found


def strings(dataset: h5py.Dataset) -> list[str]:
    """Return a metadata dataset of any shape as text; whole numbers have no decimals.

    Raises
    ------
    ValueError
        If it says that it is far larger than its file, or that a text stands where there is none.
    TypeError
        If its values are lists.
    """
    if dataset.shape is None:
        return []  # a dataset without a dataspace
    if isinstance(dataset.id.get_type(), h5py.h5t.TypeVlenID):
        raise TypeError(f"{dataset.name} with lists for texts")
    nbytes, limit = dataset.size * dataset.dtype.itemsize, MIN_EXPANDED_NBYTES
    if nbytes > max(limit, MAX_EXPANSION * dataset.id.get_storage_size()):
        raise ValueError(f"{dataset.name} of {nbytes} bytes")
    check_chunk(dataset)
    _check_places(dataset)
    return [_text(value) for value in np.ravel(dataset[()]).tolist()]


def check_chunk(dataset: h5py.Dataset) -> None:
    """Refuse a dataset of which the first chunk is shorter or longer than its header says.

    HDF5 does not compare them: it would return what stands in memory behind a short chunk, or
    write over it with a long one.

    Raises
    ------
    ValueError
        If they differ; chunks packed by other filters than gzip are not looked at.
    """
    kinds = _filters(dataset)
    if dataset.chunks is None or not _UNPACKED.issuperset(kinds):
        return
    origin = (0,) * dataset.ndim
    found = dataset.id.get_chunk_info_by_coord(origin)
    if found.byte_offset is None:
        return
    if h5py.h5z.FILTER_FLETCHER32 in kinds:
        dataset.id.chunk_iter(_check_sum)
    expected = math.prod(dataset.chunks) * _stored_nbytes(dataset)
    nbytes = len(_unpacked(dataset, origin)) if kinds else found.size
    if nbytes != expected:
        raise ValueError(f"{dataset.name} in chunks of {nbytes} bytes, {expected} expected")


def _filters(dataset: h5py.Dataset) -> list[int]:
    """Return by which filters chunks are packed, first to last."""
    made = dataset.id.get_create_plist()
    return [made.get_filter(place)[0] for place in range(made.get_nfilters())]


def _unpacked(dataset: h5py.Dataset, origin: tuple[int, ...]) -> bytes:
    """Return a chunk as it was before gzip and checksum, of few bytes more than it may have."""
    kinds = _filters(dataset)
    expected = math.prod(dataset.chunks) * _stored_nbytes(dataset)
    skipped, raw = dataset.id.read_direct_chunk(origin)
    for place, kind in reversed([*enumerate(kinds)]):
        if skipped & 1 << place:
            continue
        if kind == h5py.h5z.FILTER_DEFLATE:
            raw = zlib.decompressobj().decompress(raw, expected + 8)
        elif kind == h5py.h5z.FILTER_FLETCHER32:
            raw = raw[:-4]
        elif kind == h5py.h5z.FILTER_SHUFFLE and len(raw) == expected:
            raw = np.frombuffer(raw, "u1").reshape(_stored_nbytes(dataset), -1).T.tobytes()
    return bytes(raw)


def _check_places(dataset: h5py.Dataset) -> None:
    """Refuse texts of any length of which a place leads to none of its own length.

    HDF5 does not compare them: it makes room for what the place says and copies what it finds.
    Texts that lie in their dataset's own header, or are packed by other filters than gzip, are
    not looked at.

    Raises
    ------
    ValueError
        If there is such a place.
    """
    address, size = dataset.file.id.get_create_plist().get_sizes()
    if not _is_elsewhere(dataset) or address not in _LENGTHS or size not in _LENGTHS:
        return
    place = np.dtype([("length", "<u4"), ("heap", f"<u{address}"), ("number", "<u4")])
    with _raw(dataset.file) as file:
        for raw in _pieces(dataset, file):
            found = np.frombuffer(raw, place, len(raw) // place.itemsize)
            found = np.sort(found[found["heap"] != 0], order="heap")
            at, lengths = 0, dict[int, int]()
            for length, heap, number in found.tolist():
                if heap != at:
                    at, lengths = heap, _heap_at(file, heap + dataset.file.userblock_size, size)
                if lengths.get(number) != length:
                    raise ValueError(f"{dataset.name} with a text of {length} bytes that is lost")


def _pieces(dataset: h5py.Dataset, file: IO[bytes]) -> Iterator[bytes]:
    """Yield what a dataset holds, chunk by chunk."""
    nbytes = _stored_nbytes(dataset)
    if dataset.chunks is None:
        at = dataset.id.get_offset()
        if at is not None:
            file.seek(at)
            yield file.read(dataset.id.get_storage_size())
    elif _UNPACKED.issuperset(_filters(dataset)):
        chunks: list[Any] = []
        dataset.id.chunk_iter(chunks.append)
        for chunk in chunks:
            raw = np.frombuffer(_unpacked(dataset, chunk.chunk_offset), f"V{nbytes}")
            ends = np.subtract(dataset.shape, chunk.chunk_offset)
            yield raw.reshape(dataset.chunks)[*map(slice, ends)].tobytes()


@contextmanager
def _raw(file: h5py.File) -> Iterator[Any]:
    """Open the bytes of a file."""
    if file.filename in _GUARDED:
        yield _GUARDED[file.filename]
    else:
        with Path(file.filename).open("rb") as raw:
            yield raw


def _heap_at(file: IO[bytes], at: int, size: int) -> dict[int, int]:
    """Return the length of each object of a heap by its number; none where there is no heap."""
    file.seek(at)
    raw = file.read(16)
    if len(raw) < 16 or not raw.startswith(_HEAP):
        return {}
    (nbytes,) = struct.unpack_from(f"<{_LENGTHS[size]}", raw, 8)
    return _heap(raw + file.read(max(0, min(nbytes, _HEAP_NBYTES) - 16)), 0, _LENGTHS[size]) or {}


def _check_sum(chunk: Any) -> None:  # noqa: ANN401  (h5py has no types)
    """Refuse a chunk too short to hold its own checksum: HDF5 would read far behind it."""
    if chunk.size < _CHECKSUM_NBYTES:
        raise ValueError(f"a chunk of {chunk.size} bytes, {_CHECKSUM_NBYTES} at least expected")


def _stored_nbytes(dataset: h5py.Dataset) -> int:
    """Return how long a value is in its file, where text of any length is a place elsewhere."""
    if _is_elsewhere(dataset):
        return 4 + int(dataset.file.id.get_create_plist().get_sizes()[0]) + 4
    return int(dataset.id.get_type().get_size())


def _is_elsewhere(dataset: h5py.Dataset) -> bool:
    """Return whether values are texts of any length, kept in heaps of their file."""
    kind = dataset.id.get_type()
    return isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()


def _text(value: bytes | str | float) -> str:
    """Return one metadata value as text."""
    if isinstance(value, bytes):
        return decode(value).strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
