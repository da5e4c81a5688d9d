"""What was measured: a file or a frame whose genes are found on a bundle's panel.

Reads expression files by `dglzarr.sources`; says what is missing, extra, given twice or on another
scale. Nothing is repaired silently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError, SourceError
from dglzarr.kernels.scale import FROM_ZERO, Unit, to_log2
from dglzarr.sources import read_source
from dglzarr.sources.base import Reading, SamplesIn, Source, first_repeat
from dglzarr.sources.identifiers import GeneMatch, match_genes
from dglzarr.sources.scaled import find_scale

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.kernels.scale import Scale
    from dglzarr.prediction.bundle import Bundle

    Matrix = NDArray[np.float32]
    Mask = NDArray[np.bool_]

MAX_MISSING = 0.1
"""Share of the panel that others may stand in for."""

_REMEDY_RAW = (
    "Say what they are, --unit counts, intensity, tpm, rpkm or fpkm (unit= in Python), so that "
    "log2(x + 1) is taken; or give log2 values."
)
_CALLED = (
    (r"with value_columns what is no sample", "what is no sample"),
    (r", which value_columns leaves out", ""),
    (r"Name the columns of expression as value_columns", "Give the columns of expression alone"),
    (r", as in value_columns = \[[^\]]*\]", ""),
    (r"state value_columns = \[[^\]]*\]", "give them as a frame in Python"),
    (r"samples_in = '(\w+)'", r"--samples-in \1 (samples_in= in Python)"),
    (r"unit = '(\w+)' or '(\w+)'", r"--unit \1 or \2 (unit= in Python)"),
    (r"unit = '(\w+)'", r"--unit \1 (unit= in Python)"),
)
"""What sources call settings, and what they are of `predict`."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured samples in the genes of a panel.

    Attributes
    ----------
    name
        Of the file.
    samples
        Names of the samples.
    found
        Which genes of the panel the file has, (landmark,).
    notes
        What should be known of the file, a line each.
    """

    name: str
    samples: list[str]
    found: Mask
    notes: list[str]
    source: Source
    match: GeneMatch
    scale: Scale
    unit: Unit | None

    def read(self, start: int, stop: int) -> tuple[Matrix, int]:
        """Return panel values of some samples in log2, (sample, landmark); NaN where missing.

        And how many values of these samples were negative and set to 0.

        Raises
        ------
        SourceError
            When a value is infinite, or negative of a unit without such.
        """
        block, n_negative = to_log2(self.source.read(start, stop), self.scale)
        if n_negative and self.unit in FROM_ZERO:
            raise SourceError(
                f"{self.name}: expected {self.unit} from 0, got {n_negative} negative values in "
                f"samples {start} to {stop}. Correct the unit."
            )
        values = self.match.apply(block)
        if np.isinf(values).any():
            raise SourceError(f"{self.name}: expected finite values, got an infinite one.")
        return values, n_negative


def read_measured(
    place: str | Path | pd.DataFrame,
    bundle: Bundle,
    *,
    unit: Unit | None = None,
    max_missing: float = MAX_MISSING,
    samples_in: SamplesIn | None = None,
) -> Measured:
    """Return what was measured of a bundle's panel.

    Parameters
    ----------
    place
        An expression file of any format that is known, genes in rows of a table; or a frame,
        samples in rows and genes in columns. Genes are found by label, symbol or gene ID.
    bundle
        The bundle.
    unit
        What the values are; None for log2, which they must look like.
    max_missing
        Share of the panel that may be missing.
    samples_in
        Where the samples of a table stand: ``"rows"`` or ``"columns"``; None for the columns of a
        file, which its names must allow, and the rows of a frame.

    Raises
    ------
    ConfigError
        When the unit is unknown, or the samples stand elsewhere than in rows or columns.
    SourceError
        When the file is none, on another scale, or lacks more of the panel.
    """
    if unit is not None and unit not in get_args(Unit):
        raise ConfigError(f"unit: expected one of {get_args(Unit)}, got {unit!r}.")
    if samples_in is not None and samples_in not in get_args(SamplesIn):
        raise ConfigError(f"samples_in: expected {get_args(SamplesIn)}, got {samples_in!r}.")
    try:
        if isinstance(place, pd.DataFrame):
            source = _of_frame(place.T if samples_in == "columns" else place)
        else:
            source = read_source(place, reading=Reading(samples_in=samples_in))
        scaled = find_scale(source, unit)
    except SourceError as error:
        raise SourceError(_in_own_words(str(error))) from error
    name = "frame" if isinstance(place, pd.DataFrame) else source.path.name
    if scaled.scale == "raw" and unit is None:
        top = scaled.quantiles["max"]
        what = "read counts" if scaled.unit == "counts" else "raw values"
        raise SourceError(
            f"{name}: expected log2 values, got {what} up to {top:.4g}. {_REMEDY_RAW}"
        )
    panel = bundle.panel
    match = match_genes(
        source.genes, source.gene_symbol, panel.genes, panel.symbols, gene_ids=panel.gene_ids
    )
    found = match.found
    _check_missing(name, bundle, found, max_missing, source)
    notes = [*map(str, source.left_out), *map(_in_own_words, (*source.notes, *scaled.notes))]
    notes += _match_notes(source, bundle, match)
    if len(source.samples) == 1:
        notes.append(
            "One sample: whether a shift of its values is its batch or its biology cannot be told."
        )
    return Measured(name, source.samples, found, notes, source, match, scaled.scale, unit)


def _in_own_words(text: str) -> str:
    """Return what a source says with the options of `predict`, which has no settings.

    Examples
    --------
    >>> _in_own_words("State it, such as unit = 'fpkm'.")
    'State it, such as --unit fpkm (unit= in Python).'
    """
    for called, here in _CALLED:
        text = re.sub(called, here, text)
    return text


def _of_frame(frame: pd.DataFrame) -> Source:
    """Return a frame as a source.

    Raises
    ------
    SourceError
        When it holds no numbers, or names repeat.
    """
    samples, genes = ([str(v) for v in labels] for labels in (frame.index, frame.columns))
    if not samples or not genes:
        raise SourceError(f"frame: expected samples and genes, got {len(samples)} x {len(genes)}.")
    for what, names in (("sample", samples), ("gene", genes)):
        if repeated := first_repeat(names):
            raise SourceError(f"frame: expected each {what} once, got {repeated!r} again.")
    try:
        values = frame.to_numpy(dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise SourceError(f"frame: expected numbers, got {error}.") from error
    if np.isinf(values).any():
        raise SourceError("frame: expected finite values or NaN, got an infinite value.")
    return Source(Path("frame"), "table", samples, genes, "", [""] * len(samples), values)


def _check_missing(
    name: str, bundle: Bundle, found: Mask, max_missing: float, source: Source
) -> None:
    n, lacking = found.size, np.flatnonzero(~found)
    if not found.any():
        raise SourceError(
            f"{name}: expected genes of the panel such as {bundle.panel.genes[0]!r} or "
            f"{bundle.panel.symbols[0] or '-'!r}, got {source.genes[:3]!r}. Name genes by probe, "
            "symbol, Entrez or Ensembl ID; genes stand in the rows of a file, in the columns of a "
            "frame."
        )
    if lacking.size > max_missing * n:
        raise SourceError(
            f"{name}: expected at most {100 * max_missing:g} % of the {n} panel genes missing, got "
            f"{lacking.size} ({100 * lacking.size / n:.0f} %): {bundle.panel.called(lacking)}. "
            "Measure them, make a bundle without them, or raise --max-missing."
        )


def _match_notes(source: Source, bundle: Bundle, match: GeneMatch) -> list[str]:
    """Return how genes were found: extra ones, several for one, one for several, by symbol."""
    notes, n_panel = [], int(match.found.sum())
    used = len(set(match.query.tolist()))
    if extra := len(source.genes) - used:
        notes.append(f"{extra} of {len(source.genes)} genes are not on the panel: not used.")
    several = np.bincount(match.study, minlength=match.n_study) > 1
    if several.any():
        shown = bundle.panel.called(np.flatnonzero(several))
        notes.append(f"{several.sum()} panel genes are measured several times ({shown}): averaged.")
    shared = np.bincount(match.query, minlength=len(source.genes)) > 1
    if shared.any():
        shown = ", ".join(source.genes[i] for i in np.flatnonzero(shared)[:5])
        notes.append(f"{shared.sum()} genes stand for several panel features each ({shown}).")
    by_label = len({*source.genes} & {*bundle.panel.genes})
    if by_label < 0.5 * n_panel:
        platforms = ", ".join(bundle.details["platforms"]) or "its own"
        notes.append(
            f"{n_panel - by_label} of {n_panel} panel genes are found by symbol or ID, not by "
            f"label: another platform than training's ({platforms}). The intervals do not cover "
            "what differs between platforms."
        )
    return notes
