"""Finished stores as their own metadata tell them, each object read once, and without Zarr.

``zarr.json`` of a finished store carries a digest of itself, the metadata of all arrays, and the
digest of the record of all objects. So two files and the size of each object say what opening has
to know; labels are one object each, decoded here as Zarr would. Stores that 0.1.0 wrote are left to
Zarr.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd
from numcodecs.vlen import VLenUTF8

from dglzarr.storage.buckets import is_bucket
from dglzarr.storage.files import place_of, store_nbytes
from dglzarr.storage.kept import Kept
from dglzarr.storage.objects import (
    GROUP,
    RECORD,
    Object,
    Record,
    array_of,
    changed,
    damaged,
    list_objects,
    mismatch,
    read_group,
    read_record,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_TEXT = np.dtypes.StringDType()
_ZSTD, _BLOSC = "zstd", "blosc"
_SMALL_NBYTES = 2**18
"""Of an object in a bucket that costs its request, not its bytes: it is kept."""
_KEPT_NBYTES = 2**27
"""Of objects that are kept: 500 at least, of 200 segments all labels but those of many samples."""


class Finished(NamedTuple):
    """A finished store.

    Attributes
    ----------
    uri
        Where it stands.
    attributes
        Its own, tables as such.
    arrays
        The metadata of each of its arrays.
    record
        Its objects.
    """

    uri: str
    attributes: dict[str, Any]
    arrays: Mapping[str, Any]
    record: Record

    @property
    def folder(self) -> str:
        """Where its files are."""
        return self.uri.removeprefix("file://")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array."""
        return tuple(self.arrays[name]["shape"])

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type of an array's values."""
        kind = self.arrays[name]["data_type"]
        found: np.dtype[Any] = _TEXT if kind == "string" else np.dtype(kind)
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """The size of each dim."""
        dims = (zip(a["dimension_names"], a["shape"], strict=True) for a in self.arrays.values())
        return {dim: int(size) for some in dims for dim, size in some}

    @property
    def nbytes(self) -> int:
        """Bytes on disk of a store that is whole."""
        if is_bucket(self.uri):
            return store_nbytes(self.uri)
        own = sum(Path(self.folder, name).stat().st_size for name in (GROUP, RECORD))
        return own + sum(found.nbytes for found in self.record.values())

    def objects(self, name: str) -> dict[str, Object]:
        """Return what is recorded of the values of an array."""
        if is_one_object(self, name):
            return {n: self.record[n] for n in [_place(self, name)] if n in self.record}
        return {n: found for n, found in self.record.items() if n.startswith(f"{name}/c/")}


def read_finished(uri: str) -> Finished | None:
    """Return the finished store at ``uri``, None where Zarr has to be asked.

    Raises
    ------
    StoreError
        When the record of its objects is not as it was written.
    """
    folder = uri.removeprefix("file://")
    if "://" in folder and not is_bucket(folder):
        return None
    try:
        written = place_of(folder, GROUP).read_bytes()
        attributes, content = read_group(written)
        arrays = content["consolidated_metadata"]["metadata"]
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # whoever opens it says why
        return None
    if not attributes.get("complete") or "objects_sha256" not in attributes:
        return None
    return Finished(uri, attributes, arrays, read_record(uri, attributes) or {})


def is_whole(store: Finished) -> bool:
    """Return whether each object of a store is there and of its size."""
    folder = store.folder
    if is_bucket(folder):
        return not changed(store.record, list_objects(folder))
    try:
        return all(os.stat(f"{folder}/{n}").st_size == o.nbytes for n, o in store.record.items())  # noqa: PTH116
    except OSError:
        return False


def is_one_object(store: Finished, name: str) -> bool:
    """Return whether an array is one object that can be decoded without Zarr."""
    found = store.arrays[name]
    whole = [max(1, n) for n in found["shape"]]
    is_plain = _decoder(found) is not None
    return is_plain and found["chunk_grid"]["configuration"]["chunk_shape"] == whole


def read_object(store: Finished, name: str) -> NDArray[Any]:
    """Return an array that is one object, compared with its record.

    Raises
    ------
    StoreError
        When it is not as it was written.
    """
    found, shape, dtype = store.arrays[name], store.shape(name), store.dtype(name)
    place = _place(store, name)
    if place not in store.record:  # Zarr writes no object of fill values alone
        value = found["fill_value"]
        return np.full(shape, math.nan if value == "NaN" else value, dtype)
    wanted = store.record[place]
    is_kept = is_bucket(store.folder) and wanted.nbytes <= _SMALL_NBYTES
    written = (_kept if is_kept else _read)(store.uri, place, wanted, store.attributes["store_id"])
    content = zstd.decompress(written) if _decoder(found) == _ZSTD else blosc.decompress(written)
    if found["data_type"] == "string":
        return np.array(VLenUTF8().decode(content), _TEXT).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _read(uri: str, place: str, wanted: Object, store_id: str) -> bytes:  # noqa: ARG001
    """Return an object of a finished store, compared with its record; its id tells `_kept` more."""
    try:
        written = place_of(uri.removeprefix("file://"), place).read_bytes()
    except OSError as error:
        raise damaged(uri, f"{place} of {array_of(place)!r} is missing") from error
    got = Object(len(written), google_crc32c.value(written))
    if got != wanted:
        raise damaged(uri, mismatch(place, wanted, got))
    return bytes(written)


_kept = Kept(_read, nbytes=_KEPT_NBYTES, weigh=len)


def _place(store: Finished, name: str) -> str:
    return "/".join([name, "c", *["0"] * len(store.arrays[name]["shape"])])


def _decoder(found: Mapping[str, Any]) -> str | None:
    """Return what unpacks an array as this package writes them, None of any other."""
    first, *packed = found["codecs"]
    endian = first.get("configuration", {}).get("endian", "little")
    expected = ("vlen-utf8", _ZSTD) if found["data_type"] == "string" else ("bytes", _BLOSC)
    is_known = (first["name"], *(c["name"] for c in packed)) == expected and endian == "little"
    separator = found["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
    return expected[1] if is_known and separator == "/" else None
