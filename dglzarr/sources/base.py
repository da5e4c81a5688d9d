"""What every reader returns: `Source`, and the names derived from a file's path.

Reads no file. Every matrix is `(sample, gene)`; GEO and GCT files are turned while parsed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dglzarr.kernels.slices import copy_block
from dglzarr.sources.dates import excel_dates, told_dates
from dglzarr.sources.identifiers import has_name

SourceFormat = Literal[
    "series-matrix", "soft", "gct", "gctx", "table", "parquet", "feather", "archs4", "h5ad"
]

SamplesIn = Literal["columns", "rows"]
"""Where a wide matrix has its samples."""

_ACCESSION = re.compile(r"GSE\d+")
_SUFFIXES = re.compile(
    r"(\.(gz|txt|tsv|csv|tab|gct|gctx|soft|parquet|feather|h5ad|h5|hdf5))+$", re.IGNORECASE
)
_PARTS = re.compile(r"_(series_matrix|family|expr)$")
_N_SHOWN = 3


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
class Reading:
    """How a file is read where its content leaves it open.

    Attributes
    ----------
    value_columns
        Patterns of the columns of a table that are samples, such as ``*.AVG_Signal``; by default
        all that are no annotation, p-values or identifiers by their names.
    samples_in
        Where a table, Parquet or Feather file has its samples; by default as its names show.
    only_series, only_matching, only_samples
        Samples to keep: of these series; of which a label matches; in a file, one a line.
    max_single_cell
        Highest probability of ARCHS4 to be of single cells; by default 0.5.
    layer
        Layer of an h5ad to read instead of X.
    is_bare
        Leave labels out, and keep all samples: values alone are wanted.
    """

    value_columns: tuple[str, ...] = ()
    samples_in: SamplesIn | None = None
    only_series: tuple[str, ...] = ()
    only_matching: str | None = None
    only_samples: str | None = None
    max_single_cell: float | None = None
    layer: str | None = None
    is_bare: bool = False

    @classmethod
    def recorded(cls, found: Mapping[str, Any]) -> Self:
        """Return what a store recorded of how its file was read."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class LeftOut:
    """Columns, rows or samples of a file that are no expression, and why."""

    what: Literal["columns", "rows", "samples"]
    reason: str
    names: tuple[str, ...]

    @classmethod
    def group(
        cls, what: Literal["columns", "rows", "samples"], found: Iterable[tuple[str, str]]
    ) -> tuple[Self, ...]:
        """Return what was left out, one entry a reason, from (reason, name)."""
        names: dict[str, list[str]] = {}
        for reason, name in found:
            names.setdefault(reason, []).append(name)
        return tuple(cls(what, reason, tuple(those)) for reason, those in names.items())

    def __str__(self) -> str:
        return self.told(self.as_details())

    @staticmethod
    def told(details: Mapping[str, Any]) -> str:
        """Return what the details of a store tell of it, in words.

        Examples
        --------
        >>> LeftOut.told({"what": "rows", "reason": "counters", "n": 1, "names": ["N_noFeature"]})
        "1 row left out: counters ('N_noFeature')"
        """
        n, names = details["n"], details["names"]
        what = details["what"].removesuffix("s") if n == 1 else details["what"]
        more = ", ..." if n > len(names) else ""
        shown = ", ".join(map(repr, names))
        return f"{n} {what} left out: {details['reason']} ({shown}{more})"

    def as_details(self) -> dict[str, Any]:
        """Return it for the details of a store: its number and the first names."""
        return {
            "what": self.what,
            "reason": self.reason,
            "n": len(self.names),
            "names": list(self.names[:_N_SHOWN]),
        }


@dataclass(frozen=True)
class Source:
    """One opened file: labels in memory, values read by slices of samples.

    `platform` is "" where unknown, missing labels are "", missing values NaN. `gene_symbol` is
    None where the file names none, `sample_series` where all samples are of `series`. `left_out`
    and `notes` tell what a user should know of the file. Of a source that `is_lazy` any slice can
    be read from the file whenever it is wanted, without the rest.
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
    sample_series: list[str] | None = None
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    is_lazy: bool = False

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
    """Return the symbols, "" for none, or None where they only repeat the ids or are titles.

    A column of which a fifth has blanks within holds titles, as many GCT 1.2 do.

    Examples
    --------
    >>> symbols_or_none(["TP53", "NULL"], ["1_at", "2_at"])
    ['TP53', '']
    >>> symbols_or_none(["tumor protein p53", "NULL"], ["1_at", "2_at"])
    """
    known = [symbol if has_name(symbol) else "" for symbol in symbols]
    named = [symbol for symbol in known if symbol]
    n_titles = sum(" " in symbol.replace(" /// ", "") for symbol in named)
    is_new = any(symbol and symbol != gene for symbol, gene in zip(known, genes, strict=True))
    return known if is_new and n_titles < 0.2 * len(named) else None


def name_notes(genes: Sequence[str], symbols: Sequence[str] | None) -> tuple[str, ...]:
    """Return what a user should know of names of genes: those that Excel made dates of."""
    dates = list(dict.fromkeys(excel_dates([*genes, *(symbols or ())])))
    if not dates:
        return ()
    n = (
        "1 name of a gene is a date"
        if len(dates) == 1
        else f"{len(dates)} names of genes are dates"
    )
    return (f"{n}, as spreadsheets make them, and taken for no symbol: {told_dates(dates)}",)


def matrix_source(
    path: Path,
    kind: SourceFormat,
    samples: list[str],
    genes: list[str],
    values: Values,
    *,
    symbols: Sequence[str] | None = None,
    notes: tuple[str, ...] = (),
    **more: Any,  # noqa: ANN401
) -> Source:
    """Return an opened file, whose series is that of its name and whose platform is unknown.

    ``symbols`` are a column of the file, which may repeat its ids. ``more`` are other attributes of
    a `Source`, also series and platform where the file tells them.
    """
    known = symbols_or_none(symbols, genes) if symbols else None
    told = {"series": series_name(path), "platform": [""] * len(samples), **more}
    notes = (*notes, *name_notes(genes, known))
    return Source(path, kind, samples, genes, values=values, gene_symbol=known, notes=notes, **told)


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
