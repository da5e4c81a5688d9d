import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dglzarr.errors import SourceError
from dglzarr.sources.identifiers import (
    Annotation,
    PanelMatch,
    first_symbol,
    match_genes,
    read_annotation_table,
    read_gene_list,
    read_panel,
    strip_version,
)

NAN = float("nan")


def write(tmp_path, content, name="a.txt"):
    raw = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return tmp_path / name


@pytest.mark.parametrize(
    ("gene_id", "expected"),
    [
        ("ENSG000001.5", "ENSG000001"),
        ("ENSG000001", "ENSG000001"),
        ("ENSG00000182378.8_PAR_Y", "ENSG00000182378"),
        ("ENSMUSG000001.12", "ENSMUSG000001"),
        ("AC012345.1", "AC012345.1"),
        ("780", "780"),
        ("", ""),
    ],
)
def test_strip_version__cases(gene_id, expected):
    assert strip_version(gene_id) == expected


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ("A /// B", "A"),
        ("A///B", "A"),
        ("HLA-DRB1//HLA-DRB4", "HLA-DRB1"),
        (" A ", "A"),
        ("---", ""),
        ("NA", ""),
        ("-666", ""),
        ("", ""),
    ],
)
def test_first_symbol__cases(symbols, expected):
    assert first_symbol(symbols) == expected


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_read_gene_list__comments_and_blanks(tmp_path, name):
    path = write(tmp_path, '# probes\n\np1\r\n"p2"\n p3  # the third\nab#c\n', name)
    assert read_gene_list(path) == ["p1", "p2", "p3", "ab#c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.txt: expected a table, got an empty file\."),
        ("# only a comment\n", r"a\.txt: expected at least one id, got none\."),
        ("p1\np2\n\np1\n", r"a\.txt, line 4: expected each id once, got 'p1' of line 1 again"),
        ("p1\tDDR1\n", r"a\.txt, line 1: expected one id a line, got several cells\. Keep"),
        ("^DATABASE = GeoMiame\n", r"a\.txt, line 1: .*, got a file of GEO: '\^DATABASE"),
        (b"\x89PNG\0", r"a\.txt: expected plain or gzip text, got binary data"),
        (gzip.compress(b"p1\n" * 99)[:-9], r"a\.txt, line \d+: expected a complete gzip file, got"),
    ],
    ids=["empty", "comment", "repeat", "table", "soft", "binary", "cut"],
)
def test_read_gene_list__refuses(tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        read_gene_list(write(tmp_path, content))


@pytest.mark.parametrize(
    "read", [read_gene_list, read_annotation_table], ids=["list", "annotation"]
)
def test_read__missing_file(tmp_path, read):
    with pytest.raises(SourceError, match=r"none\.txt: expected a readable file, got No such"):
        read(tmp_path / "none.txt")


@pytest.mark.parametrize(
    "column", ["Gene symbol", "Gene Symbol", "symbol", "gene_symbol", "SYMBOL"]
)
@pytest.mark.parametrize("separator", ["\t", ","])
def test_read_annotation__symbol_column(tmp_path, column, separator):
    rows = [["ID", "Title", column], ["p1", "x", "A /// B"], ["p2", "y", ""], ["p3", "z", "---"]]
    path = write(tmp_path, "\n".join(separator.join(row) for row in rows))
    assert read_annotation_table(path).symbol == {"p1": "A", "p2": "", "p3": ""}


PLATFORM = """^PLATFORM = GPL96
!Platform_title = x\ty
#ID = Affymetrix id
#Gene Symbol = symbol
!platform_table_begin
ID\tGB_ACC\tGene Symbol\tENTREZ_GENE_ID
p1\tU1\tDDR1 /// MIR4640\t780 /// 100616237
p2\tU2\t
!platform_table_end
^SAMPLE = GSM1
!sample_table_begin
ID_REF\tVALUE
p1\t3
"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_read_annotation_table__platform_file(tmp_path, end):
    path = write(tmp_path, PLATFORM.replace("\n", end), "GPL96.annot.gz")
    assert read_annotation_table(path) == Annotation(
        symbol={"p1": "DDR1", "p2": ""}, gene_id={"p1": "780", "p2": ""}
    )


def test_read_annotation_table__first_row_that_says_something(tmp_path):
    path = write(tmp_path, "probe\tsymbol\tEnsembl\np1\t\tE1\np1\tA\t\np1\tB\tE2\n")
    assert read_annotation_table(path) == Annotation({"p1": "A"}, {"p1": "E1"})


def test_read_annotation_table__row_names_of_r(tmp_path):
    path = write(tmp_path, "\tensembl_gene_id\thgnc_symbol\n1\tENSG1\tA\n2\tENSG2\tB\n")
    assert read_annotation_table(path).symbol == {"ENSG1": "A", "ENSG2": "B"}


def test_read_annotation_table__latin_1(tmp_path):
    path = write(tmp_path, "ID\tsymbol\tnote\np1\tA\tCharité\n".encode("latin-1"))
    assert read_annotation_table(path).symbol == {"p1": "A"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "p1\tDDR1\np2\tA\n",
            r"a\.txt, line 1: expected a column 'Gene Symbol' or 'Gene ID', got 'p1', ",
        ),
        ("", r"a\.txt: expected a table, got an empty file"),
    ],
    ids=["no-header", "empty"],
)
def test_read_annotation_table__refuses(tmp_path, content, message):
    with pytest.raises(SourceError, match=message):
        read_annotation_table(write(tmp_path, content))


LABELS = ["p1", "p2", "p3", "p4"]
SYMBOLS = ["A", "B /// C", "A", ""]
GENE_IDS = ["10", "20", "10", "40"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("p3\np1\nzz\n", (["p3", "p1"], ["zz"])),
        ("A\tENSG1\tp3\nB\tENSG2\tp1\n", (["p3", "p1"], [])),
        ("symbol,probe\nB,p2\nZ,p4\n", (["p2", "p4"], [])),
        ("B\nA\nZ\nA\n", (["p2", "p1"], ["Z"])),
        ("gene_symbol\nb\na\n", (["p2", "p1"], [])),
        ("pr_gene_id,other\n40,x\n20,y\n99,z\n", (["p4", "p2"], ["99"])),
        ("A\tp1,p2\nB\tp3\n", (["p1", "p2", "p3"], [])),
        ('"B","x"\n"A","y"\n', (["p2", "p1"], [])),
        ("B\nC\nA\nZ\n", (["p2", "p1"], ["C", "Z"])),
    ],
    ids=[
        "labels", "dgex", "header", "symbols", "letter-case", "entrez", "joined", "quoted",
        "second-symbol",
    ],
)  # fmt: skip
def test_read_panel__best_column(tmp_path, text, expected):
    path = write(tmp_path, text)
    match = read_panel(path, genes=LABELS, symbols=SYMBOLS, gene_ids=GENE_IDS)
    assert match == PanelMatch(*expected)


def test_read_panel__ensembl_versions(tmp_path):
    path = write(tmp_path, "ENSG2.7\nENSG1\n")
    assert read_panel(path, genes=["ENSG1.1", "ENSG2.3"]).genes == ["ENSG2.3", "ENSG1.1"]
    ids = read_panel(path, genes=["p1", "p2"], gene_ids=["ENSG1", "ENSG2.9"])
    assert ids.genes == ["p2", "p1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x\ty\nz\tw\n",
            r"a\.txt: expected ids or symbols of the study's genes such as 'p1', got 'x', 'y'",
        ),
        ("", r"a\.txt: expected a table, got an empty file"),
    ],
    ids=["foreign", "empty"],
)
def test_read_panel__refuses(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        read_panel(write(tmp_path, text), genes=LABELS, symbols=SYMBOLS)


def pairs(match):
    return list(zip(match.study.tolist(), match.query.tolist(), strict=True))


@pytest.mark.parametrize(
    ("query", "study", "expected"),
    [
        ((["b", "a"], None), (["a", "b", "c"], None), [(0, 1), (1, 0)]),
        ((["E.2"], None), (["E.1"], None), []),
        ((["ENSG1.2"], None), (["ENSG1.7"], None), [(0, 0)]),
        ((["ENSG1.2", "ENSG1.7"], None), (["ENSG1.7"], None), [(0, 1)]),
        ((["ENSG1.2", "ENSG1.2_PAR_Y"], None), (["ENSG1"], None), [(0, 0)]),
        ((["E1", "E2", "E3"], ["A", "B", "a"]), (["p1", "p2"], ["A /// X", ""]), [(0, 0), (0, 2)]),
        ((["E1", "E2"], ["B", "A /// B"]), (["p1", "p2"], ["A", "B"]), [(0, 1), (1, 0)]),
        ((["E1"], ["A"]), (["p1", "p2"], ["A", "A"]), [(0, 0), (1, 0)]),
        ((["A", "B"], None), (["p1"], ["B"]), [(0, 1)]),
        ((["E1"], ["A"]), (["a"], None), [(0, 0)]),
        ((["E1", "E2"], ["", "---"]), (["p1"], [""]), []),
        (([], []), (["p1"], ["A"]), []),
    ],
    ids=[
        "labels", "no-version", "version", "exact-first", "second-copy", "symbol-group",
        "first-of-several",
        "shared", "ids-are-symbols", "label-is-symbol", "no-symbols", "empty",
    ],
)  # fmt: skip
def test_match_genes__cases(query, study, expected):
    assert pairs(match_genes(*query, *study)) == expected


def test_match_genes__gene_ids_before_symbols():
    match = match_genes(["780", "9"], ["X", "A"], ["p1", "p2"], ["A", "A"], gene_ids=["780", ""])
    assert pairs(match) == [(0, 0), (1, 1)]
    assert match.found.tolist() == [True, True]


def test_gene_match__apply_averages_what_is_known():
    match = match_genes(["E1", "E2", "E3"], ["A", "A", "B"], ["p1", "p2", "p3"], ["B", "Z", "A"])
    block = np.array([[1, 3, 7], [NAN, 3, NAN], [NAN, NAN, 2]], np.float32)
    matched = match.apply(block)
    assert matched.dtype == np.float32
    np.testing.assert_array_equal(matched, [[7, NAN, 2], [NAN, NAN, 3], [2, NAN, NAN]])
    assert match.found.tolist() == [True, False, True]


def test_gene_match__apply_without_common_genes():
    match = match_genes(["x"], None, ["a", "b"])
    np.testing.assert_array_equal(match.apply(np.ones((2, 1))), np.full((2, 2), NAN))
    assert not match.found.any()


@given(
    query=st.lists(st.sampled_from("ABCDEF"), max_size=12),
    study=st.lists(st.sampled_from("ABCDEFGH"), max_size=8, unique=True),
    seed=st.integers(0, 99),
)
def test_gene_match__apply_equals_a_naive_loop(query, study, seed):
    rng = np.random.default_rng(seed)
    block = np.where(rng.random((3, len(query))) < 0.2, NAN, rng.normal(size=(3, len(query))))
    ids = [f"E{i}" for i in range(len(query))]
    match = match_genes(ids, query, [f"p{name}" for name in study], study)
    for sample, row in enumerate(match.apply(block)):
        for gene, value in zip(study, row, strict=True):
            known = [x for x, s in zip(block[sample], query, strict=True) if s == gene and x == x]
            if known:
                assert value == pytest.approx(np.mean(known), rel=1e-6)
            else:
                assert np.isnan(value)


@pytest.mark.data
def test_read_gene_list__common_probes(data_dir):
    assert len(read_gene_list(data_dir / "annotation/probes_22268.txt")) == 22268


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "n_rows", "n_symbols", "example"),
    [
        ("annotation/GPL96.txt", 22283, 19782, ("1007_s_at", "DDR1")),
        ("annotation/GPL570_bioc.tsv", 41937, 41937, ("1053_at", "RFC2")),
        ("gtex/GTEx_yarn_skin_genes.tsv.gz", 40824, 25666, ("ENSG00000227232", "WASH7P")),
        ("l1000/GSE92742_Broad_LINCS_gene_info.csv", 12328, 12309, ("780", "DDR1")),
        ("soft/soft_ex_family.txt", 20, 18, ("1", "Nfatc2")),
    ],
)
def test_read_annotation__real_files(data_dir, name, n_rows, n_symbols, example):
    symbols = read_annotation_table(data_dir / name).symbol
    assert (len(symbols), sum(map(bool, symbols.values()))) == (n_rows, n_symbols)
    assert symbols[example[0]] == example[1]


@pytest.mark.data
def test_read_panel__published_lists(data_dir):
    probes = read_gene_list(data_dir / "annotation/probes_22268.txt")
    symbol_of = read_annotation_table(data_dir / "annotation/GPL96.txt").symbol
    symbols = [symbol_of.get(probe, "") for probe in probes]
    landmarks = read_panel(data_dir / "l1000/map_lm.txt", genes=probes, symbols=symbols)
    assert (len(landmarks.genes), landmarks.missing) == (943, [])
    targets = read_panel(data_dir / "l1000/map_tg.txt", genes=probes, symbols=symbols)
    assert (len(targets.genes), targets.missing) == (15744, [])
    assert set(landmarks.genes).isdisjoint(targets.genes)


def test_read_panel__a_gct_is_no_list(tmp_path):
    path = tmp_path / "panel.gct"
    path.write_text("#1.2\n1\t1\nName\tDescription\ts0\n200814_at\tPSME1\t1.5\n")
    with pytest.raises(SourceError, match="expected a list of genes, got a GCT"):
        read_panel(path, genes=["200814_at"])


@pytest.mark.parametrize("word", ["#NAME?", "#REF!", "#N/A", "#VALUE!", "Unknown", "not available"])
def test_first_symbol__words_for_no_symbol(word):
    assert first_symbol(word) == first_symbol(f"{word} /// TP53") == ""


def test_read_annotation_table__comma_in_a_cell(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ID,Title,Gene Symbol,Note\n1_at,a,DDR1,\n2_at,a, b,RFC2,\n")
    with pytest.raises(SourceError, match=r"line 3: expected 4 cells .*, got 5\. Quote cells"):
        read_annotation_table(path)
