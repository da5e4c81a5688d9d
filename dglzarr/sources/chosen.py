"""Which samples of a source are asked for: of some series, by a text, by a list.

Reads the list; values stay where they are.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.kernels.split import split_units
from dglzarr.sources.base import LeftOut, Reading, Source
from dglzarr.sources.identifiers import read_gene_list
from dglzarr.sources.wide import Picked

_SEVERAL = re.compile(r"[\s,;|]+")
_ACCESSION = re.compile(r"GSE\d+")


def series_of(text: str) -> list[str]:
    """Return the series that a sample belongs to: several accessions are joined in one text.

    Examples
    --------
    >>> series_of("GSE1,GSE2"), series_of("breast, stage 2"), series_of("")
    (['GSE1', 'GSE2'], ['breast, stage 2'], [])
    """
    parts = [part for part in _SEVERAL.split(text) if part]
    if len(parts) > 1 and all(map(_ACCESSION.fullmatch, parts)):
        return parts
    return [text] if text else []


def studies_of(series: Iterable[object]) -> list[str]:
    """Return the study of each sample by its series: those that share an accession are of one.

    Examples
    --------
    >>> studies_of(["GSE1", "GSE1,GSE2", "GSE2", "GSE3"])
    ['GSE1', 'GSE1', 'GSE1', 'GSE3']
    """
    return split_units([series_of(str(name)) or [""] for name in series])


def choose_samples(source: Source, reading: Reading) -> Source:
    """Return a source with the samples that are asked for, all where nothing is.

    Raises
    ------
    SourceError
        If none is left, or a series or every sample that is named is not in the file.
    """
    asked = (reading.only_series, reading.only_matching, reading.only_samples)
    if not any(asked):
        return source
    place, n = source.path.name, len(source.samples)
    is_kept = np.ones(n, np.bool_)
    notes: list[str] = []
    if reading.only_series:
        is_kept &= _of_series(source, reading.only_series)
    if reading.only_matching:
        is_kept &= _matching(source, reading.only_matching)
    if reading.only_samples:
        listed = set(read_gene_list(reading.only_samples))
        found = np.array([sample in listed for sample in source.samples], np.bool_)
        if not found.any():
            raise SourceError(
                f"{place}: expected samples of only_samples such as {min(listed)!r}, got none of "
                f"{len(listed)} among samples such as {source.samples[0]!r}."
            )
        if missing := len(listed) - int(found.sum()):
            notes.append(f"{missing} of {len(listed)} samples of only_samples are not in the file")
        is_kept &= found
    others = [("not asked for", source.samples[i]) for i in np.flatnonzero(~is_kept).tolist()]
    left_out = LeftOut.group("samples", others)
    chosen = keep_samples(source, np.flatnonzero(is_kept), left_out)
    return replace(chosen, notes=(*chosen.notes, *notes))


def _of_series(source: Source, wanted: Sequence[str]) -> NDArray[np.bool_]:
    """Return which samples are of any of some series."""
    told = source.sample_series or [source.series] * len(source.samples)
    own = [series_of(series or source.series) for series in told]
    known = {series for those in own for series in those}
    if absent := [series for series in wanted if series not in known]:
        raise SourceError(
            f"{source.path.name}: expected samples of series {absent[0]!r}, got none"
            + (f" of it and {len(absent) - 1} more" if len(absent) > 1 else "")
            + ". Correct only_series."
        )
    return np.array([not set(wanted).isdisjoint(those) for those in own], np.bool_)


def _matching(source: Source, pattern: str) -> NDArray[np.bool_]:
    """Return which samples have a label that holds a text."""
    try:
        search = re.compile(pattern, re.IGNORECASE).search
    except re.error as error:
        raise SourceError(
            f"only_matching: expected text or a regular expression, got {pattern!r} ({error})."
        ) from error
    is_found = np.zeros(len(source.samples), np.bool_)
    for cells in source.labels.values():
        seen = {cell: search(cell) is not None for cell in set(cells)}
        is_found |= np.array([seen[cell] for cell in cells], np.bool_)
    return is_found


def keep_samples(
    source: Source, kept: NDArray[np.int64], left_out: tuple[LeftOut, ...] = ()
) -> Source:
    """Return a source with some of its samples, in ascending order.

    Raises
    ------
    SourceError
        If none is kept.
    """
    if not kept.size:
        told = "; ".join(map(str, (*source.left_out, *left_out)))
        raise SourceError(f"{source.path.name}: expected samples to keep, got none: {told}.")
    rows = kept.tolist()
    own = source.sample_series
    picked = Picked(source.values, kept)
    if isinstance(source.values, Picked):
        picked = Picked(source.values.values, source.values.rows[kept])
    return replace(
        source,
        samples=[source.samples[i] for i in rows],
        platform=[source.platform[i] for i in rows],
        labels={name: [cells[i] for i in rows] for name, cells in source.labels.items()},
        sample_series=None if own is None else [own[i] for i in rows],
        values=picked,
        left_out=(*source.left_out, *left_out),
    )
