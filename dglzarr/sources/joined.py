"""Rows of raw stores, or of the files they link to, in log2 and in the order of a study's genes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import Scale, per_million, to_log2
from dglzarr.sources import Reading, read_source
from dglzarr.sources.chosen import keep_samples
from dglzarr.sources.identifiers import (
    Annotation,
    FeatureKind,
    GeneMatch,
    match_genes,
    match_labels,
    read_annotation_table,
)
from dglzarr.sources.study_genes import features_of
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import RAW_LINK
from dglzarr.storage.store import Region, open_labels, read_attributes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.sources import Source


@dataclass(frozen=True)
class Parts:
    """What is joined into what; the store ids make the caches see a replaced store."""

    target: str
    target_id: str
    raws: tuple[tuple[str, str], ...]
    feature_kind: FeatureKind
    annotation: str | None
    counts: str | None


def joined_rows(region: Region, parts: Parts) -> NDArray[np.float32]:
    """Return the rows of a region, of each source that it meets, in log2."""
    start = 0
    pieces = []
    for raw, raw_id in parts.raws:
        match, n_samples, _ = matched(raw, raw_id, parts)
        lo, hi = max(region.start - start, 0), min(region.stop - start, n_samples)
        if lo < hi:
            pieces.append(match.apply(_log2_rows(raw, raw_id, lo, hi, parts.counts)))
        start += n_samples
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _log2_rows(
    raw: str, raw_id: str, start: int, stop: int, counts: str | None
) -> NDArray[np.float32]:
    """Return rows of a raw store, or of the file that it links to, in log2.

    The depth of a sample is the sum of its counts over all genes of its file.

    Raises
    ------
    SourceError
        If a file that is not copied holds a negative value of a unit without such.
    """
    linked, details = _opened_link(raw, raw_id), (read_attributes(raw) or {})["details"]
    values = linked.read(start, stop) if linked else Rows(raw)[start:stop]
    if counts is not None and details["unit"] == "counts":
        values = per_million(values)
    pseudocount = details.get("pseudocount")
    block, n_negative = to_log2(values, details["scale"], pseudocount=pseudocount)
    if linked and n_negative:
        raise SourceError(
            f"{linked.path.name}: expected {details['unit']} from 0, got {n_negative} negative "
            f"values in samples {start} to {stop}. State unit = 'intensity' to set them to 0."
        )
    return block


@lru_cache(maxsize=8)
def _opened_link(raw: str, raw_id: str) -> Source | None:  # noqa: ARG001  (part of the cache key)
    attributes = read_attributes(raw) or {}
    if attributes["dglzarr_schema"] != RAW_LINK.name:
        return None
    details = attributes["details"]
    reading = replace(
        Reading.recorded(details.get("reading", {})),
        is_bare=True,
        only_series=(),
        only_matching=None,
        only_samples=None,
    )
    source = read_source(details["path"], reading=reading)
    samples = [str(sample) for sample in read_array(raw, "sample")]
    if samples == source.samples:
        return source
    place = {sample: row for row, sample in enumerate(source.samples)}
    if lost := [sample for sample in samples if sample not in place]:
        raise SourceError(
            f"{source.path.name}: expected sample {lost[0]!r}, which it had when it was read, got "
            "none. Ingest it again."
        )
    return keep_samples(source, np.array([place[sample] for sample in samples], np.int64))


@lru_cache(maxsize=1024)
def matched(
    raw: str,
    raw_id: str,  # noqa: ARG001  (part of the cache key)
    parts: Parts,
) -> tuple[GeneMatch, int, Scale]:
    """Return which features of a raw store measure which study genes, its length and scale."""
    table = open_labels(raw)
    genes = _genes(parts)
    features = features_of(raw, parts.feature_kind, _annotation(parts))
    if parts.feature_kind == "gene":
        match = match_genes(features, None, genes)
    else:
        match = match_labels(features, genes)
    return match, table.sizes["sample"], table.attrs["details"]["scale"]


@lru_cache(maxsize=1)
def _genes(parts: Parts) -> list[str]:
    return [str(gene) for gene in read_array(parts.target, "gene")]


@lru_cache(maxsize=1)
def _annotation(parts: Parts) -> Annotation | None:
    is_needed = parts.feature_kind == "gene" and parts.annotation is not None
    return read_annotation_table(str(parts.annotation)) if is_needed else None
