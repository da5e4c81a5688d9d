"""What people do with a store: xarray by itself, NumPy, pandas, plots, groupby, Dask, netCDF."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import dglzarr
from dglzarr import query
from dglzarr.storage.objects import GROUP, read_record
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import open_store, read_attributes
from tests.builders import write_matrix


@pytest.fixture(scope="module")
def ds(example_study):
    return dglzarr.open(f"{example_study}#normalized")


# ---------------------------------------------------------------- xarray alone


def test_open_zarr__every_store_without_a_warning(example_study):
    for uri in query.stores(example_study):
        ds = xr.open_zarr(uri)  # warnings are errors
        ours = open_store(uri)
        assert set(ds.variables) == set(ours.variables), uri
        for name in ours.variables:
            np.testing.assert_array_equal(ds[name].values, ours[name].values)


def test_open_zarr__is_asked_as_ours(tmp_path):
    """A label that some samples lack, of text as Zarr gives it: NumPy crashed sorting it."""
    values = np.random.default_rng(1).normal(8, 1, (30, 5)).astype(np.float32)
    tissues = ["liver", "", "lung"] * 10
    uri = write_matrix(tmp_path / "n.zarr", NORMALIZED, values, tissues=tissues)
    ours, theirs = dglzarr.open(uri).dgl, xr.open_zarr(uri).dgl
    told, expected = theirs.by("tissue"), ours.by("tissue")
    assert told.without() == "10 of 30 samples have no 'tissue' and are left out."
    assert told.sizes().to_series().to_dict() == {"liver": 10, "lung": 10}
    xr.testing.assert_identical(told.gene("001_at"), expected.gene("001_at"))
    np.testing.assert_array_equal(told.values("001_at"), expected.values("001_at"))
    assert told.grouped().mean().sizes == expected.grouped().mean().sizes
    assert len(told.plot("001_at").axes) == 1
    for wanted in ({"series": ours.samples()["series"].values[0]}, {"tissue": "lung"}):
        found = theirs.samples(**wanted)
        xr.testing.assert_identical(found, ours.samples(**wanted))
        found.to_netcdf(tmp_path / "a.nc")
    assert "T" not in {v.dtype.kind for v in theirs.gene("001_at").variables.values()}


def test_open_datatree__is_the_store_and_nothing_else(example_study):
    for uri in query.stores(example_study):
        tree = xr.open_datatree(uri, engine="zarr")
        assert list(tree.children) == [], uri
        assert set(tree.dataset.variables) == set(open_store(uri).variables)


def test_open_zarr__what_it_opens_goes_to_netcdf(example_study, tmp_path):
    for number, uri in enumerate(query.stores(example_study)):
        ds = xr.open_zarr(uri)
        ds.to_netcdf(tmp_path / f"{number}.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / f"{number}.nc", engine="h5netcdf") as back:
            assert json.loads(back.attrs["parameters"]) == read_attributes(uri)["parameters"]


def test_open_zarr__a_store_of_before_opens_too(example_study, tmp_path):
    """Attributes as tables and no consolidated metadata, as 0.1.0 wrote them."""
    uri = shutil.copytree(f"{example_study}/scores.zarr", tmp_path / "scores.zarr")
    content = json.loads((uri / GROUP).read_text())
    attributes = read_attributes(str(uri))
    for name in ("objects_sha256", "digest"):
        attributes.pop(name, None)
    shutil.rmtree(uri / "objects")
    content["attributes"] = attributes
    del content["consolidated_metadata"]
    (uri / GROUP).write_text(json.dumps(content))
    assert isinstance(attributes["inputs"], list)
    now, before = open_store(f"{example_study}/scores.zarr"), open_store(str(uri))
    assert before.drop_attrs().identical(now.drop_attrs())
    assert before.attrs["inputs"] == now.attrs["inputs"]
    assert dglzarr.open(str(uri)).sizes == now.sizes


def test_consolidated__says_what_the_record_covers(example_study):
    for uri in query.stores(example_study):
        content = json.loads(Path(uri, GROUP).read_text(encoding="utf-8"))
        arrays = content["consolidated_metadata"]["metadata"]
        record = read_record(uri, read_attributes(uri))
        assert {f"{name}/{GROUP}" for name in arrays} == {n for n in record if n.endswith(GROUP)}
        assert query.verify(uri)["problems"] == []


# ---------------------------------------------------------------- what dglzarr.open returns


def plotted_along(means):
    """Xarray's plots take text of fixed width alone along an axis."""
    return means.assign_coords(series=means["series"].astype(str))[{"gene": 0}].plot() is not None


HABITS = {
    "astype(str)": lambda ds: ds["gene"].astype(str).dtype.kind == "U",
    "astype(str) of a label": lambda ds: ds["series"].astype(str).dtype.kind == "U",
    "np.char": lambda ds: np.char.startswith(ds["sample"].values.astype(str), "GSM").all(),
    "np.unique": lambda ds: set(np.unique(ds["series"])) == set(ds["series"].values.tolist()),
    "np.isin": lambda ds: np.isin(ds["series"], ["GSE900001"]).any(),
    "pandas": lambda ds: ds["series"].to_series().value_counts().sum() == 120,
    "to_dataframe": lambda ds: ds[["expression"]][{"gene": [0]}].to_dataframe().shape[0] == 120,
    "pandas index": lambda ds: ds.indexes["gene"].str.endswith("_at").all(),
    "str": lambda ds: ds["gene"].str.endswith("_at").values.all(),
    "sel by str": lambda ds: ds.sel(gene=ds["gene"].values[:3].astype(str)).sizes["gene"] == 3,
    "where": lambda ds: ds.where(ds["series"] == "GSE900001", drop=True).sizes["sample"] == 6,
    "sortby": lambda ds: ds.sortby("series")["series"].values[0] == "GSE900001",
    "groupby": lambda ds: "GSE900001" in ds["expression"].groupby("series").mean()["series"],
    "plot": lambda ds: ds["expression"][{"gene": 0}].plot() is not None,
    "plot along a label": lambda ds: plotted_along(ds["expression"].groupby("series").mean()),
    "plot of a matrix": lambda ds: ds["expression"][{"gene": slice(3)}].plot() is not None,
    "scatter": lambda ds: ds.plot.scatter(x="split", y="n", hue="series") is not None,
    "chunk": lambda ds: (ds["series"].chunk(10).compute() == ds["series"]).all(),
    "dask": lambda ds: float(ds["expression"].mean().compute()) > 0,
    "concat": lambda ds: xr.concat([ds["n"][:1], ds["n"][1:2]], "sample").size == 2,
}  # fmt: skip


@pytest.mark.parametrize("habit", HABITS)
def test_open__habit(habit, ds):
    from matplotlib import pyplot as plt

    ds = ds.assign(n=("sample", np.arange(120)))
    assert HABITS[habit](ds)
    plt.close("all")


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
@pytest.mark.parametrize("name", ["normalized", "samples", "scores", "landmarks"])
def test_open__to_netcdf_and_back(name, engine, example_study, tmp_path):
    ds = dglzarr.open(f"{example_study}#{name}")
    ds.to_netcdf(tmp_path / "a.nc", engine=engine)
    with xr.open_dataset(tmp_path / "a.nc", engine=engine) as back:
        assert back["gene"].values.astype(str).tolist() == ds["gene"].values.tolist()
        assert back.attrs["store_id"] == ds.attrs["store_id"]


@pytest.mark.filterwarnings("ignore:The data type")  # Zarr's, of text of fixed width
def test_open__to_zarr_and_back(ds, tmp_path):
    ds.to_zarr(tmp_path / "a.zarr", consolidated=False)
    back = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    np.testing.assert_array_equal(back["expression"].values, ds["expression"].values)


@pytest.mark.slow
def test_open__works_on_workers_of_a_cluster(ds):
    """Lazy matrices and labels travel to processes."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        sent = client.submit(lambda a: float(a.mean()), ds["expression"]).result()
        mean = float(client.compute(ds["expression"].mean()).result())
    assert sent == pytest.approx(float(ds["expression"].values.mean()), rel=1e-5)
    assert mean == pytest.approx(sent, rel=1e-5)
    assert isinstance(ds.to_dataframe().reset_index(), pd.DataFrame)
