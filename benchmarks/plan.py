"""A plan for many profiles on many workers, computed from measured parts.

    python benchmarks/plan.py --n-samples 1000000 --workers 64

Empty tasks are sent through the package's own `run_tasks` to local workers first: what the process
that leads, which is client and scheduler, works for each no number of workers lowers. The tasks of
normalize and dedup are counted on a small matrix; what a worker takes a sample is from
docs/reproduce.md. The plan supposes that workers do not slow each other, and says how many bytes a
second that needs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from common import Case, workers_of, write_expression

from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.options import Run
from dglzarr.storage.store import regions
from dglzarr.storage.tasks import run_tasks


@dataclass(frozen=True)
class Part:
    """What a stage takes.

    Milliseconds of one worker a sample, seconds that do not depend on workers for a million
    samples, tasks a region, matrices read and written.
    """

    worker_ms: float
    alone_s: float = 0.0
    tasks: float = 1.0
    matrices: int = 0


PARTS = {
    "ingest, a GCTX": Part(0.74, matrices=2),
    "normalize": Part(0.35, matrices=3),
    "dedup": Part(0.34, alone_s=65.0, matrices=4),
    "encode, reconstruction judged": Part(0.76, matrices=1),
    "score": Part(11.5, matrices=2),
}
"""At 22,268 genes, docs/reproduce.md: one worker, or twice what two took; k-means runs alone."""
EPOCH_MS = 0.69
"""Of a sample in an epoch of training, which one process does."""
TRAINED = 0.9


def nothing(_number: int) -> None:
    """Do nothing."""


def empty_tasks(n_tasks: int, n_workers: int) -> dict[str, Any]:
    """Return what empty tasks take, by the clock and of the process that leads."""
    with workers_of(Case("", 0, 0, n_workers, "")):
        run_tasks(nothing, [(n,) for n in range(100)], what="warm")
        started, worked = time.perf_counter(), time.process_time()
        run_tasks(nothing, [(n,) for n in range(n_tasks)], what="empty")
        seconds, of_cpu = time.perf_counter() - started, time.process_time() - worked
    each = {"ms_a_task": round(1e3 * seconds / n_tasks, 3)}
    each["cpu_ms_a_task"] = round(1e3 * of_cpu / n_tasks, 3)
    return {"tasks": n_tasks, "workers": n_workers, "seconds": round(seconds, 2), **each}


def counted_tasks(n_samples: int) -> dict[str, float]:
    """Return how many tasks a region normalize and dedup take, on a small matrix."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        case = Case("", n_samples, 100, 0, folder)
        write_expression(case)
        n_regions = len(regions(case.path("expression.zarr")))
        totals: dict[str, int] = {}

        def count(what: str, _done: int, total: int) -> None:
            totals[what] = total

        run, source, target = Run(on_progress=count), case.path("expression.zarr"), case.path("n")
        normalize(source, target, options=NormalizeOptions(fit_on="all"), run=run)
        found["normalize"] = sum(totals.values()) / n_regions
        totals.clear()
        dedup(target, case.path("s"), options=DedupOptions(n_clusters=8), run=run)
        found["dedup"] = sum(totals.values()) / n_regions
    return found


def seconds_of(
    part: Part, *, n_samples: int, workers: int, tasks: float, task_ms: float
) -> tuple[float, float, float]:
    """Return what workers, one process and the scheduler take of a stage, in seconds."""
    shared = 1e-3 * part.worker_ms * n_samples / workers
    return shared, part.alone_s * n_samples / 1e6, 1e-3 * task_ms * tasks


def plan(asked: argparse.Namespace, task_ms: float, counted: dict[str, float]) -> str:
    """Return the plan as Markdown."""
    lines = [
        "| stage | workers, s | one process, s | scheduler, s | tasks | GB moved | GB/s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    n_regions = -(-asked.n_samples // asked.shard)
    sums = [0.0, 0.0, 0.0]
    for name, part in PARTS.items():
        tasks = n_regions * counted.get(name, part.tasks)
        found = seconds_of(
            part, n_samples=asked.n_samples, workers=asked.workers, tasks=tasks, task_ms=task_ms
        )
        sums = [a + b for a, b in zip(sums, found, strict=True)]
        gb = 4e-9 * part.matrices * asked.n_samples * 22_268
        shown = " | ".join(f"{seconds:.1f}" for seconds in found)
        lines.append(f"| {name} | {shown} | {tasks:,.0f} | {gb:,.0f} | {gb / sum(found):.1f} |")
    train = 1e-3 * EPOCH_MS * TRAINED * asked.n_samples * asked.epochs
    lines.append(f"| train, {asked.epochs} epochs |  | {train:,.0f} |  |  |  |  |")
    shared, alone, scheduled = sums
    total = sum(sums) + train
    lines.append(f"| all | {shared:.0f} | {alone + train:,.0f} | {scheduled:.1f} |  |  |  |")
    share = f"{100 * scheduled / total:.3f} % of all, {100 * scheduled / sum(sums):.1f} % without"
    return "\n".join([*lines, f"Scheduler: {share} training. {total / 3600:.1f} hours."])


def main() -> None:
    """Measure the scheduler, count tasks, print the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n-samples", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--shard", type=int, default=2048, help="samples of a region")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=10_000, help="empty ones")
    parser.add_argument("--local", type=int, default=2, help="workers here for the empty tasks")
    asked = parser.parse_args()
    found = empty_tasks(asked.tasks, asked.local)
    print(json.dumps(found), flush=True)
    print(plan(asked, found["cpu_ms_a_task"], counted_tasks(4096)))


if __name__ == "__main__":
    main()
