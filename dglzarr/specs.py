"""What an array and a store declaration are, and the labels that many stores share.

``schema`` declares the stores with them. Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dglzarr.kernels.split import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping


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
    """One store: its schema name, version and arrays."""

    name: str
    version: int
    description: str
    arrays: tuple[ArraySpec, ...]

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
    GENE,
    GENE_ID,
    GENE_SYMBOL,
    coord("source", "sample", "name of the source the profile was read from"),
    SERIES,
    PLATFORM,
    SPLIT,
    *LABELS,
)


def matrix(name: str, description: str, units: str) -> ArraySpec:
    """Return a big matrix that region tasks write."""
    return ArraySpec(name, ("sample", "gene"), "float32", description, units, "region")
