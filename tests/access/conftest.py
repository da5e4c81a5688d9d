"""A folder to serve with a cache of its own, and what fetching from it told."""

import pytest

from benchmarks.mirror import serving
from dglzarr.studies.fetch import fetch
from tests.access.served import write


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to serve; a cache and an environment of its own."""
    monkeypatch.setenv("DGLZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DGLZARR_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "served").mkdir()
    return tmp_path


@pytest.fixture
def asked(place, monkeypatch):
    """Settings of accessions at a server with faults, and what fetching them told."""

    def ask(accessions, faults=None, *, extra="", fast=True, **options):
        with serving(place / "served", faults) as mirror:
            for name, value in mirror.environment().items():
                monkeypatch.setenv(name, value)
            settings = write(place, accessions, extra, fast=fast)
            outcomes = fetch(settings, **options)
            ask.requests = [path for _, path, _ in mirror.asked]
            ask.ranges = [asked for _, _, asked in mirror.asked if asked]
        return {outcome.name: outcome for outcome in outcomes}

    return ask
