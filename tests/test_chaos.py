"""Faults in stages of every sort on the disk; `make chaos` tries hundreds, in all places.

In a process of its own: runs are forks, which want no threads and no clients around them.
"""

import subprocess
import sys
from pathlib import Path

import pytest

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
        [sys.executable, CHAOS, *asked, tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study 0, disk: " in done.stdout
    assert " faults, equal\n" in done.stdout
    assert done.stdout.endswith(", 0 lost, wrong or untold\n")
    assert list(tmp_path.iterdir()) == []
