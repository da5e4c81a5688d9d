"""Exports, opened by the programs they are for; and that half of one never looks whole."""

import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.errors import ConfigError, StoreError
from dglzarr.export import export_study
from dglzarr.export.selected import select
from dglzarr.sources import read_source
from dglzarr.storage.schemas import LANDMARKS, NORMALIZED
from tests.builders import text, write_manifest, write_matrix, write_store

PROGRAM = Path(sys.executable).with_name("dglzarr")


@pytest.fixture(scope="module")
def tree(example_study):
    return dglzarr.open_study(example_study)


@pytest.fixture(scope="module")
def values(tree):
    with dask.config.set(scheduler="synchronous"):  # as every test has it
        return tree["normalized"].dataset["expression"].values


@pytest.fixture(scope="module")
def exported(example_study, tmp_path_factory):
    """A whole export in each format, and one of the mined panel."""
    folder = tmp_path_factory.mktemp("exported")
    for form in ("h5ad", "gct", "tsv", "zarr"):
        assert export_study(example_study, folder / f"all.{form}", form) == (120, 154)
        shape = export_study(example_study, folder / f"mined.{form}", form, panel="mined")
        assert shape == (120, 12)
    return folder


@pytest.fixture(scope="module")
def mined(tree):
    panel = tree["landmarks"].dataset["panel_gene"].sel(panel="mined").values
    return panel.tolist()


# ---------------------------------------------------------------- AnnData


def test_h5ad__anndata_opens_it(exported, tree, values, mined):
    anndata = pytest.importorskip("anndata")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # of anndata about itself
        found = anndata.read_h5ad(exported / "all.h5ad")
        panel = anndata.read_h5ad(exported / "mined.h5ad", backed="r")
    np.testing.assert_array_equal(found.X, values)
    assert found.obs_names.tolist() == tree["normalized"]["sample"].values.tolist()
    assert found.var_names.tolist() == tree["normalized"]["gene"].values.tolist()
    assert str(found.obs["tissue"].dtype) == "category"
    told = tree.dgl.samples()
    assert found.obs["tissue"].astype(str).tolist() == told["tissue"].values.tolist()
    assert found.obs["keep"].tolist() == told["keep"].values.tolist()
    assert found.obs["duplicate_of"].isna().sum() == (told["duplicate_of"].values == "").sum()
    assert found.var["rank"].tolist() == tree["landmarks"]["rank"].values.tolist()
    np.testing.assert_array_equal(found.obsm["X_latent"], tree["latent"]["latent"].values)
    np.testing.assert_array_equal(found.varm["latent_score"], tree["scores"]["latent_score"].T)
    assert found.uns["dglzarr"]["store_id"] == tree["normalized"].attrs["store_id"]
    assert panel.var_names.tolist() == mined
    panel.file.close()


def test_h5ad__says_what_it_is(exported):
    """As AnnData's format asks, also where anndata is not installed."""
    with h5py.File(exported / "all.h5ad") as file:
        kinds = {name: file[name].attrs["encoding-type"] for name in ("X", "obs", "var", "uns")}
        assert kinds == {"X": "array", "obs": "dataframe", "var": "dataframe", "uns": "dict"}
        assert file.attrs["encoding-type"] == "anndata"
        assert set(file["obs"].attrs["column-order"]) == set(file["obs"]) - {"sample"}


# ---------------------------------------------------------------- GCT and tables


def test_gct__our_reader_reads_it(exported, tree, values):
    source = read_source(exported / "all.gct")
    assert list(source.samples) == tree["normalized"]["sample"].values.tolist()
    assert list(source.genes) == tree["normalized"]["gene"].values.tolist()
    assert list(source.gene_symbol) == tree["normalized"]["gene_symbol"].values.tolist()
    np.testing.assert_allclose(source.read(0, 120), values, rtol=1e-6)
    assert "tissue" in source.labels


def test_gct__has_the_lines_of_version_1_3(exported, mined):
    lines = (exported / "mined.gct").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#1.3"
    n_rows, n_columns, n_of_rows, n_of_columns = map(int, lines[1].split("\t"))
    assert (n_rows, n_columns, len(lines)) == (12, 120, 3 + 12 + n_of_columns)
    assert {line.count("\t") for line in lines[2:]} == {n_of_rows + n_columns}
    assert [line.split("\t")[0] for line in lines[-12:]] == mined


def test_gct__what_is_not_known_of_a_gene_is_na(awkward):
    root, _, genes, _ = awkward
    ranked(root, genes, [""] * 7, genes[:2], gain=np.full(7, np.nan))
    export_study(root, root / "a.gct", "gct")
    lines = [line.split("\t") for line in (root / "a.gct").read_text("utf-8").splitlines()[2:]]
    at = lines[0].index("gain")
    assert [line[at] for line in lines[-7:]] == ["NA"] * 7


def test_tsv__pandas_reads_it(exported, tree, values):
    found = pd.read_csv(exported / "all.tsv", sep="\t", index_col=0)
    assert found.index.tolist() == tree["normalized"]["sample"].values.tolist()
    np.testing.assert_allclose(found[tree["normalized"]["gene"].values], values, rtol=1e-6)
    assert found["tissue"].tolist() == tree.dgl.samples()["tissue"].values.tolist()


def test_parquet__pandas_reads_it(example_study, tmp_path, values):
    parquet = pytest.importorskip("pyarrow.parquet")
    export_study(example_study, tmp_path / "a.parquet", "parquet")
    found = pd.read_parquet(tmp_path / "a.parquet")
    np.testing.assert_array_equal(found[found.columns[-154:]], values)
    assert found["keep"].dtype == bool
    field = parquet.read_schema(tmp_path / "a.parquet").field("200005_at")
    assert field.metadata[b"gene_symbol"] == b"SIM5"


@pytest.fixture
def awkward(tmp_path):
    """A study of one store with missing values, hostile names, and more than one window."""
    rng = np.random.default_rng(3)
    values = rng.normal(8, 1, (300, 7)).astype(np.float32)
    values[5, 2] = values[299, 6] = np.nan
    write_manifest(tmp_path, ["0000"])
    tissues = ['a "b"\tc', "", "<script>", "x\ny", "NA"] * 60
    genes = ["g,1", "g 2", "1g", "series", "ü", "g/6", "'7'"]
    folder = tmp_path / "segments" / "0000"
    write_matrix(
        folder / "normalized.zarr", NORMALIZED, values, genes=genes, tissues=tissues, shard=256
    )
    return tmp_path, values, genes, tissues


@pytest.mark.parametrize("form", ["h5ad", "gct", "tsv", "zarr"])
def test_export__awkward_names_and_missing_values(form, awkward, tmp_path):
    root, values, genes, tissues = awkward
    place = tmp_path / f"out.{form}"
    if form == "tsv":
        with pytest.raises(ConfigError, match="'series' is a label and a gene"):
            export_study(root, place, form)
        export_study(root, place, form, genes=[gene for gene in genes if gene != "series"])
    else:
        export_study(root, place, form)
    if form == "gct":
        source = read_source(place)
        assert list(source.genes) == genes
        np.testing.assert_allclose(source.read(0, 300), values, rtol=1e-6)
    elif form == "tsv":
        lines = place.read_text(encoding="utf-8").splitlines()
        assert len(lines) == 301
        assert {line.count("\t") for line in lines} == {lines[0].count("\t")}
        assert lines[6].endswith("\tNA") or "\tNA\t" in lines[6]
    elif form == "zarr":
        ds = xr.open_zarr(place)
        np.testing.assert_array_equal(ds["expression"].values, values)
        assert ds["tissue"].values.tolist() == tissues
        assert ds["gene"].values.tolist() == genes
    else:
        with h5py.File(place) as file:
            np.testing.assert_array_equal(file["X"][...], values)
            codes = file["obs/tissue/codes"][:5]
            assert codes[1] == -1
            known = file["obs/tissue/categories"].asstr()[...]
            assert [known[c] for c in codes[[0, 2, 3]]] == [tissues[i] for i in (0, 2, 3)]


NAMES = ["gene", "sample", "expression", "er/pr", "er_pr", ".", "..", "__a", "zarr.json", "series"]


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_export__labels_of_any_name_are_there_once(form, tmp_path):
    values = np.arange(48, dtype=np.float32).reshape(16, 3)
    cells = [[f"{name} {i}" for name in NAMES] for i in range(16)]
    write_manifest(tmp_path, ["0000"])
    uri = tmp_path / "segments/0000/normalized.zarr"
    write_matrix(uri, NORMALIZED, values, tissues=cells, called=NAMES)
    export_study(tmp_path, tmp_path / "out", form)
    if form == "zarr":
        ds = xr.open_zarr(tmp_path / "out")
        np.testing.assert_array_equal(ds["expression"].values, values)
        assert ds["gene"].values.tolist() == ["000_at", "001_at", "002_at"]
        first = [str(v.values[0]) for v in ds.variables.values() if v.dims == ("sample",)]
    else:
        with h5py.File(tmp_path / "out") as file:
            order = file["obs"].attrs["column-order"]
            assert sorted(order) == sorted(set(file["obs"]) - {"sample"})
            texts = [file["obs"][name] for name in order if name in file["obs"]]
            first = [node.asstr()[0] for node in texts if isinstance(node, h5py.Dataset)]
    assert {f"{name} 0" for name in NAMES[:-1]} <= {*first}


@pytest.mark.parametrize("form", ["tsv", "parquet"])
def test_export__a_label_called_as_a_gene_is_refused(form, tmp_path):
    write_manifest(tmp_path, ["0000"])
    values, cells = np.zeros((4, 3), np.float32), [["a"]] * 4
    uri = tmp_path / "segments/0000/normalized.zarr"
    write_matrix(uri, NORMALIZED, values, tissues=cells, called=["001_at"])
    with pytest.raises(ConfigError, match=r"'001_at' is a label and a gene. Export as h5ad"):
        export_study(tmp_path, tmp_path / f"a.{form}", form)
    assert {path.name for path in tmp_path.iterdir()} == {"study.json", "segments"}


@pytest.mark.parametrize("form", ["tsv", "gct"])
def test_export__labels_that_are_alike_as_text_are_both_there(form, tmp_path):
    write_manifest(tmp_path, ["0000"])
    values, cells = np.full((4, 3), 7, np.float32), [["one", "other"]] * 4
    uri = tmp_path / "segments/0000/normalized.zarr"
    write_matrix(uri, NORMALIZED, values, tissues=cells, called=["a b", "a\tb"])
    export_study(tmp_path, tmp_path / f"a.{form}", form)
    text = (tmp_path / f"a.{form}").read_text()
    assert text.count("one") == text.count("other") == 4
    if form == "tsv":
        frame = pd.read_csv(tmp_path / "a.tsv", sep="\t")
        assert frame[["a b", "a b_", "002_at"]].iloc[0].tolist() == ["one", "other", 7]


# ---------------------------------------------------------------- Zarr


@pytest.mark.parametrize("by_gene", [False, True])
def test_zarr__xarray_opens_it_without_a_warning(by_gene, example_study, tmp_path, tree, values):
    place = tmp_path / "a.zarr"
    export_study(example_study, place, "zarr", by_gene=by_gene)
    ds = xr.open_zarr(place)  # warnings are errors
    dims = ("gene", "sample") if by_gene else ("sample", "gene")
    assert ds["expression"].dims == dims
    np.testing.assert_array_equal(ds["expression"].transpose("sample", "gene").values, values)
    assert ds["tissue"].values.tolist() == tree.dgl.samples()["tissue"].values.tolist()
    assert ds["gene_symbol"].values.tolist() == tree["landmarks"]["gene_symbol"].values.tolist()
    if by_gene:
        assert ds["expression"].encoding["chunks"] == (1, 120)


def test_blocks__hold_what_they_may(awkward):
    root, values, *_ = awkward
    chosen = select(str(root))
    row = 4 * 7
    parts = [part for part, _ in chosen.blocks(limit_nbytes=256 * row)]
    assert parts == [slice(0, 256), slice(256, 300)]
    by_gene = list(chosen.gene_blocks(limit_nbytes=4 * 300 * 3))
    assert [part for part, _ in by_gene] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    np.testing.assert_array_equal(np.hstack([block for _, block in by_gene]), values)


# ---------------------------------------------------------------- of one state of the study


def ranked(root, labels, ids, panel, **more):
    """Panels of some genes, in that order."""
    arrays = {
        "gene": labels, "gene_symbol": [""] * len(labels), "gene_id": ids, "panel": ["mined"],
        "kind": ["mined"], "panel_gene": [panel],
    }  # fmt: skip
    arrays = {
        name: text(v) if name != "panel_gene" else text(v[0])[None] for name, v in arrays.items()
    }
    rank = np.arange(1, len(labels) + 1, dtype=np.int32)
    arrays |= {**more, "rank": rank, "position": np.arange(len(panel), dtype=np.int32)}
    write_store(root / "landmarks.zarr", LANDMARKS, arrays)


def test_panel__is_of_labels_also_where_they_are_others_ids(tmp_path):
    labels, ids = ["200", "7157", "9"], ["1", "200", "7157"]
    values = np.arange(48, dtype=np.float32).reshape(16, 3)
    write_manifest(tmp_path, ["0000"])
    uri = tmp_path / "segments/0000/normalized.zarr"
    write_matrix(uri, NORMALIZED, values, genes=labels, ids=ids)
    ranked(tmp_path, labels, ids, ["7157", "200"])
    assert select(str(tmp_path), panel="mined").places.tolist() == [1, 0]
    shutil.rmtree(tmp_path / "landmarks.zarr")
    ranked(tmp_path, labels[::-1], ids[::-1], ["7157", "200"])
    with pytest.raises(StoreError, match=r"expected panels and scores of the genes of 'normal"):
        select(str(tmp_path), panel="mined")


def test_export__of_a_study_that_grows_meanwhile_is_what_it_was(awkward, monkeypatch):
    root, values, genes, _ = awkward
    write_matrix(root / "segments/0001/normalized.zarr", NORMALIZED, values[:9] + 1, genes=genes)

    def then_grow(*words, **options):
        tree = dglzarr.open_study(*words, **options)
        write_manifest(root, ["0001", "0000"])
        return tree

    monkeypatch.setattr("dglzarr.export.selected.open_study", then_grow)
    chosen = select(str(root))
    assert (chosen.shape, len(chosen.samples)) == ((300, 7), 300)
    np.testing.assert_array_equal(chosen.rows[:9], values[:9])


# ---------------------------------------------------------------- what is refused, and kills


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "xlsx"}, r"--format: expected one of h5ad, .* got 'xlsx'"),
        ({"panel": "minde"}, r"--panel: expected one of mined, .* \(did you mean 'mined'\?\)"),
        ({"genes": ["NOPE"]}, r"gene: expected a gene of the study"),
        ({"panel": "mined", "genes": ["SIM5"]}, r"--panel: expected without --gene"),
        ({"by_gene": True}, r"--by-gene: expected with --format zarr, got tsv"),
    ],
)
def test_export__refuses_and_leaves_nothing(options, message, example_study, tmp_path):
    with pytest.raises(ConfigError, match=message):
        export_study(example_study, tmp_path / "a.tsv", **{"form": "tsv", **options})
    assert list(tmp_path.iterdir()) == []


def test_export__replaces_nothing(example_study, tmp_path):
    (tmp_path / "a.tsv").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.tsv: exists\. Remove it"):
        export_study(example_study, tmp_path / "a.tsv", "tsv")
    assert (tmp_path / "a.tsv").read_text() == "mine"
    with pytest.raises(StoreError, match="cannot be written"):
        export_study(example_study, "/proc/nosuch/a.tsv", "tsv")


def test_export__a_damaged_store_leaves_nothing(example_study, tmp_path):
    study = shutil.copytree(example_study, tmp_path / "study")
    shard = next((study / "segments/0000/normalized.zarr/expression/c").rglob("0/0"))
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    (tmp_path / "out").mkdir()
    for form in ("h5ad", "zarr"):
        with pytest.raises(StoreError, match=r"is damaged: expression/c/0/0"):
            export_study(study, tmp_path / "out" / f"a.{form}", form)
        with pytest.raises(StoreError, match="expected a whole shard"):
            export_study(study, tmp_path / "out" / f"a.{form}", form, panel="mined")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_export__killed_half_way_leaves_no_file_that_looks_whole(form, example_study, tmp_path):
    """A real process, stopped by SIGKILL while it writes; the next one writes the same, alone."""
    place = tmp_path / f"a.{form}"
    code = (
        "import sys, time; from dglzarr.export import export_study; "
        "export_study(*sys.argv[1:], on_progress=lambda *_: (print('at', flush=True), "
        "time.sleep(60)))"
    )
    words = [sys.executable, "-c", code, example_study, str(place), form]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"at\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [p.name for p in tmp_path.iterdir() if p.name == place.name] == []
    assert len(list(tmp_path.iterdir())) == 1
    export_study(example_study, place, form)
    assert [p.name for p in tmp_path.iterdir()] == [place.name]


def test_command__says_what_it_wrote(example_study, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["export", example_study, "--format", "tsv", "--gene", "sim5", "--gene", "SIM7"]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    assert re.search(
        r"^Written: study\.tsv, 120 samples x 2 genes$", capsys.readouterr().out, re.MULTILINE
    )
    assert guarded(lambda: app(["export", example_study], standalone_mode=False)) == 2
    assert "--format: expected one of" in capsys.readouterr().err
