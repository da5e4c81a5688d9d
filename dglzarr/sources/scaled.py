"""The scale and the unit of a source: as stated, or as its values show."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import (
    FROM_ZERO,
    Scale,
    Unit,
    are_levels_of_samples,
    are_probabilities,
    detect_scale,
    find_rescaling,
    is_logarithm_of,
    looks_like_counts,
    scales_of,
    unlike_the_rest,
    value_quantiles,
)
from dglzarr.sources.base import LeftOut, Source, Values
from dglzarr.sources.chosen import keep_samples

Stated = Unit | Literal["coverage"]
"""What values may be said to be; coverage becomes counts."""

LOWEST_LOG2, LARGEST_LOG2 = -100, 50
_PLACEHOLDERS = (-9, -99, -666, -999, -9999, -99999)
_SCALE_WINDOWS, _SCALE_WINDOW = 16, 8
_GENES_LOOKED_AT = 1000
_LOW_LOG2, _HIGH_LOG2 = 6, 25
_FEWEST_CALLS, _MOST_COPIES, _MOST_FACTS = 50, 10, 3
_MAPPED_LENGTH = "star.average_mapped_length"
_LEVELS = (
    "samples differ in level and genes hardly do: where samples are in rows, state samples_in = "
    "'rows'"
)
_SEVERAL, _MOST_WORDY = re.compile(r"[/;|,(]"), 0.05
_METHYLATION = re.compile(r"cg\d{6,}|ch\.\w+\.\d+")
_OVERRULE = "To take the values as they are, state what they are, such as unit = 'log2'."


class Scaled(NamedTuple):
    """A source, the quantiles of its values, their scale and, where it is known, their unit.

    `notes` tell what a user should know of the values.
    """

    table: Source
    quantiles: dict[str, float]
    scale: Scale
    unit: Unit | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Divided:
    """Coverage of each sample by how long its reads are: whole read counts."""

    values: Values
    lengths: NDArray[np.float64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of samples and of genes."""
        return self.values.shape

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the counts of a slice of samples."""
        block = self.values[samples] / self.lengths[samples, None]
        return np.rint(block, out=block).astype(np.float32)


def as_counts(table: Source) -> Source:
    """Return a source of coverage sums as read counts, as recount3's ``compute_read_counts`` does.

    The sum over the bases of a gene is divided by the average mapped length of the sample's reads
    and rounded. Samples without such a length, which failed to align, are left out.

    Raises
    ------
    SourceError
        When no label tells the lengths, or no sample has one.

    References
    ----------
    Wilks et al. (2021), doi 10.1186/s13059-021-02533-6: recount3.
    """
    name = next((n for n in table.labels if n.lower().endswith(_MAPPED_LENGTH)), None)
    if name is None:
        raise SourceError(
            f"{table.path.name}: expected a label {_MAPPED_LENGTH!r} to divide coverage by, got "
            "none. Give recount3's recount_qc table of the study as sample_sheet."
        )
    lengths = np.array([_number(cell) for cell in table.labels[name]])
    failed = np.flatnonzero(~(lengths > 0)).tolist()
    if failed:
        others = [("no average mapped length", table.samples[place]) for place in failed]
        kept = np.flatnonzero(lengths > 0)
        table = keep_samples(table, kept, LeftOut.group("samples", others))
        lengths = lengths[kept]
    note = f"coverage was divided by {name} ({lengths.min():g} to {lengths.max():g}) and rounded"
    values = _Divided(table.values, lengths)
    return replace(table, values=values, is_lazy=False, notes=(*table.notes, note))


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def find_scale(table: Source, unit: Stated | None, *, is_chosen: bool = False) -> Scaled:
    """Return a source with the scale and the unit that are stated, or that its values show.

    Of a large source a few windows of samples are looked at, spread evenly: a row alone costs as
    much as its whole chunk where the file is compressed.

    Parameters
    ----------
    table
        The source.
    unit
        What its values are; None, if they shall show it.
    is_chosen
        Whether its samples were named, so that columns of probabilities are wanted.

    Raises
    ------
    SourceError
        If the values are on no known scale, or not on the stated one.
    """
    if unit == "coverage":
        table, unit = as_counts(table), "counts"
    stated = unit
    n = len(table.samples)
    starts = np.linspace(0, max(0, n - _SCALE_WINDOW), _SCALE_WINDOWS).astype(int)
    is_small = n <= _SCALE_WINDOW * _SCALE_WINDOWS
    windows = [(0, n)] if is_small else [(int(s), int(s) + _SCALE_WINDOW) for s in starts]
    values = np.concatenate([table.read(*window) for window in windows])
    samples = [name for start, stop in windows for name in table.samples[start:stop]]
    try:
        quantiles = value_quantiles(values)
        scale = _stated_scale(unit, values, quantiles)
        if scale is None:
            scale = _seen_scale(table, quantiles)
            if not is_chosen:
                _refuse_probabilities(samples, values)
    except ValueError as error:
        raise SourceError(f"{table.path.name}: {error}") from error
    if unit is None and looks_like_counts(values):
        _refuse_calls(table.path.name, values, quantiles)
        scale, unit = "raw", "counts"
    elif unit is None:
        if made := find_rescaling(values):
            raise SourceError(
                f"{table.path.name}: expected raw or log2 values, got {made}. Use the series as "
                f"measured. {_OVERRULE}"
            )
        _refuse_facts(table, values, quantiles)
        refuse_other_scale(table.path.name, samples, values, scale)
        unit = "log2" if scale == "log2" else None
    names = ("min", "q25", "median", "q75", "q99", "max")
    return Scaled(
        table,
        dict(zip(names, (float(q) for q in quantiles), strict=True)),
        scale,
        unit,
        (
            *_doubts(samples, values, scale),
            *_low_values(scale, quantiles, stated),
            *_placeholders(values),
            *_odd_rows(table.genes),
        ),
    )


def _refuse_probabilities(samples: Sequence[str], values: NDArray[np.float32]) -> None:
    """Refuse samples of probabilities among others of expression.

    Raises
    ------
    ValueError
        Naming them.
    """
    step = max(1, values.shape[1] // _GENES_LOOKED_AT)
    found = np.flatnonzero(are_probabilities(values[:, ::step]))
    if 0 < found.size < len(samples):
        shown = ", ".join(repr(samples[place]) for place in found[:3])
        more = ", ..." if found.size > 3 else ""
        raise ValueError(
            f"expected one kind of values, got {found.size} of {len(samples)} columns between 0 "
            f"and 1, as p-values are: {shown}{more}. Name the columns of expression as "
            "value_columns."
        )


def _refuse_calls(name: str, values: NDArray[np.float32], quantiles: NDArray[np.float64]) -> None:
    """Refuse whole numbers so small that they may be calls or copies rather than counts.

    Raises
    ------
    SourceError
        Which says how to overrule it.
    """
    median, highest = quantiles[2], quantiles[-1]
    if values.size >= _FEWEST_CALLS and (highest <= 4 or (median == 2 and highest <= _MOST_COPIES)):
        raise SourceError(
            f"{name}: expected expression, got whole numbers from 0 to {highest:.3g}, as calls of "
            "mutations and copies of genes are. Where they are counts, state unit = 'counts'."
        )


def _refuse_facts(
    table: Source, values: NDArray[np.float32], quantiles: NDArray[np.float64]
) -> None:
    """Refuse values that reach beyond log2 in a few genes alone, which may be facts about samples.

    Raises
    ------
    SourceError
        Naming them.
    """
    if quantiles[4] > 32 or values.shape[1] < _FEWEST_CALLS:
        return
    high = np.flatnonzero((values > _HIGH_LOG2).any(axis=0))
    if 0 < high.size <= _MOST_FACTS:
        shown = ", ".join(repr(table.genes[place]) for place in high)
        raise SourceError(
            f"{table.path.name}: expected one scale, got values up to {quantiles[-1]:.4g} of "
            f"{shown} alone, the others up to 25, as log2 is. Take out what is no gene, or state "
            "what the values are, such as unit = 'log2' or 'tpm'."
        )


def refuse_other_scale(
    name: str, samples: Sequence[str], values: NDArray[np.float32], scale: Scale
) -> None:
    """Refuse samples that by themselves show another scale than their source has.

    Parameters
    ----------
    name
        The file, which the error names.
    samples, values
        Names of some of its samples, and what they hold, `(sample, gene)`.
    scale
        Of the source, as its values show it.

    Raises
    ------
    SourceError
        Naming those of the rarer scale; says which setting overrules.
    """
    found = scales_of(values)
    if 2 * np.count_nonzero(found == "log2") <= len(samples):  # most of them are no failures
        found[(found == "log2") & ~is_logarithm_of(values, found == "raw")] = ""
    others = np.flatnonzero((found != "") & (found != scale))
    if not others.size:
        return
    same = np.flatnonzero(found == scale)
    odd = same if 0 < same.size < others.size else others
    shown = ", ".join(repr(samples[place]) for place in odd[:3]) + (", ..." if odd.size > 3 else "")
    kinds = ("raw", "log2") if found[odd[0]] == "raw" else ("log2", "raw")
    raise SourceError(
        f"{name}: expression values: expected one scale, got {odd.size} of {len(samples)} samples "
        f"seen {kinds[0]} ({shown}), and others {kinds[1]}. Bring them to one scale, or leave out "
        "with value_columns what is no sample. Where all are of one scale as they are, state it, "
        "such as unit = 'fpkm'."
    )


def _seen_scale(table: Source, quantiles: NDArray[np.float64]) -> Scale:
    """Return the scale that values show.

    Raises
    ------
    ValueError
        When they show none, or the ids are those of methylation; says which setting overrules.
    """
    try:
        scale = detect_scale(quantiles)
    except ValueError as error:
        raise ValueError(f"{error} {_OVERRULE}") from error
    looked_at = table.genes[:: max(1, len(table.genes) // 1000)]
    if sum(_METHYLATION.match(gene) is not None for gene in looked_at) > 0.5 * len(looked_at):
        raise ValueError(
            f"gene ids: expected genes or probes of expression, got those of methylation such as "
            f"{table.genes[0]!r}. Use the file of expression. {_OVERRULE}"
        )
    return scale


def _doubts(samples: list[str], values: NDArray[np.float32], scale: Scale) -> tuple[str, ...]:
    """Return a note on samples that look measured otherwise than the rest, or are genes."""
    some = values[:, :: max(1, values.shape[1] // _GENES_LOOKED_AT)]
    if are_levels_of_samples(np.log2(np.maximum(some, 0) + 1) if scale == "raw" else some):
        return (_LEVELS,)
    odd = np.flatnonzero(unlike_the_rest(some))
    if not odd.size:
        return ()
    shown = ", ".join(repr(samples[place]) for place in odd[:3]) + (", ..." if odd.size > 3 else "")
    remedy = "a failed measurement, or a column that is no sample, which value_columns leaves out"
    return (f"{odd.size} of {len(samples)} samples seen are unlike the rest ({shown}): {remedy}",)


def _low_values(
    scale: Scale, quantiles: NDArray[np.float64], stated: Unit | None
) -> tuple[str, ...]:
    """Return a note on log2 values as low as logarithms taken twice, or raw ones as low as log2."""
    highest, has_parts = quantiles[-1], (quantiles != np.floor(quantiles)).any()
    if stated and scale == "raw" and highest <= _HIGH_LOG2 and has_parts:
        told = f"the values reach only {highest:.3g}, as log2 does"
        return (f"{told}: stated as {stated}, they are brought to log2(x + 1)",)
    if scale == "raw" or quantiles[0] < 0 or quantiles[-1] > _LOW_LOG2:
        return ()
    return (f"the values reach only {quantiles[-1]:.3g}: log10, or log2 taken twice, is not log2",)


def _odd_rows(genes: Sequence[str]) -> tuple[str, ...]:
    """Return a note on a few rows of several words, where ids are single ones."""
    odd = [gene for gene in genes if " " in gene and not _SEVERAL.search(gene)]
    if not odd or len(odd) > _MOST_WORDY * len(genes):
        return ()
    shown = ", ".join(map(repr, odd[:3])) + (", ..." if len(odd) > 3 else "")
    return (f"{len(odd)} of {len(genes):,} rows may be no genes ({shown}): take out what is none",)


def _placeholders(values: NDArray[np.float32]) -> tuple[str, ...]:
    """Return a note on a number that stands where values are missing."""
    for number in _PLACEHOLDERS:
        if (n := np.count_nonzero(values == number)) > 1 and np.nanmin(values) == number:
            return (f"{n} of the values seen are {number}: make cells without a value empty",)
    return ()


def _stated_scale(
    unit: Unit | None, values: NDArray[np.float32], quantiles: NDArray[np.float64]
) -> Scale | None:
    """Return the scale of a stated unit, None where none is.

    Raises
    ------
    ValueError
        When the values cannot be of that unit.
    """
    if unit is None:
        return None
    low, high = float(quantiles[0]), float(quantiles[-1])
    if unit == "log2" and high > LARGEST_LOG2:
        raise ValueError(f"unit: expected log2 values, got up to {high:.4g}. Correct the unit.")
    if unit == "log2" and low < LOWEST_LOG2:
        n_low = np.count_nonzero(values < LOWEST_LOG2)
        raise ValueError(
            f"unit: expected log2 values, got {n_low} of the values seen below {LOWEST_LOG2}, down "
            f"to {low:.7g}. Make cells that mean a missing value empty."
        )
    if unit in FROM_ZERO and low < 0:
        raise ValueError(f"unit: expected {unit} from 0, got down to {low:.4g}. Correct the unit.")
    return "log2" if unit == "log2" else "raw"
