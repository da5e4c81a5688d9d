"""Commands that read what is finished: info, verify, query."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.builders import remove_regions
from tests.cli.program import MADE


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


@pytest.mark.parametrize("verb", ["verify", "query", "info"])
def test_a_study_without_its_manifest__says_what_to_run(tmp_path, study, run, verb):
    copy = shutil.copytree(study, tmp_path / "study")
    (copy / "study.json").unlink()
    result = run(verb, copy)
    assert result.status == 1
    assert "study.json is missing, but there are segments: 0000. Run 'dglzarr rep" in result.err


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
    assert re.fullmatch(r"\d of \d+ have problems: .*normalized\.zarr.*", result.lines[-1])
    assert result.err.startswith("verifying")
    found = json.loads(run("verify", damaged / "landmarks.zarr", "--json").out)
    assert found["problems"] == []


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


def test_json__a_number_that_is_none_is_null(capsys):
    from dglzarr.cli import _print_json

    _print_json({"error": float("nan"), "rows": [np.float32("inf"), np.int64(3), Path("a")]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"error": None, "rows": [None, 3, "a"]}
