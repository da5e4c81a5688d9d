"""Faults in stages of every sort on the disk; `make chaos` tries hundreds, in all places.

In a process of its own: runs are forks, which want no threads and no clients around them.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos_tables import tables

CHAOS = Path(__file__).with_name("chaos.py")


@pytest.mark.slow
def test_chaos__a_study_that_meets_faults_is_as_undisturbed(tmp_path):
    asked = [
        "--places",
        "disk",
        "--faults",
        "3",
        "--each",
        "2",
        "--steps",
        "train",
        "grow",
        "--scratch",
    ]
    done = subprocess.run(
        [sys.executable, CHAOS, *asked, tmp_path, "--record", tmp_path / "faults"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study 0, disk: " in done.stdout
    assert " faults, equal\n" in done.stdout
    assert done.stdout.endswith(", 0 lost, wrong or untold\n")
    (record,) = tmp_path.iterdir()
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    assert len(rows) == 3
    assert not any(row["difference"] or row["untold"] for row in rows)


def test_tables__each_fault_counts_once():
    died = {"place": "disk", "fault": "run killed", "step": "train", "status": -9}
    told = {"place": "bucket", "fault": "503", "step": "grow", "status": 1}
    equal = {"untold": "", "difference": ""}
    rows = [died | equal, told | equal, told | equal | {"untold": "a trace", "difference": "x"}]
    found = tables(rows).splitlines()
    assert "| disk | run killed | 1 | 0 | 1 | 0 | 0 | 1 |" in found
    assert "| bucket | 503 | 2 | 0 | 0 | 1 | 1 | 1 |" in found
    assert "| all |  | 3 | 0 | 1 | 1 | 1 | 2 |" in found
    assert found[-2:] == ["| train | 1 | 0 | 1 |", "| grow | 0 | 2 | 2 |"]
