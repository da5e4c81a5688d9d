"""How stores of older versions are read as those of now; on disk they stay as they are.

A spec names one of these functions for each older version that it reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dglzarr.storage.declare import text_array

if TYPE_CHECKING:
    import xarray as xr

_SELECTORS = (
    "top-score", "variance", "leverage", "random", "medoids", "peel-off", "greedy",
    "deeplift-greedy",
)  # fmt: skip
"""Those of 0.1.0, which wrote no kinds."""


def with_kinds(ds: xr.Dataset) -> xr.Dataset:
    """Return a store of 0.1.0 with the kind of each panel, of what is like one, and of each row."""
    if "representation" in ds.dims:
        names = (str(name) for name in ds["representation"].values)
        kinds = [_kind(name[6:]) if name.startswith("panel ") else "" for name in names]
        return ds.assign_coords(kind=("representation", text_array(kinds)))
    kinds = [_kind(str(name)) for name in ds["panel"].values]
    ds = ds.assign_coords(kind=("panel", text_array(kinds)))
    if "row" not in ds.dims:
        return ds
    families = (str(name) for name in ds["row_family"].values)
    kinds = ["random" if name == "random" else _kind(name) for name in families]
    return ds.assign_coords(row_kind=("row", text_array(kinds)))


def _kind(name: str) -> str:
    """Return the kind of a panel, or of a family of them, by the name that 0.1.0 gave it.

    Examples
    --------
    >>> [_kind(name) for name in ("mean", "mined", "greedy/100", "l1000", "random-3/100")]
    ['baseline', 'mined', 'selector', 'published', 'random']
    >>> [_kind(name) for name in ("random-l1000-3/100", "random of l1000", "random")]
    ['subset', 'subset', 'selector']
    """
    name = re.sub(r"/\d+$", "", name)
    if name in ("mean", "mined"):
        return "baseline" if name == "mean" else "mined"
    if name in _SELECTORS:
        return "selector"
    if re.fullmatch(r"random-\d+", name):
        return "random"
    return "subset" if name.startswith(("random-", "random of ")) else "published"
