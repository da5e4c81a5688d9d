"""How long a study of many segments takes to open, and how many files are read for it.

A study of equal segments is written, each of samples of its own, and asked in fresh processes as
people and stages ask it. One JSON line is printed a question: seconds of the best of its repeats,
by the clock and of the processor, imports left out, and the files that were opened. ``plain`` is
what no reader can do without: each metadata file of each store is read once, and the size of each
object is asked for.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import labels, simulated_rows, text

from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import check_claim, create_store, finish, regions, write_region
from dglzarr.storage.study import SEGMENTED, Study, write_manifest

SIZES = {"tiny": (4, 8, 40), "small": (200, 20, 2000), "full": (200, 20, 22_268)}
"""Segments, samples of each, genes."""
_OTHER_DIMS = {"latent": 8, "component": 16, "cluster_index": 4, "label": 2, "region": 1}

QUESTIONS = {
    "plain": "plain(root)",
    "open_study": "dglzarr.open_study(root)",
    "open normalized": "dglzarr.open(f'{root}#normalized')",
    "stages": "[open_store(storage.open_study(root).uris(name)) for name in SEGMENTED]",
    "rows": "Rows(storage.open_study(root).uris('normalized'))",
    "one gene": "dglzarr.open(f'{root}#normalized').expression[:, 3].values",
    "info": "dglzarr.query.describe_study(root)",
}
PROGRAM = """
import json, os, sys, time
from pathlib import Path
import dask.array, xarray
import dglzarr, dglzarr.query
from dglzarr.storage import study as storage
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import open_store
from dglzarr.storage.study import SEGMENTED

def plain(root):
    for name in SEGMENTED:
        for uri in storage.open_study(root).uris(name):
            Path(uri, "zarr.json").read_bytes()
            known = json.loads(Path(uri, "objects/zarr.json").read_bytes())
            for place in known["attributes"]["objects"]:
                os.stat(f"{uri}/{place}")

root, n_opened, counting = sys.argv[1], 0, False

def count(event, arguments):
    global n_opened
    n_opened += counting and event == "open" and str(arguments[0]).startswith(root)

sys.addaudithook(count)
seconds = []
for repeat in range(int(sys.argv[2])):
    counting, started, worked = repeat == 0, time.perf_counter(), time.process_time()
    {question}
    seconds.append((time.perf_counter() - started, time.process_time() - worked))
least, of_cpu = (round(min(some), 3) for some in zip(*seconds))
print(json.dumps({"seconds": least, "cpu_seconds": of_cpu, "files_opened": n_opened}))
"""


def write_study(root: Path, n_segments: int, n_samples: int, n_genes: int) -> None:
    """Write a study of equal segments, without its models and panels."""
    names = [f"{i:04d}" for i in range(n_segments)]
    for number, name in enumerate(names):
        for schema in SEGMENTED:
            _write_store(root / "segments" / name / f"{schema}.zarr", schema, number, {
                "sample": n_samples, "gene": n_genes, "quantile": n_genes,
            })  # fmt: skip
    write_manifest(Study(str(root), ()), names)


def _write_store(place: Path, schema: str, number: int, known: dict[str, int]) -> None:
    uri, spec = str(place), SPECS[schema]
    sizes = {dim: 3 for array in spec.arrays for dim in array.dims} | _OTHER_DIMS | known
    n_samples, n_genes = sizes["sample"], sizes["gene"]
    first = number * n_samples
    names = {
        "sample": text([f"GSM{first + i}" for i in range(n_samples)]),
        "gene": text(labels("g", n_genes)),
        "gene_symbol": text(labels("SYM", n_genes)),
        "series": text([f"GSE{number}"] * n_samples),
    }

    def values(array: Any) -> Any:  # noqa: ANN401
        if array.name in names:
            return names[array.name]
        shape = tuple(sizes[dim] for dim in array.dims)
        if array.is_matrix:
            return simulated_rows(first, first + n_samples, n_genes)
        numbers = np.arange(np.prod(shape)).reshape(shape)
        is_text = array.dtype == "str"
        return text(numbers.ravel()).reshape(shape) if is_text else numbers.astype(array.dtype)

    arrays = {array.name: values(array) for array in spec.arrays}
    written = {w: {a.name: arrays[a.name] for a in spec.arrays if a.written == w}
               for w in ("create", "region", "finish")}  # fmt: skip
    claim = check_claim(uri, [spec], inputs={}, parameters={})
    create_store(claim, written["create"], region_length=n_samples if written["region"] else None)
    for region in regions(uri) if written["region"] else ():
        write_region(uri, region, written["region"])
    finish(claim, arrays=written["finish"])


def ask(root: Path, name: str, repeats: int) -> dict[str, Any]:
    """Return seconds and opened files of a question, asked in a process of its own."""
    program = PROGRAM.replace("{question}", QUESTIONS[name])
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), str(repeats)],
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Write a study and ask it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", help="folder for the data")
    parser.add_argument("--study", type=Path, help="ask this study instead of writing one")
    parser.add_argument("--questions", nargs="+", choices=list(QUESTIONS), default=list(QUESTIONS))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="segments-", dir=asked.scratch) as folder:
        root = asked.study or Path(folder, "study")
        if asked.study is None:
            write_study(root, *SIZES[asked.size])
        n_segments = len(json.loads((root / "study.json").read_bytes())["segments"])
        for name in asked.questions:
            line = {"question": name, "n_segments": n_segments, **ask(root, name, asked.repeats)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
