"""The stores as they stand, by plain HTTP: whole objects, ranges of them, and their tags.

So ``xarray.open_zarr("http://.../normalized.zarr")`` reads lazily. A store that is being made is
not there; one that has been replaced since it was opened is gone, so that nobody gets parts of two.
"""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from functools import lru_cache
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread
from starlette.responses import JSONResponse, Response, StreamingResponse

from dglzarr.errors import DglzarrError
from dglzarr.serve.questions import Question
from dglzarr.serve.refusals import BadQuestion, Changed, Gone, NotFound, NotMade, Refusal
from dglzarr.serve.stamps import file_stamp
from dglzarr.storage.buckets import BucketPath
from dglzarr.storage.files import PARTIAL, place_of
from dglzarr.storage.files import Place as FilePlace
from dglzarr.storage.objects import FOLDER, GROUP
from dglzarr.storage.study import MANIFEST, OPTIONAL, SEGMENTED, WHOLE, open_study

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from starlette.requests import Request

PIECE_NBYTES = 2**20
_PART = re.compile(r"[A-Za-z0-9_.@ +,()-]+")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class Store(NamedTuple):
    """A finished store: its folder, identity, and what changes when it is replaced."""

    path: FilePlace
    store_id: str
    stamp: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """A store as it was asked for, and the object in it.

    ``pinned`` is the identity that the address names, "" where it names none.
    """

    uri: str
    object: str
    pinned: str = ""


def find_place(root: str, path: str) -> Place:
    """Return which store of a study an address means, and which object.

    ``NAME.zarr`` of a store in segments stands for its only one.

    Raises
    ------
    NotFound
        When there is no such place.
    Gone
        When the study has several segments by now.
    """
    parts = path.split("/")
    if not all(_PART.fullmatch(part) and part.strip(".") for part in parts):
        raise NotFound("There is no such object.")
    at = next((i for i, part in enumerate(parts) if ".zarr" in part), None)
    if at is None:
        raise NotFound("There is no such store. /data/STUDY lists them.")
    name, _, pinned = parts[at].partition(".zarr")
    if pinned and not pinned.startswith("@"):
        raise NotFound("There is no such store. /data/STUDY lists them.")
    folder, inside = parts[:at], "/".join(parts[at + 1 :])
    if not folder and name in SEGMENTED:
        segments = open_study(root).segments
        if len(segments) > 1:
            where = " and ".join(f"segments/{s}/{name}.zarr" for s in segments)
            raise Gone(f"{name} has grown: open {where}.")
        folder = ["segments", segments[0]]
    return Place("/".join([root, *folder, f"{name}.zarr"]), inside, pinned[1:])


def store_of(place: Place) -> Store:
    """Return the finished store at a place.

    Raises
    ------
    NotMade
        When there is none, or one that is being made.
    Gone
        When it is not the one that the address names.
    """
    found = _store(place.uri, file_stamp(f"{place.uri}/{GROUP}"))
    if found is None:
        raise NotMade("There is no finished store of that name.")
    if place.pinned and found.store_id != place.pinned:
        raise Gone("This store has been replaced since. Open it anew by the address of today.")
    return found


@lru_cache(maxsize=256)
def _store(uri: str, stamp: tuple[int, ...] | None) -> Store | None:
    from dglzarr.storage.store import read_attributes  # noqa: PLC0415  (takes a second)

    if stamp is None:
        return None
    try:
        attributes = read_attributes(uri) or {}
    except DglzarrError:
        return None
    if not attributes.get("complete") or "dglzarr_schema" not in attributes:
        return None
    return Store(_resolved(uri), str(attributes["store_id"]), stamp)


class Opened:
    """Which store each client address opened last without naming it: it gets objects of no other.

    A client that reads on after the store was replaced would mix two of them.
    """

    def __init__(self, most: int = 4096) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._most, self._lock = most, threading.Lock()

    def check(self, client: str, place: Place, store: Store) -> None:
        """Note who opens a store, refuse who reads on in one that has been replaced."""
        key = client, place.uri
        with self._lock:
            if place.object == GROUP:
                self._known.pop(key, None)
                self._known[key] = store.store_id
                if len(self._known) > self._most:
                    self._known.pop(next(iter(self._known)))
            elif self._known.get(key, store.store_id) != store.store_id:
                raise Gone("This store has been replaced since it was opened. Open it again.")


def index(request: Request) -> Response:
    """Tell which stores of a study can be opened, and where."""
    Question(request.query_params).end()
    root = request.app.state.shelf[request.path_params["study"]].root
    base = str(request.url.replace(query="")).rstrip("/")
    rows = [{**row, "url": f"{base}/{row['path']}"} for row in list_stores(root)]
    return JSONResponse({"stores": rows})


def list_stores(root: str) -> list[dict[str, str]]:
    """Return the finished stores of a study: what they are, and their path in it, by identity."""
    from dglzarr.storage.schemas import SPECS  # noqa: PLC0415  (as below)

    study = open_study(root)
    found = []
    for schema in (*SEGMENTED, *WHOLE, *OPTIONAL):
        for uri in study.uris(schema):
            store = _store(uri, file_stamp(f"{uri}/{GROUP}"))
            if store is None:
                continue
            path = uri.removeprefix(f"{root}/")
            is_only = schema in SEGMENTED and len(study.segments) == 1
            found.append(
                {
                    "schema": schema,
                    "description": SPECS[schema].description,
                    "path": f"{schema}.zarr" if is_only else path,
                    "pinned": f"{path}@{store.store_id}",
                }
            )
    return found


def _resolved(folder: str) -> FilePlace:
    """Return a folder itself, where links lead to it."""
    place = place_of(folder)
    return place if isinstance(place, BucketPath) else place.resolve()


def _inside(folder: FilePlace, path: str) -> FilePlace:
    """Return a file of a folder; nothing outside of it."""
    if isinstance(folder, BucketPath):
        if not all(part.strip(".") for part in path.split("/")):
            raise NotFound("There is no such object.")
        return folder / path
    file = (folder / path).resolve()
    if not file.is_relative_to(folder):
        raise NotFound("There is no such object.")
    return file


def whole_file(request: Request, folder: str, path: str, kind: str) -> Response:
    """Return a file of a folder; nothing outside of it."""
    answer = _file(request, _inside(_resolved(folder), path), "file")
    answer.headers["content-type"] = kind
    return answer


def answer(request: Request) -> Response:
    """Return the answer to a request for an object of a study."""
    path = request.path_params["path"]
    root = request.app.state.shelf[request.path_params["study"]].root
    opened: Opened = request.app.state.opened
    Question(request.query_params).end()
    if path == MANIFEST:
        return _file(request, place_of(root, MANIFEST), "manifest")
    place = find_place(root, path)
    store = store_of(place)
    if not place.pinned:
        opened.check(request.client.host if request.client else "", place, store)
    if place.object in ("", GROUP):
        return _bytes(request, _metadata(store), f"{store.store_id}-group")
    if place.object.endswith(PARTIAL):
        raise NotFound("There is no such object.")
    found = _file(request, _inside(store.path, place.object), store.store_id)
    if store_of(place).store_id != store.store_id:
        raise Gone("This store has been replaced since it was opened. Open it again.")
    return found


@lru_cache(maxsize=64)
def _metadata(store: Store) -> bytes:
    """Return the metadata of a store with that of its arrays in it, as readers without a list need.

    What stands on disk is given as it is where it has them already.
    """
    written = (store.path / GROUP).read_bytes()
    content: dict[str, Any] = json.loads(written)
    if content.get("consolidated_metadata"):
        return written
    arrays = sorted(path.parent for path in store.path.glob(f"*/{GROUP}"))
    metadata = {
        array.name: json.loads((array / GROUP).read_bytes())
        for array in arrays
        if array.name != FOLDER
    }
    content["consolidated_metadata"] = {
        "kind": "inline",
        "must_understand": False,
        "metadata": metadata,
    }
    return json.dumps(content).encode()


# ---------------------------------------------------------------- bytes


class _Part(NamedTuple):
    """What of an object is given: from where to where, with which status and headers."""

    start: int
    stop: int
    status: int
    headers: dict[str, str]


def _part(request: Request, size: int, tag: str) -> _Part:
    """Return what of an object a request asks for; nothing where its client has it already.

    Raises
    ------
    Changed
        When the client expects another.
    BadRange
        When it lies beyond the end.
    """
    expected = request.headers.get("if-match", "*")
    if expected.strip() != "*" and tag not in _tags(expected):
        raise Changed(f"This object is another by now: its tag is {tag}. Open the store again.")
    if _is_known(request, tag):
        return _Part(0, 0, 304, {"etag": tag})
    part = _range(request, size, tag)
    start, stop = part or (0, size)
    headers = {"etag": tag, "accept-ranges": "bytes", "content-length": str(stop - start)}
    if part:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{size}"
    return _Part(start, stop, 206 if part else 200, headers)


def _is_told_alone(request: Request, part: _Part) -> bool:
    """Return whether an answer has no content."""
    return request.method == "HEAD" or part.status == 304


def _kind(file: FilePlace) -> str:
    return "application/json" if file.suffix == ".json" else "application/octet-stream"


def _bytes(request: Request, content: bytes, name: str) -> Response:
    """Return bytes or a range of them."""
    part = _part(request, len(content), f'"{name}"')
    given = b"" if _is_told_alone(request, part) else content[part.start : part.stop]
    return Response(given, part.status, part.headers, "application/json")


def _object(request: Request, file: BucketPath, name: str) -> Response:
    """Return an object of a bucket or a range of it, no more than a shard at once."""
    try:
        known = file.bucket.info(file.key)
    except FileNotFoundError as error:
        raise NotFound("There is no such object.") from error
    part = _part(request, int(known["size"]), f'"{name}-{known["e_tag"].strip(chr(34))}"')
    content = b""
    if part.stop > part.start and not _is_told_alone(request, part):
        content = bytes(file.bucket.ranges(file.key, [part.start], [part.stop])[0])
    return Response(content, part.status, part.headers, _kind(file))


def _file(request: Request, file: FilePlace, name: str) -> Response:
    """Return a file or a range of it, opened now: what replaces it later is not mixed in."""
    if isinstance(file, BucketPath):
        return _object(request, file, name)
    descriptor = _open(file)
    found = os.fstat(descriptor)
    try:
        part = _part(request, found.st_size, f'"{name}-{found.st_size:x}-{found.st_mtime_ns:x}"')
    except Refusal:
        os.close(descriptor)
        raise
    if _is_told_alone(request, part):
        os.close(descriptor)
        return Response(status_code=part.status, headers=part.headers)
    return _Streamed(descriptor, part, _kind(file))


def _open(file: Path) -> int:
    """Return a descriptor of a plain file."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise NotFound("There is no such object.") from error
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFound("There is no such object.")
    return descriptor


class _Streamed(StreamingResponse):
    """A stretch of an open file in pieces; closed when it ends, also where nobody listens."""

    def __init__(self, descriptor: int, part: _Part, kind: str) -> None:
        self._file: int | None = descriptor
        pieces = _pieces(descriptor, part.start, part.stop)
        super().__init__(pieces, part.status, part.headers, kind)

    async def __call__(self, *asgi: Any) -> None:  # noqa: ANN401
        try:
            await super().__call__(*asgi)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


async def _pieces(descriptor: int, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        size = min(PIECE_NBYTES, stop - start)
        piece = await anyio.to_thread.run_sync(os.pread, descriptor, size, start)
        if not piece:
            raise OSError("a file has ended before it should")
        start += len(piece)
        yield piece


def _is_known(request: Request, tag: str) -> bool:
    """Return whether a client has this already."""
    known = request.headers.get("if-none-match", "")
    return known == "*" or tag in [one.removeprefix("W/") for one in _tags(known)]


def _tags(header: str) -> list[str]:
    return [one.strip() for one in header.split(",")]


def _range(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """Return where a range of a request begins and ends, None where all is asked for.

    Raises
    ------
    BadRange
        When it lies beyond the end.
    """
    asked = request.headers.get("range", "")
    if request.headers.get("if-range", tag) != tag:
        return None
    found = _RANGE.fullmatch(asked.replace(" ", ""))
    if found is None or found.groups() == ("", ""):  # several, or of another unit: all is given
        return None
    first, last = found.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= size or start >= stop:
        raise BadRange(size)
    return start, stop


class BadRange(BadQuestion):
    """A range that lies beyond the end of an object."""

    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"Range: expected one within the {size} bytes of the object.")
        self.size = size
