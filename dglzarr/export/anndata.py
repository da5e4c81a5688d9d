"""AnnData's h5ad, written region by region: values, labels, latent units, scores and lineage.

References
----------
https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

from dglzarr.errors import StoreError
from dglzarr.export.selected import stored_name

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from dglzarr.export.selected import Selected

_TEXT = h5py.string_dtype("utf-8")
_MAPPINGS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


def write_h5ad(path: Path, chosen: Selected) -> None:
    """Write an h5ad: ``X`` (sample, gene), ``obs`` labels, ``var`` genes, ``obsm["X_latent"]``.

    ``varm["latent_score"]`` is what each gene contributes to each latent unit; ``uns["dglzarr"]``
    says where the values come from. A text label of few values becomes a category.
    """
    with h5py.File(path, "w") as file:
        _mark(file, "anndata", "0.1.0")
        for name in _MAPPINGS:
            _mark(file.create_group(name), "dict", "0.1.0")
        _write_frame(file, "obs", chosen.samples)
        _write_frame(file, "var", chosen.genes)
        _write_lineage(file["uns"], chosen)
        if "latent" in chosen.tree.children:
            found = chosen.tree["latent"].dataset
            if "problem" in found.attrs:
                raise StoreError(str(found.attrs["problem"]))
            latent = found["latent"].values
            _write_array(file["obsm"], "X_latent", latent)
        if "latent_score" in chosen.facts:
            score = chosen.facts["latent_score"].transpose("gene", "latent").values
            _write_array(file["varm"], "latent_score", score)
        values = file.create_dataset("X", shape=chosen.shape, dtype="<f4")
        _mark(values, "array", "0.2.0")
        for samples, block in chosen.blocks():
            values[samples] = block


def _mark(node: Any, kind: str, version: str) -> None:  # noqa: ANN401
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version


def _write_frame(file: h5py.File, name: str, frame: pd.DataFrame) -> None:
    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    first, *others = (str(column) for column in frame.columns)
    taken = {"_index"}
    stored = {column: stored_name(column, taken) for column in [first, *others]}
    group.attrs["_index"] = stored[first]
    group.attrs.create("column-order", [stored[n] for n in others], dtype=_TEXT)
    for column, called in stored.items():
        values = frame[column].to_numpy()
        if values.dtype == object and column != first:
            _write_text(group, called, values)
        else:
            _write_array(group, called, values)


def _write_text(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write text as categories, '' as missing; as text where most values differ."""
    codes, known = pd.factorize(values, sort=True)
    if known.size > max(2, values.size // 2):
        _write_array(group, name, values)
        return
    if known.size and known[0] == "":
        known, codes = known[1:], np.maximum(codes - 1, -1)
    part = group.create_group(name)
    _mark(part, "categorical", "0.2.0")
    part.attrs["ordered"] = False
    _write_array(part, "codes", codes.astype(np.min_scalar_type(-known.size - 1)))
    _write_array(part, "categories", known)


def _write_array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    is_text = values.dtype == object or values.dtype.kind in "UT"
    if is_text:
        made = group.create_dataset(name, data=values.astype(object), dtype=_TEXT)
        _mark(made, "string-array", "0.2.0")
    else:
        _mark(group.create_dataset(name, data=values), "array", "0.2.0")


def _write_lineage(uns: h5py.Group, chosen: Selected) -> None:
    part = uns.create_group("dglzarr")
    _mark(part, "dict", "0.1.0")
    for name, value in chosen.attributes.items():
        _mark(part.create_dataset(name, data=value, dtype=_TEXT), "string", "0.2.0")
