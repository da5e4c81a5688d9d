"""What the tests of the command line share: its settings, and what a command printed."""

import sys
from pathlib import Path

import typer.main

from dglzarr.cli import app
from dglzarr.studies.plan import OPTIONAL, STEPS

ALWAYS = tuple(name for name in STEPS if name not in OPTIONAL)
COMMANDS = typer.main.get_command(app).commands
PROGRAM = Path(sys.executable).with_name("dglzarr")
SETTINGS = (
    "cluster.kind=none",
    "train.hidden=12",
    "train.n_latent=4",
    "train.epochs=1",
    "select.n_random=2",
)
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]
MADE = (
    "expression", "normalized", "samples", "latent", "reconstruction", "contributions", "scores",
    "landmarks", "evaluation",
)  # fmt: skip


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def lines(self):
        return self.out.splitlines()


def one_line(result):
    assert result.out == ""
    assert result.err.count("\n") == 1
    return result.err


def size_of(path):
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def check_sizes(estimates, root):
    """Each line of a dry run within a factor of three of what was written, the sum within two."""
    beside = {
        "report": [root / "figures", root / "report_data"],
        "select": list(root.glob("*.tsv")),
    }
    for line in estimates:
        real = size_of(line.writes) + sum(size_of(p) for p in beside.get(line.name, []))
        assert real / 3 < line.nbytes < real * 3, (line.name, line.nbytes, real)
    total = sum(line.nbytes for line in estimates)
    assert size_of(root) / 2 < total < size_of(root) * 2
