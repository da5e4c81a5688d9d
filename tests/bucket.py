"""An S3 server of moto's in a process of its own, and what stands between it and its clients."""

import http.client
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUCKET = "bucket"
KEY, SECRET = "AKIAEXAMPLE", "very-secret-key"
_SAYS = re.compile(r"Running on (http://\S+)")


def environment(endpoint):
    """Return the environment in which a client finds a server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def server(folder):
    """Yield the address of a server that holds one empty bucket."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
    try:
        endpoint = _said(folder / "server.log", process)
        make_bucket(endpoint)
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _said(log, process):
    for _ in range(600):
        if found := _SAYS.search(log.read_text()):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def make_bucket(endpoint, name=BUCKET):
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=30).close()  # noqa: S310


class Proxy:
    """Passes requests on, but for those that it has been told to spoil.

    ``spoil`` is called with (method, path) and returns None, a status, the name of an error of
    S3's, a number of seconds to wait, or "cut" to end an answer half-way.
    """

    def __init__(self, endpoint, port=0):
        self.endpoint, self.spoil, self.n_requests = endpoint, lambda *_: None, 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _handler(self):  # noqa: C901  (a class)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def handle_any(self):
                proxy.n_requests += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                how = proxy.spoil(self.command, self.path)
                if isinstance(how, float):
                    time.sleep(how)
                if isinstance(how, int):
                    return self.give(how, {}, b"")
                if isinstance(how, str) and how != "cut":
                    return self.give(400, {}, f"<Error><Code>{how}</Code></Error>".encode())
                return self.give(*proxy.passed_on(self, body), is_cut=how == "cut")

            def give(self, status, headers, body, *, is_cut=False):
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(body)))
                self.end_headers()
                if is_cut:
                    self.close_connection = True
                    body = body[: len(body) // 2]
                if self.command != "HEAD":
                    self.wfile.write(body)

        for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        return Handler

    def passed_on(self, asked, body):
        headers = {k: v for k, v in asked.headers.items() if k.lower() != "connection"}
        there = http.client.HTTPConnection(self.endpoint.removeprefix("http://"), timeout=60)
        try:
            there.request(asked.command, asked.path, body, headers)
            found = there.getresponse()
            return found.status, dict(found.headers), found.read()
        finally:
            there.close()
