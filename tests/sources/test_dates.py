"""Names of genes that a spreadsheet made dates of: known, told, and read only where unambiguous."""

import numpy as np
import pytest

from dglzarr.sources import read_source
from dglzarr.sources.dates import excel_dates, genes_of_date
from dglzarr.sources.identifiers import (
    PanelMatch,
    read_annotation_table,
    read_gene_list,
    read_panel,
)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("5-Mar", ["MARCHF5"]),
        ("05-mar-06", ["MARCHF5"]),
        ("Mar-05", ["MARCHF5"]),
        ("5.M\u00e4r", ["MARCHF5"]),
        ("2006-03-05", ["MARCHF5"]),
        ("2006-03-05 00:00:00", ["MARCHF5"]),
        ("3/5/2006", ["MARCHF5"]),
        ("3/9/06", ["MARCHF9", "SEPTIN3"]),
        ("2-Mar", ["MARCHF2", "MTARC2"]),
        ("Sep-13", ["SEPTIN7P2"]),
        ("15-Sep", ["SELENOF"]),
        ("Sep-16", []),
        ("1-Dez", ["DELEC1"]),
        ("??.?.-02", ["MARCHF2", "MTARC2", "SEPTIN2"]),
        ("?.?.-15", ["SELENOF"]),
        ("4-Jul", []),
    ],
)
def test_genes_of_date(date, expected):
    assert excel_dates([date]) == [date]
    assert [gene.now for gene in genes_of_date(date)] == expected


@pytest.mark.parametrize("name", ["MARCH5", "HLA-A", "1-8D", "?", "1007_s_at", "SEPT2", "2-5A", ""])
def test_excel_dates__other_names_are_none(name):
    assert excel_dates([name]) == []
    assert genes_of_date(name) == []


GENES = ["p1", "p2", "p3", "p4", "p5"]


@pytest.mark.parametrize("symbols", [["MARCH5", "SEPT2"], ["MARCHF5", "SEPTIN2"]])
def test_read_panel__a_date_of_one_gene_is_read_as_it(tmp_path, symbols):
    path = tmp_path / "list.txt"
    path.write_text("TP53\n5-Mar\nSep-02\n1-Mar\n2001-12-01\nZZZ\n4-Jul\n")
    known = ["TP53", *symbols, "MARCH1", "MARC1"]
    assert read_panel(path, genes=GENES, symbols=known) == PanelMatch(
        ["p1", "p2", "p3"],
        ["1-Mar", "2001-12-01", "ZZZ", "4-Jul"],
        {"5-Mar": "p2", "Sep-02": "p3", "1-Mar": "", "2001-12-01": "", "4-Jul": ""},
    )


def test_read_annotation_table__dates_are_no_symbols_and_are_kept(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ID\tGene Symbol\n1_at\t5-Mar\n2_at\tTP53\n3_at\t??.?.-02 /// MYC\n")
    found = read_annotation_table(path)
    assert found.symbol == {"1_at": "", "2_at": "TP53", "3_at": ""}
    assert found.dates == {"1_at": "5-Mar", "3_at": "??.?.-02"}


def test_read_source__dates_are_told(tmp_path):
    path = tmp_path / "GSE1_expr.tsv"
    values = 7 + np.random.default_rng(0).random((43, 2))
    names = ["TP53", "1-Mar", "Sep-02", *(f"G{i}" for i in range(40))]
    rows = [f"{name}\t{a:.3f}\t{b:.3f}" for name, (a, b) in zip(names, values, strict=True)]
    path.write_text("\n".join(["symbol\ts1\ts2", *rows]) + "\n")
    (note,) = read_source(path).notes
    assert note.startswith("2 names of genes are dates, as spreadsheets make them, and taken for")
    assert note.endswith(": '1-Mar' is MARCHF1 or MTARC1, 'Sep-02' SEPTIN2")


@pytest.mark.data
def test_read_panel__published_table_with_dates(data_dir):
    """L1000's table of genes has 19 dates; GEO's table of GPL96 lost the months of its own."""
    probes = read_gene_list(data_dir / "annotation/probes_22268.txt")
    told = read_annotation_table(data_dir / "annotation/GPL96.txt")
    assert len(told.dates) == 12
    assert told.dates["218582_at"] == "??.?.-05"
    symbols = [told.symbol.get(probe, "") for probe in probes]
    path = data_dir / "l1000/GSE92742_Broad_LINCS_gene_info.csv"
    found = read_panel(path, genes=probes, symbols=symbols)
    assert len(found.dates) == 17  # Mar-01 and Mar-02 stand there twice
    septins = {f"Sep-{n:02d}" for n in (2, 4, 6, 7, 8, 9, 10, 11)}
    assert {date for date, probe in found.dates.items() if probe} == septins
    assert {"Mar-01", "Mar-02", "Sep-15", "Dec-01"} <= set(found.missing)
