"""Whether stores of a study belong together: each was made from those that stand beside it.

A store that was copied from another study is whole by itself; only the identities of what it was
made from tell it. So do those of a store that was not made anew after what is before it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.storage.claims import as_now
from dglzarr.storage.files import place_of
from dglzarr.storage.store import read_attributes
from dglzarr.storage.study import OPTIONAL, SEGMENTED, WHOLE, open_study

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PARTIAL = ("raw", "raw-link", "comparison", "stability")
"""Schemas of stores that were made from files, or from stores that may be gone."""

_PLACE = re.compile(
    rf"(?:(.*)/)?(raw/[^/]+\.zarr|segments/[^/]+/(?:{'|'.join(SEGMENTED)})\.zarr|models/[^/]+"
    rf"|(?:{'|'.join((*WHOLE, *OPTIONAL))})\.zarr)"
)


def root_of(uri: str) -> str:
    """Return the folder of the study in which a store stands, by its place; "" of another.

    Examples
    --------
    >>> root_of("demo/study/segments/0000/samples.zarr"), root_of("scores.zarr"), root_of("a.zarr")
    ('demo/study', '.', '')
    """
    found = _PLACE.fullmatch(uri.rstrip("/"))
    return (found[1] or ".") if found else ""


def inputs_of(root: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where each input of a store of a study must stand, and its identity."""
    if attributes.get("dglzarr_schema") in _PARTIAL:
        return
    for entry in as_now(attributes)["inputs"]:
        if "stat" not in entry and (place := _PLACE.fullmatch(entry["uri"])):
            yield f"{root}/{place[2]}", str(entry["store_id"])


def identity_of(place: str) -> str | None:
    """Return the identity of a store or model, "" where it cannot be read, None without one."""
    try:
        found = read_attributes(place)
    except DglzarrError:
        return ""
    return None if found is None else str(found.get("store_id", ""))


def again(root: str) -> str:
    """Return what to do about a store that is not that of its study.

    A run alone goes on from what stands; what was made from another store it refuses to replace.
    """
    verb = "refit" if len(open_study(root).segments) > 1 else "mine --overwrite"
    return f"Restore it from a copy, or run 'dglzarr {verb}' for {root}"


def other_inputs(root: str, uris: Iterable[str]) -> dict[str, str]:
    """Return what is wrong with the stores that were made from others than stand in the study.

    Reads the attributes of each store and of its inputs; of a store that is absent or cannot be
    read others tell.

    Parameters
    ----------
    root
        Folder of the study.
    uris
        Stores of it.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    found: dict[str, str] = {}
    known: dict[str, str | None] = {}
    for uri in uris:
        try:
            attributes = read_attributes(uri) or {}
        except DglzarrError:
            continue
        known[uri] = str(attributes.get("store_id", ""))
        for place, identity in inputs_of(root, attributes):
            if place.startswith(f"{root}/raw/"):  # many, of which `verify` tells
                continue
            if place not in known:
                known[place] = identity_of(place)
            if known[place] not in ("", None, identity):
                what = f"was made from another {place_of(place).name} than stands in the study"
                found.setdefault(uri, f"{what}. {again(root)}")
    return found


def check_together(root: str, uris: Iterable[str]) -> None:
    """Refuse stores of a study of which one was made from another than stands beside it.

    Raises
    ------
    StoreError
        Naming the first.
    """
    for uri, problem in other_inputs(root, uris).items():
        raise StoreError(f"{uri}: {problem}.")
