"""Predictions on disk: the same numbers in every format, whole or not at all."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.prediction import output
from dglzarr.prediction.output import write_prediction
from dglzarr.prediction.predict import BLOCK, predict
from dglzarr.storage.options import Run
from dglzarr.storage.store import read_attributes
from tests.builders import digests, remove_regions
from tests.prediction.conftest import N_PANEL, PANEL


@pytest.fixture
def measured(held_out, tmp_path):
    """A table of what was measured, genes in rows."""
    folder = tmp_path / "lab"
    folder.mkdir()
    names = [f"patient-{i}" for i in range(len(held_out))]
    table = pd.DataFrame(held_out[:, :N_PANEL].T, index=PANEL, columns=names)
    table.loc[PANEL[3], "patient-5"] = np.nan
    table.to_csv(folder / "new.tsv", sep="\t", float_format="%.5f", index_label="gene")
    return folder / "new.tsv"


def run(*arguments):
    return guarded(lambda: app([str(a) for a in arguments], standalone_mode=False))


def test_write_prediction__tables(made, measured, tmp_path):
    expected = predict(made.output, measured)
    written = write_prediction(made.output, measured, tmp_path / "out" / "p.tsv")
    names = ["p.tsv", "p.lower.tsv", "p.upper.tsv", "p.samples.tsv", "p.genes.tsv"]
    assert written.places == [str(tmp_path / "out" / name) for name in names]
    for name, frame in zip(
        names, (expected.predicted.T, expected.lower.T, expected.upper.T, expected.samples,
                expected.genes), strict=True,
    ):  # fmt: skip
        found = pd.read_csv(tmp_path / "out" / name, sep="\t", index_col=0, dtype={"gene_id": str})
        pd.testing.assert_frame_equal(found, frame, check_dtype=False, rtol=1e-4, check_names=False)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(names)
    assert written.notes == expected.notes


def test_write_prediction__nothing_of_others_is_replaced_or_removed(
    made, measured, tmp_path, monkeypatch
):
    own, other = tmp_path / "p.samples.tsv", tmp_path / "p.vcf.partial"
    left = tmp_path / f"p.lower.tsv.{'0' * 32}.partial"
    for path in (own, other, left):
        path.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"p\.samples\.tsv: exists\. Remove it, or give"):
        write_prediction(made.output, measured, tmp_path / "p.tsv")
    write_prediction(made.output, measured, tmp_path / "q.tsv")
    write_prediction(made.output, measured, tmp_path / "p.tsv", run=Run(overwrite=True))
    assert (other.exists(), left.exists()) == (True, False)
    before, replace = digests(tmp_path), Path.replace

    def stopped(path, to):
        if to.name == "p.tsv":
            raise KeyboardInterrupt
        return replace(path, to)

    monkeypatch.setattr(output, "_table", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_prediction(made.output, measured, tmp_path / "p.tsv", run=Run(overwrite=True))
    assert digests(tmp_path) == before
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_prediction(made.output, measured, tmp_path / "p.tsv", run=Run(overwrite=True))
    assert not (tmp_path / "p.tsv").exists(), "old predictions beside new intervals"


def test_write_prediction__anndata(made, measured, tmp_path):
    expected = predict(made.output, measured)
    write_prediction(made.output, measured, tmp_path / "p.h5ad")
    found = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert found.obs_names.tolist() == expected.predicted.index.tolist()
    assert found.var_names.tolist() == expected.predicted.columns.tolist()
    np.testing.assert_array_equal(found.X, expected.predicted.to_numpy())
    np.testing.assert_array_equal(found.layers["lower"], expected.lower.to_numpy())
    np.testing.assert_array_equal(found.layers["upper"], expected.upper.to_numpy())
    assert found.var["gene_symbol"].tolist() == expected.genes["gene_symbol"].tolist()
    np.testing.assert_array_equal(found.obs["trusted"], expected.samples["trusted"])
    assert found.uns["bundle"] == made.sha256
    assert found.uns["notes"].tolist() == expected.notes
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("p.")] == ["p.h5ad"]


def test_write_prediction__says_which_samples_lie_elsewhere(made, held_out, tmp_path, capsys):
    names = [f"p{i}" for i in range(len(held_out))]
    table = pd.DataFrame(held_out[:, :N_PANEL].T, index=PANEL, columns=names)
    table["p7"] += 8
    table.to_csv(tmp_path / "new.tsv", sep="\t", index_label="gene")
    places = [tmp_path / f"p{end}" for end in (".tsv", ".h5ad", ".zarr")]
    for place in places:
        assert run("predict", made.output, tmp_path / "new.tsv", "--output", place, "--json") == 0
        told = {row["sample"]: row for row in json.loads(capsys.readouterr().out)["samples"]}
        assert [name for name in names if told[name]["lies_elsewhere"]] == ["p7"]
        assert not told["p7"]["trusted"]
    tables = pd.read_csv(tmp_path / "p.samples.tsv", sep="\t", index_col=0)["lies_elsewhere"]
    obs = anndata.read_h5ad(places[1]).obs["lies_elsewhere"]
    for found in (tables, obs, dglzarr.open(str(places[2]))["lies_elsewhere"].to_series()):
        assert found[found].index.tolist() == ["p7"]


@pytest.mark.parametrize("n_samples", [1, 40, 255, 256, 300, 2000, 10_000, 129_158])
def test_write_prediction__regions_are_whole_blocks(n_samples):
    """Products are then those of `predict`; of other rows side by side the last bits differ."""
    region = output.shard_samples(n_samples)
    assert region % BLOCK == 0 or region >= n_samples


def test_write_prediction__zarr(made, measured, tmp_path, monkeypatch):
    monkeypatch.setattr("dglzarr.prediction.predict.BLOCK", 16)
    monkeypatch.setattr(output, "shard_samples", lambda _: 16)
    expected = predict(made.output, measured)
    place = str(tmp_path / "p.zarr")
    write_prediction(made.output, measured, place)
    found = dglzarr.open(place)
    for name in ("predicted", "lower", "upper"):
        np.testing.assert_array_equal(found[name].values, getattr(expected, name).to_numpy())
    np.testing.assert_array_equal(found["sample_trusted"], expected.samples["trusted"])
    np.testing.assert_array_equal(found["n_imputed"], expected.samples["n_imputed"])
    attributes = read_attributes(place)
    assert {entry["role"] for entry in attributes["inputs"]} == {"bundle", "measured"}
    assert attributes["details"]["notes"] == expected.notes
    assert run("verify", place) == 0
    before = digests(place)
    write_prediction(made.output, measured, place)
    assert digests(place) == before


def test_write_prediction__interrupted_goes_on_to_the_same(made, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "shard_samples", lambda _: 16)
    whole, cut = str(tmp_path / "whole.zarr"), str(tmp_path / "cut.zarr")
    write_prediction(made.output, measured, whole)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(output, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            write_prediction(made.output, measured, cut)
    remove_regions(cut, ["predicted"], [1])
    with pytest.raises(StoreError, match="not complete"):
        dglzarr.open(cut)
    write_prediction(made.output, measured, cut)
    for name in ("predicted", "lower", "upper", "novelty", "sample_trusted"):
        np.testing.assert_array_equal(dglzarr.open(cut)[name], dglzarr.open(whole)[name])


def test_write_prediction__made_otherwise_is_kept(made, measured, tmp_path):
    place = tmp_path / "p.zarr"
    write_prediction(made.output, measured, place)
    with pytest.raises(
        ConfigError, match=r"exists, made otherwise: scale: 'quantile' -> 'shift'\. Give"
    ):
        write_prediction(made.output, measured, place, scale="shift")
    write_prediction(made.output, measured, place, scale="shift", run=Run(overwrite=True))
    assert read_attributes(str(place))["parameters"]["scale"] == "shift"
    for name in ("p.tsv", "p.h5ad"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"exists\. Remove it, or give --overwrite"):
            write_prediction(made.output, measured, tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("suffix", [".tsv", ".h5ad", ".zarr"])
def test_write_prediction__refused_leaves_nothing(made, measured, tmp_path, suffix):
    text = measured.read_text(encoding="utf-8").splitlines()
    measured.write_text("\n".join(text[:10]), encoding="utf-8")
    out = tmp_path / "out"
    with pytest.raises(SourceError, match=r"new.tsv: expected at most 10 % of the 24 panel genes"):
        write_prediction(made.output, measured, out / f"p{suffix}")
    lacking = [line.split("\t") for line in text]
    rows = [line if i % 2 else [line[0], *[""] * 42] for i, line in enumerate(lacking[1:])]
    body = "\n".join("\t".join(line) for line in [lacking[0], *rows])
    measured.write_text(body, encoding="utf-8")
    with pytest.raises(SourceError, match="expected at most 10 % of the 24"):
        write_prediction(made.output, measured, out / f"p{suffix}")
    assert not out.exists() or list(out.iterdir()) == []


def test_write_prediction__other_names_and_too_many_samples(made, measured, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"--output: expected a name that ends in"):
        write_prediction(made.output, measured, tmp_path / "p.csv")
    monkeypatch.setattr(output, "TABLE_SAMPLES", 10)
    with pytest.raises(ConfigError, match="expected at most 10 samples for tables of text, got 42"):
        write_prediction(made.output, measured, tmp_path / "p.tsv")


def test_predict_command(made, measured, tmp_path, capsys):
    place = tmp_path / "p.tsv"
    assert run("predict", made.output, measured, "--output", place) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("65 genes of 42 samples predicted with 95 % intervals; ")
    assert told[-1].startswith(f"Written: {place}, ")
    assert run("predict", made.output, measured, "--output", tmp_path / "q.h5ad", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["samples"]) == 42
    assert run("predict", made.output, measured, "--output", place) == 2
    assert capsys.readouterr().err.startswith(f"{place}: exists.")
    assert run("predict", tmp_path / "no.zip", measured, "--output", tmp_path / "r.tsv") == 1
    assert "no such bundle" in capsys.readouterr().err


def test_predict_command__what_a_file_is_wrong_in(made, measured, tmp_path, capsys):
    text = measured.read_text(encoding="utf-8").splitlines()
    measured.write_text("\n".join([*text, text[3]]), encoding="utf-8")
    assert run("predict", made.output, measured, "--output", tmp_path / "p.tsv") == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "'002_at'" in told
    table = [line.split("\t") for line in text]
    counts = [[line[0], *(str(round(2 ** float(v or 3))) for v in line[1:])] for line in table[1:]]
    body = "\n".join("\t".join(line) for line in [table[0], *counts])
    measured.write_text(body, encoding="utf-8")
    assert run("predict", made.output, measured, "--output", tmp_path / "p.tsv") == 1
    told = capsys.readouterr().err
    assert told.startswith("new.tsv: expected log2 values, got read counts up to")
    assert "Say what they are, --unit counts, intensity, tpm, rpkm or fpkm" in told
    arguments = ("--unit", "counts", "--output", tmp_path / "p.tsv")
    assert run("predict", made.output, measured, *arguments) == 0


def test_predict_command__samples_in_rows(made, measured, tmp_path, capsys):
    table = pd.read_csv(measured, sep="\t", index_col=0)
    turned, asked = tmp_path / "turned.tsv", ("--output", tmp_path / "p.tsv")
    table.T.to_csv(turned, sep="\t")
    expected = predict(made.output, measured).predicted
    pd.testing.assert_frame_equal(
        predict(made.output, table, samples_in="columns").predicted, expected
    )
    assert run("predict", made.output, turned, *asked) == 1
    assert "State --samples-in rows (samples_in= in Python)" in capsys.readouterr().err
    assert run("predict", made.output, turned, *asked, "--samples-in", "rows") == 0
    found = pd.read_csv(tmp_path / "p.tsv", sep="\t", index_col=0).T
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert run("predict", made.output, turned, *asked, "--overwrite", "--samples-in", "row") == 2
    assert "samples_in: expected" in capsys.readouterr().err
