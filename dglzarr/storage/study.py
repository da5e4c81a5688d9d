"""Where things stand in a study, and the manifest over its immutable segments.

A logical sample-indexed store (expression, normalized, samples, ...) is an ordered list
of segments, each a complete Zarr store of its own. ``study.json`` names them and is replaced
atomically, so readers see the old list or the new one, never a mixture.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.errors import BusyError, StoreError
from dglzarr.storage.buckets import BucketPath, ChangedError, is_bucket
from dglzarr.storage.files import PARTIAL, place_of, put, tag, told
from dglzarr.storage.lease import held
from dglzarr.storage.objects import UNSEALED, is_sealed, seal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "study.json"
MANIFEST_VERSION = 1
LOCK = "study.lock"
RETIRED = "retired.json"
_PAUSE_SECONDS, _PAUSE_SECONDS_IN_BUCKET = 5.0, 30.0
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
FIRST_SEGMENTS = ("0000",)
SEGMENTED = ("expression", "normalized", "samples", "latent", "contributions")
WHOLE = ("reconstruction", "scores", "landmarks", "evaluation")
OPTIONAL = ("groups", "enrichment", "comparison", "stability")
_turns: ContextVar[tuple[str, ...]] = ContextVar("_turns", default=())  # roots that it holds
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """A pinned view of one study: its root and the segments that exist in it."""

    root: str
    segments: tuple[str, ...]
    manifest_tag: str = field(default="", compare=False)
    """Of the manifest that it was pinned by."""

    def raw(self, name: str) -> str:
        """Return the URI of the raw store of a source."""
        return f"{self.root}/raw/{name}.zarr"

    def raws(self) -> list[str]:
        """Return the URIs of all raw stores, sorted by name."""
        return sorted(str(path) for path in place_of(self.root, "raw").glob("*.zarr"))

    @property
    def next_segment(self) -> str:
        """The name of a segment to come."""
        return f"{int(self.segments[-1]) + 1:04d}"

    def uris(self, schema: str) -> list[str]:
        """Return the URIs of a logical store, one for each segment where it is segmented."""
        if schema in SEGMENTED:
            return [f"{self.root}/segments/{s}/{schema}.zarr" for s in self.segments]
        if schema in (*WHOLE, *OPTIONAL):
            return [f"{self.root}/{schema}.zarr"]
        names = ", ".join((*SEGMENTED, *WHOLE, *OPTIONAL))
        raise StoreError(f"{self.root}: expected a store of {names}, got {schema!r}.")

    def uri(self, schema: str) -> str:
        """Return the URI of a store's newest segment."""
        return self.uris(schema)[-1]

    def model(self, seed: int) -> str:
        """Return the folder of the model trained with a seed."""
        return f"{self.root}/models/seed-{seed}"

    @property
    def report(self) -> str:
        """The HTML report."""
        return f"{self.root}/report.html"


def raw_name(uri: str) -> str:
    """Return the name of a raw store, which stands for its source.

    Examples
    --------
    >>> raw_name("study/raw/GSE55235.zarr")
    'GSE55235'
    """
    return uri.rstrip("/").rpartition("/")[2].removesuffix(".zarr")


def studies_in(folder: str) -> list[str]:
    """Return the studies that stand right in a folder of this machine."""
    place = place_of(folder)
    found = place.glob(f"*/{MANIFEST}") if isinstance(place, Path) else []
    return sorted(str(path.parent) for path in found)


def open_study(root: str) -> Study:
    """Return the study at ``root``, pinned to the manifest of this moment.

    Raises
    ------
    StoreError
        When there is no study, or its manifest is damaged or of another version.
    """
    path = place_of(root, MANIFEST)
    try:
        written = path.read_bytes()
        content: Any = json.loads(written)
    except OSError as error:
        _check_lost(root)
        meant = studies_in(root)
        remedy = f"Did you mean {' or '.join(meant[:3])}?" if meant else "Run 'dglzarr mine'."
        raise StoreError(f"{root}: no study here ({MANIFEST} is missing). {remedy}") from error
    except ValueError as error:
        raise StoreError(f"{path}: expected a manifest, got {error}. {_repair(root)}") from error
    found = content.get("study_version") if isinstance(content, dict) else content
    if found != MANIFEST_VERSION:
        is_newer = isinstance(found, int) and found > MANIFEST_VERSION
        remedy = "Upgrade dglzarr: a newer one wrote it" if is_newer else _repair(root).rstrip(".")
        raise StoreError(
            f"{path}: expected a manifest of study_version {MANIFEST_VERSION}, got {found!r}. "
            f"{remedy}."
        )
    segments = content.get("segments")
    if not segments or not isinstance(segments, list):
        raise StoreError(f"{path}: expected a list of segments, got {segments!r}.")
    for name in segments:
        if not isinstance(name, str) or not _SEGMENT.fullmatch(name):
            raise StoreError(
                f"{path}: expected segments named by letters, digits, - and _, got {name!r}. "
                f"{_repair(root)}"
            )
    is_older = "digest" not in content and set(content) == {"study_version", "segments"}
    if not is_older and not is_sealed(written, content.get("digest")):
        raise StoreError(
            f"{path}: expected it as it was written, got a changed file. {_repair(root)}"
        )
    if len(set(segments)) < len(segments):
        raise StoreError(f"{path}: expected each segment once, got {segments!r}. {_repair(root)}")
    there = {*list_segments(root), *FIRST_SEGMENTS}  # the first may not have been begun
    if is_older and (missing := [name for name in segments if name not in there]):
        raise StoreError(f"{path}: {missing[0]!r} is listed but gone. {_repair(root)}")
    return Study(root, tuple(segments), tag(written))


def list_segments(root: str) -> list[str]:
    """Return the names of the segments that stand in a study's folder, listed or not, by number."""
    names = (path.parent.name for path in place_of(root, "segments").glob("*/*.zarr"))
    return sorted({name for name in names if _SEGMENT.fullmatch(name)})


def retire(root: str, names: Sequence[str]) -> None:
    """Note that segments are not listed from now on; readers may still have them open.

    Raises
    ------
    StoreError
        When the root cannot be written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name in names:
        with told(root, remedy="Choose a writable root."):
            put(f"{root}/segments/{name}/{RETIRED}", json.dumps({"since": now}).encode())


def retired_at(root: str, name: str) -> datetime | None:
    """Return since when a segment is not listed, None where that was not noted."""
    try:
        written = place_of(root, "segments", name, RETIRED).read_bytes()
        return datetime.fromisoformat(json.loads(written)["since"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_lost(root: str) -> None:
    """Refuse a folder that has lost its manifest: a new one would forget its segments."""
    if names := list_segments(root):
        raise StoreError(
            f"{root}: {MANIFEST} is missing, but there are segments: {', '.join(names)}. "
            f"{_repair(root)}"
        )


def _repair(root: str) -> str:
    return f"Run 'dglzarr repair {root}' to write it anew by what its segments were made from."


def planned_study(root: str) -> Study:
    """Return the study at ``root``, or the one that would be created there.

    Raises
    ------
    StoreError
        When its manifest is damaged, or segments stand there without one.
    """
    if place_of(root, MANIFEST).exists():
        return open_study(root)
    _check_lost(root)
    return Study(root, FIRST_SEGMENTS)


def check_root(root: str) -> None:
    """Ask for a bucket before there is work; a folder is made when it is needed.

    Raises
    ------
    BucketError
        When there is none, or the credentials do not open it.
    """
    if is_bucket(root):
        place_of(root, MANIFEST).exists()


def create_study(root: str) -> Study:
    """Return the study at ``root``, with a manifest of one segment where there was none.

    Raises
    ------
    StoreError
        When the root cannot be written, or segments stand there without a manifest.
    """
    if place_of(root, MANIFEST).exists():
        return open_study(root)
    _check_lost(root)
    write_manifest(Study(root, ()), FIRST_SEGMENTS)
    return open_study(root)


@contextmanager
def locked(root: str, *, is_new: bool = False) -> Iterator[None]:
    """Hold the study's lock: one run at a time changes a study. A killed run holds none.

    In a bucket it is a lease (`dglzarr.storage.lease`), which a run that died holds for a minute.

    Parameters
    ----------
    is_new
        Whether the study may be yet to be created; its folder is made then.

    Raises
    ------
    BusyError
        When another run holds it.
    StoreError
        When the root cannot be written.
    """
    if root.rstrip("/") in _turns.get():
        yield
        return
    if is_bucket(root):
        with held(root):
            bucket = BucketPath(root).bucket
            for name in bucket.glob(f"{BucketPath(root).key}/*{PARTIAL}"):
                bucket.rm_file(name)
            yield
        return
    with told(root, remedy="Choose a writable root."):
        if is_new:
            Path(root).mkdir(parents=True, exist_ok=True)
        file = (Path(root) / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"{root}: another run is changing this study. Wait for it.") from error
        except OSError as error:
            raise StoreError(
                f"{root}: cannot be locked: {error}. Choose a root on a file system with locks."
            ) from error
        for left in Path(root).glob(f"*{PARTIAL}"):  # by a run that was killed
            left.unlink(missing_ok=True)
        yield


@contextmanager
def turn(root: str, *, seconds: float, is_new: bool = False) -> Iterator[None]:
    """Wait until no other run changes a study; what is done within is one run.

    Parameters
    ----------
    seconds
        The longest wait.
    is_new
        Whether the study may be yet to be created; its folder is made then.

    Raises
    ------
    BusyError
        When another run holds it for longer.
    StoreError
        When the root cannot be written.
    """
    begun, is_told = time.monotonic(), False
    pause = _PAUSE_SECONDS_IN_BUCKET if is_bucket(root) else _PAUSE_SECONDS
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(root, is_new=is_new))
                break
            except BusyError as error:
                if time.monotonic() - begun > seconds:
                    raise BusyError(f"waited {seconds / 3600:.3g} hours: {error}") from error
                if not is_told:
                    is_told = True
                    logger.info("%s: another run is at work here; this one waits for it", root)
                time.sleep(min(pause, seconds))
        token = _turns.set((*_turns.get(), root.rstrip("/")))
        stack.callback(_turns.reset, token)
        yield


def write_manifest(study: Study, segments: Sequence[str]) -> None:
    """Replace the manifest atomically, where it still is the one that the study was pinned by.

    Raises
    ------
    StoreError
        When the root cannot be written, or another run has written the manifest meanwhile.
    """
    place = f"{study.root}/{MANIFEST}"
    content = {"study_version": MANIFEST_VERSION, "segments": list(segments), "digest": UNSEALED}
    known = study.manifest_tag
    with told(study.root, remedy="Choose a writable root."):
        try:
            put(place, seal(content), if_absent=not known, if_match=known or None)
        except ChangedError as error:
            raise StoreError(
                f"{place}: was changed by another run meanwhile. Run again; finished work is kept."
            ) from error
