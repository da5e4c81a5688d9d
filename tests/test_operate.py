"""What docs/operate.md tells an operator to type on a study works as it stands.

Its blocks for PostgreSQL, Prefect's server, schedules and automations are typed in
tests/flows/test_operate.py; those that install by hand (docs/reproduce.md).
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dglzarr.testing import write_study
from tests.pages import blocks

REPO = Path(__file__).resolve().parents[1]
PAGE = (REPO / "docs" / "operate.md").read_text(encoding="utf-8")
SMALL = """
[train]
epochs = 1
n_latent = 3
[select]
n_landmarks = 5
n_random = 2
[cluster]
kind = "none"
"""


def commands(heading):
    """The dglzarr commands, and those of Unix, of the blocks of a section, in order."""
    found = "".join(blocks(PAGE, heading)).replace("$(date +%F)", "DATE")
    lines = found.splitlines()
    return [line for line in lines if not re.match(r"\S*(pip|prefect|su)\b", line)]


class Operator:
    """A folder as the page has it, with the files of a study, and a shell."""

    def __init__(self, folder):
        self.folder = folder
        write_study(folder / "demo", n_samples=120, n_genes=60)
        (folder / "demo" / "data").rename(folder / "all")
        (folder / "geo").mkdir()
        for file in (folder / "all").glob("*_series_matrix.txt.gz"):
            file.rename(folder / "geo" / file.name)

    def types(self, line):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["/bin/bash", "-c", line], cwd=self.folder, env={**os.environ, "PATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_operate__a_study_from_its_draft_to_an_upgrade(tmp_path):
    operator = Operator(tmp_path)
    draft, *first = commands("The first study, by hand")
    assert operator.types(draft)[0] == 0
    settings = tmp_path / "study.toml"
    text = settings.read_text("utf-8").partition("\n[ingest]")[0]
    settings.write_text(text + SMALL, encoding="utf-8")
    said = {line: operator.types(line) for line in first}

    backup = commands("Backup and restore")
    copied = next(line for line in backup if line.startswith("flock"))
    with (tmp_path / "study" / "study.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert operator.types(copied)[0] == 1  # while a run changes the study
    later = [*commands("Disk"), *backup, *commands("Upgrades")]
    said |= {line: operator.types(line) for line in later}
    assert {line: told for line, (status, told) in said.items() if status} == {}
    assert "Nothing to merge" in said["dglzarr compact study"][1]
    assert " to do " not in said["dglzarr mine study.toml --dry-run"][1]  # after all that
    table = said["dglzarr mine study.toml"][1]
    states = re.findall(r"^\w+ +(\w+) +[\d.]+ .*\.zarr$", table, re.MULTILINE)
    assert len(states) > 8
    assert set(states) == {"unchanged"}  # of the study that was restored


def test_operate__units_of_systemd(tmp_path):
    """They read server.env by a shell: systemd's own EnvironmentFile takes no ``export``."""
    units = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names = re.findall(r"`(?:/etc/systemd/system/)?(dglzarr-\w+\.service)`", PAGE)
    assert names == ["dglzarr-server.service", "dglzarr-worker.service"]
    for name, unit in zip(names, units, strict=True):
        (tmp_path / name).write_text(unit, encoding="utf-8")
        (words,) = re.findall(r"^ExecStart=/bin/sh -c '(.*)'$", unit, re.MULTILINE)
        assert words.startswith(". /srv/dglzarr/server.env; exec venv/bin/prefect ")
        assert words.partition("exec venv/bin/")[2] in PAGE.replace(unit, "")  # as by hand
    assert "EnvironmentFile=" not in PAGE
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        [verify, "verify", *(tmp_path / name for name in names)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
