"""What raw stores become one matrix of: its genes, and the labels of its samples."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import SourceError
from dglzarr.sources.dates import told_dates
from dglzarr.sources.identifiers import (
    Annotation,
    FeatureKind,
    choose_genes,
    feature_symbols,
    name_genes,
    read_annotation_table,
    read_gene_list,
    same_spelling,
)
from dglzarr.storage.declare import text_array
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EXPRESSION
from dglzarr.storage.store import open_labels
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray


_MOST_TOLD = 3
_MOUSE = re.compile(r"[A-Z][a-z0-9]*[a-z][a-z0-9.-]*")
_GENE_COORDS = ("gene", "gene_symbol", "gene_id")


@dataclass(frozen=True)
class GeneRule:
    """What decides the genes of a study.

    Attributes
    ----------
    kind
        Whether they are features by label, or symbols.
    listed
        File with one probe (or symbol) a line; without it those in common.
    annotation
        Table of probes and their symbols, instead of the sources'.
    min_coverage
        Smallest share of the listed probes that a source must measure.
    """

    kind: FeatureKind
    listed: str | None
    annotation: str | None
    min_coverage: float


def study_labels(
    raws: Sequence[str], like: Sequence[str], rule: GeneRule
) -> dict[str, NDArray[Any]]:
    """Return every coordinate of the joined matrix but the split."""
    tables = [open_labels(raw) for raw in raws]
    genes, symbols, ids = study_genes(raws, like, rule)
    refuse_repeated(raws, like)
    names, values = _sample_labels(tables)
    sources = text_array([raw_name(raw) for raw in raws])
    return {
        "sample": _concatenated(tables, "sample"),
        "gene": text_array(genes),
        "gene_id": text_array(ids),
        "gene_symbol": text_array(symbols),
        "source": np.repeat(sources, [t.sizes["sample"] for t in tables]),
        "series": _concatenated(tables, "series"),
        "platform": _concatenated(tables, "platform"),
        "label": text_array(names),
        "sample_label": values,
    }


def study_genes(
    raws: Sequence[str], like: Sequence[str], rule: GeneRule
) -> tuple[list[str], list[str], list[str]]:
    """Return the genes of the study, and the symbol and ID of each."""
    annotation = read_annotation_table(rule.annotation) if rule.annotation else None
    genes_of = [features_of(raw, rule.kind, annotation) for raw in raws]
    listed = read_gene_list(rule.listed) if rule.listed is not None else None
    if like:
        study = open_labels(like[0], EXPRESSION)
        listed, symbols, ids = ([str(v) for v in study[n].values] for n in _GENE_COORDS)
    if rule.kind == "gene":
        _refuse_two_species([raw_name(raw) for raw in raws], genes_of, listed or [])
        _, *genes_of = same_spelling(listed or [], *genes_of)
        genes_of = [[name for name in names if name] for names in genes_of]
    genes = choose_genes([raw_name(raw) for raw in raws], genes_of, listed, rule.min_coverage)
    if not like:
        own = ((read_array(raw, "gene"), read_array(raw, "gene_symbol")) for raw in raws)
        symbols, ids = name_genes(genes, rule.kind, annotation, own)
    return genes, symbols, ids


def _refuse_two_species(
    names: Sequence[str], genes_of: Sequence[Sequence[str]], listed: Sequence[str]
) -> None:
    """Refuse symbols of mouse, as Gcsam, beside those of human: letter case would join them."""
    of_mouse = [name for name, genes in zip(names, genes_of, strict=True) if _are_of_mouse(genes)]
    is_expected = _are_of_mouse(listed) if listed else len(of_mouse) == len(names)
    others = [name for name in names if (name in of_mouse) is not is_expected]
    if of_mouse and others:
        shown = ", ".join(of_mouse[:_MOST_TOLD])
        raise SourceError(
            f"ingest.feature_kind: expected genes of one species, got symbols written as those of "
            f"mouse ({shown}) and as those of human. Make a study a species, or translate the ids."
        )


def _are_of_mouse(genes: Sequence[str]) -> bool:
    named = [gene for gene in genes if len(gene) > 2]  # shorter ones do not tell
    return 2 * sum(_MOUSE.fullmatch(gene) is not None for gene in named) > len(named)


def features_of(raw: str, kind: FeatureKind, annotation: Annotation | None) -> list[str]:
    """Return what each feature of a source is called in the study, "" where it has no gene."""
    labels = [str(g) for g in read_array(raw, "gene")]
    if kind == "probe":
        return labels
    own = [str(s) for s in read_array(raw, "gene_symbol")]
    return feature_symbols(labels, own, annotation)


def _sample_labels(tables: Sequence[xr.Dataset]) -> tuple[list[str], NDArray[Any]]:
    """Return the names of all labels and their values `(sample, label)`, "" where none."""
    names = sorted({str(n) for t in tables for n in t["label"].values})
    n_samples = sum(t.sizes["sample"] for t in tables)
    values = np.full((n_samples, len(names)), "", dtype=np.dtypes.StringDType())
    start = 0
    for table in tables:
        stop = start + table.sizes["sample"]
        at = [names.index(str(n)) for n in table["label"].values]
        values[start:stop, at] = table["sample_label"].values
        start = stop
    return names, values


def _concatenated(tables: Sequence[xr.Dataset], name: str) -> NDArray[Any]:
    return np.concatenate([t[name].values for t in tables])


def refuse_repeated(raws: Sequence[str], like: Sequence[str]) -> None:
    """Refuse a sample that is in two of the sources, those of a grown study included."""
    source_of: dict[str, str] = {}
    for uri in like:
        pairs = zip(read_array(uri, "sample"), read_array(uri, "source"), strict=True)
        source_of |= {str(sample): str(source) for sample, source in pairs}
    for raw in raws:
        samples = [str(s) for s in read_array(raw, "sample")]
        if repeated := [s for s in samples if s in source_of]:
            raise SourceError(
                f"{raw_name(raw)}: {len(repeated)} samples are in {source_of[repeated[0]]} too, "
                f"for example {repeated[0]!r}. Remove one of the two sources."
            )
        source_of |= dict.fromkeys(samples, raw_name(raw))


def unnamed_notes(raws: Sequence[str], rule: GeneRule) -> list[str]:
    """Return how many features of the sources stand for no gene, where features are genes."""
    if rule.kind != "gene":
        return []
    annotation = read_annotation_table(rule.annotation) if rule.annotation else None
    found = []
    for raw in raws:
        names = features_of(raw, rule.kind, annotation)
        if n := names.count(""):
            found.append(f"{n} of {len(names)} in {raw_name(raw)}")
    if not found:
        return []
    more = f" and {len(found) - _MOST_TOLD} more sources" if len(found) > _MOST_TOLD else ""
    told = f"{', '.join(found[:_MOST_TOLD])}{more}"
    return [f"Features without a symbol, which stand for no gene: {told}."]


def date_notes(annotation: str | None) -> list[str]:
    """Return what a user should know of the annotation: its symbols that are dates."""
    if annotation is None:
        return []
    dates = read_annotation_table(annotation).dates
    if not dates:
        return []
    told = told_dates(sorted(set(dates.values())))
    probes = "1 probe has" if len(dates) == 1 else f"{len(dates)} probes have"
    what = f"{probes} a date for a symbol, as spreadsheets make them, which is taken for none"
    return [f"{Path(annotation).name}: {what}: {told}. Correct it, or give another table."]
