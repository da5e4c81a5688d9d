import gzip
import pickle

import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import matrix, read_source

NAN = float("nan")
HEAD = """!Series_title\t"A study"
!Series_geo_accession\t"GSE7"
!Series_summary\t"One line
and another, with a ""quote"
!Series_platform_id\t"GPL96"

!Sample_title\t"first"\t"second"
!Sample_geo_accession\t"GSM1"\t"GSM2"
!Sample_source_name_ch1\t"skin"\t"bone \rmarrow"
!Sample_characteristics_ch1\t"Sex: F"\t"sex:M"
!Sample_characteristics_ch1\t"dose: 1:2"\t"untreated"
!Sample_characteristics_ch1\t""\t"dose: high"
!Sample_characteristics_ch1\t""\t"dose: daily"
!Sample_platform_id\t"GPL96"\t"GPL97"
"""
BEGIN = "!series_matrix_table_begin\n"
END = "!series_matrix_table_end\n"
HEADER = '"ID_REF"\t"GSM1"\t"GSM2"\n'
ROWS = '"p1"\t1\t2\n"p2"\t3\tnull\n'
TABLE = HEADER + ROWS
NO_END = "expected '!series_matrix_table_end' after the table"
SERIES = HEAD + BEGIN + TABLE + END


def write(tmp_path, content, name="GSE1_series_matrix.txt"):
    path = tmp_path / name
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("name", ["GSE1_series_matrix.txt", "GSE1.txt.gz", "GSE1.csv"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_read_series_matrix__hand_worked(tmp_path, name, end):
    source = read_source(write(tmp_path, SERIES.replace("\n", end), name))
    assert source.format == "series-matrix"
    assert source.samples == ["GSM1", "GSM2"]
    assert source.genes == ["p1", "p2"]
    assert source.series == "GSE1"
    assert source.platform == ["GPL96", "GPL97"]
    assert source.gene_symbol is None
    assert source.labels == {
        "title": ["first", "second"],
        "source_name": ["skin", "bone \rmarrow"],
        "Sex": ["F", ""],
        "sex": ["", "M"],
        "dose": ["1:2", "high; daily"],
        "characteristics": ["", "untreated"],
    }
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [2, NAN]])
    assert source.read(1, 2).flags.c_contiguous


def test_read_series_matrix__carriage_returns_as_line_ends(tmp_path):
    text = (BEGIN + TABLE + END).replace("\n", "\r")
    source = read_source(write(tmp_path, '!Series_geo_accession\t"GSE7"\r' + text, "x.txt"))
    assert source.series == "GSE7"
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [2, NAN]])


def test_read_series_matrix__series_without_accession_in_the_name(tmp_path):
    assert read_source(write(tmp_path, SERIES, "mine.txt")).series == "GSE7"
    assert read_source(write(tmp_path, SERIES.replace("GSE7", ""), "mine.txt.gz")).series == "mine"


def test_read_series_matrix__platform_of_the_series(tmp_path):
    text = SERIES.replace('!Sample_platform_id\t"GPL96"\t"GPL97"\n', "")
    assert read_source(write(tmp_path, text)).platform == ["GPL96", "GPL96"]


def test_read_series_matrix__latin_1_metadata(tmp_path):
    source = read_source(write(tmp_path, SERIES.replace("skin", "peau brûlée").encode("latin-1")))
    assert source.labels["source_name"][0] == "peau brûlée"


def test_read_series_matrix__data_after_the_end_marker_is_verified(tmp_path, monkeypatch):
    monkeypatch.setattr("dglzarr.sources.text.BLOCK_NBYTES", 64)
    path = write(tmp_path, SERIES + "\n" * 999, "GSE1.txt.gz")
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(
        SourceError, match=r"GSE1\.txt\.gz, line \d+: expected a complete gzip file"
    ):
        read_source(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (END, "", rf"^GSE1_series_matrix\.txt, line 19: {NO_END}, got the end of the file"),
        (END, "!other\n", rf"line 19: {NO_END}, got '!other'"),
        (BEGIN, "", r"expected '!series_matrix_table_begin', got the end of the file"),
        (SERIES[SERIES.index(BEGIN) :], "", r"expected '!series_matrix_table_begin', got the end"),
        (ROWS, "", r"line 18: expected rows.*got an empty table\. An RNA-seq.*_raw_counts"),
        ('"ID_REF"', '"ID"', r"line 16: expected the header 'ID_REF', got \['ID'\]"),
        (HEADER, "", r"line 16: expected the header 'ID_REF', got \['p1'\]"),
        (HEADER, '"ID_REF"\n', r"line 16: expected at least one sample column, got none"),
        (HEADER, HEADER.replace("2", "1"), r"line 16: expected each sample once, got 'GSM1' again"),
        (HEADER, HEADER.replace("GSM1", ""), r"line 16: expected a sample id, got '' as sample 1"),
        ('"p2"', '"p1"', r"line 18: expected each id once, got 'p1' again"),
        ('"p2"\t3\tnull', '"p2"\t3', r"line 18: expected 3 columns, got 2\."),
        ("null", "abc", r"line 18: expected a number, got 'abc' in column 'GSM2'\."),
        ("null", "Inf", r"line 18: expected a finite number, got 'Inf' in column 'GSM2'\."),
        ('"skin"\t', "", r"line 9: expected 2 cells of !Sample_source_name_ch1, got 1\."),
        ('"Sex: F"', '"a"\t"b"', r"line 10: expected 2 cells of !Sample_charact.*_ch1, got 3\."),
        ('"GPL96"\t"GPL97"', '"GPL96"', r"line 14: expected 2 cells of !Sample_platform_id, got 1"),
    ],
    ids=[
        "no-end", "other-end", "no-begin", "header-only", "rna-seq", "other-header", "no-header",
        "no-samples", "repeated-sample", "empty-sample", "repeated-probe", "short-row", "word",
        "infinity", "few-labels", "many-labels", "few-platforms",
    ],
)  # fmt: skip
def test_read_series_matrix__refuses(tmp_path, old, new, message):
    head, table = SERIES.split(BEGIN)
    text = SERIES.replace(old, new)
    if old in table and old != END:
        text = head + BEGIN + table.replace(old, new)
    assert text != SERIES
    path = write(tmp_path, text)
    with pytest.raises(SourceError, match=message) as caught:
        read_source(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_read_series_matrix__truncated_gzip(tmp_path, repo_data, share):
    raw = (repo_data / "GSE55235_series_matrix.txt.gz").read_bytes()
    path = tmp_path / "GSE55235_series_matrix.txt.gz"
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(
        SourceError, match=r"GSE55235_series_matrix\.txt\.gz, line \d+: expected a "
    ):
        read_source(path)


def test_read_series_matrix__real_head(repo_data):
    source = read_source(repo_data / "GSE55235_series_matrix.txt.gz")
    assert source.values.shape == (30, 50)
    assert source.series == "GSE55235"
    assert set(source.platform) == {"GPL96"}
    assert source.genes[0] == "1007_s_at"
    assert source.labels["disease state"][0] == "healthy control"
    assert source.read(0, 1)[0, 0] == np.float32(122.6)


def test_read_series_matrix__scratch(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "SHARD_SAMPLES", 1)
    source = read_source(write(tmp_path, SERIES), scratch=tmp_path)
    assert isinstance(source.values, np.memmap)
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [2, NAN]])


SAMPLE = """^SAMPLE = GSM1
!Sample_title = first
!Sample_geo_accession = GSM1
!Sample_source_name_ch1 = skin
!Sample_characteristics_ch1 = sex: F
!Sample_platform_id = GPL96
!Sample_series_id = GSE7
#ID_REF =
#VALUE = log2 signal
!sample_table_begin
ID_REF\tVALUE\tABS_CALL
p1\t1\tP
p2\t2\tA
!sample_table_end
"""
SECOND = SAMPLE.replace("GSM1", "GSM2").replace("p1\t1", "p3\t3").replace("p2\t2", "p2\t4")
PLATFORM = """^DATABASE = GeoMiame
!Database_name = Gene Expression Omnibus
^SERIES = GSE8
!Series_geo_accession = GSE8
^PLATFORM = GPL96
!platform_table_begin
ID\tGene Symbol
p1\tDDR1
!platform_table_end
"""
FAMILY = PLATFORM + SAMPLE + SECOND
SAMPLE_END = "!sample_table_end\n"
NO_SAMPLE_END = "expected '!sample_table_end' after the table"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_read_soft__single_sample(tmp_path, end):
    source = read_source(write(tmp_path, SAMPLE.replace("\n", end), "GSM1.txt.gz"))
    assert source.format == "soft"
    assert source.samples == ["GSM1"]
    assert source.series == "GSE7"
    assert source.platform == ["GPL96"]
    assert source.labels == {"title": ["first"], "source_name": ["skin"], "sex": ["F"]}
    np.testing.assert_array_equal(source.read(0, 1), [[1, 2]])


def test_read_soft__family_joins_on_id_ref(tmp_path):
    source = read_source(write(tmp_path, FAMILY, "a_family.soft"))
    assert source.samples == ["GSM1", "GSM2"]
    assert source.genes == ["p1", "p2", "p3"]
    assert source.series == "GSE8"
    assert source.values.shape == (2, 3)
    np.testing.assert_array_equal(source.read(0, 2), [[1, 2, NAN], [NAN, 4, 3]])
    np.testing.assert_array_equal(source.read(1, 2), [[NAN, 4, 3]])
    assert pickle.loads(pickle.dumps(source)).samples == source.samples  # noqa: S301, our own bytes


def test_read_soft__equal_and_shorter_probe_lists(tmp_path):
    third = SAMPLE.replace("GSM1", "GSM3").replace("p2\t2\tA\n", "")
    same = SAMPLE.replace("GSM1", "GSM2").replace("p1\t1", "p1\t7")
    source = read_source(write(tmp_path, SAMPLE + same + third, "x.soft"))
    assert source.genes == ["p1", "p2"]
    np.testing.assert_array_equal(source.read(0, 3), [[1, 2], [7, 2], [1, NAN]])


def test_read_soft__samples_without_a_table_are_named_in_the_log(tmp_path, caplog):
    bare = SECOND[: SECOND.index("!sample_table_begin")].replace("GPL96", "GPL999")
    source = read_source(write(tmp_path, SAMPLE + bare, "x.soft"))
    assert source.samples == ["GSM1"]
    assert "x.soft: 1 sample left out: no table of values ('GSM2')" in caplog.text


@pytest.mark.parametrize(
    ("old", "new"),
    [("VALUE\t", "SIGNAL\t"), ("ID_REF\t", "SPOT\t"), ("p3\t3\tP\np2\t4\tA\n", "")],
    ids=["no-value", "no-id", "empty"],
)
def test_read_soft__an_odd_sample_does_not_refuse_a_family(tmp_path, old, new):
    third = SAMPLE.replace("GSM1", "GSM3")
    odd = SECOND.replace(old, new)
    assert odd != SECOND
    source = read_source(write(tmp_path, SAMPLE + odd + third, "x.soft"))
    assert (source.samples, source.genes) == (["GSM1", "GSM3"], ["p1", "p2"])
    (left_out,) = source.left_out
    assert (left_out.what, left_out.names) == ("samples", ("GSM2",))


def test_read_soft__a_sample_of_another_platform_goes_with_its_genes(tmp_path):
    many = "".join(SAMPLE.replace("GSM1", f"GSM{i}") for i in range(10, 19))
    source = read_source(write(tmp_path, many + SECOND.replace("GPL96", "GPL97"), "x.soft"))
    assert (len(source.samples), source.genes) == (9, ["p1", "p2"])
    assert [str(one) for one in source.left_out] == [
        "1 sample left out: of another platform than GPL96 ('GSM2')"
    ]
    np.testing.assert_array_equal(source.read(0, 9), [[1, 2]] * 9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (f"p2\t2\tA\n{SAMPLE_END}", "p2\t2\tA\n", rf"line 23: {NO_SAMPLE_END}, got '\^SAM"),
        (f"p2\t4\tA\n{SAMPLE_END}", "p2\t4\tA\n", rf"{NO_SAMPLE_END}, got the end of the file"),
        ("p2\t2\tA", "p2\t2", r"line 22: expected 3 columns, got 2\."),
        ("p2\t2\tA", "p2\tx\tA", r"line 22: expected a number, got 'x' in column 'VALUE'\."),
        ("p2\t2\tA", "p1\t2\tA", r"line 22: expected each id once, got 'p1' again"),
        ("GSM2", "GSM1", r"expected each sample once, got 'GSM1' again"),
        (SECOND, SECOND.replace("GPL96", "GPL97"), r"samples of one platform, got GPL96, GPL97"),
        ("^SAMPLE = GSM2", "SAMPLE = GSM2", r"before another sample's table, got a second of"),
    ],
    ids=[
        "no-end", "cut", "short-row", "word", "repeated-probe", "repeated-sample", "platforms",
        "two tables",
    ],
)  # fmt: skip
def test_read_soft__refuses(tmp_path, old, new, message):
    text = FAMILY.replace(old, new)
    assert text != FAMILY
    with pytest.raises(SourceError, match=message) as caught:
        read_source(write(tmp_path, text, "GSE8_family.soft"))
    assert str(caught.value).startswith("GSE8_family.soft, line ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PLATFORM,
            r"expected samples, got none: the file tells of a series or platform alone\. Give",
        ),
        (
            "^SAMPLE = GSM1\n!Sample_title = x\n",
            r"expected at least one sample table, got none in 1 ",
        ),
        (
            SAMPLE[SAMPLE.index("!sample_table_begin") :],
            r"expected '\^SAMPLE' before a sample table",
        ),
        (
            SAMPLE.replace("VALUE\t", "SIGNAL\t"),
            r"line 11: expected columns 'ID_REF' and 'VALUE' of sample 'GSM1', got 'ID_REF', 'SIG",
        ),
        (
            SAMPLE.replace("ID_REF\t", "SPOT\t"),
            r"line 11: expected columns 'ID_REF' and 'VALUE' of sample 'GSM1', got 'SPOT', 'VALU",
        ),
        (SAMPLE.replace("p1\t1\tP\np2\t2\tA\n", ""), r"line 12: expected rows of.*'GSM1' has no"),
    ],
    ids=["no-samples", "no-table", "no-sample-line", "no-value", "no-id", "empty"],
)
def test_read_soft__without_tables(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        read_source(write(tmp_path, text, "a.soft"))


DATASET = """^DATABASE = Geo
^DATASET = GDS1
!dataset_platform = GPL97
!dataset_reference_series = GSE9
^SUBSET = GDS1_1
!subset_description = tumour
!subset_sample_id = GSM1,GSM9
!subset_type = disease state
^SUBSET = GDS1_2
!subset_description = normal
!subset_sample_id = GSM2
!subset_type = disease state
^DATASET = GDS1
!dataset_table_begin
ID_REF\tIDENTIFIER\tGSM1\tGSM2
p1\tDDR1\t1\tnull
p2\tPAX8\t3\t4
!dataset_table_end
"""


def test_read_soft__data_set(tmp_path):
    source = read_source(write(tmp_path, DATASET, "GDS1.soft.gz"))
    assert source.samples == ["GSM1", "GSM2"]
    assert source.gene_symbol == ["DDR1", "PAX8"]
    assert source.series == "GSE9"
    assert source.platform == ["GPL97", "GPL97"]
    assert source.labels == {"disease state": ["tumour", "normal"]}
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [NAN, 4]])


def test_read_soft__full_data_set_has_annotation_behind_its_samples(tmp_path):
    text = DATASET.replace("\tGSM2\n", "\tGSM2\tGene title\tGene ID\tChromosome location\n")
    text = text.replace("1\tnull", "1\tnull\ta title\t780\t6p21.3").replace(
        "3\t4", "3\t4\t\t7849\t"
    )
    source = read_source(write(tmp_path, text, "GDS1_full.soft.gz"))
    assert (source.samples, source.gene_symbol) == (["GSM1", "GSM2"], ["DDR1", "PAX8"])
    np.testing.assert_array_equal(source.read(0, 2), [[1, 3], [NAN, 4]])
    assert source.left_out[0].names == ("Gene title", "Gene ID", "Chromosome location")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("!dataset_table_end\n", "", r"line 18: expected '!dataset_table_end' after the table"),
        (
            "IDENTIFIER",
            "NAME",
            r"line 15: expected the header 'ID_REF', 'IDENTIFIER', got \['ID_REF', 'NAM",
        ),
        (
            "p1\tDDR1\t1\tnull\np2\tPAX8\t3\t4\n",
            "",
            r"line 16: expected rows of values, got an empty",
        ),
        ("GSM1\tGSM2", "GSM1\tGSM1", r"line 15: expected each sample once"),
    ],
    ids=["no-end", "header", "empty", "repeated-sample"],
)
def test_read_soft__refuses_a_wrong_data_set(tmp_path, old, new, message):
    with pytest.raises(SourceError, match=message):
        read_source(write(tmp_path, DATASET.replace(old, new), "GDS1.soft"))


def test_read_soft__real_heads(repo_data):
    sample = read_source(repo_data / "GSM11805.txt.gz")
    assert (sample.values.shape, sample.series, sample.platform) == ((1, 50), "GSE781", ["GPL96"])
    data_set = read_source(repo_data / "GDS507.soft.gz")
    assert (data_set.values.shape, data_set.series) == ((17, 50), "GSE781")
    assert data_set.labels["disease state"].count("RCC") == 9
    odd_ends = read_source(repo_data / "GSM32878.txt")
    np.testing.assert_allclose(odd_ends.read(0, 1), [[0.157557497, 0.316207298]])
    assert (odd_ends.genes, odd_ends.series) == (["1", "9182"], "GSE1864")
    family = read_source(repo_data / "soft_ex_family.txt")
    assert family.values.shape == (3, 20)
    np.testing.assert_allclose(family.read(0, 3)[:, 0], [-1.6274758, -1.1697263, -0.7837546])
    assert family.labels["Strain"] == ["129Sv", "129Sv", "129Sv"]
    with pytest.raises(
        SourceError, match=r"GSM2795971\.txt, line \d+: expected at least one sample"
    ):
        read_source(repo_data / "GSM2795971.txt")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "platform"),
    [
        ("GSE55235_series_matrix.txt.gz", (30, 22283), "GPL96"),
        ("GSE4107_series_matrix.txt.gz", (22, 54675), "GPL570"),
    ],
)
def test_read_series_matrix__real_files(data_dir, name, shape, platform):
    source = read_source(data_dir / "geo" / name)
    assert source.values.shape == shape
    assert set(source.platform) == {platform}
    assert np.isfinite(source.read(0, shape[0])).all()


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("GSM11805.txt.gz", (1, 22283)),
        ("GDS507.soft.gz", (17, 22645)),
        ("soft_ex_family.txt", (3, 20)),
    ],
)
def test_read_soft__real_files(data_dir, name, shape):
    assert read_source(data_dir / "soft" / name).values.shape == shape


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["GPL20814_family.soft", "GSE105845_family.soft", "GSM2795971.txt"]
)
def test_read_soft__real_files_without_tables(data_dir, name):
    with pytest.raises(
        SourceError, match=r"expected (at least one sample table|samples), got none"
    ):
        read_source(data_dir / "soft" / name)


def test_read_soft__counters_of_reads_that_are_left_out_are_told(tmp_path):
    path = tmp_path / "GSE1_family.soft"
    rows = "!sample_table_begin\nID_REF\tVALUE\nTP53\t2\nN_unmapped\t900\n!sample_table_end\n"
    path.write_text(f"^SAMPLE = GSM1\n{rows}^SAMPLE = GSM2\n{rows}")
    source = read_source(path)
    assert source.genes == ["TP53"]
    assert [str(one) for one in source.left_out] == [
        "1 row left out: counters of reads ('N_unmapped')"
    ]


def test_read_series_matrix__labels_go_by_name(tmp_path):
    table = TABLE.replace('"GSM1"\t"GSM2"', '"GSM2"\t"GSM1"')
    source = read_source(write(tmp_path, HEAD + BEGIN + table + END))
    assert source.samples == ["GSM2", "GSM1"]
    assert source.labels["title"] == ["second", "first"]
    assert source.labels["dose"] == ["high; daily", "1:2"]
    assert source.platform == ["GPL97", "GPL96"]


def test_read_series_matrix__table_of_other_samples(tmp_path):
    path = write(tmp_path, SERIES.replace('\t"GSM2"\n"p1"', '\t"GSM3"\n"p1"'))
    with pytest.raises(SourceError, match=r"line 8: expected the samples of the .* without 'GSM3'"):
        read_source(path)
