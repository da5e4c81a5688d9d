"""Parquet and Feather: what they hold, read by slices, and what is wrong with them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dglzarr.errors import ConfigError, SourceError
from dglzarr.sources import Reading, arrow, read_source
from dglzarr.sources.peek import peek_size
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import open_store
from dglzarr.testing import write_table

SAMPLES = [f"S{i}" for i in range(30)]
GENES = [f"ENSG{i:011}.{i % 7}" for i in range(50)]
SYMBOLS = [f"GENE{i}" for i in range(50)]
PAIRS = [f"{symbol} ({i})" for i, symbol in enumerate(SYMBOLS)]


@pytest.fixture
def values(rng):
    found = np.round(rng.uniform(0, 900, (30, 50)), 2).astype(np.float32)
    found[3, 7] = np.nan
    return found


def write(path, frame, **options):
    if path.suffix == ".parquet":
        frame.to_parquet(path, **options)
    else:
        frame.to_feather(path, **options)
    return path


def upright(values):
    """As GTEx: Name, Description, a column a sample."""
    frame = pd.DataFrame(values.T, columns=SAMPLES)
    frame.insert(0, "Name", GENES)
    frame.insert(1, "Description", SYMBOLS)
    return frame


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_read_arrow__genes_in_rows(tmp_path, values, suffix):
    path = write(tmp_path / f"gtex.{suffix}", upright(values))
    source = read_source(path)
    assert (source.format, source.samples, source.genes) == (suffix, SAMPLES, GENES)
    assert source.gene_symbol == SYMBOLS
    assert source.is_lazy
    assert source.values.shape == values.shape
    assert np.array_equal(source.read(0, 30), values, equal_nan=True)
    assert np.array_equal(source.read(2, 5), values[2:5], equal_nan=True)
    assert peek_size(path) == (30, 50)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("parquet", {"row_group_size": 7}), ("feather", {"chunksize": 7}), ("parquet", {})],
)
def test_read_arrow__samples_in_rows(tmp_path, values, suffix, options):
    """As pandas writes a table with samples as its index: the index stands behind the genes."""
    frame = pd.DataFrame(values, columns=PAIRS, index=pd.Index(SAMPLES, name="id"))
    frame["tissue"] = ["liver", "lung"] * 15
    frame = frame if suffix == "parquet" else frame.reset_index()
    path = write(tmp_path / f"depmap.{suffix}", frame, **options)
    source = read_source(path)
    assert (source.samples, source.genes, source.gene_symbol) == (SAMPLES, PAIRS, SYMBOLS)
    assert source.labels == {"tissue": ["liver", "lung"] * 15}
    assert np.array_equal(source.read(0, 30), values, equal_nan=True)
    assert np.array_equal(source.read(5, 16), values[5:16], equal_nan=True)
    assert peek_size(path) == (30, 50)


@pytest.mark.parametrize("suffix", ["parquet", "feather", "csv"])
def test_read_arrow__numbers_that_are_no_genes_are_labels(tmp_path, values, suffix):
    frame = pd.DataFrame(values, columns=PAIRS)
    frame.insert(0, "ModelID", SAMPLES)
    frame.insert(1, "age", range(30))
    path = tmp_path / f"a.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        write(path, frame)
    source = read_source(path)
    assert (source.samples, source.genes) == (SAMPLES, PAIRS)
    assert source.labels == {"age": [str(n) for n in range(30)]}
    assert np.array_equal(source.read(0, 30), values, equal_nan=True)
    some = read_source(path, reading=Reading(samples_in="rows", value_columns=(PAIRS[3],)))
    assert some.genes == [PAIRS[3]]
    assert np.array_equal(some.read(0, 30), values[:, [3]], equal_nan=True)


def test_read_arrow__other_columns_are_told(tmp_path, values):
    frame = upright(values)
    frame["Length"] = 100
    frame["seen"] = pd.Timestamp("2020-01-01")
    frame["remark"] = "x"
    frame.loc[0, "Name"] = "N_unmapped"
    frame.loc[1, "Name"] = "library_size"
    source = read_source(write(tmp_path / "a.parquet", frame))
    assert source.genes == GENES[2:]
    assert np.array_equal(source.read(0, 30), values[:, 2:], equal_nan=True)
    told = {one.reason: one.names for one in source.left_out}
    assert told == {
        "neither numbers nor text": ("seen",),
        "text": ("remark",),
        "lengths of genes": ("Length",),
        "counters of reads": ("N_unmapped",),
        "facts about samples": ("library_size",),
    }


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_read_arrow__samples_in_rows_as_stated(tmp_path, values, suffix):
    frame = pd.DataFrame(values, columns=SYMBOLS)
    frame.insert(0, "id", SAMPLES)
    path = write(tmp_path / f"a.{suffix}", frame)
    source = read_source(path, reading=Reading(samples_in="rows"))
    assert (source.samples, source.genes) == (SAMPLES, SYMBOLS)
    assert peek_size(path, Reading(samples_in="rows")) == (30, 50)
    frame = pd.DataFrame(values.T, columns=PAIRS[:30])
    frame.insert(0, "id", GENES)
    turned = write(tmp_path / f"b.{suffix}", frame)
    assert read_source(turned, reading=Reading(samples_in="columns")).samples == PAIRS[:30]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns=["Name", "Description"]), "expected a column of ids beside"),
        (lambda f: f[["Name", "Description"]], "at least one sample column, got none: it has no"),
        (lambda f: f.assign(Name="same"), "expected each gene once, got 'same' again"),
        (lambda f: f.assign(Name=[*GENES[1:], None]), "expected a gene id, got ''"),
        (
            lambda f: f.rename(columns=dict(zip(SAMPLES, GENES, strict=False))),
            "samples_in = 'rows'",
        ),
    ],
    ids=["no ids", "no samples", "repeated", "empty", "turned Ensembl"],
)
def test_read_arrow__refuses(tmp_path, values, change, message):
    path = write(tmp_path / "a.parquet", change(upright(values)))
    with pytest.raises(SourceError, match=rf"a\.parquet: .*{message}"):
        read_source(path)


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_read_arrow__damaged_and_infinite(tmp_path, values, suffix):
    values[4, 9] = np.inf
    path = write(tmp_path / f"a.{suffix}", upright(values))
    with pytest.raises(SourceError, match=rf"a\.{suffix}: .*infinite one in row 9 of column 'S4'"):
        read_source(path).read(0, 30)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        SourceError, match=rf"a\.{suffix}: expected a complete .* Download it again"
    ):
        read_source(path)


@pytest.mark.parametrize("told", ['{"index', "3", "{}", '{"index_columns": 3}'])
def test_read_arrow__an_index_told_otherwise_than_by_pandas(tmp_path, values, told):
    table = pa.Table.from_pandas(upright(values)).replace_schema_metadata({"pandas": told})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_source(tmp_path / "a.parquet").genes == GENES


@pytest.mark.parametrize("offset", [-5, 10**6], ids=["negative", "behind the file"])
def test_read_arrow__text_that_lies_outside_the_file(tmp_path, values, offset):
    """As pyarrow returns it, unread, where an offset is damaged; it ends in the memory behind."""
    path = write(tmp_path / "a.feather", upright(values), compression="uncompressed")
    raw = path.read_bytes()
    ends = np.cumsum([0, *map(len, GENES)]).astype("<i8")
    before = ends.tobytes()
    assert before in raw
    ends[7] = offset
    path.write_bytes(raw.replace(before, ends.tobytes()))
    with pytest.raises(SourceError, match=r"a\.feather: .* got a damaged one .*offset"):
        read_source(path)


def test_read_arrow__text_of_another_encoding(tmp_path, values):
    path = write(tmp_path / "a.feather", upright(values), compression="uncompressed")
    path.write_bytes(path.read_bytes().replace(GENES[0].encode(), b"\xff" * len(GENES[0])))
    with pytest.raises(SourceError, match=r"a\.feather: .* got a damaged one .*UTF8"):
        read_source(path)


def test_read_arrow__more_rows_told_than_there_are(tmp_path, values, monkeypatch):
    path = write(tmp_path / "a.parquet", upright(values), row_group_size=20)
    whole = pq.read_metadata(path)

    class Damaged:
        num_rows = 90
        num_row_groups, row_group = whole.num_row_groups, staticmethod(whole.row_group)

    monkeypatch.setattr(arrow, "_parquet", lambda _: SimpleNamespace(metadata=Damaged))
    with pytest.raises(SourceError, match=r"damaged one \(90 rows, its groups have 50\)"):
        read_source(path)


def test_arrow_format__old_feather(tmp_path):
    path = tmp_path / "a.feather"
    path.write_bytes(b"FEA1" + bytes(60))
    with pytest.raises(SourceError, match="expected Feather 2, got Feather 1"):
        read_source(path)


def test_read_arrow__without_pyarrow(tmp_path, values, monkeypatch):
    path = write(tmp_path / "a.parquet", upright(values))
    monkeypatch.setattr(arrow, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"a\.parquet: expected pyarrow .* 'dglzarr\[parquet\]'"):
        read_source(path)


def test_join__straight_from_a_parquet_file(tmp_path, values):
    """Counts in Parquet are joined from the file, as the same table of text is from its copy."""
    values = np.nan_to_num(np.floor(values))
    values[0, 0] = 0
    labels = {"genes": GENES, "samples": SAMPLES}
    text = write_table(tmp_path / "text.tsv", values, **labels)
    parquet = write(tmp_path / "arrow.parquet", upright(values))
    joined = []
    for path in (text, parquet):
        raw, target = str(tmp_path / path.stem / "a.zarr"), str(tmp_path / f"{path.stem}.zarr")
        ingest_all([SourceFile(str(path), raw)])
        join([raw], target, options=JoinOptions(split_by="sample", shard_samples=8), seed=1)
        joined.append(Rows(target)[0:30])
        assert open_store(raw).attrs["details"]["unit"] == "counts"
    assert np.array_equal(*joined)
    assert open_store(str(tmp_path / "arrow" / "a.zarr")).attrs["dglzarr_schema"] == "raw-link"


def test_join__negative_counts_of_a_file_are_refused(tmp_path, values):
    values = np.nan_to_num(np.floor(values))
    path = write(tmp_path / "a.parquet", upright(np.tile(values, (1, 1))))
    raw = str(tmp_path / "raw" / "a.zarr")
    ingest_all([SourceFile(str(path), raw, SourceOptions(unit="counts"))])
    values[20, 4] = -3
    write(path, upright(values))  # behind ingest's back
    with pytest.raises(SourceError, match=r"a\.parquet: expected counts from 0, got 1 negative"):
        join([raw], str(tmp_path / "x.zarr"), options=JoinOptions(split_by="sample"), seed=1)
