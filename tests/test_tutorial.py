"""What docs/tutorial-lab.md tells people to type works, in its order, and says what it says."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from dglzarr.cli import app
from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[1]
TUTORIAL = (REPO / "docs" / "tutorial-lab.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python|text)\n(.*?)^```$", TUTORIAL, re.DOTALL | re.MULTILINE)


def test_tutorial__is_commands_python_and_what_they_print():
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("sh") == 3
    assert kinds.count("python") == 3
    assert kinds.count("text") == 3


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """The folder after the day, and what each block printed."""
    folder = tmp_path_factory.mktemp("lab")
    settings = write_study(folder / "demo", n_samples=360, n_genes=260)
    for name in ("ingest", "normalize", "dedup"):
        with pytest.raises(SystemExit) as left:
            app([name, str(settings), "--set", "cluster.kind=none"])
        assert left.value.code == 0
    return folder, [(code, run(folder, kind, code)) for kind, code in BLOCKS if kind != "text"]


def run(folder, kind, code):
    place = Path(sys.executable).parent
    if kind == "sh":
        (words,) = map(shlex.split, code.splitlines())
        words[0] = str(place / words[0].removeprefix(".venv/bin/"))
    else:
        words = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_tutorial__the_order_keeps_the_conditions(day):
    folder, _ = day
    order = pd.read_csv(folder / "order.tsv", sep="\t")
    wanted, impossible = (
        (folder / name).read_text(encoding="utf-8").split()
        for name in ("wanted.txt", "impossible.txt")
    )
    assert len(order) == 40
    assert order["gene"].tolist()[:12] == wanted
    assert len(impossible) == 30
    assert not {*order["gene"]} & {*impossible}


@pytest.mark.slow
def test_tutorial__the_day_ends_with_what_it_promises(day):
    _, printed = day
    bundled, predicted, checked = printed[2][1], printed[4][1], printed[5][1]
    assert "40 genes predict" in bundled
    assert "2 of 40 panel genes are missing" in predicted
    numbers = [float(n) for n in re.findall(r"(?:intervals: |r = |mean: )(-?[\d.]+)", checked)]
    coverage, every, trusted, null = numbers
    assert 90 < coverage < 99
    assert trusted > every - 0.1
    assert trusted > 0.35
    assert null == 0


@pytest.mark.slow
def test_tutorial__shows_the_lines_that_are_printed(day):
    """Numbers aside, which are those of the larger study."""
    _, printed = day
    texts = [code for kind, code in BLOCKS if kind == "text"]
    for text, (_, out) in zip(texts, (printed[2], printed[4], printed[5]), strict=True):
        shown, got = ([re.sub(r"[\d.+-]+|\(.*?\)", "#", line)[:30] for line in t.splitlines()]
                      for t in (text, out))  # fmt: skip
        assert [line for line in shown if line not in got] == []
