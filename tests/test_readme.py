"""What README.md tells people to type works."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dglzarr.settings import load_settings
from dglzarr.testing import write_study

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands():
    """Every command of the sh blocks but make's, which are run by CI and not by tests."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    found = [shlex.split(re.sub(r"(^|\s)#.*", "", line)) for line in lines]
    return [words for words in found if words and words[0] != "make"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder where every command was run in order, on a smaller study and a short training.

    In its own process, which saves the start of two workers a command; ``make demo`` has them.
    """
    folder = tmp_path_factory.mktemp("readme")
    settings = write_study(folder / "demo", n_samples=120, n_genes=160)
    text = settings.read_text(encoding="utf-8")
    for old, new in (("epochs = 300\n", "epochs = 2\n"), ('kind = "local"\n', 'kind = "none"\n')):
        assert old in text
        text = text.replace(old, new)
    settings.write_text(text, encoding="utf-8")
    return folder, {shlex.join(words): run(folder, words) for words in commands()}


def run(folder, words):
    """Run a command as from the project root, with this interpreter's environment."""
    place = Path(sys.executable).parent
    words = [
        str(place / word.removeprefix(".venv/bin/")) if word.startswith(".venv/bin/") else word
        for word in words
    ]
    words = [str(REPO / word) if word.startswith("flows/") else word for word in words]
    names = ("PREFECT_API_URL", "PREFECT_API_KEY")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        words, cwd=folder, env={**environment, "PREFECT_HOME": str(folder / "prefect")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_readme__shows_commands_settings_and_python():
    assert len(commands()) >= 6
    assert {words[1] for words in commands()} >= {"mine", "info", "verify", "query"}
    assert (len(blocks("toml")), len(blocks("python"))) == (1, 1)


def test_readme__settings_load(tmp_path):
    (tmp_path / "study.toml").write_text(blocks("toml")[0], encoding="utf-8")
    settings = load_settings(tmp_path / "study.toml")
    assert [s.role for s in settings.sources] == ["train", "train", "cohort"]
    assert settings.select.n_landmarks == 943
    assert set(settings.evaluate.panels) == {"l1000"}


def test_readme__names_files_that_exist():
    for name in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPO / name).exists(), name
    for name in re.findall(r"`(dglzarr/[\w/]+\.py)`", README):
        assert (REPO / name).exists(), name


def test_documents__with_a_folder_of_data_results_go_elsewhere():
    """A relative root is taken from --folder, so a command that has one names a whole root."""
    files = [REPO / "README.md", *(REPO / "docs").glob("*.md"), *(REPO / "deploy").rglob("*.toml")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if ".toml --folder " in line]
    assert len(found) >= 3
    assert [line for line in found if "--set root=$PWD/" not in line] == []


@pytest.mark.slow
def test_readme__commands(demo):
    _, printed = demo
    assert [command for command, text in printed.items() if not text] == []
    best = printed[".venv/bin/dglzarr query demo/study --top 10"]
    assert len(best.splitlines()) == 11


@pytest.mark.slow
def test_readme__python(demo):
    folder, _ = demo
    code = blocks("python")[0] + "\nprint(best.size, *matrix.shape)\n"
    assert run(folder, [".venv/bin/python", "-c", code]) == "10 120 154\n"


@pytest.mark.slow
def test_readme__places_of_what_comes_out(demo):
    folder, _ = demo
    table = README.split("## What comes out")[1].split("```")[0]
    places = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert len(places) >= 6
    for place in places:
        assert list((folder / "demo" / "study").glob(place.rstrip("/"))), place
