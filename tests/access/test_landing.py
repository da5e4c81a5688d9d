"""Sources are read while others are fetched: the same stores, whatever happens meanwhile."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mirror import series_folder, serving
from dglzarr.access.lock import read_lock
from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.storage.store import is_complete
from dglzarr.studies.fetch import fetch
from dglzarr.studies.plan import mine
from dglzarr.testing import write_series_matrix
from tests.access.series import matrix
from tests.kills import digests, metadata

PROGRAM = Path(sys.executable).with_name("dglzarr")
NAMES = [f"GSE{n}" for n in range(1, 6)]

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to serve series from, with a cache and an environment of its own."""
    monkeypatch.setenv("DGLZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DGLZARR_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for accession in NAMES:
        matrix(tmp_path / "served", accession)
    return tmp_path


@pytest.fixture
def mirror(place, monkeypatch):
    with serving(place / "served") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def write(place, *, root="study", names=NAMES, rate=10.0, more=""):
    text = f'root = "{root}"\n[[sources]]\ngeo = {json.dumps(names)}\n{more}\n'
    text += '[cluster]\nkind = "none"\n'
    text += f"[fetch]\nrequests_per_second = {rate}\nfirst_wait = 0.05\nattempts = 2\n"
    text += "[select]\nn_landmarks = 5\n"
    (place / "study.toml").write_text(text, encoding="utf-8")
    return load_settings(place / "study.toml")


def wait_for(is_so):
    until = time.monotonic() + 100
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def raw(place, name, root="study"):
    return place / root / "raw" / f"{name}.zarr"


def check_as_read_later(place):
    """Refuse stores that are not those of series that are fetched first, and read then."""
    settings = write(place, root="later")
    fetch(settings)
    mine(settings, only=("ingest",))
    for name in NAMES:
        now, later = raw(place, name), raw(place, name, "later")
        assert digests(now) == digests(later)
        assert metadata(now, place / "study") == metadata(later, place / "later")


def test_mine__reads_what_has_come_while_the_rest_is_fetched(place, mirror, monkeypatch):
    others = NAMES[:-1]
    found = []
    answer = mirror.fault

    def fault(path, asked_range):
        if NAMES[-1] in path and not found:  # the last is not served before the others are read
            wait_for(lambda: all(is_complete(str(raw(place, name))) for name in others))
            found.extend(others)
        return answer(path, asked_range)

    monkeypatch.setattr(mirror, "fault", fault)
    done = mine(write(place), only=("ingest",))
    assert found == others
    assert {done["ingest"].details["states"][name] for name in others} == {"unchanged"}
    check_as_read_later(place)


def test_mine__killed_while_it_fetches_and_reads(place, mirror, monkeypatch):
    killed, answer = threading.Event(), mirror.fault

    def fault(path, asked_range):
        if NAMES[-1] in path:
            killed.wait(60)
        return answer(path, asked_range)

    monkeypatch.setattr(mirror, "fault", fault)
    write(place)
    command = [PROGRAM, "ingest", "study.toml"]
    run = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: any((place / "study" / "raw").glob("*.zarr")))
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=60)
    killed.set()
    assert run.returncode == -signal.SIGKILL
    n_recorded = len(read_lock(place / "sources.lock"))
    assert 0 < n_recorded < len(NAMES)
    mine(write(place), only=("ingest",))
    check_as_read_later(place)


@pytest.mark.usefixtures("mirror")
def test_mine__one_is_refused_and_one_cannot_be_read(place):
    centred = np.random.default_rng(0).normal(0, 1, (8, 60))
    write_series_matrix(
        place / "served" / series_folder("GSE2") / "GSE2_series_matrix.txt.gz", centred,
        samples=[f"GSM2{n:03d}" for n in range(8)], genes=[f"{n}_at" for n in range(60)],
        series="GSE2", platform="GPL96",
    )  # fmt: skip
    with pytest.raises(SourceError, match=r"GSE9: expected a public series"):
        mine(write(place, names=[*NAMES, "GSE9"]), only=("ingest",))
    assert [entry.name[:4] for entry in read_lock(place / "sources.lock")] == NAMES
    with pytest.raises(SourceError, match=r"GSE2_series_matrix.txt.gz: .*median-centred"):
        mine(write(place), only=("ingest",))
    rest = [name for name in NAMES if name != "GSE2"]
    done = mine(write(place, names=rest), only=("ingest",))
    assert set(done["ingest"].details["states"]) == set(rest)


@pytest.mark.usefixtures("mirror")
def test_mine__all_refused_leaves_no_study(place):
    with pytest.raises(SourceError, match=r"GSE8: .* And 1 more: see 'dglzarr fetch'"):
        mine(write(place, names=["GSE8", "GSE9"]), only=("ingest",))
    assert not (place / "study").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('uri = "mine.tsv"', r"sources.1.uri: no such file: .*mine.tsv"),
        ('geo = "GSE9"\nannotation = "GPL.txt"', r"sources.1.annotation: no such file: .*GPL.txt"),
        (
            'geo = "GSE9"\nsample_sheet = "https://a.org/a.tsv"',
            r"sources.1.sample_sheet: expected a file of this machine, got 'https://a.org/a.tsv'",
        ),
        (
            'geo = "GSE9"\n[ingest]\nannotation = "s3://a/b.txt"',
            r"ingest.annotation: expected a file of this machine, got 's3://a/b.txt'\. Download it",
        ),
    ],
)
def test_mine__a_file_that_is_not_there_is_told_before_anything_is_fetched(
    place, mirror, line, told
):
    settings = write(place, more=f"[[sources]]\n{line}")
    with pytest.raises(ConfigError, match=told):
        mine(settings, only=("ingest",))
    assert not mirror.asked
