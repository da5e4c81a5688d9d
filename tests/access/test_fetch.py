"""Fetching from a server of this machine that misbehaves: real sockets and files."""

import gzip
import hashlib
import os
import re
import time
from pathlib import Path

import pytest

from benchmarks.mirror import series_folder, serving
from dglzarr.access.content import Checked
from dglzarr.access.fetch import Fetcher
from dglzarr.access.lock import read_lock
from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.studies.fetch import fetch, get_missing
from dglzarr.studies.plan import Plan
from tests.access.series import COUNTS, empty_matrix, matrix, ncbi_counts
from tests.access.served import address_of, at, in_cache, path_of

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ('"v8"', "v8/rna-seq/GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_tpm.gct.gz"),
        ('"v11"', "v11/rna-seq/GTEx_Analysis_2025-08-22_v11_RNASeQCv2.4.3_gene_tpm.gct.gz"),
        ('"v10"\ntissue = "lung"', "v10/rna-seq/tpms-by-tissue/gene_tpm_v10_lung.gct.gz"),
        (
            '"v10"\ntissue = "lung"\ngtex_values = "reads"',
            "v10/rna-seq/counts-by-tissue/gene_reads_v10_lung.gct.gz",
        ),
    ],
)
def test_fetch__gtex_has_another_name(place, monkeypatch, lines, file):
    with serving(place / "served") as mirror:
        monkeypatch.setenv("DGLZARR_GTEX_URL", mirror.address)
        (place / "study.toml").write_text(f'root = "s"\n[[sources]]\ngtex = {lines}\n')
        (outcome,) = fetch(load_settings(place / "study.toml"))
    assert f"/bulk-gex/{file}, got none (status 404). GTEx may have" in outcome.told
    assert outcome.told.endswith("name its address as uri, with unit and sample_sheet.")


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


def test_fetch__rna_seq_without_counts_of_some_samples_or_of_others(place, asked):
    empty_matrix(place / "served", "GSE1", ["GSM1", "GSM2", "GSM3"])
    ncbi_counts(place / "served", "GSE1", ["GSM3", "GSM1"])
    empty_matrix(place / "served", "GSE2", ["GSM4"])
    ncbi_counts(place / "served", "GSE2", ["GSM4", "GSM5"])
    done = asked(["GSE1", "GSE2"])
    assert done["GSE1"].told == "2 of 3 samples: NCBI has no counts of GSM2"
    assert done["GSE1"].state == "fetched"
    assert re.match(
        r"GSE2: .*samples that its series matrix describes, got GSM5\.", done["GSE2"].told
    )
    assert {entry.source for entry in read_lock(place / "sources.lock")} == {"geo:GSE1"}


def test_fetch__one_series_of_two_species(place, asked):
    path = matrix(place / "served", "GSE1")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    text = "".join(
        line.replace("Homo sapiens", "Mus musculus", 3) if "organism" in line else line
        for line in lines
    )
    path.write_bytes(gzip.compress(text.encode()))
    told = asked("GSE1")["GSE1"].told
    assert re.match(r"GSE1: expected samples of one species, got Mus musculus and Homo sap", told)
    assert "Choose at its source by only_samples, only_matching (of a title" in told
    assert asked("GSE1", extra='only_matching = "lung"')["GSE1"].state == "kept"


def test_fetch__series_of_two_species_do_not_say_which_the_others_are(place, asked):
    for accession in ("GSE1", "GSE2"):
        matrix(place / "served", accession, organism='Homo sapiens"\t"Mus musculus')
    matrix(place / "served", "GSE3")
    done = asked(["GSE1", "GSE2", "GSE3"])
    assert [one.state for one in done.values()] == ["refused", "refused", "fetched"]
    assert "GSE2: expected samples of one species" in done["GSE2"].told


def test_fetch__counts_of_one_species_of_a_series_of_two(place, asked):
    path = empty_matrix(place / "served", "GSE1", ["GSM1", "GSM2"])
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("Homo sapiens", "Mus musculus", 1).encode()))
    ncbi_counts(place / "served", "GSE1", ["GSM2"])
    matrix(place / "served", "GSE2")
    matrix(place / "served", "GSE3", organism="Mus musculus")
    done = asked(["GSE1", "GSE2", "GSE3"])
    assert done["GSE1"].told == "1 of 2 samples: NCBI has no counts of GSM1"
    assert [one.state for one in done.values()] == ["fetched", "fetched", "refused"]


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


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("cut", r"expected whole gzip, got one that is cut off"),
        ("long", None),  # nobody reads on behind what was said: the file is whole
        ("html", r"expected data, got a web page or a message\. Look at the address"),
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
    told = asked(["GSE1", "GSE2"], extra='platform = "gpl96"')
    assert (told["GSE1"].state, told["GSE2"].state) == ("fetched", "refused")
    assert "expected platform GPL96, got GPL570. Remove it, or correct" in told["GSE2"].told
    matrix(place / "served", "GSE5")
    matrix(place / "served", "GSE6", organism="Mus musculus")
    told = asked(["GSE1", "GSE5", "GSE6"])
    assert told["GSE6"].told == (
        "GSE6: expected Homo sapiens as of the other series, got Mus musculus. Remove it, or make "
        "it a study of its own."
    )
    told = asked(["GSE6"])
    assert told["GSE6"].state == "kept", "mice are as welcome, not both"
    told = asked(["GSE1", "GSE5", "GSE6"])
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
