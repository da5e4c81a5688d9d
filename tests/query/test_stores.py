"""Questions to stores: what stands there, is it whole, and single rows and columns by label."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

import dglzarr
from dglzarr import query
from dglzarr.errors import SchemaError, StoreError
from dglzarr.models.files import save_model
from dglzarr.storage.schemas import EXPRESSION, LANDMARKS, NORMALIZED, RAW, STABILITY
from dglzarr.storage.store import (
    open_store,
)
from tests.builders import (
    no_computing,
    record_again,
    remove_regions,
    set_attributes,
    text,
    write_contributions,
    write_manifest,
    write_matrix,
    write_model,
    write_samples,
    write_store,
)

N_SAMPLES, N_GENES = 40, 10
GENES = [f"{i:03d}_at" for i in range(N_GENES)]
SYMBOLS = ["TP53", "TP53", "MYC", "", "EGFR", *[f"G{i}" for i in range(5, N_GENES)]]
RANK = np.array([4, 2, 1, 3, 5, 6, 7, 10, 9, 8], dtype=np.int32)


@pytest.fixture(scope="module")
def values():
    drawn = np.random.default_rng(0).normal(8, 1, (N_SAMPLES, N_GENES)).astype(np.float32)
    drawn[3, 4] = drawn[20, 0] = np.nan
    return drawn


@pytest.fixture(scope="module")
def original(tmp_path_factory, values):
    """A study with a store of each kind that questions differ for."""
    root = tmp_path_factory.mktemp("study")
    write_manifest(str(root), ["0000"])
    segment = root / "segments" / "0000"
    named = {"genes": GENES, "symbols": SYMBOLS}
    write_matrix(root / "raw" / "GSE1.zarr", RAW, values, **named)
    write_matrix(segment / "expression.zarr", EXPRESSION, values, **named)
    normalized = write_matrix(segment / "normalized.zarr", NORMALIZED, values, **named)
    widen_reference(normalized, values)
    keep = np.ones(N_SAMPLES, dtype=bool)
    keep[7] = False
    write_samples(segment / "samples.zarr", normalized, keep=keep)
    write_contributions(segment / "contributions.zarr", np.abs(values), GENES)
    write_landmarks(root / "landmarks.zarr")
    write_stability(root / "stability.zarr")
    return root


def widen_reference(uri, values):
    """The stores of these tests hold chosen values; let the reference reach around them."""
    ends = np.linspace(np.nanmin(values), np.nanmax(values), N_GENES)
    ends[-1] += 1e-3
    ends[0] -= 1e-3
    change(uri, "quantile_reference", ..., ends)


def write_landmarks(uri):
    arrays = {
        "gene": text(GENES),
        "gene_symbol": text(SYMBOLS),
        "panel": text(["mined"]),
        "selector": text(["top-score"]),
        "kind": text(["mined"]),
        "position": np.arange(3, dtype=np.int32),
        "score": 1.0 / RANK,
        "rank": RANK,
        "is_landmark": RANK <= 3,
        "panel_gene": text(["002_at", "001_at", "003_at"]).reshape(1, 3),
    }
    write_store(uri, LANDMARKS, arrays, parameters={"seed": 3})


def write_stability(uri):
    replicates, rank = text(["seed-0", "seed-1"]), np.stack([RANK, RANK[::-1]])
    arrays = {
        "gene": text(GENES),
        "gene_symbol": text(SYMBOLS),
        "replicate": replicates,
        "other": replicates,
        "score": 1.0 / rank,
        "rank": rank,
        "overlap": np.eye(2),
        "rank_correlation": np.eye(2),
        "n_panels": np.arange(N_GENES, dtype=np.int32),
    }
    write_store(uri, STABILITY, arrays)


@pytest.fixture
def study(original, tmp_path):
    return shutil.copytree(original, tmp_path / "study")


@pytest.fixture
def segment(study):
    return study / "segments" / "0000"


def change(uri, name, where, value):
    """Let a store hold another value, as if it had been written so."""
    zarr.open_array(str(uri), path=name, mode="r+")[where] = value
    record_again(uri)


def cut(path, length):
    path.write_bytes(path.read_bytes()[:length])


# ---------------------------------------------------------------- open


@pytest.mark.parametrize("name", ["expression", "normalized", "contributions"])
def test_open__computes_nothing(name, original):
    with no_computing():
        ds = dglzarr.open(f"{original}#{name}")
        part = ds.isel(sample=slice(0, 3))
    matrix = "contribution" if name == "contributions" else "expression"
    assert ds[matrix].chunks is not None
    with pytest.raises(AssertionError, match="computed"), no_computing():
        part[matrix].compute()


def test_open__store_and_study_name_are_the_same(original, values):
    by_name = dglzarr.open(f"{original}#normalized")
    by_uri = dglzarr.open(f"{original}/segments/0000/normalized.zarr")
    assert by_name.identical(by_uri)
    np.testing.assert_array_equal(by_name["expression"].values, values)
    assert float(by_name["expression"].sel(sample="s001", gene="002_at")) == values[1, 2]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("{study}/nosuch.zarr", StoreError, r"nosuch\.zarr: no such store\. Run the stage"),
        ("{study}#scores", StoreError, r"scores\.zarr: no such store"),
        ("{study}#units", StoreError, r"expected a store of expression, .* got 'units'"),
        ("{study}/nowhere#scores", StoreError, r"nowhere: no study here"),
        ("{study}", StoreError, r"expected a store, got a study\. Choose .*#NAME of expression"),
        ("{study}/raw", StoreError, r"raw: no such store"),
    ],
)
def test_open__refuses(name, error, message, original):
    with pytest.raises(error, match=message):
        dglzarr.open(name.format(study=original))


def test_open__foreign_and_incomplete_stores(segment):
    zarr.open_group(str(segment / "foreign.zarr"), mode="w")
    with pytest.raises(StoreError, match=r"foreign\.zarr: expected a dglzarr store"):
        dglzarr.open(str(segment / "foreign.zarr"))
    zarr.open_group(str(segment / "normalized.zarr"), mode="r+").attrs.update({"complete": False})
    with pytest.raises(StoreError, match=r"normalized\.zarr: not complete"):
        dglzarr.open(str(segment / "normalized.zarr"))


@pytest.mark.parametrize("object_", ["zarr.json", "gene/zarr.json", "gene/c/0"])
def test_open__damaged_metadata_or_labels(object_, segment):
    cut(segment / "normalized.zarr" / object_, 10)
    with pytest.raises(
        StoreError, match=r"normalized\.zarr: cannot be read: .* Remove (it|the store)"
    ):
        dglzarr.open(str(segment / "normalized.zarr"))


def test_gene_keys__id_before_symbol_before_label(tmp_path, values):
    ids = ["", "7157", *[""] * (N_GENES - 2)]
    uri = write_matrix(
        tmp_path / "e.zarr", EXPRESSION, values, genes=GENES, symbols=SYMBOLS, ids=ids
    )
    assert query.gene_keys(open_store(uri))[:4].tolist() == ["TP53", "7157", "MYC", "003_at"]
    bare = write_matrix(tmp_path / "r.zarr", RAW, values, genes=GENES, symbols=SYMBOLS)
    assert query.gene_keys(open_store(bare))[:4].tolist() == ["TP53", "TP53", "MYC", "003_at"]


# ---------------------------------------------------------------- describe


def test_describe__complete_store(original):
    found = query.describe(str(original / "landmarks.zarr"))
    assert found["complete"] is True
    assert found["schema"] == f"landmarks version {LANDMARKS.version}"
    assert found["sizes"] == {"gene": N_GENES, "panel": 1, "position": 3}
    assert found["parameters"] == {"seed": 3}
    assert found["regions"] == "-"
    files = [p for p in (original / "landmarks.zarr").rglob("*") if p.is_file()]
    assert found["nbytes"] == sum(p.stat().st_size for p in files)


def test_describe__lineage_names_the_input(original):
    found = query.describe(str(original / "segments" / "0000" / "samples.zarr"))
    normalized = query.describe(str(original / "segments" / "0000" / "normalized.zarr"))
    assert [i["store_id"] for i in found["inputs"]] == [normalized["store_id"]]


def test_describe__incomplete_store(segment):
    uri = str(segment / "normalized.zarr")
    remove_regions(uri, ["expression"], [1])
    found = query.describe(uri)
    assert (found["complete"], found["regions"], found["sizes"]) == (False, "2 of 3", {})


def test_describe__nothing_there(tmp_path):
    with pytest.raises(StoreError, match=r"nosuch\.zarr: no such store"):
        query.describe(str(tmp_path / "nosuch.zarr"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match=r"folder: no such store"):
        query.describe(str(tmp_path / "folder"))


def test_stores__of_a_study_in_the_order_they_are_made(original):
    names = [uri.removeprefix(f"{original}/") for uri in query.stores(str(original))]
    made = ("expression", "normalized", "samples", "contributions")
    segments = [f"segments/0000/{name}.zarr" for name in made]
    assert names == ["raw/GSE1.zarr", *segments, "landmarks.zarr", "stability.zarr"]
    with pytest.raises(StoreError, match="no study here"):
        query.stores(str(original / "raw"))


# ---------------------------------------------------------------- verify


def test_verify__every_store_of_a_sound_study(original):
    for uri in query.stores(str(original)):
        assert query.verify(uri)["problems"] == [], uri


def problems_of(study):
    found = query.verify_study(str(study))
    return {Path(line["uri"]).name: line["problems"] for line in found if line["problems"]}


@pytest.mark.parametrize("gone", ["normalized.zarr/zarr.json", "normalized.zarr"])
def test_verify__a_study_without_a_store_that_others_were_made_from(gone, study, segment):
    path = segment / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (problem,) = problems_of(study)["normalized.zarr"]
    assert "of which samples.zarr was made, got no" in problem
    assert problem.endswith(f"or run 'dglzarr mine --overwrite' for {study}")


def test_verify__a_finished_study_has_every_store(study):
    assert problems_of(study) == {}
    (study / "report.html").touch()
    assert {"latent.zarr", "scores.zarr", "evaluation.zarr"} <= problems_of(study).keys()


def test_verify__a_store_of_another_study(study, segment):
    set_attributes(segment / "normalized.zarr", store_id="another")
    (problem,) = problems_of(study)["samples.zarr"]
    assert "was made from another normalized.zarr than stands in the study" in problem


def test_verify__a_changed_model_of_a_study(study, segment):
    folder = study / "models" / "seed-0"
    write_model(folder, str(segment / "normalized.zarr"), str(segment / "samples.zarr"))
    sound = query.verify_study(str(study))
    assert (sound[-1]["schema"], sound[-1]["uri"]) == ("model", str(folder))
    assert not any(line["problems"] for line in sound)
    described = (folder / "model.json").read_text()
    (folder / "model.json").write_text(described.replace("sigmoid", "tanh", 1))
    (problem,) = query.verify_study(str(study))[-1]["problems"]
    assert "model.json: expected it as it was saved, got a changed file" in problem


@pytest.mark.parametrize("name", ["history.csv", "training.json"])
def test_verify__a_changed_file_beside_a_model(study, segment, name):
    folder = study / "models" / "seed-0"
    folder.mkdir(parents=True)
    for each in ("history.csv", "training.json"):
        (folder / each).write_bytes(b"1,0.5,0.4,2.0")
    write_model(folder, str(segment / "normalized.zarr"), str(segment / "samples.zarr"))
    sound = query.verify_study(str(study))[-1]
    assert (sound["objects"], sound["problems"]) == ("4 compared", [])
    (folder / name).write_bytes(b"1,0.5,0.4,2.1")
    (problem,) = query.verify_study(str(study))[-1]["problems"]
    assert problem.startswith(f"{name}: expected it as training left it")
    (folder / name).unlink()
    assert query.verify_study(str(study))[-1]["problems"] == [problem]


def test_verify__weights_that_are_not_finite(study):
    layers = [(np.full((2, 1), np.inf, np.float32), np.zeros(1, np.float32), "linear")]
    moments = {"gene_mean": np.zeros(2), "gene_std": np.ones(2)}
    save_model(
        study / "models" / "seed-0", layers, config={}, genes=["a", "b"], inputs=[], parameters={},
        **moments,
    )  # fmt: skip
    assert query.verify_study(str(study))[-1]["problems"] == ["weights that are not finite"]


def test_verify__counts_missing_values(original):
    found = query.verify(str(original / "segments" / "0000" / "normalized.zarr"))
    assert (found["schema"], found["n_missing"]) == ("normalized", 2)


@pytest.mark.parametrize(
    ("store", "name", "where", "value", "problem"),
    [
        ("normalized", "expression", (20, 1), 99.0,
         "expression, samples 16:32: values outside the quantile reference"),
        ("normalized", "expression", (39, 9), -99.0,
         "expression, samples 32:40: values outside the quantile reference"),
        ("expression", "expression", (0, 0), np.inf, "expression, samples 0:16: infinite values"),
        ("expression", "expression", (0, 0), np.nan,
         "expression, samples 0:16: other missing values than counted"),
        ("contributions", "contribution", (33, 2), -1e-6,
         "contribution, samples 32:40: negative values"),
        ("contributions", "delta_error", 5, np.inf, "delta_error: infinite values"),
        ("normalized", "quantile_reference", 3, 0.0, "quantile_reference: does not ascend"),
        ("samples", "gene_std", 3, -np.inf, "gene_std: infinite values"),
    ],
)  # fmt: skip
def test_verify__wrong_value(store, name, where, value, problem, segment):
    uri = segment / f"{store}.zarr"
    change(uri, name, where, value)
    assert query.verify(str(uri))["problems"] == [problem]


def test_verify__ranks(study):
    change(study / "landmarks.zarr", "rank", 0, 2)
    assert query.verify(str(study / "landmarks.zarr"))["problems"] == ["rank: not a permutation"]


def test_verify__ranks_of_every_replicate(study):
    change(study / "stability.zarr", "rank", (1, 0), 7)
    assert query.verify(str(study / "stability.zarr"))["problems"] == ["rank: not a permutation"]


@pytest.mark.parametrize(
    ("store", "name", "parameter", "value"),
    [
        ("normalized", "expression", {"method": "none"}, 99.0),
        ("contributions", "contribution", {"aggregation": "mean"}, -1.0),
    ],
)
def test_verify__values_are_held_to_what_was_asked_for(store, name, parameter, value, segment):
    """Copied values know no reference, and a mean of signed contributions may be negative."""
    uri = str(segment / f"{store}.zarr")
    change(uri, name, (0, 0), value)
    assert len(query.verify(uri)["problems"]) == 1
    set_attributes(uri, parameters=parameter)
    assert query.verify(uri)["problems"] == []


@pytest.mark.parametrize("index", [0, 2])
def test_verify__a_shard_is_gone(index, segment):
    uri = str(segment / "normalized.zarr")
    (segment / "normalized.zarr" / "expression" / "c" / str(index) / "0").unlink()
    problems = query.verify(uri)["problems"]
    assert problems[0] == f"1 regions are missing: {index}. Run its stage again"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: cut(path, path.stat().st_size // 2),
        lambda path: cut(path, 10),
        lambda path: cut(path, 0),
        lambda path: path.write_bytes(b"\xff" * path.stat().st_size),
    ],
    ids=["half", "head", "empty", "noise"],
)
def test_verify__a_damaged_shard_is_a_problem_not_a_crash(damage, segment):
    damage(segment / "normalized.zarr" / "expression" / "c" / "1" / "0")
    *_, problem = query.verify(str(segment / "normalized.zarr"))["problems"]
    assert problem.startswith("expression, samples 16:32: expression/c/1/0 of 'expression' ")
    assert "bytes" in problem
    assert problem.endswith("Remove it and run its stage again")


def test_verify__a_damaged_vector_is_a_problem_not_a_crash(segment):
    cut(segment / "samples.zarr" / "gene_mean" / "c" / "0", 10)
    (problem,) = query.verify(str(segment / "samples.zarr"))["problems"]
    message = (
        r"gene_mean: gene_mean/c/0 of 'gene_mean' has 10 bytes, expected \d+\. Remove the store"
    )
    assert re.match(message, problem)


def test_verify__refuses_what_is_not_complete_or_of_another_version(segment):
    uri = segment / "normalized.zarr"
    set_attributes(uri, dglzarr_schema_version=99)
    with pytest.raises(SchemaError, match="at most, got 99"):
        query.verify(str(uri))
    set_attributes(uri, complete=False)
    with pytest.raises(StoreError, match="not complete"):
        query.verify(str(uri))


# ---------------------------------------------------------------- table


def test_table__of_a_matrix_is_that_part_of_it(original, values):
    name = f"{original}#normalized"
    found = query.table(name, genes=["004_at", "MYC"], samples=["s005", "s001"])
    assert found.columns.tolist() == ["004_at", "002_at"]
    assert (found.index.name, found.index.tolist()) == ("sample", ["s005", "s001"])
    np.testing.assert_array_equal(found.values, values[[5, 1]][:, [4, 2]])


def test_table__all_samples_or_the_first_genes(original, values):
    name = f"{original}#expression"
    np.testing.assert_array_equal(query.table(name, genes=["MYC"]).values, values[:, [2]])
    np.testing.assert_array_equal(
        query.table(name, samples=["s003"], top=5).values, values[[3], :5]
    )
    assert query.table(name).shape == (N_SAMPLES, N_GENES)


def test_table__a_symbol_stands_for_each_of_its_probes(original):
    found = query.table(f"{original}#landmarks", genes=["TP53", "EGFR"])
    assert found.index.tolist() == ["000_at", "001_at", "004_at"]
    assert found["rank"].tolist() == [4, 2, 5]


def test_table__the_best_genes_first(original):
    found = query.table(f"{original}#landmarks", top=4)
    assert found["rank"].tolist() == [1, 2, 3, 4]
    assert found.index.tolist() == ["002_at", "001_at", "003_at", "000_at"]
    assert found["gene_symbol"].tolist() == ["MYC", "TP53", "", "TP53"]
    assert found["score"].tolist() == [1.0, 0.5, 1 / 3, 0.25]


def test_table__ranks_of_replicates_are_no_order_of_genes(original):
    found = query.table(f"{original}#stability", top=3)
    assert found.index.tolist() == GENES[:3]
    assert found["n_panels"].tolist() == [0, 1, 2]


def test_table__of_a_store_by_sample(original):
    found = query.table(f"{original}#samples", samples=["s007", "s000"])
    assert found["keep"].tolist() == [False, True]
    assert found.index.tolist() == ["s007", "s000"]
    assert query.table(f"{original}#samples", genes=["003_at"]).index.tolist() == ["003_at"]


@pytest.mark.parametrize(
    ("store", "arguments", "message"),
    [
        ("normalized", {"genes": ["MYC", "NOPE"]}, r"expected a gene of the study .* got 'NOPE'"),
        (
            "landmarks",
            {"genes": list("abcdefg")},
            r"landmarks: expected a gene of the study .* got 'a'",
        ),
        ("normalized", {"samples": ["s000", "x"]}, r"expected samples of the store, got \['x'\]"),
        ("landmarks", {"samples": ["s000"]}, r"landmarks: has no samples to choose from"),
    ],
)
def test_table__unknown_labels(store, arguments, message, original):
    with pytest.raises(ValueError, match=rf"#{store}: .*{message}|{message}"):
        query.table(f"{original}#{store}", **arguments)


def test_table__reads_only_what_was_asked_for(segment, values):
    """A damaged shard does not matter to samples of another one, and is told when it does."""
    shard = segment / "normalized.zarr" / "expression" / "c" / "1" / "0"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    uri = str(segment / "normalized.zarr")
    np.testing.assert_array_equal(
        query.table(uri, samples=["s002"], genes=["MYC"]).values, values[[2]][:, [2]]
    )
    with pytest.raises(StoreError, match=r"normalized\.zarr: cannot be read"):
        query.table(uri, samples=["s020"], genes=["MYC"])


@pytest.mark.parametrize("ask", [dglzarr.open, dglzarr.open_study])
def test_open__an_address_is_for_xarray(ask):
    with pytest.raises(StoreError, match=r"^http://.*: expected a folder .* xarray\.open_zarr"):
        ask("http://127.0.0.1:8000/data/study/normalized.zarr")
