import gzip
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dglzarr.errors import SourceError
from dglzarr.sources import matrix, read_source
from dglzarr.sources.table import read_sample_sheet

NAN = float("nan")
TABLE = "ID_REF\tS1\tS2\np1\t1\t2\np2\t3\tNA\n"
EXPECTED = [[1, 3], [2, NAN]]


def write(tmp_path, content, name="GSE3_a_expr.tsv"):
    raw = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("GSE3_a_expr.tsv", TABLE),
        ("GSE3.tsv.gz", TABLE),
        ("GSE3.csv", TABLE.replace("\t", ",")),
        ("GSE3.txt", TABLE.replace("\t", ",")),
        ("GSE3.gct", TABLE),
        ("GSE3.csv", '"","S1","S2"\n"p1",1,2\n"p2",3,NA\n'),
        ("GSE3.txt", "S1\tS2\np1\t1\t2\np2\t3\tNA\n"),
        ("GSE3.txt", '"S1" "S2"'.replace(" ", "\t") + '\n"p1"\t1\t2\n"p2"\t3\tNA'),
        ("GSE3.tsv", "# a comment\n# another\n" + TABLE),
        ("GSE3.tsv", "# a comment\n#" + TABLE),
        ("GSE3.tsv", "#by\tme\tnow\n" + TABLE),
        ("GSE3.tsv", "\n\n" + TABLE),
        ("GSE3.tsv", TABLE.replace("\n", "\t\t\n")),
        ("GSE3.tsv", TABLE.replace("\n", "\r\n")),
        ("GSE3.tsv", TABLE.replace("\n", "\r")),
        ("GSE3.tsv", "\ufeff" + TABLE),
    ],
    ids=[
        "tsv", "gzip", "csv", "comma-in-txt", "wrong-extension", "r-csv", "r-table", "r-quoted",
        "comments", "header-as-comment", "comment-as-wide", "blank-lines", "padding", "crlf", "cr",
        "bom",
    ],
)  # fmt: skip
def test_read_table__variants(tmp_path, name, text):
    source = read_source(write(tmp_path, text, name))
    assert (source.format, source.series) == ("table", "GSE3")
    assert (source.samples, source.genes) == (["S1", "S2"], ["p1", "p2"])
    assert (source.platform, source.labels, source.gene_symbol) == (["", ""], {}, None)
    np.testing.assert_array_equal(source.read(0, 2), EXPECTED)


@pytest.mark.parametrize(
    "text",
    [
        "ID\tSymbol\tS1\tS2\np1\tDDR1\t1\t2\np2\t\t3\tNA\n",
        "ID\tS1\tS2\tGene Symbol\np1\t1\t2\tDDR1\np2\t3\tNA\t\n",
        "ID\tS1\tsymbol\tS2\np1\t1\tDDR1\t2\np2\t3\t\tNA\n",
        "ID,gene_symbol,S1,S2\np1,DDR1,1,2\np2,,3,NA\n",
    ],
    ids=["second", "last", "amid", "csv"],
)
@pytest.mark.parametrize("wide_columns", [1, 128])
def test_read_table__column_of_symbols(tmp_path, monkeypatch, text, wide_columns):
    monkeypatch.setattr(matrix, "WIDE_COLUMNS", wide_columns)
    source = read_source(write(tmp_path, text))
    assert (source.samples, source.gene_symbol) == (["S1", "S2"], ["DDR1", ""])
    np.testing.assert_array_equal(source.read(0, 2), EXPECTED)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID_REF\tS1\tS2\n", r"^GSE3_a_expr\.tsv, line 2: expected rows.*got an empty table\.$"),
        ("p1\np2\n", r"line 1: expected a series matrix, SOFT, GCT, GCTX or a.*got 'p1'"),
        ("<!DOCTYPE html>\n<html>\n", r"line 1: expected a series matrix.*got '<!DOCTYPE html>'"),
        ("ID_REF\tS1\tS1\np1\t1\t2\n", r"line 1: expected each sample once, got 'S1' again"),
        ("ID_REF\tS1\t\tS2\np1\t1\t2\t3\n", r"line 1: expected a sample id, got '' as sample 2"),
        ("p1\t10.5\t2.25\np2\t1\t2\n", r"line 1: expected a header of sample ids, got numbers"),
        ("ENSG1\t10\nENSG2\t1\n", r"line 1: .* the values of one sample, as htseq-count writes"),
        ("ID_REF\tS1\tS2\np1\t1\t2\np1\t1\t2\n", r"line 3: expected each id once, got 'p1' again"),
        ("ID_REF\tS1\tS2\np1\t1\t2\np2\t1\n", r"line 3: expected 3 columns, got 2\."),
        ("ID_REF\tS1\tS2\np1\t1\t2\np2\t1\t2\t3\n", r"line 3: expected 3 columns, got 4\."),
        ("Sample\tGroup\nGSM1\tc\n", r"line 2: expected a number, got 'c' in column 'Group'\."),
        ("ID\tsymbol\np\tA\n", r"line 1: expected at least one sample column, got none"),
    ],
    ids=[
        "empty", "list", "html", "repeated-sample", "empty-sample", "no-header", "one-sample",
        "repeated-id", "short-row", "long-row", "sample-sheet", "only-symbols",
    ],
)  # fmt: skip
def test_read_table__refuses(tmp_path, text, message):
    with pytest.raises(SourceError, match=message) as caught:
        read_source(write(tmp_path, text))
    assert "\n" not in str(caught.value)


@given(
    values=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 6)),
        elements=st.floats(width=32, allow_infinity=False),
    ),
    separator=st.sampled_from(["\t", ","]),
    is_gzip=st.booleans(),
)
def test_read_table__written_table_comes_back(tmp_path_factory, values, separator, is_gzip):
    path = tmp_path_factory.mktemp("table") / ("a.txt" + ".gz" * is_gzip)
    genes = [f"g{i}" for i in range(len(values))]
    samples = [f"S{i}" for i in range(values.shape[1])]
    frame = pd.DataFrame(values.astype(object), index=genes, columns=samples)
    frame.to_csv(path, sep=separator, na_rep="NA", index_label="ID")
    source = read_source(path)
    assert (source.samples, source.genes) == (samples, genes)
    np.testing.assert_array_equal(source.read(0, len(samples)), values.T)


SHEET = "title\tgeo_accession\tgroup\nx\tS2\tcase\ny\tS1\tcontrol\nz\tS9\tcase\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sheet.tsv", SHEET),
        ("sheet.tsv.gz", SHEET),
        ("sheet.csv", SHEET.replace("\t", ",")),
        ("sheet.txt", SHEET.replace("\n", "\r\n") + "\r\n"),
        ("sheet.txt", "title\tgeo_accession\tgroup\t\nx\tS2\tcase\ny\tS1\tcontrol\t\n"),
    ],
    ids=["tsv", "gzip", "csv", "crlf", "padding"],
)
def test_read_sample_sheet__column_is_found(tmp_path, name, text):
    labels = read_sample_sheet(write(tmp_path, text, name), ["S1", "S2"])
    assert labels == {"title": ["y", "x"], "group": ["control", "case"]}


def test_read_sample_sheet__named_column(tmp_path):
    path = write(tmp_path, "a\tb\nS1\tS2\nS2\tS1\n", "sheet.tsv")
    message = (
        r"sheet\.tsv: expected one column of sample ids, got 'a', 'b', which differ\. Name the"
    )
    with pytest.raises(SourceError, match=message):
        read_sample_sheet(path, ["S1", "S2"])
    assert read_sample_sheet(path, ["S1", "S2"], column="a") == {"b": ["S2", "S1"]}
    assert read_sample_sheet(path, ["S1", "S2"], column="b") == {"a": ["S2", "S1"]}


@pytest.mark.parametrize("other", ["matched_normal", "nr"])
def test_read_sample_sheet__the_column_that_is_called_so(tmp_path, other):
    """A column before it that covers the samples too shifted all labels by one."""
    path = write(tmp_path, f"{other}\tsample\ttissue\n2\t1\tskin\n1\t2\tliver\n", "sheet.tsv")
    assert read_sample_sheet(path, ["1", "2"]) == {"tissue": ["skin", "liver"], other: ["2", "1"]}


def test_read_sample_sheet__short_rows_are_padded(tmp_path):
    path = write(tmp_path, "id\tgroup\tnote\nS1\tcase\nS2\n", "sheet.tsv")
    assert read_sample_sheet(path, ["S1", "S2"]) == {"group": ["case", ""], "note": ["", ""]}


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (
            SHEET,
            "Sample",
            r"expected a column 'Sample', got 'title', 'geo_accession', 'group'\. Name one",
        ),
        (
            SHEET,
            "title",
            r"expected a column with all 3 samples such as 'S1'.*'title' \(0\)\. Name the",
        ),
        (
            SHEET,
            None,
            r"got \(samples found\) 'title' \(0\), 'geo_accession' \(2\), 'group' \(0\)\. ",
        ),
        (
            "a\tb\tc\td\te\tf\tg\n" + "\t".join("1234567") + "\n",
            None,
            r"'e' \(0\) and 2 more\. Name",
        ),
        (
            SHEET + "w\tS8\tcase\nv\tS8\tx\n",
            None,
            r"expected one row a sample, got 'S8' again in column 'g",
        ),
        (
            "a\ta\nS1\tS2\n",
            None,
            r"sheet\.tsv, line 1: expected each column once, got a repeated one",
        ),
        ("a\tb\nS1\tS2\tS3\nS4\tS5\n", None, r"sheet\.tsv, line 2: expected 2 columns, got 3\."),
        ("", None, r"sheet\.tsv: expected a table, got an empty file"),
    ],
    ids=[
        "no-column",
        "other-column",
        "no-cover",
        "many-columns",
        "repeat",
        "twice",
        "long",
        "empty",
    ],
)
def test_read_sample_sheet__refuses(tmp_path, text, column, message):
    with pytest.raises(SourceError, match=message):
        read_sample_sheet(write(tmp_path, text, "sheet.tsv"), ["S1", "S2", "S8"], column=column)


def test_read_table__real_head_with_its_sheet(repo_data):
    source = read_source(
        repo_data / "GSE5109_expr.tsv.gz", sample_sheet=repo_data / "GSE5109_samples.tsv"
    )
    assert source.values.shape == (6, 50)
    assert source.series == "GSE5109"
    assert set(source.platform) == {"GPL570"}
    assert source.labels["title"][0] == "JGB-Post-1UP_Run2-S2"
    assert "geo_accession" not in source.labels


TABLES = {
    "GSE1145": (26, 54675), "GSE14924_CD4": (20, 54675), "GSE14924_CD8": (21, 54675),
    "GSE16759": (8, 54675), "GSE1751": (31, 22283), "GSE19420": (24, 54675),
    "GSE20164": (11, 22283), "GSE22780": (16, 54675), "GSE24739_G0": (12, 54613),
    "GSE24739_G1": (12, 54613), "GSE3585": (12, 22283), "GSE3726": (104, 22283),
    "GSE38666_epithelia": (30, 54675), "GSE38666_stroma": (15, 54675), "GSE4183": (23, 54675),
    "GSE5109": (6, 54675), "GSE6481": (105, 22283), "GSE6956AA": (10, 22277),
    "GSE6956C": (16, 22277), "GSE781": (17, 22283),
}  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("name", TABLES)
def test_read_table__real_files(data_dir, name):
    folder = data_dir / "tables"
    source = read_source(
        folder / f"{name}_expr.tsv.gz", sample_sheet=folder / f"{name}_samples.tsv"
    )
    assert source.values.shape == TABLES[name]
    assert source.series == name.split("_")[0].rstrip("AC")
    assert source.labels
    assert np.isfinite(source.read(0, len(source.samples))).all()


@pytest.mark.data
def test_read_table__real_file_equals_pandas(data_dir):
    path = data_dir / "tables" / "GSE20164_expr.tsv.gz"
    frame = pd.read_csv(path, sep="\t", index_col=0)
    source = read_source(path)
    assert source.genes == frame.index.tolist()
    np.testing.assert_array_equal(source.read(0, 11), frame.to_numpy(np.float32).T)


@pytest.mark.parametrize("text", ["\ufeff\n \n", "\u00a0\n\u2003", "\x85\n"])
def test_read_sample_sheet__blank_lines_alone(tmp_path, text):
    path = tmp_path / "sheet.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=r"^sheet\.tsv, line 1: expected a header, got blank"):
        read_sample_sheet(path, ["GSM1"])


# ---------------------------------------------------------------- numbers of rows, other columns

NUMBERED = [
    ('"","gene_id","S1","S2"\n"1","g2",1,2\n"2","g1",3,4\n', None),
    (",gene,S1,S2\n0,g2,1,2\n1,g1,3,4\n", None),
    ("X,S1,S2,probe_id,symbol\n1,1,2,g2,TP53\n2,3,4,g1,MYC\n", ["TP53", "MYC"]),
    ("gene_id\tS1\tS2\n1\tg2\t1\t2\n2\tg1\t3\t4\n", None),  # R's, without a name for rows
]


@pytest.mark.parametrize(("text", "symbols"), NUMBERED)
def test_read_table__numbers_of_rows_are_no_ids(tmp_path, text, symbols):
    """Two such files were joined by the numbers, whatever genes they stood for."""
    source = read_source(write(tmp_path, text, "a.csv"))
    assert (source.genes, source.samples, source.gene_symbol) == (
        ["g2", "g1"],
        ["S1", "S2"],
        symbols,
    )
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [2, 4]])
    assert "numbers of rows" in {one.reason for one in source.left_out}
    assert not {"gene_id", "probe_id"} & {name for one in source.left_out for name in one.names}


def test_read_table__numbers_of_rows_without_ids(tmp_path):
    with pytest.raises(SourceError, match=r"got numbers of rows, 1 to 3, and no other column"):
        read_source(write(tmp_path, '"","S1","S2"\n1,1,2\n2,3,4\n3,5,6\n', "a.csv"))
    entrez = read_source(write(tmp_path, '"","S1","S2"\n1,1,2\n2,3,4\n9,5,6\n', "b.csv"))
    assert entrez.genes == ["1", "2", "9"]


RESERVED = [
    *("mean", "SD", "Total", "mean_ctrl", "avg.trt", "GeneLength_bp", "Start (bp)", "chromStart"),
    *("Transcript Length (bp)", "chrom_end", "pos", "mean_length", "logCPM", "Unnamed: 0"),
    *("P-value (Treated vs Control)", "Fold-Change(Treated vs. Control)", "FC ([A] Vs [B])"),
    *("KO_vs_WT", "KO_vs_WT_log2FC", "Control_mean", "trt avg", "S1.MIN_Signal"),
]


@pytest.mark.parametrize("name", RESERVED)
def test_read_table__columns_that_are_no_samples(tmp_path, name):
    source = read_source(write(tmp_path, f"gene\tS1\t{name}\tS2\ng1\t1\t5\t2\ng2\t3\t5\t4\n"))
    assert source.samples == ["S1", "S2"]
    assert [one.names for one in source.left_out] == [(name,)]


@pytest.mark.parametrize(
    "samples",
    [
        ("mean_ctrl", "mean_trt"),
        ("a_mean", "b_mean"),
        ("NF2_VS_1", "NF2_VS_2"),
        ("P1", "P1_norm"),
        ("Median eminence", "S2"),
        ("SD_1", "WKY_1"),
        ("S1_TPM", "S2_TPM"),
        ("AVG_Signal-1", "b"),
    ],
)
def test_read_table__columns_that_are_samples(tmp_path, samples):
    header = "\t".join(["gene", *samples])
    source = read_source(write(tmp_path, f"{header}\ng1\t1\t2\ng2\t3\t4\n"))
    assert source.samples == list(samples)


def test_read_table__means_and_spreads_of_groups_beside_their_samples(tmp_path):
    names = ["ctl1", "ctl2", "ctl_mean", "ctl_SD", "ko1", "ko2", "ko_mean", "ko_SD"]
    text = "\t".join(["gene", *names]) + "\ng1" + "\t5" * 8 + "\n"
    source = read_source(write(tmp_path, text))
    assert source.samples == ["ctl1", "ctl2", "ko1", "ko2"]
    assert [one.names for one in source.left_out] == [("ctl_SD", "ko_SD"), ("ctl_mean", "ko_mean")]


@pytest.mark.parametrize(
    ("columns", "pattern"),
    [
        (["A_count", "A_TPM", "B_count", "B_TPM"], "*_TPM"),
        (["count.A", "FPKM.A", "count.B", "FPKM.B"], "FPKM.*"),
        (["A (raw)", "B (raw)", "A (norm)", "B (norm)"], "* (norm)"),
        (["A", "B", "log2_A", "log2_B"], "log2_*"),
        (["abundance.A", "abundance.B", "length.A", "length.B"], "length.*"),
    ],
)
def test_read_table__several_measures_of_a_sample(tmp_path, columns, pattern):
    text = "\t".join(["gene", *columns]) + "\ng1\t1\t2\t3\t4\n"
    with pytest.raises(SourceError, match=rf"of one\. .*{re.escape(pattern)}"):
        read_source(write(tmp_path, text))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, "sums over genes") for name in ("Total", "Grand Total", "SUM")),
        *((name, "summaries of genes") for name in ("Mean", "Average", "SD")),
        *((name, "counters of reads") for name in ("__x", "Unassigned", "unmapped", "*")),
        *((name, "facts about samples") for name in ("dose_uM", "Day", "Library size (reads)")),
    ],
)
def test_read_table__rows_that_are_no_genes(tmp_path, name, reason):
    source = read_source(write(tmp_path, f"ID\tS1\tS2\n{name}\t4\t2\np1\t1\t2\np2\t3\t4\n"))
    assert source.genes == ["p1", "p2"]
    assert [one.reason for one in source.left_out] == [reason]


@pytest.mark.parametrize("name", ["MAX", "sd", "age-1", "Os.102.1.S1_at", "cluster_12", "Day_1"])
def test_read_table__rows_that_are_genes(tmp_path, name):
    assert read_source(write(tmp_path, f"ID\tS1\n{name}\t4\np1\t1\n")).genes == [name, "p1"]


SHIFTED = "gene,description,S1,S2\np1,x,1,2\np2,a 1,4,8.5,\n"


@pytest.mark.parametrize(
    "text", [SHIFTED, SHIFTED.replace("1,2\n", "1,2,\n").replace("5,\n", "5\n")]
)
def test_read_table__surplus_empty_cells_of_some_rows(tmp_path, text):
    with pytest.raises(SourceError, match=r"line 3: expected \d columns, got \d\. Quote cells"):
        read_source(write(tmp_path, text, "a.csv"))


@pytest.mark.parametrize("header", ["ID,S1,S2", "ID,S1,S2,,"])
@pytest.mark.parametrize("end", [",", ",,"])
def test_read_table__every_row_padded(tmp_path, header, end):
    path = write(tmp_path, f"{header}\np1,1,2{end}\np2,3,NA{end}\n", "a.csv")
    np.testing.assert_array_equal(read_source(path).read(0, 2), EXPECTED)


def test_read_sample_sheet__comma_in_a_cell(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("sample,organ,group,note\nS1,liver, left,ctl,\nS2,lung,ctl,\n")
    with pytest.raises(SourceError, match=r"line 2: expected 4 cells .*, got 5\. Quote cells"):
        read_sample_sheet(path, ["S1", "S2"])
    path.write_text("sample,group\nS1,ctl,\nS2,ill,\n")
    assert read_sample_sheet(path, ["S1", "S2"]) == {"group": ["ctl", "ill"]}


def test_read_table__semicolons(tmp_path):
    path = write(tmp_path, TABLE.replace("\t", ";"), "a.csv")
    np.testing.assert_array_equal(read_source(path).read(0, 2), EXPECTED)
    path = write(tmp_path, "ID;S1;S2\np1;1,5;2\n", "a.csv")
    with pytest.raises(SourceError, match=r"line 2: expected a number with a decimal point, got"):
        read_source(path)


def test_read_table__quoted_line_end(tmp_path):
    path = write(tmp_path, 'ID,description,S1\np1,"one\ntwo",1\n', "a.csv")
    with pytest.raises(SourceError, match=r"line 2: .* Its quotes do not close in this line"):
        read_source(path)
