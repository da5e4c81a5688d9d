"""AnnData's h5ad, written region by region: values, labels, latent units, scores and lineage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dglzarr.errors import StoreError
from dglzarr.query.h5ad import (
    create_h5ad,
    create_mapping,
    mark,
    write_array,
    write_frame,
    write_texts,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dglzarr.export.selected import Selected


def write_h5ad(path: Path, chosen: Selected) -> None:
    """Write an h5ad: ``X`` (sample, gene), ``obs`` labels, ``var`` genes, ``obsm["X_latent"]``.

    ``varm["latent_score"]`` is what each gene contributes to each latent unit; ``uns["dglzarr"]``
    says where the values come from. A text label of few values becomes a category.
    """
    with create_h5ad(path) as file:
        write_frame(file, "obs", chosen.samples)
        write_frame(file, "var", chosen.genes)
        write_texts(create_mapping(file["uns"], "dglzarr"), chosen.attributes)
        if "latent" in chosen.tree.children:
            found = chosen.tree["latent"].dataset
            if "problem" in found.attrs:
                raise StoreError(str(found.attrs["problem"]))
            write_array(file["obsm"], "X_latent", found["latent"].values)
        if "latent_score" in chosen.facts:
            score = chosen.facts["latent_score"].transpose("gene", "latent").values
            write_array(file["varm"], "latent_score", score)
        values = mark(file.create_dataset("X", shape=chosen.shape, dtype="<f4"), "array")
        for samples, block in chosen.blocks():
            values[samples] = block
