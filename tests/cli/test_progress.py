"""What is shown while a command works: bars, plain lines, logs."""

import os
import pty
import re
import subprocess
import sys

import pytest

from dglzarr.studies import progress
from tests.cli.program import OVERRIDES, PROGRAM


def test_progress__plain_lines_where_nobody_watches(mined, tmp_path, run):
    result = run("normalize", mined, *OVERRIDES, "--set", f"root={tmp_path}/nowhere")
    assert result.status == 1
    result = run("ingest", mined, *OVERRIDES, "--set", f"root={tmp_path}/other")
    assert re.search(r"^[a-z ]+ \(\d+\)$", result.err, re.MULTILINE)
    assert "\x1b" not in result.err
    assert "\r" not in result.err


def test_bars__a_plain_line_now_and_then(monkeypatch, capsys):
    now = iter([0.0, 1.0, 11.0, 12.0, 30.0, 31.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.Bars() as bars:
        for done in (0, 1, 20_000, 3, 40_000):
            bars("scoring", done, 40_000)
        bars("judging", 0, 5)
    assert capsys.readouterr().err.splitlines() == [
        "scoring (40000)", "scoring: 20000 of 40000, 1,818/s, about 11 s left", "judging (5)",
    ]  # fmt: skip


def on_a_terminal(*arguments):
    """Run a program with a terminal for stderr; return what the terminal got."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    program = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    program.communicate()
    assert program.returncode == 0, shown
    return shown.decode()


BARS = """
import time
from dglzarr.studies.progress import Bars
with Bars() as bars:
    for done in range(5):
        bars("scoring", done, 5)
        time.sleep(0.3)
"""


@pytest.mark.slow
def test_bars__with_rate_and_time_left_on_a_terminal():
    shown = on_a_terminal("-c", BARS)
    assert re.search(
        r"scoring.*4/5 [23]\.\d+/s.*0:00:0\d.*0:00:0\d", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", shown)
    )


@pytest.mark.slow
def test_verbose__logs_one_line_when_a_stage_starts_and_ends(mined, tmp_path):
    done = subprocess.run(
        [PROGRAM, "-v", "ingest", mined, *OVERRIDES, "--set", f"root={tmp_path}/study"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.search(r"^\d{4}-\d\d-\d\d [\d:,]+ expression new: ", done.stderr, re.MULTILINE)
    quiet = subprocess.run(
        [PROGRAM, "ingest", mined, *OVERRIDES, "--set", f"root={tmp_path}/study"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "expression unchanged" not in quiet.stderr
    assert "unchanged" in quiet.stdout
