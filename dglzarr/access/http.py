"""One polite HTTP client: rate, time-outs, retries and redirects in one place.

``requests`` speaks the protocol, ``tenacity`` waits. Bytes go to `dglzarr.access.download`.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from contextlib import contextmanager
from fnmatch import fnmatch
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import requests
import tenacity
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dglzarr.access.options import FetchOptions

T = TypeVar("T")

HOSTS = (
    "ftp.ncbi.nlm.nih.gov", "www.ncbi.nlm.nih.gov", "ncbi.nlm.nih.gov", "eutils.ncbi.nlm.nih.gov",
    "storage.googleapis.com", "*.s3.amazonaws.com",
)  # fmt: skip
"""Patterns of hosts that a server may send to, beside itself."""

PIECE_NBYTES = 1 << 20
MOST_TEXT_NBYTES = 1 << 26
_MOST_REDIRECTS, _CONNECT_SECONDS, _LONGEST_WAIT = 5, 15.0, 60.0
_LONGEST_ASKED, _SLOWEST = 600.0, 1000
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_SECRET = re.compile(r"key|token|secret|signature|password|credential|sig$", re.IGNORECASE)
_LOCAL = ("127.0.0.1", "localhost", "::1")


class RefusedError(Exception):
    """What was asked for cannot be had; the message says why and what to do."""


class StatusError(RefusedError):
    """A server answers by a status that no other try changes."""

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.status = status


class AbsentError(RefusedError):
    """There is no such thing at the address, or not for everyone."""


class AgainError(Exception):
    """It may work when it is tried again, after ``wait`` seconds where the server says so."""

    def __init__(self, reason: str, *, wait: float | None = None, host: str = "") -> None:
        super().__init__(reason)
        self.wait = wait
        self.host = host
        """The host, where it could not be reached at all."""


def split_address(address: str) -> SplitResult:
    """Return the parts of an address.

    Raises
    ------
    RefusedError
        When it is none; it is not repeated, for what is in it is not known.
    """
    try:
        parts = urlsplit(address)
        is_whole = bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", address)
    except ValueError:
        is_whole = False
    if not is_whole:
        raise RefusedError(
            "expected an address such as https://example.org/file.gz, got one without a host, with "
            "a blank, or that is none. Correct it"
        )
    return parts


def check_address(address: str) -> str:
    """Return an address that may be asked: https, http of this machine alone, no credentials.

    Raises
    ------
    RefusedError
        Otherwise; what looks like a credential is not repeated.
    """
    parts = split_address(address)
    is_local = parts.hostname in _LOCAL
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise RefusedError(f"expected an https address, got {shown_address(address)!r}. Correct it")
    if parts.username or parts.password or any(map(_SECRET.search, dict(parse_qsl(parts.query)))):
        raise RefusedError(
            f"expected an address without credentials, got one with them at {parts.hostname}. "
            "Name a public address, or download the file and name it"
        )
    return address


def shown_address(address: str) -> str:
    """Return an address as it may be told: without user, password and values of keys.

    Examples
    --------
    >>> shown_address("https://me:pw@a.org/x?db=gds&api_key=123")
    'https://a.org/x?db=gds&api_key=...'
    """
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    query = [
        (key, "..." if _SECRET.search(key) else value) for key, value in parse_qsl(parts.query)
    ]
    return urlunsplit((parts.scheme, host, parts.path, urlencode(query), ""))


class Limiter:
    """Spaces requests of all threads evenly, at most so many a second, and heeds busy hosts."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0
        self._paused: dict[str, float] = {}
        self._lock = threading.Lock()

    def wait(self, host: str, stopped: threading.Event) -> None:
        """Sleep until a host may be asked and it is this request's turn, or all are stopped."""
        while (left := self._left(host)) > 0 and not stopped.wait(left):
            pass
        with self._lock:
            turn = max(time.monotonic(), self._next)
            self._next = turn + self._gap
        stopped.wait(max(0.0, turn - time.monotonic()))

    def _left(self, host: str) -> float:
        with self._lock:
            return max(self._paused.get(one, 0.0) for one in (host, "")) - time.monotonic()

    def pause(self, seconds: float, host: str = "") -> None:
        """Let nobody ask a host for so long, which wants that; or any host."""
        with self._lock:
            self._paused[host] = max(self._paused.get(host, 0.0), time.monotonic() + seconds)


class _Session(requests.Session):
    """Looks at no redirect, which `Client` checks and follows itself."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


class Client:
    """Asks servers: one rate for all threads, redirects to known hosts alone, patience.

    Parameters
    ----------
    options
        How patiently.
    """

    def __init__(self, options: FetchOptions) -> None:
        self.options = options
        self._limiter = Limiter(options.rate())
        self._threads = threading.local()
        self._down: dict[str, str] = {}
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let nothing more be asked or waited for, by any thread: the run is being ended."""
        self._stopped.set()

    def check_stopped(self) -> None:
        """Refuse to go on once `stop` was called.

        Raises
        ------
        RefusedError
            Then.
        """
        if self._stopped.is_set():
            raise RefusedError("stopped before it was there. Run again; what has come is kept")

    @contextmanager
    def open(
        self,
        address: str,
        *,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """Yield the answer to one request, its body unread and as it was sent.

        A ``form`` is posted, and never sent on to another place: it may hold a key.

        Raises
        ------
        AgainError
            When it may work later.
        RefusedError
            When it will not.
        """
        first, asked = address, check_address(address)
        for _ in range(_MOST_REDIRECTS):
            with self._asked(asked, headers or {}, form) as response:
                if not response.is_redirect:
                    self._check(response)
                    yield response
                    return
                if form is not None:
                    raise RefusedError(f"expected an answer of {first}, got sent elsewhere")
                asked = self.led_to(first, asked, response.headers["Location"])
        raise RefusedError(
            f"expected a file, got sent on {_MOST_REDIRECTS} times from {shown_address(first)}. "
            "Try again later, or download it and name the file"
        )

    @contextmanager
    def _asked(
        self, address: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Iterator[requests.Response]:
        host = urlsplit(address).netloc
        if host in self._down:
            raise RefusedError(self._down[host])
        self._limiter.wait(host, self._stopped)
        self.check_stopped()
        timeout = (min(_CONNECT_SECONDS, self.options.time_out), self.options.time_out)
        with _told(address, self.options.time_out):
            response = self._session().request(
                "GET" if form is None else "POST",
                address,
                headers=headers,
                data=form,
                stream=True,
                timeout=timeout,
                allow_redirects=False,
            )
        try:
            yield response
        finally:
            response.close()

    def text(self, address: str, *, form: Mapping[str, str] | None = None) -> str:
        """Return a page as text, with patience; a ``form`` is posted.

        Raises
        ------
        RefusedError
            When it cannot be had.
        """

        def read() -> str:
            with self.open(address, form=form) as response:
                found = bytearray()
                for piece in pieces(response, self.options.time_out, self.check_stopped):
                    found += piece
                    if len(found) > MOST_TEXT_NBYTES:
                        raise _too_long(address)
                check_length(response, len(found))
                return _unpacked(response, bytes(found)).decode("utf-8", errors="replace")

        return self.patiently(read)

    def patiently(self, ask: Callable[[], T], *, progressed: Callable[[], bool] | None = None) -> T:
        """Return what a call returns, which is made again, later and later, while it may work.

        Parameters
        ----------
        ask
            Asks once; raises `AgainError` where it may work later.
        progressed
            Whether the last call got further, so that patience begins anew; without it never.

        Raises
        ------
        RefusedError
            When it does not work, or not soon enough.
        """
        barren = 0

        def is_over(state: tenacity.RetryCallState) -> bool:
            nonlocal barren
            barren = 0 if progressed and progressed() else barren + 1
            error = state.outcome.exception() if state.outcome else None
            asked = getattr(error, "wait", None) or 0.0
            return barren >= self.options.attempts or asked > _LONGEST_ASKED

        try:
            return tenacity.Retrying(
                stop=is_over,
                wait=self._wait,
                retry=tenacity.retry_if_exception_type(AgainError),
                sleep=tenacity.sleep_using_event(self._stopped),
                reraise=True,
            )(ask)
        except AgainError as error:
            raise RefusedError(self._given_up(error)) from error

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Return the seconds to wait: more each time, with jitter, or what the server asks."""
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "wait", None) or 0.0
        first = self.options.first_wait
        grown = tenacity.wait_exponential(multiplier=first, max=_LONGEST_WAIT)
        return max(asked, float((grown + tenacity.wait_random(0, first))(state)))

    def _given_up(self, error: AgainError) -> str:
        """Return why something was given up, and remember a host that cannot be reached."""
        if error.wait is not None and error.wait > _LONGEST_ASKED:
            told = f"{error}: it asks to wait {error.wait:.0f} s. Run again then"
        else:
            told = f"{error}, {self.options.attempts} times in a row. "
            told += "Check the network and run again" if error.host else "Run again later"
        told += "; what has come is kept"
        if error.host:
            self._down[error.host] = told
        return told

    def _check(self, response: requests.Response) -> None:
        """Refuse an answer that is none, by its status."""
        status, address = response.status_code, shown_address(response.url)
        if status in _AGAIN:
            host, asked = urlsplit(address).netloc, _retry_after(response)
            if asked is not None and asked <= _LONGEST_ASKED:  # else it is given up
                self._limiter.pause(asked, host)
            reason = f"expected a file, got status {status} from {host}"
            raise AgainError(reason, wait=asked)
        if status in (404, 410):
            raise AbsentError(f"expected a file at {address}, got none (status {status})")
        if status in (401, 403):
            raise AbsentError(f"expected a public file at {address}, got status {status}")
        if status == 407:
            raise RefusedError(
                f"expected an answer of {urlsplit(address).netloc}{_through(response.url)}, got "
                "status 407: it wants a user and a password. Set these in the environment"
            )
        if status not in (200, 206, 416):
            raise StatusError(
                f"expected a file at {address}, got status {status}. Correct it", status
            )

    def led_to(self, first: str, address: str, location: str) -> str:
        """Return where a server sends or links to, where that is allowed.

        Raises
        ------
        RefusedError
            When it is another host than the first one and those that are known.
        """
        try:
            to = urljoin(address, location)
            host = urlsplit(to).hostname or ""
        except ValueError as error:
            raise RefusedError(
                f"expected {urlsplit(first).hostname} to send to an address, got none. Try again "
                "later, or download it and name the file"
            ) from error
        known = (urlsplit(first).hostname or "", *HOSTS, *self.options.hosts)
        is_lowered = urlsplit(first).scheme == "https" and urlsplit(to).scheme != "https"
        if is_lowered or not any(fnmatch(host, pattern) for pattern in known):
            raise RefusedError(
                f"expected {urlsplit(first).hostname} to send to a known host by https, got "
                f"{urlsplit(to).scheme}://{host}. If that is right, add it to fetch.hosts"
            )
        return check_address(to)

    def _session(self) -> requests.Session:
        """Return this thread's session."""
        if not hasattr(self._threads, "session"):
            session = _Session()
            session.auth = lambda request: request  # else what ~/.netrc has is sent
            session.headers.update(
                {"User-Agent": f"dglzarr/{version('dglzarr')}", "Accept-Encoding": "identity"}
            )
            self._threads.session = session
        found: requests.Session = self._threads.session
        return found


def pieces(
    response: requests.Response, time_out: float, check_stopped: Callable[[], None]
) -> Iterator[bytes]:
    """Yield the body of an answer as it comes, about a mebibyte at once.

    Raises
    ------
    AgainError
        When it breaks off, or hardly anything comes for ``time_out`` seconds.
    RefusedError
        Of ``check_stopped``, which is called whenever something came.
    """
    kept = bytearray()
    try:
        with _told(response.url, time_out):
            for piece in _steady(response, time_out):
                kept += piece
                check_stopped()
                if len(kept) >= PIECE_NBYTES:
                    yield bytes(kept)
                    kept.clear()
    except (AgainError, RefusedError):
        yield bytes(kept)  # what came before it broke off
        raise
    if kept:
        yield bytes(kept)


def _steady(response: requests.Response, time_out: float) -> Iterator[bytes]:
    """Yield what comes while it comes fast enough."""
    since, n_since = time.monotonic(), 0
    while piece := response.raw.read1(PIECE_NBYTES):
        yield piece
        n_since += len(piece)
        if (waited := time.monotonic() - since) > time_out:
            if n_since < _SLOWEST * waited:
                raise AgainError(
                    f"expected at least {_SLOWEST} bytes a second, got {n_since} in {waited:.0f} s "
                    f"from {urlsplit(response.url).netloc}"
                )
            since, n_since = time.monotonic(), 0


def check_length(response: requests.Response, n_bytes: int) -> None:
    """Refuse a body that is not as long as was said.

    Raises
    ------
    AgainError
        When it is shorter or longer.
    """
    said = response.headers.get("Content-Length", "")
    if said.isdecimal() and int(said) != n_bytes:
        host = urlsplit(response.url).netloc
        raise AgainError(f"expected {said} bytes, got {n_bytes} from {host}")


def _unpacked(response: requests.Response, body: bytes) -> bytes:
    """Return a page, unpacked where a server packs it although nobody asked for that."""
    if response.headers.get("Content-Encoding", "") not in ("gzip", "x-gzip"):
        return body
    packed, host = zlib.decompressobj(31), urlsplit(response.url).netloc
    try:
        found = packed.decompress(body, MOST_TEXT_NBYTES + 1)
    except zlib.error as error:
        raise AgainError(f"expected a page of {host}, got damaged gzip") from error
    if len(found) > MOST_TEXT_NBYTES:
        raise _too_long(response.url)
    if not packed.eof:
        raise AgainError(f"expected a page of {host}, got gzip that ends too soon")
    return found


def _too_long(address: str) -> RefusedError:
    return RefusedError(
        f"expected a page, got over {MOST_TEXT_NBYTES >> 20} MiB from {shown_address(address)}. "
        "Correct the address"
    )


def _through(address: str) -> str:
    """Return which proxy is asked for an address, in words, without its password; "" for none."""
    proxies = requests.utils.get_environ_proxies(address)
    proxy = requests.utils.select_proxy(address, proxies)
    return f" through the proxy {proxy.rpartition('@')[2]} of the environment" if proxy else ""


@contextmanager
def _told(address: str, time_out: float) -> Iterator[None]:
    """Turn what goes wrong on the way into `AgainError`, or `RefusedError` where it is for good."""
    host = urlsplit(address).netloc
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise RefusedError(
            f"expected {host} to show a certificate that is trusted, got {_cause(error)}. Check "
            "the clock and the network of this machine"
        ) from error
    except requests.exceptions.Timeout as error:
        raise AgainError(f"expected an answer of {host}, got none in {time_out:g} s") from error
    except (requests.exceptions.ConnectionError, requests.exceptions.ProxyError) as error:
        told = f"expected an answer of {host}{_through(address)}, got {_cause(error)}"
        raise AgainError(told, host=host) from error
    except ValueError as error:  # what cannot be asked, or an answer that is none
        raise RefusedError(
            f"expected an answer of {host}{_through(address)}, got {_cause(error)}. Correct the "
            "address or the proxy, or download it and name the file"
        ) from error
    except (requests.exceptions.RequestException, HTTPError, TimeoutError) as error:
        raise AgainError(f"expected a whole file of {host}, got {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """Return what lies behind an error of the network, in a few words."""
    text = str(error.args[0] if error.args else error)
    found = re.findall(r"\[Errno -?\d+\] ([\w ]+)|(\w[\w ]*): '|(Tunnel [\w ]+: \d+)", text)
    named = next((word for words in reversed(found) for word in words if word), "")
    named = named or (m[0] if (m := re.match(r"[A-Z]\w+( \w+)+", text)) else "")
    return named.lower() or type(error).__name__


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that a server asks to wait."""
    asked = response.headers.get("Retry-After")
    if asked is None:
        return None
    try:
        return float(Retry().parse_retry_after(asked))
    except (HTTPError, ValueError, OverflowError):
        return None
