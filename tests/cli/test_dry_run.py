"""A dry run writes nothing, tells what is done and why not, and how much there is to do."""

import gzip
import json
import re
import shutil

import pytest

from dglzarr.settings import load_settings
from dglzarr.studies.forecast import estimate
from dglzarr.testing import write_study
from tests.builders import set_attributes, times
from tests.cli.program import ALWAYS, OVERRIDES, SETTINGS, check_sizes


def test_dry_run__writes_nothing(tiny, run):
    before = times(tiny.parent)
    result = run("mine", tiny, "--dry-run", *OVERRIDES)
    assert result.status == 0
    assert [line.split()[:3] for line in result.lines[1:13]] == [[n, "to", "do"] for n in ALWAYS]
    assert re.fullmatch(r"Still to do: [\d.]+ MB on disk, about [\d.]+ minutes\.", result.lines[-1])
    assert times(tiny.parent) == before


def test_dry_run__says_what_is_done(mined, run):
    before = times(mined.parent)
    result = run("mine", mined, "--dry-run", "--json", *OVERRIDES)
    assert times(mined.parent) == before
    lines = json.loads(result.out)
    assert [line["name"] for line in lines] == list(ALWAYS)
    assert all(line["state"] == "done" for line in lines)
    assert all(line["nbytes"] > 0 and line["memory_nbytes"] > 1e8 for line in lines)


@pytest.mark.parametrize(
    ("override", "first"),
    [("dedup.threshold=2", "dedup"), ("normalize.ties=dgex", "normalize"), ("seed=7", "join")],
)
def test_dry_run__tells_other_settings(mined, run, override, first):
    result = run("mine", mined, "--dry-run", "--json", *OVERRIDES, "--set", override)
    states = {line["name"]: line["state"] for line in json.loads(result.out)}
    at = ALWAYS.index(first)
    assert {states[name] for name in ALWAYS[:at]} <= {"done"}
    assert states[first] == "other settings"
    assert "done" not in {states[name] for name in ALWAYS[at:]}
    shown = run("mine", mined, "--dry-run", *OVERRIDES, "--set", override)
    key, value = override.split("=")
    (reason,) = (line for line in shown.lines if line.startswith(f"{first}: made with other"))
    assert re.search(rf"{re.escape(key)}: .* -> '?{re.escape(value)}", reason)
    assert shown.lines[-1] == "Run with --overwrite to replace what was made otherwise."


def test_dry_run__names_a_changed_source_and_mine_says_the_same(tmp_path, mined, run):
    """One cell of a file after a run: it was told as done, and then refused."""
    file = shutil.copytree(mined.parent, tmp_path / "copy") / mined.name
    first = min((file.parent / "data").glob("*_series_matrix.txt.gz"))
    lines = gzip.decompress(first.read_bytes()).decode().splitlines()
    at = lines.index("!series_matrix_table_begin") + 2
    name, _, *cells = lines[at].split("\t")
    lines[at] = "\t".join([name, "9.5", *cells])
    first.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    before = times(file.parent)
    shown = run("mine", file, "--dry-run", *OVERRIDES)
    assert times(file.parent) == before
    told = [line for line in shown.lines if ": made with other" in line]
    assert told == [f"ingest: made with other inputs: sources: {first.name} was changed"]
    states = {line.split()[0]: line.split("  ")[1].strip() for line in shown.lines[1:5]}
    assert states["normalize"] != "done"
    result = run("mine", file, *OVERRIDES)
    assert result.status == 1
    assert f"was made from other inputs: sources: {first.name} was changed" in result.err
    assert times(file.parent / "study" / "segments") == {
        n.removeprefix("study/segments/"): t
        for n, t in before.items()
        if n.startswith("study/segments/")
    }


def test_dry_run__names_a_setting_that_is_gone(tmp_path, mined, run):
    """Of a list of probes that is no longer named, and not of the stores that follow."""
    file = shutil.copytree(mined.parent, tmp_path / "copy") / mined.name
    text = file.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("annotation = "))
    file.write_text(text.replace(line, ""))
    shown = run("mine", file, "--dry-run", *OVERRIDES)
    told = [line for line in shown.lines if ": made with other" in line]
    assert told == ["join: made with other inputs: ingest.annotation: annotation.txt -> none"]


def test_dry_run__disk_is_right_within_a_factor(mined):
    """Network and all; that of the fixture is of the size that the settings say."""
    lines = estimate(load_settings(mined, SETTINGS))
    check_sizes([e for e in lines if e.name != "train"], mined.parent / "study")


@pytest.mark.slow
def test_dry_run__disk_of_the_demo_is_right_within_a_factor(tmp_path, run):
    file = write_study(tmp_path)
    overrides = ("cluster.kind=none", "train.epochs=1")
    estimates = estimate(load_settings(file, overrides))
    given = [part for override in overrides for part in ("--set", override)]
    assert run("mine", file, *given).status == 0
    check_sizes(estimates, tmp_path / "study")


@pytest.mark.parametrize(
    ("damage", "settings", "told"),
    [
        (
            lambda study: incomplete(study / "segments/0000/normalized.zarr"),
            ["normalize.ties=dgex"],
            "normalize: made with other settings: normalize.ties: 'midrank' -> 'dgex'",
        ),
        (
            lambda study: (study / "models/seed-0/model.json").write_text("{"),
            [],
            "train: .*seed-0: cannot be read: model.json: .*",
        ),
        (
            lambda study: (study / "models/seed-0/weights.npz").write_bytes(b"PK"),
            [],
            "train: .*weights.npz: expected the weights that model.json names.*",
        ),
        (
            lambda study: (study / "scores.zarr/zarr.json").write_text("{"),
            [],
            "score: .*scores.zarr: cannot be read: zarr.json: .*",
        ),
        (
            lambda _: None,
            ["seed=1"],
            "join: made with other settings: seed: 0 -> 1",
        ),
    ],
    ids=["begun", "record of a model", "weights", "record of a store", "seed"],
)
def test_dry_run__and_mine_give_the_same_reason(tmp_path, mined, run, damage, settings, told):
    """Whatever stands at the places of a study; what follows is no reason of its own."""
    file = shutil.copytree(mined.parent, tmp_path / "copy") / mined.name
    damage(file.parent / "study")
    given = [part for setting in settings for part in ("--set", setting)]
    before = times(file.parent)
    shown = run("mine", file, "--dry-run", *OVERRIDES, *given)
    assert (shown.status, times(file.parent)) == (0, before)
    (first,) = [line for line in shown.lines if re.match(r"[a-z]+: ", line)]
    assert re.fullmatch(told, first)
    result = run("mine", file, *OVERRIDES, *given)
    assert result.status == 1
    reason = first.partition(": ")[2].partition("settings: ")[2] or first.partition(": ")[2]
    assert reason.rstrip(".") in result.err
    assert "--overwrite" in result.err


def incomplete(store):
    set_attributes(store, complete=False)


def test_dry_run__a_new_title_is_a_new_report(mined, run):
    result = run("mine", mined, "--dry-run", "--json", *OVERRIDES, "--set", "title=Another")
    states = {line["name"]: line["state"] for line in json.loads(result.out)}
    assert states.pop("report") == "to do"
    assert set(states.values()) == {"done"}


def test_dry_run__a_foreign_folder_blocks_one_step_alone(tmp_path, mined, run):
    file = shutil.copytree(mined.parent, tmp_path / "copy") / mined.name
    place = file.parent / "study" / "landmarks.zarr"
    shutil.rmtree(place)
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    shown = run("mine", file, "--dry-run", *OVERRIDES)
    assert shown.status == 0
    assert sum("got other files" in line for line in shown.lines) == 1
    states = {line.split()[0]: line.split()[1] for line in shown.lines[1:13]}
    assert (states["score"], states["select"], states["evaluate"]) == ("done", "blocked", "to")
