"""The server as a process of its own: real clients, real signals."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import dglzarr
from dglzarr.serve.patience import Patience
from dglzarr.storage.schemas import RAW
from tests.builders import write_matrix
from tests.serve.studies import GENES, free_port, get_json, grow, serving

pytestmark = pytest.mark.slow
TOO_SHORT = "short"
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def server(original):
    with serving(original) as (address, process):
        get_json(f"{address}api/study")
        yield address, process


def opened(address, client):
    """A store over HTTP, by one of two clients; no warning is let pass."""
    if client == "fsspec":
        return xr.open_zarr(address, chunks=None)
    obstore = pytest.importorskip("obstore.store")
    from zarr.storage import ObjectStore

    store = obstore.HTTPStore.from_url(address, client_options={"allow_http": True})
    return xr.open_zarr(ObjectStore(store, read_only=True), chunks=None)


@pytest.mark.parametrize("client", ["fsspec", "obstore"])
def test_xarray__reads_stores_lazily(server, original, client):
    if client == "fsspec":
        pytest.importorskip("aiohttp")
    address, _ = server
    local = dglzarr.open(f"{original}#normalized")
    with opened(f"{address}data/study/normalized.zarr", client) as found:
        assert found["expression"].dims == ("sample", "gene")
        assert [str(g) for g in found["gene"].values] == GENES
        some = {"sample": slice(20, 40), "gene": [3, 17]}
        np.testing.assert_array_equal(
            found["expression"].isel(some).values, local["expression"].isel(some).values
        )
        np.testing.assert_array_equal(found["expression"].values, local["expression"].values)
        assert found["sample_label"].values[1, 0] == local["sample_label"].values[1, 0]
    with opened(f"{address}data/study/scores.zarr", client) as found:
        expected = dglzarr.open(f"{original}#scores")
        np.testing.assert_array_equal(found["score"].values, expected["score"].values)


def test_xarray__some_samples_are_ranges_of_one_shard(server, original, monkeypatch):
    pytest.importorskip("aiohttp")
    import fsspec.implementations.http as http

    asked, read = [], http.HTTPFileSystem._cat_file

    async def noted(self, url, start=None, end=None, **options):
        asked.append((url, start, end))
        return await read(self, url, start=start, end=end, **options)

    monkeypatch.setattr(http.HTTPFileSystem, "_cat_file", noted)
    values = np.random.default_rng(0).normal(8, 1, (700, 12)).astype(np.float32)
    write_matrix(original / "raw" / "wide.zarr", RAW, values, shard=512)  # two chunks a shard
    address, _ = server
    with opened(f"{address}data/study/raw/wide.zarr", "fsspec") as found:
        asked.clear()
        np.testing.assert_array_equal(found["expression"][260:264].values, values[260:264])
    assert {url.partition("wide.zarr/")[2] for url, *_ in asked} == {"expression/c/0/0"}
    assert len(asked) <= 3
    assert all(start is not None for _, start, _ in asked)


def test_token__is_asked_for_elsewhere_and_told_once(original):
    token = {"DGLZARR_TOKEN": "t" * 16}
    with serving(original, environment=token) as (address, _):
        assert "token" not in address
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{address}api")  # noqa: S310
        headers = {"Authorization": "Bearer " + "t" * 16}
        request = urllib.request.Request(f"{address}api", headers=headers)  # noqa: S310
        assert urllib.request.urlopen(request).status == 200  # noqa: S310
    with serving(original, options=("--host", "0.0.0.0")) as (address, process):  # noqa: S104
        base, _, told = address.partition("/?token=")
        assert len(told) >= 24
        port = base.rpartition(":")[2]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api")
        headers = {"Authorization": f"Bearer {told}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api", headers=headers)
        assert urllib.request.urlopen(request).status == 200  # noqa: S310
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals__end_it_in_one_line(original, number):
    with serving(original) as (address, process):
        get_json(f"{address}api/study")
        hanging = socket.create_connection(("127.0.0.1", int(address.split(":")[2].strip("/"))))
        hanging.sendall(b"GET /api HTTP/1.1\r\nHost: localhost\r\n")  # never ended
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(30) == 128 + number
        assert time.monotonic() - begun < 15
        hanging.close()
        assert process.stdout.read() == ""
        said = process.stderr.read().splitlines()
        assert len(said) == 1, said
        assert said[0].startswith("stopped")


def run(*options, **environment):
    code = "from dglzarr.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", *map(str, options)],
        capture_output=True, text=True, env={**os.environ, **environment}, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_wrong_study_port_and_token_are_told_in_one_line(original, tmp_path):
    status, out, said = run(tmp_path)
    assert (status, out, len(said)) == (1, "", 1)
    assert said[0] == f"{tmp_path}: no study here (study.json is missing). Run 'dglzarr mine'."
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, out, said = run(original, "--port", taken.getsockname()[1])
    assert (status, out, len(said)) == (2, "", 1)
    assert "cannot be listened at: Address already in use. Choose another --port" in said[0]
    status, _, said = run(original, "--port", "0", DGLZARR_TOKEN=TOO_SHORT)
    assert (status, len(said)) == (2, 1)
    assert said[0].startswith("DGLZARR_TOKEN: expected at least 16 characters, got 5.")
    status, out, said = run(original, "--port", "0", "--aliases", tmp_path / "none.txt")
    assert (out, len(said), "none.txt: expected a readable file" in said[0]) == ("", 1, True)
    status, _, said = run(original, "--host", "no.such.host.invalid", "--port", free_port())
    assert (status, len(said)) == (2, 1)


def test_clients_that_hang_up_and_nonsense(server):
    address, process = server
    place = ("127.0.0.1", int(address.split(":")[2].strip("/")))
    shard = b"GET /data/study/normalized.zarr/expression/c/0/0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(30):
        with socket.create_connection(place) as client:
            client.sendall(shard)
    twice = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
    for nonsense in (b"\x16\x03\x01", b"GET /\r\n\r\n", b"GET /" + b"x" * 70_000, b"\r\n", twice):
        with socket.create_connection(place) as client:
            client.sendall(nonsense)
            client.settimeout(5)
            try:
                answer = client.recv(4096)
            except (TimeoutError, ConnectionError):
                answer = b""
            assert b"Traceback" not in answer
            assert not answer or answer.split()[1][:1] == b"4", answer
    assert get_json(f"{address}api")["studies"] == ["study"]
    assert process.poll() is None


def test_a_body__is_refused_and_nothing_in_it_is_a_question(server):
    """What a proxy takes for a body must not be taken for the next question here."""
    address, _ = server
    place = ("127.0.0.1", int(address.split(":")[2].strip("/")))
    hidden = b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for told in (
        b"Content-Length: 99999999999\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    ):
        with socket.create_connection(place, timeout=WAIT_SECONDS) as client:
            client.sendall(b"GET /api HTTP/1.1\r\nHost: localhost\r\n" + told + hidden)
            answers = b"".join(iter(lambda: client.recv(4096), b""))
        assert answers.startswith(b"HTTP/1.1 413 ")
        assert answers.count(b"HTTP/1.1 ") == 1


def test_many_connections__are_answered_or_sent_away(server):
    """More connections than are taken; when they are gone, all is as before."""
    address, process = server
    place = ("127.0.0.1", int(address.split(":")[2].strip("/")))
    opened = []
    try:
        may_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        for _ in range(min(3000, may_open - 200)):
            client = socket.create_connection(place, timeout=10)
            opened.append(client)
        request = b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n"
        opened[-1].sendall(request)
        assert opened[-1].recv(4096).split()[1] in (b"503", b"200")
    finally:
        for client in opened:
            client.close()
    ends = time.monotonic() + 20
    while True:
        try:
            assert get_json(f"{address}api", until=1)["studies"] == ["study"]
            break
        except OSError:
            assert time.monotonic() < ends
    assert process.poll() is None


IMPATIENT = "from dglzarr.serve.patience import Patience as P; P.ask_seconds = P.take_seconds = 1"


def ends_within(seconds, client, *, sends):
    """Whether a connection is ended by the server; meanwhile a byte is sent now and then."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            client.sendall(sends)
        except ConnectionError:
            return True
        time.sleep(0.2)
    return False


def test_silent_clients__hold_no_place_for_long(original):
    """Nothing, and bits of a question: more than there are places, and one who asks."""
    with serving(original, before=IMPATIENT) as (address, process):
        get_json(f"{address}api/study")
        place = ("127.0.0.1", int(address.split(":")[2].strip("/")))
        opened = [socket.create_connection(place, timeout=10) for _ in range(600)]
        try:
            for client in opened[::2]:
                client.sendall(b"GET /api HTTP/1.1\r\nHost: loc")
            assert get_json(f"{address}api", until=20)["studies"] == ["study"]
            with socket.create_connection(place) as client:
                assert ends_within(20, client, sends=b"x")  # a bit at a time wins no time
        finally:
            for client in opened:
                client.close()
        assert process.poll() is None


def test_client_that_takes_nothing__is_left_after_a_while(root):
    (root / "report.html").write_bytes(b"x" * 2**25)  # more than the buffers of a connection
    with serving(root, before=IMPATIENT) as (address, _):
        get_json(f"{address}api/study")
        with socket.create_connection(("127.0.0.1", int(address.split(":")[2].strip("/")))) as one:
            one.sendall(b"GET /s/study/report/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert ends_within(20, one, sends=b"\r\n")


@pytest.mark.parametrize(("left", "is_ended"), [([90, 80, 0], False), ([90, 90], True)])
def test_patience__ends_who_takes_nothing_and_waits_for_who_is_slow(left, is_ended):
    """A large answer may take minutes to be taken, bit by bit."""
    calls, ended = [], []
    protocol = Patience.__new__(Patience)
    protocol.loop = SimpleNamespace(call_later=lambda _, call: calls.append(call))
    protocol.transport = SimpleNamespace(
        get_write_buffer_size=lambda: sizes[0], abort=lambda: ended.append(1)
    )
    sizes = [100]
    protocol._look_again()
    for sizes[0] in left:
        calls.pop()()
    assert bool(ended) == is_ended


def test_growing_while_it_is_asked__old_or_new(root):
    with serving(root) as (address, process):
        question = f"{address}api/study/expression?name=009_at&by=split"
        get_json(question)
        thread = threading.Thread(target=grow, args=(root,))
        seen, ends = set(), time.monotonic() + 60
        thread.start()
        while (112 not in seen) and time.monotonic() < ends:
            found = get_json(question)
            facts = get_json(f"{address}api/study")
            seen.add(facts["n_samples"])
            assert sum(g["n"] for g in found["groups"]) in (74, 103)
        thread.join()
        assert seen == {80, 112}
        assert process.poll() is None


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        ("dglzarr.serve.run", "dask matplotlib pandas scipy sklearn xarray"),
        ("dglzarr.serve.answers, dglzarr.evaluation.order", "matplotlib"),
    ],
)
def test_serve__starts_without_what_takes_long(module, not_loaded):
    heavy = {"distributed", "keras", "prefect", "shap", "tensorflow", *not_loaded.split()}
    code = f"import sys, {module}\nprint(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
