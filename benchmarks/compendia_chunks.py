"""Compendia: an ARCHS4-shaped file in three kinds of chunks beside h5py; Parquet beside pyarrow.

``python benchmarks/compendia_chunks.py --samples 8192 --genes 20000``: each engine reads all
samples, ours by regions of 2048, in a process of its own, in turn, twice; the better time counts.
Seconds of the processor tell more than the clock where other processes run beside.
"""
# ruff: noqa: PLC0415  (an engine imports what it needs, before its clock starts)

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

REGION = 2048
GENE_CHUNK, SAMPLE_CHUNK = 2000, 256


def write_archs4(path: Path, n_samples: int, n_genes: int, chunks: tuple[int, int]) -> None:
    """Write counts as skewed as those of RNA-seq, genes x samples, gzip, with their labels."""
    rng = np.random.default_rng(0)
    level = rng.lognormal(3, 2.5, n_genes)[:, np.newaxis]
    with h5py.File(path, "w") as file:
        data = file.create_dataset(
            "data/expression", (n_genes, n_samples), "u4", chunks=chunks, compression="gzip"
        )
        step = max(1, chunks[0]) if chunks[1] == n_samples else n_genes
        width = n_samples if chunks[1] == n_samples else max(SAMPLE_CHUNK, chunks[1])
        step = max(step, 1000 // step * step)
        for first in range(0, n_genes, step):
            for start in range(0, n_samples, width):
                block = np.s_[first : min(first + step, n_genes), start : start + width]
                shape = (block[0].stop - first, min(width, n_samples - start))
                noise = rng.standard_exponential(shape, np.float32)
                data[block] = (level[block[0]] * noise).astype(np.uint32)
        for name, n, head in (
            ("samples/geo_accession", n_samples, "GSM"),
            ("genes/symbol", n_genes, "G"),
        ):
            file[f"meta/{name}"] = np.array([f"{head}{i}" for i in range(n)], "S16")


def write_parquet(path: Path, n_samples: int, n_genes: int) -> None:
    """Write TPM as GTEx does: genes in rows, a column a sample."""
    import pandas as pd

    rng = np.random.default_rng(0)
    values = rng.lognormal(1, 2, (n_genes, n_samples)).astype(np.float32).round(3)
    frame = pd.DataFrame(values, columns=[f"S{i}" for i in range(n_samples)])
    frame.insert(0, "Name", [f"ENSG{i:011}" for i in range(n_genes)])
    frame.to_parquet(path)


def read_by(engine: str, path: Path) -> tuple[float, float]:
    """Return seconds by clock and processor in which an engine reads all samples by regions."""
    import pyarrow.parquet as pq

    from dglzarr.sources import read_source

    total = 0.0
    started, spent = time.perf_counter(), time.process_time()
    if engine == "dglzarr":
        source = read_source(path)
        for start in range(0, len(source.samples), REGION):
            block = source.read(start, min(start + REGION, len(source.samples)))
            total += float(block[0, 0])
    elif engine == "h5py":
        with h5py.File(path) as file:
            data = file["data/expression"]
            for start in range(0, data.shape[1], REGION):
                block = np.ascontiguousarray(data[:, start : start + REGION].T, np.float32)
                total += float(block[0, 0])
    else:
        table = pq.read_table(path)
        block = np.stack([table.column(n).to_numpy() for n in table.column_names[1:]])
        total += float(block[0, 0])
    return time.perf_counter() - started, time.process_time() - spent


def timed(engine: str, path: Path) -> tuple[float, float, float]:
    """Return seconds by clock and processor, and GiB at most, of an engine in its own process."""
    command = [sys.executable, __file__, "--engine", engine, "--path", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found["seconds"], found["processor"], found["gib"]


def compare(name: str, path: Path, engines: tuple[str, str]) -> None:
    """Print the better of two times of both engines, taken in turn, and their ratio."""
    runs = [[timed(engine, path) for engine in engines] for _ in range(2)]
    ours, other = ([min(run[place][k] for run in runs) for k in (0, 1)] for place in (0, 1))
    size = path.stat().st_size / 1e6
    print(
        f"| {name} | {size:.0f} | {ours[0]:.1f} | {other[0]:.1f} | {other[0] / ours[0]:.2f} | "
        f"{ours[1]:.1f} | {other[1]:.1f} | {other[1] / ours[1]:.2f} | "
        f"{max(run[0][2] for run in runs):.2f} |",
        flush=True,
    )


def main() -> None:
    """Write the files and compare, or read one of them with one engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--engine")
    parser.add_argument("--path", type=Path)
    asked = parser.parse_args()
    if asked.engine:
        seconds, spent = read_by(asked.engine, asked.path)
        gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "processor": spent, "gib": gib}))
        return
    n, g = asked.samples, asked.genes
    by = "dglzarr, s | the other, s | ratio"
    print(f"| file | MB | {by} | processor: {by} | peak, GiB |")
    print("| --- " * 9 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name, chunks in (
            ("column chunks", (g, 1)),
            ("block chunks", (min(g, GENE_CHUNK), min(n, SAMPLE_CHUNK))),
            ("row chunks", (1, n)),
        ):
            path = Path(folder, "archs4.h5")
            write_archs4(path, n, g, chunks)
            compare(f"{name} {chunks[0]} x {chunks[1]}", path, ("dglzarr", "h5py"))
            path.unlink()
        path = Path(folder, "gtex.parquet")
        write_parquet(path, n // 2, g)
        compare(f"Parquet, {n // 2} samples", path, ("dglzarr", "pyarrow"))


if __name__ == "__main__":
    main()
