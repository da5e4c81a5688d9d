"""`dglzarr query`: every question, every format, and what is refused."""

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.errors import ConfigError
from dglzarr.query.picture import written
from dglzarr.query.why import why
from dglzarr.query.written import aligned, write_table
from dglzarr.storage.schemas import EXPRESSION
from tests.builders import write_matrix

N_KEPT = 118
PROGRAM = Path(sys.executable).with_name("dglzarr")


@pytest.fixture(scope="module")
def ask(example_study):
    return dglzarr.open_study(example_study).dgl


@pytest.fixture
def query(example_study, capsys):
    """Status, printed table and complaint of one question."""

    def call(*words, place=example_study):
        status = guarded(lambda: app(["query", place, *map(str, words)], standalone_mode=False))
        out, err = capsys.readouterr()
        return status, out, err

    return call


def frame_of(text, **options):
    options = {"sep": "\t", "keep_default_na": False, **options}
    return pd.read_csv(io.StringIO(text), **options)


# ---------------------------------------------------------------- pictures


def test_picture__has_a_box_for_each_group_and_its_name(query, ask, tmp_path):
    place = tmp_path / "a.svg"
    status, out, err = query("--gene", "sim5", "--by", "tissue", "--output", place)
    assert (status, out) == (0, f"Written: {place}\n")
    assert err.startswith("2 near-duplicates are left out; ")
    told = set(re.findall(r">([^<>\n]+)</text>", place.read_text(encoding="utf-8")))
    sizes = ask.by("tissue").sizes()
    groups = {f"{name} ({n})" for name, n in sizes.to_series().items()}
    assert groups | {"SIM5 (200005_at)", "tissue"} <= told
    query("--gene", "sim5", "--by", "tissue", "--output", tmp_path / "b.svg")
    assert (tmp_path / "b.svg").read_bytes() == place.read_bytes()


def test_picture__of_the_largest_groups_tells_how_many_are_left_out(query, tmp_path):
    words = ("--gene", "sim5", "--gene", "sim7", "--by", "series", "--top", 3)
    assert query(*words, "--output", tmp_path / "a.svg")[0] == 0
    assert re.search(r"; \d+ smaller groups are not drawn", (tmp_path / "a.svg").read_text("utf-8"))


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_picture__formats(form, start, query, tmp_path):
    query("--gene", "sim5", "--by", "tissue", "--format", form, "--output", tmp_path / "a")
    assert (tmp_path / "a").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gene", "sim5", "--output", "{}/a.png"], "--gene and --by for a picture"),
        (["--by", "tissue", "--output", "{}/a.png"], "--gene and --by for a picture"),
        (["--gene", "sim5", "--by", "tissue", "--format", "png"], "Give --output FILE"),
        (
            ["--gene", "sim5", "--by", "tissue", "--columns", "n", "--output", "{}/a.png"],
            "--columns: expected a table, got a picture",
        ),
        (["--gene", "nosuch", "--by", "tissue", "--output", "{}/a.png"], "got 'nosuch'"),
    ],
)
def test_picture__what_is_none_is_refused_and_nothing_written(words, told, query, tmp_path):
    status, out, complaint = query(*(word.format(tmp_path) for word in words))
    assert (status, out) == (2, "")
    assert told in complaint
    assert list(tmp_path.iterdir()) == []


def test_picture__of_names_that_cannot_be_printed_is_xml(rng):
    names = np.array([["li\x01ver"], ["\x1b[2J\ufffe"]], object)
    ds = xr.Dataset({"expression": (("sample", "gene"), rng.normal(size=(2, 1)))})
    ds = ds.assign_coords(
        sample=["x", "y"],
        gene=["g\x02"],
        label=["a\x03b"],
        sample_label=(("sample", "label"), names),
    )
    found = ET.fromstring(written(ds.dgl.by("a\x03b").plot("g\x02"), "svg"))  # noqa: S314  (ours)
    told = {part.text for part in found.iter() if part.text}
    assert {r"li\x01ver (1)", r"\x1b[2J\ufffe (1)", r"g\x02", r"a\x03b"} <= told


def test_by__a_label_that_all_lack_is_refused_and_nothing_written(query, tmp_path):
    values = np.zeros((6, 2), np.float32)
    cells = [["", "x"]] * 6
    uri = write_matrix(
        tmp_path / "e.zarr", EXPRESSION, values, tissues=cells, called=["none", "all"]
    )
    for more in ([], ["--gene", "001_at"], ["--gene", "001_at", "--output", tmp_path / "a.svg"]):
        status, out, complaint = query("--by", "none", *more, place=uri)
        assert (status, out) == (2, "")
        assert "by: expected a label that some sample has (all), got 'none', which" in complaint
    assert not (tmp_path / "a.svg").exists()


def test_plot__of_too_many_genes_is_refused(ask):
    with pytest.raises(ConfigError, match="at most 12 genes, got 13"):
        ask.by("tissue").plot(*ask.names.labels[:13])


def test_plot__of_missing_values_and_of_glyphs_that_no_font_has(rng):
    values = rng.normal(size=(6, 1)).astype("f4")
    values[:3] = np.nan
    ds = xr.Dataset({"expression": (("sample", "gene"), values)})
    ds = ds.assign_coords(
        sample=[f"s{i}" for i in range(6)], gene=["<script>"], label=["where"],
        sample_label=(("sample", "label"), np.array([*"aaa\U0001f600b", ""], object)[:, None]),
    )  # fmt: skip
    ds["sample_label"][:3] = "$a^"
    groups = ds.dgl.by("where")
    assert groups.without() == "1 of 6 samples have no 'where' and are left out."
    text = written(groups.plot("<script>"), "svg").decode()
    assert "$a^ (0)" in text
    assert "&lt;script&gt;" in text


def test_by__says_who_is_left_out_and_what_more_have(rng):
    labels = np.array([["a", "b"], ["", "c"], ["", "c"]], object)
    ds = xr.Dataset({"expression": (("sample", "gene"), rng.normal(size=(3, 1)))})
    ds = ds.assign_coords(
        sample=list("xyz"), gene=["g"], label=["few", "all"],
        sample_label=(("sample", "label"), labels),
    )  # fmt: skip
    told = "2 of 3 samples have no 'few' and are left out. More samples have 'all' (3)."
    assert ds.dgl.by("few").without() == told
    assert ds.dgl.by("all").without() == ""


# ---------------------------------------------------------------- why


def test_why__of_a_gene_on_the_panel_and_of_one_that_is_not(query, ask):
    best, last = (ask.names.labels[i] for i in (rank_of(ask).argmin(), rank_of(ask).argmax()))
    status, out, complaint = query("--why", best, "--why", last)
    lines = out.splitlines()
    assert (status, complaint) == (0, "")
    assert re.match(rf".*{best}\)?: rank 1 of 154, on the mined panel of 12", lines[0])
    assert re.search(r"is gene 1: [\d.]+ % of what its genes would cost, each left", lines[1])
    (second,) = [i for i, line in enumerate(lines) if "rank 154 of 154, not on" in line]
    assert "The gene of the panel most like it is " in lines[second + 1]
    assert sum(line.startswith("  Of the latent units it moves most") for line in lines) == 2


def test_why__of_a_latent_layer_as_wide_as_the_genes_r_says_nothing(ask):
    class Maker:
        def order(self, _):
            pass

        def why(self, *_):
            return []

    places = np.flatnonzero(np.isfinite(ask.facts(np.arange(154))["reconstruction_pcc"]))
    for n, is_copied in ((4, True), (5, False)):
        lines = why(ask.facts(places[:n]), np.array([0]), Maker(), root="x")
        assert ("which says nothing: its latent layer is as wide" in lines[-1]) == is_copied


def rank_of(ask):
    return ask.facts(np.arange(len(ask.names.labels)))["rank"].values


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--why", "nosuch"], "got 'nosuch'"),
        (["--why", "sim5", "--by", "tissue"], "--why: expected no other question"),
        (["--why", "sim5", "--output", "a.txt"], "--why: expected no --format, --columns or"),
        (["--why", "sim5", "--format", "json"], "--why: expected no --format"),
    ],
)
def test_why__what_cannot_be_asked_is_refused(words, told, query):
    status, out, complaint = query(*words)
    assert (status, out) == (2, "")
    assert told in complaint


def test_why__of_a_study_without_a_panel_or_of_a_store(query, example_study, tmp_path):
    assert "folder of a study for --why" in query("--why", "x", place=f"{example_study}#scores")[2]
    shutil.copytree(example_study, tmp_path / "some")
    shutil.rmtree(tmp_path / "some" / "landmarks.zarr")
    status, _, complaint = query("--why", "sim5", place=str(tmp_path / "some"))
    assert status == 2
    assert "expected a study with a mined panel, got none. Run 'dglzarr mine'." in complaint


# ---------------------------------------------------------------- questions


def test_top__is_so_many_lines_of_genes_by_rank(query):
    status, out, _ = query("--top", 10)
    assert status == 0
    assert frame_of(out)["rank"].tolist() == list(range(1, 11))
    assert len(frame_of(query()[1])) == 20


def test_gene__tells_rank_panels_and_units(query, ask):
    frame = frame_of(query("--gene", "sim5", "--gene", "sim7")[1])
    assert frame["gene_symbol"].tolist() == ["SIM5", "SIM7"]
    best = int(np.abs(ask.gene("SIM5")["latent_score"].values[:, 0]).argmax())
    assert frame["latent_units"][0].startswith(f"{best}: ")
    assert set(frame["panels"][0].split("; ")) <= {"", *ask.gene("SIM5")["panel"].values}


def test_latent_and_neighbours__best_first(query, ask):
    frame = frame_of(query("--latent", 1, "--top", 4)[1])
    best = ask.latent(1).top(4)
    assert frame["gene"].tolist() == best["gene"].values.tolist()
    assert (-frame["latent_score"]).is_monotonic_increasing
    assert frame["rank"].tolist() == ask.gene(*frame["gene"])["rank"].values.tolist()
    frame = frame_of(query("--neighbours", "SIM5", "--top", 4)[1])
    np.testing.assert_allclose(frame["r"], ask.neighbours("SIM5", 4)["r"], atol=1e-5)


def test_by__groups_and_genes(query, ask):
    sizes = frame_of(query("--by", "tissue")[1])
    assert (list(sizes.columns), sizes["n"].sum()) == (["tissue", "n"], N_KEPT)
    frame = frame_of(query("--by", "tissue", "--gene", "SIM5")[1])
    told = ask.by("tissue").gene("SIM5").squeeze("gene")
    assert frame["tissue"].tolist() == told["group"].values.tolist()
    np.testing.assert_allclose(frame["median"], told["median"], rtol=1e-5)


def test_by__counts_near_duplicates_where_told_and_says_so_where_not(query):
    _, _, told = query("--by", "tissue")
    n, remedy = re.match(r"(\d+) near-duplicates are left out; (.*) counts them", told).groups()
    _, out, told = query("--by", "tissue", *remedy.split())
    assert (frame_of(out)["n"].sum(), told) == (N_KEPT + int(n), "")
    _, out, told = query("--by", "duplicate_of")
    assert (frame_of(out)["n"].sum(), "near-dup" in told) == (120 - N_KEPT, False)


@pytest.mark.parametrize("more", [(), ("--label", "keep=True")])
def test_by__of_some_samples_alone(more, query, ask, tmp_path):
    kept = ask.samples(keep=True)
    words = ("--by", "tissue", *more)
    frame = frame_of(query(*words)[1])
    expected = kept["tissue"].to_series().value_counts().sort_index()
    assert frame["n"].sum() == kept.sizes["sample"] == N_KEPT
    assert dict(frame.to_numpy().tolist()) == expected.to_dict()
    frame = frame_of(query(*words, "--gene", "SIM5")[1])
    values = ask.expression("SIM5").sel(sample=kept["sample"].values).values[:, 0]
    mean = pd.Series(values.astype(float)).groupby(kept["tissue"].values).mean()
    np.testing.assert_allclose(frame["mean"], mean.loc[frame["tissue"]], rtol=1e-5)
    place = tmp_path / "a.svg"
    query(*words, "--gene", "SIM5", "--output", place)
    told = re.findall(r">([^<>\n]+) \((\d+)\)</text>", place.read_text(encoding="utf-8"))
    assert {name: int(n) for name, n in told if n.isdecimal() and name != "SIM5"} == dict(expected)
    one, other = kept["sample"].values[:2]
    frame = frame_of(query("--by", "series", "--sample", one, "--sample", other)[1])
    assert frame["n"].sum() == 2


def test_by__top_is_the_largest_groups_as_in_a_picture(query, tmp_path):
    tissues = [*"aabbbccccd"]
    values = np.arange(20, dtype=np.float32).reshape(10, 2)
    uri = write_matrix(tmp_path / "e.zarr", EXPRESSION, values, tissues=tissues)
    for more in ([], ["--gene", "001_at"]):
        _, out, note = query("--by", "tissue", "--top", 2, *more, place=uri)
        assert frame_of(out)["tissue"].tolist() == ["b", "c"]
        assert note == "2 smaller groups are left out.\n"
    more = ["--gene", "001_at", "--output", tmp_path / "a.svg"]
    query("--by", "tissue", "--top", 2, *more, place=uri)
    drawn = re.findall(r">([a-d] \(\d\))</text>", (tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert sorted(drawn) == ["b (3)", "c (4)"]


def test_columns__with_a_comma_are_named_alone_or_in_quotes(query, tmp_path):
    values = np.zeros((2, 2), np.float32)
    uri = write_matrix(
        tmp_path / "e.zarr", EXPRESSION, values, tissues=["7", "8"], called=["age, years"]
    )
    for columns in ("age, years", '"age, years"'):
        out = query("--samples", "--columns", columns, place=uri)[1]
        assert frame_of(out)["age, years"].tolist() == [7, 8]
    out = query("--samples", "--columns", 'sample,"age, years" , series', place=uri)[1]
    assert [*frame_of(out)] == ["sample", "age, years", "series"]


def test_samples__of_series_and_labels_with_genes(query, ask):
    frame = frame_of(query("--series", "GSE900003", "--label", "split=train")[1])
    assert set(frame["series"]) == {"GSE900003"}
    frame = frame_of(query("--samples", "--series", "GSE900003", "--gene", "SIM5")[1])
    expected = ask.expression("SIM5").sel(sample=frame["sample"].tolist()).values[:, 0]
    np.testing.assert_allclose(frame["SIM5"], expected, rtol=1e-5)
    one = frame["sample"][2]
    assert frame_of(query("--sample", one)[1])["sample"].tolist() == [one]


def test_store__is_asked_as_before_and_for_samples(query, example_study):
    place = f"{example_study}#normalized"
    assert frame_of(query("--gene", "sim5", place=place)[1]).shape == (120, 2)
    assert len(frame_of(query("--by", "tissue", place=place)[1])) == 4
    status, _, complaint = query("--latent", 1, place=place)
    assert (status, "expected the folder of a study" in complaint) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gene", "SIM"), r"gene: expected a gene .* \(did you mean 'SIM\d' or 'SIM"),
        (("--latent", "1", "--by", "tissue"), r"--latent: expected one question, got --by"),
        (("--latent", "1", "--gene", "SIM5"), r"--gene: expected without --latent"),
        (("--gene", "SIM5", "--top", "3"), r"--top: expected without --gene, which lists all\."),
        (("--samples", "--top", "3"), r"--top: expected without --samples, which lists all"),
        (("--latent", "1", "--sample", "x"), r"--sample: expected without --latent"),
        (("--latent", "1", "--series", "GSE1"), r"--series: expected without --latent"),
        (("--neighbours", "SIM5", "--label", "a=b"), r"--label: expected without --neighbours"),
        (("--by", "tisue"), r"did you mean 'tissue'"),
        (("--by", "duplicate_of", "--label", "keep=True"), r"'dup.*', which all of these lack"),
        (("--label", "tissue"), r"--label: expected NAME=VALUE, got 'tissue'"),
        (("--label", "tissue=brain"), r"tissue: expected a value that a sample has, got 'brain'"),
        (("--sample", "nobody"), r"sample: expected samples of the store, got \['nobody'\]"),
        (("--columns", "gene,scor"), r"--columns: .* got 'scor' \(did you mean 'score'\?\)"),
        (("--format", "xls"), r"--format: expected one of table, tsv, .* got 'xls'"),
        (("--output", "t.xlsx"), r"--output: expected a file of table, .* pdf, got '\.xlsx'"),
        (("--aliases", "nosuch.txt"), r"nosuch\.txt"),
        (("--gene", "'\"<b>\n\x1b[2J"), r"gene: .*<b>\\n\\x1b"),
    ],
)
def test_query__refuses_in_one_line(words, message, query):
    status, out, complaint = query(*words)
    assert status in (1, 2)
    assert re.search(message, complaint), complaint
    assert (out, complaint.count("\n")) == ("", 1)


# ---------------------------------------------------------------- formats


FRAME = pd.DataFrame(
    {
        "gene": ["TP53", "a\tb\n\x1b[2J"],
        "score": [0.123456789, np.nan],
        "rank": np.array([1, 2], dtype=np.int32),
        "note": ["x" * 80, '"'],
    }
)


@pytest.mark.parametrize("form", ["tsv", "csv"])
def test_write_table__text_is_read_back(form):
    found = pd.read_csv(
        io.BytesIO(write_table(FRAME, form)), sep="\t" if form == "tsv" else ",", quotechar='"'
    )
    assert found["gene"].tolist() == FRAME["gene"].tolist()
    assert (found["note"].tolist(), found["rank"].tolist()) == (FRAME["note"].tolist(), [1, 2])
    np.testing.assert_allclose(found["score"], FRAME["score"], rtol=1e-5)


@pytest.mark.parametrize("form", ["tsv", "csv"])
def test_write_table__no_cell_is_a_formula_of_a_spreadsheet(form):
    frame = pd.DataFrame({"=a": ["=1+1", "-5", ""], "n": np.array([-1, 0, 1], "f4")})
    separator = "\t" if form == "tsv" else ","
    expected = "'=a,n\n'=1+1,-1\n-5,0\n,1\n".replace(",", separator)
    assert write_table(frame, form).decode() == expected
    assert json.loads(write_table(frame, "json"))[0] == {"=a": "=1+1", "n": -1.0}


def test_write_table__json_has_null_for_missing():
    found = json.loads(write_table(FRAME, "json"))
    assert found[0] == {"gene": "TP53", "score": 0.123456789, "rank": 1, "note": "x" * 80}
    assert found[1]["score"] is None


def test_write_table__parquet_keeps_types():
    pytest.importorskip("pyarrow")
    found = pd.read_parquet(io.BytesIO(write_table(FRAME, "parquet")))
    assert found["rank"].dtype == np.int32
    assert found["gene"].tolist() == FRAME["gene"].tolist()


def test_aligned__is_cut_to_a_width_and_says_so():
    lines = aligned(pd.concat([FRAME] * 2), 28)
    assert max(map(len, lines[:-1])) <= 28
    assert lines[-1] == "Not shown: rank, note. Choose with --columns, or --format tsv."
    assert "\x1b" not in "".join(lines)
    assert len(aligned(FRAME)) == 3
    assert not [line for line in aligned(FRAME) if "nan" in line]


def test_aligned__few_rows_that_do_not_fit_stand_side_by_side():
    lines = aligned(FRAME, 28)
    assert [line.split()[0] for line in lines] == list(FRAME.columns)
    assert max(map(len, lines)) <= 28
    assert aligned(FRAME, 200) == aligned(FRAME)


def test_output__is_a_file_by_its_name(query, tmp_path):
    status, out, _ = query("--top", 3, "--output", tmp_path / "a.csv")
    assert (status, out) == (0, f"Written: {tmp_path / 'a.csv'}, 3 rows\n")
    assert len(pd.read_csv(tmp_path / "a.csv")) == 3
    query("--top", 3, "--output", tmp_path / "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())) == 3
    status, _, complaint = query("--output", "/proc/nosuch/a.tsv")
    assert status == 1
    assert "--output" in complaint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json"]


def test_parquet__without_pyarrow_says_what_to_install(query, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    status, _, complaint = query("--format", "parquet")
    assert (status, "pip install 'dglzarr[parquet]'" in complaint) == (2, True)


@pytest.mark.slow
def test_terminal__a_table_fits_and_is_paged(example_study):
    """A real terminal of 60 columns and 12 lines; its pager is cat."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "COLUMNS": "60", "LINES": "12", "PAGER": "cat", "TERM": "xterm"}
    words = [PROGRAM, "query", example_study, "--top", "30"]
    with subprocess.Popen(words, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        read = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            read += piece
    os.close(leader)
    lines = read.decode().replace("\r", "").splitlines()
    assert process.returncode == 0, lines
    assert lines[0].split()[:3] == ["gene", "gene_symbol", "gene_id"]
    assert len(lines) == 32
    assert max(map(len, lines[:-1])) <= 60
    assert lines[-1].startswith("Not shown: ")
