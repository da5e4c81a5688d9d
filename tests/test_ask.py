"""What docs/ask.md tells people to type works as it stands there, in its order."""

import contextlib
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from dglzarr.cli import app, guarded
from tests.example import write_real_example

REPO = Path(__file__).resolve().parents[1]
GENERAL, QUESTIONS = (REPO / "docs" / "ask.md").read_text("utf-8").split("## Five questions")
pytestmark = pytest.mark.slow


def blocks(text, *languages):
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [code for language, code in found if language in languages]


def run(folder, code):
    """Type the lines of a block: those of dglzarr in this process, which has loaded it already."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "dglzarr":
                assert guarded(lambda: app(words[1:], standalone_mode=False)) == 0, line  # noqa: B023
            else:
                subprocess.run(["/bin/sh", "-euc", line], check=True)
    printed.flush()
    return printed.buffer.getvalue().decode()


# ---------------------------------------------------------------- the demo


@pytest.fixture(scope="module")
def demo(example_study, tmp_path_factory):
    """A folder with ./demo/study."""
    folder = tmp_path_factory.mktemp("ask")
    (folder / "demo").mkdir()
    shutil.copytree(example_study, folder / "demo" / "study")
    return folder


def test_ask__python(demo):
    (code,) = blocks(GENERAL, "python")
    printed = io.StringIO()
    with contextlib.chdir(demo), contextlib.redirect_stdout(printed):
        exec(code, {})  # noqa: S102
    assert printed.getvalue().startswith("SIM7 (")


def test_ask__commands(demo):
    asked, exported = blocks(GENERAL, "sh")
    assert run(demo, asked).count("\n") > 40
    assert run(demo, exported).count("Written: ") == 3
    assert {"study.h5ad", "study.gct", "study.zarr"} <= {p.name for p in demo.iterdir()}


# ---------------------------------------------------------------- five questions


@pytest.fixture(scope="module")
def answered(data_dir, tmp_path_factory):
    """A folder with ./real, where the five commands were run, and what each of them printed."""
    folder = tmp_path_factory.mktemp("real")
    write_real_example(folder, data_dir)
    return folder, [run(folder, code) for code in blocks(QUESTIONS, "sh")]


@pytest.mark.data
def test_questions__each_has_one_command(answered):
    _, printed = answered
    titles = re.findall(r"^### (.*)$", QUESTIONS, re.MULTILINE)
    assert len(titles) == len(printed) == 5
    for code in blocks(QUESTIONS, "sh"):
        assert sum(line.startswith("dglzarr ") for line in code.splitlines()) == 1


@pytest.mark.data
def test_questions__their_answers(answered):
    folder, printed = answered
    assert "TP53 (201746_at)" in printed[0]
    assert "rank " in printed[0]
    assert len(pd.read_csv(folder / "top.csv")) == 200
    order = pd.read_csv(folder / "order.tsv", sep="\t")
    mine = (folder / "mine.txt").read_text(encoding="utf-8").split()
    assert (len(order), len(mine)) == (300, 12)
    assert order["gene_symbol"].tolist()[:12] == mine
    picture = (folder / "gapdh.svg").read_text(encoding="utf-8")
    assert "colon (42)" in picture
    assert "GAPDH (213453_x_at)" in picture


@pytest.mark.data
def test_questions__scanpy_opens_the_study(answered):
    if find_spec("scanpy") is None:
        pytest.skip("scanpy is not installed (pip install scanpy); anndata reads the same file")
    folder, _ = answered
    (code,) = blocks(QUESTIONS, "python")
    told = "\nprint(json.dumps([study.n_obs, *study.obsm]))"
    words = [sys.executable, "-c", f"import json\n{code}{told}"]
    printed = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout
    n_samples, *others = json.loads(printed.splitlines()[-1])
    assert (n_samples, others[0]) == (164, "X_latent")
    assert "X_umap" in others
