"""Join: training sources become one matrix, in log2, in one order of genes, with a split.

Writes ``expression.zarr`` from raw stores. A source of role ``cohort`` is not joined: it keeps its
own genes until it is evaluated.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import model_validator

from dglzarr.errors import SourceError
from dglzarr.kernels.split import SPLITS, SplitRule, split_units
from dglzarr.sources.centres import Centres, find_centres
from dglzarr.sources.detected import LEAST_DETECTED, detect, detection_groups, detection_notes
from dglzarr.sources.identifiers import FeatureKind
from dglzarr.sources.joined import Parts, joined_rows, matched
from dglzarr.sources.sides import SplitLabels
from dglzarr.sources.study_genes import (
    GeneRule,
    date_notes,
    refuse_repeated,
    study_genes,
    study_labels,
    unnamed_notes,
)
from dglzarr.storage.declare import chunk_samples, shard_samples, text_array
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EXPRESSION
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    Region,
    StoreSummary,
    create_store,
    finish,
    map_regions,
    open_labels,
    read_attributes,
    store_input,
    write_region,
)
from dglzarr.storage.study import raw_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.storage.claims import Claim


logger = logging.getLogger(__name__)

_N_SHOWN = 5
_LARGEST_LOG2 = 150  # float32 holds 2 ** -149 to 2 ** 128


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
        f"is detected: {LEAST_DETECTED['counts']:g} counts, or {LEAST_DETECTED['tpm']:g} of TPM, "
        "RPKM, FPKM or log-cpm; arrays do not tell",
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
        labels = study_labels(source, like, _gene_rule(options))
        labels["split"] = _split(labels, like, options, seed, fold)
        if options.detection is not None:
            labels["detection_group"] = text_array(
                detection_groups(labels, like, options.detection)
            )
        length = _whole_chunks(options.shard_samples, labels["sample"].size)
        create_store(claim, labels, region_length=length)
    parts = Parts(
        target,
        (read_attributes(target) or {})["store_id"],
        tuple((raw, store_input(raw)["store_id"]) for raw in source),
        options.feature_kind,
        options.annotation,
        options.counts,
    )
    centres, centred = None, dict[str, Any]()
    if options.center_by is not None:
        centres, centred = find_centres(target, parts, like, options.center_by, run)
    map_regions(
        _join_region,
        target,
        parts=parts,
        centres=centres,
        what="joining sources",
        on_progress=run.on_progress,
    )
    gene_space = "study" if like else "list" if options.probes else "intersection"
    notes = [*date_notes(options.annotation), *unnamed_notes(source, _gene_rule(options))]
    notes += centred.pop("notes", [])
    rates: dict[str, NDArray[Any]] = {}
    if options.detection is not None:
        rates = detect(target, parts, like, options.detection, run)
        notes += detection_notes(rates["detection_rate"], options.detection)
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
            study_genes([raw], like, _gene_rule(options))
            refuse_repeated([*fitting, raw], like)
        except SourceError as error:
            refused[raw_name(raw)] = str(error)
        else:
            fitting.append(raw)
    return refused


def _gene_rule(options: JoinOptions) -> GeneRule:
    return GeneRule(options.feature_kind, options.probes, options.annotation, options.min_coverage)


def _whole_chunks(wanted: int | None, n_samples: int) -> int:
    """Return the length of a shard: a chunk or less, or a multiple of a chunk."""
    if wanted is None:
        return shard_samples(n_samples)
    chunk = min(wanted, chunk_samples(n_samples))
    return -(-wanted // chunk) * chunk


def _split(
    labels: dict[str, NDArray[Any]],
    like: Sequence[str],
    options: JoinOptions,
    seed: int,
    fold: tuple[int, int] | None,
) -> NDArray[np.int8]:
    """Return the split of the samples; those bound to samples of a grown study are as these."""
    by = options.split_by
    own = SplitLabels.of(labels)
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
        old = SplitLabels.of({str(name): ds[name].values for name in ds.coords})
        own.follow(by, units, split, old, ds["split"].values)
    if not options.divide_persons:
        own.refuse_divided(by, split)
    return split


def _join_region(uri: str, region: Region, *, parts: Parts, centres: Centres | None = None) -> None:
    """Write one region of the join."""
    expression = joined_rows(region, parts)
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


def _join_details(parts: Parts) -> dict[str, Any]:
    split = read_array(parts.target, "split")
    genes = read_array(parts.target, "gene")
    is_measured = np.zeros(genes.size, np.bool_)
    per_source = []
    for raw, raw_id in parts.raws:
        match, n_samples, scale = matched(raw, raw_id, parts)
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
