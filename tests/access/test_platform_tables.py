"""GEO's tables of platforms: fetched with the series, recorded, and shared by series."""

import pytest

from dglzarr.access.fetch import Fetcher
from dglzarr.access.http import AbsentError, RefusedError
from dglzarr.access.lock import read_lock
from dglzarr.access.options import FetchOptions
from dglzarr.errors import ConfigError
from dglzarr.settings import load_settings
from dglzarr.sources import read_source
from dglzarr.studies.fetch import fetch
from dglzarr.studies.plan import Plan
from tests.access.series import empty_matrix, matrix, ncbi_counts, platform_table

TABLE = "platform_table = true"


def symbols(place):
    sources = Plan.of(load_settings(place / "study.toml")).sources
    return {
        source.name: read_source(source.path, annotation=source.options.annotation).gene_symbol[:1]
        for source in sources
    }


def test_fetch__probes_of_two_platforms_are_named_by_their_tables(place, asked):
    served = place / "served"
    for accession, platform in (("GSE1", "GPL96"), ("GSE2", "GPL96"), ("GSE3", "GPL570")):
        matrix(served, accession, platform=platform)
    platform_table(served, "GPL96", "A")
    platform_table(served, "GPL570", "B")
    done = asked(["GSE1", "GSE2", "GSE3"], extra=TABLE)
    assert {one.state for one in done.values()} == {"fetched"}
    assert symbols(place) == {"GSE1": ["A0"], "GSE2": ["A0"], "GSE3": ["B0"]}
    entries = [e for e in read_lock(place / "sources.lock") if e.kind == "platform"]
    assert [(e.source, e.platform) for e in entries] == [
        ("geo:GSE1/table", "GPL96"), ("geo:GSE2/table", "GPL96"), ("geo:GSE3/table", "GPL570"),
    ]  # fmt: skip
    again = fetch(load_settings(place / "study.toml"))  # the server is gone
    assert {one.state for one in again} == {"kept"}


def test_fetch__a_platform_without_a_table_is_told(place, asked):
    matrix(place / "served", "GSE1", platform="GPL96")
    told = asked("GSE1", extra=TABLE)["GSE1"]
    assert (told.state, told.n_files) == ("fetched", 1)
    assert told.told == "GEO has no table of GPL96: name one as annotation"


def test_fetch__a_table_that_is_cut_off_is_no_table(place, asked):
    matrix(place / "served", "GSE1")
    path = platform_table(place / "served", "GPL96", "A")
    path.write_bytes(path.read_bytes()[:-20])
    told = asked("GSE1", extra=TABLE)["GSE1"]
    assert told.state == "refused"
    assert "expected whole gzip" in told.told


def test_shared_text__one_that_was_refused_is_asked_for_again(tmp_path, monkeypatch):
    """A page that did not come is not one that is not there."""
    answers = [RefusedError("the server answers 503"), "a page", AbsentError("404")]

    def text(_fetcher, _address):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Fetcher, "text", text)
    fetcher = Fetcher(FetchOptions(cache=str(tmp_path)))
    with pytest.raises(RefusedError, match="503"):
        fetcher.shared_text("https://here/a")
    assert [fetcher.shared_text("https://here/a") for _ in range(2)] == ["a page"] * 2
    assert [fetcher.shared_text("https://here/b") for _ in range(2)] == ["", ""]
    assert not answers


def test_fetch__counts_bring_their_own_names(place, asked):
    samples = ["GSM1", "GSM2", "GSM3"]
    empty_matrix(place / "served", "GSE9", samples)
    ncbi_counts(place / "served", "GSE9", samples)
    told = asked("GSE9", extra=TABLE)["GSE9"]
    assert (told.state, told.told) == ("fetched", "")
    kinds = {e.kind for e in read_lock(place / "sources.lock")}
    assert kinds == {"labels", "counts", "annotation", "samples"}


@pytest.mark.parametrize(
    "source", ['uri = "a.tsv"', 'gtex = "v8"', 'geo = "GSE1"\nannotation = "a.txt"']
)
def test_settings__a_table_of_what(tmp_path, source):
    text = f'root = "s"\n[[sources]]\n{source}\n{TABLE}\n'
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(ConfigError, match="expected geo beside platform_table, and no annotation"):
        load_settings(tmp_path / "study.toml")
