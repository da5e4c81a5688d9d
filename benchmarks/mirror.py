"""A server of this machine that speaks as NCBI's and GTEx's do, and misbehaves on purpose.

It serves files of a folder, lists folders as Apache does, and answers ranges, NCBI's page of
downloads and E-utilities. What goes wrong is told by path, one fault a request.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Fault = Literal[
    "busy", "broken", "cut", "short", "long", "html", "changed", "elsewhere", "slow", "hang",
    "no-range", "gone", "", "forbidden", "drop", "soon", "tomorrow",
]  # fmt: skip
"""What goes wrong with a request.

``busy``, ``soon``, ``tomorrow``: 429 with Retry-After of 1 s, 0 s and a day; ``broken``: 500;
``cut``: half the file, as if it were all;
``short``: half, then the connection ends; ``long``: more bytes than said; ``html``: a page
instead; ``changed``: a range of another file; ``elsewhere``: sent to a host that nobody knows;
``slow``: a byte at a time; ``hang``: no answer; ``no-range``: all for a range; ``gone``: 404;
``forbidden``: 403; ``drop``: the connection ends; "": nothing.
"""

_RETRY_AFTER = {"busy": "1", "soon": "0", "tomorrow": "86400"}


def series_folder(accession: str) -> str:
    """Return where the matrices of a series are, below the folder that is served.

    Examples
    --------
    >>> series_folder("GSE781")
    'geo/series/GSEnnn/GSE781/matrix'
    """
    return f"geo/series/{accession[:-3] if len(accession) > 6 else 'GSE'}nnn/{accession}/matrix"


class Mirror(ThreadingHTTPServer):
    """Serves a folder as the real servers do.

    Parameters
    ----------
    folder
        ``geo/``, ``adult-gtex/`` and the like are below it; ``counts/GSE.../`` holds NCBI's counts.
    faults
        By path, one a request; the last one stays.
    rate
        Bytes a second of each answer; without it as fast as can be.
    """

    daemon_threads = True

    def __init__(
        self,
        folder: str | Path,
        faults: Mapping[str, Iterable[Fault]] | None = None,
        *,
        rate: float | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.folder = Path(folder)
        self.rate = rate
        self.faults = {path: list(those) for path, those in (faults or {}).items()}
        self.asked: list[tuple[float, str, str]] = []
        """Time, path and range of each request."""
        self._tags: dict[tuple[Path, int, int], str] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where it is, as in ``http://127.0.0.1:8000``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """Return the environment by which dglzarr asks this server."""
        return {
            "DGLZARR_GEO_URL": f"{self.address}/geo",
            "DGLZARR_NCBI_URL": self.address,
            "DGLZARR_EUTILS_URL": f"{self.address}/entrez/eutils",
            "DGLZARR_GTEX_URL": f"{self.address}/adult-gtex",
        }

    def tag(self, place: Path) -> str:
        """Return the ETag of a file, of its content."""
        stat = place.stat()
        key = (place, stat.st_size, stat.st_mtime_ns)
        if key not in self._tags:
            self._tags[key] = f'"{hashlib.sha256(place.read_bytes()).hexdigest()[:16]}"'
        return self._tags[key]

    def fault(self, path: str, asked_range: str) -> Fault:
        """Note a request; return what goes wrong with it."""
        with self._lock:
            self.asked.append((time.monotonic(), path, asked_range))
            left = self.faults.get(path, [])
            return (left.pop(0) if len(left) > 1 else left[0]) if left else ""

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client went away."""


@contextmanager
def serving(
    folder: str | Path,
    faults: Mapping[str, Iterable[Fault]] | None = None,
    *,
    rate: float | None = None,
) -> Iterator[Mirror]:
    """Yield a server that answers while the block runs."""
    with Mirror(folder, faults, rate=rate) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield mirror
        finally:
            mirror.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        fault = self.server.fault(path, self.headers.get("Range", ""))
        if fault and self._failed(fault):
            return
        if path == "/geo/download/":
            self._counts(query, fault)
        elif path.startswith("/entrez/eutils/"):
            self._eutils(path.rpartition("/")[2], query)
        else:
            self._file(self.server.folder / path.strip("/"), fault)

    def do_POST(self) -> None:
        """Answer a form as a query."""
        form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.path = f"{self.path}?{form}"
        self.do_GET()

    def _failed(self, fault: Fault) -> bool:
        """Answer with a failure, where the fault is one of the whole request."""
        if fault in ("hang", "drop"):
            time.sleep(3 if fault == "hang" else 0)
            self.close_connection = True
        elif fault == "elsewhere":
            self._say(302, b"", {"Location": "http://example.invalid/other.gz"})
        elif fault == "html":
            self._say(200, b"<!DOCTYPE html><html><body>Maintenance</body></html>", {})
        elif fault in _RETRY_AFTER:
            self._say(429, b"", {"Retry-After": _RETRY_AFTER[fault]})
        elif fault in ("broken", "gone", "forbidden"):
            self._say({"broken": 500, "gone": 404, "forbidden": 403}[fault], b"", {})
        else:
            return False
        return True

    def _say(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body)

    def _send(self, body: bytes, *, rate: float | None = None) -> None:
        rate = rate or self.server.rate
        step = 1 << 20 if rate is None else max(1, int(rate / 20))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            if rate is not None:
                self.wfile.flush()
                time.sleep(step / rate)

    def _page(self, title: str, links: Iterable[str]) -> None:
        rows = "".join(f'<a href="{link}">{link}</a>   2026-01-01 00:00  1.0M\n' for link in links)
        page = f"<html><head><title>{title}</title></head><body><pre>{rows}</pre></body></html>"
        self._say(200, page.encode(), {"Content-Type": "text/html;charset=UTF-8"})

    def _file(self, place: Path, fault: Fault) -> None:
        if place.is_dir():
            names = sorted(p.name + ("/" if p.is_dir() else "") for p in place.iterdir())
            self._page(f"Index of {place.name}", ["../", *names])
            return
        if not place.is_file():
            self._say(404, b"", {})
            return
        size, tag = place.stat().st_size, self.server.tag(place)
        stamp = place.stat().st_mtime
        headers = {"ETag": tag, "Last-Modified": formatdate(stamp, usegmt=True)}
        if fault == "cut":
            size //= 2
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", tag) in (tag, headers["Last-Modified"])
        if asked and fault == "changed":
            headers["ETag"] = '"another"'
        elif asked and (not same or fault == "no-range"):
            asked = None
        start, stop = 0, size
        if asked:
            start, stop = int(asked[1]), min(size, int(asked[2] or size) + 1)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        with place.open("rb") as file:
            file.seek(start)
            self._body(206 if asked else 200, file.read(stop - start), headers, fault)

    def _body(self, status: int, body: bytes, headers: dict[str, str], fault: Fault) -> None:
        said = len(body)
        if fault == "long":
            body += b"and more"
        if fault == "short":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.send_response(status)
        for name, value in {"Content-Length": str(said), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(body, rate=20 if fault == "slow" else None)

    def _counts(self, query: Mapping[str, str], fault: Fault) -> None:
        """Answer NCBI's page of downloads, or a file that it links."""
        folder = self.server.folder / "counts" / query.get("acc", "").strip("/.")
        if "file" in query:
            self._file(folder / query["file"].strip("/."), fault)
        elif folder.is_dir():
            link = "/geo/download/?type=rnaseq_counts&amp;acc={}&amp;format=file&amp;file={}"
            names = sorted(path.name for path in folder.iterdir())
            self._page("GEO", ["/geo/", *(link.format(query["acc"], name) for name in names)])
        else:
            self._page("GEO", ["/geo/"])

    def _eutils(self, verb: str, query: Mapping[str, str]) -> None:
        """Answer a search by what ``eutils.json`` of the folder lists, whatever is asked for."""
        known = json.loads((self.server.folder / "eutils.json").read_bytes())
        content: dict[str, object]
        if verb == "esearch.fcgi" and "[" not in query.get("term", ""):
            content = {"esearchresult": {"ERROR": "Empty term"}}
        elif verb == "esearch.fcgi":
            found = {"count": str(len(known)), "webenv": "MCID_1", "querykey": "1", "idlist": []}
            content = {"esearchresult": found}
        else:
            start, size = int(query["retstart"]), int(query["retmax"])
            page = {one["uid"]: one for one in known[start : start + size]}
            content = {"result": {"uids": list(page), **page}}
        self._say(200, json.dumps(content).encode(), {"Content-Type": "application/json"})


def main() -> None:
    """Serve a folder until the process is ended; say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--rate", type=float)
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    mirror = Mirror(asked.folder, rate=asked.rate, port=asked.port)
    print(mirror.address, flush=True)
    mirror.serve_forever()


if __name__ == "__main__":
    main()
