"""What a page embeds and what lies beside it: tables that equal the stores, whatever the names."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

import dglzarr.report
from dglzarr.report.multiqc import multiqc_files
from dglzarr.report.page import write_report
from dglzarr.report.tables import Table, for_script, write_tables
from dglzarr.storage.store import open_store
from tests.builders import set_attributes
from tests.report.pages import EVIL, GENES, N_LANDMARKS, evaluation_arrays

VENDOR = Path(dglzarr.report.__file__).parent / "vendor"
DATA = re.compile(
    r'<script type="application/json" id="data-of-pictures">(.*?)</script>', re.DOTALL
)


def embedded(page):
    """The data of a page, by the name of each table."""
    return json.loads(DATA.search(page.read_text()).group(1))


def column(table, name):
    return table["columns"][table["names"].index(name)]


def read(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_page__embeds_every_gene_as_the_stores_tell(written, study):
    table = embedded(written)["tables"]["genes"]
    landmarks = open_store(study["stores"]["landmarks"])
    order = np.argsort(landmarks["rank"].values)
    assert column(table, "gene") == [GENES[i] for i in order]
    np.testing.assert_allclose(column(table, "score"), landmarks["score"].values[order], rtol=1e-5)
    assert sum(column(table, "is_landmark")) == N_LANDMARKS
    mae = evaluation_arrays()[1]["mae"][:, 0, 0]
    for panel, name in ((0, "error_mined"), (1, "error_rival")):
        found = [np.nan if v is None else v for v in column(table, name)]
        np.testing.assert_allclose(found, mae[panel][order], rtol=1e-5)


def test_page__every_chart_names_a_table_and_columns_that_exist(written):
    data = embedded(written)
    assert {chart["kind"] for chart in data["charts"].values()} >= {
        "strip", "scatter", "bars", "histogram", "curve", "lines",
    }  # fmt: skip
    for name, chart in data["charts"].items():
        names = set(data["tables"][chart["table"]]["names"])
        own = {chart[key] for key in ("x", "label", "sublabel", "inside", "low") if key in chart}
        y = chart.get("y", [])
        assert own | set([y] if isinstance(y, str) else y) <= names, name
        assert f'data-picture="{name}"' in written.read_text()


def test_page__tables_beside_it_equal_what_it_embeds(written):
    folder = written.parent / "report_data"
    for name, table in embedded(written)["tables"].items():
        rows = read(folder / f"{name}.tsv")
        assert len(rows) == table["n"]
        assert list(rows[0]) == table["names"]
    listed = {row["file"] for row in read(folder / "index.tsv")}
    assert listed == {path.name for path in folder.iterdir()} - {"index.tsv"}


@pytest.mark.parametrize(
    "name", ["</script>", "<!--<script>", "a&b", "\u2028", '"\\', "\ud800", "\0"]
)
def test_for_script__no_name_ends_the_script(name):
    text = for_script({"name": [name]})
    assert not re.search(r"[<>&\u2028\u2029]", text)
    assert json.loads(text) == {"name": [name]}


def test_page__hostile_names_are_data_only(written):
    data = embedded(written)
    assert EVIL in json.dumps(data)
    assert EVIL not in written.read_text()


def test_page__refuses_every_request_by_its_policy(written):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', written.read_text()).group(1)
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_page__sections_in_order_and_the_absent_say_why(written):
    html = written.read_text()
    ids = re.findall(r'<section[^>]* id="([\w-]+)"', html)
    assert ids == [
        "cautions", "verdict", "data", "normalization", "duplicates-section", "training", "genes",
        "comparison", "cohorts", "groups", "enrichment", "settings", "lineage", "glossary",
        "citation",
    ]  # fmt: skip
    assert (
        re.findall(r'href="#([\w-]+)"(?: class="absent")?>', html.partition("</nav>")[0])[1:] == ids
    )
    for words in ("dglzarr compare</code> was not run", "group.label", "enrich.gene_sets"):
        assert words in html


def test_write_tables__removes_what_it_wrote_before_and_nothing_else(tmp_path):
    old, new = (Table(name, name, {"x": [1]}) for name in ("old", "new"))
    write_tables(str(tmp_path), [old], {"old_mqc.tsv": "x"})
    (tmp_path / "mine.tsv").write_text("my own")
    write_tables(str(tmp_path), [new], {})
    assert {path.name for path in tmp_path.iterdir()} == {"new.tsv", "index.tsv", "mine.tsv"}


@pytest.mark.parametrize("index", ["../mine.tsv", "/etc/passwd", "sub/x.tsv"])
def test_write_tables__an_index_names_no_other_folder(tmp_path, index):
    folder = tmp_path / "report_data"
    folder.mkdir()
    (tmp_path / "mine.tsv").write_text("my own")
    (folder / "index.tsv").write_text(f"file\twhat\n{index}\tx\n")
    write_tables(str(folder), [], {})
    assert (tmp_path / "mine.tsv").exists()


def test_vendored_libraries__are_as_published_and_licensed():
    readme = (VENDOR / "README.md").read_text()
    told = dict(
        re.findall(r"^- `([\w.]+\.js)`.*?SHA-256 `(\w{64})`", readme, re.DOTALL | re.MULTILINE)
    )
    assert set(told) == {path.name for path in VENDOR.glob("*.js")}
    for name, digest in told.items():
        content = (VENDOR / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert b"</script" not in content
        assert b"<!--" not in content
    for name in ("LICENSE.d3", "LICENSE.plot"):
        assert "Permission to use, copy, modify" in (VENDOR / name).read_text()


def mqc_header(text):
    lines = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    return yaml.safe_load("\n".join(lines))


def test_multiqc_files__header_is_yaml_and_names_are_unique(written):
    files = sorted((written.parent / "report_data").glob("*_mqc.tsv"))
    assert len(files) == 4
    for path in files:
        header = mqc_header(path.read_text())
        assert header["parent_id"] == "dglzarr"
        assert header["plot_type"] in ("table", "linegraph")
        body = [line for line in path.read_text().splitlines() if not line.startswith("# ")]
        names = [line.partition("\t")[0] for line in body]
        assert len(set(names)) == len(names) > 1


def test_multiqc_files__hostile_names_stay_in_one_line_each():
    series = Table(
        "series",
        "t",
        {
            "series": ["a\nb", "a b", "#x"],
            **{name: [1, 2, 3] for name in ("train", "validation", "test")},
        },
    )
    others = {
        "panels": (
            "panel",
            "cohort",
            "predictor",
            "mean_mae",
            "low",
            "high",
            "versus_mined",
            "median_pcc",
            "n_genes",
            "n_missing",
        ),
        "sources": (
            "source",
            "n_samples",
            "n_genes",
            "scale",
            "coverage",
            "value_median",
            "value_q99",
            "role",
        ),
        "learning": ("epoch", "training", "validation"),
    }
    tables = [series, *(Table(n, n, {c: [] for c in columns}) for n, columns in others.items())]
    body = multiqc_files(tables)["dglzarr_series_mqc.tsv"].splitlines()
    assert [line.partition("\t")[0] for line in body[-3:]] == ["a b", "a b #2", "#x"]


@pytest.mark.slow
def test_multiqc__shows_every_file(written, tmp_path):
    program = shutil.which("multiqc")
    if program is None:
        pytest.skip("MultiQC is not installed (pip: multiqc; GPL, so no dependency of ours)")
    command = [program, str(written.parent / "report_data"), "--outdir", str(tmp_path), "--no-ai"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "multiqc_report.html").read_text()
    for path in (written.parent / "report_data").glob("*_mqc.tsv"):
        assert f"{path.stem.removesuffix('_mqc')}" in page


def test_table__of_the_papers_22268_genes_takes_under_4_mb_of_the_page():
    rng = np.random.default_rng(0)
    n = 22_268
    columns = {name: [f"{200_000 + i}_s_at" for i in range(n)] for name in ("gene", "gene_symbol")}
    numbers = {f"error_{i}": rng.normal(size=n).tolist() for i in range(10)}
    assert len(for_script(Table("genes", "t", {**columns, **numbers}).embedded())) < 4e6


@pytest.mark.parametrize(
    ("stores", "words"),
    [({}, "without the normalized store"), ({"normalized": "none"}, "taken as normalized already"),
     ({"normalized": "quantile"}, "given one common distribution")],
    ids=["absent", "copied", "quantile"],
)  # fmt: skip
def test_page__tells_what_normalization_did(study, tmp_path, stores, words):
    found = dict(study["stores"])
    if stores:
        found["normalized"] = str(tmp_path / "normalized.zarr")
        shutil.copytree(study["stores"]["expression"][0], found["normalized"])
        set_attributes(found["normalized"], parameters={"method": stores["normalized"]})
    page = Path(write_report(str(tmp_path / "r.html"), **{**study, "stores": found}))
    assert words in page.read_text()
    assert ("normalization" in embedded(page)["tables"]) == bool(stores)
    if stores:
        table = read(tmp_path / "report_data" / "normalization.tsv")
        rows = open_store(found["expression"])["expression"].values
        median = [float(row["before_median"]) for row in table]
        np.testing.assert_allclose(median, np.median(rows, axis=1), rtol=1e-6)
