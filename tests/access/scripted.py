"""A server of this machine that answers as a test says, where the mirror is too well-behaved."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Say nothing."""

    def do_GET(self):
        self.server.asked.append((self.command, self.path))
        made = self.server.answers.get(self.path.partition("?")[0], (404, {}, b""))
        status, headers, body = made(self) if callable(made) else made
        self.send_response(status)
        said = {} if "Transfer-Encoding" in headers else {"Content-Length": str(len(body))}
        for name, value in {**said, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "Content-Length" in headers or self.close_connection

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def do_CONNECT(self):
        self.do_GET()

    @property
    def first_byte(self):
        """Where the range that is asked for begins."""
        return int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Say nothing where a client went away."""


@contextmanager
def scripted(answers):
    """Yield the address of a server, and what it was asked.

    ``answers`` are (status, headers, body) by path, or what makes one of the handler. A
    Content-Length among the headers is said instead of the right one, and then the connection ends.
    """
    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked = answers, []
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server.asked
        finally:
            server.shutdown()
            thread.join()
