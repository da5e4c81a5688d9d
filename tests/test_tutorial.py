"""What docs/tutorial-lab.md tells people to type works, in its order, and says what it says.

On the real series where they are at hand; on a simulated study as far as it goes there.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dglzarr.cli import app
from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[1]
DAY, WITHOUT = (REPO / "docs" / "tutorial-lab.md").read_text("utf-8").split("## Without these")
BLOCKS = re.findall(r"^```(sh|python|text)\n(.*?)^```$", DAY, re.DOTALL | re.MULTILINE)
TYPED = [(kind, code) for kind, code in BLOCKS if kind != "text"]
SHOWN = [code for kind, code in BLOCKS if kind == "text"]
N_STUDY, N_PREDICTED = 2, 6
"""Blocks until the study is there, and until the prediction is."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first waits for every block


def run(folder, kind, code):
    """Type a block in a folder that has what a checkout has, and return what it prints."""
    words = ["/bin/sh", "-euc", code]
    if kind == "python":
        words = [sys.executable, "-W", "error::DeprecationWarning", "-c", code]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, code + done.stdout + done.stderr
    return done.stdout


def checkout(folder):
    """A folder with what the blocks read of a checkout."""
    folder.mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "dglzarr").symlink_to(Path(sys.executable).with_name("dglzarr"))
    (folder / "deploy").symlink_to(REPO / "deploy")
    return folder


NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?")


def is_near(came, shown):
    """Whether a number is the page's to 2 %, or to one in the last decimal that it has.

    So no sign changes, and of the page's numbers two decimals apart none changes places.
    """
    decimals = len(shown.partition(".")[2])
    last = 1.01 * 10.0**-decimals if decimals else 0
    return abs(float(came) - float(shown)) <= max(0.02 * abs(float(shown)), last)


@pytest.mark.parametrize(
    ("came", "shown", "near"),
    [
        ("+0.0035", "+0.0034", True),
        ("-0.0034", "+0.0034", False),
        ("0.42", "0.43", True),
        ("0.41", "0.43", False),
        ("83", "84", True),
        ("78", "80", False),
        ("1", "0", False),
    ],
)
def test_is_near(came, shown, near):
    assert is_near(came, shown) == near


def check_order(folder):
    order = pd.read_csv(folder / "order.tsv", sep="\t", dtype=str)
    wanted = (folder / "wanted.txt").read_text(encoding="utf-8").split()
    impossible = pd.read_csv(folder / "impossible.tsv", sep="\t")["gene"]
    assert (len(order), len(wanted), len(impossible)) == (200, 12, 30)
    assert order["gene_symbol"].tolist()[:12] == wanted
    assert (order["why"] == "included").sum() == 12
    assert not {*order["gene"]} & {*impossible}
    return order


# ---------------------------------------------------------------- the real series


@pytest.fixture(scope="module")
def day(data_dir, tmp_path_factory):
    """The folder after the day, and what each block printed."""
    parent = tmp_path_factory.mktemp("lab")
    (parent / "shared").mkdir()
    (parent / "shared" / "data").symlink_to(data_dir, target_is_directory=True)
    folder = checkout(parent / "checkout")
    return folder, [run(folder, kind, code) for kind, code in TYPED]


@pytest.mark.data
def test_tutorial__the_order_keeps_the_conditions_and_has_ids(day):
    order = check_order(day[0])
    assert order["gene_id"].tolist()[:3] == ["7157", "4609", "1956"]
    told = re.search(r"(\d+) of 200 rows have no ID: [^(]*\((\d+),[^(]*\((\w+)\)", DAY)
    lacking = order[order["gene_id"].isna()]
    known = pd.read_csv(day[0].parent / "shared/data/l1000/GSE92742_Broad_LINCS_gene_info.csv")
    is_there = lacking["gene_symbol"].isin(known["pr_gene_symbol"])
    assert (len(lacking), (~is_there).sum()) == (int(told[1]), int(told[2]))
    assert lacking["gene_symbol"][is_there].tolist() == [told[3]]


@pytest.mark.data
def test_tutorial__the_lines_that_are_shown_are_those_that_came(day):
    """Words are the same, and numbers as near as another processor's last digits leave them."""
    _, printed = day
    assert len(SHOWN) == 4
    for text, got in zip(SHOWN, [printed[i] for i in (2, 3, 5, 8)], strict=True):
        came = iter(got.splitlines())
        for line in text.splitlines():
            words = NUMBER.sub("#", line)
            same = next((other for other in came if NUMBER.sub("#", other) == words), "")
            both = zip(NUMBER.findall(same), NUMBER.findall(line), strict=True)
            assert all(is_near(*pair) for pair in both), f"{same}\n{line}"


@pytest.mark.data
def test_tutorial__the_day_ends_with_what_it_promises(day):
    _, printed = day
    assert "200 genes predict 22068" in printed[3]
    assert "152 samples predicted" in printed[5]
    came, shown = (re.findall(r": ([\d.]+)%", text) for text in (printed[-1], SHOWN[-1]))
    assert len(came) == 4
    np.testing.assert_allclose(np.float64(came), np.float64(shown), rtol=0, atol=1)
    found = re.findall(r"(ordered|random \d): r = ([\d.]+); of the 500 largest (\d+)%", printed[-1])
    assert [name for name, _, _ in found] == 2 * ["ordered", "random 0", "random 1", "random 2"]
    for ordered, *others in (found[:4], found[4:]):
        for place, what in ((1, "r"), (2, "the same way")):
            most = max(float(other[place]) for other in others)
            assert float(ordered[place]) > most, what


# ---------------------------------------------------------------- without them


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """The folder after the prediction, typed as the page tells who lacks the files."""
    folder = checkout(tmp_path_factory.mktemp("lab") / "checkout")
    settings = write_study(folder / "demo", n_samples=360, n_genes=420)
    for name in ("ingest", "normalize", "dedup"):
        with pytest.raises(SystemExit) as left:
            app([name, str(settings), "--set", "cluster.kind=none"])
        assert left.value.code == 0
    read = re.findall(r"^\| `(.*?)` \| `(.*?)` \|$", WITHOUT, re.MULTILINE)
    assert len(read) == 2
    printed = []
    for kind, code in TYPED[N_STUDY:N_PREDICTED]:
        for here, there in read:
            code = code.replace(here, there)
        printed.append(run(folder, kind, code))
    return folder, printed


def test_tutorial__without_the_files_it_goes_up_to_the_prediction(simulated):
    folder, printed = simulated
    check_order(folder)
    assert "200 genes predict" in printed[1]
    assert "2 of 200 panel genes are missing" in printed[3]
    predicted = pd.read_csv(folder / "predicted.tsv", sep="\t", index_col=0)
    assert predicted.notna().all(axis=None)
