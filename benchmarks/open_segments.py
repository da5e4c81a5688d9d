"""How long a study of many segments takes to open, before and after 'dglzarr compact'.

A small study is simulated and mined, and grows by one small file after another, as it does in so
many nights. Prints one JSON line: each time is the median of fresh processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dglzarr.settings import build_settings
from dglzarr.storage.study import open_study
from dglzarr.studies.compact import compact
from dglzarr.studies.grow import grow
from dglzarr.studies.plan import mine
from dglzarr.testing import simulate_expression, write_series_matrix

SAMPLES_A_FILE = 16
OPEN = """
import sys, time
import dglzarr
dglzarr.open(sys.argv[1] + "/segments/0000/normalized.zarr")  # whatever is loaded once
started = time.perf_counter()
dglzarr.open(sys.argv[1] + "#normalized")
print(time.perf_counter() - started)
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dglzarr-segments-") as folder:
        root = grown(Path(folder), asked.segments)
        found: dict[str, object] = {"segments": asked.segments}
        found["open_s_before"] = opening(root, asked.repeats)
        started = time.perf_counter()
        compact(root)
        found["compact_s"] = round(time.perf_counter() - started, 1)
        found["open_s_after"] = opening(root, asked.repeats)
        found["segments_after"] = len(open_study(root).segments)
    print(json.dumps(found))


def grown(folder: Path, n_segments: int) -> str:
    """Return the root of a study of so many segments."""
    n_first = 4
    n_files = n_first + n_segments - 1
    simulated = simulate_expression(n_files * SAMPLES_A_FILE, 60, n_hubs=8, n_programs=3)
    content = {
        "root": "study",
        "sources": [{"uri": "*_series_matrix.txt"}],
        "ingest": {"split_by": "sample"},
        "train": {"epochs": 1, "hidden": 8, "n_latent": 3},
        "select": {"n_landmarks": 5, "n_random": 2},
        "dedup": {"n_clusters": 2},
        "cluster": {"kind": "none"},
    }
    for number in range(n_files):
        rows = slice(number * SAMPLES_A_FILE, (number + 1) * SAMPLES_A_FILE)
        write_series_matrix(
            folder / f"GSE{number:04d}_series_matrix.txt",
            simulated.expression[rows],
            samples=[str(name) for name in simulated.samples[rows]],
            genes=[str(name) for name in simulated.genes],
            series=f"GSE{number:04d}",
            platform="GPL96",
        )
        if number < n_first - 1:
            continue
        settings = build_settings(content, name="benchmark", folder=folder)
        if number == n_first - 1:
            mine(settings)
        else:
            grow(settings)
    return str(folder / "study")


def opening(root: str, repeats: int) -> float:
    """Return the median seconds that a fresh process takes to open a logical store."""
    command = [sys.executable, "-c", OPEN, root]
    runs = [
        subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(repeats)
    ]
    return round(statistics.median(float(run.stdout) for run in runs), 3)


if __name__ == "__main__":
    main()
