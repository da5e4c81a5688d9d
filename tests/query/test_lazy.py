"""A few genes of a matrix, as it was opened and of what was made of it."""

import pytest
import xarray as xr

import dglzarr
from dglzarr.errors import ConfigError
from dglzarr.query import open_study, stores

PARTS = {
    "whole": lambda ds: ds,
    "some samples": lambda ds: ds.isel(sample=slice(10)),
    "some genes": lambda ds: ds.isel(gene=slice(10)),
    "both": lambda ds: ds.isel(sample=[5, 3], gene=slice(1, 10)),
    "where": lambda ds: ds.where(ds.expression > 8),
    "filled": lambda ds: ds.fillna(0),
    "chunked": lambda ds: ds.chunk(sample=7, gene=5),
}


@pytest.fixture(params=["open", "open_study", "open_zarr"])
def ds(request, example_study):
    if request.param == "open_zarr":
        (uri,) = [uri for uri in stores(example_study) if "normalized" in uri]
        return xr.open_zarr(uri)
    if request.param == "open_study":
        return open_study(example_study)["normalized"].ds
    return dglzarr.open(f"{example_study}#normalized")


@pytest.mark.parametrize("part", PARTS)
def test_expression__of_a_part_is_that_of_the_part(part, ds):
    chosen = PARTS[part](ds)
    names = [str(chosen["gene"].values[place]) for place in (7, 2)]
    found = chosen.dgl.expression(*names)
    xr.testing.assert_equal(found.compute(), chosen["expression"][:, [7, 2]].compute())


@pytest.mark.parametrize(
    "part", [{"gene": slice(10)}, {"sample": slice(10)}, {"sample": slice(10), "gene": [1]}]
)
def test_study__of_a_part_says_what_it_cannot_tell(part, example_study):
    some = open_study(example_study).isel(part, missing_dims="ignore").dgl
    gene = some.names.labels[0]
    assert some.expression(gene).compute().sizes["gene"] == 1
    for ask in (some.neighbours, some.why):
        with pytest.raises(ConfigError, match=r"expected the whole study, 120 samples .* got \d"):
            ask(gene)
