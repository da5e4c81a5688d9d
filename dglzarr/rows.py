"""Reads arrays of stores by rows, complete or not; what region tasks work on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from dglzarr.kernels.slices import iter_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def read_array(uri: str, name: str) -> NDArray[Any]:
    """Return a whole small array of a store, complete or not."""
    return np.asarray(zarr.open_array(uri, path=name, mode="r")[...])


class Rows:
    """A sample by gene array of one or more segments that reads whole rows: ``rows[10:20]``."""

    def __init__(self, uris: str | Sequence[str], name: str = "expression") -> None:
        self.uris = [uris] if isinstance(uris, str) else list(uris)
        self._parts: list[Any] = [zarr.open_array(u, path=name, mode="r") for u in self.uris]
        self._starts = np.cumsum([0, *(p.shape[0] for p in self._parts)])
        self.shape = (int(self._starts[-1]), int(self._parts[0].shape[1]))
        self.dtype: np.dtype[Any] = self._parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, step = rows.indices(self.shape[0])
        assert step == 1
        pieces = [
            part[max(start - at, 0) : stop - at]
            for part, at in zip(self._parts, self._starts[:-1].tolist(), strict=True)
            if at < stop and at + part.shape[0] > start
        ]
        if not pieces:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        return np.asarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))

    def take(
        self, index: NDArray[np.integer[Any]], genes: NDArray[np.integer[Any]] | None = None
    ) -> NDArray[Any]:
        """Return the rows at ``index`` (any order), reading each only once; all or some genes."""
        if genes is not None:
            return self._columns(index, genes)
        order, inverse = np.unique(index, return_inverse=True)
        assert order.size == 0 or (order[0] >= 0 and order[-1] < len(self)), "row out of range"
        out = np.empty((order.size, self.shape[1]), dtype=self.dtype)
        for part, at in zip(self._parts, self._starts[:-1].tolist(), strict=True):
            inside = (order >= at) & (order < at + part.shape[0])
            if inside.any():
                out[inside] = part.oindex[order[inside] - at]
        return out[inverse]

    def _columns(
        self, index: NDArray[np.integer[Any]], genes: NDArray[np.integer[Any]]
    ) -> NDArray[Any]:
        """Return some genes of some rows; only chunks between the first and the last are read."""
        out = np.empty((index.size, genes.size), dtype=self.dtype)
        if not out.size:
            return out
        span = slice(int(genes.min()), int(genes.max()) + 1)
        for part, at in zip(self._parts, self._starts[:-1].tolist(), strict=True):
            inside = np.flatnonzero((index >= at) & (index < at + part.shape[0]))
            for some in iter_slices(inside.size, 4 * (span.stop - span.start), limit_nbytes=2**26):
                rows = inside[some]
                out[rows] = part.oindex[index[rows] - at, span][:, genes - span.start]
        return out
