"""`dglzarr query`: every question, every format, and what is refused."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.query.written import aligned, write_table

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
    assert frame["gene"].tolist() == ask.latent(1).top(4)["gene"].values.tolist()
    frame = frame_of(query("--neighbours", "SIM5", "--top", 4)[1])
    np.testing.assert_allclose(frame["r"], ask.neighbours("SIM5", 4)["r"], atol=1e-5)


def test_by__groups_and_genes(query, ask):
    sizes = frame_of(query("--by", "tissue")[1])
    assert (list(sizes.columns), sizes["n"].sum()) == (["tissue", "n"], 120)
    frame = frame_of(query("--by", "tissue", "--gene", "SIM5")[1])
    told = ask.by("tissue").gene("SIM5").squeeze("gene")
    assert frame["tissue"].tolist() == told["group"].values.tolist()
    np.testing.assert_allclose(frame["median"], told["median"], rtol=1e-5)


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
        (("--latent", "1", "--sample", "x"), r"--sample: expected without --latent"),
        (("--latent", "1", "--series", "GSE1"), r"--series: expected without --latent"),
        (("--neighbours", "SIM5", "--label", "a=b"), r"--label: expected without --neighbours"),
        (("--by", "tisue"), r"did you mean 'tissue'"),
        (("--by", "tissue", "--series", "GSE900003"), r"--by: expected without other samples"),
        (("--label", "tissue"), r"--label: expected NAME=VALUE, got 'tissue'"),
        (("--label", "tissue=brain"), r"tissue: expected a value that a sample has, got 'brain'"),
        (("--sample", "nobody"), r"sample: expected samples of the store, got \['nobody'\]"),
        (("--columns", "gene,scor"), r"--columns: .* got 'scor' \(did you mean 'score'\?\)"),
        (("--format", "xls"), r"--format: expected one of table, tsv, .* got 'xls'"),
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
    lines = aligned(FRAME, 28)
    assert max(map(len, lines[:-1])) <= 28
    assert lines[-1] == "Not shown: rank, note. Choose with --columns, or --format tsv."
    assert "\x1b" not in "".join(lines)
    assert len(aligned(FRAME)) == 3
    assert not [line for line in aligned(FRAME) if "nan" in line]


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
