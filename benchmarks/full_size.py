"""The paper's compendium once: simulate, ingest, normalize and dedup 129,158 x 22,268 samples.

With ``--epochs`` also train, encode and score; ``--n-samples 65536 --epochs 2`` is half the size.
Prints one JSON line a stage: seconds, and the memory of this process and its workers together. The
duplicates found are compared with those planted. Refuses to start without 1.3 x the disk that it
computes to need, and removes everything at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.cli import guarded
from dglzarr.config import build_settings
from dglzarr.pipeline import mine
from dglzarr.query import open as open_store
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
    for stage in ("ingest", "normalize", "dedup"):
        _timed(stage, asked, partial(mine, settings, only=(stage,)))
    for stage in ("train", "encode", "score") if asked.epochs else ():
        _timed(stage, asked, partial(mine, settings, only=(stage,)))
    _compare(folder, gctx.with_suffix(".truth.json"))


def _timed(stage: str, asked: argparse.Namespace, call: Callable[[], object]) -> None:
    """Print what a call took: seconds, rate, and the largest memory of all processes together."""
    stop, peaks = threading.Event(), [0.0]

    def watch() -> None:
        while not stop.wait(0.2):
            peaks.append(_resident_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
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
        "peak_rss_mb_all_processes": round(max(peaks)),
    }
    print(json.dumps(line), flush=True)


def _resident_mb() -> float:
    """Return the proportional memory of this process and all below it (shared pages once)."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:  # the process has just ended
            continue
        parents[int(status.parent.name)] = int(text.rpartition(")")[2].split()[1])
    mine_too = {int(Path("/proc/self").resolve().name)}
    while more := {p for p, parent in parents.items() if parent in mine_too} - mine_too:
        mine_too |= more
    total = 0
    for process in mine_too:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


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
