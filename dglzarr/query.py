"""Read-only questions to finished stores: open any of them, rows and columns by label.

Writes nothing. ``open`` returns the validated lazy Dataset of a store; ``open_logical`` the
concatenated segments of a study's store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.schema import SPECS
from dglzarr.store import (
    Rows,
    missing_regions,
    open_store,
    read_attributes,
    regions,
    store_nbytes,
)
from dglzarr.study import open_study

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray


def open(uri: str) -> xr.Dataset:  # noqa: A001  (dglzarr.open, as in xarray and zarr)
    """Return any dglzarr store as a validated, lazy Dataset.

    Parameters
    ----------
    uri
        A store; or a study's root and the name of a store, as in ``"study#normalized"``.

    Raises
    ------
    StoreError
        When there is no store, it is foreign, or it is not complete.
    SchemaError
        When it does not match its schema.
    """
    return open_store(resolve(uri))


def gene_keys(ds: xr.Dataset) -> NDArray[Any]:
    """Return what gene each feature measures: its gene ID, else symbol, else its own label."""
    keys = np.array(ds["gene"].values, dtype=np.dtypes.StringDType())
    for name in ("gene_symbol", "gene_id"):
        if name in ds:
            known = ds[name].values != ""
            keys[known] = ds[name].values[known]
    return keys


def describe(uri: str) -> dict[str, Any]:
    """Return schema, sizes, lineage and completeness of a store, complete or not.

    Raises
    ------
    StoreError
        When there is no dglzarr store.
    """
    attributes = read_attributes(uri)
    if attributes is None or attributes.get("dglzarr_schema") not in SPECS:
        open_store(uri)
    attributes = attributes or {}
    spec = SPECS[attributes["dglzarr_schema"]]
    n_regions = len(regions(uri)) if spec.region_arrays else 0
    n_missing = len(missing_regions(uri)) if spec.region_arrays else 0
    complete = bool(attributes.get("complete"))
    return {
        "uri": uri,
        "schema": f"{spec.name} version {attributes.get('dglzarr_schema_version')}",
        "description": spec.description,
        "complete": complete,
        "regions": f"{n_regions - n_missing} of {n_regions}" if n_regions else "-",
        "sizes": {str(k): int(v) for k, v in open_store(uri).sizes.items()} if complete else {},
        "nbytes": store_nbytes(uri),
        "store_id": attributes.get("store_id"),
        "created": attributes.get("created"),
        "dglzarr_version": attributes.get("dglzarr_version"),
        "inputs": attributes.get("inputs", []),
        "parameters": attributes.get("parameters", {}),
        "details": attributes.get("details", {}),
    }


def verify(uri: str) -> dict[str, Any]:
    """Return what a full read of a store found; problems are listed under ``"problems"``.

    Checks metadata against the schema, that every region exists, that no value is infinite, that
    a quantile reference ascends and every sample of a normalized store stays within it, and
    that ranks are a permutation.

    Raises
    ------
    StoreError, SchemaError
        When the store cannot be opened at all.
    """
    ds = open_store(uri)
    spec = SPECS[ds.attrs["dglzarr_schema"]]
    problems: list[str] = []
    if spec.region_arrays and (missing := missing_regions(uri)):
        shown = ", ".join(str(r.index) for r in missing[:5])
        problems.append(f"{len(missing)} regions are missing: {shown}")
    n_missing = 0
    for name in (a.name for a in spec.arrays if a.is_matrix):
        rows = Rows(uri, name)
        for region in regions(uri):
            block = rows[region.rows]
            n_missing += int(np.isnan(block).sum())
            problems += _block_problems(ds, name, block, f"{region.start}:{region.stop}")
    problems += _vector_problems(ds)
    return {"uri": uri, "schema": spec.name, "n_missing": n_missing, "problems": problems}


def _block_problems(
    ds: xr.Dataset, name: str, block: NDArray[np.floating[Any]], where: str
) -> list[str]:
    problems = []
    if np.isinf(block).any():
        problems.append(f"{name}, samples {where}: infinite values")
    if ds.attrs["parameters"].get("method") == "quantile":
        reference = ds["quantile_reference"].values.astype(np.float32)
        if np.nanmin(block) < reference[0] or np.nanmax(block) > reference[-1]:
            problems.append(f"{name}, samples {where}: values outside the quantile reference")
    if name == "contribution" and (block < 0).any():
        problems.append(f"{name}, samples {where}: negative values")
    return problems


def _vector_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    if "quantile_reference" in ds and (np.diff(ds["quantile_reference"].values) < 0).any():
        problems.append("quantile_reference: does not ascend")
    if "rank" in ds:
        rank = np.sort(ds["rank"].values)
        if not np.array_equal(rank, np.arange(1, rank.size + 1)):
            problems.append("rank: not a permutation")
    return problems


def resolve(name: str) -> list[str]:
    """Return the URIs that a store name stands for: itself, or the segments of STUDY#NAME."""
    root, found, schema = name.partition("#")
    return open_study(root).uris(schema) if found else [name]


def table(
    name: str, *, genes: Sequence[str] = (), samples: Sequence[str] = (), top: int = 20
) -> pd.DataFrame:
    """Return chosen values of a store as a table: samples by genes, or one line a gene.

    Parameters
    ----------
    name
        A store, or ``"study#name"``.
    genes
        Labels or symbols; a symbol stands for every feature that measures it.
    samples
        Sample labels; all samples when genes are given, none needed for per-gene stores.
    top
        Without genes: how many of the best-ranked (or first) genes.

    Raises
    ------
    ValueError
        When a gene or sample is not in the store.
    """
    ds = open(name)
    index = _gene_index(ds, genes, top)
    matrix = next((str(n) for n, v in ds.data_vars.items() if v.dims == ("sample", "gene")), None)
    if matrix is None:
        columns = [str(n) for n, v in ds.variables.items() if v.dims == ("gene",)]
        return ds[columns].isel(gene=index).to_dataframe()
    chosen = ds[matrix].isel(gene=index)
    if samples:
        unknown = [s for s in samples if s not in ds.indexes["sample"]]
        if unknown:
            raise ValueError(f"sample: expected samples of {name}, got {unknown[:5]!r}.")
        chosen = chosen.sel(sample=list(samples))
    values = chosen.values
    return pd.DataFrame(values, index=chosen["sample"].values, columns=chosen["gene"].values)


def _gene_index(ds: xr.Dataset, genes: Sequence[str], top: int) -> NDArray[np.int64]:
    if not genes:
        order = np.argsort(ds["rank"].values) if "rank" in ds else np.arange(ds.sizes["gene"])
        return order[:top].astype(np.int64)
    labels = ds["gene"].values.astype(object)
    symbols = ds["gene_symbol"].values.astype(object) if "gene_symbol" in ds else labels
    found = [np.flatnonzero((labels == g) | (symbols == g)) for g in genes]
    unknown = [g for g, at in zip(genes, found, strict=True) if not at.size]
    if unknown:
        raise ValueError(f"gene: expected genes or symbols of the store, got {unknown[:5]!r}.")
    return np.concatenate(found).astype(np.int64)
