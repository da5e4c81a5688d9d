"""Kill -9 a worker, the scheduler or the coordinating process of a run, run again, compare.

    python tests/kills.py --trials 20

Each trial runs ingest, normalize and dedup of one simulated compendium of 22,268 genes on a Dask
scheduler and workers in processes of their own, and kills one of them at a seeded moment of the
run; every other trial while a worker has a shard's temporary file open, half of these in shards so
large that they are written past the page cache. The run is started again where it ended, and every
object, every array and all metadata are compared with an undisturbed run. One line a trial; exit
status 1 when one of them differs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.storage.store import is_complete
from dglzarr.testing import write_compendium
from tests.builders import digests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

VICTIMS = ("worker", "scheduler", "coordinator", "everything")
STORES = ("expression", "normalized", "samples")
SECONDS = 120
PROGRAM = """
import sys
from dglzarr.cli import guarded
from dglzarr.settings import load_settings
from dglzarr.storage.options import Run
from dglzarr.studies.plan import mine

def say(what, done, total):
    print(f"{what} {done}/{total}", flush=True)

def run():
    only = ("ingest", "join", "normalize", "dedup")
    mine(load_settings(sys.argv[1]), only=only, run=Run(on_progress=say))

if __name__ == "__main__":
    sys.exit(guarded(run))
"""
SETTINGS = """
root = "study"
[[sources]]
uri = {uri!r}
[ingest]
split_by = "sample"
shard_samples = {shard}
[dedup]
n_clusters = 8
[select]
n_landmarks = 10
[cluster]
kind = "address"
address = "{address}"
"""


class MissedError(Exception):
    """The run ended before its moment came: no worker was met in a write."""


@dataclass(frozen=True)
class Kill:
    """Who dies, after how many lines of progress, whether in a write, in shards of which size."""

    victim: str
    line: int
    in_write: bool
    n_workers: int
    shard: int


@dataclass(frozen=True)
class Outcome:
    """What a trial saw."""

    kill: Kill
    stage: str
    status: int
    said: str
    n_finished: int
    n_kept: int
    n_partial: int
    difference: str

    def row(self) -> str:
        """Return the trial as one line of the table."""
        moment = f"line {self.kill.line}" + (", in a write" if self.kill.in_write else "")
        ended = {0: "went on", -signal.SIGKILL: "died"}.get(self.status, f"status {self.status}")
        return (
            f"{self.kill.n_workers}  {self.kill.shard:>5}  {self.kill.victim:<11}  {moment:<21}  "
            f"{self.stage:<28}  "
            f"{ended:<8}  {self.n_kept:>2} of {self.n_finished:>2}  {self.n_partial:>2}  "
            f"{self.difference or 'equal'}"
        )


HEADER = (
    "w  shard  killed       when                   during                        the run   "
    "kept      tmp  against undisturbed"
)


class Processes:
    """A Dask scheduler and its workers, each a process (and a nanny) of its own."""

    def __init__(self, folder: Path, n_workers: int) -> None:
        self.folder, self.n_workers = folder, n_workers
        self.scheduler: subprocess.Popen[bytes]
        self.nannies: list[subprocess.Popen[bytes]]

    def start(self) -> Processes:
        """Start them all and wait for the workers' processes."""
        place = self.folder / "scheduler.json"
        place.unlink(missing_ok=True)
        where = ["--scheduler-file", str(place), "--no-dashboard"]
        self.scheduler = self._spawn("scheduler", "--port", "0", "--host", "127.0.0.1", *where)
        options = ["--nthreads", "1", "--memory-limit", "3GiB", "--host", "127.0.0.1"]
        local = ["--local-directory", str(self.folder / "dask")]
        _wait(lambda: place.exists() and place.stat().st_size > 0, pause=0.05)
        self.nannies = [
            self._spawn("worker", *where, *options, *local) for _ in range(self.n_workers)
        ]
        _wait(lambda: len(self.workers) == self.n_workers, pause=0.1)  # it looks at each process
        return self

    def stop(self) -> None:
        """Kill what is left of them."""
        for process in (*self.nannies, self.scheduler):
            _kill_group(process)

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        return str(json.loads((self.folder / "scheduler.json").read_text())["address"])

    @property
    def workers(self) -> list[int]:
        """The workers' process ids."""
        return sorted(w for nanny in self.nannies for w in _spawned_by(nanny.pid))

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "dask.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *command],
                stdout=log, stderr=log, start_new_session=True, cwd=self.folder,
            )  # fmt: skip


@contextlib.contextmanager
def processes(folder: Path, n_workers: int) -> Iterator[Processes]:
    """Yield running processes; none is left at the end."""
    cluster = Processes(folder, n_workers).start()
    try:
        yield cluster
    finally:
        cluster.stop()


def prepare(folder: Path, *, n_samples: int, n_genes: int) -> Path:
    """Return the compendium that all runs read."""
    return write_compendium(folder / "compendium.gctx", n_samples=n_samples, n_genes=n_genes)


def undisturbed(folder: Path, source: Path, *, shard: int, n_workers: int) -> list[str]:
    """Run to the end; return the lines of progress."""
    folder.mkdir()
    with processes(folder, n_workers) as cluster:
        run = _start(folder, source, cluster, shard)
        status = run.wait(timeout=SECONDS)
    assert status == 0, (folder / "run.log").read_text()
    return _progress(folder)


def trial(folder: Path, source: Path, kill: Kill, *, reference: Path, tries: int = 5) -> Outcome:
    """Kill somebody, run again, and tell how what stands there differs from the reference.

    Raises
    ------
    MissedError
        When the run ended ``tries`` times before its moment came.
    """
    for attempt in range(tries):
        place = folder / str(attempt)
        place.mkdir(parents=True)
        try:
            return _trial(place, source, kill, reference)
        except MissedError:
            kill = replace(kill, line=1)
        finally:
            shutil.rmtree(place)
    raise MissedError(f"{kill}: no such moment in {tries} runs")


def _trial(folder: Path, source: Path, kill: Kill, reference: Path) -> Outcome:
    root = folder / "study"
    cluster = Processes(folder, kill.n_workers).start()
    try:
        run = _start(folder, source, cluster, kill.shard)
        _wait(lambda: run.poll() is not None or len(_progress(folder)) >= kill.line)
        workers = cluster.workers
        if kill.in_write:
            workers = _frozen_in_write(workers, root, run)
        if run.poll() is not None:
            raise MissedError
        _strike(kill.victim, cluster, workers, run)
        n_partial = len(_partial_files(root))
        _signal(workers, signal.SIGCONT)
        stage = _progress(folder)[-1]
        finished = _objects(root)
        status = run.wait(timeout=SECONDS)
        said = (folder / "run.err").read_text().strip()
        if kill.victim in ("scheduler", "everything"):
            cluster.stop()
            cluster.start()
        if status:
            again = _start(folder, source, cluster, kill.shard)
            assert again.wait(timeout=SECONDS) == 0, (folder / "run.err").read_text()
    finally:
        cluster.stop()
    after = _objects(root)
    n_kept = sum(after.get(name) == made for name, made in finished.items())
    difference = compare(root, reference / "study")
    return Outcome(kill, stage, status, said, len(finished), n_kept, n_partial, difference)


def _frozen_in_write(workers: Sequence[int], root: Path, run: subprocess.Popen[bytes]) -> list[int]:
    """Stop all workers while one has a temporary file open; return them, that one first."""
    while run.poll() is None:
        if not _partial_files(root):
            time.sleep(0.001)  # the workers need the processor
            continue
        _signal(workers, signal.SIGSTOP)
        writing = [worker for worker in workers if _has_partial_open(worker)]
        if writing and _partial_files(root):
            return [*writing, *(worker for worker in workers if worker not in writing)]
        _signal(workers, signal.SIGCONT)
    return []


def _has_partial_open(process: int) -> bool:
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{process}/fd").iterdir():
            with contextlib.suppress(OSError):
                if link.readlink().suffix == ".partial":
                    return True
    return False


def _signal(processes: Sequence[int], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _strike(
    victim: str, cluster: Processes, workers: Sequence[int], run: subprocess.Popen[bytes]
) -> None:
    """Kill -9 one process, the first of the workers, or all of them, the workers first."""
    if victim in ("worker", "everything"):
        _signal(workers if victim == "everything" else workers[:1], signal.SIGKILL)
    if victim == "scheduler":
        os.kill(cluster.scheduler.pid, signal.SIGKILL)
    if victim in ("coordinator", "everything"):
        os.kill(run.pid, signal.SIGKILL)
    if victim == "everything":
        cluster.stop()


def compare(root: Path, reference: Path, *, values_only: Sequence[str] = ()) -> str:
    """Return the first difference of two studies, "" for none.

    Every object, every array and the metadata but the time and the name that a store is given at
    its creation. ``values_only`` names arrays of which only the values are compared, no others:
    studies of other shards.
    """
    for name in STORES:
        ours, theirs = (r / "segments" / "0000" / f"{name}.zarr" for r in (root, reference))
        if not is_complete(str(ours)):
            return f"{name} is not complete"
        if not values_only:
            if digests(ours) != digests(theirs):
                return f"{name}: other objects"
            if metadata(ours, root) != metadata(theirs, reference):
                return f"{name}: other metadata"
        found, wanted = (dict(zarr.open_group(str(s), mode="r").arrays()) for s in (ours, theirs))
        if set(found) != set(wanted):
            return f"{name}: other arrays"
        for array in values_only or found:
            if array in found and not np.array_equal(
                found[array][...], wanted[array][...], equal_nan=found[array].dtype.kind == "f"
            ):
                return f"{name}: other values of {array}"
    left = [str(p.relative_to(root)) for p in root.rglob("*.partial")]
    return f"left behind: {left[0]}" if left else ""


def metadata(store: Path, *folders: Path | str) -> dict[str, Any]:
    """Return every zarr.json of a store, without the folders that it names, names and time."""
    found = {}
    for path in sorted(store.rglob("zarr.json")):
        text = path.read_text()
        for folder in folders:
            text = text.replace(str(folder), "")
        named = r'(\\*"(?:store_id|created|digest)\\*": \\*")[^"\\]*'  # also in attributes, as text
        content = json.loads(re.sub(named, r"\1", text))
        found[str(path.relative_to(store))] = content
    return found


def _start(folder: Path, source: Path, cluster: Processes, shard: int) -> subprocess.Popen[bytes]:
    text = SETTINGS.format(uri=str(source), shard=shard, address=cluster.address)
    (folder / "study.toml").write_text(text)
    with (folder / "run.log").open("wb") as out, (folder / "run.err").open("wb") as err:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "study.toml"],
            cwd=folder, stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip


def _progress(folder: Path) -> list[str]:
    """Return the whole lines of progress so far."""
    return (folder / "run.log").read_text().split("\n")[:-1]


def _partial_files(root: Path) -> list[str]:
    """Return the temporary files of shards."""
    found = []
    for name in STORES[:2]:
        with contextlib.suppress(OSError):
            for shard in os.scandir(root / "segments" / "0000" / f"{name}.zarr" / "expression/c"):
                found += [f.name for f in os.scandir(shard) if f.name.endswith(".partial")]
    return found


def _objects(root: Path) -> dict[str, tuple[int, int]]:
    """Return the shards that are there, and the file that each one is."""
    paths = root.glob("segments/0000/*.zarr/expression/c/*/0")
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in paths}


def _spawned_by(parent: int) -> list[int]:
    """Return the processes that multiprocessing has spawned for a process, but for its helpers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            is_worker = b"spawn_main" in (folder / "cmdline").read_bytes()
            if int(fields[1]) == parent and fields[0] != "Z" and is_worker:
                found.append(int(folder.name))
    return found


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=SECONDS)


def _wait(is_time: Callable[[], bool], *, pause: float = 0.002) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_time():
        assert time.monotonic() < deadline, "it never was time"
        time.sleep(pause)


def draw(n_trials: int, n_lines: Mapping[int, int], *, seed: int) -> list[Kill]:
    """Return seeded kills, half of them in a write; ``n_lines`` a run for each size of shard.

    Every victim as often, with 1 and 2 workers and each size of shard in turn. Writes happen in
    the first half of the lines: the joining, and the normalizing.
    """
    rng = np.random.default_rng(seed)
    shards = sorted(n_lines)
    kills = []
    for i in range(n_trials):
        in_write, pair = i % 2 == 1, i // 2
        shard = shards[(pair + pair // len(VICTIMS)) % len(shards)]
        last = n_lines[shard] // 2 if in_write else n_lines[shard] - 1
        victim = VICTIMS[pair % len(VICTIMS)]
        line = int(rng.integers(1, last))
        kills.append(Kill(victim, line, in_write, 1 + (i // 8 + i) % 2, shard))
    return kills


def main() -> int:
    """Run the trials asked for and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--n-samples", type=int, default=768)
    parser.add_argument("--n-genes", type=int, default=22_268)
    parser.add_argument("--shards", type=int, nargs="+", default=[64, 256], help="samples a shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", default=None, help="folder for all the data")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="kills-", dir=asked.scratch) as place:
        folder = Path(place)
        source = prepare(folder, n_samples=asked.n_samples, n_genes=asked.n_genes)
        references = {shard: folder / f"reference-{shard}" for shard in asked.shards}
        n_lines = {
            shard: len(undisturbed(reference, source, shard=shard, n_workers=2))
            for shard, reference in references.items()
        }
        say(HEADER)
        equal = 0
        for i, kill in enumerate(draw(asked.trials, n_lines, seed=asked.seed)):
            found = trial(folder / f"trial-{i}", source, kill, reference=references[kill.shard])
            equal += not found.difference
            say(found.row() + (f"  | {found.said}" if found.said else ""))
    say(f"{equal} of {asked.trials} trials end with the objects of the undisturbed run")
    return int(equal < asked.trials)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
