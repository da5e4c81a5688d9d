"""Settings, arguments and stores that are wrong: one clear line and an exit status, no more."""

import re

import pytest

from dglzarr.storage.study import create_study
from tests.bad_input.spoiled import GENES


@pytest.mark.parametrize(
    ("key", "value", "pattern"),
    [
        ("select.n_landmark", 3, r"study\.toml: select\.n_landmark"),
        ("selection.n_landmarks", 3, r"study\.toml: selection"),
        ("select.n_landmarks", 0, r"study\.toml: select\.n_landmarks.*0"),
        ("select.n_landmarks", "many", r"study\.toml: select\.n_landmarks.*many"),
        ("normalize.ties", "mean", r"study\.toml: normalize\.ties.*midrank"),
        ("ingest.test_fraction", 1.2, r"study\.toml: ingest\.test_fraction"),
        ("ingest.validation_fraction", 0.9, r"study\.toml: .*validation_fraction"),
        ("train.dropout", 1, r"study\.toml: train\.dropout"),
        ("ingest.probes", "absent.txt", r"ingest\.probes: no such file: .*absent\.txt"),
        ("ingest.annotation", "absent.txt", r"ingest\.annotation: no such file: .*absent\.txt"),
        ("enrich.gene_sets", "absent.gmt", r"enrich\.gene_sets: no such file: .*absent\.gmt"),
        ("evaluate.panels.l", "absent.txt", r"evaluate\.panels\.l: no such file: .*absent\.txt"),
    ],
)  # fmt: skip
def test_setting(study, key, value, pattern):
    study.settings[key] = value
    study.expect(2, pattern)
    assert not study.root.exists()


def test_setting__panel_larger_than_the_genes(study):
    study.settings["select.n_landmarks"] = 12
    run = study.run("mine")
    assert run.status == 2
    assert re.search(r"select\.n_landmarks: expected 1 to 11, .*got 12", run.complaint)
    assert study.complete == ["segments/0000/expression.zarr"]
    study.settings["select.n_landmarks"] = 943
    assert "got 943" in study.run("mine").complaint


@pytest.mark.parametrize(
    ("name", "content", "pattern"),
    [
        ("absent.toml", None, r"absent\.toml: cannot be read: No such file"),
        ("x.toml", "root = [", r"x\.toml: expected TOML"),
        ("x.toml", "", r"x\.toml: .*root"),
        ("x.toml", 'root = "r"\nsources = []\n', r"x\.toml: sources"),
        ("x.toml", b"\xff\xfe\x00", r"x\.toml: expected text in UTF-8"),
    ],
)
def test_settings_file(study, name, content, pattern):
    path = study.folder / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    run = study.call("mine", str(path))
    assert run.status == 2
    assert re.search(pattern, run.complaint), run.complaint


@pytest.mark.parametrize("option", ["n_landmarks", "select.n_landmark=3", "root.x=1", "=3"])
def test_override(study, option):
    run = study.run("ingest", "--set", option)
    assert run.status == 2
    assert run.complaint
    assert not study.root.exists()


@pytest.mark.parametrize("arguments", [("nonsense",), ("mine",), ("mine", "a", "--nonsense")])
def test_arguments(study, arguments):
    run = study.call(*arguments)
    assert run.status == 2
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("split_by", "remedy"), [("series", "split_by = 'sample'"), ("sample", "Add samples")]
)
def test_too_few_samples_for_a_split(study, split_by, remedy):
    (study.folder / "GSE2_series_matrix.txt").unlink()
    study.write("GSE1", study.values[:1])
    study.settings["ingest.split_by"] = split_by
    study.expect(2, rf"ingest\.split_by '{split_by}': expected train and test.*{remedy}")


def test_stage_before_its_input(study):
    for verb, wanted in (
        ("normalize", "expression"),
        ("dedup", "normalized"),
        ("select", "scores"),
    ):
        study.expect(1, rf"{wanted}\.zarr: no such store. Run the stage that writes it", verb)


def test_names_that_are_taken(study):
    (study.folder / "list.txt").write_text("\n".join(GENES[:3]))
    study.sources.append({"uri": "list.txt", "role": "cohort"})
    (study.folder / "GSE1_expr.tsv").write_text("ID_REF\ta\n")
    study.expect(2, r"GSE1_series_matrix\.txt and .*GSE1_expr\.tsv are both named 'GSE1'")


@pytest.mark.parametrize("verb", ["info", "verify", "query"])
@pytest.mark.parametrize(
    ("store", "pattern"),
    [
        ("absent.zarr", r"absent\.zarr: no such store"),
        ("absent#normalized", r"absent: no study here"),
        ("study#nonsense", r"expected a store of expression, .*'nonsense'"),
        ("foreign", r"foreign: expected a dglzarr store, got a foreign Zarr group"),
    ],
)
def test_store(study, verb, store, pattern):
    import zarr

    study.run()
    zarr.open_group(str(study.folder / "foreign"), mode="w")
    study.monkeypatch.chdir(study.folder)
    run = study.call(verb, store)
    assert run.status in (1, 2)
    assert re.search(pattern, run.complaint), run.complaint


@pytest.mark.parametrize(
    "option", [("--gene", "nobody"), ("--sample", "nobody", "--gene", "01_at")]
)
def test_query__unknown_label(study, option):
    study.run()
    run = study.call("query", f"{study.root}#expression", *option)
    assert run.status in (1, 2)
    assert re.search(r"nobody", run.complaint), run.complaint


def test_store__other_files_in_its_place(study):
    create_study(str(study.root))
    place = study.root / "segments/0000/expression.zarr"
    place.mkdir(parents=True)
    (place / "diary.txt").write_text("mine")
    study.expect(1, r"expression\.zarr: expected a dglzarr store or nothing, got other files")
    assert (place / "diary.txt").read_text() == "mine"


def test_store__made_with_other_settings(study):
    study.run()
    study.settings["seed"] = 5
    run = study.run()
    assert run.status == 1
    assert re.search(r"expression\.zarr: .*seed: 0 -> 5.*--overwrite", run.complaint)
    assert study.run("ingest", "--overwrite").status == 0
