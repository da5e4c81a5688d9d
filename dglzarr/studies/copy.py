"""Copies a finished study between a disk and a bucket: backup, restore, publication."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from dglzarr.errors import StoreError
from dglzarr.query.checks import verify_study
from dglzarr.storage.files import PARTIAL, open_filesystem, place_of, told, whole
from dglzarr.storage.lease import LEASE
from dglzarr.storage.study import LOCK, MANIFEST, check_root, locked, open_study

if TYPE_CHECKING:
    from dglzarr.storage.tasks import Progress

_N_THREADS = 4
_PIECE_NBYTES = 2**22


class Copied(NamedTuple):
    """What was copied."""

    n_objects: int
    nbytes: int


def copy_study(root: str, target: str, *, on_progress: Progress | None = None) -> Copied:
    """Copy a study to where there is none, its manifest last, and verify the copy.

    Parameters
    ----------
    root, target
        Folders, on a disk or in a bucket. A copy that was interrupted goes on: what stands there
        with as many bytes is kept, and verified with the rest.
    on_progress
        Called with what is done, how much, and of how much.

    Raises
    ------
    StoreError
        When there is no study, another run is changing it, one stands at the target already, or
        the copy is not as it was written.
    """
    open_study(root)
    check_root(target)
    inner, outer = (os.path.abspath(p) if "://" not in p else p for p in (target, root))  # noqa: PTH100
    if f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/") and inner != outer:
        raise StoreError(f"{target}: expected a place outside {root}. Choose another place.")
    if place_of(target, MANIFEST).exists():
        raise StoreError(f"{target}: expected nothing there, got a study. Choose another place.")
    with told(target, remedy="Choose a writable place."):
        place_of(target).mkdir(parents=True, exist_ok=True)
    with locked(root), locked(target):
        found, known = _sizes(root), _sizes(target)
        names = [n for n in found if n not in (LOCK, LEASE, MANIFEST) and not n.endswith(PARTIAL)]
        todo = [name for name in names if known.get(name) != found[name]]
        with ThreadPoolExecutor(_N_THREADS) as threads:
            copied = threads.map(lambda name: _copy(root, target, name), todo)
            for done, _ in enumerate(copied, start=1):
                if on_progress:
                    on_progress("copying objects", done, len(todo))
        _copy(root, target, MANIFEST)
    for result in verify_study(target, on_progress=on_progress):
        if result["problems"]:
            raise StoreError(f"{result['uri']}: copied, but damaged: {result['problems'][0]}")
    return Copied(len(names) + 1, sum(found[name] for name in (*names, MANIFEST)))


def _sizes(root: str) -> dict[str, int]:
    """Return the bytes of each object below a folder."""
    there, folder = open_filesystem(root)
    found = there.find(folder, detail=True) if there.exists(folder) else {}
    return {name.removeprefix(f"{folder}/"): int(one["size"]) for name, one in found.items()}


def _copy(root: str, target: str, name: str) -> None:
    there, path = open_filesystem(f"{root}/{name}")
    with (
        told(f"{target}/{name}", "copied"),
        whole(f"{target}/{name}") as partial,
        there.open(path, "rb") as source,
        partial.open("wb") as file,
    ):
        shutil.copyfileobj(source, file, _PIECE_NBYTES)
