"""Ctrl-C and SIGTERM: one line, the exit status of the signal, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import psutil
import pytest

from dglzarr.errors import NO_MEMORY
from dglzarr.storage.store import is_complete
from dglzarr.testing import write_study

pytestmark = pytest.mark.slow

DGLZARR = str(Path(sys.executable).with_name("dglzarr"))
COMMANDS = {
    "command": [DGLZARR, "mine"],
    "flow": [sys.executable, str(Path(__file__).resolve().parents[2] / "flows" / "mine.py")],
}


def started(command, file):
    """A run of its own process group that says nothing of its own accord but to a file."""
    folder = file.parent
    unset = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT")}
    environment = {**unset, "PREFECT_HOME": str(folder / "prefect"), "DO_NOT_TRACK": "1"}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [*command, str(file), "--set", "train.epochs=100000", "--set", "train.patience=100000"],
            stdout=said, stderr=said, start_new_session=True, cwd=folder, env=environment,
        )  # fmt: skip


def begun(command, folder):
    """Such a run, met while its workers are there."""
    file = write_study(folder, n_samples=120, n_genes=80)
    run = started(command, file)
    deadline = time.monotonic() + 120
    while not is_complete(str(folder / "study" / "segments" / "0000" / "expression.zarr")):
        assert run.poll() is None, (folder / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return file, run


@pytest.mark.parametrize(
    ("kind", "number", "is_group"),
    [
        ("command", "SIGINT", True),
        ("command", "SIGTERM", False),
        ("flow", "SIGINT", True),
        ("flow", "SIGTERM", False),
    ],
)
def test_stop__is_one_line_and_leaves_no_process(tmp_path, kind, number, is_group):
    """Also of the temporary server of Prefect, which a terminal's Ctrl-C reaches too."""
    file, run = begun(COMMANDS[kind], tmp_path)
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
    assert not {"Traceback", "Aborted!", "Crash"} & set(said.replace(":", " ").split())
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    again = subprocess.run(
        [DGLZARR, "normalize", str(file)], capture_output=True, text=True, check=False, timeout=120
    )
    assert again.returncode == 0, again.stderr
    assert is_complete(str(tmp_path / "study" / "segments" / "0000" / "normalized.zarr"))


def test_stop__before_anything_is_imported(tmp_path):
    run = started(COMMANDS["flow"], write_study(tmp_path, n_samples=40, n_genes=60))
    while psutil.Process(run.pid).memory_info().rss < 60e6:  # Python, and some modules
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    assert run.wait(timeout=60) == 130
    assert (tmp_path / "said").read_text() == "stopped; run again to go on\n"


LOADS = """
import os, signal, sys
from dglzarr.studies.stopping import program
class Finder:
    def find_spec(name, *_):
        if name == "dglzarr.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder)
program()
"""


def test_stop__while_the_command_line_loads():
    done = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "stopped; run again to go on\n")
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    assert tomllib.loads(project.read_text("utf-8"))["project"]["scripts"] == {
        "dglzarr": "dglzarr.studies.stopping:program"
    }


WAITS = """
import sys, threading
from dglzarr.cli import guarded
def fail():
    raise {error}
def wait():
    threading.Thread(target=fail).start()
    threading.Event().wait()
sys.exit(guarded(wait))
"""


@pytest.mark.parametrize(
    ("error", "said"), [("MemoryError", NO_MEMORY), ("SystemError('none set')", "(none set)")]
)
def test_no_memory_in_a_thread__ends_who_waits_for_it(error, said):
    done = subprocess.run(
        [sys.executable, "-c", WAITS.format(error=error)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
