"""Mine the demo here, on SLURM, on TLS workers, in a bucket, by the wheel and from a fresh clone.

    python tests/everywhere.py
    python tests/everywhere.py --small --places slurm tls

Every place starts real programs: Debian's SLURM, a Dask scheduler and workers over TLS, moto's S3
server, the wheel in an environment of its own and far from the sources, and ``make demo`` in what
``git clone`` gives of the last commit. The objects of each study are compared byte for byte with
those of the demo mined here, and a table says what was equal. Metadata name folders and times,
and are not compared. A place whose programs are not installed is named, as is one that fails. Exit
status 1 when a place fails, or anything that is compared differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.testing import write_study
from tests import bucket
from tests.builders import digests
from tests.kills import say
from tests.release import REPO, FailedError, Release
from tests.slurm import absent, slurm
from tests.tls import secured

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(sys.executable).with_name("dglzarr")
SMALL = ("train.epochs=2", "train.hidden=16", "train.n_latent=4", "select.n_random=3")
WORDED = {".html", ".tsv", ".csv", ".json", ".jsonl", ".err", ".out", ".log", ".lock"}
"""Files that name folders, processes and times (history.csv), or are made of what stores hold."""
OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "VENV", "PYTHON", "VIRTUAL_ENV"}
"""What ``make everywhere VENV=...`` would hand on to the clone's own ``make demo``."""
HEADER = """\
| place | panel | scores | weights | other objects | seconds |
| --- | --- | --- | --- | --- | --- |"""


class AbsentError(Exception):
    """What a place needs is not installed."""


class Demo:
    """The demo, or a small one, in folders below one."""

    def __init__(self, folder: Path, *, is_small: bool) -> None:
        self.folder, self.is_small = folder, is_small
        self.places: dict[str, Callable[[Path], Path]] = {
            "SLURM": self.on_slurm,
            "TLS workers": self.on_tls,
            "S3 server": self.in_bucket,
            "wheel": self.by_wheel,
            "fresh clone": self.from_clone,
        }
        self.seconds = 0.0

    def call(self, words: Sequence[object], cwd: Path, **environment: str) -> None:
        """Run a command to its end and add up its time.

        Raises
        ------
        FailedError
            With the end of what it said.
        """
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in OF_MAKE and not name.startswith(("DGLZARR", "PREFECT_"))
        }
        kept |= {"PREFECT_HOME": str(self.folder / "prefect"), **environment}
        started = time.monotonic()
        done = subprocess.run(
            [str(word) for word in words], cwd=cwd, env=kept, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.seconds += time.monotonic() - started
        if done.returncode:
            raise FailedError(" / ".join(done.stdout.strip().splitlines()[-3:]))

    def mine(self, place: Path, *choices: str, program: Path = HERE, **environment: str) -> Path:
        """Mine the demo in a folder; return the root of the study."""
        sizes = {"n_samples": 120, "n_genes": 160} if self.is_small else {}
        write_study(place / "demo", **sizes)
        given = [*(SMALL if self.is_small else ()), *choices]
        options = [word for choice in given for word in ("--set", choice)]
        self.call([program, "mine", "demo/study.toml", *options], place, **environment)
        return place / "demo" / "study"

    def on_slurm(self, place: Path) -> Path:
        """Two jobs of a real SLURM work."""
        if missing := absent():
            raise AbsentError(f"{', '.join(missing)} are not installed")
        choices = (
            "cluster.kind=slurm", "cluster.queue=short", "cluster.walltime=00:30:00",
            "cluster.memory_limit=2GiB", 'cluster.arguments={interface="lo"}',
        )  # fmt: skip
        with slurm(self.folder / "slurm") as environment:
            return self.mine(place, *choices, SLURM_CONF=environment["SLURM_CONF"])

    def on_tls(self, place: Path) -> Path:
        """A scheduler and two workers that take nothing but TLS work."""
        with secured(place) as (address, own):
            choices = {"kind": "address", "address": address, **own}
            return self.mine(place, *(f"cluster.{name}={value}" for name, value in choices.items()))

    def in_bucket(self, place: Path) -> Path:
        """Two local workers read and write a bucket; the study is copied out of it at the end."""
        root, copied = f"s3://{bucket.BUCKET}/study", place / "copied"
        with bucket.server(place) as endpoint:
            environment = bucket.environment(endpoint)
            self.mine(place, f"root={root}", **environment)
            mined = self.seconds
            self.call([HERE, "copy", root, copied], place, **environment)
            self.seconds = mined
        return copied

    def by_wheel(self, place: Path) -> Path:
        """The wheel mines, in an environment that has nothing of the sources."""
        python = Release(self.folder / "release").installed()
        return self.mine(place, program=python.with_name("dglzarr"))

    def from_clone(self, place: Path) -> Path:
        """``make demo`` as a reader of the README types it, environment included."""
        if self.is_small:
            raise AbsentError("make demo is of the whole demo alone")
        if not (REPO / ".git").exists() or not shutil.which("git"):
            raise AbsentError("git, or its history, is not here")
        self.call(["git", "clone", "--quiet", REPO, place / "clone"], place)
        self.call(["make", "demo"], place / "clone")
        return place / "clone" / "demo" / "study"

    def row(self, name: str, known: Path) -> tuple[str, bool]:
        """Return the line of a place, and whether all that is compared is as known."""
        place = self.folder / name.replace(" ", "-")
        place.mkdir()
        self.seconds = 0.0
        try:
            root = self.places[name](place)
        except AbsentError as error:
            return f"| {name} | not tried: {error} | | | | |", True
        except (FailedError, AssertionError, OSError, subprocess.SubprocessError) as error:
            said = " / ".join(str(error).strip().splitlines()[-3:]).replace("|", "/")
            return f"| {name} | failed: {said} | | | | |", False
        told, is_same = compared(root, known)
        return f"| {name} | {' | '.join(told)} | {self.seconds:.0f} |", is_same


def compared(root: Path, known: Path) -> tuple[list[str], bool]:
    """Return what to say of panel, scores, weights and the rest, and if all of them are equal."""
    found, wanted = digests(root), digests(known)
    told, rest = [], {n for n in {*found, *wanted} if Path(n).suffix not in WORDED}
    for part in ("landmarks.zarr/", "scores.zarr/", "models/"):
        names = {name for name in rest if name.startswith(part)}
        rest -= names
        told.append(_said(names, found, wanted))
    told.append(_said(rest, found, wanted))
    return told, all(word.startswith("equal") for word in told)


def _said(names: set[str], found: dict[str, str], wanted: dict[str, str]) -> str:
    """Return whether objects are there in both and equal, and which is the first that is not."""
    other = sorted(name for name in names if found.get(name) != wanted.get(name))
    if not names or other:
        return f"{len(other)} of {len(names)} differ" + (f": {other[0]}" if other else "")
    return f"equal ({len(names)})"


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = {name.split()[0].lower(): name for name in Demo(Path(), is_small=True).places}
    parser.add_argument("--places", nargs="+", choices=names, default=list(names))
    parser.add_argument("--small", action="store_true", help="120 samples, 2 epochs; no clone")
    parser.add_argument("--scratch", help="folder for all the data, about 8 GB")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everywhere-", dir=asked.scratch) as folder:
        demo = Demo(Path(folder), is_small=asked.small)
        (place := demo.folder / "here").mkdir()
        known = demo.mine(place)
        say(HEADER)
        say(f"| here, two local workers | | | | | {demo.seconds:.0f} |")
        are_same = True
        for name in asked.places:
            line, is_same = demo.row(names[name], known)
            say(line)
            are_same &= is_same
    return int(not are_same)


if __name__ == "__main__":
    sys.exit(main())
