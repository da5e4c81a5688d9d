"""Faults at random moments of every stage; after each the study is as if nothing had happened.

    python tests/chaos.py --faults 300

A tiny study is mined, compared, replicated, grown twice and compacted, in a process of its own,
undisturbed. Then again and again, on the disk, on a Dask cluster of other processes, in a bucket
and as flows of a Prefect server, while faults happen in each stage:

- ``run killed``: the coordinating process, with -9; ``worker`` and ``scheduler`` killed likewise
- ``second run``: another run begins on the same root
- ``disk full``: no file may be longer than some bytes; ``memory``: nor the process larger
- ``clock``: files and process are of another day, then the run is killed
- ``500``, ``503``, ``slow``, ``cut``: what the bucket's server answers for some seconds; ``server``
  is the server that clients reach, killed with -9 and started again seconds later
- ``prefect server``: that of the flows, likewise

Each time it is run again, and when the study is done every object of every store, the metadata, the
weights of the models and the tables are compared with the undisturbed ones. One line is printed a
study and tables at the end; exit status 1 when one differs, a run hangs, or a fault was not told in
one line. Runs are forks of a process that has imported everything, so that they begin at once, and
figures, which are not compared, are drawn only where the fault is in ``report``: they are half of
the work of a small study.

SIGTERM ends it with the study under way, which is finished and compared; a second one at once.
``--record FILE`` appends a line of JSON a fault, so that several runs become one table:

    python tests/chaos_tables.py FILE
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from functools import partial
from importlib import import_module
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import blas

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.cli import guarded
from dglzarr.settings import load_settings
from dglzarr.studies.compact import compact
from dglzarr.studies.copy import copy_study
from dglzarr.studies.cross_validate import cross_validate
from dglzarr.studies.grow import grow
from dglzarr.studies.plan import mine
from dglzarr.studies.stability import replicate
from tests import bucket
from tests.builders import digests, simulate, undrawn, write_files
from tests.chaos_tables import tables
from tests.kills import Processes, metadata, say
from tests.prefect_server import Server, load_flows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dglzarr.settings import Settings

ANSWERS = ("500", "503", "slow", "cut")
FAULTS = {
    "disk": ("run killed", "disk full", "run killed", "memory", "second run", "clock"),
    "cluster": ("worker", "run killed", "scheduler"),
    "bucket": ("run killed", "503", "server", "cut", "500", "slow", "second run"),
    "flow": ("prefect server", "prefect server", "run killed"),
}
"""What happens to a study, in turn, by where it stands or is worked on."""
NAMES = tuple(dict.fromkeys(name for names in FAULTS.values() for name in names))
SLOWER = {"disk": 1, "cluster": 2, "bucket": 2, "flow": 3}
"""How much longer steps take there, about: faults come within that time."""
SECONDS, WHOLE_SECONDS = 240, 1200
HANGS = "it hangs"
WARNINGS = ("taken over from", "cannot be renewed yet")
"""Of a lease, which may stand before the line that tells of the end."""
SETTINGS = """
root = "{root}"
seed = 6
[[sources]]
uri = "GSE*"
[ingest]
split_by = "sample"
shard_samples = 16
[dedup]
n_clusters = 4
[train]
hidden = 8
n_latent = 3
epochs = 4
batch_size = 16
[select]
n_landmarks = 5
n_random = 2
[group]
label = "tissue"
[cluster]
{cluster}
"""
MORE = """
[compare]
n_folds = 2
sizes = [3]
selectors = ["variance"]
predictors = ["ridge"]
[stability]
n_seeds = 2
n_halves = 0
"""
"""Of a study that is compared and replicated too."""
SECOND = "-second"
"""Of the files by which a second run is followed."""
PROGRESS = r"\w+: .+ \d+/\d+.*"
"""A line of progress, which flows write."""
LATER = ("GSE900002_series_matrix.txt", "GSE900003_series_matrix.txt")
"""The series that the study grows by, one after the other; then their segments become one."""


class Met(NamedTuple):
    """A fault that met a run at work: how that ended, and what it said if not one line."""

    place: str
    fault: str
    step: str
    status: int
    untold: str


class Ended(NamedTuple):
    """How a run ended: its status, negative where a signal ended it, and what it said."""

    status: int
    said: str


# ---------------------------------------------------------------- in a run


class Enough(Exception):  # noqa: N818  (no error)
    """The step that something was to happen in has ended well."""


def work(
    folder: Path, step: str, strike: Callable[[], None] | None, run: str = "", kind: str = ""
) -> None:
    """Do all that is done to a study, up to a step; note each that begins, and strike in that."""
    progress = os.open(folder / f"steps{run}", os.O_WRONLY | os.O_CREAT)
    if step != "report":
        undrawn().__enter__()

    def begin(name: str) -> None:
        if step and step in begun(folder, run):
            raise Enough
        os.write(progress, f"{name}\n".encode())
        if name == step and strike is not None:
            strike()

    verbs = as_flows(begin) if kind == "flow" else plainly(begin)
    settings, held = load_settings(str(folder / "study.toml")), folder / "held"
    if (held / LATER[0]).exists():  # else all of this was done before
        verbs["mine"](settings)
        if MORE in (folder / "study.toml").read_text("utf-8"):
            for name in ("compare", "stability"):
                begin(name)
                verbs[name](settings)
    begin("grow")
    for name in LATER:
        with contextlib.suppress(FileNotFoundError):  # it is there already
            (held / name).rename(folder / name)
        verbs["grow"](load_settings(str(folder / "study.toml")))
    begin("compact")
    compact(settings.root, keep_hours=0)
    begin("done")


def plainly(begin: Callable[[str], None]) -> dict[str, Callable[[Settings], object]]:
    """Return what is done to a study, by verb; each step of mining begins first."""

    def execute(step: Any, run: Any) -> Any:
        begin(step.name)
        return step(run)

    return {
        "mine": lambda settings: mine(settings, execute=execute),
        "compare": cross_validate,
        "stability": replicate,
        "grow": grow,
    }


def as_flows(begin: Callable[[str], None]) -> dict[str, Callable[[Settings], object]]:
    """Return it as flows of the server that the environment names."""
    flows = load_flows()
    as_task = flows.as_task

    def execute(step: Any, run: Any) -> Any:
        begin(step.name)
        return as_task(step, run)

    def mined(settings: Settings) -> object:
        flows.as_task = execute
        try:
            return flows.called("mine", settings)
        finally:
            flows.as_task = as_task

    others = ("compare", "stability", "grow")
    return {"mine": mined, **{name: partial(flows.called, name) for name in others}}


def start(
    folder: Path,
    step: str = "",
    strike: Callable[[], None] | None = None,
    run: str = "",
    kind: str = "",
) -> int:
    """Work on a study in a fork; ``strike`` is called in it when it begins a step."""
    for name in ("steps", "said"):
        (folder / f"{name}{run}").unlink(missing_ok=True)
    return forked(lambda: work(folder, step, strike, run, kind), folder / f"said{run}")


def forked(call: Callable[[], object], said: Path) -> int:
    """Call in a fork as a command does, what it says in a file; return its process id."""
    if pid := os.fork():
        return pid
    status = 70
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        file = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.chdir(said.parent)
        status = guarded(call)
    except Enough:
        status = 0
    except BaseException:  # noqa: BLE001  (what is not told in one line shows here)
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def limit(what: int, value: int) -> None:
    """Bound a resource of this process."""
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def used() -> int:
    """Return the bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * resource.getpagesize()


def used_with_threads() -> int:
    """Return it with the threads of OpenBLAS, which a fork has not, and waits for without end."""
    square = np.ones((1024, 1024))
    np.dot(square, square)
    blas.dgemm(1.0, square, square)
    return used()


def skew(folder: Path, seconds: float) -> None:
    """Let all files and the process's clock be of another day."""
    real = time.time
    time.time = lambda: real() + seconds
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (real() + seconds,) * 2)


# ---------------------------------------------------------------- seen from outside


def wait(folder: Path, pid: int, run: str = "", *, seconds: float = SECONDS) -> Ended:
    """Return how a run ended; one that does not end in time is killed, and says so."""
    until_ended(pid, seconds)
    hangs = not has_ended(pid)
    if hangs:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    file = folder / f"said{run}"
    said = file.read_text("utf-8").strip() if file.exists() else ""
    return (
        Ended(70, f"{HANGS}\n{said}") if hangs else Ended(os.waitstatus_to_exitcode(status), said)
    )


def has_ended(pid: int) -> bool:
    """Return whether a run has ended; it is still to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def until_ended(pid: int, seconds: float) -> None:
    """Wait some seconds, or until a run has ended."""
    deadline = time.monotonic() + seconds
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.002)


def begun(folder: Path, run: str = "") -> list[str]:
    """Return the steps that a run has begun."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / f"steps{run}").read_text("utf-8").splitlines()
    return []


def until(folder: Path, pid: int, step: str) -> bool:
    """Wait for a step to begin; return whether the run still works."""
    deadline = time.monotonic() + SECONDS
    while step not in begun(folder) and not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.001)
    return not has_ended(pid)


class Place:
    """Where studies stand and are worked on: what they need there, and how it is harmed."""

    def __init__(self, kind: str, folder: Path, more: str = MORE) -> None:
        self.kind, self.folder, self.more = kind, folder, more
        self.cluster = Processes(folder, 2) if kind == "cluster" else None
        self.answer = folder / "answer"
        """What the bucket's server answers; absent: what is asked for."""

    @contextlib.contextmanager
    def opened(self) -> Iterator[Place]:
        """Start what studies need."""
        self.folder.mkdir()
        with contextlib.ExitStack() as stack:
            if self.cluster:
                stack.callback(self.cluster.stop)
                self.cluster.start()
            if self.kind == "bucket":
                self.endpoint = stack.enter_context(bucket.server(self.folder))
                self.port, self.server = 0, 0
                self.serve()
                stack.callback(lambda: os.kill(self.server, signal.SIGKILL))
                os.environ |= bucket.environment(f"http://127.0.0.1:{self.port}")
            if self.kind == "flow":
                self.prefect = Server(self.folder)
                stack.callback(self.prefect.stop)
                self.prefect.serve()
                asked = self.prefect.environment
                os.environ |= {k: v for k, v in asked.items() if k.startswith("PREFECT_")}
                os.environ["PREFECT_LOGGING_LEVEL"] = "CRITICAL"
            yield self

    def write(self, study: Path) -> None:
        """Write the settings of a study as of now."""
        root = f"s3://{bucket.BUCKET}/{study.parent.name}" if self.kind == "bucket" else "study"
        cluster = 'kind = "none"'
        if self.cluster:
            cluster = f'kind = "address"\naddress = "{self.cluster.address}"'
        text = SETTINGS.format(root=root, cluster=cluster) + self.more
        (study / "study.toml").write_text(text, encoding="utf-8")

    def serve(self) -> None:
        """Start what stands before the server, in a fork; its second time on the same port."""
        said = self.folder / "port"
        said.unlink(missing_ok=True)
        self.server = forked(lambda: serve(self.endpoint, self.port, self.answer, said), said)
        while not (said.exists() and said.read_text("utf-8").endswith("\n")):
            time.sleep(0.01)
        self.port = int(said.read_text("utf-8"))

    def harm(self, fault: str, seconds: float) -> None:
        """Harm what is not the run."""
        if fault in ANSWERS:
            self.answer.write_text(fault, encoding="utf-8")
            time.sleep(seconds)
            self.answer.unlink()
        elif fault == "server":
            os.kill(self.server, signal.SIGKILL)
            os.waitpid(self.server, 0)
            time.sleep(seconds)
            self.serve()
        elif fault == "prefect server":
            self.prefect.kill_last()
            time.sleep(seconds)
            self.prefect.serve()
        elif self.cluster:
            victims = {
                "worker": self.cluster.workers[:1],
                "scheduler": [self.cluster.scheduler.pid],
            }
            for victim in victims[fault]:
                os.kill(victim, signal.SIGKILL)

    def mend(self, fault: str, study: Path) -> None:
        """Start anew what does not come back by itself."""
        if fault == "scheduler" and self.cluster:
            self.cluster.stop()
            self.cluster.start()
            self.write(study)

    def compared(self, study: Path, reference: Path) -> str:
        """Return the first difference from the undisturbed study on the disk, "" for none."""
        root = study / "study"
        named = str(root)
        if self.kind == "bucket":
            named = load_settings(str(study / "study.toml")).root
            ended = wait(study, forked(lambda: copy_study(named, str(root)), study / "said"))
            if ended.status:
                return ended.said
        return difference(root, (named, str(study)), reference / "study")


def serve(endpoint: str, port: int, answer: Path, said: Path) -> None:
    """Pass requests on, but for those that are spoiled as a file says."""

    def spoil(*_: str) -> int | float | str | None:
        with contextlib.suppress(FileNotFoundError):
            how = answer.read_text("utf-8")
            return 2.0 if how == "slow" else how if how == "cut" else int(how)
        return None

    proxy = bucket.Proxy(endpoint, port)
    proxy.spoil = spoil
    said.write_text(f"{proxy.address.rpartition(':')[2]}\n", encoding="utf-8")
    signal.pause()


class Study:
    """One study that faults befall; ``met`` are those that met a run at work."""

    def __init__(self, folder: Path, place: Place, seed: Sequence[int] = (0,)) -> None:
        self.folder, self.place, self.rng = folder, place, np.random.default_rng(seed)
        self.met: list[Met] = []
        self.untold: list[str] = []
        folder.mkdir(parents=True)
        write_files(folder, simulate(64, 30, n_series=4, n_hubs=6, n_duplicates=4, seed=4))
        (folder / "held").mkdir()
        for name in LATER:
            (folder / name).rename(folder / "held" / name)
        place.write(folder)

    def start(self, *asked: Any, **more: Any) -> int:
        """Work on it in a fork."""
        return start(self.folder, *asked, **more, kind=self.place.kind)

    def undisturbed(self) -> dict[str, float]:
        """Make it without faults; return the seconds of each step."""
        pid, when = self.start(), {}
        while not has_ended(pid):
            for name in begun(self.folder):
                when.setdefault(name, time.monotonic())
            time.sleep(0.002)
        ended = wait(self.folder, pid)
        assert ended.status == 0, ended.said
        when.setdefault("done", time.monotonic())
        return {a: when[b] - when[a] for a, b in pairwise(when)}

    def meet(self, fault: str, step: str, within: float) -> None:
        """Let a fault happen at a random moment of a step, and the run end as it does."""
        nbytes, more, moment = (
            self.rng.integers(100, 9000),
            self.rng.integers(2**24),
            self.rng.random(),
        )
        strikes: dict[str, Callable[[], None]] = {
            "disk full": lambda: limit(resource.RLIMIT_FSIZE, int(nbytes)),
            "memory": lambda: limit(resource.RLIMIT_AS, used_with_threads() + int(more)),
            "clock": lambda: skew(self.folder, 86400.0 * (-1) ** int(nbytes)),
        }
        pid, second = self.start(step, strikes.get(fault)), None
        if until(self.folder, pid, step):
            until_ended(pid, within * moment)
        works = not has_ended(pid)
        if works:
            if fault in ("run killed", "clock"):
                os.kill(pid, signal.SIGKILL)
            elif fault == "second run":
                second = self.start(step, run=SECOND)
            elif fault not in strikes:
                self.place.harm(fault, float(self.rng.uniform(0.5, 6)))
        ends = [wait(self.folder, pid)]
        if second:
            ends.append(wait(self.folder, second, SECOND))
        self.place.mend(fault, self.folder)
        is_told = [self.note(fault, step, ended) for ended in ends]
        if (fault in strikes and ends[0].status != 0) or works:
            how = "" if all(is_told) else ends[is_told.index(False)].said[-1500:]
            self.met.append(Met(self.place.kind, fault, step, ends[0].status, how))

    def note(self, fault: str, step: str, ended: Ended) -> bool:
        """Return whether it was told in one line; without memory libraries fail as they like."""
        lines = [
            line
            for line in ended.said.splitlines()
            if not any(w in line for w in WARNINGS) and not re.fullmatch(PROGRESS, line)
        ]
        is_told = not ended.said.startswith(HANGS) and (
            ended.status <= 0 or fault == "memory" or len(lines) == 1
        )
        if not is_told:
            self.untold.append(f"{fault} in {step}: status {ended.status}\n{ended.said[-1500:]}")
        return is_told

    def finish(self, reference: Path) -> str:
        """Run to the end; return the first difference from the undisturbed study, "" for none."""
        ended = wait(self.folder, self.start(), seconds=WHOLE_SECONDS)
        if ended.status:
            return f"the last run ended with {ended.status}: {ended.said[-1500:]}"
        return self.place.compared(self.folder, reference)


def difference(root: Path, named: tuple[str, str], reference: Path) -> str:
    """Return the first difference of two studies, "" for none.

    Names that stores are given at their creation, times and folders apart; ``named`` is what the
    study calls its root, and the folder of its files.
    """
    ours, theirs = (
        {as_any(p.relative_to(r)): p for p in r.rglob("*.zarr")} for r in (root, reference)
    )
    if ours.keys() != theirs.keys():
        return f"other stores: {sorted(ours.keys() ^ theirs.keys())}"
    for name in ours:
        if digests(ours[name]) != digests(theirs[name]):
            return f"{name}: other objects"
        told = (
            metadata(ours[name], *named),
            metadata(theirs[name], reference, reference.parent),
        )
        if as_any(told[0]) != as_any(told[1]):
            return f"{name}: other metadata"
    weights = [sorted(r.rglob("weights.npz")) for r in (root, reference)]
    if len(weights[0]) != len(weights[1]):
        return "other models"
    for one, other in zip(*weights, strict=True):
        a, b = np.load(one), np.load(other)
        if set(a) != set(b) or any(not np.array_equal(a[n], b[n]) for n in a):
            return f"{one.parent.name}: other weights"
    for path in [*root.glob("*.tsv"), root / "study.json"]:
        if path.read_bytes() != (reference / path.name).read_bytes():
            return f"{path.name}: other content"
    left = [str(p.relative_to(root)) for p in root.rglob("*.partial")]
    return f"left behind: {left[0]}" if left else ""


def as_any(told: object) -> str:
    """Return text without what differs by time: names of replicates' folders, times of files."""
    text = re.sub("stability/[0-9a-f]{8}", "stability/any", str(told))
    return re.sub(r'"stat": "[^"]*"', "", text)


# ---------------------------------------------------------------- all of it


def schedule(
    kind: str, steps: Sequence[str], each: int, number: int, only: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield the faults of one study and their steps: the kinds of its place in turn."""
    kinds = [fault for fault in FAULTS[kind] if not only or fault in only]
    for i, step in enumerate(steps):
        for j in range(each if kinds else 0):
            yield kinds[(i * each + j + number) % len(kinds)], step


def main() -> int:
    """Make studies until enough faults were met; print tables of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=1e9, help="no fault begins after these")
    parser.add_argument("--each", type=int, default=3, help="faults in a step of a study")
    parser.add_argument("--places", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument(
        "--kinds", nargs="+", choices=NAMES, default=[], help="of faults; default all"
    )
    parser.add_argument("--steps", nargs="+", help="only faults in these; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", help="folder for the studies, 20 MB each")
    parser.add_argument("--record", help="file that faults are appended to, a line of JSON each")
    asked = parser.parse_args()

    def end(*_: object) -> None:
        if asked.faults == 0:
            sys.exit(143)
        asked.faults = 0

    signal.signal(signal.SIGTERM, end)
    load()
    rows: list[dict[str, Any]] = []
    n_studies = n_wrong = 0
    for study, wrong in tried(asked):
        n_studies, n_wrong = n_studies + 1, n_wrong + bool(wrong) + len(study.untold)
        found = [{**one._asdict(), "seed": asked.seed, "difference": wrong} for one in study.met]
        rows += found
        say(f"study {n_studies - 1}, {study.place.kind}: {len(found)} faults, {wrong or 'equal'}")
        for told in study.untold:
            say(f"  not told in one line: {told}")
        if asked.record:
            with Path(asked.record).open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in found)
    say(tables(rows))
    say(f"{len(rows)} faults in {n_studies} studies, {n_wrong} lost, wrong or untold")
    return int(n_wrong > 0)


def tried(asked: argparse.Namespace) -> Iterator[tuple[Study, str]]:
    """Yield studies that met faults, and how each differs, until enough were met."""
    last, n_met = time.monotonic() + 60 * asked.minutes, 0

    def is_enough() -> bool:
        return n_met >= asked.faults or time.monotonic() > last

    with (
        tempfile.TemporaryDirectory(prefix="chaos-", dir=asked.scratch) as folder,
        contextlib.ExitStack() as stack,
    ):
        kinds = dict.fromkeys(("disk", *asked.places))
        more = "" if asked.steps else MORE
        places = {k: stack.enter_context(Place(k, Path(folder, k), more).opened()) for k in kinds}
        undisturbed = Study(Path(folder, "undisturbed", "s"), places["disk"])
        seconds = undisturbed.undisturbed()
        for number in count():
            kind = asked.places[number % len(asked.places)]
            study = Study(Path(folder, str(number), "s"), places[kind], (asked.seed, number))
            steps, turn = asked.steps or list(seconds), asked.seed + number // len(asked.places)
            before = n_met
            for fault, step in schedule(kind, steps, asked.each, turn, asked.kinds):
                if not is_enough():
                    study.meet(fault, step, SLOWER[kind] * seconds[step])
                    n_met = before + len(study.met)
            wrong = study.finish(undisturbed.folder)
            yield study, wrong
            if wrong and asked.scratch:  # to be looked at
                kept = Path(asked.scratch, f"wrong-{asked.seed}-{number}")
                shutil.copytree(study.folder, kept, dirs_exist_ok=True)
            shutil.rmtree(study.folder.parent)
            if is_enough():
                return


def load() -> None:
    """Import what runs import, so that forks begin at once."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    for name in ("keras", "tensorflow", "xarray", "dask.array", "distributed", "matplotlib.pyplot"):
        import_module(name)


if __name__ == "__main__":
    sys.exit(main())
