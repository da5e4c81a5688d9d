"""Ingest: each file as published becomes a raw store of its own scale and genes.

Writes ``raw/<source>.zarr``. A file for training whose values can be read by slices (GCTX, ARCHS4,
h5ad, Parquet, Feather) is not copied: its store holds the labels, and `dglzarr.stages.join` reads
the values.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import FROM_ZERO, Scale
from dglzarr.sources import Reading, read_source
from dglzarr.sources.base import SamplesIn
from dglzarr.sources.identifiers import is_told
from dglzarr.sources.scaled import Scaled, Stated, find_scale, refuse_other_scale
from dglzarr.storage.declare import shard_samples, text_array
from dglzarr.storage.files import check_file, place_of, readable, scratch_of
from dglzarr.storage.options import Options, Run, choice
from dglzarr.storage.schemas import RAW, RAW_LINK
from dglzarr.storage.stage import stage
from dglzarr.storage.store import (
    StoreSummary,
    create_store,
    finish,
    missing_regions,
    regions,
    write_region,
)
from dglzarr.storage.study import raw_name
from dglzarr.storage.tasks import run_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dglzarr.sources import Source
    from dglzarr.storage.claims import Claim
    from dglzarr.storage.declare import StoreSpec

Role = Literal["train", "cohort"]

_READING = tuple(one.name for one in fields(Reading) if one.name != "is_bare")


class SourceOptions(Options):
    """What a source file is for and what is known of it."""

    section = "sources"

    role: Role = choice("train", "train: joined into the study; cohort: kept for evaluation")
    unit: Stated | None = choice(
        None,
        "what the values are; without it their scale is detected. coverage, of recount3, becomes "
        "counts",
    )
    sample_sheet: str | None = choice(
        None, "table with one row a sample; its columns are added to the labels", is_path=True
    )
    join_column: str | None = choice(
        None, "column of the sheet with the sample ids; without it the first that covers them"
    )
    annotation: str | None = choice(
        None,
        "table that names the genes of this file alone; ingest.annotation counts before it",
        is_path=True,
    )
    value_columns: Annotated[tuple[str, ...], Field(strict=False)] | None = choice(
        None, "patterns of a table's columns that are samples; without them by their names"
    )
    samples_in: SamplesIn | None = choice(
        None,
        "where a matrix has its samples; without it as the names of columns tell, and refused "
        "where they are genes and rows are not",
    )
    pseudocount: float | None = choice(
        None, "c of values that are log2(x + c), which become log2(x + 1); with unit 'log2'", gt=0
    )

    only_series: Annotated[tuple[str, ...], Field(strict=False)] | None = choice(
        None, "accessions of the series to keep samples of"
    )
    only_matching: str | None = choice(
        None, "text, or regular expression, that a label of a sample to keep holds: 'liver'"
    )
    only_samples: str | None = choice(
        None, "file with one sample to keep a line; others are left out", is_path=True
    )
    max_single_cell: float | None = choice(
        None,
        "ARCHS4: highest probability of single cells of a sample to keep; without it 0.5",
        ge=0,
        le=1,
    )
    layer: str | None = choice(None, "h5ad: layer to read instead of X")

    @model_validator(mode="after")
    def _pseudocount_of_log2(self) -> Self:
        if self.pseudocount is not None and self.unit != "log2":
            raise ValueError("sources.pseudocount: expected unit = 'log2' beside it. State it.")
        return self

    def reading(self) -> Reading:
        """Return how the file is read."""
        named = {name: getattr(self, name) for name in _READING}
        return Reading(**{name: value for name, value in named.items() if value is not None})


@dataclass(frozen=True)
class SourceFile:
    """A file to ingest, where its raw store goes, and what is known of it."""

    path: str
    raw: str
    options: SourceOptions = field(default_factory=SourceOptions)

    @property
    def name(self) -> str:
        """The name of the raw store, which stands for the source."""
        return raw_name(self.raw)


def ingest_all(sources: Sequence[SourceFile], *, run: Run = Run()) -> StoreSummary:
    """Write the raw store of every source, one a task, and summarize their folder.

    Parameters
    ----------
    sources
        Files and their raw stores, which stand in one folder.
    run
        How it is run.

    Raises
    ------
    SourceError, StoreError
        As `ingest` does.
    """
    started = time.monotonic()
    found: list[StoreSummary] = run_tasks(
        _ingest_file,
        [(source,) for source in sources],
        what="reading sources",
        on_progress=run.on_progress,
        run=replace(run, on_progress=None),  # which need not be fit to be sent to a worker
    )
    states = {summary.state for summary in found}
    return StoreSummary(
        str(place_of(sources[0].raw).parent),
        RAW.name,
        "new" if "new" in states else "resumed" if "resumed" in states else "unchanged",
        {"source": len(found), "sample": sum(summary.sizes["sample"] for summary in found)},
        time.monotonic() - started,
        sum(summary.nbytes for summary in found),
        {"states": {raw_name(summary.uri): summary.state for summary in found}},
    )


def try_ingest(sources: Sequence[SourceFile], *, run: Run = Run()) -> dict[str, str]:
    """Write the raw store of every source that can be read; return why others cannot, by name.

    Raises
    ------
    StoreError
        As `ingest` does.
    """
    found: list[str] = run_tasks(
        _try_file,
        [(source,) for source in sources],
        what="reading new sources",
        on_progress=run.on_progress,
        run=replace(run, on_progress=None),
    )
    return {source.name: why for source, why in zip(sources, found, strict=True) if why}


def _try_file(source: SourceFile, *, run: Run) -> str:
    """Return why a source cannot be read, "" where it was."""
    try:
        _ingest_file(source, run=run)
    except SourceError as error:
        text = str(error)
        return text if text.startswith(source.name) else f"{source.name}: {text}"
    return ""


def ingest_claims(sources: Sequence[SourceFile]) -> list[Claim]:
    """Return what `ingest_all` would do with each source; nothing is changed.

    Raises
    ------
    SourceError, StoreError
        When a file that was read before is absent or cannot be read, or something that is not
        dglzarr's stands at a raw store's place.
    """
    return [ingest.claim(s.path, s.raw, options=s.options) for s in sources]


def _ingest_file(source: SourceFile, *, run: Run) -> StoreSummary:
    return ingest(source.path, source.raw, options=source.options, run=run)


@stage(RAW, RAW_LINK, reads=(), files={"source": SourceOptions.section})
def ingest(
    claim: Claim,
    source: str,
    target: str,
    *,
    options: SourceOptions = SourceOptions(),
    run: Run = Run(),  # noqa: ARG001  (one file is one task, without progress of its own)
) -> StoreSummary:
    """Write the raw store of one file, as published, and summarize it.

    Parameters
    ----------
    source, target
        The file, and the URI of its raw store.
    options, run
        What the file is, and how it is read.

    Raises
    ------
    SourceError
        When the file is not what it should be, or its values are centred.
    StoreError
        When the target cannot be written.
    """
    opened = _open_source(claim, source, options)
    if claim.state == "new":
        spec = _choose_spec(options, opened)
        length = shard_samples(len(opened.table.samples)) if spec is RAW else None
        create_store(claim, raw_labels(opened.table), spec=spec, region_length=length)
    else:
        spec = claim.spec
    details = {
        "scale": opened.scale,
        "unit": opened.unit,
        "quantiles": opened.quantiles,
        "n_negative": 0,
        "format": opened.table.format,
        "role": options.role,
        "path": source,
        "reading": asdict(options.reading()),
        "pseudocount": options.pseudocount,
        "left_out": [one.as_details() for one in opened.table.left_out],
        "notes": [*opened.table.notes, *opened.notes],
    }
    if spec is RAW:
        details |= _copy_values(opened.table, target, opened.scale, is_seen=options.unit is None)
    return finish(claim, details=details)


def _open_source(claim: Claim, source: str, options: SourceOptions) -> Scaled:
    """Return what a file holds, which is hashed for the lineage while it is read.

    So what is wrong with it is told when both have ended.
    """
    for file in (source, *options.files().values()):
        check_file(file)
    scratch = scratch_of(claim.uri)
    with readable(source), ThreadPoolExecutor(1) as thread:
        hashed = thread.submit(lambda: claim.lineage)
        table = read_source(
            source,
            sample_sheet=options.sample_sheet,
            sample_column=options.join_column,
            reading=options.reading(),
            annotation=options.annotation,
            scratch=str(scratch),
        )
        scaled = find_scale(table, options.unit, is_chosen=bool(options.value_columns))
        hashed.result()
    return scaled


def _choose_spec(options: SourceOptions, opened: Scaled) -> StoreSpec:
    """Return whether values are copied, or joined from the file that they stand in.

    Those that stand there are joined from it where no negative value needs to be counted.
    """
    is_plain = opened.scale == "log2" or opened.unit in FROM_ZERO
    is_linked = options.role == "train" and is_plain and opened.table.is_lazy
    return RAW_LINK if is_linked else RAW


def _copy_values(table: Source, raw: str, scale: Scale, *, is_seen: bool) -> dict[str, int]:
    """Write the regions of a source that are missing; return its missing and negative values.

    Where the scale was seen, no sample may be of another.
    """
    n_negative = n_missing = 0
    todo = missing_regions(raw)
    for region in regions(raw):
        block = table.values[region.rows]  # as it lies in memory: the shard's writer turns it
        if is_seen:
            refuse_other_scale(table.path.name, table.samples[region.rows], block, scale)
        n_missing += int(np.isnan(block).sum())
        n_negative += int((block < 0).sum()) if scale == "raw" else 0
        if region in todo:
            write_region(raw, region, {"expression": block})
    return {"n_missing": n_missing, "n_negative": n_negative}


def raw_labels(table: Source) -> dict[str, NDArray[Any]]:
    """Return the labels of a source as its raw store holds them."""
    names = sorted(table.labels)
    n = len(table.samples)
    series = table.sample_series or [""] * n
    cells = [[cell if is_told(cell) else "" for cell in table.labels[name]] for name in names]
    label_values = text_array(cells).reshape(len(names), n)
    return {
        "sample": text_array(table.samples),
        "gene": text_array(table.genes),
        "gene_symbol": text_array(table.gene_symbol or [""] * len(table.genes)),
        "series": text_array([own or table.series for own in series]),
        "platform": text_array(table.platform),
        "label": text_array(names),
        "sample_label": label_values.T.copy(),  # Zarr writes text in the order of memory
    }
