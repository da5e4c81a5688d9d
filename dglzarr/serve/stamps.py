"""What tells one state of a study from another, from a look at its files."""

from __future__ import annotations

import zlib

from dglzarr.errors import StoreError
from dglzarr.storage.buckets import BucketPath
from dglzarr.storage.files import place_of
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
    place = place_of(file)
    try:
        if isinstance(place, BucketPath):
            known = place.bucket.info(place.key)
            changed = zlib.crc32(str(known["e_tag"]).encode())
            return changed, int(known["size"]), int(known["last_modified"].timestamp())
        found = place.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
