"""Predict all other genes from a measured table, beside NumPy in memory and product plus write."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from common import (
    Bench,
    Case,
    Timed,
    labels,
    main,
    product_seconds,
    run_here,
    seconds_of,
    simulated_rows,
    write_normalized_and_samples,
)
from threadpoolctl import threadpool_limits

from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.make import make_bundle
from dglzarr.prediction.output import MATRICES, write_prediction
from dglzarr.storage.options import Run
from dglzarr.storage.study import create_study

N_PANEL = {"tiny": 10, "small": 943, "full": 943}
N_TRAINED = 256
SIZES = {"tiny": (96, 200), "small": (10_000, 22_268), "full": (10_000, 22_268)}


def prepare(case: Case) -> None:
    """Write a bundle of a small study, and a table of what was measured, genes in rows."""
    segment = Path(case.path("study"), "segments", "0000")
    create_study(case.path("study"))
    segment.mkdir(parents=True)
    n_trained = min(N_TRAINED, case.n_samples)
    write_normalized_and_samples(replace(case, n_samples=n_trained, folder=str(segment)))
    genes = labels("g", case.n_genes)[: N_PANEL[case.size]]
    Path(case.path("panel.txt")).write_text("\n".join(genes), encoding="utf-8")
    make_bundle(case.path("study"), case.path("bundle.zip"), panel=case.path("panel.txt"))
    shutil.rmtree(case.path("study"))
    parts = [
        simulated_rows(start, min(start + 256, case.n_samples), case.n_genes)[:, : len(genes)]
        for start in range(0, case.n_samples, 256)
    ]
    samples = [f"m{i:05d}" for i in range(case.n_samples)]
    table = pd.DataFrame(np.concatenate(parts).T, index=genes, columns=samples)
    table.to_csv(case.path("measured.tsv"), sep="\t", float_format="%.4f", index_label="gene")


def _written(case: Case, name: str) -> Timed:
    target = case.path(name)
    return run_here(
        case,
        lambda: write_prediction(
            case.path("bundle.zip"), case.path("measured.tsv"), target, run=Run(overwrite=True)
        ),
    )


def with_dglzarr(case: Case) -> Timed:
    """Time the command from bundle and table to a Zarr store of predictions and intervals."""
    return _written(case, "out.zarr")


def with_anndata(case: Case) -> Timed:
    """Time the same to an AnnData file."""
    return _written(case, "out.h5ad")


def with_numpy(case: Case) -> Timed:
    """Time pandas, one product in memory and three files of NumPy's; nothing is normalized."""
    bundle = load_bundle(case.path("bundle.zip"))

    def work() -> None:
        table = pd.read_csv(case.path("measured.tsv"), sep="\t", index_col=0)
        z = (table.to_numpy(np.float32).T - bundle["landmark_mean"]) / bundle["landmark_std"]
        predicted = z.astype(np.float32) @ bundle["coefficient"] + bundle["intercept"]
        width = bundle.of("half_width", "given") / bundle["gene_std"].astype(np.float32)
        for sign, name in zip((0, -1, 1), MATRICES, strict=True):
            np.save(case.path(f"{name}.npy"), predicted + sign * width)

    return run_here(case, work)


def with_limit(case: Case) -> Timed:
    """Time one read of the table's bytes, the product in float32, and the bytes written."""
    n, panel = case.n_samples, N_PANEL[case.size]
    block = np.zeros((min(n, 1024), case.n_genes), dtype=np.float32)

    def write() -> None:
        with Path(case.path("bytes")).open("wb") as file:
            file.writelines(block.data for _ in range(len(MATRICES) * -(-n // len(block))))

    with threadpool_limits(max(1, case.workers)):
        parts = {
            "read": seconds_of(Path(case.path("measured.tsv")).read_bytes),
            "product": product_seconds([(n, panel, case.n_genes - panel)]),
            "write": seconds_of(write),
        }
    more = {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}}
    return Timed(sum(parts.values()), n, more=more)


ENGINES = {
    "dglzarr": with_dglzarr,
    "dglzarr, to AnnData": with_anndata,
    "numpy, in memory, without normalization": with_numpy,
    "limit: one read, float32 product, one write of three matrices": with_limit,
}
BENCHES = [Bench("predict", prepare, ENGINES, packages=["pandas", "h5py"], sizes=SIZES)]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
