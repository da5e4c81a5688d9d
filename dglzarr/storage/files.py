"""Files and folders under stores: writing them whole, sizes, leftovers, digests, lineage.

Every file is written beside its place under a name that ends in ``.partial`` and renamed, so that
what stands at a place is whole; `sweep_partial_files` removes what a killed writer left.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from dglzarr.errors import DglzarrError, SourceError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARTIAL = ".partial"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class ChangedError(OSError):
    """The condition of a `put` does not hold: another writer was there first."""


def put(
    place: str | Path, content: bytes, *, if_absent: bool = False, if_match: str | None = None
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
        Only where an object of this tag stands. On a disk looking and replacing are two steps:
        hold the study's lock.

    Raises
    ------
    ChangedError
        When the condition does not hold; what stands there stays.
    """
    path = Path(place)
    if if_match is not None and (not path.is_file() or tag(path.read_bytes()) != if_match):
        raise ChangedError(f"{path}: is another by now")
    with whole(path, if_absent=if_absent) as partial:
        partial.write_bytes(content)
    return tag(content)


def tag(content: bytes) -> str:
    """Return what names the content of an object."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def whole(place: str | Path, *, if_absent: bool = False) -> Iterator[Path]:
    """Yield the path of a file to write, which takes its place when the block has ended.

    Where the block fails nothing changes and nothing is left.
    """
    path = Path(place)
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
def told(place: str, verb: str = "written", *, remedy: str = "") -> Iterator[None]:
    """Turn what a disk refuses into one line that says what could not be done where.

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


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it, with nothing cached."""
    filesystem, path = fsspec.core.url_to_fs(uri)
    filesystem.invalidate_cache()
    return filesystem, path


def store_nbytes(uri: str) -> int:
    """Return the bytes that a store takes on disk."""
    filesystem, path = open_filesystem(uri)
    return int(filesystem.du(path)) if filesystem.exists(path) else 0


def has_other_files(filesystem: Any, path: str) -> bool:  # noqa: ANN401
    """Return whether a folder holds more than unfinished objects."""
    names = filesystem.ls(path, detail=False) if filesystem.exists(path) else []
    return any(not name.endswith(PARTIAL) for name in names)


def sweep_partial_files(filesystem: Any, path: str) -> None:  # noqa: ANN401
    """Remove what a killed writer left of an unfinished object."""
    for name in filesystem.find(path):
        if name.endswith(PARTIAL):
            filesystem.rm_file(name)


def file_sha256(path: str) -> str:
    """Return the SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with fsspec.open(path, "rb") as stream:
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
