from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import read_source, source_name
from dglzarr.sources.base import Source, first_repeat, series_name, symbols_or_none

TABLE = "ID_REF\tS1\tS2\np1\t1\t2\n"


@pytest.mark.parametrize(
    ("name", "stem", "series"),
    [
        ("GSE55235_series_matrix.txt.gz", "GSE55235", "GSE55235"),
        ("GSE2193-GPL96_series_matrix.txt.gz", "GSE2193-GPL96", "GSE2193"),
        ("GSE14924_CD4_expr.tsv.gz", "GSE14924_CD4", "GSE14924"),
        ("GSE14924_CD8_expr.tsv.gz", "GSE14924_CD8", "GSE14924"),
        ("GSE6956AA_expr.tsv.gz", "GSE6956AA", "GSE6956"),
        ("GSE105845_family.soft", "GSE105845", "GSE105845"),
        ("GDS507.soft.gz", "GDS507", "GDS507"),
        ("GTEx_v6_skin_n20_gene_reads.gct.gz", "GTEx_v6_skin_n20_gene_reads", None),
        ("test_l1000.gctx", "test_l1000", "test_l1000"),
        ("v1.2.csv", "v1.2", "v1.2"),
    ],
)
def test_source_name__and_series(tmp_path, name, stem, series):
    assert source_name(tmp_path / name) == stem
    assert series_name(tmp_path / name) == (series or stem)


def test_series_name__declared():
    assert series_name("mine.txt", "GSE7") == "GSE7"
    assert series_name("GSE8.txt", "GSE7") == "GSE8"


@pytest.mark.parametrize(
    ("turned", "dtype", "copied"),
    [(False, np.float32, False), (False, np.float64, True), (True, np.float32, True)],
)
def test_source_read__copies_only_what_must_change(rng, turned, dtype, copied):
    """A GCTX is read as it is stored, without another copy of its hundreds of megabytes."""
    values = rng.random((6, 4)).astype(dtype)
    values = np.asfortranarray(values) if turned else values
    labels = [f"s{i}" for i in range(6)], [f"g{i}" for i in range(4)]
    source = Source(Path("a.gctx"), "gctx", *labels, series="a", platform=[""] * 6, values=values)
    block = source.read(1, 5)
    assert block.dtype == np.float32
    assert block.flags.c_contiguous
    assert np.array_equal(block, values[1:5].astype(np.float32))
    assert np.shares_memory(block, values) is not copied


def test_symbols_or_none__cases():
    assert symbols_or_none(["A", ""], ["p1", "p2"]) == ["A", ""]
    assert symbols_or_none(["", ""], ["p1", "p2"]) is None
    assert symbols_or_none(["p1", "p2"], ["p1", "p2"]) is None


def test_first_repeat__none():
    assert first_repeat(["a", "b"]) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, r"GSE1\.txt: expected a file, got none\.$"),
        (lambda path: path.mkdir(), r"GSE1\.txt: expected a file, got a folder\.$"),
        (lambda path: path.write_bytes(b""), r"GSE1\.txt: expected a table, got an empty file"),
        (
            lambda path: path.write_bytes(b"\0\1\2"),
            r"GSE1\.txt: expected plain or gzip text, got binary",
        ),
        (
            lambda path: path.write_bytes(b"PK\3\4"),
            r"GSE1\.txt: expected plain or gzip text, got a zip",
        ),
    ],
    ids=["missing", "folder", "empty", "binary", "zip"],
)
def test_read_source__refuses(tmp_path, make, message):
    path = tmp_path / "GSE1.txt"
    make(path)
    with pytest.raises(SourceError, match=message):
        read_source(path)


def test_read_source__unreadable_file(tmp_path, monkeypatch):
    path = tmp_path / "GSE1.txt"
    path.write_text(TABLE)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(
        SourceError, match=r"GSE1\.txt: expected a readable file, got Permission denied"
    ):
        read_source(path)


def test_read_source__sample_sheet(tmp_path):
    path, sheet = tmp_path / "a.tsv", tmp_path / "sheet.tsv"
    path.write_text(TABLE)
    sheet.write_text("id\tplatform_id\tgroup\nS2\tGPL2\tcase\nS1\tGPL1\tcontrol\n")
    source = read_source(str(path), sample_sheet=str(sheet))
    assert isinstance(source, Source)
    assert source.platform == ["GPL1", "GPL2"]
    assert source.labels == {"platform_id": ["GPL1", "GPL2"], "group": ["control", "case"]}
    with pytest.raises(
        SourceError, match="expected a column 'name', got 'id', 'platform_id', 'group'"
    ):
        read_source(path, sample_sheet=sheet, sample_column="name")
    with pytest.raises(SourceError, match=r"none\.tsv: expected a sample sheet, got none"):
        read_source(path, sample_sheet=tmp_path / "none.tsv")


def test_read_source__sheet_adds_to_the_labels_of_a_file(tmp_path):
    path, sheet = tmp_path / "a.gct", tmp_path / "sheet.tsv"
    path.write_text("#1.3\n1\t2\t0\t2\nid\tS1\tS2\ncell\tA\tB\ndose\t1\t2\np1\t1\t2\n")
    sheet.write_text("id\tcell\nS1\tX\nS2\tY\n")
    source = read_source(path, sample_sheet=sheet)
    assert source.labels == {"cell": ["X", "Y"], "dose": ["1", "2"]}
    assert source.platform == ["", ""]
