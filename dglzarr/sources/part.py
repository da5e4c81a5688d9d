"""Some samples of an ARCHS4 file that lies elsewhere, as a smaller ARCHS4 file of this machine.

What is read of it: labels, and the chunks of values that hold these samples, as they are packed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np

from dglzarr.errors import SourceError
from dglzarr.sources.chosen import choose_samples
from dglzarr.sources.chunked import Chunked
from dglzarr.sources.compendia import EXPRESSION, archs4_fields, archs4_source, is_archs4
from dglzarr.sources.hdf5 import told
from dglzarr.sources.wide import Picked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from dglzarr.sources.base import Reading
    from dglzarr.sources.hdf5 import Chunk, Guarded

_CHUNK = (4096, 64)
_AT_ONCE = 256


class Pieces(Protocol):
    """Bytes of a file."""

    def read(self, offset: int, length: int, /) -> bytes:
        """Return some of them."""
        ...


class Part:
    """What is wanted of an ARCHS4 file.

    Parameters
    ----------
    name
        What the file is called.
    guarded, file
        The file, and as it was opened.
    reading
        Which samples.

    Attributes
    ----------
    rows
        Samples that are wanted, ascending.
    n_samples
        Samples of the file.
    chunks
        Chunks that hold their values.

    Raises
    ------
    SourceError
        If the file is no ARCHS4 file or damaged, its values lie in no chunks, or no sample is left.
    """

    def __init__(self, name: str, guarded: Guarded, file: h5py.File, reading: Reading) -> None:
        self._path = path = Path(name)
        if not is_archs4(file):
            raise SourceError(
                f"{name}: expected an ARCHS4 file to read by ranges, got another. Remove by_ranges."
            )
        source = archs4_source(path, file, reading, is_labelled=bool(reading.only_matching))
        chosen = choose_samples(source, reading)
        values = chosen.values
        every = np.arange(len(chosen.samples), dtype=np.int64)
        self.rows: NDArray[np.int64] = values.rows if isinstance(values, Picked) else every
        matrix = values.values if isinstance(values, Picked) else values
        assert isinstance(matrix, Chunked)
        self._is_turned, self.n_samples = matrix.is_turned, matrix.shape[0]
        self._matrix = file[EXPRESSION]
        if self._matrix.chunks is None:
            raise SourceError(
                f"{name}: expected values in chunks to read by ranges, got one piece. Remove "
                "by_ranges to fetch it whole."
            )
        self._fields: Mapping[str, NDArray[Any]] = archs4_fields(file, self.n_samples, self.rows)
        self.chunks = tuple(self._chunks(guarded))

    @property
    def nbytes(self) -> int:
        """Bytes of the values of the wanted samples, unpacked."""
        return int(4 * self.rows.size * self._matrix.shape[0 if self._is_turned else 1])

    def _chunks(self, guarded: Guarded) -> Iterator[Chunk]:
        """Yield the chunks of the wanted samples that the file has; others hold its fill value."""
        dataset = self._matrix
        genes, samples = (0, 1) if self._is_turned else (1, 0)
        for column in np.unique(self.rows // dataset.chunks[samples]).tolist():
            for start in range(0, dataset.shape[genes], dataset.chunks[genes]):
                place = [start, start]
                place[samples] = column * dataset.chunks[samples]
                if (found := guarded.find_chunk(dataset, tuple(place))) is not None:
                    yield found

    def pack(self, pieces: Pieces, path: Path) -> None:
        """Write a matrix of the same shape that has the chunks of the wanted samples alone."""
        with h5py.File(path, "w") as packed:
            dataset = self._matrix.id
            made = h5py.h5d.create(
                packed.id,
                b"values",
                dataset.get_type(),
                dataset.get_space(),
                dataset.get_create_plist(),
            )
            for chunk in self.chunks:
                raw = pieces.read(chunk.offset, chunk.nbytes)
                made.write_direct_chunk(chunk.place, raw, chunk.mask)

    def write(self, packed: Path, path: Path) -> None:
        """Write an ARCHS4 file of the wanted samples from what `pack` wrote.

        Raises
        ------
        SourceError
            If a chunk is damaged or a value is infinite.
        """
        with told(self._path, "readable chunks"), h5py.File(packed) as file:
            values = Chunked.of(packed, file["values"], is_turned=self._is_turned)
        with h5py.File(path, "w") as made:
            for name, cells in self._fields.items():
                made[name] = cells
            shape = (values.shape[1], self.rows.size)
            chunks = tuple(map(min, zip(shape, _CHUNK, strict=True)))
            matrix = made.create_dataset(
                EXPRESSION,
                shape,
                "f4",
                chunks=chunks,
                compression="gzip",
                compression_opts=1,
                shuffle=True,
            )
            for start in range(0, self.rows.size, _AT_ONCE):
                rows = self.rows[start : start + _AT_ONCE]
                matrix[:, start : start + rows.size] = values.pick(rows).T
