"""Some samples of a remote ARCHS4-shaped file: ours beside h5py over fsspec, in bytes and requests.

    python benchmarks/archs4_ranges.py --samples 8192 --genes 20000

A server of this machine gives ranges. At the 3 requests a second that all servers are asked by, a
request costs a third of a second, which is what the last column adds up.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import h5py
import numpy as np
from compendia_chunks import GENE_CHUNK, SAMPLE_CHUNK, write_archs4
from mirror import Mirror, serving

from dglzarr.settings import build_settings
from dglzarr.studies.fetch import fetch

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "human_gene_v2.5.h5"
RATE = 3.0


def with_dglzarr(folder: Path, address: str, rows: NDArray[np.int64]) -> None:
    """Fetch the samples into a cache."""
    (folder / "ids.txt").write_text("".join(f"GSM{i}\n" for i in rows.tolist()))
    os.environ["DGLZARR_CACHE"] = tempfile.mkdtemp(dir=folder)
    source = {"uri": address, "by_ranges": True, "only_samples": str(folder / "ids.txt")}
    lock = f"{os.environ['DGLZARR_CACHE']}/sources.lock"
    asked = {"lock": lock, "requests_per_second": 10.0}
    content = {"root": "study", "sources": [source], "fetch": asked}
    (outcome,) = fetch(build_settings(content, name="ranges", folder=folder))
    if outcome.is_wrong:
        raise SystemExit(outcome.told)


def with_fsspec(folder: Path, address: str, rows: NDArray[np.int64], **how: object) -> None:
    """Read the samples with h5py from a file of fsspec, column by column as archs4py does."""
    del folder
    with fsspec.filesystem("http").open(address, **how) as remote, h5py.File(remote) as file:
        file["meta/samples/geo_accession"][()]
        file["meta/genes/symbol"][()]
        data = file["data/expression"]
        for row in rows.tolist():
            data[:, row]


ENGINES = {
    "dglzarr": with_dglzarr,
    "h5py over fsspec, 5 MiB ahead": with_fsspec,
    "h5py over fsspec, blocks of 256 KiB": lambda *of: with_fsspec(
        *of, block_size=2**18, cache_type="blockcache", cache_options={"maxblocks": 4096}
    ),
}


def told(mirror: Mirror, first: int, seconds: float) -> str:
    """Return megabytes, requests, seconds, and seconds at the rate that servers are asked by."""
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", asked) for _, _, asked in mirror.asked[first:]]
    nbytes = sum(int(one[2]) - int(one[1]) + 1 for one in ranges if one)
    n = len(ranges)
    return f"{nbytes / 1e6:.1f} | {n} | {seconds:.1f} | {max(seconds, n / RATE):.1f}"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--wanted", type=int, default=100)
    asked = parser.parse_args()
    os.environ["no_proxy"] = "*"
    shapes = {"column": (asked.genes, 1), "block": (min(GENE_CHUNK, asked.genes), SAMPLE_CHUNK)}
    spread = np.linspace(0, asked.samples - 1, asked.wanted).astype(np.int64)
    wanted = {"side by side": np.arange(asked.wanted) + 1000, "spread": spread}
    print(
        "| chunks | samples | engine | MB read | requests | s | s at 3 a second |\n"
        + "| --- " * 7
        + "|"
    )
    with tempfile.TemporaryDirectory() as place, serving(place) as mirror:
        for shape, chunks in shapes.items():
            path = Path(place, NAME)
            write_archs4(path, asked.samples, asked.genes, chunks)
            print(f"| {shape}, {path.stat().st_size / 1e6:.0f} MB | | | | | | |", flush=True)
            mirror.tag(path)
            for kind, rows in wanted.items():
                for engine, run in ENGINES.items():
                    first, begun = len(mirror.asked), time.monotonic()
                    run(Path(place), f"{mirror.address}/{NAME}", rows)
                    line = told(mirror, first, time.monotonic() - begun)
                    print(f"| {shape} | {kind} | {engine} | {line} |", flush=True)


if __name__ == "__main__":
    main()
