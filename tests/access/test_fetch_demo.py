"""`make fetch-demo`: what is told of a server that misbehaves; a study from accessions alone."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SCRIPT = REPO / "benchmarks" / "fetch_demo.py"
KEYS = ("uri", "annotation", "sample_sheet")


def test_fetch_demo__names_its_data_by_whole_paths(monkeypatch):
    """They stand in settings of another folder than the one that they are told from."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import fetch_demo

    settings = tomllib.loads(fetch_demo.real_settings("http://127.0.0.1:1", Path("data")))
    named = [source.get(key, "") for source in settings["sources"] for key in KEYS]
    assert {Path(name).is_absolute() for name in named if name and "://" not in name} == {True}


@pytest.mark.slow
def test_fetch_demo__all_is_told_and_mined_as_it_should_be(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--root", "fetched"], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert sum(line.startswith("GSE90") and "  fetched" in line for line in told) == 12
    assert sum(line.startswith("GSE98") and "  refused  expected" in line for line in told) == 12
    for name in ("GTEx v10/reads", "GSE990000", "http://127.0.0.1"):
        assert any(line.startswith(name) and "  fetched" in line for line in told)
    assert any(line.startswith("Cohort human_gene_v2.5-") for line in told)
    assert (tmp_path / "fetched" / "study" / "report.html").is_file()
