"""Every door through which a file of a user comes in: how its files are drawn, read and compared.

A door reads a file whole and returns `clean`, or what came of the comparison with another parser.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.settings import load_settings
from dglzarr.sources import Reading, read_source
from dglzarr.sources.aliases import read_names
from dglzarr.sources.hdf5 import Guarded, told
from dglzarr.sources.identifiers import (
    read_annotation_table,
    read_columns,
    read_gene_list,
    read_gene_values,
    read_panel,
)
from dglzarr.sources.part import Part
from dglzarr.sources.peek import peek_cost, peek_size
from dglzarr.sources.scaled import find_scale
from dglzarr.sources.table import read_sample_sheet
from dglzarr.sources.terms import read_gmt, read_ontology
from dglzarr.studies.plan import Plan
from tests import fuzz_arrow as arrow
from tests import fuzz_binary as binary
from tests import fuzz_bundles as bundles
from tests import fuzz_files as files
from tests import fuzz_hdf5 as hdf5
from tests import fuzz_parsers as parsers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES = [f"GSM{i}" for i in range(1, 5)]


class Format(NamedTuple):
    """How files of a format are drawn and read, and how often."""

    draw: Callable[[Random], bytes]
    read: Callable[[Path], str]
    weight: int = 2
    is_text: bool = True


class Peak:
    """The most bytes that this process holds, but for what the parsers that we compare with take.

    Begun anew for each file: a peak that is never lower would hide what is below it.
    """

    def __init__(self) -> None:
        self.most = self.first = 0

    def begin(self) -> None:
        """Count from what is held now."""
        self.most = 0
        self._reset()
        self.first = self._now()

    def taken(self) -> int:
        """Return how many bytes more have been held since."""
        return max(self.most, self._now()) - self.first

    @contextlib.contextmanager
    def of_others(self) -> Iterator[None]:
        """Do not count what is held within."""
        self.most = max(self.most, self._now())
        try:
            yield
        finally:
            self._reset()

    def _reset(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")

    def _now(self) -> int:
        (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(line) * 1024


PEAK = Peak()


def _compared(compare: Callable[..., None], *arguments: Any) -> str:
    try:
        with PEAK.of_others():
            compare(*arguments)
    except (parsers.NotComparableError, RuntimeError, MemoryError):
        return "not comparable"  # h5py has a RuntimeError of parts that are not read
    return "equal"


def _drawn(path: Path) -> Random:
    """Return what draws how a file is read: the same for the same bytes."""
    return Random(zlib.crc32(path.read_bytes()))


# ---------------------------------------------------------------- expression


def _expression(path: Path, reading: Reading = Reading()) -> str:
    """Read an expression file whole, with its scale and what the forecast tells of it."""
    source = read_source(path, reading=reading)
    n = len(source.samples)
    whole = source.read(0, n)
    assert np.array_equal(source.read(n // 2, n), whole[n // 2 :], equal_nan=True), "a part"
    peek_size(path, reading)
    peek_cost(path, reading, 2)
    find_scale(source, None)
    return _compared(binary.compare_source, path, source, reading)


def _table_with_a_unit(path: Path) -> str:
    """Read a table of which the unit is stated, as refine.bio's, Xena's and GTEx's are."""
    source = read_source(path)
    find_scale(source, _drawn(path).choice(["log2", "counts", "tpm", "fpkm", "intensity"]))
    source.read(0, len(source.samples))
    return _compared(binary.compare_source, path, source)


def _coverage(path: Path) -> str:
    """Read a table of coverage, with a sheet of lengths as recount3 has it."""
    sheet = path.with_name("sheet.tsv")
    rows = [f"GSM{i}\t{50.5 + i}" for i in range(1, files.WIDE + 1)]
    sheet.write_text("\n".join(["external_id\trecount_qc.star.average_mapped_length", *rows]))
    source = read_source(path, sample_sheet=sheet)
    counts = find_scale(source, "coverage").table
    source.read(0, len(source.samples))
    return _compared(parsers.compare_coverage, path, source, counts)


def _in_rows(path: Path) -> str:
    return _expression(path, Reading(samples_in="rows"))


def _arrow(path: Path) -> str:
    options: list[Any] = [{}, {}, {}, {"samples_in": "rows"}, {"samples_in": "columns"}]
    return _expression(path, Reading(**_drawn(path).choice([*options, {"value_columns": ("G*",)}])))


def _archs4(path: Path) -> str:
    options: list[Any] = [{}, {}, {"max_single_cell": 0.95}, {"only_series": ("GSE1",)}]
    return _expression(
        path, Reading(**_drawn(path).choice([*options, {"only_matching": "Tissue: a"}]))
    )


def _h5ad(path: Path) -> str:
    return _expression(path, Reading(**_drawn(path).choice([{}, {}, {}, {"layer": "counts"}])))


class _Bytes:
    """A file, read by ranges."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()

    def read(self, offset: int, length: int, /) -> bytes:
        return self._content[offset : offset + length]


def _by_ranges(path: Path) -> str:
    """Make a smaller file of some samples as `fetch` does of a remote one, and read that."""
    reading = Reading(only_series=("GSE1",))
    packed, made = path.with_name("packed"), path.with_name("made.h5")
    with (
        told(path, "a complete HDF5 file"),
        path.open("rb", buffering=0) as raw,
        (guarded := Guarded(raw)).opened() as file,
    ):
        part = Part(path.name, guarded, file, reading)
        part.pack(_Bytes(path), packed)
    part.write(packed, made)
    source = read_source(made)
    try:
        source.read(0, len(source.samples))
        return _compared(binary.compare_source, path, source, reading)
    except OSError:  # of chunks of samples that are not wanted
        return "not comparable"


# ---------------------------------------------------------------- files beside


def _sheet(path: Path) -> str:
    return _compared(parsers.compare_sheet, path, SAMPLES, read_sample_sheet(path, SAMPLES))


def _annotation(path: Path) -> str:
    return _compared(parsers.compare_annotation, path, read_annotation_table(path))


def _gene_list(path: Path) -> str:
    return _compared(parsers.compare_list, path, read_gene_list(path))


def _gene_values(path: Path) -> str:
    return _compared(parsers.compare_values, path, read_gene_values(path))


def _names(path: Path) -> str:
    return _compared(parsers.compare_names, path, read_names(path))


def _gene_sets(path: Path) -> str:
    return _compared(parsers.compare_sets, path, read_gmt(path))


def _panel(path: Path) -> str:
    ids = [f"{i + 1000}_at" for i in range(3)]
    read_columns(path)
    read_panel(path, genes=ids, symbols=["TP53", "MYC", ""], gene_ids=["1", "4609", ""])
    return "clean"


def _ontology(path: Path) -> str:
    other = path.with_name("whole.gaf")
    other.write_bytes(files.associations(Random(3)))
    read_ontology(path, other)
    return "clean"


def _associations(path: Path) -> str:
    other = path.with_name("whole.obo")
    other.write_bytes(files.ontology(Random(3)))
    read_ontology(other, path)
    return "clean"


def _settings(path: Path) -> str:
    Plan.of(load_settings(path))
    return "clean"


FORMATS = {
    "series matrix": Format(files.series_matrix, _expression, 3),
    "SOFT family": Format(files.soft_family, _expression, 3),
    "GDS": Format(files.data_set, _expression),
    "GCT 1.2": Format(files.gct_1_2, _expression),
    "GCT 1.3": Format(files.gct_1_3, _expression),
    "GCTX": Format(hdf5.gctx, _expression, 3, is_text=False),
    "ARCHS4": Format(hdf5.archs4, _archs4, 3, is_text=False),
    "ARCHS4 by ranges": Format(hdf5.archs4, _by_ranges, is_text=False),
    "h5ad": Format(hdf5.h5ad, _h5ad, 3, is_text=False),
    "Parquet": Format(arrow.parquet, _arrow, 3, is_text=False),
    "Feather": Format(arrow.feather, _arrow, 3, is_text=False),
    "table": Format(files.table, _expression, 3),
    "table, samples in rows": Format(files.turned_table, _in_rows),
    "table, unit stated": Format(files.compendium, _table_with_a_unit),
    "recount3 coverage": Format(files.compendium, _coverage),
    "sample sheet": Format(files.sample_sheet, _sheet),
    "annotation": Format(files.annotation, _annotation),
    "probe list": Format(files.gene_list, _gene_list, 1),
    "values of genes": Format(files.gene_values, _gene_values, 1),
    "names of genes": Format(files.gene_names, _names, 1),
    "panel": Format(files.panel, _panel, 1),
    "GMT": Format(files.gene_sets, _gene_sets, 1),
    "OBO": Format(files.ontology, _ontology, 1),
    "GAF": Format(files.associations, _associations, 1),
    "settings": Format(files.settings, _settings),
    "bundle": Format(bundles.bundle, bundles.read_bundle, 1, is_text=False),
    "measured panel": Format(bundles.measured, bundles.read_measured),
}
