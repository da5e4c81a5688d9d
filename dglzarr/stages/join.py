"""Join: training sources become one matrix, in log2, in one order of genes, with a split.

Writes ``expression.zarr`` from raw stores. A source of role ``cohort`` is not joined: it keeps its
own genes until it is evaluated.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from functools import lru_cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from dglzarr.errors import ConfigError, SourceError, hint
from dglzarr.kernels.centring import (
    GroupSums,
    grand_mean,
    group_offsets,
    merge_groups,
    sum_groups,
)
from dglzarr.kernels.detection import (
    DetectionCounts,
    count_detected,
    detection_rate,
    merge_detected,
)
from dglzarr.kernels.scale import Scale, per_million, to_log2
from dglzarr.kernels.split import SPLITS, SplitRule, split_units
from dglzarr.sources import Reading, read_source
from dglzarr.sources.chosen import keep_samples, series_of
from dglzarr.sources.dates import told_dates
from dglzarr.sources.identifiers import (
    Annotation,
    FeatureKind,
    GeneMatch,
    choose_genes,
    feature_symbols,
    has_name,
    match_genes,
    match_labels,
    name_genes,
    plain,
    read_annotation_table,
    read_gene_list,
    same_spelling,
)
from dglzarr.sources.persons import PERSONS, barcode_person, iter_persons
from dglzarr.storage.declare import chunk_samples, shard_samples
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import EXPRESSION, RAW_LINK
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    create_store,
    finish,
    map_regions,
    open_labels,
    read_attributes,
    reduce_regions,
    store_input,
    write_region,
)
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.sources import Source
    from dglzarr.storage.claims import Claim

logger = logging.getLogger(__name__)

_N_SHOWN = 5
_FEW = 3
_LARGEST_CENTRES = 1 << 25
_LARGEST_LOG2 = 150  # float32 holds 2 ** -149 to 2 ** 128
_MOST_GROUPS = 1000
_LEAST = {"counts": 10.0, "tpm": 1.0, "rpkm": 1.0, "fpkm": 1.0}
"""What is detected, by unit (Chen et al. 2016, doi 10.12688/f1000research.8987.2, of counts)."""
_LOW, _OFTEN = 0.1, 0.5
_GENE_COORDS = ("gene", "gene_symbol", "gene_id")


class JoinOptions(Options):
    """How sources become one expression matrix; feature_kind "gene" joins platforms by symbol."""

    section = "ingest"

    feature_kind: FeatureKind = choice(
        "probe", "what the study's genes are: features by label, or symbols, whose features average"
    )
    probes: str | None = choice(
        None,
        "file with one probe (or symbol) a line, the study's genes; without it those in common",
        is_path=True,
    )
    annotation: str | None = choice(
        None,
        "table probe -> gene symbol and ID, instead of the sources'; genes fall back on these",
        is_path=True,
    )
    split_by: str = choice(
        "series",
        "what stays whole on one side of the split: series, sample, or a label such as donor",
        paper="sample",
        min_length=1,
    )
    divide_persons: bool = choice(
        False,
        "take a split that has samples of one donor or patient, by a label, on several sides",
        is_recorded=False,
    )
    test_fraction: float = choice(0.2, "expected share of test labels", paper="0.1", gt=0, lt=1)
    validation_fraction: float = choice(
        0.1, "expected share of validation labels", paper="0", ge=0, lt=1
    )
    min_coverage: float = choice(
        0.9, "smallest share of the listed probes that a source must measure", gt=0, lt=1
    )
    counts: Literal["log-cpm"] | None = choice(
        None,
        "how read counts become log2: log-cpm is log2(counts of a million + 1), for samples that "
        "are not made alike by quantiles; without it log2(count + 1)",
    )
    center_by: str | None = choice(
        None,
        "label (series, platform, ...) whose groups are each brought to the mean of the training "
        "samples, gene by gene; without it batches stay as they are",
        min_length=1,
    )
    detection: str | None = choice(
        None,
        "label (tissue, series, ...) by which it is stored in how many training samples each gene "
        f"is detected: {_LEAST['counts']:g} counts, or {_LEAST['tpm']:g} of TPM, RPKM, FPKM or "
        "log-cpm; arrays do not tell",
        min_length=1,
    )
    shard_samples: int | None = choice(
        None, "samples a shard, rounded up to whole chunks; without it by their number", gt=0
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if self.test_fraction + self.validation_fraction >= 1:
            raise ValueError("ingest.test_fraction: with validation_fraction must be below 1")
        return self


@stage(EXPRESSION, reads=("source", "like"), records=("seed", "fold"))
def join(
    claim: Claim,
    source: Sequence[str],
    target: str,
    *,
    like: Sequence[str] = (),
    seed: int = 0,
    fold: tuple[int, int] | None = None,
    options: JoinOptions = JoinOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write raw stores as one matrix, and summarize it.

    Parameters
    ----------
    source
        URIs of the raw stores, whose samples follow one another.
    target
        URI of the expression store.
    like
        Expression stores of a study that these sources are added to: genes, their order and names
        are taken from it, its samples must not come again, and any split will do.
    seed
        Of the split.
    fold
        Which fold of how many of a cross-validation: its labels are the test split, whatever
        ``test_fraction`` says.
    options, run
        Its choices, and how it is run.

    Raises
    ------
    SourceError
        When sources share no probes, repeat a sample or hold what is no log2 value.
    ConfigError
        When the split leaves train or test empty, or divides the samples of a person.
    """
    if claim.state == "new":
        labels = _study_labels(source, like, options)
        labels["split"] = _split(labels, like, options, seed, fold)
        if options.detection is not None:
            labels["detection_group"] = _text(_detection_groups(labels, like, options.detection))
        length = _whole_chunks(options.shard_samples, labels["sample"].size)
        create_store(claim, labels, region_length=length)
    parts = _Parts(
        target,
        (read_attributes(target) or {})["store_id"],
        tuple((raw, store_input(raw)["store_id"]) for raw in source),
        options.feature_kind,
        options.annotation,
        options.counts,
    )
    centres, centred = None, dict[str, Any]()
    if options.center_by is not None:
        centres, centred = _find_centres(target, parts, like, options.center_by, run)
    map_regions(
        _join_region,
        target,
        parts=parts,
        centres=centres,
        what="joining sources",
        on_progress=run.on_progress,
    )
    gene_space = "study" if like else "list" if options.probes else "intersection"
    notes = [*_date_notes(options), *centred.pop("notes", [])]
    rates: dict[str, NDArray[Any]] = {}
    if options.detection is not None:
        rates = _detection(target, parts, like, options.detection, run)
        notes += _detection_notes(rates["detection_rate"], options.detection)
    details = {"gene_space": gene_space, **_join_details(parts), **centred, "notes": notes}
    return finish(claim, arrays=rates, details=details)


def refused_by(
    like: Sequence[str], raws: Sequence[str], options: JoinOptions = JoinOptions()
) -> dict[str, str]:
    """Return which raw stores cannot be added to a study, and why, by name.

    One that repeats samples of the study, or of a source before it, or that measures too few of
    the study's genes.

    Parameters
    ----------
    like, raws
        Expression stores of the study, and raw stores, as for `join`.
    options
        As for `join`.
    """
    refused: dict[str, str] = {}
    fitting: list[str] = []
    for raw in raws:
        try:
            _study_genes([raw], like, options)
            _refuse_repeated([*fitting, raw], like)
        except SourceError as error:
            refused[raw_name(raw)] = str(error)
        else:
            fitting.append(raw)
    return refused


def _date_notes(options: JoinOptions) -> list[str]:
    """Return what a user should know of the annotation: its symbols that are dates."""
    if options.annotation is None:
        return []
    dates = read_annotation_table(options.annotation).dates
    if not dates:
        return []
    told = told_dates(sorted(set(dates.values())))
    probes = "1 probe has" if len(dates) == 1 else f"{len(dates)} probes have"
    what = f"{probes} a date for a symbol, as spreadsheets make them, which is taken for none"
    return [f"{Path(options.annotation).name}: {what}: {told}. Correct it, or give another table."]


def _whole_chunks(wanted: int | None, n_samples: int) -> int:
    """Return the length of a shard: a chunk or less, or a multiple of a chunk."""
    if wanted is None:
        return shard_samples(n_samples)
    chunk = min(wanted, chunk_samples(n_samples))
    return -(-wanted // chunk) * chunk


# ---------------------------------------------------------------- split


def _split(
    labels: dict[str, NDArray[Any]],
    like: Sequence[str],
    options: JoinOptions,
    seed: int,
    fold: tuple[int, int] | None,
) -> NDArray[np.int8]:
    """Return the split of the samples; those bound to samples of a grown study are as these."""
    by = options.split_by
    own = _SplitLabels.of(labels)
    keys = own.keys(by)
    units = split_units(keys)
    persons = [name for name, _ in own.persons()]
    rule = SplitRule(
        by,
        options.test_fraction,
        options.validation_fraction,
        seed,
        fold,
        is_added=bool(like),
        instead=next((name for name in persons if name != by), "sample"),
    )
    split = rule.assign(units)
    for uri in like:
        ds = open_labels(uri, EXPRESSION)
        old = _SplitLabels.of({str(name): ds[name].values for name in ds.coords})
        own.follow(by, units, split, old, ds["split"].values)
    if not options.divide_persons:
        own.refuse_divided(by, split)
    return split


@dataclass
class _SplitLabels:
    """What samples can be split by."""

    sample: list[str]
    series: list[str]
    labels: dict[str, list[str]]
    sides: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, NDArray[Any]]) -> Self:
        """Return the labels of a store, or of what becomes one."""
        names, cells = found["label"].tolist(), found["sample_label"]
        return cls(
            found["sample"].tolist(),
            found["series"].tolist(),
            {str(name): cells[:, place].tolist() for place, name in enumerate(names)},
        )

    def keys(self, by: str) -> list[list[str]]:
        """Return what binds each sample; one without the label is bound to its series.

        Raises
        ------
        ConfigError
            When no sample has the label.
        """
        series = [series_of(name) or [""] for name in self.series]
        if by in ("series", "sample"):
            return series if by == "series" else [[sample] for sample in self.sample]
        cells = self.labels.get(by, [])
        if plain(by) in PERSONS:  # of a barcode the person, not the sample
            cells = [barcode_person(cell) or cell for cell in cells]
        if not any(map(has_name, cells)):
            known = ["series", "sample", *self.labels]
            raise ConfigError(
                f"ingest.split_by: expected a label of the samples, got {by!r}{hint(by, known)}. "
                f"They have {', '.join(map(repr, known))}."
            )
        n_without = sum(not has_name(cell) for cell in cells)
        if n_without:
            logger.warning("%d samples without %r are kept with their series", n_without, by)
        return [
            [cell] if has_name(cell) else [f"series {name}" for name in own]
            for cell, own in zip(cells, series, strict=True)
        ]

    def persons(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the labels that name persons, and whom each sample is of."""
        return iter_persons(self.labels, self.series)

    def follow(
        self,
        by: str,
        units: Sequence[str],
        split: NDArray[np.int8],
        old: _SplitLabels,
        old_split: NDArray[np.int8],
    ) -> None:
        """Give the samples bound to those of a study the side that these have, in place.

        Raises
        ------
        ConfigError
            When they are bound to samples on two sides.
        """
        for name, whom in old.persons():
            self.sides |= {(name, w): int(s) for w, s in zip(whom, old_split, strict=True) if w}
        if by not in ("series", "sample", *old.labels):
            return
        is_known = by in ("series", "sample") or any(map(has_name, old.labels[by]))
        pairs = zip(old.keys(by) if is_known else [], old_split.tolist(), strict=False)
        side = {key: place for own, place in pairs for key in own}
        found: dict[str, set[int]] = {}
        for unit, own in zip(units, self.keys(by), strict=True):
            found.setdefault(unit, set()).update(side[key] for key in own if key in side)
        for place, unit in enumerate(units):
            if len(found[unit]) > 1:
                raise ConfigError(
                    f"sample {self.sample[place]!r}: expected {by} of one side of the study's "
                    f"split, got several, bound by {unit!r}. Leave the sample out."
                )
            split[place] = next(iter(found[unit]), split[place])

    def refuse_divided(self, by: str, split: NDArray[np.int8]) -> None:
        """Refuse a split with samples of one person on several sides.

        Raises
        ------
        ConfigError
            Naming a person, and the label to split by.
        """
        for name, whom in self.persons():
            divided: list[str] = []
            for person, side in zip(whom, split.tolist(), strict=True):
                if person and self.sides.setdefault((name, person), side) != side:
                    divided.append(person)
            if divided:
                raise ConfigError(
                    f"ingest.split_by {by!r}: expected all samples of a person on one side of the "
                    f"split, got those of {divided[0]!r} and {len(set(divided)) - 1} more (label "
                    f"{name!r}) on several. Set ingest.split_by = {name!r}; or, where that label "
                    "names no persons, ingest.divide_persons = true."
                )


# ---------------------------------------------------------------- labels


def _study_labels(
    raws: Sequence[str], like: Sequence[str], options: JoinOptions
) -> dict[str, NDArray[Any]]:
    """Return every coordinate of the joined matrix but the split."""
    tables = [open_labels(raw) for raw in raws]
    genes, symbols, ids = _study_genes(raws, like, options)
    _refuse_repeated(raws, like)
    names, values = _sample_labels(tables)
    sources = _text([raw_name(raw) for raw in raws])
    return {
        "sample": _concatenated(tables, "sample"),
        "gene": _text(genes),
        "gene_id": _text(ids),
        "gene_symbol": _text(symbols),
        "source": np.repeat(sources, [t.sizes["sample"] for t in tables]),
        "series": _concatenated(tables, "series"),
        "platform": _concatenated(tables, "platform"),
        "label": _text(names),
        "sample_label": values,
    }


def _study_genes(
    raws: Sequence[str], like: Sequence[str], options: JoinOptions
) -> tuple[list[str], list[str], list[str]]:
    """Return the genes of the study, and the symbol and ID of each."""
    annotation = read_annotation_table(options.annotation) if options.annotation else None
    genes_of = [_features(raw, options.feature_kind, annotation) for raw in raws]
    listed = read_gene_list(options.probes) if options.probes is not None else None
    if like:
        study = open_labels(like[0], EXPRESSION)
        listed, symbols, ids = ([str(v) for v in study[n].values] for n in _GENE_COORDS)
    if options.feature_kind == "gene":
        _, *genes_of = same_spelling(listed or [], *genes_of)
        genes_of = [[name for name in names if name] for names in genes_of]
    genes = choose_genes([raw_name(raw) for raw in raws], genes_of, listed, options.min_coverage)
    if not like:
        own = ((read_array(raw, "gene"), read_array(raw, "gene_symbol")) for raw in raws)
        symbols, ids = name_genes(genes, options.feature_kind, annotation, own)
    return genes, symbols, ids


def _features(raw: str, kind: FeatureKind, annotation: Annotation | None) -> list[str]:
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


def _text(values: Sequence[str]) -> NDArray[Any]:
    return np.array(values, dtype=np.dtypes.StringDType())


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


# ---------------------------------------------------------------- centres


def _find_centres(
    target: str, parts: _Parts, like: Sequence[str], by: str, run: Run
) -> tuple[_Centres, dict[str, Any]]:
    """Return what centres the groups of a label, and what a user should know of it.

    The mean of a group is that of its training samples; a group without any, such as a series
    that is held out or added later, has its own. All are brought to the mean of the training
    samples of the study, of a grown one those of its first segment.

    Raises
    ------
    ConfigError
        When there is no such label, or it has too many groups.
    """
    keys = _grouping(target, by, "ingest.center_by")
    names, group = np.unique(np.array(keys, dtype=object), return_inverse=True)
    n_genes = read_array(target, "gene").size
    if names.size * n_genes > _LARGEST_CENTRES:
        raise ConfigError(
            f"ingest.center_by: expected at most {_LARGEST_CENTRES // n_genes} groups of "
            f"{n_genes} genes, got {names.size} of {by!r}. Choose a label of fewer."
        )
    is_train = read_array(target, "split") == 0
    has_train = np.unique(group[is_train])
    used = is_train | ~np.isin(group, has_train)
    sums = reduce(
        merge_groups,
        reduce_regions(
            _sum_region,
            target,
            parts=parts,
            group=group,
            used=used,
            what="finding centres",
            on_progress=run.on_progress,
        ),
    )
    grand = grand_mean(sums, has_train) if not like else _study_mean(like[0], run)
    sizes = np.bincount(group[used], minlength=names.size)
    details = {
        "n_centred": int(names.size),
        "n_centred_by_own": int(names.size - has_train.size),
        "notes": _centring_notes([str(name) for name in names[sizes < _FEW]], by),
    }
    return _Centres(group.astype(np.int64), group_offsets(sums, grand, names.size)), details


def _centring_notes(small: Sequence[str], by: str) -> list[str]:
    """Return a note on groups of so few samples that little is left of them."""
    if not small:
        return []
    shown = ", ".join(small[:_N_SHOWN]) + ", ..." * (len(small) > _N_SHOWN)
    told = (
        f"ingest.center_by {by!r}: {len(small)} of its groups have under {_FEW} samples ({shown}): "
        "little is left of these once they are centred"
    )
    return [told]


def _grouping(target: str, by: str, place: str) -> list[str]:
    """Return the group of each sample; one without the label is in that of its series."""
    keys = _label_values({name: read_array(target, name) for name in _GROUPED_BY}, by, place)
    series = [str(name) for name in read_array(target, "series")]
    pairs = zip(keys, series, strict=True)
    return [key if has_name(key) else f"series {own}" for key, own in pairs]


_GROUPED_BY = ("series", "platform", "source", "label", "sample_label")


def _label_values(labels: Mapping[str, NDArray[Any]], by: str, place: str) -> list[str]:
    """Return the value of a label of each sample.

    Raises
    ------
    ConfigError
        When no sample has it.
    """
    names = [str(name) for name in labels["label"]]
    if by in ("series", "platform", "source"):
        cells = [str(name) for name in labels[by]]
    else:
        column = labels["sample_label"][:, names.index(by)] if by in names else ()
        cells = [str(cell) for cell in column]
    if not any(map(has_name, cells)):
        known = ["series", "platform", "source", *names]
        raise ConfigError(
            f"{place}: expected a label of the samples, got {by!r}{hint(by, known)}. They have "
            f"{', '.join(map(repr, known))}."
        )
    return cells


def _sum_region(
    uri: str, region: Region, *, parts: _Parts, group: NDArray[np.int64], used: NDArray[np.bool_]
) -> GroupSums:
    del uri
    rows = used[region.rows]
    return sum_groups(_joined(region, parts)[rows], group[region.rows][rows])


def _study_mean(expression: str, run: Run) -> NDArray[np.float64]:
    """Return the mean of the training samples of a study that was joined before."""
    partials = reduce_regions(
        _sum_training, expression, what="reading the mean", on_progress=run.on_progress
    )
    return grand_mean(reduce(merge_groups, partials), [0])


def _sum_training(uri: str, region: Region) -> GroupSums:
    split, rows = read_array(uri, "split"), Rows(uri)
    found = [
        sum_groups(rows[window], np.minimum(split[window], 1).astype(np.int64))
        for window in region.windows()
    ]
    return reduce(merge_groups, found)


# ---------------------------------------------------------------- detection


def _detection_groups(
    labels: Mapping[str, NDArray[Any]], like: Sequence[str], by: str
) -> list[str]:
    """Return the groups that detection is told of: all, then the label's values; as a study has."""
    if like:
        return [str(name) for name in read_array(like[0], "detection_group")]
    values = sorted(set(filter(has_name, _label_values(labels, by, "ingest.detection"))))
    if len(values) > _MOST_GROUPS:
        raise ConfigError(
            f"ingest.detection: expected a label of at most {_MOST_GROUPS} values, got "
            f"{len(values)} of {by!r}. Choose another."
        )
    return ["all", *values]


def _detection(
    target: str, parts: _Parts, like: Sequence[str], by: str, run: Run
) -> dict[str, NDArray[Any]]:
    """Return the detection rates of the training samples; of a grown study its first segment's."""
    if like:
        return {name: read_array(like[0], name) for name in ("detection_rate", "n_detection")}
    groups = {str(name): n for n, name in enumerate(read_array(target, "detection_group"))}
    labels = {name: read_array(target, name) for name in _GROUPED_BY}
    cells = _label_values(labels, by, "ingest.detection")
    group = np.array([groups[c] if has_name(c) else 0 for c in cells], np.int64)
    least = np.concatenate([_least(raw, parts) for raw, _ in parts.raws])
    least[read_array(target, "split") != 0] = np.nan
    partials = reduce_regions(
        _count_region,
        target,
        parts=parts,
        group=group,
        least=least,
        n_groups=len(groups),
        what="counting what is detected",
        on_progress=run.on_progress,
    )
    told = ~np.isnan(least)
    n_told = np.bincount(group[told], minlength=len(groups))
    n_told[0] = told.sum()
    return {
        "detection_rate": detection_rate(reduce(merge_detected, partials)),
        "n_detection": n_told.astype(np.int32),
    }


def _least(raw: str, parts: _Parts) -> NDArray[np.float32]:
    """Return the least log2 value of a detected gene, for each sample of a source; NaN for none."""
    table = open_labels(raw)
    unit = str(table.attrs["details"].get("unit"))
    least = _LEAST["tpm"] if parts.counts and unit == "counts" else _LEAST.get(unit, np.nan)
    return np.full(table.sizes["sample"], np.log2(least + 1), np.float32)


def _count_region(
    uri: str,
    region: Region,
    *,
    parts: _Parts,
    group: NDArray[np.int64],
    least: NDArray[np.float32],
    n_groups: int,
) -> DetectionCounts:
    del uri
    rows = region.rows
    return count_detected(_joined(region, parts), least[rows], group[rows], n_groups)


def _detection_notes(rate: NDArray[np.float32], by: str) -> list[str]:
    """Return how many genes are hardly ever detected, in words."""
    if np.isnan(rate).all():
        return [f"ingest.detection {by!r}: no source is of a unit that tells what is detected"]
    best = np.where(np.isnan(rate), -1, rate).max(axis=0)
    n_low, n_often = int(((best >= 0) & (best < _LOW)).sum()), int((best >= _OFTEN).sum())
    told = (
        f"ingest.detection {by!r}: {n_low} of {best.size} genes are detected in under {_LOW:.0%} "
        f"of the training samples of every group, {n_often} in at least {_OFTEN:.0%} of one"
    )
    return [told]


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class _Parts:
    """What is joined into what; the store ids make the caches see a replaced store."""

    target: str
    target_id: str
    raws: tuple[tuple[str, str], ...]
    feature_kind: FeatureKind
    annotation: str | None
    counts: str | None


@dataclass(frozen=True)
class _Centres:
    """The group of each sample, and what brings each group to one mean ``(group, gene)``."""

    group: NDArray[np.int64]
    offset: NDArray[np.float32]


def _joined(region: Region, parts: _Parts) -> NDArray[np.float32]:
    """Return the rows of a region, of each source that it meets, in log2."""
    start = 0
    pieces = []
    for raw, raw_id in parts.raws:
        match, n_samples, _ = _matched(raw, raw_id, parts)
        lo, hi = max(region.start - start, 0), min(region.stop - start, n_samples)
        if lo < hi:
            pieces.append(match.apply(_log2_rows(raw, raw_id, lo, hi, parts.counts)))
        start += n_samples
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _join_region(
    uri: str, region: Region, *, parts: _Parts, centres: _Centres | None = None
) -> None:
    """Write one region of the join."""
    expression = _joined(region, parts)
    if centres is not None:
        expression = expression + centres.offset[centres.group[region.rows]]
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
def _matched(
    raw: str,
    raw_id: str,  # noqa: ARG001  (part of the cache key)
    parts: _Parts,
) -> tuple[GeneMatch, int, Scale]:
    """Return which features of a raw store measure which study genes, its length and scale."""
    table = open_labels(raw)
    genes = [str(gene) for gene in read_array(parts.target, "gene")]
    features = _features(raw, parts.feature_kind, _annotation(parts))
    if parts.feature_kind == "gene":
        match = match_genes(features, None, genes)
    else:
        match = match_labels(features, genes)
    return match, table.sizes["sample"], table.attrs["details"]["scale"]


@lru_cache(maxsize=1)
def _annotation(parts: _Parts) -> Annotation | None:
    is_needed = parts.feature_kind == "gene" and parts.annotation is not None
    return read_annotation_table(str(parts.annotation)) if is_needed else None


def _join_details(parts: _Parts) -> dict[str, Any]:
    split = read_array(parts.target, "split")
    genes = read_array(parts.target, "gene")
    is_measured = np.zeros(genes.size, np.bool_)
    per_source = []
    for raw, raw_id in parts.raws:
        match, n_samples, scale = _matched(raw, raw_id, parts)
        table = open_labels(raw)
        is_measured |= match.found
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
    absent = [str(gene) for gene in genes[~is_measured]]
    if absent:
        shown = ", ".join(map(repr, absent[:_N_SHOWN]))
        logger.warning(
            "%s: no source measures %d of %d genes (%s%s)",
            parts.target,
            len(absent),
            genes.size,
            shown,
            ", ..." * (len(absent) > _N_SHOWN),
        )
    return {
        "per_source": per_source,
        "n_unmeasured": len(absent),
        "unmeasured": absent[:_N_SHOWN],
        "n_missing": int(read_array(parts.target, "n_missing").sum()),
        "split_counts": {name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
    }
