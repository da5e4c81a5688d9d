"""Nodes of an AnnData file, by h5py alone: what they are called, and how they say what they are.

References
----------
https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_TEXT = h5py.string_dtype("utf-8")
_MAPPINGS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


def create_h5ad(path: str | Path) -> h5py.File:
    """Return a new file with all mappings of AnnData 0.8 and later, empty, to be closed."""
    file = mark(h5py.File(path, "w"), "anndata", "0.1.0")
    for name in _MAPPINGS:
        create_mapping(file, name)
    return file


def mark(node: Any, kind: str, version: str = "0.2.0") -> Any:  # noqa: ANN401  (of h5py)
    """Say what a node is; return it."""
    node.attrs["encoding-type"], node.attrs["encoding-version"] = kind, version
    return node


def create_mapping(parent: h5py.Group, name: str) -> h5py.Group:
    """Return a new group of named nodes."""
    return mark(parent.create_group(name), "dict", "0.1.0")


def write_array(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write numbers or text."""
    if values.dtype == object or values.dtype.kind in "UT":
        made = group.create_dataset(name, data=values.astype(object), dtype=_TEXT)
        mark(made, "string-array")
    else:
        mark(group.create_dataset(name, data=values), "array")


def write_texts(group: h5py.Group, texts: dict[str, str]) -> None:
    """Write a text under each name."""
    for name, value in texts.items():
        mark(group.create_dataset(name, data=value, dtype=_TEXT), "string")


def write_frame(
    file: h5py.File, name: str, frame: pd.DataFrame, *, with_categories: bool = True
) -> None:
    """Write a table whose first column is its index; text of few values becomes a category."""
    group = mark(file.create_group(name), "dataframe")
    first, *others = (str(column) for column in frame.columns)
    taken = {"_index"}
    stored = {column: stored_name(column, taken) for column in [first, *others]}
    group.attrs["_index"] = stored[first]
    group.attrs.create("column-order", [stored[n] for n in others], dtype=_TEXT)
    for column, called in stored.items():
        values = frame[column].to_numpy()
        if with_categories and values.dtype == object and column != first:
            _write_categories(group, called, values)
        else:
            write_array(group, called, values)


def _write_categories(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write text as categories, '' as missing; as text where most values differ."""
    codes, known = pd.factorize(values, sort=True)
    if known.size > max(2, values.size // 2):
        write_array(group, name, values)
        return
    if known.size and known[0] == "":
        known, codes = known[1:], np.maximum(codes - 1, -1)
    part = mark(group.create_group(name), "categorical")
    part.attrs["ordered"] = False
    write_array(part, "codes", codes.astype(np.min_scalar_type(-known.size - 1)))
    write_array(part, "categories", known)


def stored_name(name: str, taken: set[str], suffix: str = "_") -> str:
    """Return what a column is called in a file of named arrays, where no other is called so.

    Examples
    --------
    >>> taken: set[str] = set()
    >>> [stored_name(name, taken) for name in ("er/pr", "er_pr", ".", "")]
    ['er_pr', 'er_pr_', '_.', '_']
    """
    called = name.replace("/", "_")
    called = f"_{called}" if not called.strip(".") else called
    while called in taken:
        called += suffix
    taken.add(called)
    return called
