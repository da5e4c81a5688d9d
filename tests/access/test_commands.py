"""Fetching as people run it: commands, kills, full disks, and settings drafted of accessions."""

import re
import resource
import signal

import pytest
from typer.testing import CliRunner

from benchmarks.mirror import serving
from dglzarr.access.lock import read_lock
from dglzarr.cli import app
from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import fetch
from dglzarr.studies.plan import Plan, mine
from tests.access.series import matrix
from tests.access.served import part, run, write
from tests.builders import wait_for

pytestmark = pytest.mark.slow


def test_command__tells_each_refusal_in_a_line_and_no_key(place, monkeypatch):
    monkeypatch.setenv("NCBI_API_KEY", "s3cr3t")
    matrix(place / "served", "GSE1")
    write(place, ["GSE1", "GSE2", "GSE3"])
    with serving(place / "served") as mirror:
        done = run(place, mirror, "-vv", "fetch", "study.toml")
        out, err = done.communicate(timeout=120)
    assert done.returncode == 1
    assert "s3cr3t" not in out + err + (place / "sources.lock").read_text()
    assert re.search(r"^GSE1 +fetched +1 ", out, re.MULTILINE)
    assert re.search(r"^GSE2: expected a public series.*\nGSE3: expected", err, re.MULTILINE)
    assert err.splitlines()[-1] == "2 of 3 sources were not taken."
    assert "Traceback" not in err


def test_command__a_few_that_are_refused_are_no_error(place, monkeypatch):
    matrix(place / "served", "GSE1")
    write(place, ["GSE1", "GSE2"])
    with serving(place / "served") as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        words = ["fetch", str(place / "study.toml")]
        strict = CliRunner().invoke(app, words)
        few = CliRunner().invoke(app, [*words, "--set", "fetch.max_refused=0.5"])
    assert (strict.exit_code, few.exit_code) == (1, 0)
    assert "1 of 2 sources were not taken." in few.output
    assert "GSE2: expected a public series" in few.output


def test_fetch__no_network_is_told_of_each_without_waiting_for_each(place, monkeypatch):
    with serving(place / "served") as mirror:
        pass  # nobody is there any more
    for name, value in mirror.environment().items():
        monkeypatch.setenv(name, value)
    line = r"GSE\d: expected an answer of 127.*connection refused, 3 times in a row. Check the netw"
    outcomes = fetch(write(place, ["GSE1", "GSE2", "GSE3", "GSE4", "GSE5"]))
    assert [bool(re.match(line, outcome.told)) for outcome in outcomes] == [True] * 5


def test_command__killed_in_a_download_it_goes_on_where_it_was(place):
    served = matrix(place / "served", "GSE1", n_genes=60000)
    size = served.stat().st_size
    write(place, "GSE1", fast=False)
    with serving(place / "served", rate=size / 4) as mirror:
        begun = run(place, mirror, "fetch", "study.toml")
        wait_for(lambda: part(place) > size // 4)
        begun.send_signal(signal.SIGKILL)
        begun.communicate(timeout=60)
        assert begun.returncode == -signal.SIGKILL
        have = part(place)
        assert not (place / "sources.lock").exists()
        assert not (place / "cache" / "files").exists()
        mirror.rate = None
        done = run(place, mirror, "fetch", "study.toml")
        _, err = done.communicate(timeout=120)
        assert (done.returncode, "fetching" in err) == (0, True)
        assert [asked for _, _, asked in mirror.asked if asked] == [f"bytes={have}-"]
    (path,) = (place / "cache" / "files").rglob("*.gz")
    assert path.read_bytes() == served.read_bytes()


def test_command__disk_full_in_a_download(place):
    matrix(place / "served", "GSE1", n_genes=60000)
    matrix(place / "served", "GSE2")
    write(place, ["GSE1", "GSE2"])

    def little():  # as a disk that is full: no file may grow beyond this
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    with serving(place / "served") as mirror:
        done = run(place, mirror, "fetch", "study.toml", preexec_fn=little)
        _, err = done.communicate(timeout=120)
        assert done.returncode == 1
        assert re.search(
            r"^GSE1: cannot be fetched: .*run again; finished work is kept", err, re.MULTILINE
        )
        assert [e.source for e in read_lock(place / "sources.lock")] == ["geo:GSE2"]
        again = run(place, mirror, "fetch", "study.toml")
        again.communicate(timeout=120)
        assert again.returncode == 0


def test_mine__gets_what_is_missing_and_then_is_offline(place, monkeypatch):
    for accession in ("GSE1", "GSE2"):
        matrix(place / "served", accession)
    panel = "[select]\nn_landmarks = 5"
    settings = write(place, ["GSE1", "GSE2"], panel)
    with serving(place / "served") as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        mine(settings, only=("ingest", "join"))
    standings = Plan.of(settings).standings()
    assert (standings["ingest"].state, standings["join"].state) == ("done", "done")
    again = mine(settings, only=("ingest", "join"))  # the server is gone
    assert {name: done.state for name, done in again.items()} == {
        "ingest": "unchanged", "join": "unchanged",
    }  # fmt: skip
    with pytest.raises(SourceError, match=r"GSE3: expected an answer of 127"):
        mine(write(place, ["GSE1", "GSE2", "GSE3"], panel), only=("ingest", "join"))


def test_init__drafts_settings_of_accessions_that_can_be_mined(place, monkeypatch):
    for accession in ("GSE1", "GSE2", "GSE3"):
        matrix(place / "served", accession)
    (place / "list.txt").write_text("GSE2\nGSE3\nGSE4\n")
    monkeypatch.chdir(place)
    monkeypatch.setenv("NCBI_API_KEY", "for the rate")
    with serving(place / "served") as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        words = ["init", "--geo", "GSE1", "--geo", "list.txt", "--output", "study.toml"]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, "one was not taken"
    assert "GSE4: expected a public series" in done.output
    text = (place / "study.toml").read_text()
    assert text.startswith("# 24 samples of 3 series train this, over 60 genes.")
    assert 'geo = ["GSE1", "GSE2", "GSE3"]' in text
    assert "#   GSE1_series_matrix.txt.gz: series-matrix, 8 samples x 60 genes, GPL96" in text
    settings = load_settings(place / "study.toml")  # the server is gone
    assert [source.name for source in Plan.of(settings).sources] == ["GSE1", "GSE2", "GSE3"]


def test_init__of_nothing(place, monkeypatch):
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, ["init"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "init: expected a folder of files, or --geo GSE..., got neither."
