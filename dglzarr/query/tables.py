"""A part of one store as a table: chosen samples by genes, or a line a gene or sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.query.genes import names_of
from dglzarr.query.labels import SampleLabels
from dglzarr.query.lazy import genes_of, readable
from dglzarr.query.stores import open  # noqa: A004  (dglzarr.open)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray

LINES = ("gene", "term", "representation")
"""What a line of a table is, where no samples are asked for: the first of these in a store."""


def table(
    name: str, *, genes: Sequence[str] = (), samples: Sequence[str] = (), top: int = 20
) -> pd.DataFrame:
    """Return chosen values of a store as a table: samples by genes, or a line a gene or sample.

    Parameters
    ----------
    name
        A store, or ``"study#name"``.
    genes
        Labels, symbols or IDs; one that several features have stands for each of them.
    samples
        Sample labels; all samples when none is given.
    top
        Without genes: how many of the genes, best rank or score first where a store has one; of
        enrichment, of the mined panel's terms of lowest p; of groups, of the representations.

    Raises
    ------
    ValueError
        When a gene or sample is not in the store.
    """
    ds = open(name)
    matrix = next((str(n) for n, v in ds.data_vars.items() if v.dims == ("sample", "gene")), None)
    rows = _sample_index(ds, name, samples)
    if matrix is None:
        dim = "sample" if samples else next(d for d in LINES if d in ds.dims)
        if dim == "term":
            ds = ds.sel(panel="mined").sortby("p_value")
        if genes and dim != "gene":
            raise ValueError(f"{name}: has no genes to choose from. Leave them out.")
        first: Any = slice(top) if dim != "gene" else _gene_index(ds, name, genes, top)
        index = rows if samples else first
        columns = [str(n) for n, v in ds.variables.items() if v.dims == (dim,)]
        return ds[columns].isel({dim: index}).to_dataframe()
    chosen = genes_of(ds[matrix], _gene_index(ds, name, genes, top)).isel(sample=rows)
    with readable(name):
        values = chosen.values
    index = pd.Index(chosen["sample"].values, name="sample")
    return pd.DataFrame(values, index=index, columns=chosen["gene"].values)


def _sample_index(ds: xr.Dataset, name: str, samples: Sequence[str]) -> Any:  # noqa: ANN401
    """Return the places of samples, all of them when none is named."""
    if not samples:
        return slice(None)
    if "sample" not in ds.indexes:
        raise ValueError(f"{name}: has no samples to choose from. Leave them out.")
    return SampleLabels(ds).places(samples, place=name)


def _gene_index(ds: xr.Dataset, name: str, genes: Sequence[str], top: int) -> NDArray[np.int64]:
    if not genes:
        for ranks, sign in (("rank", 1), ("score", -1)):
            if ranks in ds and ds[ranks].dims == ("gene",):
                order = np.argsort(sign * ds[ranks].values, kind="stable")
                return order[:top].astype(np.int64)
        return np.arange(ds.sizes["gene"])[:top]
    return names_of(ds).find_all(genes, place=name)
