"""What Prefect costs over the plain pipeline, on the demo: ``mine`` both ways, by turns.

    python benchmarks/prefect_overhead.py --repeats 3

``dglzarr mine`` and ``flows/mine.py``, each a program from its start to its exit, on a study of its
own, and once more when all is done already. One JSON line a run: seconds by the clock and of the
processor, all that the program started included (but a server that it left to end by itself), and
a table of medians.
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

from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[1]
WAYS = {
    "plain": [str(Path(sys.executable).with_name("dglzarr")), "mine"],
    "prefect": [sys.executable, str(REPO / "flows" / "mine.py")],
}


def timed(command: list[str], home: Path) -> tuple[float, float]:
    """Return the seconds of a program by the clock and of the processor."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_API")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**kept, "PREFECT_HOME": str(home)},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{command[:2]} failed: {done.stderr.strip().splitlines()[-1]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, worked


def table(runs: dict[tuple[str, str], list[tuple[float, float]]]) -> str:
    """Return medians as Markdown, and what Prefect adds."""
    lines = ["| run | plain, s (processor) | by Prefect | more |", "| --- | --- | --- | --- |"]
    for run in ("first", "again"):
        plain, flow = (
            [statistics.median(some) for some in zip(*runs[way, run], strict=True)] for way in WAYS
        )
        more = [b - a for a, b in zip(plain, flow, strict=True)]
        cells = [f"{clock:.1f} ({worked:.1f})" for clock, worked in (plain, flow, more)]
        lines.append(f"| {run} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Mine both ways by turns."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n-samples", type=int, default=1_800)
    parser.add_argument("--n-genes", type=int, default=1_200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    parser.add_argument("--scratch", help="folder for the studies")
    asked = parser.parse_args()
    changes = [word for change in asked.set for word in ("--set", change)]
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for repeat in range(asked.repeats):
        for way in WAYS if repeat % 2 else reversed(WAYS):
            with tempfile.TemporaryDirectory(prefix="overhead-", dir=asked.scratch) as folder:
                sizes = {"n_samples": asked.n_samples, "n_genes": asked.n_genes}
                file = write_study(Path(folder, "demo"), **sizes)
                for run in ("first", "again"):
                    command = [*WAYS[way], str(file), *changes]
                    found = timed(command, Path(folder, "home"))
                    runs.setdefault((way, run), []).append(found)
                    seconds, worked = (round(some, 2) for some in found)
                    line = {"way": way, "run": run, "seconds": seconds, "cpu_seconds": worked}
                    print(json.dumps(line), flush=True)
    print(table(runs))


if __name__ == "__main__":
    main()
