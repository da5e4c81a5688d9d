"""What every benchmark shares: command line, one fresh process an engine, clock, memory, data.

A benchmark is a list of `Bench`: a stage, the engines that are compared, and the files they need.
The first engine is dglzarr's; ``ratio`` on each printed line is dglzarr's samples/s over that
line's, so over 1 dglzarr is faster than a peer, and under 1 it is that share of a limit. It is the
median of the paired runs; half of them lie within ``ratio_quartiles``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from dglzarr.models.options import NetworkOptions
from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.cluster import ClusterOptions, client
from dglzarr.storage.declare import shard_samples
from dglzarr.storage.schemas import EXPRESSION, SCORES
from dglzarr.storage.store import (
    check_claim,
    create_store,
    finish,
    open_store,
    regions,
    write_region,
)
from dglzarr.storage.tasks import run_tasks
from dglzarr.testing import write_series_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Engine = Callable[["Case"], "Timed"]
    Matrix = NDArray[np.float32]

KONG2021 = tomllib.loads(
    (Path(__file__).parents[1] / "deploy" / "settings" / "kong2021.toml").read_text("utf-8")
)["train"]
PAPER = NetworkOptions(**{k: v for k, v in KONG2021.items() if k in NetworkOptions.model_fields})
"""The paper's network, of which all recorded rates are."""

SIZES = {"tiny": (96, 200), "small": (2048, 22268), "full": (16384, 22268)}
TEXT_SIZES = {"tiny": (96, 200), "small": (256, 22268), "full": (2048, 22268)}

_N_PROGRAMS = 16
_DUPLICATE_EVERY = 50


@dataclass(frozen=True)
class Case:
    """What an engine works on: sizes, workers (0: this process), and the folder of the files."""

    size: str
    n_samples: int
    n_genes: int
    workers: int
    folder: str

    def path(self, name: str) -> str:
        """Return where a file or store of the benchmark stands."""
        return f"{self.folder}/{name}"


@dataclass(frozen=True)
class Timed:
    """What an engine took: seconds for how many samples, and the memory of its largest process."""

    seconds: float
    n_samples: int
    start_rss_mb: float = 0.0
    peak_rss_mb: float = 0.0
    more: Mapping[str, Any] = field(default_factory=dict)


class Bench(NamedTuple):
    """One comparison: dglzarr's engine first, then peers and limits.

    Where it ``is_quick`` the engines take turns in one process, in an order of its own each time.
    """

    stage: str
    prepare: Callable[[Case], None]
    engines: Mapping[str, Engine]
    packages: Sequence[str] = ()
    sizes: Mapping[str, tuple[int, int]] = SIZES
    is_quick: bool = False


# ---------------------------------------------------------------- command line


def main(script: str, benches: Sequence[Bench], description: str | None) -> None:
    """Run the benches of a script at the size asked for and print one JSON line an engine."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--workers", type=int, default=2, help="0: everything in one process")
    parser.add_argument("--repeats", type=int, default=1, help="paired runs; medians are printed")
    parser.add_argument("--scratch", help="folder for the data, about 3 x the matrix")
    parser.add_argument("--stage", choices=[b.stage for b in benches], help="one stage only")
    parser.add_argument("--engine", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.engine:
        stage, engine, folder = asked.engine
        bench = next(b for b in benches if b.stage == stage)
        case = Case(asked.size, *bench.sizes[asked.size], asked.workers, folder)
        print(json.dumps(asdict(bench.engines[engine](case))))
        return
    for bench in (b for b in benches if asked.stage in (None, b.stage)):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.scratch) as folder:
            case = Case(asked.size, *bench.sizes[asked.size], asked.workers, folder)
            for line in _lines(script, bench, case, asked.repeats):
                print(json.dumps(line), flush=True)


def _lines(script: str, bench: Bench, case: Case, repeats: int) -> list[dict[str, Any]]:
    load = os.getloadavg()[0]
    bench.prepare(case)
    names = list(bench.engines)
    runs = []
    for repeat in range(repeats):
        order = names
        if bench.is_quick:
            order = list(np.random.default_rng(repeat).permutation(names))
        runs.append({name: _run(script, bench, name, case) for name in order})
    return [
        _line(bench, case, name, [(run[names[0]], run[name]) for run in runs])
        | {"load_before": load}
        for name in names
    ]


def _run(script: str, bench: Bench, engine: str, case: Case) -> Timed:
    """Run one engine in a process of its own, whose memory is its own too, unless it is quick."""
    if bench.is_quick or not case.workers:
        return bench.engines[engine](case)
    options = ["--size", case.size, "--workers", str(case.workers)]
    command = [sys.executable, script, *options, "--engine", bench.stage, engine, case.folder]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Timed(**json.loads(done.stdout.splitlines()[-1]))


def _line(
    bench: Bench, case: Case, engine: str, pairs: Sequence[tuple[Timed, Timed]]
) -> dict[str, Any]:
    rates = [timed.n_samples / timed.seconds for _, timed in pairs]
    ratios = [
        ours.n_samples / ours.seconds / rate for (ours, _), rate in zip(pairs, rates, strict=True)
    ]
    rate = statistics.median(rates)
    found = pairs[0][1]
    names = ("dglzarr", "numpy", "zarr", "dask", *bench.packages)
    return {
        "stage": bench.stage,
        "engine": engine,
        "n_samples": found.n_samples,
        "n_genes": case.n_genes,
        "workers": case.workers,
        "seconds": _short(found.n_samples / rate),
        "samples_per_s": _short(rate),
        "mb_per_s": _short(rate * case.n_genes * 4 / 1e6),
        "start_rss_mb": round(max(timed.start_rss_mb for _, timed in pairs)),
        "peak_rss_mb": round(max(timed.peak_rss_mb for _, timed in pairs)),
        "peaks_rss_mb": [round(timed.peak_rss_mb) for _, timed in pairs],
        "ratio": _short(statistics.median(ratios)),
        "ratio_quartiles": [_short(float(q)) for q in np.quantile(ratios, (0.25, 0.75))],
        "repeats": len(pairs),
        **found.more,
        "versions": {name: version(name) for name in names} | {"python": sys.version.split()[0]},
    }


def _short(value: float) -> float:
    """Return a number with four significant digits."""
    return float(f"{value:.4g}")


def show_row(*cells: object) -> None:
    """Print a row of a table in Markdown."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def say(what: str) -> None:
    """Tell on stderr what goes on."""
    print(what, file=sys.stderr, flush=True)


def say_progress(what: str, done: int, total: int) -> None:
    """Tell on stderr how far something is."""
    say(f"{what} {done}/{total}")


# ---------------------------------------------------------------- clock and memory


def run_stage(
    case: Case,
    stage: Callable[..., Any],
    *args: Any,  # noqa: ANN401
    modules: Sequence[str] = (),
    **options: Any,  # noqa: ANN401
) -> Timed:
    """Return what a stage takes on the case's Dask workers, which are up and warm before.

    ``modules`` are to be imported there beside its own.
    """
    with workers_of(case) as cluster:
        import_module("dask.array")  # xarray loads it at the first store
        for name in (stage.__module__, *modules):
            _everywhere(cluster, import_module, name)
        before = _everywhere(cluster, reset_peak)
        started = time.perf_counter()
        stage(*args, **options)
        seconds = time.perf_counter() - started
        peak = _everywhere(cluster, peak_rss_mb)
        return Timed(
            seconds,
            case.n_samples,
            max(before),
            max(peak),
            {"coordinator_peak_rss_mb": round(peak_rss_mb())},
        )


def run_here(case: Case, work: Callable[[], Any], *, n_samples: int | None = None) -> Timed:
    """Return what a call takes in this process with as many threads as the case has workers."""
    with threadpool_limits(max(1, case.workers)):
        before = reset_peak()
        started = time.perf_counter()
        work()
        seconds = time.perf_counter() - started
    return Timed(seconds, n_samples or case.n_samples, before, peak_rss_mb())


def run_parts(
    case: Case, part: Callable[..., dict[str, float]], tasks: Sequence[tuple[Any, ...]]
) -> Timed:
    """Return what parts take that are each clocked alone, on all workers at once."""
    with workers_of(case) as cluster:
        _everywhere(cluster, import_module, "dglzarr.storage.store")
        before = _everywhere(cluster, reset_peak)
        found: list[dict[str, float]] = run_tasks(part, tasks, what="parts")
        peak = _everywhere(cluster, peak_rss_mb)
    workers = max(1, case.workers)
    parts = {name: sum(f[name] for f in found) / workers for name in found[0]}
    more = {"parts": {name: round(seconds, 3) for name, seconds in parts.items()}}
    return Timed(sum(parts.values()), case.n_samples, max(before), max(peak), more)


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def product_seconds(shapes: Sequence[tuple[int, int, int]]) -> float:
    """Return the seconds of some matrix products (rows, inner, columns), best of three."""
    rng = np.random.default_rng(0)
    total = 0.0
    for rows, inner, columns in shapes:
        left: NDArray[Any] = rng.random((rows, inner), np.float32)
        right: NDArray[Any] = rng.random((inner, columns), np.float32)
        total += min(seconds_of(lambda: left @ right) for _ in range(3))  # noqa: B023
    return total


def workers_of(case: Case) -> AbstractContextManager[Any]:
    """Return the Dask workers of a case; without any, the work is done in this process."""
    return client(
        ClusterOptions(kind="local" if case.workers else "none", n_workers=max(1, case.workers))
    )


def _everywhere(cluster: Any, func: Callable[..., Any], *args: Any) -> list[Any]:  # noqa: ANN401
    """Return what a function returns in every process that does the work."""
    return [func(*args)] if cluster is None else list(cluster.run(func, *args).values())


def reset_peak() -> float:
    """Forget the largest resident size of this process so far; return the present one, in MB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_rss_mb()


def peak_rss_mb(process: int | Literal["self"] = "self") -> float:
    """Return the largest resident size of a process since `reset_peak`, in MB."""
    status = Path("/proc", str(process), "status")
    if process == "self" and not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ---------------------------------------------------------------- data


def text(values: Sequence[str]) -> NDArray[Any]:
    """Return labels as the stores hold them."""
    return np.array(values, dtype=np.dtypes.StringDType())


def labels(prefix: str, n: int) -> list[str]:
    """Return n different labels."""
    return [f"{prefix}{i:06d}" for i in range(n)]


def simulated_rows(start: int, stop: int, n_genes: int) -> Matrix:
    """Return rows of the benchmark's matrix: levels 5 to 12, 16 programs, noise.

    One row in fifty repeats the row before it, nearly.
    """
    fixed = np.random.default_rng(0)
    level = fixed.uniform(5, 12, n_genes).astype(np.float32)
    loading = fixed.standard_normal((_N_PROGRAMS, n_genes), np.float32) / 8
    rng = np.random.default_rng([1, start])
    block = rng.standard_normal((stop - start, n_genes), np.float32)
    block *= 0.3
    block += rng.standard_normal((stop - start, _N_PROGRAMS), np.float32) @ loading
    block += level
    again = np.arange(1, len(block), _DUPLICATE_EVERY)
    block[again] = block[again - 1] + np.float32(0.001)
    return block


def simulated_matrix(n_samples: int, n_genes: int) -> Matrix:
    """Return the benchmark's matrix as it stands in its stores."""
    length = shard_samples(n_samples)
    starts = range(0, n_samples, length)
    return np.concatenate([simulated_rows(s, min(s + length, n_samples), n_genes) for s in starts])


def write_text_matrix(case: Case, name: str) -> Path:
    """Write a series matrix of a case, and return its path."""
    return write_series_matrix(
        case.path(name),
        simulated_matrix(case.n_samples, case.n_genes),
        samples=labels("GSM", case.n_samples),
        genes=labels("g", case.n_genes),
        series="GSE1",
        platform="GPL96",
    )


def write_expression(case: Case) -> None:
    """Write the benchmark's matrix as an expression store."""
    uri = case.path("expression.zarr")
    n_samples, n_genes = case.n_samples, case.n_genes
    coords: dict[str, NDArray[Any]] = {
        "sample": text(labels("s", n_samples)),
        "gene": text(labels("g", n_genes)),
        "label": text([]),
        "sample_label": text([]).reshape(n_samples, 0),
        "split": np.resize(np.array([0] * 8 + [1, 2], np.int8), n_samples),
    }
    coords |= {n: text([""] * n_genes) for n in ("gene_id", "gene_symbol")}
    coords |= {n: text(["GSE1"] * n_samples) for n in ("source", "series", "platform")}
    claim = check_claim(uri, [EXPRESSION], inputs={}, parameters={})
    create_store(claim, coords, region_length=shard_samples(n_samples))
    for region in regions(uri):
        block = simulated_rows(region.start, region.stop, n_genes)
        n_missing = np.isnan(block).sum(axis=1)
        write_region(uri, region, {"expression": block, "n_missing": n_missing})
    finish(claim)


def write_normalized(case: Case) -> None:
    """Write the benchmark's matrix, as it is, as the normalized store that later stages read."""
    write_expression(case)
    with workers_of(case):
        as_it_is = NormalizeOptions(method="none")
        normalize(case.path("expression.zarr"), case.path("normalized.zarr"), options=as_it_is)
    shutil.rmtree(case.path("expression.zarr"))


def write_normalized_and_samples(case: Case) -> None:
    """Write a normalized store and the samples store beside it, in which every sample is kept."""
    write_normalized(case)
    options = DedupOptions(n_clusters=4, epochs=1, threshold=0.0)
    with workers_of(case):
        dedup(case.path("normalized.zarr"), case.path("samples.zarr"), options=options)


def write_scores(case: Case) -> None:
    """Write a scores store of random scores beside the normalized store."""
    source, uri = case.path("normalized.zarr"), case.path("scores.zarr")
    ds = open_store(source)
    claim = check_claim(uri, [SCORES], inputs={"source": source}, parameters={})
    coords = {name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")}
    create_store(claim, coords | {"latent": np.zeros(1, np.int32)})
    score = np.random.default_rng(0).random(case.n_genes)
    arrays = {"score": score, "latent_score": score[np.newaxis]}
    finish(claim, arrays=arrays)
