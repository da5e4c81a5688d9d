"""A tiny finished study for reports, with what its numbers are, and a reader of pages."""

from html.parser import HTMLParser

import numpy as np

from dglzarr.models.files import History, save_model, write_history
from dglzarr.storage.declare import shard_samples
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import (
    create_store,
    finish,
    regions,
    write_region,
)
from tests.builders import claimed, text

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


def finished_study(folder):
    """Write a finished tiny study; return it as keywords of write_report."""
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
