"""Ctrl-C and SIGTERM: one line, the exit status of the signal, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dglzarr.storage.store import is_complete
from dglzarr.testing import write_study

pytestmark = pytest.mark.slow

DGLZARR = str(Path(sys.executable).with_name("dglzarr"))


def begun(folder):
    """A run of its own process group, met while its workers are there."""
    file = write_study(folder, n_samples=120, n_genes=80)
    with (folder / "said").open("wb") as said:
        run = subprocess.Popen(
            [DGLZARR, "mine", str(file), "--set", "train.epochs=100000", "--set", "train.patience=100000",
             "--set", "train.patience=100000"],
            stdout=said, stderr=said, start_new_session=True, cwd=folder,
        )  # fmt: skip
    deadline = time.monotonic() + 120
    while not is_complete(str(folder / "study" / "segments" / "0000" / "expression.zarr")):
        assert run.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return file, run


@pytest.mark.parametrize(("number", "is_group"), [("SIGINT", True), ("SIGTERM", False)])
def test_stop__is_one_line_and_leaves_no_process(tmp_path, number, is_group):
    file, run = begun(tmp_path)
    family = psutil.Process(run.pid).children(recursive=True)
    number = signal.Signals[number]
    if is_group:  # as a terminal does
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    assert run.wait(timeout=60) == 128 + number
    said = (tmp_path / "said").read_text()
    assert said.splitlines()[-1] == "stopped; run again to go on"
    assert said.count("stopped") == 1
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    again = subprocess.run(
        [DGLZARR, "normalize", str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert is_complete(str(tmp_path / "study" / "segments" / "0000" / "normalized.zarr"))
