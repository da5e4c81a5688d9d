"""The report says what the stores say, escapes what it shows, and is the same every time."""

import base64
import csv
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dglzarr.errors import StoreError
from dglzarr.models.files import History, save_model, write_history
from dglzarr.report.page import write_report
from dglzarr.report.panels import CHANCE, PanelRow, panel_rows, shown_rows, verdict
from dglzarr.report.pictures import panel_pictures
from dglzarr.report.tables import cell
from dglzarr.report.text import list_lines
from dglzarr.storage.declare import shard_samples
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import (
    create_store,
    finish,
    open_store,
    read_attributes,
    regions,
    write_region,
)
from tests.builders import claimed, set_attributes, text

EVIL = "<script>alert('GSE666')</script>"
N_TRAIN, N_TEST, N_GENES, N_LANDMARKS = 14, 6, 60, 8
N_SAMPLES = N_TRAIN + N_TEST
GENES = [f"{i:03d}_at" for i in range(N_GENES)]
SYMBOLS = ["" if i % 7 == 3 else f"SYM{i // 2}" for i in range(N_GENES)]
N_MISSING = np.arange(N_SAMPLES, dtype="i4") * 100
# landmarks of each panel (and the baseline) that the study, and the cohort, measure
N_MEASURED = np.array([[8, 6], [7, 7], [7, 7], [7, 7], [7, 7], [7, 5], [0, 0]], "i4")
ERRORS = np.array([0.5, 0.4, 0.45, 0.55, 0.6, 0.65, 0.9])  # of the panels and the baseline
PANELS = ["mined", "l1000", "random-0", "random-1", "random-2", "random-3"]
KINDS = ["mined", "published", *["random"] * 4]


class Page(HTMLParser):
    """Tables by caption, images, ids and tag counts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.tags, self.by_id = {}, [], [], {}
        self._caption, self._rows, self._into, self._id = None, [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self._id = attrs.get("id") or (self._id if tag == "b" else None)
        if tag == "img":
            self.images.append(attrs)
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")
        if tag in ("td", "th", "caption"):
            self._into = tag
            self._caption = "" if tag == "caption" else self._caption

    def handle_endtag(self, tag):
        if tag in ("td", "th", "caption"):
            self._into = None
        if tag == "table":
            self.tables.setdefault(self._caption, self._rows)

    def handle_data(self, data):
        if self._id:
            self.by_id[self._id] = self.by_id.get(self._id, "") + data
        if self._into == "caption":
            self._caption += data
        elif self._into:
            self._rows[-1][-1] += data

    def table(self, start):
        return next(rows for caption, rows in self.tables.items() if caption.startswith(start))


def write_store(folder, schema, created, *, finished=None, details=None, inputs=(), region=None):
    """Write one finished store through the store API, its matrices random."""
    spec, uri = SPECS[schema], str(folder / f"{schema}.zarr")
    parameters = {"seed": 3, "note": f"{schema} <b>made</b>"}
    named = {f"input {number}": uri for number, uri in enumerate(inputs)}
    claim = claimed(uri, spec, inputs=named, parameters=parameters)
    n_samples = len(created["sample"]) if spec.region_arrays else 0
    length = shard_samples(n_samples) if spec.region_arrays else None
    create_store(claim, created, region_length=length)
    if spec.region_arrays:
        values = np.random.default_rng(1).normal(8, 2, (n_samples, len(created["gene"])))
        for part in regions(uri):
            write_region(
                uri, part, {"expression": values[part.rows].astype("f4"), **(region or {})}
            )
    finish(claim, arrays=finished, details=details)
    return uri


def study_coords(series):
    split = np.array([0] * (N_TRAIN - 2) + [1] * 2 + [2] * N_TEST, dtype="i1")
    return {
        "sample": text([f"GSM{i}" for i in range(N_SAMPLES)]),
        "gene": text(GENES),
        "gene_id": text([f"{i // 2}" for i in range(N_GENES)]),
        "gene_symbol": text(SYMBOLS),
        "source": text(["geo"] * N_SAMPLES),
        "series": text(series),
        "platform": text([""] * N_SAMPLES),
        "split": split,
        "label": text(["tissue"]),
        "sample_label": text(["skin"] * N_SAMPLES).reshape(-1, 1),
    }


def score_arrays():
    score = np.random.default_rng(2).gamma(2.0, size=N_GENES)
    rank = np.empty(N_GENES, dtype="i4")
    rank[np.argsort(-score, kind="stable")] = np.arange(1, N_GENES + 1)
    return score, rank


def evaluation_arrays():
    rng = np.random.default_rng(4)
    panels = [*PANELS, "mean"]
    mae = (ERRORS[:, None, None] + rng.uniform(-0.05, 0.05, (7, 2, N_GENES))).astype("f4")
    pcc = rng.uniform(0.2, 0.9, mae.shape).astype("f4")
    null = rng.uniform(0, 0.03, mae.shape).astype("f4")
    target = np.arange(N_GENES) >= 20
    mae[..., ~target] = pcc[..., ~target] = null[..., ~target] = np.nan
    mae[:, 1, 30:35] = np.nan
    null[2:] = np.nan
    pcc[6] = np.nan
    measures = {"mae": mae, "mae_within": mae / 2, "pcc": pcc, "null_fraction": null}
    return panels, {
        **{name: v[:, np.newaxis] for name, v in measures.items()},
        "sample_error": np.tile(ERRORS[:, None, None], (1, 1, N_TEST + 5)).astype("f4"),
        "mean_mae": np.nanmean(mae, axis=-1)[:, np.newaxis],
        "interval_samples": np.tile([0.1, 0.2], (7, 1, 2, 1)),
        "interval_series": np.tile([[[np.nan], [0.3]]], (7, 1, 1, 2)),
        **dict.fromkeys(("share_better", "t_pvalue", "wilcoxon_pvalue"), np.ones((7, 1, 2))),
        "setting": np.ones((7, 1)),
        "size": np.array([N_LANDMARKS] * 6 + [0], "i4"),
        "n_samples": np.array([N_TEST, 5], "i4"),
        "n_series": np.array([1, 3], "i4"),
        "reason": text(["1 series, fewer than 3", ""]),
        "n_measured": np.array([N_GENES, 41], "i4"),
        "n_landmarks_measured": N_MEASURED,
        "is_target": target,
    }


def judged_coords():
    n = N_TEST + 5
    names = {
        "judged_sample": text(["x"] * n),
        "judged_series": text(["x"] * N_TEST + ["a", "b", "c", "a", "b"]),
    }
    cohort = text(["test"] * N_TEST + ["gtex"] * 5)
    bound = text(["low", "high"])
    return {"judged": np.arange(n, dtype="i4"), **names, "judged_cohort": cohort, "bound": bound}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished tiny study, as keywords of write_report."""
    folder = tmp_path_factory.mktemp("study")
    series = ["GSE1"] * (N_TRAIN - 2) + ["GSE2"] * 2 + [EVIL] * N_TEST
    coords = study_coords(series)
    raw_names = ("sample", "gene", "gene_symbol", "series", "platform", "label", "sample_label")
    raw = write_store(
        folder, "raw", {name: coords[name] for name in raw_names},
        details={
            "scale": "raw", "n_negative": 7, "role": "train", "format": "series-matrix",
            "quantiles": {"min": 0.5, "median": 123.25, "q99": 9000, "max": 65001},
            "left_out": [{"what": "rows", "reason": "counters", "n": 5, "names": ["N_multi"]}],
            "notes": ["<b>a</b> note"],
        },
    )  # fmt: skip
    per_source = {
        "source": "raw", "series": "GSE1", "n_samples": 20, "coverage": 0.875, "n_missing_genes": 9,
        "scale": "raw",
    }  # fmt: skip
    expression = write_store(
        folder, "expression", coords, inputs=[raw], region={"n_missing": N_MISSING},
        details={"per_source": [per_source], "n_missing": 1234, "split_counts": {}},
    )  # fmt: skip
    keep = np.arange(N_SAMPLES) % 5 != 1
    samples = write_store(
        folder, "samples",
        {
            **{k: coords[k] for k in ("sample", "gene")},
            "cluster_index": np.arange(2, dtype="i4"),
            "component": np.arange(3, dtype="i4"),
        },
        finished={
            "cluster": np.zeros(N_SAMPLES, "i4"), "keep": keep,
            "duplicate_of": text(["" if k else "GSM0" for k in keep]),
            "nearest_distance": np.full(N_SAMPLES, np.nan, "f4"),
            "centroid": np.zeros((2, N_GENES), "f4"),
            "gene_center": np.zeros(N_GENES),
            "basis": np.zeros((3, N_GENES), "f4"),
            "projection": np.zeros((N_SAMPLES, 3), "f4"),
            "gene_mean": np.zeros(N_GENES), "gene_std": np.ones(N_GENES),
        },
        details={"n_dropped": 4, "n_clusters": 2, "threshold": 1.25}, inputs=[expression],
    )  # fmt: skip
    gene_coords = {name: coords[name] for name in ("gene", "gene_id", "gene_symbol")}
    score, rank = score_arrays()
    scores = write_store(
        folder, "scores", {**gene_coords, "latent": np.arange(3, dtype="i4")},
        finished={"score": score, "latent_score": np.zeros((3, N_GENES), "f4")},
        details={"max_delta_error": 2.5e-6}, inputs=[expression],
    )  # fmt: skip
    panel_gene = np.full((6, N_LANDMARKS), "", dtype=np.dtypes.StringDType())
    panel_gene[:, : N_LANDMARKS - 1] = text(GENES[: N_LANDMARKS - 1])
    panel_gene[0] = text(GENES)[np.argsort(rank)[:N_LANDMARKS]]
    landmarks = write_store(
        folder, "landmarks",
        {
            **gene_coords, "panel": text(PANELS), "position": np.arange(N_LANDMARKS, dtype="i4"),
            "kind": text(KINDS), "selector": text(["greedy", "published", *["random"] * 4]),
        },
        finished={
            "score": score, "rank": rank, "is_landmark": rank <= N_LANDMARKS,
            "gain": np.where(rank <= N_LANDMARKS, 0.4 / rank, np.nan), "is_forced": rank <= 2,
            "panel_gene": panel_gene, "n_missing": np.array([0, 3, 0, 0, 0, 0], "i4"),
        },
        details={
            "n_landmarks": N_LANDMARKS, "n_distinct_genes": 6, "n_forced": 2, "n_unnamed": 0,
            "missing": {"l1000": ["A1", "1-Mar", "B2"]}, "dates": {"l1000": {"1-Mar": ""}},
            "excluded_missing": ["TP54"],
        },
        inputs=[scores],
    )  # fmt: skip
    panels, results = evaluation_arrays()
    evaluation = write_store(
        folder, "evaluation",
        {
            "gene": coords["gene"], "gene_symbol": coords["gene_symbol"], "panel": text(panels),
            "kind": text([*KINDS, "baseline"]), "predictor": text(["ridge"]),
            "cohort": text(["test", "gtex"]),
            **judged_coords(),
        },
        finished=results, inputs=[landmarks],
    )  # fmt: skip
    stores = {
        "expression": [expression], "samples": samples, "scores": scores,
        "landmarks": landmarks, "evaluation": evaluation,
    }  # fmt: skip
    return {"stores": stores, "sources": [raw], "model": write_model(folder / "models" / "abc")}


def write_model(path):
    layers = [(np.zeros((N_GENES, 3), "f4"), np.zeros(3, "f4"), "linear")]
    save_model(
        path, layers, config={"n_latent": 3}, genes=GENES, gene_mean=np.zeros(N_GENES),
        gene_std=np.ones(N_GENES), inputs=[{"uri": "n.zarr", "store_id": "id-1"}],
        parameters={"epochs": 4, "genes": GENES * 9},
    )  # fmt: skip
    history = History(
        np.arange(1, 5), np.array([0.9, 0.7, 0.6, 0.5]), np.array([0.8, 0.6, 0.5, 0.55]), np.ones(4)
    )
    write_history(path / "history.csv", history)
    return str(path)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "out" / "report.html"
    assert write_report(str(target), title="Study <1>", **study) == str(target)
    return target


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


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
    return [f"{difference:.4f}", words if cohort else "no detectable difference"]


def test_write_report__verdict(written):
    words = re.sub(r"<[^>]*>", "", written.read_text())
    assert "No detectable difference between the mined panel and panels drawn at random." in words
    assert "lower than that of 3 of 4 random panels: place 2 of 5." in words
    assert re.search(r"list l1000 has 0\.\d{4}: no detectable difference to the mined", words)
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


def test_landmarks_tsv__all_genes_by_rank(written):
    with (written.parent / "landmarks.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    score, rank = score_arrays()
    order = np.argsort(rank)
    assert [int(row["rank"]) for row in rows] == list(range(1, N_GENES + 1))
    assert [row["gene"] for row in rows] == [GENES[i] for i in order]
    assert [float(row["score"]) for row in rows] == score[order].tolist()
    assert [row["is_landmark"] for row in rows] == ["True"] * 8 + ["False"] * 52
    assert [row["is_forced"] for row in rows] == ["True"] * 2 + ["False"] * 58
    assert [row["gain"] for row in rows[:2] + rows[8:]] == ["0.4", "0.2", *[""] * 52]


def test_cell__text_is_no_formula_of_a_spreadsheet():
    values = ("=1+1", "-2+3+cmd|' /C calc'!A0", -0.5, "-0.5", np.float32("nan"), "TP53")
    assert [cell(v) for v in values] == [
        "'=1+1",
        "'-2+3+cmd|' /C calc'!A0",
        -0.5,
        "-0.5",
        "",
        "TP53",
    ]


def test_sorted_genes__csv_is_the_same_with_commas(written):
    text = (written.parent / "sorted_genes.csv").read_text()
    assert text.replace(",", "\t") == (written.parent / "landmarks.tsv").read_text()


def test_write_report__panels_tsv_holds_every_panel(written):
    with (written.parent / "panels.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 2 * 7
    _, found = evaluation_arrays()
    assert float(rows[1]["mean_mae"]) == np.nanmean(found["mae"][0, 0, 0].astype("f8"))
    assert rows[1]["panel"] == "mined"


def row(panel, mae, kind, *, versus=math.nan, low=math.nan, high=math.nan, pvalue=0.01):
    more = {"versus_low": low, "versus_high": high, "versus_pvalue": pvalue}
    nothing = [math.nan] * 3
    return PanelRow("test", panel, kind, mae, *nothing, None, None, versus_mined=versus, **more)


@pytest.mark.parametrize(
    ("random", "words"),
    [
        ([0.6, 0.7], "lower than that of 2 of 2 random panels: place 1 of 3."),
        ([0.6, 0.7, 0.4], "lower than that of 2 of 3 random panels: place 2 of 4."),
        ([0.6, 0.4], "lower than that of 1 of 2 random panels: place 2 of 3."),
        ([0.4, 0.5], "lower than that of 0 of 2 random panels: place 2 of 3."),
        ([0.6], "lower than that of 1 of 1 random panel: place 1 of 2."),
        ([], "no random panel"),
    ],
    ids=["all", "most", "half", "none-and-tie", "one", "no-random"],
)
def test_verdict__place_among_random(random, words):
    rows = [row("mined", 0.5, "mined")]
    rows += [row(f"random-{i}", mae, "random") for i, mae in enumerate(random)]
    assert words in " ".join(verdict(rows))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"versus": -0.1, "low": -0.2, "high": -0.01}, "0.4000, which is better than"),
        ({"versus": 0.1, "low": 0.01, "high": 0.2}, "0.4000, which is worse than"),
        ({"versus": 0.1, "low": -0.01, "high": 0.2}, "0.4000: no detectable difference"),
        ({"versus": 0.1, "low": 0.01, "high": 0.2, "pvalue": 0.2}, ": no detectable difference"),
        ({"versus": 0.0, "low": 0.0, "high": 0.0, "pvalue": math.nan}, ": no detectable"),
        ({"versus": 0.1}, ": no detectable difference"),
    ],
    ids=["better", "worse", "series-differ", "genes-differ", "same", "two-series"],
)
def test_verdict__only_a_paired_difference_says_better_or_worse(found, words):
    rows = [
        row("mean", 0.4, "baseline", **found),
        row("mined", 0.5, "mined", versus=0.0),
        row("l1000", 0.4, "published", **found),
    ]
    sentences = verdict(rows)
    assert words in next(s for s in sentences if "l1000" in s)
    assert words in next(s for s in sentences if "training mean" in s)
    assert ("fewer than 3 series" in " ".join(sentences)) == ("low" not in found)


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        (1, "The mined panel predicts better than panels drawn at random (their error"),
        (-1, "The mined panel predicts worse than panels drawn at random (their error"),
        (0, "No detectable difference between the mined panel and panels drawn at random (their"),
    ],
)
def test_verdict__against_random_panels_together(sign, words):
    low, high = {1: (0.01, 0.2), -1: (-0.2, -0.01), 0: (-0.1, 0.1)}[sign]
    chance = row(CHANCE, math.nan, "random", versus=0.05 * sign, low=low, high=high)
    rows = [row("mined", 0.5, "mined"), row("random-0", 0.6, "random"), chance]
    assert verdict(rows)[0].startswith(words)


def test_verdict__a_panel_that_is_not_judged():
    said = verdict([row("mined", 0.5, "mined"), row("l1000", math.nan, "published")])
    assert "l1000 could not be judged" in " ".join(said)


def test_verdict__mined_without_result():
    assert "could not be judged" in verdict([row("mined", math.nan, "mined")])[0]


def test_shown_rows__no_random_panels():
    rows = [row("mined", 0.5, "mined")]
    assert shown_rows(rows) == rows


def test_panel_rows__kinds_are_read_and_not_told_from_names(study):
    evaluation = open_store(study["stores"]["evaluation"])
    kinds = ["published", "mined", "selector", *["random"] * 3, "baseline"]
    evaluation = evaluation.assign_coords(kind=("panel", kinds))
    rows = panel_rows(evaluation, open_store(study["stores"]["landmarks"]))
    assert [r.panel for r in rows[:4]] == ["mean", "l1000", "random-0", "mined"]
    assert [r.kind for r in rows[:4]] == ["baseline", "mined", "selector", "published"]


def test_panel_rows__no_random_panels(study):
    evaluation = open_store(study["stores"]["evaluation"]).isel(panel=[0, 1, 6])
    rows = panel_rows(evaluation, open_store(study["stores"]["landmarks"]))
    assert [r.panel for r in rows[:3]] == ["mean", "mined", "l1000"]
    assert all(math.isnan(r.share_below_random) for r in rows)


def test_report__import_is_light():
    source = (Path(__file__).parents[2] / "dglzarr" / "report" / "__init__.py").read_text()
    assert "import " not in source.replace("imported", "")
