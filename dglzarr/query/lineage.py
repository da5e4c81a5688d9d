"""Whether the stores of a study belong together: each stands that another was made from.

What may rightly be gone is not asked for: the folds of a comparison and the replicates of a
stability, with their models, are partial results of the stores that tell of them, and groups,
enrichment, comparison and stability are stores that a study need not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dglzarr.errors import DglzarrError
from dglzarr.models.files import MODEL
from dglzarr.storage.files import place_of
from dglzarr.storage.store import checked_attributes
from dglzarr.storage.study import OPTIONAL, SEGMENTED, WHOLE, open_study
from dglzarr.storage.together import again, identity_of, inputs_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
            standing = identity_of(place)
            if standing is None:
                wanted[place] = wanted.get(place) or place_of(uri).name
            elif standing not in ("", identity):
                what = f"was made from another {place_of(place).name} than stands in the study"
                found.setdefault(uri, []).append(f"{what}. {again(root, uri)}")
    for place, user in wanted.items():
        kind, record = ("model", MODEL) if "/models/" in place else ("store", "zarr.json")
        of = f", of which {user} was made" if user else ""
        got = f"no {record} in it" if place_of(place).exists() else "none"
        found[place] = [f"expected a {kind}{of}, got {got}. {again(root, place)}"]
    return found


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
        attributes = checked_attributes(uri)
    except DglzarrError:  # which verify tells of
        return
    yield from inputs_of(root, attributes)
