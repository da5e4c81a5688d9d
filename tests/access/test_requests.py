"""How a server is asked: not too often, patiently, once, and without passwords."""

import fcntl
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from benchmarks.mirror import serving
from dglzarr.access.cache import Cache
from dglzarr.access.fetch import Fetcher
from dglzarr.access.http import Client, RefusedError
from dglzarr.access.options import FetchOptions
from dglzarr.studies.fetch import fetch
from tests.access.series import matrix
from tests.access.served import part, path_of, write

pytestmark = pytest.mark.slow


def test_requests__at_most_so_many_a_second(place, monkeypatch):
    names = [f"GSE{n}" for n in range(1, 6)]
    for accession in names:
        matrix(place / "served", accession)
    with serving(place / "served") as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        settings = write(place, names)
        fetch(settings)
        times = [at for at, _, _ in mirror.asked]
    assert len(times) == 10
    assert times[-1] - times[0] >= 9 / 10 - 0.05, "10 a second, over all threads"


def test_requests__a_server_that_wants_a_day_holds_up_nobody_else(place, asked):
    for accession in ("GSE7", "GSE8"):
        matrix(place / "served", accession)
    done = asked(["GSE7", "GSE8"], {path_of("GSE7"): ["tomorrow"]})
    assert re.search(r"asks to wait \d+ s. Run again then", done["GSE7"].told)
    assert done["GSE8"].state == "fetched"


def test_requests__patience_grows_whatever_a_server_says_and_ends_when_stopped(place):
    options = FetchOptions(first_wait=0.3, attempts=3, requests_per_second=10.0)
    client = Client(options)
    with serving(place / "served", {"/a": ["soon"]}) as mirror:
        with pytest.raises(RefusedError, match=r"status 429 .* 3 times in a row"):
            client.text(f"{mirror.address}/a")
        times = [at for at, _, _ in mirror.asked]
        assert times[1] - times[0] >= 0.3
        assert times[2] - times[1] >= 0.6
        client._limiter.pause(200)
        threading.Timer(0.1, client.stop).start()
        with pytest.raises(RefusedError, match="stopped before"):
            client.text(f"{mirror.address}/a")
        assert len(mirror.asked) == 3


def test_requests__no_password_of_netrc_is_sent(place, monkeypatch):
    (place / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(place / "netrc"))
    session = Client(FetchOptions())._session()
    asked = session.prepare_request(requests.Request("GET", "https://127.0.0.1/a"))
    assert "Authorization" not in asked.headers


def test_requests__a_slow_download_stops_at_once_and_keeps_what_came(place):
    (place / "served" / "a").write_bytes(bytes(400_000))
    fetcher = Fetcher(FetchOptions(cache=str(place / "cache")))
    with serving(place / "served", rate=50_000) as mirror:
        threading.Timer(0.5, fetcher.client.stop).start()
        started = time.monotonic()
        with pytest.raises(RefusedError, match=r"stopped before .* what has come is kept"):
            fetcher.get(f"{mirror.address}/a", "a", is_gzip=False)
        assert time.monotonic() - started < 4, "all of it takes eight seconds"
    assert part(place) > 0


def test_requests__a_file_that_many_want_is_fetched_once(place):
    (place / "served" / "a").write_bytes(bytes(50_000))
    fetcher = Fetcher(FetchOptions(cache=str(place / "cache"), requests_per_second=10.0))
    with serving(place / "served", rate=100_000) as mirror, ThreadPoolExecutor(4) as pool:
        got = [
            pool.submit(fetcher.get, f"{mirror.address}/a", "a", is_gzip=False) for _ in range(4)
        ]
        assert len({one.result().path for one in got}) == 1
    assert len(mirror.asked) == 1


def test_cache__who_waited_for_another_is_alone_too(place):
    cache, came, done = Cache(place / "cache"), threading.Event(), threading.Event()

    def second():
        with cache.partial("a"):
            came.set()
            assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        with cache.partial("a") as mine:
            waiting = pool.submit(second)
            assert not came.wait(0.3)
            cache.forget(mine)
        assert came.wait(60)
        with (mine / "lock").open("w") as third, pytest.raises(BlockingIOError):
            fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done.set()
        waiting.result()
