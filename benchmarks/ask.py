"""Times of questions to a simulated study: open, a gene over all samples, top, facts, exports.

``--samples 111009 --genes 22268`` is the paper's size: 10 GB in SCRATCH. With 2,000 genes a gene
takes as long as at paper's size, for then all stand in one column of chunks. Prints JSON lines: the
first time in a fresh process and the median of those after, with the page cache warm; and a gene
that is on disk alone.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from dglzarr.export import export_study
from dglzarr.storage.schemas import LANDMARKS, NORMALIZED, SAMPLES, SCORES
from dglzarr.storage.store import check_claim, create_store, finish, regions, write_region
from dglzarr.storage.study import create_study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dglzarr.storage.declare import StoreSpec

REGION = 2048
_BLOCK = 512


def main() -> None:
    """Write a study, or ask one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--genes", type=int, default=500)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--ask", default="", help="root of a study that this script wrote")
    given = parser.parse_args()
    if given.ask:
        ask(given.ask)
        return
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        write_study(folder, given.samples, given.genes)
        words = [sys.executable, __file__, "--ask", folder]
        subprocess.run(words, check=True)


def text(values: Any) -> Any:  # noqa: ANN401
    """Return text as stores hold it."""
    return np.array(list(values), dtype=np.dtypes.StringDType())


def write_study(root: str, n_samples: int, n_genes: int) -> None:
    """Write normalized, samples, scores and landmarks of random values, as stages lay them out."""
    rng = np.random.default_rng(0)
    study = create_study(root)
    genes = {
        "gene": text(f"{i}_at" for i in range(n_genes)),
        "gene_id": text(str(i) for i in range(n_genes)),
        "gene_symbol": text(f"G{i}" for i in range(n_genes)),
    }
    names = text(f"GSM{i:07d}" for i in range(n_samples))
    series = text(f"GSE{i // 40}" for i in range(n_samples))
    tissue = text(f"tissue {i % 30}" for i in range(n_samples))
    labels = {
        "sample": names, **genes, "series": series, "source": series,
        "platform": text(["GPL96"] * n_samples), "split": np.zeros(n_samples, np.int8),
        "label": text(["tissue"]), "sample_label": tissue[:, None],
        "quantile": np.arange(n_genes, dtype=np.int32), "quantile_reference": np.zeros(n_genes),
    }  # fmt: skip
    uri = study.uri("normalized")
    claim = check_claim(uri, [NORMALIZED], inputs={}, parameters={})
    create_store(claim, labels, region_length=min(REGION, 256 * -(-n_samples // 256)))
    for region in regions(uri):
        shape = (region.stop - region.start, n_genes)
        block = rng.standard_normal(shape, dtype=np.float32) + 8
        write_region(uri, region, {"expression": block})
    finish(claim)
    rank = np.arange(1, n_genes + 1, dtype=np.int32)
    known = {"sample": names, "gene": genes["gene"]}
    write(study.uri("samples"), SAMPLES, known, {"keep": np.ones(n_samples, bool)})
    write(study.uri("scores"), SCORES, {**genes, "latent": np.arange(100, dtype=np.int32)})
    panel = {"panel": text(["mined"]), "kind": text(["mined"]), "selector": text(["greedy"])}
    position = np.arange(min(943, n_genes), dtype=np.int32)
    found = {"panel_gene": genes["gene"][None, : position.size], "rank": rank}
    write(study.uri("landmarks"), LANDMARKS, {**genes, **panel, "position": position}, found)


def write(
    uri: str, spec: StoreSpec, labels: Mapping[str, Any], found: Mapping[str, Any] | None = None
) -> None:
    """Write a store without regions; what is not given is 0, false or empty."""
    known = dict(labels)
    sizes = {n: len(v) for n, v in known.items() if spec[n].dims == (n,)}
    for array in spec.arrays:
        if array.is_coord and array.dims == (array.name,) and array.required:
            known.setdefault(array.name, np.arange(sizes.setdefault(array.name, 128), dtype="i4"))
    given = dict(found or {})
    for array in spec.arrays:
        if array.written == "finish" and array.required and array.name not in given:
            shape = [sizes[dim] for dim in array.dims]
            given[array.name] = text([""] * shape[0]) if array.dtype == "str" else np.zeros(shape)
    claim = check_claim(uri, [spec], inputs={}, parameters={})
    create_store(claim, known)
    finish(claim, arrays=given)


def ask(root: str) -> None:
    """Print the times of questions to a study, and of exports beside a plain loop."""
    import dglzarr.query  # noqa: PLC0415  (loading libraries is no part of a question)

    show("open", lambda: dglzarr.open_study(root))
    tree = dglzarr.open_study(root)
    n_genes = tree["normalized"].sizes["gene"]
    numbers = iter(np.random.default_rng(1).permutation(n_genes).tolist())
    show("gene over all samples", lambda: tree.dgl.expression(f"g{next(numbers)}").values)
    forget(root)
    before = read_mb()
    seconds = timed(lambda: tree.dgl.expression(f"g{next(numbers)}").values)
    tell("gene over all samples, cold", seconds=seconds, read_mb=read_mb() - before)
    show("top 20", lambda: tree.dgl.top(20))
    show("gene", lambda: tree.dgl.gene(f"g{next(numbers)}"))
    show("neighbours", lambda: tree.dgl.neighbours(f"g{next(numbers)}"))
    show("by label", lambda: tree.dgl.by("tissue").gene(f"g{next(numbers)}"))
    with tempfile.TemporaryDirectory(dir=root) as folder:
        h5ad = f"{folder}/a.h5ad"
        for name, clock in (("seconds", time.perf_counter), ("processor", time.process_time)):
            ours = timed(lambda: export_study(root, h5ad, "h5ad"), clock)
            plain = timed(lambda: copy_plainly(h5ad, f"{folder}/b.h5"), clock)
            tell(f"export h5ad, {name}", ours=ours, plain_loop=plain, share=plain / ours)
            Path(h5ad).unlink()


def forget(root: str) -> None:
    """Drop a study's matrix from the page cache."""
    for path in Path(root).glob("segments/*/normalized.zarr/expression/c/*/*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_mb() -> float:
    """Return what this process has read from disks, MB."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"]) / 1e6


def copy_plainly(source: str, target: str) -> None:
    """Copy a matrix from HDF5 to HDF5, block by block."""
    with h5py.File(source) as old, h5py.File(target, "w") as new:
        made = new.create_dataset("X", shape=old["X"].shape, dtype="<f4")
        for start in range(0, made.shape[0], _BLOCK):
            made[start : start + _BLOCK] = old["X"][start : start + _BLOCK]


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds that a call takes."""
    start = clock()
    call()
    return clock() - start


def show(what: str, call: Callable[[], object], n: int = 5) -> None:
    """Print the first time of a question, the median of those after, and their processor time."""
    first = timed(call)
    seconds = statistics.median(timed(call) for _ in range(n))
    processor = statistics.median(timed(call, time.process_time) for _ in range(n))
    tell(what, first=first, seconds=seconds, processor=processor)


def tell(what: str, **numbers: float) -> None:
    """Print a line."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rounded = {name: round(number, 4) for name, number in numbers.items()}
    print(json.dumps({"question": what, **rounded, "peak_mb": round(peak)}), flush=True)


if __name__ == "__main__":
    main()
