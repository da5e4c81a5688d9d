"""Lazy HDF5 matrices, read by blocks of whole chunks, whichever way they lie.

A slice of samples is read as blocks that follow the file's chunks, so that each chunk is unpacked
once where it is no wider than a region; one that a region's border cuts waits for the next region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

from dglzarr.errors import SourceError
from dglzarr.kernels.slices import copy_block
from dglzarr.sources.hdf5 import told

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_BLOCK_NBYTES = 2**25
_KEPT_NBYTES = 2**27
_WIDTH = 64
"""Samples read at once of a matrix without chunks."""

_kept: dict[tuple[object, ...], NDArray[np.float32]] = {}
"""The column of chunks that was read last in part, in this process."""


@dataclass(frozen=True)
class Chunked:
    """A matrix of an HDF5 file, opened for each read so that it can be sent to workers.

    Attributes
    ----------
    path, name
        The file, and the dataset in it.
    shape
        Number of samples and of genes.
    is_turned
        Whether the dataset is ``(gene, sample)``.
    width
        Samples of a chunk.
    """

    path: Path
    name: str
    shape: tuple[int, int]
    is_turned: bool
    width: int

    @classmethod
    def of(cls, path: Path, dataset: h5py.Dataset, *, is_turned: bool) -> Chunked:
        """Return a dataset as a matrix of samples.

        Raises
        ------
        SourceError
            If it is no matrix of numbers.
        """
        if dataset.ndim != 2 or dataset.dtype.kind not in "fiu":
            raise SourceError(
                f"{path.name}: expected a matrix of numbers in '{dataset.name}', got "
                f"{dataset.dtype} {dataset.shape}."
            )
        n_samples, n_genes = dataset.shape[::-1] if is_turned else dataset.shape
        width = (dataset.chunks or (_WIDTH, _WIDTH))[1 if is_turned else 0]
        shape = (int(n_samples), int(n_genes))
        return cls(path, dataset.name, shape, is_turned, int(min(width, max(1, n_samples))))

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the values ``(sample, gene)`` of a slice of samples."""
        start, stop, _ = samples.indices(self.shape[0])
        return self.pick(np.arange(start, stop))

    def pick(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values ``(sample, gene)`` of some samples, in ascending order.

        Raises
        ------
        SourceError
            If the file is damaged or a value is infinite.
        """
        out = np.empty((rows.size, self.shape[1]), np.float32)
        number = rows // self.width
        first = np.flatnonzero(np.diff(number, prepend=-1))
        last = np.append(first[1:], rows.size)
        with told(self.path, "a readable matrix"), h5py.File(self.path) as file:
            dataset = file[self.name]
            for lo, hi in self._runs(number[first], first, last):
                self._read(dataset, rows[lo:hi], out[lo:hi])
        if not np.isfinite(out).all() and np.isinf(out).any():
            sample, gene = np.argwhere(np.isinf(out))[0]
            raise SourceError(
                f"{self.path.name}: expected finite values, got an infinite one in sample "
                f"{int(rows[sample])}, gene {int(gene)} of '{self.name}'."
            )
        return out

    def n_unpacked(self, region: int) -> float:
        """Return how often a chunk is unpacked where all regions of some length are read once."""
        is_kept = 4 * self.width * self.shape[1] <= _KEPT_NBYTES
        return 1.0 if is_kept else max(1.0, self.width / region)

    def _runs(
        self, numbers: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> list[tuple[int, int]]:
        """Return runs of rows in neighbouring columns of chunks that are read at once."""
        most = max(1, _WIDTH // self.width)
        is_whole = last - first == self.width
        found: list[tuple[int, int]] = []
        begin = 0
        for at in range(1, numbers.size + 1):
            is_over = at == numbers.size or numbers[at] != numbers[at - 1] + 1
            if is_over or at - begin == most or not (is_whole[at] and is_whole[at - 1]):
                found.append((int(first[begin]), int(last[at - 1])))
                begin = at
        return found

    def _read(
        self, dataset: h5py.Dataset, rows: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        """Read rows of neighbouring columns of chunks to where they are expected."""
        start = int(rows[0]) // self.width * self.width
        stop = min((int(rows[-1]) // self.width + 1) * self.width, self.shape[0])
        if rows.size < stop - start:
            if (kept := self._kept_block(dataset, start, stop)) is not None:
                out[:] = kept[rows - start]
                return
            start, stop = int(rows[0]), int(rows[-1]) + 1
        for genes in self._gene_slices(dataset, stop - start):
            block = self._block(dataset, slice(start, stop), genes)
            copy_block(block if rows.size == len(block) else block[rows - start], out[:, genes])

    def _kept_block(
        self, dataset: h5py.Dataset, start: int, stop: int
    ) -> NDArray[np.float32] | None:
        """Return all genes of a column of chunks, which the next region may want; None if large."""
        if 4 * (stop - start) * self.shape[1] > _KEPT_NBYTES:
            return None
        stat = self.path.stat()
        key = (self.path, stat.st_mtime_ns, stat.st_size, self.name, start)
        if (found := _kept.get(key)) is not None:
            return found
        block = np.empty((stop - start, self.shape[1]), np.float32)
        for genes in self._gene_slices(dataset, stop - start):
            copy_block(self._block(dataset, slice(start, stop), genes), block[:, genes])
        _kept.clear()
        _kept[key] = block
        return block

    def _gene_slices(self, dataset: h5py.Dataset, n_samples: int) -> list[slice]:
        """Return slices of genes, whole chunks of them, that are read at once."""
        n_genes = self.shape[1]
        height = (dataset.chunks or (_WIDTH, _WIDTH))[0 if self.is_turned else 1]
        wanted = max(1, _BLOCK_NBYTES // (dataset.dtype.itemsize * n_samples))
        length = max(height, wanted // height * height)
        return [slice(a, min(a + length, n_genes)) for a in range(0, n_genes, length)]

    def _block(self, dataset: h5py.Dataset, samples: slice, genes: slice) -> NDArray[np.float32]:
        """Return a block of whole chunks of genes, ``(sample, gene)``, as it lies in the file."""
        values = dataset[genes, samples].T if self.is_turned else dataset[samples, genes]
        with np.errstate(over="ignore"):
            return np.asarray(values, np.float32)
