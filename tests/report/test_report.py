"""The report says what the stores say, escapes what it shows, and is the same every time."""

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dglzarr.errors import StoreError
from dglzarr.report.page import write_report
from dglzarr.report.panels import panel_rows
from dglzarr.report.pictures import panel_pictures
from dglzarr.report.text import list_lines
from dglzarr.storage.store import (
    open_store,
    read_attributes,
)
from tests.builders import set_attributes, text
from tests.report.pages import (
    ERRORS,
    EVIL,
    GENES,
    N_LANDMARKS,
    PANELS,
    SYMBOLS,
    Page,
    evaluation_arrays,
)


def test_write_report__headline(page):
    counts = {name: page.by_id[name] for name in ("n-samples", "n-genes", "n-landmarks")}
    assert counts == {"n-samples": "20", "n-genes": "60", "n-landmarks": "8"}
    assert page.by_id["n-distinct-genes"] == "6"
    assert page.by_id["max-delta-error"].strip(".\n") == "2.5e-06"


@pytest.mark.parametrize(
    ("cohort", "start"), [(0, "Panels on held-out"), (1, "Panels on cohort gtex")]
)
def test_write_report__panel_table_equals_stores(page, cohort, start):
    names, found = evaluation_arrays()
    mae, pcc, null = (found[name][:, 0, cohort] for name in ("mae", "pcc", "null_fraction"))
    rows = {row[0]: row[1:] for row in page.table(start)[1:]}
    assert list(rows) == [
        "predict the mean", "mined", "l1000", "random, mean of 4", "random, best (random-0)",
        "random, worst (random-3)",
    ]  # fmt: skip
    random_mean = mae[2:6].mean(axis=0)
    known = np.isfinite(random_mean)
    expected = {
        "predict the mean": (6, "-", "-"),
        "mined": (0, "8", "02"[cohort]),
        "l1000": (1, "7", "3"),
        "random, best (random-0)": (2, "7", "0"),
        "random, worst (random-3)": (5, "7", "02"[cohort]),
    }
    for label, (i, n_genes, n_missing) in expected.items():
        below = (mae[i, known] < random_mean[known]).mean()
        assert rows[label] == [
            f"{np.nanmean(mae[i].astype('f8')):.4f}",
            ("0.1000 to 0.2000", "0.3000 to 0.3000")[cohort],
            *beside_mined(names[i], cohort),
            f"{np.nanmean(mae[i].astype('f8') / 2):.4f}",
            "-" if names[i] == "mean" else f"{np.nanmedian(pcc[i].astype('f8')):.4f}",
            f"{below:.1%}",
            f"{(null[i, 20:] < 0.01).mean():.1%}" if i < 2 else "-",
            str((null[i, 20:] >= 0.01).sum()) if i < 2 else "-",
            n_genes,
            n_missing,
        ]
    assert rows["random, mean of 4"][0] == f"{np.nanmean(mae[2:6].astype('f8')):.4f}"


def beside_mined(name, cohort):
    """What the page says of a panel beside the mined one; only the cohort has three series."""
    if name == "mined":
        return ["-", "-"]
    difference = ERRORS[[*PANELS, "mean"].index(name)] - ERRORS[0]
    words = {"l1000": "better", "random-0": "better"}.get(name, "worse")
    return [f"{difference:.4f}", words if cohort else "cannot be told: 1 held-out series"]


def test_write_report__verdict(written):
    words = re.sub(r"<[^>]*>", "", written.read_text())
    assert "panels drawn at random cannot be told: 1 held-out series." in words
    assert "lower than that of 3 of 4 random panels: place 2 of 5." in words
    assert re.search(r"list l1000 has 0\.\d{4}: beside the mined panel cannot be told: 1", words)
    assert re.search(r"list l1000 has 0\.\d{4}, which is better than the mined", words)
    assert "of fewer than 3 series, too few to tell better from worse" in words


def test_write_report__top_genes_equal_store(page, written, study):
    ds = open_store(study["stores"]["landmarks"])
    rows = page.table("All 8 genes of the panel")[1:]
    best = np.argsort(ds["rank"].values)[:N_LANDMARKS]
    assert [row[0] for row in rows] == [str(i) for i in range(1, N_LANDMARKS + 1)]
    marks = [" (forced)"] * 2 + [""] * 6
    assert [row[1] for row in rows] == [GENES[i] + m for i, m in zip(best, marks, strict=True)]
    assert [row[2] for row in rows] == [SYMBOLS[i] or "-" for i in best]
    assert [row[4] for row in rows] == [f"{ds['score'].values[i]:.4g}" for i in best]
    assert [row[5] for row in rows] == [f"{0.4 / n:.2%}" for n in range(1, N_LANDMARKS + 1)]
    total = sum(0.4 / n for n in range(1, 9))
    assert f"the whole panel took off {total:.1%}" in written.read_text()


def test_write_report__sources_and_series(page):
    [row] = page.table("Sources and")[1:]
    assert row == [
        "raw", "20", "raw → log2(x + 1)", "0.50", "123.25", "9000.00", "65001.00", "7", "87.5%",
        "9", "60", "train", f"{EVIL}, GSE1, GSE2", "series-matrix",
    ]  # fmt: skip
    series = page.table("Series and their use")[1:]
    assert series == [
        ["GSE1", "12", "0", "0"], [EVIL, "0", "0", "6"], ["GSE2", "0", "2", "0"],
    ]  # fmt: skip
    assert "joined matrix: 19,000;" in page.by_id["missing"]
    assert page.by_id["duplicates"].startswith("Near-duplicates: 4 of 20 samples")
    assert "distance of 1.25" in page.by_id["duplicates"]


def test_write_report__tells_what_was_left_out_and_not_found(written):
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", written.read_text()))
    assert "raw: 5 rows left out: counters (&#39;N_multi&#39;, ...)" in words
    assert "raw: &lt;b&gt;a&lt;/b&gt; note" in words
    assert "List l1000: 3 of 10 entries were not found: A1, 1-Mar, B2. 1 is a date" in words
    assert "select.excluded: 1 of its names no feature has: TP54." in words


def test_list_lines__nothing_where_all_was_found():
    details = {"missing": {"l1000": []}}
    ds = xr.Dataset({"panel_gene": (("panel", "position"), text(["a"]).reshape(1, 1))})
    ds = ds.assign_coords(panel=text(["l1000"])).assign_attrs(details=details)
    assert list_lines(ds) == []
    assert list_lines(ds.assign_attrs(details={})) == []


def test_write_report__lineage(page, study):
    rows = {row[1]: row for row in page.table("Stores")[1:]}
    assert list(rows) == [
        "expression", "samples", "scores", "landmarks", "evaluation", "model", "raw",
    ]  # fmt: skip
    for schema in ("samples", "scores", "landmarks", "evaluation"):
        attributes = read_attributes(study["stores"][schema])
        assert rows[schema][-1] == attributes["store_id"]
        assert rows[schema][4:6] == [attributes["created"], attributes["dglzarr_version"]]
    assert rows["expression"][3] == "20 sample, 60 gene, 1 label"


def test_write_report__everything_escaped(written, page):
    html = written.read_text()
    assert page.tags.count("script") == 4  # the data, the two libraries, the page's own
    assert "b" in page.tags
    assert "<b>made</b>" not in html
    assert "&lt;script&gt;alert" in html
    assert "<title>Study &lt;1&gt;</title>" in html
    assert EVIL not in html


def test_write_report__self_contained_with_every_figure(written, page):
    html = written.read_text()
    assert not re.search(r"src=\"(?!data:image/svg\+xml;base64,)", html)
    links = set(re.findall(r"href=\"([^#\"][^\"]*)", html))
    links.remove("https://doi.org/10.1186/s12859-021-03972-5")
    links.remove("data:,")  # no icon is asked for
    beside = {"panels.tsv", "landmarks.tsv", "sorted_genes.csv", "overlaps.tsv", "figures/"}
    assert {link for link in links if not link.startswith("report_data/")} == beside
    assert all((written.parent / name).exists() for name in links)
    assert "@import" not in html
    assert len(page.images) == 10
    assert all(len(image["alt"]) > 20 for image in page.images)
    for image in page.images:
        assert "<svg" in base64.b64decode(image["src"].partition(",")[2]).decode()
    pictures = [base64.b64decode(i["src"].partition(",")[2]).decode() for i in page.images]
    for words in (
        "lower is better",
        "error with mined",
        "DeepLIFT score",
        "mined panel",
        "rank",
        "epoch 3",
    ):
        assert any(words in picture for picture in pictures), words


def test_write_report__same_bytes_again(written, study, tmp_path):
    again = tmp_path / "report.html"
    write_report(str(again), title="Study <1>", **study)
    names = ["figure-3-panels.svg", "figure-3-panels.png", "figure-4-1-cohort.svg"]
    for name in (
        "report.html",
        "panels.tsv",
        "landmarks.tsv",
        "sorted_genes.csv",
        "overlaps.tsv",
        *(f"figures/{figure}" for figure in names),
    ):
        assert (tmp_path / name).read_bytes() == (written.parent / name).read_bytes()


def test_write_report__absent_details_are_dashes(study, tmp_path):
    stores = {}
    for name in ("samples", "scores", "landmarks"):
        stores[name] = str(tmp_path / f"{name}.zarr")
        shutil.copytree(study["stores"][name], stores[name])
        set_attributes(stores[name], details={})
    keywords = {**study, "stores": {**study["stores"], **stores}, "sources": []}
    page = Page(Path(write_report(str(tmp_path / "r.html"), **keywords)).read_text())
    assert page.by_id["n-distinct-genes"] == "-"
    assert page.by_id["max-delta-error"].strip(".\n") == "-"
    assert "distance of - of" in page.by_id["duplicates"]
    assert page.table("Sources and")[1] == [
        "raw", "20", "raw → log2(x + 1)", "-", "-", "-", "-", "-", "87.5%", "9", "-", "-", "GSE1",
        "-",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("panels", "n_pictures"),
    [([0, 1, 2, 6], 2), ([0, 2, 3, 6], 2), ([0, 6], 1), ([1, 2, 6], 0)],
    ids=["published", "random-only", "no-rival", "no-mined"],
)
def test_panel_pictures__whatever_panels_there_are(study, panels, n_pictures):
    evaluation = open_store(study["stores"]["evaluation"]).isel(panel=panels)
    rows = panel_rows(evaluation, open_store(study["stores"]["landmarks"]))
    pictures = panel_pictures(rows, evaluation)
    assert len(pictures) == n_pictures
    if n_pictures == 2:
        rival = "l1000" if 1 in panels else "random-0"
        assert rival in pictures[1].alt
        mae = evaluation_arrays()[1]["mae"][:, 0, 0, 20:]
        n_better = (mae[0] < mae[1 if 1 in panels else 2]).sum()
        assert f"{n_better} of 40 genes" in pictures[1].caption


def test_write_report__missing_store(study, tmp_path):
    stores = {k: v for k, v in study["stores"].items() if k != "scores"}
    with pytest.raises(ValueError, match="got no 'scores'"):
        write_report(str(tmp_path / "r.html"), **{**study, "stores": stores})
    stores["scores"] = str(tmp_path / "nothing.zarr")
    with pytest.raises(StoreError, match="no such store"):
        write_report(str(tmp_path / "r.html"), **{**study, "stores": stores})
    assert not any(tmp_path.iterdir())


def test_write_report__missing_model(study, tmp_path):
    with pytest.raises(StoreError, match=r"history.csv: cannot be read"):
        write_report(str(tmp_path / "r.html"), **{**study, "model": str(tmp_path)})
    (tmp_path / "history.csv").write_text("epoch,loss,val_loss,seconds\n1,0.5,nan,2.0\n")
    with pytest.raises(StoreError, match=r"model.json: cannot be read"):
        write_report(str(tmp_path / "r.html"), **{**study, "model": str(tmp_path)})


def test_write_report__target_cannot_be_written(study, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(str(tmp_path / "file" / "r.html"), **study)


def test_report__import_is_light():
    source = (Path(__file__).parents[2] / "dglzarr" / "report" / "__init__.py").read_text()
    assert "import " not in source.replace("imported", "")
