"""The benchmarks of two checkouts in turn on one machine: what a change made faster or slower.

    python benchmarks/before_after.py ../before . --pairs 7

Each stage's own engine runs on data that its checkout prepared, before, after, before, after ...,
each run in a process of its own. A row a stage: the median of the ratios of the times, after to
before, pair by pair, with a 95 % bootstrap interval of it, and the peak memory of both. A row whose
interval lies above 1.05 is slower for certain, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SCRIPTS = ("ingest", "normalize", "dedup", "train", "score", "select", "evaluate")
SLOWER = 1.05
_LIST = (
    "import importlib, json, sys; sys.path.insert(0, 'benchmarks'); "
    "m = importlib.import_module(sys.argv[1]); "
    "print(json.dumps([[b.stage, next(iter(b.engines))] for b in m.BENCHES]))"
)
_PREPARE = (
    "import importlib, sys; sys.path.insert(0, 'benchmarks'); "
    "m = importlib.import_module(sys.argv[1]); "
    "from common import Case; "
    "b = next(b for b in m.BENCHES if b.stage == sys.argv[2]); "
    "b.prepare(Case(sys.argv[3], *b.sizes[sys.argv[3]], int(sys.argv[4]), sys.argv[5]))"
)


def run(checkout: Path, *arguments: str) -> str:
    """Return what a program of a checkout prints, run with the package of that checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1] if done.stdout else ""


def measure(
    checkout: Path, folder: Path, script: str, stage: str, engine: str, options: list[str]
) -> dict[str, Any]:
    """Return the time and memory of one run of a stage's own engine."""
    name = f"benchmarks/bench_{script}.py"
    return dict(json.loads(run(checkout, name, *options, "--engine", stage, engine, str(folder))))


def interval(ratios: list[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a median."""
    rng = np.random.default_rng(seed)
    drawn = np.median(rng.choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def main() -> int:
    """Print a row a stage; return 1 where one is slower for certain."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--size", default="small")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--scripts", nargs="+", default=SCRIPTS)
    parser.add_argument("--scratch", help="folder of the data")
    asked = parser.parse_args()
    both = [asked.before.resolve(), asked.after.resolve()]
    slower = []
    for script in asked.scripts:
        if not (both[0] / f"benchmarks/bench_{script}.py").exists():
            continue
        known, listed = (json.loads(run(one, "-c", _LIST, f"bench_{script}")) for one in both)
        for stage, engine in (pair for pair in listed if pair in known):  # what both have
            with tempfile.TemporaryDirectory(dir=asked.scratch) as asked.folder:
                ratios, peaks = _paired(both, script, stage, engine, asked)
            low, high = interval(ratios)
            slower += [stage] if low > SLOWER else []
            row = {
                "stage": stage,
                "ratio": round(statistics.median(ratios), 3),
                "interval": [round(low, 3), round(high, 3)],
                "peak_rss_mb": peaks,
                "pairs": len(ratios),
            }
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    return 1 if slower else 0


def _paired(
    both: list[Path], script: str, stage: str, engine: str, asked: argparse.Namespace
) -> tuple[list[float], list[int]]:
    """Return the ratios of the times, after to before, and the largest peaks of memory."""
    folders = [Path(asked.folder, name) for name in ("before", "after")]
    for checkout, folder in zip(both, folders, strict=True):
        folder.mkdir()
        given = (f"bench_{script}", stage, asked.size, str(asked.workers), str(folder))
        run(checkout, "-c", _PREPARE, *given)
    options = ["--size", asked.size, "--workers", str(asked.workers)]
    ratios, peaks = [], [0, 0]
    for _ in range(asked.pairs):
        found = [
            measure(checkout, folder, script, stage, engine, options)
            for checkout, folder in zip(both, folders, strict=True)
        ]
        ratios.append(found[1]["seconds"] / found[0]["seconds"])
        peaks = [max(p, round(f["peak_rss_mb"])) for p, f in zip(peaks, found, strict=True)]
    return ratios, peaks


if __name__ == "__main__":
    sys.exit(main())
