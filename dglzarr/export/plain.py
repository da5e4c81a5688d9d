"""Plain Zarr that any reader of Zarr 3 opens: as the study holds it, or gene by gene."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dglzarr.query.h5ad import stored_name
from dglzarr.storage.declare import CHUNK_SAMPLES, chunk_genes

if TYPE_CHECKING:
    from pathlib import Path

    from dglzarr.export.selected import Selected

_SHARD_NBYTES = 2**26
"""Of the genes in one object, where they come one by one."""


def write_zarr(path: Path, chosen: Selected, *, by_gene: bool = False) -> None:
    """Write a Zarr group that ``xr.open_zarr`` opens, with consolidated metadata.

    ``expression`` is (sample, gene) in chunks as the study's own; ``by_gene`` makes it
    (gene, sample), one chunk a gene: one request to a bucket reads one gene of all samples.
    """
    n_samples, n_genes = chosen.shape
    dims = ("gene", "sample") if by_gene else ("sample", "gene")
    if by_gene:
        shard = max(1, min(n_genes, _SHARD_NBYTES // (4 * n_samples)))
        chunks, shards = (1, n_samples), (shard, n_samples)
    else:
        width = chunk_genes(n_genes)
        chunks = min(n_samples, CHUNK_SAMPLES), width
        shards = chunks[0] * min(8, -(-n_samples // chunks[0])), width * -(-n_genes // width)
    ds = _labels(chosen)
    source = chosen.tree["normalized"].dataset["expression"].isel(gene=chosen.places)
    empty = xr.zeros_like(source.variable).transpose(*dims)
    ds["expression"] = empty.chunk(dict(zip(dims, shards, strict=True)))
    encoding: dict[str, Any] = {"chunks": chunks, "shards": shards, "compressors": None}
    encoding["_FillValue"] = np.float32(np.nan)
    with warnings.catch_warnings():
        # Zarr 3 does not define these metadata yet; a label whose name has a space is a variable.
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        warnings.filterwarnings("ignore", ".*has a space in its name", xr.SerializationWarning)
        ds.to_zarr(path, compute=False, zarr_format=3, encoding={"expression": encoding})
        limit = shards[0] * 4 * (n_samples if by_gene else n_genes)
        blocks = chosen.gene_blocks if by_gene else chosen.blocks
        for part, block in blocks(limit_nbytes=limit):
            values = block.T if by_gene else block
            written = xr.Dataset({"expression": (dims, np.ascontiguousarray(values))})
            written.to_zarr(path, region={dims[0]: part}, consolidated=True)


def _labels(chosen: Selected) -> xr.Dataset:
    """Return what is known of samples and genes."""
    found: dict[str, Any] = {}
    taken = {"sample", "gene", "expression", "zarr.json"}
    for dim, frame in (("sample", chosen.samples), ("gene", chosen.genes)):
        for name in map(str, frame.columns):
            called = dim if name == dim else stored_name(name, taken, f"_of_{dim}")
            found[called] = (dim, frame[name].to_numpy())
    return xr.Dataset(coords=found, attrs=dict(chosen.attributes))
