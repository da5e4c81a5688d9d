"""Normalize and dedup at several numbers of samples and workers: a table and a picture.

Prints one JSON line a run and a Markdown table of medians, and draws seconds against samples.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from common import Case, workers_of, write_expression

from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Runs = Mapping[tuple[str, int, int], Sequence[float]]

mpl.use("Agg")
PICTURE = Path(__file__).parent.parent / "docs" / "scaling.svg"


def main() -> None:
    """Run every size with every number of workers, the repeats outermost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--n-samples", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--n-genes", type=int, default=22_268)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", help="folder for the data, about 3 x the largest matrix")
    parser.add_argument("--picture", default=str(PICTURE))
    asked = parser.parse_args()
    runs: dict[tuple[str, int, int], list[float]] = {}
    for n_samples in asked.n_samples:
        with tempfile.TemporaryDirectory(prefix="scaling-", dir=asked.scratch) as folder:
            write_expression(Case("", n_samples, asked.n_genes, 0, folder))
            for _ in range(asked.repeats):
                for workers in asked.workers:
                    case = Case("", n_samples, asked.n_genes, workers, folder)
                    for stage, seconds in timed(case).items():
                        runs.setdefault((stage, n_samples, workers), []).append(seconds)
                        line = {"stage": stage, "n_samples": n_samples, "workers": workers}
                        print(json.dumps(line | {"seconds": round(seconds, 2)}), flush=True)
    print(table(runs))
    draw(runs, Path(asked.picture))


def timed(case: Case) -> dict[str, float]:
    """Return the seconds of normalize and dedup, on workers that are up and warm."""
    source, target = case.path("expression.zarr"), case.path("normalized.zarr")
    samples = case.path("samples.zarr")
    for old in (target, samples):
        shutil.rmtree(old, ignore_errors=True)
    with workers_of(case) as cluster:
        if cluster is not None:
            cluster.run(warm)
        open_store(source)
        started = time.perf_counter()
        normalize(source, target, options=NormalizeOptions(fit_on="all"))
        middle = time.perf_counter()
        dedup(target, samples, options=DedupOptions(n_clusters=min(100, case.n_samples // 8)))
        return {"normalize": middle - started, "dedup": time.perf_counter() - middle}


def warm() -> None:
    """Import what the stages need."""
    import dglzarr.stages.dedup  # noqa: PLC0415
    import dglzarr.stages.normalize  # noqa: F401, PLC0415


def table(runs: Runs) -> str:
    """Return medians as Markdown: seconds, milliseconds a sample, and the gain of workers."""
    lines = [
        "| stage | samples | workers | seconds | ms a sample | faster than one worker |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (stage, n_samples, workers), seconds in sorted(runs.items()):
        one = runs.get((stage, n_samples, 1), [float("nan")])
        median = statistics.median(seconds)
        gain = statistics.median(a / b for a, b in zip(one, seconds, strict=False))
        lines.append(
            f"| {stage} | {n_samples:,} | {workers} | {median:.1f} | "
            f"{1000 * median / n_samples:.2f} | {gain:.2f} x |"
        )
    return "\n".join(lines)


def draw(runs: Runs, path: Path) -> None:
    """Draw seconds against samples, both as logarithms; a straight line of slope 1 is linear."""
    from matplotlib import pyplot as plt  # noqa: PLC0415  (after the backend is chosen)

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for color, stage in zip(("#0072b2", "#d55e00"), ("normalize", "dedup"), strict=True):
        for workers in sorted({w for _, _, w in runs}):
            sizes = sorted(n for s, n, w in runs if (s, w) == (stage, workers))
            seconds = [statistics.median(runs[stage, n, workers]) for n in sizes]
            style = {"marker": "o", "color": color, "linestyle": "--" if workers == 1 else "-"}
            axes.loglog(sizes, seconds, label=f"{stage}, {workers} workers", **style)
            linear = [seconds[0] * n / sizes[0] for n in sizes]
            axes.loglog(sizes, linear, color="#999999", linewidth=0.5)
    sizes = sorted({n for _, n, _ in runs})
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.set_xlabel("samples")
    axes.set_ylabel("seconds")
    axes.legend(title="thin lines: linear from the first point")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
