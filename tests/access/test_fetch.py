"""Fetching from a server of this machine that misbehaves: real sockets and files."""

import fcntl
import gzip
import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from typer.testing import CliRunner

from dglzarr.access.cache import Cache
from dglzarr.access.content import Checked
from dglzarr.access.fetch import ChangedUpstreamError, Fetcher, entry_of
from dglzarr.access.http import Client, RefusedError
from dglzarr.access.lock import read_lock
from dglzarr.access.options import FetchOptions
from dglzarr.cli import app
from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import fetch, get_missing, wanted
from dglzarr.studies.plan import Plan, mine
from dglzarr.testing.mirror import series_folder, serving
from tests.access.series import COUNTS, empty_matrix, matrix, ncbi_counts

PROGRAM = Path(sys.executable).with_name("dglzarr")

pytestmark = pytest.mark.slow


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


def write(place, accessions, extra="", *, fast=True):
    speed = "requests_per_second = 10.0\nfirst_wait = 0.05\ntime_out = 1.0\nattempts = 3\n"
    text = f'root = "study"\n[[sources]]\ngeo = {json.dumps(accessions)}\n{extra}\n'
    text += f"[fetch]\n{speed if fast else ''}"
    (place / "study.toml").write_text(text, encoding="utf-8")
    return load_settings(place / "study.toml")


def path_of(accession):
    return f"/{series_folder(accession)}/{accession}_series_matrix.txt.gz"


def in_cache(place):
    return sorted(p.name for p in (place / "cache" / "files").rglob("*") if p.is_file())


# ---------------------------------------------------------------- what comes


def test_fetch__a_series_is_recorded_and_found_again_offline(place, asked):
    served = matrix(place / "served", "GSE10072")
    done = asked("GSE10072")["GSE10072"]
    assert (done.state, done.n_files, done.nbytes) == ("fetched", 1, served.stat().st_size)
    (entry,) = read_lock(place / "sources.lock")
    assert entry.sha256 == hashlib.sha256(served.read_bytes()).hexdigest()
    assert entry.address.endswith(
        "/geo/series/GSE10nnn/GSE10072/matrix/GSE10072_series_matrix.txt.gz"
    )
    assert (entry.platform, entry.organism, len(entry.etag)) == ("GPL96", "Homo sapiens", 18)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry.fetched)
    settings = load_settings(place / "study.toml")  # the server is gone
    (source,) = Plan.of(settings).sources
    assert Path(source.path).read_bytes() == served.read_bytes()
    assert source.name == "GSE10072"
    assert [one.state for one in fetch(settings)] == ["kept"]
    assert not os.access(source.path, os.W_OK) or os.geteuid() == 0
    assert list((place / "cache" / "partial").rglob("*")) == []


def test_fetch__nothing_is_asked_for_what_is_there(place, asked):
    matrix(place / "served", "GSE10")
    asked("GSE10")
    assert asked("GSE10")["GSE10"].state == "kept"
    assert asked.requests == []


def test_fetch__a_short_accession_has_the_folder_without_number(place, asked):
    matrix(place / "served", "GSE781")
    assert asked("gse781")["GSE781"].state == "fetched"
    assert asked.requests[0] == "/geo/series/GSEnnn/GSE781/matrix/"


def test_fetch__a_file_of_accessions_and_two_studies_of_one_cache(place, asked):
    for accession in ("GSE1", "GSE22"):
        matrix(place / "served", accession)
    (place / "list.tsv").write_text("accession\ttitle\n# mine\nGSE1\tOne\n\nGSE22\tTwo\n")
    assert set(asked("list.tsv")) == {"GSE1", "GSE22"}
    other = place / "other"
    other.mkdir()
    (other / "study.toml").write_text(
        (place / "study.toml").read_text().replace("list.tsv", "../list.tsv")
    )
    assert len(in_cache(place)) == 2
    assert not (other / "sources.lock").exists()
    with pytest.raises(ConfigError, match=r"sources.0.geo: GSE1 is not fetched yet. Run 'dglzarr"):
        Plan.of(load_settings(other / "study.toml"))


def test_fetch__any_address(place):
    made = matrix(place / "served", "GSE5")
    made.rename(place / "served" / "mine_expr.txt.gz")
    with serving(place / "served") as mirror:
        address = f"{mirror.address}/mine_expr.txt.gz"
        (place / "study.toml").write_text(f'root = "s"\n[[sources]]\nuri = "{address}"\n')
        settings = load_settings(place / "study.toml")
        assert [(o.name, o.state) for o in fetch(settings)] == [(address, "fetched")]
    assert [s.name for s in Plan.of(settings).sources] == ["mine"]


@pytest.mark.parametrize(
    ("release", "values", "file"),
    [
        ("v6", "tpm", "v6p/rna-seq/GTEx_Analysis_v6p_RNA-seq_RNA-SeQCv1.1.8_gene_rpkm.gct.gz"),
        ("v10", "reads", "v10/rna-seq/GTEx_Analysis_v10_RNASeQCv2.4.2_gene_reads.gct.gz"),
    ],
)
def test_fetch__gtex_with_its_samples_and_unit(place, monkeypatch, release, values, file):
    served = place / "served" / "adult-gtex"
    target = served / "bulk-gex" / file
    target.parent.mkdir(parents=True)
    target.write_bytes(gzip.compress(b"#1.2\n1\t1\nName\tDescription\tGTEX-A-1\nENSG1.1\tA\t2\n"))
    of = {"v6": "v6p", "v10": "v10"}[release]
    sheet = served / "annotations" / of / "metadata-files"
    sheet.mkdir(parents=True)
    names = {"v6": "GTEx_Data_V6_Annotations", "v10": "GTEx_Analysis_v10_Annotations"}
    (sheet / f"{names[release]}_SampleAttributesDS.txt").write_text(
        "SAMPID\tSMTS\nGTEX-A-1\tSkin\n"
    )
    with serving(place / "served") as mirror:
        monkeypatch.setenv("DGLZARR_GTEX_URL", f"{mirror.address}/adult-gtex")
        text = f'root = "s"\n[[sources]]\ngtex = "{release}"\ngtex_values = "{values}"\n'
        (place / "study.toml").write_text(text)
        settings = load_settings(place / "study.toml")
        assert [(o.state, o.n_files) for o in fetch(settings)] == [("fetched", 2)]
    (source,) = Plan.of(settings).sources
    assert source.options.unit == {"tpm": "rpkm", "reads": "counts"}[values]
    assert source.options.sample_sheet.endswith("_SampleAttributesDS.txt")


# ---------------------------------------------------------------- RNA-seq


def test_fetch__rna_seq_has_ncbis_counts_with_labels_and_symbols(place, asked):
    empty_matrix(place / "served", "GSE60424", ["GSM1", "GSM2", "GSM3"])
    ncbi_counts(place / "served", "GSE60424", ["GSM2", "GSM1", "GSM3"])
    done = asked("GSE60424")["GSE60424"]
    assert (done.state, done.n_files) == ("fetched", 4)
    settings = load_settings(place / "study.toml")
    (source,) = Plan.of(settings).sources
    assert Path(source.path).name == COUNTS.format("GSE60424")
    assert source.options.unit == "counts"
    from dglzarr.sources import read_source

    read = read_source(
        source.path,
        sample_sheet=source.options.sample_sheet,
        annotation=source.options.annotation,
    )
    assert read.samples == ["GSM2", "GSM1", "GSM3"]
    assert read.series == "GSE60424"
    assert read.labels["tissue"] == ["blood 2", "blood 1", "blood 3"]
    assert read.platform == ["GPL15456"] * 3
    assert read.gene_symbol[:2] == ["A1BG", "NAT2"]
    before = in_cache(place)
    (place / "cache" / "files").rename(place / "lost")
    settings = load_settings(place / "study.toml")
    at(place, address_of(place), fetch)  # the sheet that was made comes again, too, as it was
    assert in_cache(place) == before
    assert Plan.of(settings).sources == (source,)


def test_fetch__rna_seq_without_counts_is_refused(place, asked):
    empty_matrix(place / "served", "GSE99479", ["GSM1"])
    told = asked("GSE99479")["GSE99479"]
    assert told.state == "refused"
    assert re.match(r"GSE99479: expected values, got an empty series matrix.* Remove it", told.told)
    assert read_lock(place / "sources.lock") == []


def test_fetch__a_page_that_links_to_an_unknown_host_is_not_followed(place, asked, monkeypatch):
    empty_matrix(place / "served", "GSE60", ["GSM1"])
    listed = Fetcher.text

    def text(fetcher, address):
        away = f'<a href="https://example.invalid/{COUNTS.format("GSE60")}">'
        return away if "download" in address else listed(fetcher, address)

    monkeypatch.setattr(Fetcher, "text", text)
    told = asked("GSE60")["GSE60"].told
    assert re.search(r"send to a known host by https, got https://example\.invalid\. .*hosts", told)


def test_fetch__rna_seq_of_several_platforms_needs_no_choice(place, asked):
    for platform, samples in (("GPL11154", ["GSM1", "GSM2"]), ("GPL16791", ["GSM3"])):
        empty_matrix(place / "served", "GSE60", samples, platform=platform)
    ncbi_counts(place / "served", "GSE60", ["GSM1", "GSM2", "GSM3"])
    assert asked("GSE60")["GSE60"].n_files == 5
    (source,) = Plan.of(load_settings(place / "study.toml")).sources
    sheet = Path(source.options.sample_sheet).read_text().splitlines()
    assert [line.split("\t")[:2] for line in sheet[1:]] == [
        ["GSM1", "GPL11154"], ["GSM2", "GPL11154"], ["GSM3", "GPL16791"],
    ]  # fmt: skip


def test_fetch__a_platform_is_chosen_of_rna_seq_and_arrays(place, asked):
    empty_matrix(place / "served", "GSE60", ["GSM1", "GSM2"], platform="GPL11154")
    matrix(place / "served", "GSE60", platform="GPL570", several=True)
    ncbi_counts(place / "served", "GSE60", ["GSM1", "GSM2"])
    assert "expected one platform, got GPL11154 and GPL570" in asked("GSE60")["GSE60"].told
    names = {"GPL570": ["GSE60-GPL570_series_matrix.txt.gz"], "GPL11154": [COUNTS.format("GSE60")]}
    names["any"] = names["GPL11154"] + names["GPL570"]
    for platform, expected in names.items():
        assert asked("GSE60", extra=f'platform = "{platform}"')["GSE60"].state == "fetched"
        sources = Plan.of(load_settings(place / "study.toml")).sources
        assert [Path(source.path).name for source in sources] == expected
        assert [source.options.unit for source in sources] == [
            "counts" if "raw_counts" in name else None for name in expected
        ]


# ---------------------------------------------------------------- what goes wrong and is overcome


@pytest.mark.parametrize(
    "faults",
    [["short", "short", ""], ["busy", ""], ["broken", "drop", ""], ["html", ""], ["cut", ""],
     ["short", "changed", ""], ["short", "no-range"], ["hang", ""]],
    ids=str,
)  # fmt: skip
def test_fetch__what_passes_is_overcome(place, asked, faults):
    served = matrix(place / "served", "GSE7", n_genes=4000)
    started = time.monotonic()
    assert asked("GSE7", {path_of("GSE7"): faults})["GSE7"].state == "fetched"
    (path,) = (place / "cache" / "files").rglob("*.gz")
    assert path.read_bytes() == served.read_bytes()
    if faults[0] == "busy":
        assert time.monotonic() - started >= 1, "Retry-After is honoured"
    if faults[0] == "short":
        assert asked.ranges, "the rest was asked for, not all of it"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("cut", r"expected whole gzip, got one that is cut off"),
        ("long", None),  # nobody reads on behind what was said: the file is whole
        ("html", r"expected data, got a web page\. Look at the address"),
        ("broken", r"got status 500 from 127.*3 times in a row\. Run again later"),
        ("busy", r"got status 429 from 127.*3 times in a row"),
        ("gone", r"expected a file at http.*, got none \(status 404\)"),
        ("forbidden", r"expected a public file at .*, got status 403"),
        (
            "elsewhere",
            r"to send to a known host by https, got http://example\.invalid\. .*fetch\.hosts",
        ),
        ("slow", r"expected at least 1000 bytes a second, got \d+ in 1 s from"),
        ("hang", r"expected an answer of 127.*, got none in 1 s"),
        ("drop", r"expected an answer of 127.*Check the network and run again"),
    ],
)
def test_fetch__what_stays_is_told_and_the_rest_goes_on(place, asked, fault, told):
    matrix(place / "served", "GSE7", n_genes=500)
    matrix(place / "served", "GSE8")
    done = asked(["GSE7", "GSE8"], {path_of("GSE7"): [fault]})
    if told is None:
        assert done["GSE7"].state == "fetched"
        return
    assert done["GSE7"].state == "refused"
    assert re.search(told, done["GSE7"].told), done["GSE7"].told
    assert done["GSE7"].told.startswith("GSE7: expected")
    assert "\n" not in done["GSE7"].told
    assert "GSE7_series_matrix.txt.gz" not in in_cache(place)
    assert [e.source for e in read_lock(place / "sources.lock")] in (["geo:GSE8"], [])
    if fault != "drop":  # where a host is down nobody asks it again
        assert done["GSE8"].state == "fetched"


def test_fetch__withdrawn_and_private(place, asked):
    (place / "served" / series_folder("GSE2")).mkdir(parents=True)
    done = asked(["GSE1", "GSE2"])
    assert re.match(r"GSE1: expected a public series, got none: it is private", done["GSE1"].told)
    assert re.match(
        r"GSE2: expected a series matrix in http.*none among 1 links", done["GSE2"].told
    )
    assert {one.state for one in done.values()} == {"refused"}


def test_fetch__superseries_and_another_series_matrix(place, asked):
    matrix(place / "served", "GSE3", head='!Series_relation\t"SuperSeries of: GSE31"\n'
           '!Series_relation\t"SuperSeries of: GSE32"\n')  # fmt: skip
    matrix(place / "served", "GSE4").write_bytes(matrix(place / "elsewhere", "GSE9").read_bytes())
    done = asked(["GSE3", "GSE4"])
    assert re.search(r"superseries: its samples belong to GSE31, GSE32. Name", done["GSE3"].told)
    assert re.search(r"GSE4: expected GSE4_.*to be of GSE4, got GSE9", done["GSE4"].told)


def test_fetch__two_platforms_are_chosen_of(place, asked):
    for platform in ("GPL96", "GPL97"):
        matrix(place / "served", "GSE781", platform=platform, several=True)
    told = asked("GSE781")["GSE781"].told
    assert re.search(r'got GPL96 and GPL97. Choose with platform = "GPL96" at its source', told)
    assert asked("GSE781", extra='platform = "GPL97"')["GSE781"].n_files == 1
    assert in_cache(place)[-1] == "GSE781-GPL97_series_matrix.txt.gz"
    assert asked("GSE781", extra='platform = "any"')["GSE781"].n_files == 2
    assert len(Plan.of(load_settings(place / "study.toml")).sources) == 2
    told = asked("GSE781", extra='platform = "GPL570"')["GSE781"].told
    assert re.search(r"expected platform GPL570, got GPL96 and GPL97", told)


def test_fetch__another_platform_and_another_species(place, asked):
    matrix(place / "served", "GSE1")
    matrix(place / "served", "GSE2", platform="GPL570")
    told = asked(["GSE1", "GSE2"], extra='platform = "GPL96"')
    assert (told["GSE1"].state, told["GSE2"].state) == ("fetched", "refused")
    assert "expected platform GPL96, got GPL570" in told["GSE2"].told
    matrix(place / "served", "GSE5")
    matrix(place / "served", "GSE6", organism="Mus musculus")
    told = asked(["GSE1", "GSE5", "GSE6"])
    assert told["GSE6"].told == (
        "GSE6: expected Homo sapiens as of the other series, got Mus musculus. Remove it, or make "
        "it a study of its own."
    )
    with pytest.raises(SourceError, match=r"GSE6: expected Homo sapiens"):
        get_missing(load_settings(place / "study.toml"))


@pytest.mark.parametrize("n_genes", [0, 1])
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_content__a_matrix_of_one_gene_is_not_empty(n_genes, end):
    lines = ["!series_matrix_table_begin", "ID_REF\tGSM1", *["a\t1"] * n_genes]
    checked = Checked(is_matrix=True)
    checked.feed(("\n".join([*lines, "!series_matrix_table_end"]) + end).encode())
    checked.finish()
    assert checked.head().is_empty == (n_genes == 0)
    checked.close()


def test_fetch__a_gzip_bomb_is_not_kept(place, asked):
    bomb = place / "served" / series_folder("GSE7") / "GSE7_series_matrix.txt.gz"
    bomb.parent.mkdir(parents=True)
    bomb.write_bytes(gzip.compress(bytes(1 << 27), 9))
    assert re.search(r"packs up to 200 times, got \d+ MiB and more", asked("GSE7")["GSE7"].told)
    assert not (place / "cache" / "files").exists()
    assert list((place / "cache" / "partial").rglob("data")) == []


# ---------------------------------------------------------------- what changed, and who edited


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
    monkeypatch.setattr("dglzarr.studies.fetch._sheet", lambda _: b"Sample\tnew\nGSM1\t1\n")
    port = address_of(place)
    for _ in range(2):
        done = at(place, port, fetch)
        assert (done.state, "fetch --update" in done.told) == ("changed", True)
    assert at(place, port, lambda s: fetch(s, update=True)).state == "fetched"
    (source,) = Plan.of(load_settings(place / "study.toml")).sources
    assert "new" in Path(source.options.sample_sheet).read_text()


def address_of(place):
    entry = read_lock(place / "sources.lock")[0]
    return int(re.search(r":(\d+)/", entry.address)[1])


def at(place, port, call):
    """Call with the server at the port that the lock records."""
    from dglzarr.testing.mirror import Mirror

    with Mirror(place / "served", port=port) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        (outcome,) = call(load_settings(place / "study.toml"))
        mirror.shutdown()
        thread.join()
    return outcome


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


# ---------------------------------------------------------------- as people run it


def run(place, mirror, *words, **options):
    environment = {**os.environ, **mirror.environment(), "DGLZARR_CACHE": str(place / "cache")}
    return subprocess.Popen(
        [PROGRAM, *words], cwd=place, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


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


def part(place):
    return sum(p.stat().st_size for p in (place / "cache").rglob("data"))


def wait_for(is_so):
    until = time.monotonic() + 100
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


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


# ---------------------------------------------------------------- settings drafted


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


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('geo = "GSE1O072"', r"sources.0.geo: expected an accession such as GSE10072 or a file"),
        ('geo = ["GSE1", "gse1"]', r"sources.0.geo: GSE1 is named twice"),
        ('geo = "GSE1"\nuri = "a.txt"', r"sources.0: expected one of uri, geo and gtex, got uri"),
        ('role = "train"', r"sources.0: expected one of uri, geo and gtex, got none"),
        ('gtex = "v7"', r"sources.0.gtex: .*'v6', 'v8', 'v10' or 'v11', got 'v7'"),
        ('uri = "http://example.org/a.gz"', r"expected an https address, got 'http://example.org"),
        ('uri = "ftp://example.org/a.gz"', r"expected an https, s3 or gs address, got ftp://"),
        ('uri = "https://me:pw@example.org/a.gz"', r"without credentials, got one with them at"),
        ('uri = "https://example.org/a.gz?token=x"', r"expected an address without credentials"),
        ('uri = "s3://me:pw@bucket/a.gz"', r"a bucket and a name in it, got more at s3://bucket:"),
        ('uri = "gs://bucket/a.gz?token=x"', r"got more at gs://bucket: a user or a query\. Name"),
    ],
)  # fmt: skip
def test_settings__what_cannot_be_fetched(tmp_path, source, told):
    (tmp_path / "study.toml").write_text(f'root = "study"\n[[sources]]\n{source}\n')
    with pytest.raises(ConfigError, match=told) as raised:
        wanted(load_settings(tmp_path / "study.toml"))
    assert "pw" not in str(raised.value)
    assert "token=x" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("GSE1\nGPL96\n", r"line 2: expected an accession .*got 'GPL96'"),
        ("GES10072\nGSE3\n", r"line 1: expected an accession .*got 'GES10072'"),
        ("accession\nGSE 2\nGSE3\n", r"line 2: expected an accession .*got 'GSE 2'"),
        ("my series\nof lung\nGSE3\n", r"line 2: expected an accession .*got 'of lung'"),
        ("accession\n", r"expected accessions such as GSE10072, got none"),
    ],
)
def test_settings__a_file_of_accessions_with_a_wrong_line(tmp_path, text, told):
    (tmp_path / "list.txt").write_text(text)
    (tmp_path / "study.toml").write_text('root = "study"\n[[sources]]\ngeo = "list.txt"\n')
    with pytest.raises(ConfigError, match=rf"list.txt.*{told}"):
        wanted(load_settings(tmp_path / "study.toml"))
