"""Mutated files over all readers: each is read clean or refused in one line, in bounds.

    python tests/fuzz.py
    python tests/fuzz.py --seed 4711 --trials 1 --keep .

Trial N draws a small file of some format, mutates it and reads it, all from seed N. An error that
is none of the package's, a message of several lines, a warning, a trial that takes too long or too
much memory, or ends the process, is a fault; so is a clean file of which values differ from those
of another parser (pandas, h5py, anndata). Workers are processes that live on; a watchdog
replaces one that hangs or dies. A table of outcomes by format is printed, then each fault with the
command that repeats it; exit status 1 when there is one.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.errors import DglzarrError
from tests import fuzz_files as files
from tests.fuzz_doors import FORMATS, PEAK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

OUTCOMES = ("refused", "clean", "equal", "not comparable", "fault")
SECONDS = 60
"""Longest trial; on a machine with other work most take a hundredth of a second."""
MEMORY_NBYTES = 256 << 20
"""Most that a trial may hold beyond what its process does; what others take is not counted."""
LIMIT_NBYTES = 4 << 30
"""Address space that a worker may take beyond what it starts with."""


# ---------------------------------------------------------------- one trial


class Result(NamedTuple):
    """What came of a trial."""

    seed: int
    format: str
    outcome: str
    message: str = ""


def draw(seed: int) -> tuple[str, bytes]:
    """Return the format and the mutated file of a seed."""
    rng = Random(seed)
    names = list(FORMATS)
    (name,) = rng.choices(names, [FORMATS[name].weight for name in names])
    raw = FORMATS[name].draw(rng)
    return name, files.mutate(rng, raw, is_text=FORMATS[name].is_text)


def try_seed(seed: int, folder: Path) -> Result:
    """Draw, mutate and read the file of a seed."""
    name, raw = draw(seed)
    path = folder / "drawn.txt"
    path.write_bytes(raw)
    PEAK.begin()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            outcome, message = FORMATS[name].read(path), ""
    except DglzarrError as error:
        message = str(error)
        outcome = "refused" if message and len(message.splitlines()) == 1 else "fault"
    except (Exception, RecursionError) as error:  # noqa: BLE001  (whatever it is, it is no refusal)
        last = traceback.extract_tb(error.__traceback__)[-1]
        at = f"{Path(last.filename).name}:{last.lineno}"
        outcome, message = "fault", f"{type(error).__name__} at {at}: {str(error)[:300]}"
    if (taken := PEAK.taken()) > MEMORY_NBYTES:
        outcome, message = "fault", f"took {taken >> 20} MiB"
    return Result(seed, name, outcome, message)


# ---------------------------------------------------------------- workers and their watchdog


def _work(seeds: range, folder: Path, pipe: Connection) -> None:
    """Try seeds one after another and send what came of each."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + LIMIT_NBYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable()  # a sample left out is told by a warning
    for seed in seeds:
        pipe.send(try_seed(seed, folder))
    pipe.close()


@dataclass
class _Worker:
    """A process, the seeds that it has still to try, and since when it is silent."""

    seeds: range
    folder: Path
    process: BaseProcess = field(init=False)
    pipe: Connection = field(init=False)
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start a process for the seeds that are left."""
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe(duplex=False)
        self.folder.mkdir(exist_ok=True)
        self.process = context.Process(target=_work, args=(self.seeds, self.folder, theirs))
        self.process.start()
        theirs.close()
        self.since = time.monotonic()

    def take(self) -> Result | None:
        """Return what came of the next seed, None where the process has ended."""
        try:
            result: Result = self.pipe.recv()
        except EOFError:
            return None
        self.seeds, self.since = self.seeds[1:], time.monotonic()
        return result

    def replace(self, why: str) -> Result:
        """End the process, which fails at its next seed, and start another behind that."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        seed, self.seeds = self.seeds[0], self.seeds[1:]
        self.start()
        return Result(seed, draw(seed)[0], "fault", why)


def run(first: int, n_trials: int, *, n_workers: int, folder: Path) -> Iterator[Result]:
    """Yield what came of each trial, in no order."""
    stop = first + n_trials
    workers = [
        _Worker(range(first + i, stop, n_workers), folder / str(i)) for i in range(n_workers)
    ]
    while left := [worker for worker in workers if worker.seeds]:
        ready = wait([worker.pipe for worker in left], timeout=1)
        for worker in left:
            if worker.pipe in ready:
                result = worker.take()
                if result is None:
                    worker.process.join()
                    result = worker.replace(f"ended by signal {-(worker.process.exitcode or 0)}")
                yield result
            elif time.monotonic() - worker.since > SECONDS:
                yield worker.replace(f"took over {SECONDS} s")
    for worker in workers:
        worker.process.join()


# ---------------------------------------------------------------- the account


def tally(results: Iterable[Result]) -> tuple[Counter[tuple[str, str]], list[Result]]:
    """Return how often each outcome was seen by format, and the faults."""
    seen: Counter[tuple[str, str]] = Counter()
    faults = []
    for done, result in enumerate(results, start=1):
        seen[result.format, result.outcome] += 1
        if result.outcome == "fault":
            faults.append(result)
            sys.stderr.write(f"{result}\n")
        if done % 5000 == 0:
            sys.stderr.write(f"{done} files\n")
    return seen, faults


def lines(seen: Counter[tuple[str, str]]) -> Iterator[str]:
    """Yield the table of outcomes."""
    yield f"| Format | files | {' | '.join(OUTCOMES)} |"
    yield "| --- " * (2 + len(OUTCOMES)) + "|"
    for name in FORMATS:
        counts = [seen[name, outcome] for outcome in OUTCOMES]
        yield f"| {name} | {sum(counts)} | {' | '.join(map(str, counts))} |"
    sums = [sum(n for (_, o), n in seen.items() if o == outcome) for outcome in OUTCOMES]
    yield f"| all | {sum(sums)} | {' | '.join(map(str, sums))} |"


def main() -> int:
    """Run the trials; print the table and the faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first trial")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the drawn files of faults")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    start = time.monotonic()
    try:
        seen, faults = tally(run(asked.seed, asked.trials, n_workers=asked.workers, folder=folder))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write("\n".join([*lines(seen), f"{time.monotonic() - start:.0f} s", ""]))
    for fault in faults:
        sys.stdout.write(f"{fault.format}: {fault.message!r}\n")
        sys.stdout.write(f"    python tests/fuzz.py --seed {fault.seed} --trials 1\n")
        if asked.keep:
            asked.keep.mkdir(exist_ok=True)
            (asked.keep / f"{fault.seed}.bin").write_bytes(draw(fault.seed)[1])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
