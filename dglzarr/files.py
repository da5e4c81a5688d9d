"""Files and folders under stores: sizes, leftovers, digests, the lineage of an input file."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import fsspec

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    return any(not name.endswith(".partial") for name in names)


def sweep_partial_files(filesystem: Any, path: str) -> None:  # noqa: ANN401
    """Remove what a killed writer left of an unfinished object."""
    for name in filesystem.find(path):
        if name.endswith(".partial"):
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
    """
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
