"""Fetched files by their content: ``files/SHA256/NAME``, and what is on its way.

A file in it is whole and never written again; studies share them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from dglzarr.access.http import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
_LOCK = "lock"


def check_name(name: str) -> str:
    """Return a file's name that is fit for any folder.

    Raises
    ------
    RefusedError
        When it has other characters than letters, digits and ``._+-``.
    """
    if not _NAME.fullmatch(name):
        raise RefusedError(
            f"expected a file's name of letters, digits and ._+-, got {name[:60]!r}. Download it "
            "under another name, and name that file"
        )
    return name


class Cache:
    """A folder of files by their SHA-256.

    Parameters
    ----------
    root
        Where; it is made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def place(self, sha256: str, name: str) -> Path:
        """Return where a file is, or will be."""
        return self.root / "files" / sha256[:2] / sha256 / check_name(name)

    def find(self, sha256: str, name: str, size: int) -> Path | None:
        """Return a file where it is there, as long as it should be."""
        path = self.place(sha256, name)
        return path if path.is_file() and path.stat().st_size == size else None

    def take(self, made: Path, sha256: str, name: str) -> Path:
        """Move a whole file to its place, for reading alone; return that."""
        path = self.place(sha256, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.chmod(0o444)
        made.replace(path)
        return path

    @contextmanager
    def partial(self, address: str) -> Iterator[Path]:
        """Yield the folder of what is on its way from an address, for this process alone.

        Another process that fetches the same waits until this one has it, or has died.
        """
        place = self.root / "partial" / hashlib.sha256(address.encode()).hexdigest()
        while (lock := _locked(place)) is None:
            pass
        with lock:
            yield place

    def forget(self, place: Path) -> None:
        """Remove what was on its way."""
        with suppress(OSError):
            for path in place.iterdir():
                if path.name != _LOCK:
                    path.unlink()
            (place / _LOCK).unlink()  # from here on it is another's
            place.rmdir()


def _locked(place: Path) -> TextIO | None:
    """Return the lock of a folder, which is made; None where its holder has done with it."""
    with suppress(FileNotFoundError), ExitStack() as opened:
        place.mkdir(parents=True, exist_ok=True)
        lock = opened.enter_context((place / _LOCK).open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(lock.fileno()), (place / _LOCK).stat()):
            opened.pop_all()
            return lock
    return None
