"""What a store holds as NumPy, pandas, plots and netCDF take it, read when it is looked at.

Zarr gives text as NumPy's ``StringDType``, which ``.astype(str)``, ``.plot()`` and look-ups of
labels do not take yet; here it is ``str`` objects. Matrices are read straight from their shards.
Attributes are numbers and text: what was a table in them is JSON.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.storage.rows import FEW_GENES
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Part = TypeVar("Part", xr.Dataset, xr.DataArray)

_WIDEST = 256
BOOKKEEPING = ("complete", "digest", "objects_sha256")
"""Attributes that say nothing to who reads a finished store."""


def open_parts(uris: Sequence[str]) -> xr.Dataset:
    """Return a store, or segments of one joined along samples, validated, for others to take."""
    ds = open_store(uris)
    found = with_objects(ds).drop_encoding()
    found.attrs = plain_attributes(ds.attrs, uris[0])
    return found


def with_objects(ds: xr.Dataset) -> xr.Dataset:
    """Return a Dataset whose text is ``str`` objects, as NumPy, pandas and netCDF take it."""
    if not any(variable.dtype.kind == "T" for variable in ds.variables.values()):
        return ds
    found = {
        name: _as_objects(str(name), variable) if variable.dtype.kind == "T" else variable
        for name, variable in ds.variables.items()
    }
    taken = {name: found[name] for name in ds.data_vars}
    labels = {name: found[name] for name in ds.coords}
    return xr.Dataset(taken, labels, ds.attrs)


def genes_of(matrix: xr.DataArray, places: NDArray[np.integer[Any]] | slice) -> xr.DataArray:
    """Return some genes of a matrix (sample, gene), of which no others are read where it is lazy.

    Dask reads whole rows of what is chosen by a list, or by several slices of one array; of one
    slice of an array it reads that slice alone. Of a part, or of what was made of a store, it is
    left to Dask: a graph of several steps is not to be had twice.
    """
    found = matrix.isel(gene=places)
    if isinstance(places, slice) or not 0 < places.size <= FEW_GENES or not _is_whole(matrix):
        return found
    from dask.array import concatenate  # noqa: PLC0415  (takes a second, with scipy)
    from dask.graph_manipulation import clone  # noqa: PLC0415

    parts = [clone(matrix.data)[:, place : place + 1] for place in places.tolist()]
    return found.copy(data=concatenate(parts, axis=1))


def aligned(part: Part, dim: str, labels: Sequence[str] | NDArray[Any]) -> Part:
    """Return a part of a study with what stands along a dim in the order of some labels.

    Raises
    ------
    ConfigError
        When it lacks one of them.
    """
    own = part.indexes[dim]
    wanted = np.asarray(labels, dtype=object)
    if np.array_equal(own.to_numpy().astype(object), wanted):
        return part
    index = own.get_indexer(pd.Index(wanted))
    if (index < 0).any():
        raise ConfigError(
            f"dgl: expected a study whose stores have the same {dim}s, got a part of some. Cut all "
            "of them, or ask what dglzarr.open_study returns."
        )
    return part.isel({dim: index})


def _is_whole(matrix: xr.DataArray) -> bool:
    """Return whether a lazy matrix is an array of a store, of which nothing was made yet."""
    if matrix.chunks is None:
        return False
    name = matrix.data.name
    return set(getattr(matrix.data.dask, "layers", ())) == {name, f"original-{name}"}


def plain_attributes(attributes: Mapping[str, Any], uri: str) -> dict[str, str | float]:
    """Return attributes of a store as netCDF takes them: numbers and text, JSON of what is more.

    Examples
    --------
    >>> plain_attributes({"complete": True, "parameters": {"ties": "midrank"}}, "a.zarr")
    {'uri': 'a.zarr', 'parameters': '{"ties": "midrank"}'}
    """
    found: dict[str, str | float] = {"uri": uri}
    for name, value in attributes.items():
        if name not in BOOKKEEPING:
            found[name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return found


def _as_objects(name: str, variable: xr.Variable) -> xr.Variable:
    """Return text as ``str`` objects, read when needed; an index is fixed-width text in memory.

    Axes of plots are to be of that; a label of over 256 characters would make all of them long.
    """
    if variable.dims == (name,):
        labels = variable.values.astype(object)
        is_short = max(map(len, labels), default=0) <= _WIDEST
        return xr.Variable(
            variable.dims, labels.astype(str) if is_short else labels, variable.attrs
        )
    lazy: Any = indexing.LazilyIndexedArray(_Text(variable))
    cached = indexing.MemoryCachedArray(lazy)  # type: ignore[no-untyped-call]
    return xr.Variable(variable.dims, cached, variable.attrs)


class _Text(BackendArray):
    """Text of a store as ``str`` objects."""

    def __init__(self, variable: xr.Variable) -> None:
        self._variable, self.shape, self.dtype = variable, variable.shape, np.dtype(object)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._variable[key].values).astype(object)


def refuse_address(place: str) -> None:
    """Refuse what a server gives by HTTP, which xarray opens itself.

    Raises
    ------
    StoreError
        When a place is one.
    """
    if place.startswith(("http://", "https://")):
        raise StoreError(
            f"{place}: expected a folder or a bucket, got an address. Open a store of it by "
            "xarray.open_zarr; after 'import dglzarr.query' that has .dgl too."
        )


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn what Zarr and its codecs raise on a damaged object into one error."""
    refuse_address(place)
    try:
        yield
    except DglzarrError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(
            f"{place}: cannot be read: {error}. Remove the store and run its stage again."
        ) from error
