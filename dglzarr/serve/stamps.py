"""What tells one state of a study from another, from a look at its files."""

from __future__ import annotations

from pathlib import Path

from dglzarr.errors import StoreError
from dglzarr.storage.study import MANIFEST, OPTIONAL, SEGMENTED, WHOLE, open_study

Stamp = tuple[tuple[str, tuple[int, ...] | None], ...]


def stamp_of(root: str) -> Stamp:
    """Return what tells one state of a study from another: its manifest, and each of its stores."""
    try:
        study = open_study(root)
    except StoreError:
        return ((f"{root}/{MANIFEST}", None),)
    uris = [uri for schema in (*SEGMENTED, *WHOLE, *OPTIONAL) for uri in study.uris(schema)]
    files = [f"{root}/{MANIFEST}", *(f"{uri}/zarr.json" for uri in uris)]
    return tuple((file, file_stamp(file)) for file in files)


def file_stamp(file: str) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced, None where there is none."""
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
