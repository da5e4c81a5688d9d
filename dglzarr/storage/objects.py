"""What a store is made of: each of its objects with size and CRC-32C, recorded in the store itself.

Owns the record ``objects/zarr.json``, an empty Zarr group whose attributes list the objects; beside
it, while a store is being written, one file a region, which ``finish`` merges. The SHA-256 of the
record stands in the attributes of the store, and these carry a digest of themselves. So every byte
of a finished store is known, and whoever reads a whole object can tell whether it is as written.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c
from zarr.storage import LocalStore, WrapperStore

from dglzarr.errors import StoreError
from dglzarr.storage.bucket_zarr import open_zarr_store
from dglzarr.storage.buckets import Bucket, is_bucket, side_by_side
from dglzarr.storage.files import PARTIAL, open_filesystem, put, tag
from dglzarr.storage.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from zarr.abc.store import ByteRequest, Store
    from zarr.core.buffer import Buffer, BufferPrototype

    from dglzarr.storage.declare import ArraySpec

GROUP = "zarr.json"
FOLDER = "objects"
RECORD = f"{FOLDER}/{GROUP}"
UNSEALED = "0" * 64
"""Stands for the digest of a text while it is computed."""
_PIECE_NBYTES = 2**22
_RECORDS_NBYTES = 2**26
"""Of records that are kept: those of 200 segments of 5 stores of 100 objects take 41 MB."""
_TABLES = ("inputs", "parameters", "details")
"""Attributes that are JSON in text on disk; 0.1.0 wrote them as JSON."""


class Object(NamedTuple):
    """Bytes and CRC-32C of an object."""

    nbytes: int
    crc: int

    def __str__(self) -> str:
        return f"{self.nbytes} bytes of CRC-32C {self.crc:08x}"


Record = dict[str, Object]


class Damaged(StoreError):  # noqa: N818  (a state, as of the store it names)
    """Objects of a finished store are not as they were written."""


def damaged(uri: str, what: str) -> Damaged:
    """Return the error that names a store and what is wrong with it."""
    return Damaged(f"{uri}: cannot be read: {what}. Remove the store and run its stage again.")


# ---------------------------------------------------------------- a digest of oneself


def seal(content: Mapping[str, Any]) -> bytes:
    """Return JSON that carries a digest of itself where ``UNSEALED`` stands in it."""
    text = json.dumps(content, indent=2)
    assert text.count(UNSEALED) == 1, "one place for the digest"
    return text.replace(UNSEALED, tag(text.encode())).encode()


def is_sealed(written: bytes, digest: object) -> bool:
    """Return whether a text is as `seal` wrote it; ``digest`` is the one that it carries."""
    if not isinstance(digest, str) or len(digest) != len(UNSEALED):
        return False
    return tag(written.replace(digest.encode(), UNSEALED.encode())) == digest


def carries_digest(written: bytes) -> bool:
    """Return whether a text is a JSON object that carries the right digest of itself."""
    try:
        return is_sealed(written, json.loads(written)["digest"])
    except (ValueError, TypeError, KeyError):
        return False


def read_group(written: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the attributes of a store by its ``zarr.json``, and all of it; 0.1.0 wrote no digest.

    Raises
    ------
    ValueError
        When the attributes are no longer as they were written.
    """
    content = json.loads(written)
    attributes = as_tables(content.get("attributes", {}))
    digest = attributes.pop("digest", None)
    is_open = digest is None and "objects_sha256" not in attributes
    if attributes.get("complete") and not is_open and not is_sealed(written, digest):
        raise ValueError("expected it as it was written, got a changed file")
    return attributes, content


def set_attributes(uri: str, arrays: Mapping[str, bytes] | None = None, **changes: Any) -> None:  # noqa: ANN401
    """Change attributes of a store, all or none of them.

    On disk they are numbers and text, which netCDF takes too: what is more is JSON in text. A
    complete store has the metadata of its arrays here as well, so that Zarr reads them at once:
    ``arrays``, which are read where they are not given.
    """
    filesystem, path = open_filesystem(uri)
    content = json.loads(filesystem.cat_file(f"{path}/{GROUP}"))
    attributes = {**content.get("attributes", {}), **changes, "digest": UNSEALED}
    content["attributes"] = {name: _as_plain(value) for name, value in attributes.items()}
    content.pop("consolidated_metadata", None)
    if attributes.get("complete"):
        known = as_arrays(array_metadata(uri) if arrays is None else arrays)
        told = {"kind": "inline", "must_understand": False, "metadata": known}
        content["consolidated_metadata"] = told
    put(f"{uri}/{GROUP}", seal(content))


def as_tables(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as they were before `set_attributes` wrote them; older ones as they are.

    Examples
    --------
    >>> as_tables({"complete": 1, "parameters": '{"ties": "midrank"}', "created": "now"})
    {'complete': True, 'parameters': {'ties': 'midrank'}, 'created': 'now'}
    """
    found = dict(attributes)
    for name in _TABLES:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    if "complete" in found:
        found["complete"] = bool(found["complete"])
    return found


def _as_plain(value: object) -> str | float | None:
    """Return an attribute as netCDF takes it."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, str | int | float) or value is None else json.dumps(value)


def array_metadata(uri: str, found: Iterable[str] | None = None) -> dict[str, bytes]:
    """Return the object that holds the metadata of each array of a store, complete or not.

    ``found`` is the listing of the store's objects, where one is at hand.
    """
    filesystem, path = open_filesystem(uri)
    listed = list_objects(uri) if found is None else found
    names = sorted(name for name in listed if name.endswith(f"/{GROUP}"))
    written = _read_all(filesystem, [f"{path}/{name}" for name in names])
    return {name: written[f"{path}/{name}"] for name in names}


def as_arrays(written: Mapping[str, bytes]) -> dict[str, Any]:
    """Return the metadata of arrays by their names."""
    return {array_of(name): json.loads(written[name]) for name in sorted(written)}


# ---------------------------------------------------------------- the record


def measure(filesystem: Any, name: str) -> Object:  # noqa: ANN401
    """Return bytes and CRC-32C of an object by reading it."""
    crc = nbytes = 0
    with filesystem.open(name, "rb") as file:
        while piece := file.read(_PIECE_NBYTES):
            crc, nbytes = google_crc32c.extend(crc, piece), nbytes + len(piece)
    return Object(nbytes, crc)


def measured(uri: str, names: Iterable[str], known: Mapping[str, bytes] | None = None) -> Record:
    """Return bytes and CRC-32C of several objects of a store, of which some are at hand."""
    filesystem, path = open_filesystem(uri)
    in_memory, several = known or {}, list(names)

    def measured_one(name: str) -> Object:
        if name in in_memory:
            return Object(len(in_memory[name]), google_crc32c.value(in_memory[name]))
        return measure(filesystem, f"{path}/{name}")

    each = side_by_side if is_bucket(uri) else map
    return dict(zip(several, each(measured_one, several), strict=True))


def list_objects(uri: str) -> dict[str, int]:
    """Return the bytes of each object of a store, but of those that record them."""
    filesystem, path = open_filesystem(uri)
    found = filesystem.find(path, detail=True)
    names = {name.removeprefix(f"{path}/"): int(info["size"]) for name, info in found.items()}
    return {
        name: nbytes
        for name, nbytes in names.items()
        if name != GROUP and not name.startswith(f"{FOLDER}/") and not name.endswith(PARTIAL)
    }


def write_record(uri: str, record: Mapping[str, Object]) -> str:
    """Write the record of a store, which merges those of its regions; return its SHA-256."""
    filesystem, path = open_filesystem(uri)
    objects = {name: list(record[name]) for name in sorted(record)}
    content = {"zarr_format": 3, "node_type": "group", "attributes": {"objects": objects}}
    digest = put(f"{uri}/{RECORD}", json.dumps(content).encode())
    parts = _parts(filesystem, path)
    if parts:
        filesystem.rm(parts)
    return digest


def write_part(uri: str, region: int, record: Mapping[str, Object]) -> None:
    """Record the objects of one region of a store that is being written."""
    content = {name: list(found) for name, found in record.items()}
    put(f"{uri}/{FOLDER}/{region}.json", json.dumps(content).encode())


def known_so_far(uri: str) -> Record:
    """Return what is recorded of a store that is being written: what is not, is to be measured."""
    filesystem, path = open_filesystem(uri)
    known: Record = {}
    with suppress(OSError, ValueError, KeyError, TypeError):
        known |= _objects(filesystem.cat_file(f"{path}/{RECORD}"))
    parts = _parts(filesystem, path)
    for written in _read_all(filesystem, parts, skip=(OSError,)).values():
        with suppress(ValueError, TypeError):
            known |= _as_record(json.loads(written))
    return known


def _read_all(
    filesystem: Any,  # noqa: ANN401
    paths: Sequence[str],
    *,
    skip: tuple[type[Exception], ...] = (),
) -> dict[str, bytes]:
    """Return some objects, of a bucket side by side, without those that fail as ``skip`` says."""

    def got(path: str) -> bytes | None:  # one by one: a list would be taken for patterns, as [1] is
        with suppress(*skip):
            return bytes(filesystem.cat_file(path))
        return None

    each = side_by_side if isinstance(filesystem, Bucket) else map
    found = zip(paths, each(got, paths), strict=True)
    return {path: content for path, content in found if content is not None}


def read_record(
    uri: str, attributes: Mapping[str, Any], *, is_fresh: bool = False
) -> Record | None:
    """Return what is recorded of a finished store, None of one that 0.1.0 wrote.

    In a bucket a record that was read before is not asked for again, unless ``is_fresh``: its
    digest, which the store tells, says that it is the same.

    Raises
    ------
    StoreError
        When the record is not as it was written.
    """
    digest = attributes.get("objects_sha256")
    if digest is not None and is_bucket(uri) and not is_fresh:
        return _asked_once(uri, digest)
    return _read_record(uri, digest)


def _read_record(uri: str, digest: str | None) -> Record | None:
    filesystem, path = open_filesystem(uri)
    try:
        written: bytes = filesystem.cat_file(f"{path}/{RECORD}")
    except OSError as error:
        if digest is None:
            return None
        raise damaged(uri, f"{RECORD} is missing") from error
    record = _checked_record(written, digest)
    if record is None:
        raise damaged(uri, f"{RECORD} was changed")
    return record


def _check_record(written: bytes, digest: str | None) -> Record | None:
    return _objects(written) if tag(written) == digest else None


def _nbytes(record: Record | None) -> int:
    """Return about what a record takes in memory, with what it is asked by."""
    return 1000 + 400 * len(record or ())


_asked_once = Kept(_read_record, nbytes=_RECORDS_NBYTES, weigh=_nbytes)
_checked_record = Kept(_check_record, nbytes=_RECORDS_NBYTES, weigh=_nbytes)


def _objects(written: bytes) -> Record:
    return _as_record(json.loads(written)["attributes"]["objects"])


def _as_record(content: Mapping[str, Iterable[int]]) -> Record:
    return {name: Object(*found) for name, found in content.items()}


def _parts(filesystem: Any, path: str) -> list[str]:  # noqa: ANN401
    names = filesystem.glob(f"{path}/{FOLDER}/*.json")
    return sorted(name for name in names if not name.endswith(f"/{GROUP}"))


# ---------------------------------------------------------------- reading


def array_of(name: str) -> str:
    """Return the array that an object belongs to."""
    return name.partition("/")[0]


def object_of(array: ArraySpec, region: int) -> str:
    """Return the object that holds a region of an array that region tasks write."""
    return "/".join([array.name, "c", str(region), *["0"] * (len(array.dims) - 1)])


def changed(record: Mapping[str, Object], found: Mapping[str, int]) -> dict[str, str]:
    """Return what a listing tells of the objects that are absent or of another size, in words."""
    return {
        name: f"{name} of {array_of(name)!r} "
        + (f"has {found[name]} bytes, expected {wanted.nbytes}" if name in found else "is missing")
        for name, wanted in record.items()
        if found.get(name) != wanted.nbytes
    }


def open_checked(uri: str) -> Store:
    """Return a store for Zarr to read; of a finished one every whole object is checked.

    Raises
    ------
    StoreError
        When the record of its objects is not as it was written.
    """
    plain = open_plain(uri)
    filesystem, path = open_filesystem(uri)
    try:
        attributes, _ = read_group(filesystem.cat_file(f"{path}/{GROUP}"))
    except (OSError, ValueError):  # Zarr, or whoever opens the store, says what is wrong
        return plain
    record = read_record(uri, attributes) if attributes.get("complete") else None
    return plain if record is None else Checked(plain, uri, record)


def open_pinned(uri: str, record: Record) -> Store:
    """Return a finished store for Zarr to read as it was recorded, whatever stands there by now."""
    return Checked(open_plain(uri), uri, record)


def open_plain(uri: str, *, read_only: bool = True) -> Store:
    """Return a store for Zarr to read or write, with nothing checked."""
    if is_bucket(uri):
        return open_zarr_store(uri, read_only=read_only)
    return LocalStore(uri.removeprefix("file://"), read_only=read_only)


class Checked(WrapperStore[Any]):
    """A finished store that is read as it was written or not at all.

    What Zarr reads in pieces, inner chunks of a shard, cannot be compared.
    """

    def __init__(self, store: Store, uri: str = "", record: Record | None = None) -> None:
        super().__init__(store)
        self.uri, self.record = uri, record or {}

    def _with_store(self, store: Store) -> Checked:
        return Checked(store, self.uri, self.record)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object, or a part of one.

        Raises
        ------
        StoreError
            When it is not there, or not as it was written.
        """
        value: Buffer | None = await self._store.get(key, prototype, byte_range)
        wanted = self.record.get(key)
        if wanted is None:
            if value is None or key == GROUP or key.startswith(f"{FOLDER}/"):
                return value
            raise damaged(self.uri, f"{key} of {array_of(key)!r} was added")
        if value is None:
            raise damaged(self.uri, f"{key} of {array_of(key)!r} is missing")
        if byte_range is None:
            content = value.to_bytes()
            got = Object(len(content), google_crc32c.value(content))
            if got != wanted:
                raise damaged(self.uri, mismatch(key, wanted, got))
        return value


def mismatch(name: str, wanted: Object, got: Object) -> str:
    """Return how an object differs from its record, in words."""
    return f"{name} of {array_of(name)!r} holds {got}, expected {wanted}"
