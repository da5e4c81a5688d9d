"""GEO files: series matrices and SOFT (family, single sample, data set).

Streams the text; a family's samples are joined on ID_REF in the order of the first sample.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SourceError
from dglzarr.sources.base import LeftOut, Source, matrix_source, series_name
from dglzarr.sources.matrix import Layout, check_samples, read_matrix, require_rows
from dglzarr.sources.text import TextStream, header_cells, unquote

logger = logging.getLogger(__name__)

RNA_SEQ_REMEDY = (
    "An RNA-seq series keeps its values elsewhere: give the table of NCBI-computed counts "
    "(*_raw_counts_GRCh38.p13_NCBI.tsv.gz, from the series' GEO page) instead."
)
_BEGIN = "!series_matrix_table_begin"
_END = "!series_matrix_table_end"
_ACCESSION = "!Sample_geo_accession"
_ENTITY = (b"!", b"^")
_SAMPLE = re.compile(r"GSM\d+")
_MOST = 0.9


def read_series_matrix(stream: TextStream, *, scratch: Path | None = None) -> Source:
    """Return a GEO series matrix; sample characteristics become labels.

    Raises
    ------
    SourceError
        If the table, its end marker or a cell is missing or wrong; names file and line.
    """
    fields = _series_fields(stream)
    line = stream.line
    columns = header_cells(stream.readline() or "", "\t")
    if not columns or columns[0] != "ID_REF":
        raise stream.error(f"expected the header 'ID_REF', got {columns[:1]}.", line=line)
    samples = columns[1:]
    check_samples(stream, samples, line=line)
    fields = fields.in_order(stream, samples)
    layout = Layout(columns, "\t", (0,), range(1, len(columns)))
    matrix = read_matrix(stream, layout, stop=(b"!",), scratch=scratch)
    _expect_end(stream, (_END,))
    require_rows(stream, matrix, RNA_SEQ_REMEDY)
    stream.drain()
    return matrix_source(
        stream.path,
        "series-matrix",
        samples,
        matrix.text[0],
        matrix.values,
        series=series_name(stream.path, fields.first("!Series_geo_accession")),
        platform=_platforms(stream, fields, samples),
        labels=_series_labels(stream, fields, samples),
        left_out=matrix.left_out,
    )


def read_series_labels(stream: TextStream) -> tuple[list[str], list[str], dict[str, list[str]]]:
    """Return samples, their platforms and their labels from the head of a series matrix.

    Its table may be empty, as that of RNA-seq is.

    Raises
    ------
    SourceError
        If the head is not whole, or names no samples.
    """
    fields = _series_fields(stream)
    samples = next((cells for _, cells in fields.records.get(_ACCESSION, [])), [])
    if not samples:
        raise stream.error(f"expected samples in {_ACCESSION!r}, got none.")
    return samples, _platforms(stream, fields, samples), _series_labels(stream, fields, samples)


@dataclass(frozen=True)
class _Fields:
    """Metadata records of a series matrix: (first line, cells) by name."""

    records: dict[str, list[tuple[int, list[str]]]] = field(default_factory=dict)

    def first(self, name: str) -> str:
        """Return the first cell of the first record, "" where there is none."""
        return next((cells[0] for _, cells in self.records.get(name, []) if cells), "")

    def rows(self, stream: TextStream, name: str, samples: Sequence[str]) -> Iterator[list[str]]:
        """Yield the records of a name, checked to have one cell a sample."""
        for line, cells in self.records.get(name, []):
            if len(cells) != len(samples):
                raise stream.error(
                    f"expected {len(samples)} cells of {name}, got {len(cells)}.", line=line
                )
            yield cells

    def in_order(self, stream: TextStream, samples: Sequence[str]) -> "_Fields":
        """Return the records with the cells of samples in the order of a table's columns.

        Raises
        ------
        SourceError
            If the table and the record of accessions name other samples.
        """
        for line, named in self.records.get(_ACCESSION, [])[:1]:
            if named == samples or len(named) != len(samples):
                break  # another number is refused with the record that has it
            if {*named} != {*samples}:
                other = next(name for name in samples if name not in named)
                raise stream.error(
                    f"expected the samples of the table, got {_ACCESSION} without {other!r}. "
                    "Download it again.",
                    line=line,
                )
            places = [named.index(name) for name in samples]
            return _Fields(
                {
                    name: [
                        (at, [cells[p] for p in places] if len(cells) == len(places) else cells)
                        for at, cells in rows
                    ]
                    if name.startswith("!Sample_")
                    else rows
                    for name, rows in self.records.items()
                }
            )
        return self


def _series_fields(stream: TextStream) -> _Fields:
    """Return the records before the table; a line without "!" continues the one before."""
    fields = _Fields()
    while True:
        first_line, record = stream.line, stream.readline()
        if record is None:
            raise stream.error(f"expected {_BEGIN!r}, got the end of the file. Download it again.")
        if record.strip().lower() == _BEGIN:
            return fields
        while (more := stream.peek()) is not None and not more.startswith("!"):
            record += "\n" + more
            stream.readline()
        name, _, rest = record.partition("\t")
        cells = [unquote(cell) for cell in rest.split("\t")]
        fields.records.setdefault(name, []).append((first_line, cells))


def _platforms(stream: TextStream, fields: _Fields, samples: Sequence[str]) -> list[str]:
    """Return the platform of each sample."""
    for cells in fields.rows(stream, "!Sample_platform_id", samples):
        return cells
    return [fields.first("!Series_platform_id")] * len(samples)


def _series_labels(
    stream: TextStream, fields: _Fields, samples: Sequence[str]
) -> dict[str, list[str]]:
    """Return titles, source names and characteristics by label."""
    labels = _Labels(len(samples))
    for label, name in (("title", "!Sample_title"), ("source_name", "!Sample_source_name_ch1")):
        for cells in fields.rows(stream, name, samples):
            for sample, cell in enumerate(cells):
                labels.add(sample, label, cell)
    for cells in fields.rows(stream, "!Sample_characteristics_ch1", samples):
        for sample, cell in enumerate(cells):
            labels.add_characteristic(sample, cell)
    return labels.values


@dataclass(frozen=True)
class _Labels:
    """Labels filled cell by cell; several values of one label are joined."""

    n_samples: int
    values: dict[str, list[str]] = field(default_factory=dict)

    def add(self, sample: int, label: str, value: str) -> None:
        """Set a label of a sample, or add to it."""
        column = self.values.setdefault(label, [""] * self.n_samples)
        column[sample] = f"{column[sample]}; {value}" if column[sample] else value

    def add_characteristic(self, sample: int, cell: str) -> None:
        """Set the label that a "key: value" cell names."""
        key, colon, value = cell.partition(":")
        if colon:
            self.add(sample, key.strip(), value.strip())
        elif cell:
            self.add(sample, "characteristics", cell)


def _expect_end(stream: TextStream, markers: tuple[str, ...]) -> None:
    """Read the end marker of a table."""
    line = stream.line
    text = stream.readline()
    if text is None or text.strip().lower() not in markers:
        got = "the end of the file" if text is None else repr(text[:40])
        raise stream.error(
            f"expected {markers[0]!r} after the table, got {got}. Download it again.", line=line
        )


@dataclass
class _Sample:
    """A ^SAMPLE entity while it is read."""

    name: str
    line: int
    platform: str = ""
    fields: list[tuple[str, str]] = field(default_factory=list)
    row: NDArray[np.float32] | None = None
    complaint: SourceError | None = None


@dataclass
class _Family:
    """What a SOFT file has said so far; `gene_at` maps ids to places in the joined table."""

    declared: str = ""
    platform: str = ""
    samples: list[_Sample] = field(default_factory=list)
    genes: list[str] = field(default_factory=list)
    gene_at: dict[str, int] = field(default_factory=dict)
    subsets: list[dict[str, str]] = field(default_factory=list)
    counters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RowValues:
    """Samples kept as rows; a row shorter than the genes is NaN after its end."""

    rows: list[NDArray[np.float32]]
    n_genes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of samples and of genes."""
        return len(self.rows), self.n_genes

    def __getitem__(self, samples: slice, /) -> NDArray[np.float32]:
        """Return the values `(sample, gene)` of a slice of samples."""
        rows = self.rows[samples]
        block = np.full((len(rows), self.n_genes), np.nan, np.float32)
        for target, row in zip(block, rows, strict=True):
            target[: row.size] = row
        return block


def read_soft(stream: TextStream, *, scratch: Path | None = None) -> Source:
    """Return a SOFT file: a family, a single sample or a data set (GDS).

    A sample without values, or of another platform than nine tenths of a family, is left out.

    Raises
    ------
    SourceError
        If no sample has values, a table is wrong, or samples are of several platforms.
    """
    family = _Family()
    while (text := stream.readline()) is not None:
        marker = text.strip().lower()
        if marker == "!dataset_table_begin":
            return _read_dataset(stream, family, scratch)
        if marker == "!sample_table_begin":
            _read_sample(stream, family)
        elif marker.endswith("_table_begin"):
            for _ in stream.blocks(_ENTITY):
                pass
        else:
            _read_field(stream, family, text)
    return _join_samples(stream, family)


def _read_field(stream: TextStream, family: _Family, text: str) -> None:
    """Take in one `^ENTITY = name` or `!key = value` line."""
    key, _, value = (part.strip() for part in text.partition("="))
    if key == "^SAMPLE":
        family.samples.append(_Sample(value, stream.line - 1))
    elif key == "^SUBSET":
        family.subsets.append({})
    elif key.startswith("!subset_") and family.subsets:
        family.subsets[-1][key] = value
    elif key in ("!Series_geo_accession", "!dataset_reference_series"):
        family.declared = value
    elif key == "!dataset_platform":
        family.platform = value
    elif key.startswith("!Sample_") and family.samples:
        _read_sample_field(family, key.removeprefix("!Sample_"), value)


def _read_sample_field(family: _Family, key: str, value: str) -> None:
    """Take in one field of the sample being read."""
    sample = family.samples[-1]
    if key == "geo_accession":
        sample.name = value
    elif key == "platform_id":
        sample.platform = value
    elif key == "series_id":
        family.declared = family.declared or value
    elif key in ("title", "source_name_ch1", "characteristics_ch1"):
        sample.fields.append((key, value))


def _read_sample(stream: TextStream, family: _Family) -> None:
    """Parse a sample's table and place its values in the order of the genes so far."""
    if not family.samples:
        raise stream.error("expected '^SAMPLE' before a sample table, got none.")
    sample = family.samples[-1]
    if sample.row is not None or sample.complaint:
        raise stream.error(
            f"expected '^SAMPLE' before another sample's table, got a second of {sample.name!r}."
        )
    line = stream.line
    columns = header_cells(stream.readline() or "", "\t")
    if columns[:1] != ["ID_REF"] or "VALUE" not in columns:
        sample.complaint = stream.error(
            f"expected columns 'ID_REF' and 'VALUE' of sample {sample.name!r}, got "
            f"{', '.join(map(repr, columns[:5]))}.",
            line=line,
        )
        for _ in stream.blocks(_ENTITY):
            pass
        _expect_end(stream, ("!sample_table_end",))
        return
    place = columns.index("VALUE")
    layout = Layout(columns, "\t", (0,), range(place, place + 1))
    matrix = read_matrix(stream, layout, stop=_ENTITY)
    try:
        require_rows(stream, matrix, f"Sample {sample.name!r} has none.")
    except SourceError as error:
        sample.complaint = error
    _expect_end(stream, ("!sample_table_end",))
    family.counters |= {name: one.reason for one in matrix.left_out for name in one.names}
    if sample.complaint:
        return
    ids, row = matrix.text[0], matrix.values[0]
    if ids != family.genes[: len(ids)]:
        new = [name for name in ids if name not in family.gene_at]
        family.gene_at.update(
            zip(new, range(len(family.genes), len(family.genes) + len(new)), strict=True)
        )
        family.genes.extend(new)
        joined = np.full(len(family.genes), np.nan, np.float32)
        joined[[family.gene_at[name] for name in ids]] = row
        row = joined
    sample.row = np.ascontiguousarray(row)


def _join_samples(stream: TextStream, family: _Family) -> Source:
    """Return the samples that have a table, joined on ID_REF."""
    samples = [sample for sample in family.samples if sample.row is not None]
    complaints = [sample.complaint for sample in family.samples if sample.complaint]
    if not samples and complaints:
        raise complaints[0]
    if not family.samples:
        raise stream.error(
            "expected samples, got none: the file tells of a series or platform alone. Give the "
            "whole family file, or the series matrix."
        )
    if not samples:
        raise stream.error(
            f"expected at least one sample table, got none in {len(family.samples)} samples. "
            f"{RNA_SEQ_REMEDY}"
        )
    without = [("no table of values", s.name) for s in family.samples if s.row is None]
    common, n_common = Counter(sample.platform for sample in samples).most_common(1)[0]
    if n_common < _MOST * len(samples):
        platforms = sorted({" ".join(sample.platform.split()) for sample in samples})
        raise stream.error(
            f"expected samples of one platform, got {', '.join(platforms[:5])}. "
            "Give the series matrix of each platform instead."
        )
    other = [
        (f"of another platform than {common}", s.name) for s in samples if s.platform != common
    ]
    samples = [sample for sample in samples if sample.platform == common]
    counters = LeftOut.group("rows", ((why, name) for name, why in family.counters.items()))
    left_out = (*LeftOut.group("samples", [*without, *other]), *counters)
    for one in left_out:
        logger.warning("%s: %s", stream.name, one)
    check_samples(stream, [sample.name for sample in samples], line=samples[-1].line)
    rows = [sample.row for sample in samples if sample.row is not None]
    genes = family.genes
    if other:  # whose genes go with them
        values = RowValues(rows, len(genes))[:]
        kept = np.flatnonzero(~np.isnan(values).all(axis=0))
        genes, rows = [genes[place] for place in kept], list(values[:, kept])
    return matrix_source(
        stream.path,
        "soft",
        [sample.name for sample in samples],
        genes,
        RowValues(rows, len(genes)),
        series=series_name(stream.path, family.declared),
        platform=[sample.platform for sample in samples],
        labels=_soft_labels(samples),
        left_out=left_out,
    )


def _soft_labels(samples: Sequence[_Sample]) -> dict[str, list[str]]:
    """Return titles, source names and characteristics by label."""
    labels = _Labels(len(samples))
    for place, sample in enumerate(samples):
        for key, value in sample.fields:
            if key == "characteristics_ch1":
                labels.add_characteristic(place, value)
            else:
                labels.add(place, key.removesuffix("_ch1"), value)
    return labels.values


def _read_dataset(stream: TextStream, family: _Family, scratch: Path | None) -> Source:
    """Return the table of a GEO data set; its subsets become labels.

    A full data set has columns of annotation behind those of the samples.
    """
    line = stream.line
    columns = header_cells(stream.readline() or "", "\t")
    if columns[:2] != ["ID_REF", "IDENTIFIER"]:
        raise stream.error(
            f"expected the header 'ID_REF', 'IDENTIFIER', got {columns[:2]}.", line=line
        )
    places = [place for place, name in enumerate(columns) if _SAMPLE.fullmatch(name)]
    places = places or list(range(2, len(columns)))
    samples = [columns[place] for place in places]
    check_samples(stream, samples, line=line)
    matrix = read_matrix(
        stream, Layout(columns, "\t", (0, 1), places), stop=_ENTITY, scratch=scratch
    )
    require_rows(stream, matrix)
    _expect_end(stream, ("!dataset_table_end",))
    stream.drain()
    labels = _Labels(len(samples))
    for subset in family.subsets:
        members = subset.get("!subset_sample_id", "").split(",")
        for place in (samples.index(name) for name in members if name in samples):
            kind = subset.get("!subset_type", "subset")
            labels.add(place, kind, subset.get("!subset_description", ""))
    others = [("annotation", name) for name in columns[2:] if name not in samples]
    return matrix_source(
        stream.path,
        "soft",
        samples,
        matrix.text[0],
        matrix.values,
        symbols=matrix.text[1],
        series=series_name(stream.path, family.declared),
        platform=[family.platform] * len(samples),
        labels=labels.values,
        left_out=(*LeftOut.group("columns", others), *matrix.left_out),
    )
