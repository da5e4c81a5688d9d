"""Ingest: files as published become raw stores; training sources are joined into one matrix.

Writes ``raw/<source>.zarr`` (one a file, its own scale and genes) and ``expression.zarr`` (log2,
one canonical gene order, split assigned). A source of role ``cohort`` stays raw: it keeps its own
genes until it is evaluated.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
import pandas as pd

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import Scale, Unit, to_log2
from dglzarr.kernels.split import SPLITS, SplitBy, SplitRule
from dglzarr.sources import read_source
from dglzarr.sources.identifiers import (
    Annotation,
    GeneMatch,
    check_coverage,
    feature_symbols,
    match_genes,
    read_annotation_table,
    read_gene_list,
    refuse_outlier,
    same_spelling,
)
from dglzarr.sources.scaled import Scaled, find_scale
from dglzarr.storage.declare import chunk_samples, shard_samples
from dglzarr.storage.files import file_input, has_other_files, open_filesystem
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import EXPRESSION, RAW, RAW_LINK, SPECS
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    claim_store,
    create_store,
    finish,
    map_regions,
    missing_regions,
    open_labels,
    read_attributes,
    regions,
    store_input,
    summarize,
    write_region,
)
from dglzarr.storage.study import raw_name
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.sources import Source
    from dglzarr.storage.tasks import Progress

FeatureKind = Literal["probe", "gene"]

_LARGEST_LOG2 = 150  # float32 holds 2 ** -149 to 2 ** 128
_GENE_COORDS = ("gene", "gene_symbol", "gene_id")
SERIES_LABELS = ("series_id", "series", "gse")  # name the study of each sample, where given


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest, and where its raw store goes."""

    path: str
    raw: str
    role: Literal["train", "cohort"] = "train"
    unit: Unit | None = None
    sample_sheet: str | None = None
    sample_column: str | None = None

    @property
    def name(self) -> str:
        """The name of the raw store, which stands for the source."""
        return raw_name(self.raw)


def ingest(
    sources: Sequence[SourceFile],
    target: str,
    *,
    feature_kind: FeatureKind = "probe",
    probes: str | None = None,
    annotation: str | None = None,
    split_by: SplitBy = "series",
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    min_coverage: float = 0.9,
    shard_length: int | None = None,
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    like: Sequence[str] = (),
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the raw store of every source, join those of role train, and summarize the join.

    Parameters
    ----------
    sources
        Files and their raw stores.
    target
        URI of the expression store.
    feature_kind
        What the study's genes are. ``"probe"``: the features of the sources, by label.
        ``"gene"``: gene symbols, so that platforms with other features, microarrays and RNA-seq,
        are joined; the log2 values of several features of one gene are averaged.
    probes
        File with one probe (or symbol) a line: the genes of the study, in that order. Without it
        those common to all training sources, sorted.
    annotation
        Table probe -> gene symbol (and gene ID). Symbols that it does not tell are the sources'.
    split_by
        ``"series"`` keeps a study on one side; ``"sample"`` is the papers' way.
    test_fraction, validation_fraction
        Expected share of labels.
    min_coverage
        Smallest share of the listed probes a training source must measure.
    shard_length
        Samples a shard, rounded up to whole chunks; chosen by the number of samples without it.
    seed
        Of the split.
    fold
        Which fold of how many of a cross-validation: its labels are the test split, whatever
        ``test_fraction`` says.
    like
        Expression stores of a study that these sources are added to: genes, their order and names
        are taken from it, its samples must not come again, and any split will do.
    overwrite
        Replace stores made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    SourceError
        When a file is not what it should be, or sources share no probes or repeat a sample.
    ConfigError
        When the split leaves train or test empty.
    """
    tasks = [(source, overwrite) for source in sources]
    run_tasks(ingest_source, tasks, what="reading sources", on_progress=on_progress)
    raws = [s.raw for s in sources if s.role == "train"]
    inputs = [store_input(raw) for raw in raws]
    files = [file_input(f) for f in (probes, annotation) if f is not None]
    started = time.monotonic()
    claim = claim_store(
        target,
        EXPRESSION,
        inputs=[*inputs, *files, *(store_input(uri) for uri in like)],
        parameters={
            "feature_kind": feature_kind,
            "gene_space": "study" if like else "list" if probes else "intersection",
            "split_by": split_by,
            "test_fraction": test_fraction,
            "validation_fraction": validation_fraction,
            "min_coverage": min_coverage,
            "shard_length": shard_length,
            "seed": seed,
            "fold": fold,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    if claim.state == "new":
        labels = _study_labels(raws, like, probes, annotation, min_coverage, feature_kind)
        key = labels["series"] if split_by == "series" else labels["sample"]
        rule = SplitRule(
            split_by, test_fraction, validation_fraction, seed, fold, is_added=bool(like)
        )
        labels["split"] = rule.assign(key.tolist())
        length = _whole_chunks(shard_length, labels["sample"].size)
        create_store(claim, labels, region_length=length)
    join = _Join(
        target,
        (read_attributes(target) or {})["store_id"],
        tuple((raw["uri"], raw["store_id"]) for raw in inputs),
        feature_kind,
        annotation,
    )
    map_regions(_join_region, target, join=join, what="joining sources", on_progress=on_progress)
    return finish(target, started=started, details=_join_details(join), state=claim.state)


# ---------------------------------------------------------------- one source


def ingest_source(source: SourceFile, overwrite: bool) -> StoreSummary:
    """Write the raw store of one file, as published, and summarize it.

    Raises
    ------
    SourceError
        When the file is not what it should be, or its values are centred.
    """
    started = time.monotonic()
    found = read_attributes(source.raw)
    is_new = found is None and not has_other_files(*open_filesystem(source.raw))
    known = found or {}
    inputs, scaled = _hash_source(source, known, is_new=is_new)
    parameters = {
        "sample_column": source.sample_column,
        "role": source.role,
        "unit": source.unit,
    }
    if (known.get("inputs"), known.get("parameters")) == (inputs, parameters):
        # the store is of this very file, which need not be opened to tell
        spec = SPECS[known["dglzarr_schema"]]
    elif source.role == "train" and h5py.is_hdf5(source.path):
        # a GCTX in log2 is joined from its own file
        scaled = scaled or _open_source(source)
        spec = RAW_LINK if scaled.scale == "log2" else RAW
    else:
        spec = RAW
    claim = claim_store(
        source.raw,
        spec,
        inputs=inputs,
        parameters=parameters,
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(source.raw, claim.state)
    table, quantiles, scale, unit = scaled or _open_source(source)
    if claim.state == "new":
        length = shard_samples(len(table.samples)) if spec is RAW else None
        create_store(claim, _raw_labels(table), region_length=length)
    details = {
        "scale": scale,
        "unit": unit,
        "quantiles": quantiles,
        "n_negative": 0,
        "format": table.format,
        "role": source.role,
        "path": source.path,
    }
    if spec is RAW:
        details |= _copy_values(table, source.raw, scale)
    return finish(source.raw, started=started, details=details, state=claim.state)


def _hash_source(
    source: SourceFile, known: Mapping[str, Any], *, is_new: bool
) -> tuple[list[dict[str, str]], Scaled | None]:
    """Return the lineage entries of a source's files and, of a new one, what it holds.

    It is read while it is hashed, so that what is wrong with it is told when both have ended.
    """
    files = [source.path, *([source.sample_sheet] if source.sample_sheet else [])]
    try:
        for file in files:
            if not Path(file).is_file():
                raise SourceError(f"{file}: no such file.")
        with ThreadPoolExecutor(1) as thread:
            inputs = thread.submit(lambda: [file_input(file, known=known) for file in files])
            scaled = _open_source(source) if is_new else None
            return inputs.result(), scaled
    except OSError as error:
        raise SourceError(
            f"{error.filename or source.path}: cannot be read: {error.strerror or error}."
        ) from error


def _open_source(source: SourceFile) -> Scaled:
    scratch = Path(source.raw.removeprefix("file://")).parent
    scratch.mkdir(parents=True, exist_ok=True)
    table = read_source(
        source.path,
        sample_sheet=source.sample_sheet,
        sample_column=source.sample_column,
        scratch=str(scratch),
    )
    return find_scale(table, source.unit)


def _copy_values(table: Source, raw: str, scale: Scale) -> dict[str, int]:
    """Write the regions of a source that are missing; return its missing and negative values."""
    n_negative = n_missing = 0
    todo = missing_regions(raw)
    for region in regions(raw):
        block = table.values[region.rows]  # as it lies in memory: the shard's writer turns it
        n_missing += int(np.isnan(block).sum())
        n_negative += int((block < 0).sum()) if scale == "raw" else 0
        if region in todo:
            write_region(raw, region, {"expression": block})
    return {"n_missing": n_missing, "n_negative": n_negative}


def _raw_labels(table: Source) -> dict[str, NDArray[Any]]:
    names = sorted(table.labels)
    n = len(table.samples)
    series = next((table.labels[name] for name in SERIES_LABELS if name in table.labels), [""] * n)
    label_values = _text([table.labels[name] for name in names]).reshape(len(names), n)
    return {
        "sample": _text(table.samples),
        "gene": _text(table.genes),
        "gene_symbol": _text(table.gene_symbol or [""] * len(table.genes)),
        "series": _text([own or table.series for own in series]),
        "platform": _text(table.platform),
        "label": _text(names),
        "sample_label": label_values.T.copy(),  # Zarr writes text in the order of memory
    }


def _text(values: Sequence[Any]) -> NDArray[Any]:
    return np.array(values, dtype=np.dtypes.StringDType())


# ---------------------------------------------------------------- the join


@dataclass(frozen=True)
class _Join:
    """What is joined into what; the store ids make the caches see a replaced store."""

    target: str
    target_id: str
    parts: tuple[tuple[str, str], ...]
    feature_kind: FeatureKind
    annotation: str | None


def _whole_chunks(shard_length: int | None, n_samples: int) -> int:
    """Return the length of a shard: a chunk or less, or a multiple of a chunk."""
    if shard_length is None:
        return shard_samples(n_samples)
    chunk = min(shard_length, chunk_samples(n_samples))
    return -(-shard_length // chunk) * chunk


def _study_labels(
    raws: Sequence[str],
    like: Sequence[str],
    probes: str | None,
    annotation: str | None,
    min_coverage: float,
    feature_kind: FeatureKind,
) -> dict[str, NDArray[Any]]:
    """Return every coordinate of the joined matrix but the split."""
    tables = [open_labels(raw) for raw in raws]
    genes_of = [_features(raw, feature_kind, annotation) for raw in raws]
    listed = read_gene_list(probes) if probes is not None else None
    if like:
        study = open_labels(like[0], EXPRESSION)
        listed, symbols, ids = ([str(v) for v in study[n].values] for n in _GENE_COORDS)
    if feature_kind == "gene":
        _, *genes_of = same_spelling(listed or [], *genes_of)
        genes_of = [[name for name in names if name] for names in genes_of]
    sources = [raw_name(raw) for raw in raws]
    genes = _canonical_genes(sources, genes_of, listed, min_coverage)
    if not like:
        symbols, ids = _gene_names(genes, tables, annotation, feature_kind)
    samples = np.concatenate([t["sample"].values for t in tables])
    _refuse_repeated(raws, like)
    names = sorted({str(n) for t in tables for n in t["label"].values})
    values = np.full((samples.size, len(names)), "", dtype=np.dtypes.StringDType())
    start = 0
    for table in tables:
        stop = start + table.sizes["sample"]
        at = [names.index(str(n)) for n in table["label"].values]
        values[start:stop, at] = table["sample_label"].values
        start = stop
    return {
        "sample": samples,
        "gene": _text(genes),
        "gene_id": _text(ids),
        "gene_symbol": _text(symbols),
        "source": np.repeat(_text(sources), [t.sizes["sample"] for t in tables]),
        "series": np.concatenate([t["series"].values for t in tables]),
        "platform": np.concatenate([t["platform"].values for t in tables]),
        "label": _text(names),
        "sample_label": values,
    }


def _features(raw: str, feature_kind: FeatureKind, annotation: str | None) -> list[str]:
    """Return what each feature of a source is called in the study, "" where it has no gene."""
    labels = [str(g) for g in read_array(raw, "gene")]
    if feature_kind == "probe":
        return labels
    own = [str(s) for s in read_array(raw, "gene_symbol")]
    return feature_symbols(labels, own, read_annotation_table(annotation) if annotation else None)


def _canonical_genes(
    names: Sequence[str],
    genes_of: Sequence[Sequence[str]],
    listed: list[str] | None,
    min_coverage: float,
) -> list[str]:
    """Return the genes of the study: the listed ones, else those common to all sources, sorted."""
    if listed is not None:
        check_coverage(names, genes_of, listed, min_coverage)
        return listed
    if len(names) > 1:
        refuse_outlier(names, genes_of)
    return sorted(set(genes_of[0]).intersection(*genes_of[1:]))


def _gene_names(
    genes: list[str], tables: Sequence[Any], annotation: str | None, feature_kind: FeatureKind
) -> tuple[list[str], list[str]]:
    """Return symbol and ID of each gene: from the annotation, else from the sources."""
    if feature_kind == "gene":
        found = read_annotation_table(annotation) if annotation else Annotation({}, {})
        id_of = {s.upper(): found.gene_id.get(p, "") for p, s in found.symbol.items()}
        return genes, [id_of.get(gene.upper(), "") for gene in genes]
    if annotation is not None:
        found = read_annotation_table(annotation)
        return [found.symbol.get(g, "") for g in genes], [found.gene_id.get(g, "") for g in genes]
    symbols: dict[str, str] = {}
    for table in tables:
        pairs = zip(table["gene"].values, table["gene_symbol"].values, strict=True)
        symbols |= {str(g): str(s) for g, s in pairs if s}
    return [symbols.get(g, "") for g in genes], [""] * len(genes)


def _refuse_repeated(raws: Sequence[str], like: Sequence[str]) -> None:
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


def _join_region(uri: str, region: Region, *, join: _Join) -> None:
    """Write one region of the join: the rows of each source it meets, in log2."""
    start = 0
    pieces = []
    for raw, raw_id in join.parts:
        match, n_samples, scale = _matched(raw, raw_id, join)
        lo, hi = max(region.start - start, 0), min(region.stop - start, n_samples)
        if lo < hi:
            block, _ = to_log2(_read_rows(raw, raw_id, lo, hi), scale)
            pieces.append(match.apply(block))
        start += n_samples
    expression = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    _refuse_impossible(uri, region, expression)
    n_missing = np.isnan(expression).sum(axis=1)
    if (empty := np.flatnonzero(n_missing == expression.shape[1])).size:
        name = read_array(uri, "sample")[region.start + empty[0]]
        raise SourceError(
            f"sample {str(name)!r}: expected values, got none for any gene of the study. "
            "Take it out of its file."
        )
    write_region(uri, region, {"expression": expression, "n_missing": n_missing})


def _refuse_impossible(uri: str, region: Region, expression: NDArray[np.float32]) -> None:
    """Refuse values that are no logarithm of any measurement."""
    if (expression > _LARGEST_LOG2).any() or (expression < -_LARGEST_LOG2).any():
        sample, gene = np.argwhere(np.abs(expression) > _LARGEST_LOG2)[0]
        names = read_array(uri, "sample")[region.start + sample], read_array(uri, "gene")[gene]
        raise SourceError(
            f"sample {str(names[0])!r}, gene {str(names[1])!r}: expected a log2 value, got "
            f"{expression[sample, gene]:.3g}. Take it out of its file."
        )


def _read_rows(raw: str, raw_id: str, start: int, stop: int) -> NDArray[np.float32]:
    """Return rows of a raw store, or of the file that it links to."""
    linked = _opened_link(raw, raw_id)
    block: NDArray[np.float32] = linked.read(start, stop) if linked else Rows(raw)[start:stop]
    return block


@lru_cache(maxsize=8)
def _opened_link(raw: str, raw_id: str) -> Source | None:  # noqa: ARG001  (part of the cache key)
    attributes = read_attributes(raw) or {}
    if attributes["dglzarr_schema"] != RAW_LINK.name:
        return None
    return read_source(attributes["details"]["path"])


@lru_cache(maxsize=1024)
def _matched(
    raw: str,
    raw_id: str,  # noqa: ARG001  (part of the cache key)
    join: _Join,
) -> tuple[GeneMatch, int, Scale]:
    """Return which features of a raw store measure which study genes, its length and scale."""
    table = open_labels(raw)
    genes = read_array(join.target, "gene")
    if join.feature_kind == "gene":
        features = _features(raw, join.feature_kind, join.annotation)
        match = match_genes(features, None, [str(gene) for gene in genes])
    else:
        index = table.indexes["gene"].get_indexer(pd.Index(genes)).astype(np.int64)
        match = GeneMatch(np.flatnonzero(index >= 0), index[index >= 0], len(genes))
    return match, table.sizes["sample"], table.attrs["details"]["scale"]


def _join_details(join: _Join) -> dict[str, Any]:
    split = read_array(join.target, "split")
    per_source = []
    for raw, raw_id in join.parts:
        match, n_samples, scale = _matched(raw, raw_id, join)
        table = open_labels(raw)
        per_source.append(
            {
                "source": raw_name(raw),
                "series": str(table["series"].values[0]),
                "n_samples": n_samples,
                "scale": scale,
                "coverage": float(match.found.mean()),
                "n_missing_genes": int((~match.found).sum()),
                "n_negative": table.attrs["details"]["n_negative"],
            }
        )
    return {
        "per_source": per_source,
        "n_missing": int(read_array(join.target, "n_missing").sum()),
        "split_counts": {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
    }
