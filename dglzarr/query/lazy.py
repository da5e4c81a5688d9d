"""What a store holds as NumPy, pandas, plots and netCDF take it, read when it is looked at.

Zarr gives text as NumPy's ``StringDType``, which ``.astype(str)``, ``.plot()`` and look-ups of
labels do not take yet; here it is ``str`` objects. Matrices are read straight from their shards.
Attributes are numbers and text: what was a table in them is JSON.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import concatenate, open_store

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

BOOKKEEPING = ("complete", "digest", "objects_sha256")
"""Attributes that say nothing to who reads a finished store."""


def open_readable(uri: str) -> xr.Dataset:
    """Return one complete store as a validated, lazy Dataset that other libraries take."""
    ds = open_store(uri)
    matrices = {array.name for array in SPECS[ds.attrs["dglzarr_schema"]].arrays if array.is_matrix}
    length = {"sample": ds.attrs["region_length"]}
    found: dict[Hashable, xr.Variable] = {}
    for name, variable in ds.variables.items():
        if name in matrices:
            lazy = indexing.LazilyIndexedArray(_Matrix(uri, str(name)))
            found[name] = xr.Variable(variable.dims, lazy, variable.attrs).chunk(length)
        elif variable.dtype.kind == "T":
            found[name] = _as_objects(str(name), variable)
        else:
            found[name] = variable
    taken = {name: found[name] for name in ds.data_vars}
    labels = {name: found[name] for name in ds.coords}
    return xr.Dataset(taken, labels, plain_attributes(ds.attrs, uri)).drop_encoding()


def open_parts(uris: Sequence[str]) -> xr.Dataset:
    """Return a store, or the segments of one joined along samples, for other libraries to take."""
    parts = [open_readable(uri) for uri in uris]
    ds = concatenate(parts, uris)
    lineage = [
        {name: part.attrs[name] for name in ("uri", "store_id", "created")} for part in parts
    ]
    return ds.assign_attrs(segments=json.dumps(lineage))


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
    """Return text as ``str`` objects; an index is in memory, other labels are read when needed."""
    if variable.dims == (name,):
        return xr.Variable(
            variable.dims, pd.Index(variable.values.astype(object), dtype=object), variable.attrs
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


class _Matrix(BackendArray):
    """A matrix (sample, gene) of a store, of which the rows and genes asked for are read."""

    def __init__(self, uri: str, name: str) -> None:
        self._uri, self._rows = uri, Rows(uri, name)
        self.shape, self.dtype = self._rows.shape, self._rows.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        rows, genes = (np.arange(n)[part] for n, part in zip(self.shape, key, strict=True))
        every = isinstance(key[1], slice) and genes.size == self.shape[1]
        try:
            taken = self._rows.take(np.atleast_1d(rows), None if every else np.atleast_1d(genes))
        except StoreError as error:
            raise StoreError(f"{self._uri}: cannot be read: {error}") from error
        if every and genes[0] > genes[-1]:
            taken = taken[:, ::-1]
        return taken.reshape(rows.shape + genes.shape)


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn what Zarr and its codecs raise on a damaged object into one error."""
    try:
        yield
    except DglzarrError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(
            f"{place}: cannot be read: {error}. Remove the store and run its stage again."
        ) from error
