"""What changed at the server, in the cache or in the lock is told, and never taken silently."""

import re
from pathlib import Path

import pytest

from benchmarks.mirror import serving
from dglzarr.access.fetch import ChangedUpstreamError, Fetcher, entry_of
from dglzarr.access.options import FetchOptions
from dglzarr.errors import ConfigError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import fetch
from dglzarr.studies.plan import Plan
from tests.access.series import empty_matrix, matrix, ncbi_counts
from tests.access.served import address_of, at

pytestmark = pytest.mark.slow


def test_fetch__a_changed_file_is_told_and_never_taken(place, asked):
    old = matrix(place / "served", "GSE1").read_bytes()
    asked("GSE1")
    with serving(place / "served"):
        pass
    lock = (place / "sources.lock").read_bytes()
    served = matrix(place / "served", "GSE1", seed=2)
    port = address_of(place)
    done = at(place, port, lambda s: fetch(s, check=True))
    assert done.state == "changed"
    assert re.search(r"GSE1: expected GSE1_series.* got another .*fetch --update", done.told)
    assert (place / "sources.lock").read_bytes() == lock
    for path in (place / "cache" / "files").rglob("*.gz"):
        path.unlink()  # the cache is lost, too
    assert at(place, port, fetch).state == "changed"
    assert (place / "sources.lock").read_bytes() == lock
    assert at(place, port, lambda s: fetch(s, update=True)).state == "fetched"
    (source,) = Plan.of(load_settings(place / "study.toml")).sources
    assert Path(source.path).read_bytes() == served.read_bytes() != old


def test_fetch__what_the_lock_records_is_taken_from_the_cache_or_refused_each_time(place):
    options = FetchOptions(cache=str(place / "cache"), requests_per_second=10.0)
    served = place / "served" / "a"
    served.write_bytes(b"old")
    with serving(place / "served") as mirror:
        address = f"{mirror.address}/a"
        entry = entry_of(
            "uri:a", "data", address, Fetcher(options).get(address, "a", is_gzip=False)
        )
        served.write_bytes(b"new")
        fetcher = Fetcher(options, locked={address: entry})
        assert fetcher.get(address, "a", is_gzip=False).path.read_bytes() == b"old"
        fetcher.get(address, "a", is_gzip=False).path.unlink()
        for _ in range(2):
            with pytest.raises(ChangedUpstreamError, match=r"expected a as of .* got another"):
                fetcher.get(address, "a", is_gzip=False)


def test_fetch__a_sheet_that_is_made_otherwise_now_is_told_and_updated(place, asked, monkeypatch):
    empty_matrix(place / "served", "GSE60", ["GSM1", "GSM2"])
    ncbi_counts(place / "served", "GSE60", ["GSM1", "GSM2"])
    asked("GSE60")
    (sheet,) = (place / "cache").rglob("GSE60_samples.tsv")
    sheet.unlink()
    new = b"Sample\tnew\nGSM1\t1\nGSM2\t2\n"
    monkeypatch.setattr("dglzarr.studies.fetch.series_sheet", lambda _: new)
    port = address_of(place)
    for _ in range(2):
        done = at(place, port, fetch)
        assert (done.state, "fetch --update" in done.told) == ("changed", True)
    assert at(place, port, lambda s: fetch(s, update=True)).state == "fetched"
    (source,) = Plan.of(load_settings(place / "study.toml")).sources
    assert "new" in Path(source.options.sample_sheet).read_text()


def test_fetch__damage_in_the_cache_is_found_and_fetched_again(place, asked):
    served = matrix(place / "served", "GSE1").read_bytes()
    asked("GSE1")
    (path,) = (place / "cache" / "files").rglob("*.gz")
    path.chmod(0o644)
    path.write_bytes(served[:-1] + b"x")
    assert at(place, address_of(place), fetch).state == "fetched"
    assert path.read_bytes() == served


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: t.replace("GSE1_", "GSE2_"),
        lambda t: t[:-20],
        lambda t: t[:0] + "[]",
        lambda t: t[:0] + "\0",
    ],
)
def test_fetch__a_lock_edited_by_hand_is_refused(place, asked, edit):
    matrix(place / "served", "GSE1")
    asked("GSE1")
    lock = place / "sources.lock"
    lock.write_text(edit(lock.read_text()))
    with pytest.raises(ConfigError, match=r"sources.lock: expected what dglzarr wrote, got a file"):
        fetch(load_settings(place / "study.toml"))
