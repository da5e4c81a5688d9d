"""Reads arrays of stores by rows, complete or not; what region tasks work on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dglzarr.kernels.slices import iter_slices
from dglzarr.storage.files import open_filesystem
from dglzarr.storage.finished import is_one_object, read_finished, read_object
from dglzarr.storage.matrices import open_matrix
from dglzarr.storage.objects import GROUP, open_checked, open_pinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.finished import Finished
    from dglzarr.storage.shards import Matrix

ROWS_NBYTES = 2**26
"""Of whole rows that are in memory at once where only some genes are asked for."""
FEW_GENES = 16
"""Of a range of rows, that are read gene by gene."""


def read_array(uri: str, name: str) -> NDArray[Any]:
    """Return a whole small array of a store, complete or not; of a complete one it is checked.

    Raises
    ------
    StoreError
        When the store is complete and the array is not as it was written.
    """
    return read_arrays(uri, name)[0]


def read_arrays(uri: str, *names: str) -> list[NDArray[Any]]:
    """Return several small arrays of a store, which is opened once; else as `read_array`."""
    found = read_finished(uri)
    return [
        read_pinned(found, name)
        if found is not None and name in found.arrays
        else np.asarray(_array(uri, name)[...])
        for name in names
    ]


def read_pinned(store: Finished, name: str) -> NDArray[Any]:
    """Return a whole array of a finished store as it was recorded.

    Raises
    ------
    StoreError
        When it is not as it was written, or another store stands there by now.
    """
    if is_one_object(store, name):
        return read_object(store, name)
    opened = open_pinned(store.uri, store.record)
    return np.asarray(zarr.open_array(opened, path=name, mode="r", zarr_format=3)[...])


def array_shape(uri: str, name: str, *, is_begun: bool = False) -> tuple[int, ...]:
    """Return the shape of an array of a store, complete or not; ``is_begun``: known to be not.

    Raises
    ------
    StoreError
        When the store is complete and the array's metadata are not as they were written.
    """
    if is_begun:
        filesystem, path = open_filesystem(uri)
        return tuple(json.loads(filesystem.cat_file(f"{path}/{name}/{GROUP}"))["shape"])
    found = read_finished(uri)
    if found is not None and name in found.arrays:
        return found.shape(name)
    return tuple(_array(uri, name).shape)


def _array(uri: str, name: str) -> Any:  # noqa: ANN401
    """Return an array as Zarr reads it."""
    return zarr.open_array(open_checked(uri), path=name, mode="r", zarr_format=3)


class Rows:
    """A sample by gene array of one or more segments that reads whole rows: ``rows[10:20]``."""

    def __init__(self, uris: str | Sequence[str], name: str = "expression") -> None:
        self.uris = [uris] if isinstance(uris, str) else list(uris)
        self._parts = [_matrix(u, name) or _Compressed(u, name) for u in self.uris]
        self._starts = np.cumsum([0, *(p.shape[0] for p in self._parts)])
        self.shape = (int(self._starts[-1]), int(self._parts[0].shape[1]))
        self.dtype: np.dtype[Any] = self._parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, step = rows.indices(len(self))
        assert step == 1
        return self.read_into(np.arange(start, max(start, stop)))

    def column(self, gene: int, rows: slice = slice(None)) -> NDArray[Any]:
        """Return one gene of a range of samples (sample,), in milliseconds where uncompressed."""
        assert 0 <= gene < self.shape[1], "gene out of range"
        start, stop, _ = rows.indices(len(self))
        return np.concatenate(
            [
                part.column(gene, slice(max(start - at, 0), max(stop - at, 0)))
                for part, at in zip(self._parts, self._starts.tolist(), strict=False)
            ]
        )

    def take(
        self, index: NDArray[np.integer[Any]], genes: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[Any]:
        """Return the rows at ``index`` (any order), reading each only once; all or some genes."""
        if genes is None:
            return self._rows(index)
        out = np.empty((index.size, genes.size), dtype=self.dtype)
        if 0 < genes.size <= FEW_GENES and index.size and _is_range(index - index[0]):
            for place, gene in enumerate(genes.tolist()):
                out[:, place] = self.column(gene, slice(int(index[0]), int(index[-1]) + 1))
            return out
        for some in iter_slices(index.size, 4 * self.shape[1], limit_nbytes=ROWS_NBYTES):
            out[some] = self._rows(index[some], genes)
        return out

    def _rows(
        self, index: NDArray[np.integer[Any]], genes: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[Any]:
        ascending, inverse = np.unique(index, return_inverse=True)
        assert not ascending.size or (ascending[0] >= 0 and ascending[-1] < len(self)), (
            "row out of range"
        )
        found = self.read_into(ascending, genes=genes)
        found = found if genes is None else found[:, genes]
        return found if ascending.size == index.size and _is_range(inverse) else found[inverse]

    def read_into(
        self,
        ascending: NDArray[np.integer[Any]],
        out: NDArray[Any] | None = None,
        places: NDArray[np.integer[Any]] | None = None,
        *,
        genes: NDArray[np.integer[Any]] | None = None,
        is_compiled: bool = False,
    ) -> NDArray[Any]:
        """Return the rows at an ascending index without repeats, in ``out`` where it is given.

        ``places`` are the rows of ``out`` that they are written to, by default its first. Where
        ``genes`` are named, what is read of others is not to be looked at. ``is_compiled`` is for
        threads that read all the time: see `dglzarr.storage.shards.Matrix.take`.
        """
        if out is None:
            out = np.empty((ascending.size, self.shape[1]), dtype=self.dtype)
        if places is None:
            places = np.arange(ascending.size)
        edges = np.searchsorted(ascending, self._starts)
        for part, at, first, stop in zip(
            self._parts, self._starts[:-1], edges[:-1], edges[1:], strict=True
        ):
            where = ascending[first:stop] - at, out, places[first:stop], genes
            part.take(*where, is_compiled=is_compiled)
        return out


def _matrix(uri: str, name: str) -> Matrix | None:
    """Return a matrix for direct reading, of a finished store by its sealed metadata."""
    found = read_finished(uri)
    return open_matrix(uri, name, found.arrays.get(name) if found else None)


class _Compressed:
    """A matrix that Zarr has to decode; rows are read as `Matrix` reads them."""

    def __init__(self, uri: str, name: str) -> None:
        self._array = _array(uri, name)
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def take(
        self,
        index: NDArray[np.integer[Any]],
        out: NDArray[Any],
        places: NDArray[np.integer[Any]],
        genes: NDArray[np.integer[Any]] | None = None,  # noqa: ARG002  (all are decoded)
        *,
        is_compiled: bool = False,  # noqa: ARG002  (Zarr decodes)
    ) -> None:
        """Read the rows at ``index``, ascending and without repeats, to their places in ``out``."""
        if index.size and _is_range(index - index[0]):
            out[places] = self._array[index[0] : index[-1] + 1]
        elif index.size:
            out[places] = self._array.oindex[index]

    def column(self, gene: int, rows: slice = slice(None)) -> NDArray[Any]:
        """Return one gene of a range of samples."""
        return np.asarray(self._array[rows, gene])


def _is_range(index: NDArray[np.integer[Any]]) -> bool:
    """Return whether an index is 0, 1, 2 and so on."""
    return bool((index == np.arange(index.size)).all())
