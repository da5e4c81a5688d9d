"""``sources.lock``: what was fetched from where, so that it is the same next time.

JSON beside the settings, with a digest of itself: what was edited by hand is told.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from dglzarr.errors import ConfigError
from dglzarr.storage.files import put
from dglzarr.storage.objects import UNSEALED, carries_digest, seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "Restore it from version control, or remove it and run 'dglzarr fetch'."


@dataclass(frozen=True)
class Entry:
    """One file as it was fetched.

    Attributes
    ----------
    source
        What asked for it, as in ``geo:GSE10072``.
    kind
        What it is: matrix, labels (a matrix without values), platform (GEO's table of one), counts,
        annotation, samples (a sheet), data.
    address, name
        Where it was, and what it is called.
    size, sha256, etag, modified, fetched
        Its bytes and their digest; what the server said of it; the day.
    platform, organism
        Of a series matrix, as it says them; joined by commas where there are several.
    """

    source: str
    kind: str
    address: str
    name: str
    size: int
    sha256: str
    etag: str = ""
    modified: str = ""
    fetched: str = ""
    platform: str = ""
    organism: str = ""


def read_lock(path: Path) -> list[Entry]:
    """Return what a lock file records, nothing where there is none.

    Raises
    ------
    ConfigError
        When it cannot be read, is not as dglzarr wrote it, or is of another version.
    """
    return _parse(path, _bytes(path))


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error


def _parse(path: Path, written: bytes | None) -> list[Entry]:
    if written is None:
        return []
    if not carries_digest(written):
        raise ConfigError(
            f"{path}: expected what dglzarr wrote, got a file that was edited or cut. {_REMEDY}"
        )
    content = json.loads(written)
    if content.get("version") != VERSION:
        raise ConfigError(
            f"{path}: expected version {VERSION}, got {content.get('version')!r}. {_REMEDY}"
        )
    return [_entry(path, one) for one in content["files"]]


def _entry(path: Path, one: dict[str, Any]) -> Entry:
    types = {field.name: int if field.name == "size" else str for field in fields(Entry)}
    try:
        entry = Entry(**one)
    except TypeError as error:
        raise ConfigError(f"{path}: expected files as dglzarr notes them. {_REMEDY}") from error
    is_right = all(isinstance(getattr(entry, name), kind) for name, kind in types.items())
    if not is_right or not _SHA256.fullmatch(entry.sha256):
        raise ConfigError(f"{path}: expected files as dglzarr notes them. {_REMEDY}")
    return entry


def record(path: Path, source: str, entries: Sequence[Entry]) -> None:
    """Write what a source is from now on into a lock file; the other sources stay.

    Raises
    ------
    ConfigError
        As `read_lock`.
    """
    with _alone(path):
        before = _bytes(path)
        kept = [entry for entry in _parse(path, before) if entry.source != source]
        files = [asdict(e) for e in sorted([*kept, *entries], key=lambda e: (e.source, e.address))]
        put(path, seal({"version": VERSION, "files": files, "digest": UNSEALED}))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one thread and process at a time change what is in a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
