"""What size and CRC-32C of every object cost, beside the stage that writes or reads them.

    python benchmarks/recording_cost.py --size small

Each stage runs in this process. Processor seconds of whatever makes, records, merges or compares
checksums (`google_crc32c`, and `store`'s record of regions and stores) are summed by thread, and
set beside the processor seconds of the whole stage. One JSON line a stage and repeat.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import google_crc32c
from bench_score import prepare
from common import SIZES, Case

from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.stages.explain import explain
from dglzarr.stages.score import score
from dglzarr.storage import store

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = [
    *((google_crc32c, "extend"), (google_crc32c, "value")),
    *((store, "write_part"), (store, "write_record"), (store, "_all_objects")),
]


class Clock:
    """Processor seconds inside some functions, each counted once where they call each other."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = threading.local()
        self._lock = threading.Lock()

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that adds what it takes."""

        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            if getattr(self._inside, "yes", False):
                return function(*args, **options)
            self._inside.yes, started = True, time.thread_time()
            try:
                return function(*args, **options)
            finally:
                self._inside.yes = False
                with self._lock:
                    self.seconds += time.thread_time() - started

        return call


def measured(stage: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return processor seconds of a stage and of its checksums."""
    clock = Clock()
    with ExitStack() as stack:
        for owner, name in PARTS:
            stack.enter_context(patch.object(owner, name, clock.timed(getattr(owner, name))))
        started = time.process_time()
        stage(*args, **options)
        seconds = time.process_time() - started
    return {
        "stage": stage.__name__,
        "cpu_seconds": round(seconds, 3),
        "recording_ms": round(1e3 * clock.seconds, 2),
        "percent": round(100 * clock.seconds / seconds, 3),
    }


def lines(case: Case) -> list[dict[str, Any]]:
    """Return what the stages take one after another, on stores that `bench_score` prepares."""
    normalized, samples, model = map(case.path, ("normalized.zarr", "samples.zarr", "model"))
    made = [case.path(f"{name}.zarr") for name in ("mask", "contributions", "scores")]
    for target in made:
        shutil.rmtree(target, ignore_errors=True)
    options = DedupOptions(n_clusters=4, epochs=1)
    return [
        measured(dedup, normalized, made[0], options=options),
        measured(explain, normalized, made[1], samples=samples, model=model),
        measured(score, made[1], made[2], normalized=normalized, samples=samples),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--scratch")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.scratch) as folder:
        case = Case(asked.size, *SIZES[asked.size], 0, folder)
        prepare(case)
        for _ in range(asked.repeats):
            for line in lines(case):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
