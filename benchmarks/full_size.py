"""The paper's compendium once: simulate, ingest, normalize and dedup 129,158 x 22,268 samples.

With ``--epochs`` also train, encode and score; ``--n-samples 65536 --epochs 2`` is half the size.
Prints one JSON line a stage: seconds, and the largest memory of a worker and of this process. The
duplicates found are compared with those planted. Refuses to start without 1.3 x the disk that it
computes to need, and removes everything at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import peak_rss_mb, reset_peak

from dglzarr.cli import guarded
from dglzarr.query import open as open_store
from dglzarr.settings import build_settings
from dglzarr.studies.plan import mine
from dglzarr.testing import write_compendium

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Run all stages at the size asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n-samples", type=int, default=129_158)
    parser.add_argument("--n-genes", type=int, default=22_268)
    parser.add_argument("--epochs", type=int, default=0, help="also train so long, and score")
    parser.add_argument("--workers", type=int, default=2, help="0: all in this process")
    parser.add_argument("--scratch", default=tempfile.gettempdir(), help="folder for all the data")
    asked = parser.parse_args()
    n_matrices = 3 + bool(asked.epochs)  # the GCTX; expression, normalized; contributions
    needed = 1.3 * 4 * n_matrices * asked.n_samples * asked.n_genes
    free = shutil.disk_usage(asked.scratch).free
    if free < needed:
        sys.exit(
            f"{asked.scratch}: expected {needed / 1e9:.0f} GB free, got {free / 1e9:.0f} GB. "
            "Name another folder with --scratch, or fewer samples with --n-samples."
        )
    with tempfile.TemporaryDirectory(prefix="full-", dir=asked.scratch) as folder:
        _run(Path(folder), asked)


def _run(folder: Path, asked: argparse.Namespace) -> None:
    gctx = folder / "compendium.gctx"
    _timed(
        "simulate",
        asked,
        partial(write_compendium, gctx, n_samples=asked.n_samples, n_genes=asked.n_genes),
    )
    settings = build_settings(
        {
            "root": "study",
            "sources": [{"uri": gctx.name}],
            "train": {"epochs": max(1, asked.epochs)},
            "select": {"n_landmarks": min(943, asked.n_genes // 2)},
            "cluster": {"n_workers": asked.workers} if asked.workers else {"kind": "none"},
        },
        name="full size",
        folder=folder,
    )
    for stage in ("ingest", "join", "normalize", "dedup"):
        _timed(stage, asked, partial(mine, settings, only=(stage,)))
    for stage in ("train", "encode", "explain", "score") if asked.epochs else ():
        _timed(stage, asked, partial(mine, settings, only=(stage,)))
    _compare(folder, gctx.with_suffix(".truth.json"))


def _timed(stage: str, asked: argparse.Namespace, call: Callable[[], object]) -> None:
    """Print what a call took: seconds, rate, and the largest memory of a worker and of this one.

    The system itself keeps the largest: to ask for it each second costs next to nothing.
    """
    stop = threading.Event()
    peaks: list[float] = []

    def watch() -> None:
        while not stop.wait(1.0):
            for process in _below(os.getpid()):
                with suppress(OSError, StopIteration):  # it has just ended
                    peaks.append(peak_rss_mb(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    reset_peak()
    started = time.monotonic()
    try:
        call()
    finally:
        seconds = time.monotonic() - started
        stop.set()
        watcher.join()
    line = {
        "stage": stage,
        "n_samples": asked.n_samples,
        "n_genes": asked.n_genes,
        "workers": asked.workers,
        "seconds": round(seconds, 1),
        "samples_per_s": round(asked.n_samples / seconds, 1),
        "peak_rss_mb": round(max(peaks, default=peak_rss_mb())),
        "coordinator_peak_rss_mb": round(peak_rss_mb()),
    }
    print(json.dumps(line), flush=True)


def _below(process: int) -> set[int]:
    """Return the processes that a process started, and that those started."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            text = status.read_text()
            parents[int(status.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found: set[int] = set()
    while more := {p for p, parent in parents.items() if parent in {process, *found}} - found:
        found |= more
    return found


def _compare(folder: Path, truth: Path) -> None:
    """Print how many planted duplicates were dropped, and how many other samples."""
    pairs: list[dict[str, Any]] = json.loads(truth.read_text(encoding="utf-8"))["pairs"]
    samples = open_store(str(folder / "study" / "segments" / "0000" / "samples.zarr"))
    dropped = {str(s) for s in samples["sample"].values[~samples["keep"].values]}
    near = [p for p in pairs if p["kind"] != "apart"]
    found = sum((p["copy"] in dropped) != (p["original"] in dropped) for p in near)
    others = dropped - {p[end] for p in near for end in ("copy", "original")}
    line = {
        "stage": "duplicates",
        "planted": len(near),
        "found": found,
        "planted_just_apart": len(pairs) - len(near),
        "others_dropped": len(others),
    }
    print(json.dumps(line), flush=True)
    if found < len(near) or others:
        sys.exit("expected all planted duplicates to be dropped, and no other sample")


if __name__ == "__main__":
    sys.exit(guarded(main))
