"""Few segments instead of many: what a study grew by becomes one segment, unseen by its readers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dglzarr.storage.cluster import client
from dglzarr.storage.cluster_options import ClusterOptions
from dglzarr.storage.files import Place, place_of, remove, told
from dglzarr.storage.merge import merge
from dglzarr.storage.options import Run
from dglzarr.storage.store import checked_attributes
from dglzarr.storage.study import (
    SEGMENTED,
    Study,
    list_segments,
    locked,
    open_study,
    retire,
    retired_at,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

KEEP_HOURS = 24.0
"""Hours that a segment which is no longer listed stays for readers that have it open."""

_REMOVED = ".removed"


class Compacted(NamedTuple):
    """What was done to a study.

    Attributes
    ----------
    merged
        The segments that became one, none where there was only one.
    segment
        The one they became, or "".
    removed
        Segments that were not listed for long enough, and are gone.
    kept
        Segments that are not listed and still stand, with the time from when they may go.
    """

    merged: tuple[str, ...]
    segment: str
    removed: tuple[str, ...]
    kept: dict[str, datetime]


def compact(root: str, *, keep_hours: float = KEEP_HOURS, run: Run = Run()) -> Compacted:
    """Merge the segments that a study grew by into one; remove those that nobody reads any more.

    The first segment stays, since reference, clusters, model and panel are of it. The others are
    copied in order, compared bit for bit, and replaced by one new manifest, so that readers see the
    old segments or the new one. A segment that no manifest lists is removed once that was so for
    ``keep_hours``.

    Parameters
    ----------
    root
        The folder of a study.
    keep_hours
        How long readers may have an old segment open, at least 0.
    run
        Who is told of the progress.

    Raises
    ------
    StoreError
        When there is no study, a segment is damaged, or another run is changing it; the study
        stays as it was.
    """
    open_study(root)
    with locked(root), client(ClusterOptions(kind="none")):
        study = open_study(root)
        old = study.segments[1:]
        segment = _merged(study, run) if len(old) > 1 else ""
        removed, kept = _collected(open_study(root), timedelta(hours=keep_hours))
    return Compacted(old if segment else (), segment, removed, kept)


def _merged(study: Study, run: Run) -> str:
    """Write the grown segments as one, and the manifest that lists it; return its name."""
    first, *old = study.segments
    new = Study(study.root, (first, study.next_segment), study.manifest_tag)
    ids = {name: [_id(uri) for uri in study.uris(name)[1:]] for name in SEGMENTED}
    replaced = {identity: "" for name in SEGMENTED for identity in ids[name]}
    for name in SEGMENTED:
        attributes = checked_attributes(study.uris(name)[0])
        uris, target = study.uris(name)[1:], new.uri(name)
        merge(
            uris,
            target,
            region_length=int(attributes["region_length"]) or 1,
            replaced=replaced,
            run=run,
        )
        replaced |= dict.fromkeys(ids[name], target)
    retire(study.root, old)
    write_manifest(study, new.segments)
    return new.segments[-1]


def _id(uri: str) -> str:
    return str(checked_attributes(uri)["store_id"])


def _collected(study: Study, keep: timedelta) -> tuple[tuple[str, ...], dict[str, datetime]]:
    """Remove segments that no manifest has listed for long enough; return them and the others."""
    removed, kept = [], {}
    for name in list_segments(study.root):
        if name in study.segments:
            continue
        since = retired_at(study.root, name)
        if since is None:  # of a growth that was given up, or of a version without this mark
            retire(study.root, [name])
            since = retired_at(study.root, name) or datetime.now(UTC)
        if datetime.now(UTC) < since + keep:
            kept[name] = since + keep
            continue
        place = place_of(study.root, "segments", name)
        with told(study.root, "removed"):
            _remove(place)
        removed.append(name)
    for left in place_of(study.root, "segments").glob(f".*{_REMOVED}"):
        remove(left)
    return tuple(removed), kept


def _remove(place: Place) -> None:
    """Remove a segment so that it is whole or gone; in a bucket it is not listed in any case."""
    if isinstance(place, Path):
        place.rename(place.with_name(f".{place.name}{_REMOVED}"))
    else:
        remove(place)


def compacted_lines(done: Compacted) -> list[str]:
    """Return what was done, a line each."""
    lines = []
    if done.segment:
        lines.append(
            f"Merged {len(done.merged)} segments into {done.segment}, equal bit for bit: "
            f"{_names(done.merged)}."
        )
    else:
        lines.append("Nothing to merge: the study has grown by one segment at most.")
    if done.removed:
        lines.append(f"Removed, no longer listed: {_names(done.removed)}.")
    if done.kept:
        last = max(done.kept.values()).astimezone()
        lines.append(
            f"Kept for readers that have them open: {_names(tuple(done.kept))}; 'dglzarr compact' "
            f"removes them after {last:%Y-%m-%d %H:%M %Z}."
        )
    return lines


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 6 else f"{', '.join(names[:4])} ... {names[-1]}"
