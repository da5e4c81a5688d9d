"""A study of two series to be spoiled, and what a command then printed and returned."""

import json
import re
import sys

import numpy as np
import pytest

from dglzarr.cli import main
from dglzarr.storage.store import is_complete
from dglzarr.testing import write_series_matrix

PROGRESS = re.compile(r"^[\w ,-]+ \(\d+\)$")
GENES = [f"{i:02d}_at" for i in range(12)]
SETTINGS = {"ingest.split_by": "sample", "select.n_landmarks": 3, "cluster.kind": "none"}


class Run:
    """What a command printed and returned."""

    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def complaint(self):
        """The one line on stderr that is no progress."""
        lines = [line for line in self.err.splitlines() if line and not PROGRESS.match(line)]
        assert len(lines) == 1, self.err
        return lines[0]


class Study:
    """A study of two series of eight samples, to be spoiled."""

    def __init__(self, folder, capsys, monkeypatch):
        self.folder, self.root = folder, folder / "study"
        self.settings = dict(SETTINGS)
        self.sources = [{"uri": "GSE*"}]
        self.capsys, self.monkeypatch = capsys, monkeypatch
        self.values = np.random.default_rng(0).uniform(4, 14, (16, 12)).astype(np.float32)
        for name, rows in (("GSE1", slice(0, 8)), ("GSE2", slice(8, 16))):
            self.write(name, self.values[rows])

    def write(self, name, values, genes=None):
        path = self.folder / f"{name}_series_matrix.txt"
        return write_series_matrix(
            path, np.asarray(values), genes=genes or GENES[: np.shape(values)[1]],
            samples=[f"{name}-{i}" for i in range(len(values))], series=name, platform="GPL96",
        )  # fmt: skip

    def edit(self, name, old, new, count=1):
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, count))

    def replace(self, text, name="GSE1_series_matrix.txt"):
        (self.folder / name).write_text(text)

    def toml(self):
        lines = [f"root = {json.dumps(str(self.root))}"]
        for key, value in self.settings.items():
            lines.append(f"{key} = {value if key.startswith('raw ') else json.dumps(value)}")
        for source in self.sources:
            lines.append("[[sources]]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in source.items()]
        path = self.folder / "study.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def run(self, verb="ingest", *options):
        return self.call(verb, str(self.toml()), *options)

    def call(self, *arguments):
        self.monkeypatch.setattr(sys, "argv", ["dglzarr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Run(ended.value.code, *self.capsys.readouterr())

    @property
    def complete(self):
        """The stores that look complete, but for the raw ones."""
        stores = [path for path in self.root.rglob("*.zarr") if is_complete(str(path))]
        return [str(p.relative_to(self.root)) for p in stores if p.parent.name != "raw"]

    def expect(self, status, pattern, verb="ingest", *options):
        run = self.run(verb, *options)
        assert run.status == status
        assert re.search(pattern, run.complaint), run.complaint
        assert "Traceback" not in run.err
        assert self.complete == []
        return run


def word_among_numbers(study):
    study.edit("GSE1_series_matrix.txt", f"{study.values[0, 3]:.5f}", "high")


def large(study):
    """Let the study fill some hundred KiB, in several regions."""
    values = np.random.default_rng(1).uniform(4, 14, (64, 400)).astype(np.float32)
    names = [f"{i:03d}_at" for i in range(400)]
    for name, rows in (("GSE1", slice(0, 32)), ("GSE2", slice(32, 64))):
        study.write(name, values[rows], names)
    study.settings["ingest.shard_samples"] = 16
