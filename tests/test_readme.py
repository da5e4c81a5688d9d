"""What README.md and docs/mine.md tell people to type works."""

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
PAGES = {
    path: path.read_text(encoding="utf-8")
    for path in (REPO / "README.md", REPO / "docs" / "mine.md")
}
README, MINE = PAGES.values()


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def commands():
    """Every command of the sh blocks, once, but make's, which are run by CI and not by tests."""
    lines = [line for page in PAGES.values() for b in blocks("sh", page) for line in b.splitlines()]
    found = dict.fromkeys(re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [shlex.split(line) for line in found if line and not line.startswith("make ")]


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
    assert {words[1] for words in commands()} >= {"mine", "info", "verify", "query", "grow"}
    assert (len(blocks("toml")), len(blocks("python")), len(blocks("toml", MINE))) == (1, 1, 1)


def test_readme__stays_short():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize(
    ("page", "roles"), [(README, ["train", "train"]), (MINE, ["train", "train", "cohort"])]
)
def test_readme__settings_load(tmp_path, page, roles):
    (tmp_path / "study.toml").write_text(blocks("toml", page)[0], encoding="utf-8")
    settings = load_settings(tmp_path / "study.toml")
    assert [s.role for s in settings.sources] == roles
    assert settings.select.n_landmarks == 943
    assert set(settings.evaluate.panels) == ({"l1000"} if "cohort" in roles else set())


def test_readme__names_files_that_exist():
    for path, page in PAGES.items():
        for name in re.findall(r"\]\(([^)#:]+)\)", page):
            assert (path.parent / name).exists(), name
        for name in re.findall(r"`((?:dglzarr|flows|deploy)/[\w/]+\.\w+)`", page):
            assert (REPO / name).exists(), name


def test_documents__with_a_folder_of_data_results_go_elsewhere():
    """A relative root is taken from --folder, so a command that has one names a whole root."""
    files = [REPO / "README.md", *(REPO / "docs").glob("*.md"), *(REPO / "deploy").rglob("*.toml")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if ".toml --folder " in line]
    assert len(found) >= 3
    assert [line for line in found if "--set root=$PWD/" not in line] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first waits for every command
def test_readme__commands(demo):
    _, printed = demo
    assert [command for command, text in printed.items() if not text] == []
    best = printed[".venv/bin/dglzarr query demo/study --top 10"]
    assert len(best.splitlines()) == 11


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first waits for every command
def test_readme__python(demo):
    folder, _ = demo
    code = blocks("python")[0] + "\nprint(best.size, *matrix.shape)\n"
    assert run(folder, [".venv/bin/python", "-c", code]) == "10 120 154\n"


@pytest.mark.slow
@pytest.mark.timeout(1200)  # the first waits for every command
def test_readme__places_of_what_comes_out(demo):
    folder, _ = demo
    table = MINE.split("## What comes out")[1]
    places = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert len(places) >= 6
    for place in places:
        assert list((folder / "demo" / "study").glob(place.rstrip("/"))), place
