"""Whether the stores of a study belong together: each stands that another was made from.

What may rightly be gone is not asked for: the folds of a comparison and the replicates of a
stability, with their models, are partial results of the stores that tell of them, and groups,
enrichment, comparison and stability are stores that a study need not have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dglzarr.errors import DglzarrError
from dglzarr.models.files import MODEL
from dglzarr.storage.claims import as_now
from dglzarr.storage.files import place_of
from dglzarr.storage.store import checked_attributes, read_attributes
from dglzarr.storage.study import OPTIONAL, SEGMENTED, WHOLE, open_study

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PARTIAL = ("raw", "raw-link", "comparison", "stability")
"""Schemas of stores that were made from files, or from stores that may be gone."""

_PLACE = re.compile(
    rf"(?:.*/)?(raw/[^/]+\.zarr|segments/[^/]+/(?:{'|'.join(SEGMENTED)})\.zarr|models/[^/]+"
    rf"|(?:{'|'.join((*WHOLE, *OPTIONAL))})\.zarr)"
)


def lineage_problems(root: str, stores: Sequence[str]) -> dict[str, list[str]]:
    """Return what is wrong with a study's stores as a whole, by the store that is not right.

    A store that others were made from must stand in the study with the identity that they
    recorded, wherever the study stood then; so must each store of every segment but the first, and
    all that a run makes where there is a report.

    Parameters
    ----------
    root
        Folder of the study.
    stores
        The stores that stand there.

    Raises
    ------
    StoreError
        When there is no such study.
    """
    found: dict[str, list[str]] = {}
    wanted = {uri: "" for uri in _finished(root) if uri not in stores}
    for uri in stores:
        for place, identity in _inputs(root, uri):
            standing = _identity(place)
            if standing is None:
                wanted[place] = wanted.get(place) or place_of(uri).name
            elif standing not in ("", identity):
                what = f"was made from another {place_of(place).name} than stands in the study"
                found.setdefault(uri, []).append(f"{what}. {_again(root, uri)}")
    for place, user in wanted.items():
        kind, record = ("model", MODEL) if "/models/" in place else ("store", "zarr.json")
        of = f", of which {user} was made" if user else ""
        got = f"no {record} in it" if place_of(place).exists() else "none"
        found[place] = [f"expected a {kind}{of}, got {got}. {_again(root, place)}"]
    return found


def _again(root: str, place: str) -> str:
    grown = open_study(root).segments[1:]
    verb = "refit" if any(f"/segments/{name}/" in place for name in grown) else "mine"
    return f"Restore it from a copy, or run 'dglzarr {verb}' for {root} again"


def _finished(root: str) -> Iterable[str]:
    """Return the stores that a study must have whatever was made from them, or has begun."""
    study = open_study(root)
    every = (uri for name in (*SEGMENTED, *WHOLE, *OPTIONAL) for uri in study.uris(name))
    yield from (uri for uri in every if place_of(uri).exists())
    is_done = place_of(study.report).is_file() or len(study.segments) > 1
    first = 0 if is_done else 1
    yield from (uri for name in SEGMENTED for uri in study.uris(name)[first:])
    if is_done:
        yield from (study.uri(name) for name in WHOLE)


def _inputs(root: str, uri: str) -> Iterable[tuple[str, str]]:
    """Yield where each input of a store must stand, and its identity; none of one not readable."""
    try:
        attributes: dict[str, Any] = as_now(checked_attributes(uri))
    except DglzarrError:  # which verify tells of
        return
    if attributes["dglzarr_schema"] in _PARTIAL:
        return
    for entry in attributes["inputs"]:
        if "stat" not in entry and (place := _PLACE.fullmatch(entry["uri"])):
            yield f"{root}/{place[1]}", str(entry["store_id"])


def _identity(place: str) -> str | None:
    """Return the identity of a store or model, "" where it cannot be read, None without one."""
    try:
        found = read_attributes(place)
    except DglzarrError:
        return ""
    return None if found is None else str(found.get("store_id", ""))
