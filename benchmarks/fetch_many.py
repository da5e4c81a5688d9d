"""Fetch and read many small series: the time beside what the rate limit alone asks for.

    python benchmarks/fetch_many.py --root many

Small simulated series stand under their real paths at a server of this machine. They are fetched at
3 requests a second, as NCBI asks, and their raw stores are written meanwhile. The limit is the
number of requests, less the first, over the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from mirror import series_folder, serving

from dglzarr.settings import build_settings
from dglzarr.studies.plan import mine
from dglzarr.testing import write_series_matrix

RATE = 3.0


def place(served: Path, number: int, n_samples: int, n_genes: int) -> str:
    """Serve one series; return its accession."""
    accession, rng = f"GSE{10000 + number}", np.random.default_rng(number)
    path = served / series_folder(accession) / f"{accession}_series_matrix.txt.gz"
    path.parent.mkdir(parents=True)
    write_series_matrix(
        path, rng.normal(8, 2, (n_samples, n_genes)).astype(np.float32), series=accession,
        platform="GPL96", genes=[f"{n}_at" for n in range(n_genes)],
        samples=[f"GSM{number:03d}{n:04d}" for n in range(n_samples)],
    )  # fmt: skip
    return accession


def main() -> None:
    """Print one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="an empty folder")
    parser.add_argument("--series", type=int, default=64)
    parser.add_argument("--samples", type=int, default=12, help="of each series")
    parser.add_argument("--genes", type=int, default=22283)
    parser.add_argument("--steps", default="ingest", help="ingest,join joins them too")
    asked = parser.parse_args()
    root = asked.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, serving(folder) as mirror:
        names = [place(Path(folder), n, asked.samples, asked.genes) for n in range(asked.series)]
        os.environ.update(mirror.environment(), DGLZARR_CACHE=str(root / "cache"), no_proxy="*")
        os.environ.pop("NCBI_API_KEY", None)
        content = {"root": "study", "sources": [{"geo": names}], "select": {"n_landmarks": 50}}
        settings = build_settings(content, name="fetch_many", folder=root)
        begun = time.monotonic()
        mine(settings, only=asked.steps.split(","))
        done = time.monotonic()
        n_requests = len(mirror.asked)
        fetched = max(at for at, _, _ in mirror.asked)
    limit = (n_requests - 1) / RATE
    told = {
        "series": len(names),
        "requests": n_requests,
        "limit_s": round(limit, 1),
        "to_the_last_request_s": round(fetched - begun, 1),
        "after_it_s": round(done - fetched, 1),
        "ratio": round((done - begun) / limit, 3),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
