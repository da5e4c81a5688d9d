"""The command line: help that is enough, exit statuses, one-line errors, output for machines."""

import gzip
import json
import logging
import os
import pty
import re
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import typer.main

from dglzarr.cli import STAGES, app, guarded
from dglzarr.errors import NO_MEMORY, ConfigError, SourceError, StoreError
from dglzarr.report.panels import CHANCE, panel_rows
from dglzarr.settings import load_settings
from dglzarr.storage.files import told
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study
from dglzarr.studies import progress
from dglzarr.studies.forecast import estimate
from dglzarr.studies.plan import OPTIONAL, STEPS, Plan
from dglzarr.testing import write_study
from tests.builders import remove_regions, set_attributes, times, write_model

ALWAYS = tuple(name for name in STEPS if name not in OPTIONAL)
COMMANDS = typer.main.get_command(app).commands
PROGRAM = Path(sys.executable).with_name("dglzarr")
SETTINGS = (
    "cluster.kind=none",
    "train.hidden=12",
    "train.n_latent=4",
    "train.epochs=1",
    "select.n_random=2",
)
OVERRIDES = [part for setting in SETTINGS for part in ("--set", setting)]
MADE = (
    "expression", "normalized", "samples", "latent", "reconstruction", "contributions", "scores",
    "landmarks", "evaluation",
)  # fmt: skip


class Result:
    def __init__(self, status, out, err):
        self.status, self.out, self.err = status, out, err

    @property
    def lines(self):
        return self.out.splitlines()


@pytest.fixture
def run(capfd):
    """Run a command in this process; return its exit status and what it printed."""

    def call(*arguments):
        capfd.readouterr()
        try:
            status = guarded(lambda: app([str(a) for a in arguments], prog_name="dglzarr"))
        except SystemExit as left:
            status = left.code
        return Result(status, *capfd.readouterr())

    yield call
    logging.getLogger("dglzarr").setLevel(logging.NOTSET)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The settings file of a tiny study, nothing of it mined."""
    return write_study(tmp_path_factory.mktemp("tiny"), n_samples=120, n_genes=80)


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """The settings file of a tiny study that is finished, but for training the network."""
    file = write_study(tmp_path_factory.mktemp("mined"), n_samples=120, n_genes=80)

    def stage(name):
        with pytest.raises(SystemExit) as left:
            app([name, str(file), *OVERRIDES])
        assert left.value.code == 0

    for name in ("ingest", "normalize", "dedup"):
        stage(name)
    settings = load_settings(file, SETTINGS)
    study = open_study(settings.root)
    (claim,) = Plan.of(settings)["train"].claims()
    stores = study.uri("normalized"), study.uri("samples")
    write_model(study.model(0), *stores, lineage=claim.lineage)
    history = Path(study.model(0), "history.csv")
    history.write_text("epoch,loss,val_loss,seconds\n1,0.8,0.9,0.1\n", encoding="utf-8")
    for name in ("encode", "score", "select", "evaluate", "report"):
        stage(name)
    return file


@pytest.fixture
def study(mined):
    return mined.parent / "study"


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help__tells_what_a_command_and_each_option_does(name, run):
    result = run(name, "--help")
    assert result.status == 0
    assert f"Usage: dglzarr {name}" in result.out
    assert COMMANDS[name].help
    for parameter in COMMANDS[name].params:
        assert parameter.help, f"{name} {parameter.name}"
        shown = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name
        assert shown.lower() in result.out.lower()


def test_help__without_arguments_lists_the_commands(run):
    result = run()
    text = result.out + result.err
    assert all(re.search(rf"^\W*{name} ", text, re.MULTILINE) for name in COMMANDS)
    assert all(p.help for p in typer.main.get_command(app).params)


def test_help__every_stage_has_a_command():
    assert set(STAGES) < set(COMMANDS)
    for name in ("mine", "info", "verify", "query", "simulate"):
        assert name in COMMANDS


def test_version(run):
    result = run("--version")
    assert (result.status, result.out) == (0, f"dglzarr {version('dglzarr')}\n")


# ---------------------------------------------------------------- exit statuses


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["mine"], "settings"),
        (["mine", "a.toml", "--nosuch"], "--nosuch"),
        (["query", "a", "--top", "0"], "--top"),
        (["query", "a", "--top", "many"], "--top"),
        (["simulate", "x", "--n-samples", "few"], "--n-samples"),
    ],
    ids=["command", "argument", "option", "range", "type", "number"],
)
def test_usage__exit_2_and_says_what_was_wrong(arguments, named, run):
    result = run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert named in result.err.lower()
    assert "Traceback" not in result.err


def one_line(result):
    assert result.out == ""
    assert result.err.count("\n") == 1
    return result.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.epoch=3"], r"study\.toml: train\.epoch: unknown key"),
        (["train.epochs=-3"], r"study\.toml: train\.epochs: .*got -3"),
        (["train.epochs"], r"--set 'train\.epochs': expected section\.key=value"),
        (['sources=[{uri="nosuch/*.txt"}]'], r"sources\.0\.uri: no such file: .*nosuch/\*\.txt"),
    ],
    ids=["key", "value", "override", "source"],
)
@pytest.mark.parametrize("command", ["mine", "ingest", "report"])
def test_wrong_settings__exit_2_in_one_line(command, overrides, message, tiny, run):
    given = [part for override in overrides for part in ("--set", override)]
    result = run(command, tiny, *OVERRIDES, *given)
    assert result.status == 2
    assert re.search(message, one_line(result))
    assert not (tiny.parent / "study").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["mine", "{tmp}/nosuch.toml"], 2, r"nosuch\.toml: cannot be read: No such file"),
        (["mine", "{tmp}/nosuch.toml", "--dry-run"], 2, r"nosuch\.toml: cannot be read"),
        (["info", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["verify", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["query", "{tmp}/nosuch.zarr"], 1, r"nosuch\.zarr: no such store"),
        (["info", "{tmp}#normalized"], 1, r"no study here .* Run 'dglzarr mine'"),
        (["info", "{study}#units"], 1, r"expected a store of expression, .* got 'units'"),
        (
            ["query", "{study}", "--latent", "99"],
            2,
            r"latent: expected a unit from 0 to \d+, got 99",
        ),
        (["query", "{study}#landmarks", "--gene", "NOPE"], 2, r"expected a gene .* got 'NOPE'"),
        (["query", "{study}#normalized", "--sample", "x"], 2, r"samples .* got \['x'\]"),
        (["query", "{study}#landmarks", "--sample", "x"], 2, r"has no samples to choose from"),
        (["simulate", "{tmp}/new", "--n-samples", "3"], 2, r"n_samples: expected 40 to"),
        (["normalize", "{alone}", *OVERRIDES], 1, r"expression\.zarr: no such store\. Run the"),
    ],
)
def test_errors__one_line_on_stderr(arguments, status, message, tmp_path, study, run):
    alone = write_study(tmp_path / "alone", n_samples=40, n_genes=60)
    places = {"tmp": tmp_path, "study": study, "alone": alone}
    result = run(*(a.replace("{", "{0[").replace("}", "]}").format(places) for a in arguments))
    assert result.status == status
    assert re.search(message, one_line(result))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("study.toml: wrong"), 2),
        (SourceError("a.txt, line 3: wrong"), 1),
        (StoreError("a.zarr: wrong"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
    ids=["config", "source", "store", "disk"],
)
def test_guarded__status_and_line(error, status, capsys):
    def call():
        raise error

    assert guarded(call) == status
    assert capsys.readouterr().err == f"{error}\n"


def test_guarded__no_memory_is_one_line(tmp_path, capsys):
    def call():
        raise MemoryError

    def step():
        with told(str(tmp_path / "scores.zarr")):
            call()

    assert [guarded(call), guarded(step)] == [1, 1]
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"dglzarr: {NO_MEMORY}"
    assert second == f"{tmp_path}/scores.zarr: cannot be written: {NO_MEMORY}"


def test_guarded__what_is_not_expected_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
    assert guarded(lambda: None) == 0


def test_verbose__adds_the_traceback(tmp_path, run):
    result = run("-v", "info", tmp_path / "nosuch.zarr")
    assert result.status == 1
    assert "Traceback" in result.err
    assert "no such store" in result.err.splitlines()[-1]


# ---------------------------------------------------------------- info and verify


def test_info__of_a_store(study, run):
    result = run("info", study / "landmarks.zarr")
    facts = dict(line.split("  ", 1) for line in result.lines)
    assert result.status == 0
    assert facts["complete"].strip() == "True"
    assert json.loads(facts["sizes"])["gene"] > 60
    assert json.loads(facts["parameters"])["n_random"] == 2
    inputs = json.loads(facts["inputs"])
    assert inputs[0]["uri"].endswith("scores.zarr")
    assert "…" not in result.out


def test_info__of_a_study_lists_its_stores(study, run):
    result = run("info", study)
    listed = {Path(line.split()[0]).stem: line for line in result.lines[1:]}
    assert result.status == 0
    assert set(MADE) < set(listed)
    assert len(listed) == len(MADE) + 19
    assert all(" complete " in line for line in listed.values())


def test_info__json_is_one_document(study, run):
    one = json.loads(run("info", study / "scores.zarr", "--json").out)
    assert one["complete"] is True
    (part,) = json.loads(run("info", f"{study}#scores", "--json").out)
    assert part == one
    listed = json.loads(run("info", study, "--json").out)
    assert one["store_id"] in {line["store_id"] for line in listed}


@pytest.fixture
def damaged(tmp_path, study):
    """A copy of the study with an incomplete store, a damaged one, and one of another version."""
    copy = shutil.copytree(study, tmp_path / "study")
    segment = copy / "segments" / "0000"
    remove_regions(segment / "normalized.zarr", ["expression"], [0])
    (segment / "expression.zarr" / "expression" / "c" / "0" / "0").write_bytes(b"\xff" * 1000)
    (copy / "scores.zarr" / "zarr.json").write_text("{", encoding="utf-8")
    return copy


def test_info__states_of_a_damaged_study(damaged, run):
    result = run("info", damaged)
    listed = {Path(line.split()[0]).stem: line for line in result.lines[1:]}
    assert result.status == 0
    assert " not complete " in listed["normalized"]
    assert " 0 of 1 " in listed["normalized"]
    assert "scores.zarr: cannot be read" in listed["scores"]
    assert " complete " in listed["landmarks"]


def test_verify__a_sound_store_and_a_sound_study(study, run):
    result = run("verify", f"{study}#normalized")
    assert result.status == 0
    assert re.search(r"^problems +none$", result.out, re.MULTILINE)
    result = run("verify", study, "--json")
    assert result.status == 0
    assert {line["schema"] for line in json.loads(result.out)} > set(MADE)


def test_verify__problems_are_lines_and_status_1(damaged, run):
    result = run("verify", f"{damaged}#expression")
    assert result.status == 1
    assert re.search(
        r"^  expression, samples 0:\d+: expression/c/0/0 .* has 1000 bytes, expected \d+",
        result.out,
        re.MULTILINE,
    )
    result = run("verify", damaged)
    assert result.status == 1
    assert "normalized.zarr: not complete" in result.out
    assert result.err.startswith("verifying")
    found = json.loads(run("verify", damaged / "landmarks.zarr", "--json").out)
    assert found["problems"] == []


# ---------------------------------------------------------------- query


def test_query__is_a_table(study, run):
    result = run("query", f"{study}#landmarks", "--top", "3")
    header, *rows = [line.split("\t") for line in result.lines]
    assert header[0] == "gene"
    assert [row[header.index("rank")] for row in rows] == ["1", "2", "3"]


def test_query__genes_and_samples(study, run):
    best = run("query", f"{study}#landmarks", "--top", "1").lines[1].split("\t")[0]
    whole = run("query", f"{study}#normalized", "--gene", best).lines
    assert whole[0].split("\t") == ["sample", best]
    name, value = whole[5].split("\t")
    one = run("query", f"{study}#normalized", "--gene", best, "--sample", name)
    assert one.lines == [whole[0], f"{name}\t{value}"]
    assert run("query", f"{study}#samples", "--sample", name).lines[0].startswith("sample\t")


# ---------------------------------------------------------------- mine


def size_of(path):
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def check_sizes(estimates, root):
    """Each line of a dry run within a factor of three of what was written, the sum within two."""
    beside = {
        "report": [root / "figures", root / "report_data"],
        "select": list(root.glob("*.tsv")),
    }
    for line in estimates:
        real = size_of(line.writes) + sum(size_of(p) for p in beside.get(line.name, []))
        assert real / 3 < line.nbytes < real * 3, (line.name, line.nbytes, real)
    total = sum(line.nbytes for line in estimates)
    assert size_of(root) / 2 < total < size_of(root) * 2


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


def test_stage__says_what_it_did_and_what_was_done(mined, run):
    result = run("normalize", mined, *OVERRIDES)
    assert result.lines[1].split()[:2] == ["normalize", "unchanged"]
    found = json.loads(run("dedup", mined, *OVERRIDES, "--json").out)
    assert found["dedup"]["state"] == "unchanged"
    assert found["dedup"]["uri"].endswith("samples.zarr")


def test_stage__other_parameters_are_refused_until_overwritten(tmp_path, run):
    file = write_study(tmp_path, n_samples=40, n_genes=60)
    assert run("ingest", file, *OVERRIDES).status == 0
    result = run("ingest", file, *OVERRIDES, "--set", "seed=1")
    assert result.status == 1
    assert "seed: 0 -> 1" in result.err.splitlines()[-1]
    assert "--overwrite" in result.err.splitlines()[-1]
    assert run("ingest", file, *OVERRIDES, "--set", "seed=1", "--overwrite").status == 0


def test_report__ends_with_what_was_found(mined, run):
    result = run("report", mined, *OVERRIDES)
    assert result.status == 0
    assert result.lines[-1] == f"Report: {mined.parent}/study/report.html"
    study = open_study(str(mined.parent / "study"))
    evaluation, landmarks = open_store(study.uri("evaluation")), study.uri("landmarks")
    error = evaluation.attrs["details"]["mean_mae"]
    found = panel_rows(evaluation, open_store(landmarks))
    rows = {row.panel: row for row in found if row.cohort == "test"}
    assert f"  mean            {error['mean']:.4f}  {rows['mean'].word}" in result.lines
    assert f"  mined           {error['mined']:.4f}" in result.lines
    random = [e for name, e in error.items() if name.startswith("random-")]
    n_above = len([e for e in random if e > error["mined"]])
    assert len(random) == 2
    assert (
        f"  2 random        {statistics.mean(random):.4f}  {rows[CHANCE].word} "
        f"({min(random):.4f} to {max(random):.4f}; {n_above} of them above the mined panel)"
    ) in result.lines
    assert result.lines.index("Cautions:") < result.lines.index("Sources:")


def test_simulate__names_the_next_command(tmp_path, run):
    result = run("simulate", tmp_path, "--n-samples", "40", "--n-genes", "60", "--seed", "3")
    assert result.out == f"Run: dglzarr mine {tmp_path}/study.toml\n"
    assert load_settings(tmp_path / "study.toml").seed == 3


# ---------------------------------------------------------------- progress and logs


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


# ---------------------------------------------------------------- all of it


@pytest.mark.slow
def test_mine__twice_as_a_program(tmp_path):
    """Real Dask and training; the second run says that all is done, and is quick."""
    file = write_study(tmp_path, n_samples=120, n_genes=80)
    overrides = OVERRIDES[2:]  # a local cluster, as by default
    estimates = estimate(load_settings(file, SETTINGS))
    command = [PROGRAM, "mine", file, *overrides]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    root = tmp_path / "study"
    assert first.stdout.splitlines()[-1] == f"Report: {root}/report.html"
    check_sizes(estimates, root)
    before = times(root)
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    states = [line.split()[:2] for line in second.stdout.splitlines()[1 : len(ALWAYS)]]
    assert states == [[name, "unchanged"] for name in ALWAYS[:-1]]
    changed = {name for name, at in times(root).items() if before.get(name) != at}
    drawn = {name for name in changed if name.startswith(("figures/", "report_data/"))}
    tables = {"landmarks.tsv", "panels.tsv", "overlaps.tsv", "sorted_genes.csv"}
    assert changed - drawn <= {"report.html", "study.lock", *tables}
    for line in (first.stderr + second.stderr).splitlines():
        if re.match(r"WARNING: All log messages before absl|[IWE]0000 ", line):
            continue  # TensorFlow's own
        assert re.fullmatch(
            r"[a-zA-Z0-9 -]+( \(\d+\)|: \d+ of \d+(, \S+/s, about .+ left)?)", line
        ), line


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


def test_json__a_number_that_is_none_is_null(capsys):
    from dglzarr.cli import _print_json

    _print_json({"error": float("nan"), "rows": [np.float32("inf"), np.int64(3), Path("a")]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"error": None, "rows": [None, 3, "a"]}
