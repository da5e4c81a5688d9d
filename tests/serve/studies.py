"""A small finished study with chosen values and hostile names, as the application serves it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from dglzarr.storage.schemas import (
    EVALUATION,
    EXPRESSION,
    LANDMARKS,
    NORMALIZED,
    SCORES,
)
from tests.builders import (
    TEST,
    TRAIN,
    VALIDATION,
    text,
    write_contributions,
    write_manifest,
    write_matrix,
    write_samples,
    write_store,
)

EVIL = "<script>alert('x')</script>"
TISSUES = ["skin", 'a "b" <i>c</i>', "two\nlines", ""]
N_SAMPLES, N_GENES, N_PANEL = 80, 40, 6
GENES = [f"{i:03d}_at" for i in range(N_GENES)]
SYMBOLS = ["TP53", "TP53", "MYC", EVIL, "=1+1", *[f"SYM{i}" for i in range(5, N_GENES)]]
IDS = ["7157", "7157", "4609", *[""] * (N_GENES - 3)]
SPLIT = np.array(([TRAIN] * 6 + [VALIDATION] + [TEST] * 3) * (N_SAMPLES // 10), np.int8)
SERIES = [f"GSE{1 + i % 10 // 2}" for i in range(N_SAMPLES)]
KEEP = np.arange(N_SAMPLES) % 13 != 4
PANELS = ["mined", "published", "random-0"]


def values_of(seed=0, n_samples=N_SAMPLES):
    """Expression of genes that follow three programs, a few values missing."""
    rng = np.random.default_rng(seed)
    programs = rng.normal(size=(n_samples, 3)) @ np.random.default_rng(9).normal(size=(3, N_GENES))
    values = (8 + programs + 0.3 * rng.normal(size=programs.shape)).astype(np.float32)
    values[5, 2] = values[17, 0] = np.nan
    return values


def contributions_of(values):
    return np.abs(np.nan_to_num(values - 8)).astype(np.float32) / 10


def tissues(n_samples=N_SAMPLES):
    return [TISSUES[i % len(TISSUES)] for i in range(n_samples)]


def write_segment(folder, values, *, prefix="s", details=None, called=("tissue",)):
    n = len(values)
    named = {
        "genes": GENES, "symbols": SYMBOLS, "ids": IDS, "series": SERIES[:n],
        "tissues": tissues(n), "split": SPLIT[:n], "prefix": prefix, "details": details,
        "called": called,
    }  # fmt: skip
    write_matrix(folder / "expression.zarr", EXPRESSION, values, **named)
    normalized = write_matrix(folder / "normalized.zarr", NORMALIZED, values, **named)
    write_samples(folder / "samples.zarr", normalized, keep=KEEP[:n])
    write_contributions(
        folder / "contributions.zarr", contributions_of(values), GENES, n_latent=4, prefix=prefix
    )


def scores_of(values):
    chosen = KEEP & (SPLIT == TRAIN)
    return contributions_of(values)[chosen].mean(axis=0, dtype=np.float64)


def write_panels(root, values):
    genes = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text(IDS)}
    score = scores_of(values)
    by_score = np.argsort(-score, kind="stable")
    rank = np.empty(N_GENES, np.int32)
    rank[by_score] = np.arange(1, N_GENES + 1)
    latent = np.stack([score * (1 + i) / (1 + np.arange(N_GENES) % (i + 2)) for i in range(4)])
    arrays = {"score": score, "latent_score": latent.astype(np.float32)}
    write_store(
        root / "scores.zarr", SCORES, {**genes, "latent": np.arange(4, dtype=np.int32), **arrays}
    )
    rows = np.stack([by_score[:N_PANEL], np.arange(N_PANEL), np.arange(9, 9 + N_PANEL)])
    arrays = {
        "score": score,
        "rank": rank,
        "is_landmark": rank <= N_PANEL,
        "panel_gene": text(GENES)[rows],
        "panel": text(PANELS),
        "kind": text(["mined", "published", "random"]),
        "position": np.arange(N_PANEL, dtype=np.int32),
    }
    write_store(root / "landmarks.zarr", LANDMARKS, {**genes, **arrays})
    write_store(root / "evaluation.zarr", EVALUATION, evaluation_arrays(genes))


def evaluation_arrays(genes):
    rng, n = np.random.default_rng(3), 30
    error = 0.5 + rng.uniform(0, 0.1, (4, 1, n)) + np.array([0, 0.1, 0.2, 0.4])[:, None, None]
    mae = 0.5 + rng.uniform(0, 0.1, (4, 1, 1, N_GENES))
    mae += np.array([0, 0.1, 0.2, 0.4])[:, None, None, None]
    mae[..., :10] = np.nan
    return {
        **{name: genes[name] for name in ("gene", "gene_symbol")},
        "panel": text([*PANELS, "mean"]),
        "kind": text(["mined", "published", "random", "baseline"]),
        "predictor": text(["ridge"]),
        "cohort": text(["test"]),
        "bound": text(["low", "high"]),
        "judged": np.arange(n, dtype=np.int32),
        "judged_sample": text([f"t{i}" for i in range(n)]),
        "judged_series": text([f"GSE{i % 5}" for i in range(n)]),
        "judged_cohort": text(["test"] * n),
        "sample_error": error.astype(np.float32),
        "mae": mae.astype(np.float32),
        "mean_mae": np.nanmean(mae, axis=-1),
        "n_samples": np.array([n], np.int32),
    }


def write_study(root):
    """A finished study of one segment."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    write_manifest(root, ["0000"])
    values = values_of()
    write_segment(root / "segments" / "0000", values)
    write_panels(root, values)
    (root / "report.html").write_text(
        "<!DOCTYPE html><title>r</title><style>b { color: red; }</style><b>report</b>"
        "<script>document.title = 'ran';</script>",
        encoding="utf-8",
    )
    (root / "panels.tsv").write_text("a\tb\n", encoding="utf-8")
    return root


def grow(root, *, n_samples=32, seed=5):
    """A second segment beside the first, and then the manifest that names both."""
    write_segment(root / "segments" / "0001", values_of(seed, n_samples), prefix="t")
    write_manifest(root, ["0000", "0001"])


@contextmanager
def serving(*roots, environment=None, options=(), before=""):
    """The base address of a real server over some studies, and its process.

    ``before`` is Python that it runs first.
    """
    code = f"{before}; from dglzarr.cli import main; main()".removeprefix("; ")
    command = [sys.executable, "-c", code, "serve", *map(str, roots), "--port", "0"]
    process = subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("Serving "), line + process.stderr.read()
        yield line.split(" at ")[1].split()[0], process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdout.close()
        process.stderr.close()


def get_json(address, *, until=60):
    """What an address answers, asked again while the study is being prepared."""
    ends = time.monotonic() + until
    while True:
        try:
            with urllib.request.urlopen(address) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > ends:
                raise
            error.close()
            time.sleep(0.2)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
