"""The unit of a source: as stated, as its values show, and refused where both disagree."""

import gzip

import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import looks_like_counts
from dglzarr.sources import read_source
from dglzarr.sources.scaled import find_scale
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.storage.store import open_store
from dglzarr.testing import write_gct

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(30, (6, 40)) * RNG.integers(0, 2, (6, 40)) * 9.0
COUNTS[0, 0] = 0
LOG2 = RNG.uniform(2, 14, (6, 40))


@pytest.fixture
def source(tmp_path):
    def write(values):
        samples, genes = (
            [f"{c}{i}" for i in range(n)] for c, n in zip("sg", values.shape, strict=True)
        )
        path = write_gct(
            tmp_path / "a.gct", values, samples=samples, genes=genes, descriptions=genes
        )
        return read_source(path)

    return write


@pytest.mark.parametrize(
    ("values", "stated", "scale", "unit"),
    [
        (COUNTS, None, "raw", "counts"),
        (COUNTS + 0.5, None, "raw", None),
        (LOG2, None, "log2", "log2"),
        (COUNTS, "counts", "raw", "counts"),
        (COUNTS * 0.31, "rpkm", "raw", "rpkm"),
        (LOG2, "tpm", "raw", "tpm"),
        (LOG2, "log2", "log2", "log2"),
        (LOG2 - 8, "log2", "log2", "log2"),
        (COUNTS - 3, "intensity", "raw", "intensity"),
    ],
    ids=[
        "counts seen",
        "raw",
        "log2 seen",
        "counts",
        "rpkm",
        "low tpm",
        "log2",
        "centred log2",
        "negative intensities",
    ],
)
def test_find_scale__stated_or_seen(source, values, stated, scale, unit):
    found = find_scale(source(values), stated)
    assert (found.scale, found.unit) == (scale, unit)


@pytest.mark.parametrize(
    ("values", "stated", "message"),
    [
        (COUNTS, "log2", r"a\.gct: unit: expected log2 values, got up to .* Correct the unit\."),
        (COUNTS - 3, "tpm", r"a\.gct: unit: expected tpm from 0, got down to -3\. Correct"),
    ],
)
def test_find_scale__refused(source, values, stated, message):
    with pytest.raises(SourceError, match=message):
        find_scale(source(values), stated)


def test_find_scale__samples_of_two_scales(source):
    """A rank or a length beside log2 would make all of them raw, and be normalized as such."""
    values = np.vstack([LOG2[:4], 2 ** LOG2[4:]])
    message = r"expected one scale, got 2 of 6 samples seen raw \('s4', 's5'\), and others log2\. "
    with pytest.raises(SourceError, match=message):
        find_scale(source(values), None)
    values = np.vstack([LOG2[0], 2 ** LOG2[1:]])
    with pytest.raises(SourceError, match=r"got 1 of 6 samples seen log2 \('s0'\), and others raw"):
        find_scale(source(values), None)
    assert find_scale(source(values), "intensity").scale == "raw"


def test_find_scale__a_sample_without_reads_is_of_no_scale(source):
    found = find_scale(source(np.vstack([COUNTS, np.zeros(40), RNG.integers(0, 3, 40)])), None)
    assert (found.scale, found.unit) == ("raw", "counts")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 3, np.nan], True),
        ([1, 3], False),
        ([0, 1.5], False),
        ([-1, 0], False),
        ([np.nan], False),
    ],
)
def test_looks_like_counts(values, expected):
    assert looks_like_counts(np.array(values, dtype=np.float64)) is expected


def write_recount3(folder, lengths):
    """Gene sums of four runs, and the table of their quality, as recount3 has them."""
    runs = [f"SRR{i}" for i in range(4)]
    sums = folder / "sra.gene_sums.SRP1.G026.gz"
    rows = ["##annotation=G026", "##date.generated=2019-01-01", "\t".join(["gene_id", *runs])]
    rows += [f"ENSG{g:011}.1\t" + "\t".join(map(str, row)) for g, row in enumerate(SUMS.T)]
    sums.write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    quality = folder / "sra.recount_qc.SRP1.MD.gz"
    rows = ["rail_id\texternal_id\tstudy\tstar.average_mapped_length"]
    rows += [f"{i}\t{run}\tSRP1\t{lengths[i]}" for i, run in enumerate(runs)]
    quality.write_bytes(gzip.compress("\n".join([*rows, ""]).encode()))
    return sums, quality


SUMS = RNG.integers(0, 90_000, (4, 60))


def test_find_scale__coverage_is_divided_as_recount3s_authors_do(tmp_path):
    lengths = ["99.7", "NA", "151", "201.25"]
    sums, quality = write_recount3(tmp_path, lengths)
    found = find_scale(read_source(sums, sample_sheet=quality), "coverage")
    assert (found.scale, found.unit) == ("raw", "counts")
    assert found.table.samples == ["SRR0", "SRR2", "SRR3"]
    assert [str(one) for one in found.table.left_out] == [
        "1 sample left out: no average mapped length ('SRR1')"
    ]
    kept = SUMS[[0, 2, 3]].astype(np.float32) / np.array([[99.7], [151], [201.25]])
    assert np.array_equal(found.table.read(0, 3), np.rint(kept))
    assert found.table.notes[-1].startswith("coverage was divided by star.average_mapped_length")


def test_ingest__coverage_is_stored_as_counts(tmp_path):
    sums, quality = write_recount3(tmp_path, ["100", "50", "75", "25"])
    options = SourceOptions(unit="coverage", sample_sheet=str(quality))
    ingest_all([SourceFile(str(sums), str(tmp_path / "raw" / "a.zarr"), options)])
    raw = open_store(str(tmp_path / "raw" / "a.zarr"))
    assert raw.attrs["details"]["unit"] == "counts"
    wanted = np.rint(SUMS.astype(np.float32) / np.array([[100], [50], [75], [25]]))
    assert np.array_equal(raw.expression, wanted)


def test_find_scale__coverage_without_lengths(tmp_path):
    sums, quality = write_recount3(tmp_path, ["NA"] * 4)
    with pytest.raises(SourceError, match=r"expected a label 'star.average_mapped_length' to div"):
        find_scale(read_source(sums), "coverage")
    with pytest.raises(SourceError, match=r"expected samples to keep, got none: 4 samples left"):
        find_scale(read_source(sums, sample_sheet=quality), "coverage")


@pytest.mark.parametrize("missing", [-9999, -666])
def test_find_scale__placeholders_are_no_log2(tmp_path, missing):
    path = tmp_path / "a.tsv"
    path.write_text(f"gene\tS1\tS2\nTP53\t8.1\t9.2\nMYC\t{missing}\t7\nEGFR\t6\t{missing}\n")
    with pytest.raises(SourceError, match=rf"got 2 of .* below -100, down to {missing}\. Make"):
        find_scale(read_source(path), "log2")


def test_find_scale__placeholders_among_raw_values(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("gene\tS1\tS2\nTP53\t810\t920\nMYC\t-9999\t70\nEGFR\t60\t-9999\n")
    notes = find_scale(read_source(path), "intensity").notes
    assert notes == ("2 of the values seen are -9999: make cells without a value empty",)
