"""What docs/data.md tells a new user to type, from nothing to a panel, typed as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.mirror import serving
from tests.access.series import matrix, platform_table

REPO = Path(__file__).resolve().parents[1]
DATA = (REPO / "docs" / "data.md").read_text(encoding="utf-8")
TYPED = re.search(r"^From nothing to a panel.*?^```\n(.*?)^```$", DATA, re.DOTALL | re.MULTILINE)[1]
MOST_LINES = 12


def test_new_user__types_at_most_twelve_lines():
    lines = TYPED.splitlines()
    assert lines[0].startswith("python3 -m venv")
    assert len(lines) <= MOST_LINES
    assert len(re.findall(r"GSE\d+", TYPED)) == 3


@pytest.fixture
def machine(tmp_path, wheel):
    """The environment of a machine without dglzarr, whose package index is a folder.

    What dglzarr needs is there already, beside what pip installs: it would take a gigabyte.
    """
    needed, programs = tmp_path / "needed", tmp_path / "programs"
    for folder in (needed, programs):
        folder.mkdir()
    for place in filter(lambda path: path.endswith("site-packages"), sys.path):
        for path in Path(place).iterdir():
            if not re.match(r"_*(editable_*)?(dglzarr|pip\b)|.*\.pth$", path.name):
                (needed / path.name).symlink_to(path)
    (programs / "python3").symlink_to(Path(sys.base_prefix, "bin", "python3"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("DGLZARR", "PYTHON", "VIRT"))}
    return kept | {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": str(needed),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "DGLZARR_CACHE": str(tmp_path / "cache"),
        "NCBI_API_KEY": "for the rate",
        "no_proxy": "*",
    }


@pytest.mark.slow
def test_new_user__has_a_panel_of_three_accessions(tmp_path, machine):
    for accession in re.findall(r"GSE\d+", TYPED):
        matrix(tmp_path / "served", accession, n_genes=120, n_samples=24)
    platform_table(tmp_path / "served", "GPL96", "SIM", n_genes=120)
    (folder := tmp_path / "empty").mkdir()
    with serving(tmp_path / "served") as mirror:
        done = subprocess.run(
            ["/bin/bash", "-e", "-c", TYPED], cwd=folder, env=machine | mirror.environment(),
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(folder.glob("venv/lib/*/site-packages/dglzarr/cli.py")), "the wheel was installed"
    order = pd.read_csv(folder / "order.tsv", sep="\t")
    assert len(order) == int(re.search(r"--size (\d+)", TYPED)[1])
    assert order["gene_symbol"].str.startswith("SIM").all(), "genes are named, not probes alone"
    assert (folder / "study" / "report.html").is_file()
