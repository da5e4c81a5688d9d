"""Many people ask `dglzarr serve` of random genes: how long they wait, and what memory it takes.

Each client asks for the scores of a gene, its neighbours, or its expression by a label, by chance,
and pauses a second after each answer. One JSON line is printed a kind of question, and one for all.
The study is simulated: its matrix, moments and scores, no network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from common import labels, simulated_rows, text

from dglzarr.storage.declare import shard_samples
from dglzarr.storage.schemas import NORMALIZED, SAMPLES, SCORES
from dglzarr.storage.store import check_claim, create_store, finish, regions, write_region
from dglzarr.storage.study import Study, write_manifest

SIZES = {"tiny": (600, 300), "small": (6000, 4000), "full": (111_009, 22_268)}
QUESTIONS = {
    "scores": "gene?name={}",
    "neighbours": "neighbours?name={}&n=20",
    "expression": "expression?name={}&by=tissue",
}
N_TISSUES = 30


@dataclass
class Told:
    """What clients found: seconds by kind of question, and answers that were none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


def write_study(root: Path, n_samples: int, n_genes: int) -> None:
    """Write what questions need of a study."""
    write_manifest(Study(str(root), ()), ["0000"])
    segment = root / "segments" / "0000"
    genes: dict[str, Any] = {"gene": text(labels("g", n_genes))}
    genes |= {"gene_id": text([""] * n_genes), "gene_symbol": text(labels("SYM", n_genes))}
    tissues = [f"tissue {i * 7 % N_TISSUES}" for i in range(n_samples)]
    coords = {
        "sample": text(labels("s", n_samples)),
        **{n: text([f"GSE{i // 60}" for i in range(n_samples)]) for n in ("source", "series")},
        "platform": text(["GPL96"] * n_samples),
        "label": text(["tissue"]),
        "sample_label": text(tissues).reshape(-1, 1),
        "split": np.resize(np.array([0] * 8 + [1, 2], np.int8), n_samples),
        "quantile_reference": np.linspace(0, 20, n_genes),
        "quantile": np.arange(n_genes, dtype=np.int32),
    }
    mean, std = _write_matrix(str(segment / "normalized.zarr"), {**genes, **coords}, n_samples)
    arrays = {
        "cluster": np.zeros(n_samples, np.int32),
        "keep": np.ones(n_samples, bool),
        "duplicate_of": text([""] * n_samples),
        "nearest_distance": np.full(n_samples, np.nan, np.float32),
        "centroid": np.zeros((1, n_genes), np.float32),
        "gene_center": mean,
        "basis": np.zeros((1, n_genes), np.float32),
        "projection": np.zeros((n_samples, 1), np.float32),
        "gene_mean": mean,
        "gene_std": std,
    }
    one = {"cluster_index": np.zeros(1, np.int32), "component": np.zeros(1, np.int32)}
    labelled = {"sample": coords["sample"], "gene": genes["gene"], **one}
    _write(str(segment / "samples.zarr"), SAMPLES, labelled, arrays)
    score = np.random.default_rng(0).random(n_genes)
    latent = np.random.default_rng(1).random((64, n_genes)).astype(np.float32)
    known = {**genes, "latent": np.arange(64, dtype=np.int32)}
    _write(str(root / "scores.zarr"), SCORES, known, {"score": score, "latent_score": latent})


def _write(uri: str, spec: Any, coords: dict[str, Any], arrays: dict[str, Any]) -> None:  # noqa: ANN401
    claim = check_claim(uri, [spec], inputs={}, parameters={})
    create_store(claim, coords)
    finish(claim, arrays=arrays)


def _write_matrix(uri: str, coords: dict[str, Any], n_samples: int) -> tuple[Any, Any]:
    """Write the normalized store; return mean and std of a part of its samples."""
    claim = check_claim(uri, [NORMALIZED], inputs={}, parameters={})
    create_store(claim, coords, region_length=shard_samples(n_samples))
    n_genes = coords["gene"].size
    first = simulated_rows(0, min(n_samples, 2048), n_genes)
    for region in regions(uri):
        rows = [
            simulated_rows(start, min(start + 512, region.stop), n_genes)
            for start in range(region.start, region.stop, 512)
        ]
        write_region(uri, region, {"expression": np.concatenate(rows)})
    finish(claim)
    return first.mean(axis=0, dtype=np.float64), first.std(axis=0, dtype=np.float64)


# ---------------------------------------------------------------- clients


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str
) -> tuple[int, bytes]:
    """Return status and body of one answer over a connection that is kept."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    named = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), await reader.readexactly(int(named["content-length"]))


async def client(
    number: int, place: tuple[str, int], names: list[str], ends: float, told: Told
) -> None:
    """Ask random questions, with a pause after each answer, until the time is over."""
    rng = np.random.default_rng(number)
    await asyncio.sleep(float(rng.random()))
    reader, writer = await asyncio.open_connection(*place)
    while time.perf_counter() < ends:
        kind = str(rng.choice(list(QUESTIONS)))
        path = "/api/study/" + QUESTIONS[kind].format(names[int(rng.integers(len(names)))])
        begun = time.perf_counter()
        try:
            status, body = await ask(reader, writer, path)
        except (OSError, asyncio.IncompleteReadError) as error:
            told.errors.append(repr(error))
            reader, writer = await asyncio.open_connection(*place)
            continue
        told.seconds.setdefault(kind, []).append(time.perf_counter() - begun)
        if status != 200:
            told.errors.append(f"{status} {body[:80]!r}")
        await asyncio.sleep(1)
    writer.close()


async def load(place: tuple[str, int], names: list[str], n_clients: int, seconds: float) -> Told:
    """Return what some clients found in some seconds."""
    told, ends = Told(), time.perf_counter() + seconds
    await asyncio.gather(*(client(i, place, names, ends, told) for i in range(n_clients)))
    return told


async def until_ready(place: tuple[str, int], name: str, limit: float = 900) -> None:
    """Wait until neighbours are told."""
    ends = time.perf_counter() + limit
    while True:
        reader, writer = await asyncio.open_connection(*place)
        status, body = await ask(reader, writer, f"/api/study/neighbours?name={name}")
        writer.close()
        if status == 200:
            return
        if status != 503 or time.perf_counter() > ends:
            raise SystemExit(f"load_serve: {status} {body!r}")
        await asyncio.sleep(0.5)


def memory_mb(process: int) -> dict[str, float]:
    """Return what a process holds: its own memory, and pages of files that others may take."""
    lines = Path("/proc", str(process), "status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {
        name: round(int(found[key].split()[0]) / 1024)
        for name, key in (("own_mb", "RssAnon"), ("file_mb", "RssFile"))
    }


def processor_s(process: int) -> float:
    """Return the seconds of the processor that a process has taken."""
    told = Path("/proc", str(process), "stat").read_text(encoding="ascii").rpartition(")")[2]
    return sum(map(int, told.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def measured(root: Path, asked: argparse.Namespace, n_genes: int) -> None:
    """Serve a study, ask, and print what was found."""
    code = "from dglzarr.cli import main; main()"
    options = ["--port", "0", "--cache-mb", str(asked.cache_mb)]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(root), *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    out: Any = process.stdout
    try:
        address = urlsplit(out.readline().split(" at ")[1].split()[0])
        started = time.perf_counter() - begun
        place = (str(address.hostname), int(address.port or 0))
        names = labels("g", n_genes)
        asyncio.run(until_ready(place, names[0]))
        ready = time.perf_counter() - begun
        before, begun = memory_mb(process.pid), processor_s(process.pid)
        told = asyncio.run(load(place, names, asked.clients, asked.seconds))
        after, taken = memory_mb(process.pid), processor_s(process.pid) - begun
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    every = [s for found in told.seconds.values() for s in found]
    for kind, found in {**told.seconds, "all": every}.items():
        p50, p95, most = np.quantile(found, (0.5, 0.95, 1))
        line = {
            "stage": "serve", "question": kind, "clients": asked.clients,
            "cache_mb": asked.cache_mb, "n": len(found),
            "p50_ms": round(1e3 * p50, 1), "p95_ms": round(1e3 * p95, 1),
            "most_ms": round(1e3 * most, 1),
        }  # fmt: skip
        if kind == "all":
            line |= {"errors": len(told.errors), "some_errors": told.errors[:3]}
            line |= {"rate": round(len(every) / asked.seconds, 1), "before": before, "after": after}
            line |= {"processor_ms": round(1e3 * taken / len(every), 1)}
            line |= {"started_s": round(started, 2), "ready_s": round(ready, 1)}
            line |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
        print(json.dumps(line))
    if told.errors:
        raise SystemExit(1)


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--n-samples", type=int)
    parser.add_argument("--n-genes", type=int)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--cache-mb", type=int, default=64)
    parser.add_argument("--scratch", help="folder for the simulated study, the size of the matrix")
    asked = parser.parse_args()
    n_samples = asked.n_samples or SIZES[asked.size][0]
    n_genes = asked.n_genes or SIZES[asked.size][1]
    with tempfile.TemporaryDirectory(prefix="serve-", dir=asked.scratch) as folder:
        root = Path(folder, "study")
        root.mkdir()
        begun = time.perf_counter()
        write_study(root, n_samples, n_genes)
        written = {"n_samples": n_samples, "n_genes": n_genes}
        print(
            json.dumps(
                {"stage": "write", **written, "seconds": round(time.perf_counter() - begun, 1)}
            )
        )
        measured(root, asked, n_genes)


if __name__ == "__main__":
    main()
