"""Objects in a bucket (``s3://``, ``gs://``, ``az://``), as files and folders of the disk are used.

The only module that knows obstore. An object is put whole or not at all, so that nothing is renamed
here; who reads sees what was put last. Credentials and endpoint come from the environment, as the
tools of the providers take them (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...), and are never
written or told. What a server refuses for good is one `BucketError`.
"""

from __future__ import annotations

import io
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from dglzarr.errors import BucketError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")
R = TypeVar("R")

SCHEMES = ("s3", "gs", "az")
"""Amazon's and whatever speaks its protocol, Google's, Azure's."""

_RETRIES = 5
_SECONDS_OF_RETRIES = 60
_SECONDS_OF_REQUEST = 60
_SECONDS_TO_CONNECT = 5
_N_AT_ONCE = 8
_PIECE_NBYTES = 2**22
_METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")
_TOLD = (
    ("NoSuchBucket", "there is no such bucket", "Correct the root, or make the bucket"),
    ("ExpiredToken", "the credentials have expired", "Renew them"),
    ("InvalidAccessKeyId", "the credentials are not known", "Correct them"),
    ("SignatureDoesNotMatch", "the credentials are wrong", "Correct them"),
    ("RequestTimeTooSkewed", "this machine's clock is wrong", "Set it"),
    ("AccessDenied", "the credentials do not allow that", "Let them read, write, list and delete"),
)


class ChangedError(OSError):
    """The condition of a put does not hold: another writer was there first."""


def is_bucket(place: object) -> bool:
    """Return whether a place is in a bucket.

    Examples
    --------
    >>> is_bucket("s3://bucket/study"), is_bucket("/data/study")
    (True, False)
    """
    return str(place).partition("://")[0] in SCHEMES and "://" in str(place)


def check_address(uri: str) -> None:
    """Refuse the address of a folder in a bucket that is not one.

    Raises
    ------
    ConfigError
        Naming what is wrong.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    parts = key.split("/")
    if scheme not in SCHEMES or not re.fullmatch(r"[a-z0-9][a-z0-9._-]+", bucket):
        known = ", ".join(f"{one}://BUCKET/FOLDER" for one in SCHEMES)
        raise ConfigError(f"root: expected a local folder or {known}, got {uri!r}.")
    if not all(part.strip(".") and part.isprintable() for part in parts) or "#" in key:
        raise ConfigError(f"root: expected a folder in the bucket, got {uri!r}. Name one.")


class Found(NamedTuple):
    """An object with what tells this state of it from another."""

    content: bytes
    e_tag: str


class Bucket:
    """The objects of a bucket by their keys; methods are named as fsspec names them."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def _store(self) -> Any:  # noqa: ANN401
        return connect(self.address)

    def _ask(self, verb: str, key: str, *args: str, **how: Any) -> Any:  # noqa: ANN401
        """Return what obstore's function of a name returns of an object or a folder."""
        import obstore  # noqa: PLC0415  (an extra)

        with told_of(f"{self.address}/{key}"):
            return getattr(obstore, verb)(self._store, key, *args, **how)

    def get(self, key: str) -> Found:
        """Return an object with its tag."""
        import obstore  # noqa: PLC0415  (an extra)

        with told_of(f"{self.address}/{key}"):
            found = obstore.get(self._store, key)
            return Found(bytes(found.bytes()), str(found.meta["e_tag"]))

    def cat_file(self, key: str) -> bytes:
        """Return an object."""
        return self.get(key).content

    def put(
        self, key: str, content: bytes | Path, *, if_absent: bool = False, if_match: str = ""
    ) -> str:
        """Write an object whole or not at all, under a condition; return its tag.

        An answer that was lost on its way is asked for again, and then meets what it has written
        itself: that counts as written.

        Raises
        ------
        ChangedError
            When the condition does not hold.
        """
        import obstore  # noqa: PLC0415  (an extra)
        from obstore.exceptions import AlreadyExistsError, PreconditionError  # noqa: PLC0415

        mode: Any = "create" if if_absent else {"e_tag": if_match} if if_match else None
        place = f"{self.address}/{key}"
        with told_of(place):
            try:
                found = obstore.put(
                    self._store, key, content, mode=mode, use_multipart=False if mode else None
                )
                return str(found["e_tag"])
            except (AlreadyExistsError, PreconditionError) as error:
                changed = error
        with suppress(FileNotFoundError):
            stands = self.get(key)
            if stands.content == (content if isinstance(content, bytes) else content.read_bytes()):
                return stands.e_tag
        raise ChangedError(f"{place}: is another by now") from changed

    def ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[Any]:
        """Return pieces of an object; neighbours are asked for together."""
        return list(self._ask("get_ranges", key, starts=starts, ends=ends))

    def tail(self, key: str, nbytes: int) -> bytes:
        """Return the last bytes of an object."""
        import obstore  # noqa: PLC0415  (an extra)
        from obstore.exceptions import NotSupportedError  # noqa: PLC0415

        with told_of(f"{self.address}/{key}"):
            try:
                how: Any = {"range": {"suffix": nbytes}}
                return bytes(obstore.get(self._store, key, options=how).bytes())
            except NotSupportedError:  # by Azure
                size = obstore.head(self._store, key)["size"]
                return bytes(
                    obstore.get_range(self._store, key, start=max(0, size - nbytes), end=size)
                )

    def open(self, key: str, mode: str = "rb") -> io.BufferedReader:
        """Return an object to read front to back."""
        assert mode == "rb", mode
        return io.BufferedReader(_Body(self._store, key, f"{self.address}/{key}"), _PIECE_NBYTES)

    def find(self, key: str, *, detail: bool = False) -> Any:  # noqa: ANN401
        """Return all objects under a folder, with sizes where asked for."""
        import obstore  # noqa: PLC0415  (an extra)

        with told_of(f"{self.address}/{key}"):
            found = [one for some in obstore.list(self._store, key) for one in some]
        named = {one["path"]: {**one, "type": "file"} for one in found}
        return named if detail else sorted(named)

    def ls(self, key: str, *, detail: bool = False) -> list[str]:
        """Return what stands in a folder: objects and folders."""
        assert not detail
        found = self._ask("list_with_delimiter", key)
        return sorted([*found["common_prefixes"], *(one["path"] for one in found["objects"])])

    def glob(self, pattern: str) -> list[str]:
        """Return the objects of a pattern; a star does not reach beyond its folder."""
        fixed, _, _ = pattern.partition("*")
        names, parts = self.find(fixed.rpartition("/")[0]), pattern.split("/")
        return [name for name in names if _matches(name.split("/"), parts)]

    def info(self, key: str) -> dict[str, Any]:
        """Return size, tag and time of an object."""
        try:
            return dict(self._ask("head", key))
        except BucketError as error:
            if "answers 4" in str(error) or "refuses" in str(error):
                self.get(key)  # whose answer has a body, which says why
            raise

    def isfile(self, key: str) -> bool:
        """Return whether there is such an object."""
        try:
            self.info(key)
        except FileNotFoundError:
            return False
        return True

    def exists(self, key: str) -> bool:
        """Return whether there is such an object, or a folder with some."""
        return self.isfile(key) or bool(self.ls(key))

    def du(self, key: str) -> int:
        """Return the bytes under a folder."""
        return sum(one["size"] for one in self.find(key, detail=True).values())

    def rm_file(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._remove([key])

    def rm(self, key: str | list[str], *, recursive: bool = False) -> None:
        """Remove objects, or a folder with all in it."""
        keys = [key] if isinstance(key, str) else key
        self._remove([*keys, *(name for one in keys if recursive for name in self.find(one))])

    def _remove(self, keys: list[str]) -> None:
        def remove(key: str) -> None:
            with suppress(FileNotFoundError):
                self._ask("delete", key)

        side_by_side(remove, keys)  # many in one request are not taken by every server

    def copy(self, key: str, target: str) -> None:
        """Copy an object within the bucket, in place of what stands there."""
        import obstore  # noqa: PLC0415  (an extra)

        with told_of(f"{self.address}/{target}"):
            obstore.copy(self._store, key, target)


def side_by_side(call: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """Return what a call returns of each thing, in order; several are called at once."""
    with ThreadPoolExecutor(_N_AT_ONCE) as threads:
        return list(threads.map(call, things))


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    return len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern))


class _Body(io.RawIOBase):
    """The content of an object as it comes."""

    def __init__(self, store: Any, key: str, place: str) -> None:  # noqa: ANN401
        import obstore  # noqa: PLC0415  (an extra)

        self._place = place
        with told_of(place):
            self._pieces = iter(obstore.get(store, key).stream(min_chunk_size=_PIECE_NBYTES))
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        if not self._left:
            with told_of(self._place):
                self._left = memoryview(bytes(next(self._pieces, b"")))
        n = min(len(buffer), len(self._left))
        buffer[:n], self._left = self._left[:n], self._left[n:]
        return n


# ---------------------------------------------------------------- as a path


class BucketPath:
    """A place in a bucket with the methods of `pathlib.Path` that are used here."""

    def __init__(self, uri: str) -> None:
        self._address, key = split(uri)
        self._key = PurePosixPath(key)

    @property
    def bucket(self) -> Bucket:
        """The bucket that it is in."""
        return Bucket(self._address)

    @property
    def key(self) -> str:
        """Its name in the bucket."""
        return str(self._key)

    def __str__(self) -> str:
        return f"{self._address}/{self._key}"

    def __repr__(self) -> str:
        return f"BucketPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BucketPath) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: BucketPath) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str) -> BucketPath:
        return BucketPath(f"{self}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self._key.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._key.stem

    @property
    def suffix(self) -> str:
        """What the last part ends in."""
        return self._key.suffix

    @property
    def parent(self) -> BucketPath:
        """The folder that it is in."""
        return BucketPath(f"{self._address}/{self._key.parent}")

    def with_name(self, name: str) -> BucketPath:
        """Return the place of another name in the same folder."""
        return self.parent / name

    def exists(self) -> bool:
        """Return whether an object or a folder stands there."""
        return self.bucket.exists(self.key)

    def is_file(self) -> bool:
        """Return whether an object stands there."""
        return self.bucket.isfile(self.key)

    def read_bytes(self) -> bytes:
        """Return the object."""
        return self.bucket.cat_file(self.key)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the object as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str) -> io.BytesIO:
        """Return the object in memory, to read from."""
        assert mode == "rb", mode
        return io.BytesIO(self.read_bytes())

    def modified(self) -> float:
        """Return when it was put, in seconds of the server's clock."""
        return float(self.bucket.info(self.key)["last_modified"].timestamp())

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        assert missing_ok
        self.bucket.rm_file(self.key)

    def mkdir(self, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there with what is in it."""
        assert parents
        assert exist_ok

    def glob(self, pattern: str) -> Iterator[BucketPath]:
        """Yield objects, and folders with some, by a pattern below this folder."""
        parts = f"{self.key}/{pattern}".split("/")
        found = {tuple(name.split("/")[: len(parts)]) for name in self.bucket.find(self.key)}
        for one in sorted(found):
            if _matches(one, parts):
                yield BucketPath(f"{self._address}/{'/'.join(one)}")


# ---------------------------------------------------------------- connections


def split(uri: str) -> tuple[str, str]:
    """Return the address of a bucket and the key in it.

    Examples
    --------
    >>> split("s3://bucket/a//b/")
    ('s3://bucket', 'a/b')
    """
    scheme, _, rest = uri.partition("://")
    bucket, *parts = (part for part in rest.split("/") if part)
    return f"{scheme}://{bucket}", "/".join(parts)


def connect(address: str) -> Any:  # noqa: ANN401
    """Return obstore's store of a bucket, or of a folder in one; this process keeps it.

    Raises
    ------
    ConfigError
        When obstore is not installed.
    BucketError
        When the environment does not say enough.
    """
    return _connected(address, os.getpid())


@lru_cache(maxsize=1024)
def _connected(address: str, process: int) -> Any:  # noqa: ANN401, ARG001  (threads do not survive a fork)
    from_url = _obstore().from_url
    endpoint = next((v for k, v in os.environ.items() if k.startswith("AWS_ENDPOINT_URL")), "")
    allowed = os.environ.get("AWS_ALLOW_HTTP", "") or str(endpoint.startswith("http://"))
    with told_of(address):
        return from_url(
            address,
            client_options={
                "timeout": timedelta(seconds=_SECONDS_OF_REQUEST),
                "connect_timeout": timedelta(seconds=_SECONDS_TO_CONNECT),
                "allow_http": allowed.lower() in ("true", "1", "yes"),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=_SECONDS_OF_RETRIES),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=5),
                    "base": 2,
                },
            },
        )


def _obstore() -> Any:  # noqa: ANN401
    try:
        import obstore.store  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigError(
            "root: buckets need 'obstore', which is not installed. pip install 'dglzarr[buckets]'."
        ) from error
    return obstore.store


@contextmanager
def told_of(place: str) -> Iterator[None]:
    """Turn what a server refuses for good into one line without addresses of requests.

    Raises
    ------
    BucketError
        Saying what, where, and what to do.
    FileNotFoundError
        When there is no such object.
    """
    from obstore.exceptions import (  # noqa: PLC0415  (an extra)
        AlreadyExistsError,
        BaseError,
        PreconditionError,
    )

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _refused(place, error) from error
        raise FileNotFoundError(2, "no such object", place) from None
    except (BaseError, OSError, ValueError) as error:
        raise _refused(place, error) from error


def _refused(place: str, error: Exception) -> BucketError:
    text = str(error)
    if any(server in text for server in _METADATA_SERVERS):
        what, remedy = "there are no credentials in the environment", "Set them"
    else:
        found = ((what, remedy) for sign, what, remedy in _TOLD if sign in text)
        what, remedy = next(found, (_status(text), "Mend that"))
    return BucketError(f"{place}: {what}. {remedy} and run again; finished work is kept.")


def _status(text: str) -> str:
    """Return what of an answer can be told: its status, or the failure of the connection."""
    if found := re.search(r"status code: (\d{3} [A-Za-z ]+)", text):
        again = re.search(r"after (\d+) retries", text)
        after = f", asked {int(again[1]) + 1} times" if again else ""
        if found[1].startswith(("401", "403")):
            return f"the server refuses the credentials ({found[1]})"
        return f"the server answers {found[1].strip()}{after}"
    line = text.splitlines()[0].rpartition(" - ")[2] if text else "no answer"
    return f"the server cannot be reached or does not answer ({line})"
