"""A manifest that was lost is written anew by what the segments were made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.storage.files import place_of, tag
from dglzarr.storage.objects import carries_digest
from dglzarr.storage.store import checked_attributes, read_attributes
from dglzarr.storage.study import (
    MANIFEST,
    SEGMENTED,
    Study,
    list_segments,
    locked,
    open_study,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def repair(root: str) -> Study:
    """Return a study whose manifest is whole: the one that stands there, or one written anew.

    The first segment is the one that the study's scores were made from; without scores, the first
    that was joined from sources alone. Each of the others was joined like all before it; of several
    the one that they were merged into is listed. A segment
    that is not complete is not listed, nor one that a refit has left behind.

    Raises
    ------
    StoreError
        When no segments stand there, or none of them can be the first.
    """
    names = list_segments(root)
    if not names:
        raise StoreError(f"{root}: expected segments to list, got none. Run 'dglzarr mine'.")
    with locked(root):
        try:
            return open_study(root)
        except StoreError:
            path = place_of(root, MANIFEST)
            written = path.read_bytes() if path.exists() else None
            if written and carries_digest(written):  # of a version to come
                raise
        known = "" if written is None else tag(written)  # an empty file stands there too
        write_manifest(Study(root, (), known), _chain(root, names))
    return open_study(root)


def _chain(root: str, names: Sequence[str]) -> list[str]:
    """Return the segments of a study in order, by their lineage."""
    joined = {name: _store_id(root, name, "expression") for name in names}
    known = {found for found in joined.values() if found}
    like = {name: known & _inputs(f"{root}/segments/{name}/expression.zarr") for name in names}
    begun = [name for name in names if joined[name] and not like[name]]
    source = _inputs(f"{root}/scores.zarr")
    if source:
        begun = [name for name in begun if _store_id(root, name, "contributions") in source]
    if not begun:
        raise StoreError(
            f"{root}: expected a segment that the study began with, got none of "
            f"{', '.join(names)}. Restore {MANIFEST} from a copy, or use another root."
        )
    chain = [begun[0]]
    whole = [n for n in names if all(_store_id(root, n, schema) for schema in SEGMENTED)]
    while True:
        ids = {joined[name] for name in chain}
        more = [name for name in whole if name not in chain and like[name] == ids]
        if not more:
            return chain
        more.sort(key=lambda name: not _is_compacted(root, name))  # it stands for the others
        chain.append(more[0])


def _is_compacted(root: str, segment: str) -> bool:
    """Return whether a segment was made of several."""
    found = checked_attributes(f"{root}/segments/{segment}/expression.zarr")
    return "compacted" in found.get("details", {})


def _store_id(root: str, segment: str, schema: str) -> str:
    """Return the identity of a complete store of a segment, "" where there is none."""
    try:
        found = checked_attributes(f"{root}/segments/{segment}/{schema}.zarr")
    except DglzarrError:
        return ""
    return str(found["store_id"])


def _inputs(uri: str) -> set[str]:
    """Return the identities of what a store was made from."""
    try:
        found = read_attributes(uri) or {}
    except DglzarrError:
        return set()
    return {str(entry["store_id"]) for entry in found.get("inputs", [])}
