"""Matrices of stores, on a disk or in a bucket, read by rows and written by shards.

In a bucket a shard is the same bytes: its index is asked for once, rows of its chunks by ranges of
bytes, many shards at once, and it is put whole.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.storage.buckets import BucketPath, is_bucket, side_by_side
from dglzarr.storage.shards import ABSENT, CRC_NBYTES, Matrix, Shard, damaged, layout_of
from dglzarr.storage.shards import open_matrix as open_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.shards import Index, Memory


def open_matrix(uri: str, name: str, found: Mapping[str, Any] | None = None) -> Matrix | None:
    """Return an array of a store for reading and writing without Zarr, None where it needs Zarr.

    See `dglzarr.storage.shards.open_matrix`.
    """
    if not is_bucket(uri):
        return open_local(uri, name, found)
    path = BucketPath(f"{uri}/{name}")
    layout = layout_of(found or json.loads((path / "zarr.json").read_bytes()))
    return BucketMatrix(path, *layout) if layout else None


@dataclass(frozen=True)
class BucketMatrix(Matrix):
    """An uncompressed, sharded float32 array (sample, gene) in a bucket."""

    _known: dict[int, Index] = field(default_factory=dict, compare=False, repr=False)

    @contextmanager
    def _open_shard(self, number: int) -> Iterator[Shard]:
        """Yield a shard with the offsets of its chunks; its number stands for an open file."""
        path = self._shard_path(number)
        if number not in self._known:
            nbytes = 16 * self._grid[0] * self._grid[1] + CRC_NBYTES
            try:
                self._known[number] = self._offsets(path, path.bucket.tail(path.key, nbytes))
            except FileNotFoundError as error:
                raise self._missing(number) from error
        yield Shard(number, path, number, self._known[number])

    def write(
        self,
        shard: int,
        blocks: Iterable[NDArray[Any]],
        *,
        before: Callable[[int, int], object] = lambda *_: None,
    ) -> None:
        """Write a whole shard, whose chunks may stand elsewhere then."""
        super().write(shard, blocks, before=before)
        self._known.pop(shard, None)

    def _read(
        self,
        pieces: Index,
        opened: Sequence[Shard],
        memory: Memory,
        read: Callable[[Index, int], int],
    ) -> None:
        """Read pieces of shards, several shards at once; ``read`` is for files."""
        del read
        asked = [(shard, pieces[pieces[:, 0] == shard.file]) for shard in opened]
        asked = [(shard, some) for shard, some in asked if len(some)]
        if len(asked) == 1:
            self._read_shard(asked[0][0], asked[0][1], memory)
        elif asked:
            side_by_side(lambda one: self._read_shard(one[0], one[1], memory), asked)

    def _read_shard(self, shard: Shard, pieces: Index, memory: Memory) -> None:
        starts, ends = pieces[:, 1], pieces[:, 1] + pieces[:, 3] * memory.nbytes
        found = self._ranges(shard, starts, ends)
        for (_, _, start, n_rows, column), piece in zip(pieces.tolist(), found, strict=True):
            first = column * memory.nbytes
            width = min(memory.nbytes, memory.row_nbytes - first)
            for i, begin in enumerate(memory.begins[start : start + n_rows]):
                at = i * memory.nbytes
                memory.out[begin + first : begin + first + width] = piece[at : at + width]

    def _ranges(self, shard: Shard, starts: Index, ends: Index) -> list[memoryview]:
        """Return stretches of a shard, all of each."""
        try:
            found = shard.path.bucket.ranges(shard.path.key, starts.tolist(), ends.tolist())
        except FileNotFoundError as error:
            self._known.pop(shard.number, None)
            raise self._missing(shard.number) from error
        pieces = [memoryview(piece) for piece in found]
        if [len(piece) for piece in pieces] != (ends - starts).tolist():
            raise damaged(shard.path)
        return pieces

    def _copy_column(self, number: int, gene: int, out: NDArray[Any]) -> None:
        """Copy a gene of the samples of a shard, of each chunk from its first value to its last."""
        with self._open_shard(number) as shard:
            column, within = divmod(gene, self.chunks[1])
            begins = np.arange(0, len(out), self.chunks[0])
            offsets = shard.offsets[: len(begins), column]
            is_there = offsets != ABSENT
            n_rows = np.minimum(self.chunks[0], len(out) - begins)[is_there]
            starts = offsets[is_there] + within * self.dtype.itemsize
            ends = starts + ((n_rows - 1) * self.chunks[1] + 1) * self.dtype.itemsize
            for begin, n, piece in zip(
                begins[is_there].tolist(), n_rows, self._ranges(shard, starts, ends), strict=True
            ):
                out[begin : begin + n] = np.frombuffer(piece, self.dtype)[:: self.chunks[1]]
