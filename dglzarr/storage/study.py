"""Where things stand in a study, and the manifest over its immutable segments.

A logical sample-indexed store (expression, normalized, samples, ...) is an ordered list
of segments, each a complete Zarr store of its own. ``study.json`` names them and is replaced
atomically, so readers see the old list or the new one, never a mixture.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.errors import StoreError
from dglzarr.storage.files import PARTIAL, ChangedError, put, tag, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MANIFEST = "study.json"
MANIFEST_VERSION = 1
LOCK = "study.lock"
FIRST_SEGMENTS = ("0000",)
SEGMENTED = ("expression", "normalized", "samples", "latent", "contributions")
WHOLE = ("reconstruction", "scores", "landmarks", "evaluation")
OPTIONAL = ("groups", "enrichment", "comparison", "stability")


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
        return sorted(str(path) for path in Path(self.root, "raw").glob("*.zarr"))

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


def open_study(root: str) -> Study:
    """Return the study at ``root``, pinned to the manifest of this moment.

    Raises
    ------
    StoreError
        When there is no study, or its manifest is of another version.
    """
    path = Path(root) / MANIFEST
    try:
        written = path.read_bytes()
        content: Any = json.loads(written)
    except OSError as error:
        raise StoreError(
            f"{root}: no study here ({MANIFEST} is missing). Run 'dglzarr mine'."
        ) from error
    except ValueError as error:
        raise StoreError(f"{path}: expected a manifest, got {error}.") from error
    found = content.get("study_version") if isinstance(content, dict) else content
    if found != MANIFEST_VERSION:
        raise StoreError(
            f"{path}: expected a manifest of study_version {MANIFEST_VERSION}, got {found!r}."
        )
    segments = content.get("segments")
    if not segments or not isinstance(segments, list):
        raise StoreError(f"{path}: expected a list of segments, got {segments!r}.")
    return Study(root, tuple(segments), tag(written))


def planned_study(root: str) -> Study:
    """Return the study at ``root``, or the one that would be created there."""
    if (Path(root) / MANIFEST).exists():
        return open_study(root)
    return Study(root, FIRST_SEGMENTS)


def create_study(root: str) -> Study:
    """Return the study at ``root``, with a manifest of one segment where there was none.

    Raises
    ------
    StoreError
        When the root cannot be written.
    """
    if (Path(root) / MANIFEST).exists():
        return open_study(root)
    write_manifest(Study(root, ()), FIRST_SEGMENTS)
    return open_study(root)


@contextmanager
def locked(root: str) -> Iterator[None]:
    """Hold the study's lock: one run at a time changes a study. A killed run holds none.

    Raises
    ------
    StoreError
        When another run holds it.
    """
    with told(root, remedy="Choose a writable root."):
        file = (Path(root) / LOCK).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StoreError(f"{root}: another run is changing this study. Wait for it.") from error
        except OSError as error:
            raise StoreError(
                f"{root}: cannot be locked: {error}. Choose a root on a file system with locks."
            ) from error
        for left in Path(root).glob(f"*{PARTIAL}"):  # by a run that was killed
            left.unlink(missing_ok=True)
        yield


def write_manifest(study: Study, segments: Sequence[str]) -> None:
    """Replace the manifest atomically, where it still is the one that the study was pinned by.

    Raises
    ------
    StoreError
        When the root cannot be written, or another run has written the manifest meanwhile.
    """
    content = {"study_version": MANIFEST_VERSION, "segments": list(segments)}
    place, text = f"{study.root}/{MANIFEST}", json.dumps(content, indent=1).encode()
    known = study.manifest_tag
    with told(study.root, remedy="Choose a writable root."):
        try:
            put(place, text, if_absent=not known, if_match=known or None)
        except ChangedError as error:
            raise StoreError(
                f"{place}: was changed by another run meanwhile. Run again; finished work is kept."
            ) from error
