"""What every reader returns: `Source`, and the names derived from a file's path.

Reads no file. Every matrix is `(sample, gene)`; GEO and GCT files are turned while parsed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import copy_block

SourceFormat = Literal["series-matrix", "soft", "gct", "gctx", "table"]

_ACCESSION = re.compile(r"GSE\d+")
_SUFFIXES = re.compile(r"(\.(gz|txt|tsv|csv|tab|gct|gctx|soft))+$", re.IGNORECASE)
_PARTS = re.compile(r"_(series_matrix|family|expr)$")


class Values(Protocol):
    """A matrix `(sample, gene)` that is read by slices of samples."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples and of genes."""
        ...

    def __getitem__(self, samples: slice, /) -> NDArray[np.floating]:
        """Return the rows of a slice of samples."""
        ...


@dataclass(frozen=True)
class Source:
    """One opened file: labels in memory, values read by slices of samples.

    `platform` is "" where unknown, missing labels are "", missing values NaN. `gene_symbol` is
    None where the file names none.
    """

    path: Path
    format: SourceFormat
    samples: list[str]
    genes: list[str]
    series: str
    platform: list[str]
    values: Values
    gene_symbol: list[str] | None = None
    labels: dict[str, list[str]] = field(default_factory=dict)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the values `(sample, gene)` of the samples from start up to stop.

        They may be a view, which is not to be written to.
        """
        values = self.values[start:stop]
        if values.flags.c_contiguous:
            return np.asarray(values, np.float32)
        block = np.empty(values.shape, np.float32)
        copy_block(values, block)
        return block


def source_name(path: str | Path) -> str:
    """Return the file name without the suffixes that name a format.

    Examples
    --------
    >>> source_name("geo/GSE55235_series_matrix.txt.gz")
    'GSE55235'
    >>> source_name("tables/GSE14924_CD4_expr.tsv.gz")
    'GSE14924_CD4'
    """
    return _PARTS.sub("", _SUFFIXES.sub("", Path(path).name))


def series_name(path: str | Path, declared: str = "") -> str:
    """Return the accession in the file name, else the declared one, else the stem.

    Examples
    --------
    >>> series_name("GSE14924_CD4_expr.tsv.gz"), series_name("skin.gct"), series_name("a", "GSE1")
    ('GSE14924', 'skin', 'GSE1')
    """
    found = _ACCESSION.search(Path(path).name)
    return found.group() if found else declared or source_name(path)


def symbols_or_none(symbols: Sequence[str], genes: Sequence[str]) -> list[str] | None:
    """Return the symbols, or None where they are all empty or only repeat the ids."""
    says_something = any(
        symbol and symbol != gene for symbol, gene in zip(symbols, genes, strict=True)
    )
    return list(symbols) if says_something else None


def first_repeat(names: Sequence[str]) -> str | None:
    """Return the first name that occurs a second time, or None.

    Examples
    --------
    >>> first_repeat(["a", "b", "a"])
    'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
