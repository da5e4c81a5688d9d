"""Finished stores as one xarray Dataset: what is an index is read, all else when it is looked at.

Segments of one store are joined along samples here and not by xarray, which would read every label
of each segment, and took fifteen times as long. What has no samples must be equal in all: objects
of the same size and digest are, others are read and compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from dglzarr.errors import StoreError
from dglzarr.storage.declare import text_array
from dglzarr.storage.finished import is_one_object, read_object
from dglzarr.storage.rows import Rows, read_pinned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.declare import StoreSpec
    from dglzarr.storage.finished import Finished

_DIM = "sample"


def joined(
    stores: Sequence[Finished], spec: StoreSpec, *, in_regions: bool = True
) -> xr.Dataset | None:
    """Return stores of one kind, joined along samples, None where they are not alike.

    Matrices are Dask's, a chunk a region, where they are asked for ``in_regions``. The attributes
    are those of the first store, and ``segments``: what tells each from the others.

    Raises
    ------
    StoreError
        When an index is not as it was written.
    """
    first = stores[0]
    names = sorted(first.arrays)
    if not all(_has_arrays(store, first) for store in stores[1:]):
        return None
    if not all(_is_alike(stores, name) for name in names if name != "label"):
        return None
    if len(stores) > 1:
        names = [n for n in names if "region" not in first.arrays[n]["dimension_names"]]
    matrices = {array.name for array in spec.arrays if array.is_matrix}
    labels = _labels(stores) if "label" in names else []
    variables: dict[str, xr.Variable] = {}
    for name in names:
        values = _values(stores, name, labels, is_matrix=name in matrices)
        if values is None:
            return None
        found = first.arrays[name]
        dims, told = found["dimension_names"], found["attributes"]
        variables[name] = xr.Variable(dims, values, told, fastpath=True)
        if in_regions and name in matrices:
            variables[name] = variables[name].chunk({_DIM: _regions(stores)})
    attributes = {**first.attributes, "segments": [_told(store) for store in stores]}
    named = str(attributes.pop("coordinates")).split()
    coords = {n: v for n, v in variables.items() if v.dims == (n,) or n in named}
    return xr.Dataset({n: v for n, v in variables.items() if n not in coords}, coords, attributes)


def _has_arrays(store: Finished, first: Finished) -> bool:
    """Return whether a store has the arrays of another, of the same version."""
    version = "dglzarr_schema_version"
    same = store.attributes[version] == first.attributes[version]
    return same and store.arrays.keys() == first.arrays.keys()


def _values(
    stores: Sequence[Finished], name: str, labels: Sequence[list[str]], *, is_matrix: bool
) -> Any:  # noqa: ANN401
    """Return an array, read now where it is an index, None where Zarr has to read it."""
    dims = stores[0].arrays[name]["dimension_names"]
    known = list(dict.fromkeys(label for some in labels for label in some))
    if name == "label":
        return text_array(known)
    if dims == [name]:
        return _index(stores, name)
    if is_matrix:
        return indexing.LazilyIndexedArray(StoredMatrix.of(stores, name))
    columns = [[known.index(label) for label in some] for some in labels]
    lazy = _Stored(tuple(stores), name, columns if "label" in dims else None, len(known))
    return indexing.MemoryCachedArray(indexing.LazilyIndexedArray(lazy))  # type: ignore[no-untyped-call]


def _labels(stores: Sequence[Finished]) -> list[list[str]]:
    """Return the names of sample labels of each store; equal ones are read once."""
    first = stores[0].objects("label")
    known: list[str] = read_pinned(stores[0], "label").tolist()
    return [
        known if store.objects("label") == first else read_pinned(store, "label").tolist()
        for store in stores
    ]


def _is_alike(stores: Sequence[Finished], name: str) -> bool:
    """Return whether an array differs in its samples only."""
    first, known = stores[0], stores[0].arrays[name]
    told = ("data_type", "dimension_names", "attributes")
    if any(store.arrays[name][key] != known[key] for store in stores[1:] for key in told):
        return False
    if {_DIM, "region"} & set(known["dimension_names"]):
        return True
    return all(_is_equal(store, first, name) for store in stores[1:])


def _is_equal(store: Finished, first: Finished, name: str) -> bool:
    """Return whether an array holds what another store's does."""
    if store.shape(name) != first.shape(name):
        return False
    if store.objects(name) == first.objects(name):
        return True
    values = read_pinned(store, name), read_pinned(first, name)
    return np.array_equal(*values, equal_nan=first.dtype(name).kind == "f")


def _index(stores: Sequence[Finished], name: str) -> NDArray[Any] | None:
    """Return the labels along a dim, None where Zarr has to read them, or a segment's are wrong."""
    parts = stores if name == _DIM else stores[:1]
    if not all(is_one_object(store, name) for store in parts):
        return None
    values = [read_object(store, name) for store in parts]
    if len(values) == 1:
        return values[0]
    for some in values:
        if "" in (known := set(some.tolist())) or len(known) < some.size:
            return None
    return np.concatenate(values)


def _told(store: Finished) -> dict[str, str]:
    return {"uri": store.uri, **{n: str(store.attributes[n]) for n in ("store_id", "created")}}


def _regions(stores: Sequence[Finished]) -> tuple[int, ...]:
    """Return the samples of each region."""
    found: list[int] = []
    for store, n_samples in zip(stores, _sizes(stores, _DIM), strict=True):
        length = int(store.attributes["region_length"])
        found += [min(length, n_samples - start) for start in range(0, n_samples, length)]
    return tuple(found)


def _sizes(stores: Sequence[Finished], name: str) -> list[int]:
    return [store.shape(name)[0] for store in stores]


class _Lazy(BackendArray):
    """An array that is read when it is looked at, each axis by its own key."""

    shape: tuple[int, ...]
    _read: Callable[[tuple[Any, ...]], NDArray[Any]]

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:  # noqa: ANN401
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )


class _Stored(_Lazy):
    """An array of one store, or of several joined along samples, read when it is looked at."""

    def __init__(
        self,
        stores: tuple[Finished, ...],
        name: str,
        columns: list[list[int]] | None,
        n_labels: int,
    ) -> None:
        self._stores, self._name, self._columns = stores, name, columns
        first = stores[0]
        self.dtype = first.dtype(name)
        self.shape = first.shape(name)
        if _DIM in first.arrays[name]["dimension_names"]:
            self.shape = (sum(_sizes(stores, name)), *self.shape[1:])
        else:
            self._stores = stores[:1]
        if columns is not None:
            self.shape = (self.shape[0], n_labels)

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        if self._columns is None and len(self._stores) == 1:
            values = self._part(0)
        else:
            parts = [self._part(number) for number in range(len(self._stores))]
            values = np.concatenate(parts)
        return _outer(values, key)

    def _part(self, number: int) -> NDArray[Any]:
        values = read_pinned(self._stores[number], self._name)
        if self._columns is None or self._columns[number] == [*range(self.shape[1])]:
            return values
        wide = np.full((len(values), self.shape[1]), "", values.dtype)
        wide[:, self._columns[number]] = values
        return wide


def _outer(values: NDArray[Any], key: tuple[Any, ...]) -> NDArray[Any]:
    """Return part of an array, each axis by its own key."""
    for axis, part in enumerate(key):
        if not (isinstance(part, slice) and part == slice(None)):
            at = axis - sum(np.ndim(k) == 0 and not isinstance(k, slice) for k in key[:axis])
            values = values[(*[slice(None)] * at, part)]
    return values


class StoredMatrix(_Lazy):
    """A matrix (sample, gene) of stores, of which the rows and genes asked for are read."""

    def __init__(
        self,
        uris: tuple[str, ...],
        name: str,
        starts: tuple[int, ...],
        n_genes: int,
        store_ids: tuple[str, ...],
    ) -> None:
        self._told = uris, name, starts, n_genes, store_ids
        self._uris, self._name, self._starts = uris, name, starts
        self.shape, self.dtype = (starts[-1], n_genes), np.dtype(np.float32)

    @classmethod
    def of(cls, stores: Sequence[Finished], name: str) -> StoredMatrix:
        """Return a matrix of stores joined along samples."""
        starts = np.cumsum([0, *_sizes(stores, name)]).tolist()
        ids = tuple(str(store.attributes["store_id"]) for store in stores)
        uris = tuple(store.uri for store in stores)
        return cls(uris, name, tuple(starts), stores[0].shape(name)[1], ids)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._told

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        rows, genes = (np.arange(n)[part] for n, part in zip(self.shape, key, strict=True))
        every = isinstance(key[1], slice) and genes.size == self.shape[1]
        index = np.atleast_1d(rows)
        if not index.size:
            return np.empty(rows.shape + genes.shape, self.dtype)
        first, last = np.searchsorted(self._starts, [index.min(), index.max()], "right") - 1
        uris = self._uris[first : last + 1]
        try:
            taken = Rows(uris, self._name).take(
                index - self._starts[first], None if every else np.atleast_1d(genes)
            )
        except StoreError as error:
            raise StoreError(f"{uris[0]}: cannot be read: {error}") from error
        if every and genes[0] > genes[-1]:
            taken = taken[:, ::-1]
        return taken.reshape(rows.shape + genes.shape)
