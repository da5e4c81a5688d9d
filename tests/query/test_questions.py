"""The accessor ``.dgl``: each answer against what NumPy and pandas make of the same stores."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dglzarr
from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.query import open_study
from dglzarr.query.asked import Asked, answer
from dglzarr.query.genes import GeneNames
from dglzarr.sources.aliases import read_aliases
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED
from tests.builders import (
    no_computing,
    set_attributes,
    write_manifest,
    write_matrix,
    write_samples,
)


@pytest.fixture(scope="module")
def tree(example_study):
    return dglzarr.open_study(example_study)


@pytest.fixture(scope="module")
def ask(tree):
    return tree.dgl


# ---------------------------------------------------------------- open_study


def test_open_study__is_the_stores_of_the_study(tree, example_study):
    made = {"expression", "normalized", "samples", "latent", "contributions"}
    assert set(tree.children) == {*made, "reconstruction", "scores", "landmarks"}
    for name, node in tree.children.items():
        ds = dglzarr.open(f"{example_study}#{name}")
        assert node.to_dataset().identical(ds), name


def test_open_study__computes_nothing(example_study):
    with no_computing():
        found = open_study(example_study)["normalized"].dataset["expression"][:3, :2]
    with pytest.raises(AssertionError, match="computed"), no_computing():
        found.compute()


def test_open_study__lineage_leads_from_store_to_store(tree):
    (source, *_) = json.loads(tree["scores"].attrs["inputs"])
    assert source["store_id"] == tree["contributions"].attrs["store_id"]
    (segment,) = json.loads(tree["normalized"].attrs["segments"])
    assert segment["store_id"] == tree["normalized"].attrs["store_id"]


@pytest.fixture
def grown(tmp_path):
    """A study of two segments of 30 and 20 samples."""
    rng = np.random.default_rng(5)
    values = rng.normal(8, 1, (50, 12)).astype(np.float32)
    values[:, 1] = values[:, 0] + rng.normal(0, 0.1, 50)
    root = tmp_path / "studies" / "grown"
    root.mkdir(parents=True)
    write_manifest(root, ["0000"])
    parts = {"0000": (0, 30, "a"), "0001": (30, 50, "b")}
    for name, (start, stop, prefix) in parts.items():
        folder, block = root / "segments" / name, values[start:stop]
        tissues = [["liver", "lung"][i % 2] for i in range(len(block))]
        split = np.zeros(len(block), np.int8)
        named = {"prefix": prefix, "tissues": tissues, "split": split}
        write_matrix(folder / "expression.zarr", EXPRESSION, block, **named)
        if name == "0000":
            uri = write_matrix(folder / "normalized.zarr", NORMALIZED, block, **named)
            write_samples(folder / "samples.zarr", uri, keep=np.ones(30, bool))
    write_manifest(root, ["0000", "0001"])
    return root, values


def test_open_study__segments_are_joined(grown):
    root, values = grown
    for name in ("normalized", "samples"):
        folder = root / "segments" / "0000" / f"{name}.zarr"
        folder.rename(root / f"{name}.zarr")
    found = open_study(root)["expression"].dataset
    np.testing.assert_array_equal(found["expression"].values, values)
    assert found["sample"].values[[0, 29, 30, 49]].tolist() == ["a000", "a029", "b000", "b019"]
    assert len(json.loads(found.attrs["segments"])) == 2


def test_open_study__refuses_what_is_not_whole(grown, tmp_path):
    root, _ = grown
    with pytest.raises(StoreError, match=r"normalized\.zarr: no such store"):
        open_study(root)
    uri = root / "segments" / "0001" / "expression.zarr"
    set_attributes(str(uri), complete=False)
    with pytest.raises(StoreError, match=r"expression\.zarr: not complete"):
        open_study(root)
    set_attributes(str(uri), complete=True)
    (uri / "expression" / "c" / "0" / "0").unlink()
    with pytest.raises(StoreError, match="1 regions are missing"):
        open_study(root)
    with pytest.raises(StoreError, match="no study here"):
        open_study(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=rf"no study here .*Did you mean {root}\?"):
        open_study(root.parent)
    shutil.copytree(root, root.with_name("other"))
    with pytest.raises(StoreError, match=rf"Did you mean {root} or {root.parent}/other\?"):
        open_study(root.parent)
    (tmp_path / "empty").mkdir()
    write_manifest(tmp_path / "empty", ["0000"])
    with pytest.raises(StoreError, match="expected a study with finished stores"):
        open_study(tmp_path / "empty")


# ---------------------------------------------------------------- genes


def test_top__is_the_order_of_the_ranks(ask, tree):
    found = ask.top(7)
    assert found["rank"].values.tolist() == [1, 2, 3, 4, 5, 6, 7]
    landmarks = tree["landmarks"].dataset
    mined = landmarks["panel_gene"].sel(panel="mined").values[:7]
    assert found["gene"].values.tolist() == mined.tolist()
    assert found["on_panel"].sel(panel="mined").values.all()
    assert found["gene_symbol"].values[0] == landmarks.sel(gene=mined[0])["gene_symbol"].item()


def test_gene__tells_what_each_store_holds(ask, tree):
    label = tree["scores"]["gene"].values[17]
    found = ask.gene(label)
    for store, name, called in [
        ("landmarks", "rank", "rank"),
        ("scores", "latent_score", "latent_score"),
        ("reconstruction", "pcc", "reconstruction_pcc"),
        ("samples", "gene_std", "gene_std"),
        ("normalized", "expression", "expression"),
    ]:
        told = tree[store].dataset[name].sel(gene=[label]).values
        np.testing.assert_array_equal(found[called].values, told)
    assert found["series"].dims == ("sample",)
    with no_computing():
        assert ask.gene(label)["expression"].chunks is not None


NAMES = GeneNames(
    ["7_at", "8_at", "MYC", "11_at"],
    ["TP53", "TP53", "", "DDR1 /// MIR4640"],
    ["7157", "7157", "ENSG00000136997.21", "---"],
    {"P53": ("TP53",), "CMYC": ("MYC", "TP53"), "GONE": ("NOTHERE",)},
)


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("tp53", [0, 1]),
        ("7157", [0, 1]),
        ("8_AT", [1]),
        ("myc", [2]),
        ("ensg00000136997.3", [2]),
        ("mir4640", [3]),
        ("p53", [0, 1]),
        ("cMyc", [0, 1, 2]),  # an alias of two genes: both
        (" TP53 ", [0, 1]),
    ],
)
def test_find__by_every_kind_of_name(name, places):
    assert NAMES.find(name).tolist() == places


def test_find__a_label_goes_before_a_symbol_and_that_before_an_id():
    names = GeneNames(["200", "7157", "9"], ["9", "SIM1", "7157"], ["1", "200", "SIM1"])
    found = [names.find(name).tolist() for name in ("200", "7157", "9", "SIM1", "1")]
    assert found == [[0], [1], [2], [1], [0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TP35", r"got 'TP35' \(did you mean 'TP53'.*\)\.$"),
        ("p54", r"did you mean .*'P53'"),
        ("---", r"got '---'"),
        ("zzzzzzzzzz", r"got 'zzzzzzzzzz'\.$"),
        ("gone", r"got 'gone'"),
        ("a\nb<script>", r"^gene: .* got 'a\\nb<script>'"),
        ("", r"got ''"),
    ],
)
def test_find__refuses_in_one_line(name, message):
    with pytest.raises(ConfigError, match=message) as error:
        NAMES.find(name)
    assert "\n" not in str(error.value)


HGNC = (
    "hgnc_id\tsymbol\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id\n"
    'HGNC:1\tSIM1\t"p53|LFS1"\tOLD1\t7157\tENSG00000141510\n'
    "HGNC:2\tSIM2\tLFS1\t\t\t\n"
)
NCBI = (
    "#tax_id\tGeneID\tSymbol\tLocusTag\tSynonyms\tdbXrefs\n"
    "9606\t7157\tSIM1\t-\tp53|LFS1\tMIM:191170|HGNC:HGNC:11998|Ensembl:ENSG00000141510\n"
    "9606\t8\tSIM2\t-\tLFS1\t-\n"
)


@pytest.mark.parametrize("text", [HGNC, NCBI], ids=["HGNC", "NCBI"])
def test_gene__by_alias(text, example_study, tmp_path):
    path = tmp_path / "aliases.txt"
    path.write_text(text, encoding="utf-8")
    ask = open_study(example_study, aliases=path).dgl
    plain = open_study(example_study).dgl
    own = plain.gene("SIM1")["gene"].values.tolist()
    for name in ("P53", "7157", "ENSG00000141510.4"):
        assert ask.gene(name)["gene"].values.tolist() == own
    both = ask.gene("lfs1")["gene_symbol"].values.tolist()
    assert set(both) == {"SIM1", "SIM2"}
    assert "SIM1" in ask.panel(3, include=["p53"])["gene_symbol"].values
    with pytest.raises(ConfigError, match="got 'p53'"):
        plain.gene("p53")


def test_read_aliases__refuses_another_table(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("probe\tvalue\n1\t2\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"a\.txt, line 1: expected columns of symbols and of"):
        read_aliases(path)
    with pytest.raises(SourceError, match=r"nosuch\.txt"):
        read_aliases(tmp_path / "nosuch.txt")


# ---------------------------------------------------------------- latent units, neighbours


def test_latent__its_genes_and_its_activation(ask, tree, tmp_path):
    unit = ask.latent(2)
    unit.top(5).to_netcdf(tmp_path / "a.nc")
    score = tree["scores"].dataset["latent_score"].values[2]
    assert unit.top(5)["gene"].values.tolist() == [
        tree["scores"]["gene"].values[i] for i in np.argsort(-np.abs(score), kind="stable")[:5]
    ]
    np.testing.assert_array_equal(
        unit.activation.values, tree["latent"].dataset["latent"].values[:, 2]
    )


@pytest.mark.parametrize("unit", [-1, 4])
def test_latent__refuses_another_unit(unit, ask):
    with pytest.raises(ConfigError, match=f"expected a unit from 0 to 3, got {unit}"):
        ask.latent(unit)


def test_neighbours__are_those_of_pandas(ask, tree):
    ds, kept = tree["normalized"].dataset, tree["samples"].dataset["keep"].values
    rows = (ds["split"].values == 0) & kept
    frame = pd.DataFrame(ds["expression"].values[rows].astype(float), columns=ds["gene"].values)
    of = frame.columns[9]
    r = frame.corr()[of].drop(of)
    best = r.abs().sort_values(ascending=False).index[:6]
    found = ask.neighbours(of, 6)
    assert found["gene"].values.tolist() == best.tolist()
    np.testing.assert_allclose(found["r"].values, r[best], rtol=1e-4)
    assert (found.attrs["of"], found.attrs["n_samples"]) == (of, int(rows.sum()))


CUTS = {
    "sorted": lambda tree: tree.map_over_datasets(
        lambda ds: ds.sortby("gene_symbol") if "gene_symbol" in ds.coords else ds
    ),
    "reversed": lambda tree: tree.isel(gene=slice(None, None, -1)),
    "shuffled": lambda tree: tree.isel(sample=np.random.default_rng(0).permutation(120)),
    "first genes": lambda tree: tree.isel(gene=slice(0, 50)),
    "first samples": lambda tree: tree.isel(sample=slice(0, 50)),
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("question", ["neighbours", "panel", "why"])
def test_questions__that_read_by_place_refuse_a_part_and_another_order(question, cut, tree):
    ask = CUTS[cut](tree).dgl
    asked = {"neighbours": ask.neighbours, "panel": ask.panel, "why": ask.why}[question]
    with pytest.raises(ConfigError, match=rf"{question}: expected the .*choose afterwards\.$"):
        asked(6 if question == "panel" else "SIM1")


@pytest.mark.parametrize("node", ["samples", "landmarks"])
def test_neighbours__refuse_where_another_store_has_another_order(node, example_study):
    tree = open_study(example_study)
    dim = "sample" if node == "samples" else "gene"
    tree[node].dataset = tree[node].to_dataset().isel({dim: slice(None, None, -1)})
    with pytest.raises(ConfigError, match=f"neighbours: expected the {dim}s in the order of the"):
        tree.dgl.neighbours("SIM1")


def test_questions__of_stores_in_different_orders_are_by_label(example_study, ask):
    tree = open_study(example_study)
    tree["landmarks"].dataset = tree["landmarks"].to_dataset().sortby("rank")
    tree["samples"].dataset = tree["samples"].to_dataset().isel(sample=slice(None, None, -1))
    xr.testing.assert_equal(tree.dgl.gene("SIM5").compute(), ask.gene("SIM5").compute())
    assert tree.dgl.expression("SIM5").equals(ask.expression("SIM5"))
    xr.testing.assert_identical(tree.dgl.samples(keep=False), ask.samples(keep=False))
    tree["landmarks"].dataset = tree["landmarks"].to_dataset().isel(gene=slice(5))
    tree["normalized"].dataset = tree["normalized"].to_dataset().isel(gene=slice(100, None))
    with pytest.raises(ConfigError, match="stores have the same genes, got a part of some"):
        tree.dgl.expression(tree["landmarks"]["gene"].values[0])


# ---------------------------------------------------------------- samples and groups


def test_by__is_pandas_groupby(ask, tree):
    ds = tree["normalized"].dataset.isel(sample=tree["samples"].dataset["keep"].values)
    tissue = ds["sample_label"].sel(label="tissue").values
    frame = pd.DataFrame(ds["expression"].values[:, :2].astype(float)).groupby(tissue)
    genes = ds["gene"].values[:2]
    found = ask.by("tissue").gene(*genes)
    groups = found["group"].values.tolist()
    assert groups == sorted(set(tissue))
    for name, expected in [
        ("n", frame.count()), ("mean", frame.mean()), ("std", frame.std()),
        ("median", frame.median()), ("q1", frame.quantile(0.25)), ("max", frame.max()),
    ]:  # fmt: skip
        np.testing.assert_allclose(found[name].values, expected.loc[groups], err_msg=name)
    assert ask.by("tissue").sizes().sum() == len(tissue) < 120
    assert ask.by("tissue", keep=[True, False]).sizes().sum() == 120


def test_by__leaves_out_samples_without_the_label(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    values[1, 1] = np.nan
    tissues = ["liver", "liver", "", "lung", "", "lung"]
    uri = write_matrix(tmp_path / "e.zarr", EXPRESSION, values, tissues=tissues)
    found = dglzarr.open(uri).dgl.by("tissue")
    assert found.sizes().to_series().to_dict() == {"liver": 2, "lung": 2}
    told = found.gene("001_at").sel(group="liver").squeeze()
    assert (int(told["n"]), float(told["mean"]), np.isnan(told["std"])) == (1, 1.0, True)
    assert found.values("000_at")["tissue"].values.tolist() == ["liver", "liver", "lung", "lung"]
    np.testing.assert_allclose(found.grouped().mean("sample"), [[1, 1], [8, 9]])


@pytest.mark.parametrize(
    ("label", "n_known"),
    [("series", 118), ("split", 118), ("cluster", 118), ("keep", 120), ("platform", 100)],
)
def test_by__what_the_study_itself_tells(label, n_known, ask):
    """Near-duplicates are told of by ``keep`` alone; a GCTX names no platform."""
    assert int(ask.by(label).sizes().sum()) == n_known
    assert ask.by(label).gene("SIM1")["n"].sum() == n_known


def test_samples__of_some_series_and_labels(ask, tree):
    ds = tree["normalized"].dataset
    wanted = ["GSE900002", "GSE900005"]
    found = ask.samples(series=wanted)
    assert found["sample"].values.tolist() == ds["sample"].values[
        np.isin(ds["series"].values, wanted)
    ].tolist()  # fmt: skip
    value = found["tissue"].values[0]
    fewer = ask.samples(series=wanted, tissue=value, split="train")
    assert set(fewer["tissue"].values) == {value}
    assert ask.samples().sizes["sample"] == 120
    assert set(ask.samples(keep=False)["keep"].values) <= {False}
    keep, cluster = (tree["samples"].dataset[name].values for name in ("keep", "cluster"))
    assert ask.samples(keep=np.True_).sizes["sample"] == keep.sum()
    one, other = np.unique(cluster)[:2]
    assert ask.samples(cluster=int(one)).sizes["sample"] == (cluster == one).sum()
    both = ask.samples(cluster=np.array([one, other])).sizes["sample"]
    assert both == np.isin(cluster, [one, other]).sum()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"series": "GSE90000"}, r"series: expected a value that a sample has.*did you mean 'GSE9"),
        ({"tisue": "liver"}, r"label: expected one of series, .* got 'tisue' \(did you mean 'tiss"),
        ({"tissue": "<script>\n"}, r"got '<script>\\n'"),
        ({"tissue": None}, r"^tissue: expected a value or several of them, got None\.$"),
        ({"tissue": ["liver", {}]}, r"^tissue: expected a value or several of them, got {}\.$"),
        ({"series": None}, r"^series: expected a value or several of them, got None\.$"),
    ],
)
def test_samples__refuses(wanted, message, ask):
    with pytest.raises(ConfigError, match=message):
        ask.samples(**wanted)


# ---------------------------------------------------------------- panels, and what is no study


def test_panel__is_that_of_the_command(ask):
    found = ask.panel(5, include=["SIM5"], exclude=["SIM1"], exclude_controls=True)
    symbols = found["gene_symbol"].values.tolist()
    assert symbols[0] == "SIM5"
    assert "SIM1" not in symbols
    assert found.attrs["interval"][0] <= found.attrs["difference"] <= found.attrs["interval"][1]
    with pytest.raises(ConfigError, match="nonsense"):
        ask.panel(5, nonsense=3)
    with pytest.raises(ConfigError, match="NOPE"):
        ask.panel(5, include="NOPE")


@pytest.mark.parametrize(
    ("size", "asked", "message"),
    [
        (4.0, {}, r"^panel: expected a whole number from 0, got 4\.0\.$"),
        (None, {}, r"^panel: expected a whole number from 0, got None\.$"),
        (4, {"min_maen": 1}, r"^panel: expected some of exclude_controls, .* got 'min_maen' \(did"),
        (4, {"min_mean": "x"}, r"^panel: expected a number as min_mean, got 'x'\.$"),
        (4, {"include": 7}, r"^panel: expected a name, got 7, no text"),
        (4, {"exclude": ["SIM1", None]}, r"^panel: expected a name, got None, no text"),
    ],
)
def test_panel__refuses_in_one_line(size, asked, message, ask):
    with pytest.raises(ConfigError, match=message):
        ask.panel(size, **asked)


@pytest.mark.parametrize(
    ("genes", "most", "message"),
    [
        ([], 30, r"^plot: expected genes, got none\. Name one\.$"),
        (["SIM1"], -1, r"^most: expected a whole number from 0, got -1\.$"),
        (["SIM1"], 0, r"^most: expected 1 or more groups, got 0\.$"),
    ],
)
def test_plot__refuses_in_one_line(genes, most, message, ask):
    with pytest.raises(ConfigError, match=message):
        ask.by("tissue").plot(*genes, most=most)


def test_store__asks_of_its_own(example_study, tree):
    scores = dglzarr.open(f"{example_study}#scores")
    best = scores.dgl.top(4)["score"].values
    np.testing.assert_array_equal(best, np.sort(scores["score"].values)[::-1][:4])
    assert scores.dgl.gene("sim1", "SIM2").sizes["gene"] >= 2
    assert scores[["score"]].dgl.top(1).sizes["gene"] == 1
    with pytest.raises(ConfigError, match=r"scores\.zarr: expected a store of samples"):
        scores.dgl.samples()
    with pytest.raises(ConfigError, match=r"expected ranks or scores of genes"):
        dglzarr.open(f"{example_study}#normalized").dgl.top()
    with pytest.raises(ConfigError, match=r"expected values \(sample, gene\)"):
        dglzarr.open(f"{example_study}#samples").dgl.by("keep")
    assert tree["scores"].dgl.root == example_study  # a node of a study asks the study


def test_study__refuses_another_tree():
    with pytest.raises((ConfigError, RuntimeError, AttributeError), match="expected a study"):
        _ = xr.DataTree().dgl


# ---------------------------------------------------------------- labels of any name

AWKWARD = ["gene", "sample", "gene_symbol", "keep", "n", "label", "SIM0"]


@pytest.fixture
def awkward(tmp_path):
    """A study whose own labels are called as parts of a store are."""
    values = np.random.default_rng(1).normal(8, 1, (24, 5)).astype(np.float32)
    cells = [[f"{name}-{i % 2}" for name in AWKWARD] for i in range(24)]
    write_manifest(tmp_path, ["0000"])
    write_matrix(
        tmp_path / "segments/0000/normalized.zarr", NORMALIZED, values, tissues=cells,
        called=AWKWARD, symbols=[f"SIM{i}" for i in range(5)],
    )  # fmt: skip
    return tmp_path


def test_labels__called_as_parts_of_a_store_are_the_samples_own(awkward):
    labels = open_study(awkward).dgl.labels
    for name in AWKWARD:
        assert labels.column(name)[:2].tolist() == [f"{name}-0", f"{name}-1"]
    table = open_study(awkward).dgl.samples()
    assert table["sample"].values[:2].tolist() == ["s000", "s001"]
    assert table["sample_label"].values[:2].tolist() == ["sample-0", "sample-1"]


@pytest.mark.parametrize("name", AWKWARD)
def test_by__a_label_called_as_parts_of_a_store_are(name, awkward):
    frame = answer(str(awkward), Asked(by=name))
    assert frame.values.tolist() == [[f"{name}-0", 12], [f"{name}-1", 12]]
    frame = answer(str(awkward), Asked(by=name, genes=["SIM3"]))
    assert frame.columns.is_unique
    assert frame["gene"].tolist() == ["003_at"] * 2
    assert frame["mean"].dtype == np.float64
    assert [f"{name}-0", f"{name}-1"] in [frame[c].tolist() for c in frame]


@pytest.mark.parametrize("name", AWKWARD)
def test_grouped__keeps_its_genes_whatever_the_label_is_called(name, awkward):
    found = open_study(awkward).dgl.by(name).grouped().mean()
    called = f"{name}_label" if name in ("gene", "sample", "gene_symbol") else name
    assert dict(found.sizes) == {called: 2, "gene": 5}


@pytest.mark.parametrize("label", ["keep", "cluster", "tissue", "split"])
def test_by__answers_are_files_and_plots(label, ask, tmp_path):
    from matplotlib import pyplot as plt

    groups = ask.by(label)
    for answered in (groups.sizes(), groups.gene("SIM1"), groups.values("SIM1")):
        answered.to_netcdf(tmp_path / "a.nc")
    assert groups.gene("SIM1")["median"].squeeze().plot() is not None
    plt.close("all")
    if label == "keep":
        assert set(groups.sizes()["group"].values) <= {"True", "False"}


def test_samples__a_label_called_as_a_gene_stands_beside_it(awkward):
    frame = answer(str(awkward), Asked(lists_samples=True, genes=["SIM0"]))
    assert frame["SIM0"].tolist()[:2] == ["SIM0-0", "SIM0-1"]
    assert frame["SIM0 (000_at)"].dtype == np.float32


def test_by__numbers_stand_in_their_order(example_study):
    study = open_study(example_study)
    clusters = ("sample", np.arange(120) % 12)
    study["samples"].dataset = study["samples"].to_dataset().assign(cluster=clusters)
    for answered in (study.dgl.by("cluster").sizes(), study.dgl.by("cluster").gene("SIM1")):
        assert answered["group"].values.tolist() == list(range(12))  # as text 10 goes before 2


def test_labels__of_files_hide_none_of_this_package_and_are_not_hidden(tmp_path):
    called = ["sample", "sample_label", "split", "series", "003_at"]
    values = np.random.default_rng(1).normal(8, 1, (4, 5)).astype(np.float32)
    cells = [[f"{name}-{i}" for name in called] for i in range(4)]
    write_manifest(tmp_path, ["0000"])
    write_matrix(
        tmp_path / "segments/0000/normalized.zarr", NORMALIZED, values, tissues=cells,
        called=called, symbols=["SIM0", "SIM1", "SIM2", "", "SIM4"],
    )  # fmt: skip
    ask = open_study(tmp_path).dgl
    table = ask.samples()
    told = {name: table[name].values[0] for name in table.data_vars}
    assert told["sample_label"] == "sample_label-0"
    assert told["sample_label_"] == "sample-0"
    assert told["split_label"] == "split-0"
    assert told["series_label"] == "series-0"
    assert told["split"] in ("train", "validation", "test")
    assert ask.samples(split_label="split-2")["sample"].values.tolist() == ["s002"]
    assert ask.samples(sample="sample-3")["sample"].values.tolist() == ["s003"]
    frame = answer(str(tmp_path), Asked(lists_samples=True, genes=["003_at"]))
    assert frame["003_at"].tolist() == [f"003_at-{i}" for i in range(4)]
    assert frame["003_at (003_at)"].to_numpy() == pytest.approx(values[:, 3])


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("names", [["SIM1"], ["SIM9", "SIM2"]])
def test_questions__of_a_few_genes_no_others_are_read(tree, ask, names, monkeypatch):
    """A list of genes is nothing that Dask asks a store for: it read all, 10 GB at paper's size."""
    expected = tree["normalized"].expression.compute()
    expected = expected[:, np.isin(expected.gene_symbol, names)].sortby("gene_symbol")
    asked = []
    take = Rows.take

    def watched(self, index, genes=None):
        asked.append(None if genes is None else genes.tolist())
        return take(self, index, genes)

    monkeypatch.setattr(Rows, "take", watched)
    xr.testing.assert_equal(ask.expression(*names).compute().sortby("gene_symbol"), expected)
    ask.by("tissue").gene(*names)
    assert asked
    assert [genes for genes in asked if genes is None or len(genes) > 1] == []
