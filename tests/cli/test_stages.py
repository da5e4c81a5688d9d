"""Stages by their commands: what they say they did; a whole run as a program."""

import json
import re
import statistics
import subprocess

import pytest

from dglzarr.report.panels import CHANCE, panel_rows
from dglzarr.settings import load_settings
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study
from dglzarr.studies.forecast import estimate
from dglzarr.testing import write_study
from tests.builders import times
from tests.cli.program import ALWAYS, OVERRIDES, PROGRAM, SETTINGS, check_sizes


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
