"""Files and folders under stores: writing them whole, sizes, leftovers, digests, lineage.

Every file is written beside its place under a name that ends in ``.partial`` and renamed, so that
what stands at a place is whole; `sweep_partial_files` removes what a killed writer left. In a
bucket an object is put whole instead.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
import uuid
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from dglzarr.errors import NO_MEMORY, DglzarrError, SourceError, StoreError
from dglzarr.storage import lease
from dglzarr.storage.buckets import Bucket, BucketPath, ChangedError, is_bucket, side_by_side, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARTIAL = ".partial"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FULL = (errno.ENOSPC, errno.EDQUOT)


Place = Path | BucketPath
"""Where something stands: on a disk or in a bucket."""


def place_of(place: str | Path | BucketPath, *parts: str) -> Place:
    """Return a place, or one below it."""
    if isinstance(place, str) and is_bucket(place):
        return BucketPath("/".join([place, *parts]))
    if isinstance(place, BucketPath):
        return BucketPath("/".join([str(place), *parts]))
    return Path(place, *parts)


def put(
    place: str | Place, content: bytes, *, if_absent: bool = False, if_match: str | None = None
) -> str:
    """Write an object whole or not at all; return its tag, the SHA-256 of what it holds.

    Parameters
    ----------
    place
        Where; its folder is made.
    content
        All of it.
    if_absent
        Only where nothing stands yet.
    if_match
        Only where an object of this tag stands. In a bucket that is one step; on a disk looking and
        replacing are two: hold the study's lock.

    Raises
    ------
    ChangedError
        When the condition does not hold; what stands there stays.
    """
    path = place_of(place)
    if isinstance(path, BucketPath):
        return _put_object(path, content, if_absent=if_absent, if_match=if_match)
    if if_match is not None and (not path.is_file() or tag(path.read_bytes()) != if_match):
        raise ChangedError(f"{path}: is another by now")
    with whole(path, if_absent=if_absent) as partial:
        partial.write_bytes(content)
    return tag(content)


def _put_object(path: BucketPath, content: bytes, *, if_absent: bool, if_match: str | None) -> str:
    e_tag = ""
    if if_match is not None:
        try:
            found = path.bucket.get(path.key)
        except FileNotFoundError as error:
            raise ChangedError(f"{path}: is gone by now") from error
        if tag(found.content) != if_match:
            raise ChangedError(f"{path}: is another by now")
        e_tag = found.e_tag
    lease.check(str(path))
    path.bucket.put(path.key, content, if_absent=if_absent, if_match=e_tag)
    return tag(content)


def tag(content: bytes) -> str:
    """Return what names the content of an object."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def whole(place: str | Place, *, if_absent: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write, which takes its place when the block has ended.

    Where the block fails nothing changes and nothing is left. What goes to a bucket is written to
    the local folder of temporary files first.
    """
    path = place_of(place)
    if isinstance(path, BucketPath):
        with tempfile.TemporaryDirectory(prefix="dglzarr-") as folder:
            yield Path(folder, path.name)
            lease.check(str(path))
            path.bucket.put(path.key, Path(folder, path.name), if_absent=if_absent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        if not if_absent:
            partial.replace(path)
            return
        try:
            os.link(partial, path)
        except FileExistsError as error:
            raise ChangedError(f"{path}: stands there by now") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def staged(uri: str) -> Iterator[str]:
    """Yield where to write small objects of a folder: there, or of a bucket's in a local one first.

    What is written there is put into the bucket when the block has ended, side by side, each whole;
    so what says that all is there has to be put afterwards.
    """
    if not is_bucket(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="dglzarr-") as folder:
        yield folder
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        bucket, key = open_filesystem(uri)

        def put_one(path: Path) -> None:
            lease.check(f"{uri}/")
            bucket.put(f"{key}/{path.relative_to(folder)}", path)

        side_by_side(put_one, paths)


def sweep_place(place: str | Path) -> None:
    """Remove what a killed `whole` or `put` left beside a place, and nothing else."""
    path = Path(place)
    partial = re.compile(re.escape(path.name) + r"\.[0-9a-f]{32}" + re.escape(PARTIAL))
    for left in path.parent.glob("*"):
        if partial.fullmatch(left.name):
            remove(left)


def remove(place: str | Place) -> None:
    """Remove a file, or a folder and what is in it, where it is there."""
    path = place_of(place)
    if isinstance(path, BucketPath):
        path.bucket.rm(path.key, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def told(place: str, verb: str = "written", *, remedy: str = "") -> Iterator[None]:
    """Turn what a disk or memory refuses into one line that says what could not be done where.

    Raises
    ------
    StoreError
        With the remedy, by default to run again.
    """
    try:
        yield
    except DglzarrError:
        raise
    except OSError as error:
        first = "Free space" if error.errno in _FULL else "Mend that"
        after = remedy or f"{first} and run again; finished work is kept."
        raise StoreError(f"{place}: cannot be {verb}: {error}. {after}") from error
    except MemoryError as error:
        raise StoreError(f"{place}: cannot be {verb}: {NO_MEMORY}") from error


def check_file(path: str) -> None:
    """Refuse an input file that is not there.

    Raises
    ------
    SourceError
        Naming it.
    """
    filesystem, name = open_filesystem(path)
    if not filesystem.isfile(name):
        raise SourceError(f"{path}: no such file.")


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn what a disk refuses of an input file into one line that names the file.

    Raises
    ------
    SourceError
        When it cannot be read.
    """
    try:
        yield
    except DglzarrError:
        raise
    except OSError as error:
        raise SourceError(
            f"{error.filename or path}: cannot be read: {error.strerror or error}."
        ) from error


def scratch_of(uri: str) -> Path:
    """Return a local folder for what is needed while a store is written: the one that it is in.

    Of one in a bucket it is that of temporary files.
    """
    if is_bucket(uri):
        return Path(tempfile.gettempdir())
    folder = Path(uri.removeprefix("file://")).parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def modified(place: Place) -> float:
    """Return when a file was written, in seconds."""
    return place.modified() if isinstance(place, BucketPath) else place.stat().st_mtime


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it, with nothing cached."""
    if is_bucket(uri):
        address, key = split(uri)
        return Bucket(address), key
    filesystem, path = fsspec.core.url_to_fs(uri)
    filesystem.invalidate_cache()
    return filesystem, path


def store_nbytes(uri: str) -> int:
    """Return the bytes that a store takes on disk."""
    filesystem, path = open_filesystem(uri)
    return int(filesystem.du(path)) if is_bucket(uri) or filesystem.exists(path) else 0


def has_other_files(filesystem: Any, path: str) -> bool:  # noqa: ANN401
    """Return whether a folder holds more than unfinished objects."""
    is_there = isinstance(filesystem, Bucket) or filesystem.exists(path)
    names = filesystem.ls(path, detail=False) if is_there else []
    return any(not name.endswith(PARTIAL) for name in names)


def sweep_partial_files(filesystem: Any, path: str) -> None:  # noqa: ANN401
    """Remove what a killed writer left of an unfinished object; a bucket has none."""
    if isinstance(filesystem, Bucket):
        return
    for name in filesystem.find(path):
        if name.endswith(PARTIAL):
            filesystem.rm_file(name)


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    filesystem, name = open_filesystem(path)
    with filesystem.open(name, "rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def file_input(path: str, *, known: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the lineage entry of an input file: its SHA-256 stands for the store's identity.

    ``known`` may be the attributes of a store made from it: a file of the same name, length and
    time is not read again.

    Raises
    ------
    SourceError
        When it is absent or cannot be read.
    """
    check_file(path)
    with readable(path):
        filesystem, name = open_filesystem(path)
        info = filesystem.info(name)
        stat = f"{info['size']} {info.get('mtime', '')}"
        for entry in (known or {}).get("inputs", []):
            if entry["uri"] == path and entry.get("stat") == stat:
                return dict(entry)
        return {"uri": path, "store_id": _digest(path, stat), "stat": stat}


@lru_cache(maxsize=4096)
def _digest(path: str, stat: str) -> str:  # noqa: ARG001  (part of the cache key)
    return file_sha256(path)


def no_formula(value: object) -> object:
    """Return a value as a spreadsheet is given it: text that it would take for a formula is quoted.

    Examples
    --------
    >>> [no_formula(value) for value in ("=1+1", "-2+3", "-0.5", "---", "TP53", -1)]
    ["'=1+1", "'-2+3", '-0.5', '---', 'TP53', -1]
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA) or not value.strip("-"):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def plain(value: Any) -> Any:  # noqa: ANN401  (whatever stands in a table)
    """Return a value as JSON has it: Python's own, and a number that is not finite is None."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
