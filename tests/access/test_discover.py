"""Series found by E-utilities of a server of this machine: history, pages, keys, refusals."""

import json
import re

import pytest
from typer.testing import CliRunner

from benchmarks.mirror import serving
from dglzarr.access.discover import PAGE, Search, discover
from dglzarr.access.http import Client, RefusedError
from dglzarr.access.options import FetchOptions
from dglzarr.cli import app
from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import wanted

pytestmark = pytest.mark.slow
FAST = FetchOptions(requests_per_second=10.0, first_wait=0.02, attempts=2)
SEARCH = Search(("GPL96",), "Homo sapiens", "2026-01-01", 20)


def known(n):
    """What NCBI says of some series; every tenth is small."""
    return [
        {
            "uid": str(200000000 + i), "accession": f"GSE{i}", "gpl": "96;570", "n_samples": 5 if
            i % 10 == 0 else 30, "taxon": "Homo sapiens", "pdat": f"2026/01/{1 + i % 28:02d}",
            "title": f"Series\t{i}\n of lungs",
        }
        for i in range(1, n + 1)
    ]  # fmt: skip


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "eutils.json").write_text(json.dumps(known(2 * PAGE + 10)))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("NCBI_API_KEY", raising=False)
    with serving(tmp_path / "served") as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        yield mirror


def test_discover__all_pages_in_order_without_small_series(mirror):
    found = discover(Client(FAST), SEARCH)
    assert len(found) == 2 * PAGE + 10 - (2 * PAGE + 10) // 10
    assert len({one.accession for one in found}) == len(found)
    assert found == sorted(found, key=lambda one: (one.published, one.accession), reverse=True)
    assert (found[0].platforms, found[0].published) == ("GPL96,GPL570", "2026-01-28")
    assert "\t" not in found[0].title
    assert "\n" not in found[0].title
    paths = [path.rpartition("/")[2] for _, path, _ in mirror.asked]
    assert paths == ["esearch.fcgi", *["esummary.fcgi"] * 3]


def test_discover__a_key_is_in_no_address(mirror, monkeypatch):
    monkeypatch.setenv("NCBI_API_KEY", "s3cr3t")
    seen = []
    asked = mirror.fault
    monkeypatch.setattr(mirror, "fault", lambda path, r: seen.append(path) or asked(path, r))
    with Client(FAST).open(f"{mirror.address}/entrez/eutils/esearch.fcgi",
                           form={"term": "a[ACCN]", "api_key": "s3cr3t"}) as response:  # fmt: skip
        assert "s3cr3t" not in response.url
    discover(Client(FAST), SEARCH)
    assert "s3cr3t" not in str(seen)


@pytest.mark.usefixtures("mirror")
def test_command__its_table_is_a_file_of_accessions(tmp_path):
    table = tmp_path / "new.tsv"
    done = CliRunner().invoke(
        app, ["discover", "--platform", "GPL96", "--min-samples", "20", "--output", str(table)]
    )
    assert (done.exit_code, "909 series written" in done.stdout) == (0, True), done.output
    header = table.read_text().splitlines()[0]
    assert header == "accession\tsamples\torganism\tplatforms\tpublished\ttitle"
    (tmp_path / "study.toml").write_text('root = "s"\n[[sources]]\ngeo = "new.tsv"\n')
    assert len(wanted(load_settings(tmp_path / "study.toml"))) == 909


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (["html"], "expected JSON of esearch, got '<!DOCTYPE html>"),
        (["broken"], "got status 500 from 127.*2 times in a row"),
        (["elsewhere"], "expected an answer of http.*esearch.fcgi, got sent elsewhere"),
    ],
)
def test_discover__what_is_no_answer(mirror, monkeypatch, fault, told):
    mirror.faults = {"/entrez/eutils/esearch.fcgi": fault}
    monkeypatch.setattr("dglzarr.access.options.FetchOptions", lambda: FAST)  # else half a minute
    with pytest.raises(RefusedError, match=told):
        discover(Client(FAST), SEARCH)
    done = CliRunner().invoke(app, ["discover", "--since", "2026"])
    assert isinstance(done.exception, SourceError)
    assert str(done.exception).startswith("discover: expected")


@pytest.mark.parametrize(
    "problem",
    [
        {"errorlist": {"phrasesnotfound": ['"Homo sapins"[ORGN]']}},
        {"warninglist": {"quotedphrasesnotfound": ['"Homo sapins"[ORGN]']}},
    ],
)
def test_discover__a_name_that_nobody_has_is_told(monkeypatch, problem):
    said = {"esearchresult": {"count": "0", "webenv": "W", "querykey": "1", **problem}}
    client = Client(FAST)
    monkeypatch.setattr(client, "text", lambda *_, **__: json.dumps(said))
    with pytest.raises(RefusedError, match=r"expected NCBI to search .* got .*Homo sapins"):
        discover(client, Search(organism="Homo sapins"))


def test_discover__a_short_page_is_not_taken_for_the_end(mirror, tmp_path):
    asked = mirror.fault

    def shorter(path, asked_range):
        if path.endswith("esummary.fcgi"):  # as when the history is forgotten meanwhile
            (tmp_path / "served" / "eutils.json").write_text(json.dumps(known(3)))
        return asked(path, asked_range)

    mirror.fault = shorter
    with pytest.raises(RefusedError, match=r"expected series 1 to 500 of .* got 3 of"):
        discover(Client(FAST), SEARCH)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "expected a platform, an organism or a first day, got none"),
        (["--platform", "96"], "platform: expected one such as GPL96, got '96'"),
        (["--since", "May"], "since: expected a day such as 2026-01-01, got 'May'"),
        (["--since", "2026-02-30"], "since: expected a day such as 2026-01-01, got '2026-02-30'"),
        (["--organism", "x[ALL]"], "organism: expected a name"),
    ],
)
def test_command__wrong_searches(words, told):
    done = CliRunner().invoke(app, ["discover", *words])
    assert isinstance(done.exception, ConfigError)
    assert told in str(done.exception)


def study(folder, source='geo = "found.tsv"', section='platforms = ["GPL96"]\nmin_samples = 20'):
    (folder / "study.toml").write_text(
        f'root = "s"\n[[sources]]\n{source}\n[discover]\nlist = "found.tsv"\n{section}\n',
        encoding="utf-8",
    )
    return CliRunner().invoke(app, ["discover", str(folder / "study.toml")])


@pytest.mark.usefixtures("mirror")
def test_command__a_study_adds_what_it_does_not_name_the_oldest_first(tmp_path):
    done = study(tmp_path, 'geo = ["GSE3"]\n[[sources]]\ngeo = "found.tsv"')
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == "Found 909 series, 908 of them new."
    lines = (tmp_path / "found.tsv").read_text().splitlines()
    days = [line.split("\t")[4] for line in lines[1:]]
    assert days == sorted(days)
    assert len(lines) == 909
    (tmp_path / "found.tsv").write_text("\n".join(lines[:-2]))  # as somebody may edit it
    done = study(tmp_path, 'geo = ["GSE3"]\n[[sources]]\ngeo = "found.tsv"')
    assert done.stdout.splitlines()[0] == "Found 909 series, 2 of them new."
    assert sorted((tmp_path / "found.tsv").read_text().splitlines()) == sorted(lines)


@pytest.mark.usefixtures("mirror")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"source": 'geo = "GSE3"'}, r"discover\.list: expected a source that takes it"),
        ({"section": ""}, r"discover: expected a platform, an organism or a first day"),
        ({"section": 'platforms = ["96"]'}, r"discover: platform: expected one such as GPL96"),
    ],
)
def test_command__a_study_that_looks_for_nothing_is_refused(tmp_path, given, told):
    done = study(tmp_path, **given)
    assert isinstance(done.exception, ConfigError)
    assert re.search(told, str(done.exception))
    assert not (tmp_path / "found.tsv").exists()


def test_command__settings_or_options_not_both(tmp_path):
    words = ["discover", str(tmp_path / "study.toml"), "--platform", "GPL96"]
    done = CliRunner().invoke(app, words)
    assert "expected settings or options, got both" in str(done.exception)
