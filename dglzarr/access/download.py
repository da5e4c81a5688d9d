"""One file from an address to the cache: resumed where it broke off, checked while it comes."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dglzarr.access.content import Checked, ContentError, Head, UnfitError
from dglzarr.access.http import AgainError, Client, RefusedError, pieces
from dglzarr.storage.files import put

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import requests

    from dglzarr.access.cache import Cache

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")
_PROGRESS_NBYTES = 1 << 16
_TRIES = 2
"""How often a file that came whole, but wrong, is fetched anew."""


@dataclass(frozen=True)
class Fetched:
    """A file in the cache, and what the server said of it."""

    path: Path
    sha256: str
    size: int
    etag: str
    modified: str
    head: Head


@dataclass
class _Told:
    """What the server said of the file that is on its way."""

    etag: str = ""
    modified: str = ""
    size: int | None = None

    @property
    def condition(self) -> str:
        """What a range is asked under: a strong tag, else the time of change; "" without one."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class Download:
    """The way of one file from an address into the cache.

    Parameters
    ----------
    client, cache
        Who asks, and where it goes.
    address, name
        Where it is, and what it is called.
    is_matrix, is_gzip
        What it must be.
    on_bytes
        Called with how many more bytes there are, and how many more to come.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        address: str,
        *,
        name: str,
        is_matrix: bool = False,
        is_gzip: bool = False,
        on_bytes: Callable[[int, int], None] | None = None,
    ) -> None:
        self._client, self._cache = client, cache
        self._address, self._name = address, name
        self._kind = {"is_matrix": is_matrix, "is_gzip": is_gzip}
        self._on_bytes = on_bytes or (lambda _more, _of: None)
        self._told = _Told()
        self._checked: Checked | None = None
        self._n_before = self._n_expected = 0

    def run(self) -> Fetched:
        """Return the file, whole, in the cache.

        Raises
        ------
        RefusedError
            When it cannot be had, or is not what it should be.
        OSError
            When the disk refuses.
        """
        with self._cache.partial(self._address) as self._place:
            for tried in range(_TRIES):
                try:
                    return self._once()
                except UnfitError as error:
                    self._discard()
                    if tried == _TRIES - 1 or not isinstance(error, ContentError):
                        raise
                finally:
                    self._end_check()
        raise AssertionError("the last try returns or raises")

    def _once(self) -> Fetched:
        self._recall()
        if self._told.size is None or self._have() != self._told.size:
            self._client.patiently(self._attempt, progressed=self._progressed)
        checked = self._caught_up()
        sha256 = checked.finish()
        path = self._cache.take(self._data, sha256, self._name)
        told = self._told
        found = Fetched(path, sha256, checked.n_bytes, told.etag, told.modified, checked.head())
        self._cache.forget(self._place)
        return found

    def _attempt(self) -> None:
        """Ask for what is missing, and write what comes."""
        self._n_before = have = self._have()
        headers = {}
        if have and self._told.condition:
            headers = {"Range": f"bytes={have}-", "If-Range": self._told.condition}
        with self._client.open(self._address, headers=headers) as response:
            if headers and response.status_code == 206:
                self._check_range(response, have)
            elif response.status_code == 200:
                self._begin(response)
            else:
                self._discard()
                raise AgainError(f"expected the rest of a file, got status {response.status_code}")
            self._write(response)
        have, size = self._have(), self._told.size
        if size is not None and have != size:
            if have > size:
                self._discard()
            raise AgainError(f"expected {size} bytes, got {have}")

    def _check_range(self, response: requests.Response, have: int) -> None:
        """Refuse a part of another file than the one that is on its way."""
        found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        told, said = self._told, response.headers
        modified = told.modified if told.condition != told.etag else ""
        known = (("ETag", told.etag), ("Last-Modified", modified))  # mirrors may differ in times
        is_same = (
            found is not None
            and int(found[1]) == have
            and told.size in (None, int(found[2]))
            and all(not as_was or said.get(name, as_was) == as_was for name, as_was in known)
        )
        if not is_same:
            self._discard()
            raise AgainError("expected the rest of a file, got that of another: it changed")

    def _begin(self, response: requests.Response) -> None:
        """Begin anew, and note what the server says of the file."""
        self._discard()
        said = response.headers.get("Content-Length", "")
        self._told = _Told(
            response.headers.get("ETag", ""),
            response.headers.get("Last-Modified", ""),
            int(said) if said.isdecimal() else None,
        )
        if self._told.size is not None:
            self._check_space(self._told.size)
        put(self._place / "told.json", json.dumps(vars(self._told)).encode())

    def _check_space(self, size: int) -> None:
        free = shutil.disk_usage(self._place).free
        if size > free:
            raise RefusedError(
                f"expected {size >> 20} MiB free at {self._cache.root}, got {free >> 20}. Free "
                "space or set another fetch.cache, and run again"
            )

    def _write(self, response: requests.Response) -> None:
        checked = self._caught_up()
        self._expect((self._told.size or 0) - checked.n_bytes)
        with self._data.open("ab") as file:
            for piece in pieces(
                response, self._client.options.time_out, self._client.check_stopped
            ):
                file.write(piece)
                file.flush()
                checked.feed(piece)
                self._on_bytes(len(piece), 0)

    def _expect(self, n_more: int) -> None:
        """Tell how much is to come, once."""
        if n_more > 0 and not self._n_expected:
            self._n_expected = n_more
            self._on_bytes(0, n_more)

    def _caught_up(self) -> Checked:
        """Return the check of all that is written so far."""
        if self._checked is None or self._checked.n_bytes != self._have():
            self._end_check()
            self._checked = Checked(**self._kind)
            if self._have():
                with self._data.open("rb") as file:
                    while piece := file.read(1 << 20):
                        self._checked.feed(piece)
        return self._checked

    def _end_check(self) -> None:
        if self._checked is not None:
            self._checked.close()
        self._checked = None

    @property
    def _data(self) -> Path:
        return self._place / "data"

    def _have(self) -> int:
        return self._data.stat().st_size if self._data.exists() else 0

    def _progressed(self) -> bool:
        return self._have() - self._n_before > _PROGRESS_NBYTES

    def _recall(self) -> None:
        """Take up what another run left on its way; forget it where nothing is known of it."""
        try:
            known: dict[str, Any] = json.loads((self._place / "told.json").read_bytes())
            self._told = _Told(**known)
        except (OSError, ValueError, TypeError):
            self._discard()

    def _discard(self) -> None:
        self._data.unlink(missing_ok=True)
        (self._place / "told.json").unlink(missing_ok=True)
        self._told = _Told()
        self._end_check()
