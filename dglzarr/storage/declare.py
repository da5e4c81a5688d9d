"""How a store is declared: its arrays, how they lie on disk, and whether a Dataset is what it says.

``schemas`` declares the stores with them. Reads and writes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dglzarr.errors import SchemaError
from dglzarr.kernels.split import SPLITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import xarray as xr
    from numpy.typing import NDArray


Written = Literal["create", "region", "finish"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    ``written`` says when: with the labels (``create``), by region tasks (``region``), or with the
    merged result (``finish``). An array named like its only dim is that dim's index.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    description: str
    units: str | None = None
    written: Written = "finish"
    is_coord: bool = False
    required: bool = True
    attrs: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_matrix(self) -> bool:
        """Whether the array is a big sample by gene matrix, and so sharded."""
        return self.dims == ("sample", "gene") and self.written == "region"


@dataclass(frozen=True)
class StoreSpec:
    """One store: its schema name, version and arrays.

    ``upgrades`` holds, for each older version that is read too, what makes its Dataset one of this
    version. Only stores that no region tasks write can be read so.
    """

    name: str
    version: int
    description: str
    arrays: tuple[ArraySpec, ...]
    upgrades: Mapping[int, Callable[[xr.Dataset], xr.Dataset]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> ArraySpec:
        """Return the array of that name."""
        return next(a for a in self.arrays if a.name == name)

    @property
    def region_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays that region tasks write."""
        return tuple(a for a in self.arrays if a.written == "region")


def index(dim: str, description: str, dtype: str = "str", written: Written = "create") -> ArraySpec:
    """Return the index of a dim."""
    return ArraySpec(dim, (dim,), dtype, description, written=written, is_coord=True)


def coord(name: str, dim: str, description: str, dtype: str = "str", **attrs: object) -> ArraySpec:
    """Return a label along a dim."""
    return ArraySpec(name, (dim,), dtype, description, written="create", is_coord=True, attrs=attrs)


SAMPLE = index("sample", "accession or name of the profile")
GENE = index("gene", "measured feature: a probe set, or a gene ID")
GENE_SYMBOL = coord("gene_symbol", "gene", "symbol of the gene the feature measures, '' unknown")
GENE_ID = coord("gene_id", "gene", "ID of the gene the feature measures, '' unknown")
GENES = (GENE, GENE_ID, GENE_SYMBOL)
SERIES = coord("series", "sample", "study the profile belongs to, GSE...")
PLATFORM = coord("platform", "sample", "GPL..., '' unknown")
SPLIT = coord(
    "split",
    "sample",
    "use of the sample, fixed at ingest by a pure function of a label and the seed",
    dtype="int8",
    flag_values=[0, 1, 2],
    flag_meanings=" ".join(SPLITS),
)
LABELS = (
    index("label", "name of a sample label: a sample sheet column or GEO characteristic"),
    ArraySpec(
        "sample_label", ("sample", "label"), "str", "value of the label, '' absent",
        written="create", is_coord=True,
    ),
)  # fmt: skip
STUDY_COORDS = (
    SAMPLE,
    *GENES,
    coord("source", "sample", "name of the source the profile was read from"),
    SERIES,
    PLATFORM,
    SPLIT,
    *LABELS,
)


def text_array(values: Iterable[object]) -> NDArray[Any]:
    """Return texts as stores hold them."""
    return np.array(list(values), dtype=np.dtypes.StringDType())


def matrix(name: str, description: str, units: str) -> ArraySpec:
    """Return a big matrix that region tasks write."""
    return ArraySpec(name, ("sample", "gene"), "float32", description, units, "region")


# ---------------------------------------------------------------- layout

CHUNK_SAMPLES = 256
CHUNK_GENES = 2048
SHARD_SAMPLES = 2048
MIN_REGIONS = 8


def shard_samples(n_samples: int) -> int:
    """Return how many samples a shard holds: whole chunks, about eight regions or more.

    Examples
    --------
    >>> shard_samples(129158), shard_samples(2000), shard_samples(300), shard_samples(40)
    (2048, 256, 256, 48)
    """
    chunk = chunk_samples(n_samples)
    wanted = chunk * max(1, n_samples // (MIN_REGIONS * chunk))
    return max(chunk, min(wanted, SHARD_SAMPLES // chunk * chunk))


def chunk_samples(n_samples: int) -> int:
    """Return how many samples an inner chunk holds, smaller only for tiny stores."""
    return min(CHUNK_SAMPLES, 16 * math.ceil(n_samples / 16))


def chunk_genes(n_genes: int) -> int:
    """Return how many genes an inner chunk holds: near 2048 and balanced.

    Examples
    --------
    >>> chunk_genes(22268), chunk_genes(10463), chunk_genes(100)
    (2025, 2093, 100)
    """
    return math.ceil(n_genes / max(1, round(n_genes / CHUNK_GENES)))


def layout(
    array: ArraySpec, shape: tuple[int, ...], region_length: int | None
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return inner chunks and shards; whatever a region task writes is one object a region.

    Examples
    --------
    >>> from dglzarr.storage.schemas import NORMALIZED
    >>> layout(NORMALIZED["expression"], (129158, 22268), 2048)
    ((256, 2025), (2048, 22275))
    """
    if array.is_matrix:
        assert region_length is not None
        genes = chunk_genes(shape[1])
        chunk = (min(chunk_samples(shape[0]), region_length), genes)
        return chunk, (region_length, genes * math.ceil(shape[1] / genes))
    first = 1 if array.dims[0] == "region" else region_length
    whole = tuple(max(1, n) for n in shape)
    if array.written == "region" and first is not None:
        return (first, *whole[1:]), None
    return whole, None


def fill_value(dtype: str) -> float | int | str | bool:
    """Return what stands for a value that was never written."""
    if dtype.startswith("float"):
        return math.nan
    if dtype == "str":
        return ""
    return False if dtype == "bool" else -1


# ---------------------------------------------------------------- validation


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
