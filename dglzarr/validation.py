"""Whether a Dataset is what its spec says: metadata and labels, never the matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dglzarr.errors import SchemaError

if TYPE_CHECKING:
    import xarray as xr

    from dglzarr.specs import ArraySpec, StoreSpec


def validate(ds: xr.Dataset, spec: StoreSpec) -> None:
    """Check metadata and labels of a Dataset against its spec; the matrix is not read.

    Raises
    ------
    SchemaError
        Listing every problem at once.
    """
    problems = [*_name_problems(ds, spec)]
    for array in spec.arrays:
        if array.name in ds.variables:
            problems += _array_problems(ds, array)
    if problems:
        raise SchemaError(f"store {spec.name!r} version {spec.version}: " + "; ".join(problems))


def _name_problems(ds: xr.Dataset, spec: StoreSpec) -> list[str]:
    known = {a.name: a for a in spec.arrays}
    missing = [a.name for a in spec.arrays if a.required and a.name not in ds.variables]
    unknown = [str(name) for name in ds.variables if name not in known]
    return [f"missing {name!r}" for name in missing] + [f"unknown {name!r}" for name in unknown]


def _array_problems(ds: xr.Dataset, array: ArraySpec) -> list[str]:
    values = ds.variables[array.name]
    problems = []
    if values.dims != array.dims:
        problems.append(f"{array.name}: expected dims {array.dims!r}, got {values.dims!r}")
    if not _same_dtype(str(values.dtype), values.dtype.kind, array.dtype):
        problems.append(f"{array.name}: expected dtype {array.dtype!r}, got {str(values.dtype)!r}")
    if array.units is not None and values.attrs.get("units") != array.units:
        got = values.attrs.get("units")
        problems.append(f"{array.name}: expected units {array.units!r}, got {got!r}")
    if array.dims == (array.name,) and array.dtype == "str":
        problems += _label_problems(ds, array.name)
    return problems


def _same_dtype(name: str, kind: str, expected: str) -> bool:
    return kind in "TUO" if expected == "str" else name == expected


def _label_problems(ds: xr.Dataset, dim: str) -> list[str]:
    labels = ds.indexes[dim]
    if labels.has_duplicates:
        return [f"{dim}: labels repeat, for example {labels[labels.duplicated()][0]!r}"]
    return [f"{dim}: empty label"] if "" in labels else []
