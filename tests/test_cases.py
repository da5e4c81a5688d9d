"""Files as people have them: each once gave a wrong value, or a traceback, without a word.

The inputs are in `tests/data/cases`, a folder a case, with few samples of few genes.
"""

import ast
import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import ConfigError, SourceError
from dglzarr.settings import load_settings
from dglzarr.sources import Reading, read_source
from dglzarr.sources.identifiers import (
    Annotation,
    read_annotation_table,
    read_gene_list,
    read_panel,
)
from dglzarr.sources.peek import peek_size
from dglzarr.sources.scaled import find_scale
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.store import open_store
from dglzarr.studies.plan import Plan

CASES = Path(__file__).resolve().parent / "data" / "cases"
MATRIX = CASES / "GSE1_series_matrix.txt"


def joined(folder, *files, seed=0, **options):
    """The expression of some files."""
    raws = []
    for file in files:
        raws.append(str(folder / f"{file.stem}.zarr"))
        ingest(str(file), raws[-1])
    target = str(folder / "expression.zarr")
    options = JoinOptions(**{"split_by": "sample", **options})
    join(raws, target, seed=seed, options=options)
    return open_store(target)


def value(ds, sample, gene):
    """One value of a store."""
    return float(ds["expression"].sel(sample=sample, gene=gene))


def test_case__annotation_csv():
    folder = CASES / "annotation-csv"
    tp53 = {"1_at": ("TP53", "7157")}
    for name, expected in (("tab.csv", tp53), ("newline.csv", {**tp53, "2_at": ("MYC", "4609")})):
        found = read_annotation_table(folder / name)
        assert {p: (found.symbol[p], found.gene_id[p]) for p in found.symbol} == expected


def test_case__appledouble(tmp_path):
    shutil.copy(MATRIX, tmp_path)
    (tmp_path / "._GSE1_series_matrix.txt").write_bytes(b"\0\x05\x16\x07\0\2\0\0Mac OS X")
    study = tmp_path / "study.toml"
    study.write_text('root = "study"\n[[sources]]\nuri = "*_series_matrix.txt"\n')
    settings = load_settings(study)
    (found,) = Plan.of(settings).sources
    assert Path(found.path).name == "GSE1_series_matrix.txt"
    study.write_text('root = "study"\n[[sources]]\nuri = "._*"\n')
    (hidden,) = Plan.of(load_settings(study)).sources
    assert Path(hidden.path).name == "._GSE1_series_matrix.txt"


@pytest.mark.parametrize("accession", ["GSE55235", "gse1234", "GSE7"])
def test_case__accession_as_uri(tmp_path, accession):
    study = tmp_path / "study.toml"
    study.write_text(f'root = "study"\n[[sources]]\nuri = "{accession}"\n')
    settings = load_settings(study)
    with pytest.raises(
        ConfigError,
        match=rf'no such file: .* An accession is written geo = "{accession.upper()}"\.',
    ):
        Plan.of(settings)


def test_case__ensembl_versions(tmp_path):
    folder = CASES / "ensembl-versions"
    annotation = str(folder / "ann.tsv")
    file = folder / "GSE1_expr.tsv"
    genes = joined(tmp_path, file, feature_kind="gene", annotation=annotation)["gene"].values
    assert sorted(map(str, genes)) == sorted(f"SYM{i}" for i in range(40))
    symbols = read_annotation_table(annotation)
    assert (symbols.symbol_of("ENSG00000000003.5"), symbols.symbol_of("x")) == ("SYM3", "")


def test_case__entrez_column(tmp_path):
    file = CASES / "entrez-column" / "GSE1_rsem.txt"
    source = read_source(file)
    assert (len(source.samples), source.samples[0]) == (16, "GSE1s0")
    assert [str(one) for one in source.left_out] == [
        "1 column left out: identifiers of genes ('Entrez_Gene_Id')"
    ]
    assert value(joined(tmp_path, file), "GSE1s0", "G0") == pytest.approx(np.log2(376.53))


def test_case__entrez_floats():
    folder = CASES / "entrez-floats"
    annotation = read_annotation_table(folder / "ann.txt")
    probes = list(annotation.gene_id)
    assert annotation.gene_id["g000_at"] == "1000"
    ids = [annotation.gene_id[probe] for probe in probes]
    assert read_panel(folder / "lm.txt", genes=probes, gene_ids=ids).genes == probes[:5]
    floats = [f"{number}.0" for number in ids]
    assert read_panel(folder / "lm.txt", genes=probes, gene_ids=floats).genes == probes[:5]


DAMAGES = {  # bytes of a GCTX, set to others
    10616: {13241: 127, 13242: 127, 13243: 127, 13244: 127},
    1097: {14131: 128},
    13854: {5340: 1, 13219: 32, 14045: 107},
    15265: {12953: 127, 12954: 127, 12955: 127, 12956: 127},
    17553: {13759: 128, 13760: 128, 13761: 128, 13762: 128},
    20312: {4840: 206, 17792: 176},
    23712: {12952: 224},
    6154: {13679: 255, 13780: 3},
    8063: {13209: 127, 13210: 127, 13211: 127, 13212: 127},
}


@pytest.mark.parametrize("number", DAMAGES)
def test_case__gctx_damaged(tmp_path, number):
    raw = bytearray((CASES.parent / "mini_gctoo_for_testing.gctx").read_bytes())
    for place, byte in DAMAGES[number].items():
        raw[place] = byte
    (tmp_path / "GSE1.gctx").write_bytes(raw)
    with pytest.raises(SourceError, match=r"^GSE1\.gctx: expected a complete HDF5 file, got a dam"):
        read_source(tmp_path / "GSE1.gctx")


@pytest.mark.parametrize("name", ["GSE1.gctx", "GSE2_group.gctx"])
def test_case__gctx_ids_2d(name):
    source = read_source(CASES / "gctx-ids-2d" / name)
    assert (source.samples[0], source.genes[0]) == (f"GSE1s0{name[:4]}", "g000_at")
    assert source.labels == {}
    assert source.read(0, 1)[0, 0] == pytest.approx(8.5566, abs=1e-4)


@pytest.mark.parametrize("n_members", [1, 2, 9])
@pytest.mark.parametrize(("head", "error"), [(1 << 22, 0.01), (1 << 18, 0.1)])
def test_case__gzip_size(tmp_path, rng, monkeypatch, n_members, head, error):
    monkeypatch.setattr("dglzarr.sources.peek._HEAD_NBYTES", head)
    rows = [f"g{i}\t" + "\t".join(map(str, row)) for i, row in enumerate(rng.random((5000, 30)))]
    raw = "\n".join(["ID\t" + "\t".join(f"s{i}" for i in range(30)), *rows, ""]).encode()
    assert len(raw) > 1 << 21
    step = -(-len(raw) // n_members)
    members = [gzip.compress(raw[start : start + step]) for start in range(0, len(raw), step)]
    path = tmp_path / "GSE1.txt.gz"
    path.write_bytes(b"".join([*members, gzip.compress(b"")]))
    assert peek_size(path) == (30, pytest.approx(5000, rel=error))


def test_case__par_y(tmp_path):
    ds = joined(tmp_path, CASES / "par-y" / "GSE1.gct", feature_kind="gene")
    assert value(ds, "GSE1s0", "SYM3") == pytest.approx(7.1007, abs=1e-4)


def test_case__probe_list_header():
    listed = read_gene_list(CASES / "probe-list-header" / "probes.txt")
    assert listed[:2] == ["g000_at", "g001_at"]


def test_case__pvalue_columns(tmp_path):
    file = CASES / "pvalue-columns" / "GSE1_non-normalized.txt"
    ds = joined(tmp_path, file)
    assert ds.sizes["sample"] == 16
    assert value(ds, "GSE1s1.AVG_Signal", "ILMN_0") == pytest.approx(np.log2(251.66))
    (left_out,) = open_store(str(tmp_path / f"{file.stem}.zarr")).attrs["details"]["left_out"]
    assert (left_out["n"], left_out["what"]) == (16, "columns")
    assert left_out["reason"] == "p-values and detection calls"


@pytest.mark.parametrize("header", ["P{}", "GSE1s{}.extra"])
def test_case__pvalue_columns__by_their_values(tmp_path, header):
    lines = (CASES / "pvalue-columns" / "GSE1_non-normalized.txt").read_text().splitlines()
    cells = lines[0].split("\t")
    cells[2::2] = [header.format(i) for i in range(16)]
    path = tmp_path / "GSE1.txt"
    path.write_text("\n".join(["\t".join(cells), *lines[1:]]))
    with pytest.raises(SourceError, match=r"got 16 of 32 columns between 0 and 1.*value_columns"):
        find_scale(read_source(path), None)
    assert len(read_source(path, reading=Reading(("*.AVG_Signal",))).samples) == 16
    assert len(read_source(path, reading=Reading(("*",))).samples) == 32
    with pytest.raises(SourceError, match=r"expected columns like 'x\*' as value_columns say, got"):
        read_source(path, reading=Reading(("x*",)))


def test_case__series_characteristic(tmp_path):
    files = sorted((CASES / "series-characteristic").glob("GSE*"))
    ds = joined(tmp_path, *files, seed=3, split_by="series")
    assert [str(name) for name in ds["series"].values] == ["GSE1"] * 8 + ["GSE2"] * 8
    assert all(len(set(part)) == 1 for part in (ds["split"].values[:8], ds["split"].values[8:]))
    assert str(ds["label"].values[0]) == "series"


@pytest.mark.parametrize("name", ["nfcore.tsv", "genesymbol.tsv", "gtex.tsv"])
def test_case__symbol_headers__of_a_table(name):
    source = read_source(CASES / "symbol-headers" / name)
    assert (source.samples, source.gene_symbol) == (["S1", "S2"], ["TP53", "MYC"])
    np.testing.assert_array_equal(source.read(0, 2), np.array([[5.1, 7], [6, 8]], np.float32))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpl6244.txt", Annotation({"7896736": "OR4F17"}, {"7896736": "81099"})),
        ("biomart.tsv", Annotation({"ENSG1": "TP53"}, {"ENSG1": "ENSG1"})),
    ],
)
def test_case__symbol_headers__of_an_annotation(name, expected):
    assert read_annotation_table(CASES / "symbol-headers" / name) == expected


def test_case__toml_bom(tmp_path):
    path = tmp_path / "study.toml"
    path.write_bytes(b"\xef\xbb\xbf" + b'root = "study"\n[[sources]]\nuri = "a"\n')
    assert Path(load_settings(path).root).name == "study"


def test_case__trailing_unnamed_column(tmp_path):
    file = CASES / "trailing-unnamed-column" / "GSE1_expr.tsv"
    with pytest.raises(
        SourceError, match=r"line 1: expected a name for column 18, which holds '1'"
    ):
        read_source(file)
    named = tmp_path / "GSE1.tsv"
    named.write_text(file.read_text().replace("GSE1s15\t", "GSE1s15\twidth", 1))
    source = read_source(named)
    assert len(source.samples) == 16
    assert source.read(0, 1)[0, 0] == np.float32(375.53)


@pytest.mark.parametrize(
    "word", ["NULL", "null", "nan", "NaN", "N/A", "None", "na", "-", "---", "?", "#N/A"]
)
def test_case__words_for_no_symbol(tmp_path, word):
    folder = CASES / "words-for-no-symbol"
    gct, annotation = tmp_path / "GSE1.gct", tmp_path / "ann.txt"
    gct.write_text((folder / "GSE1.gct").read_text().replace("NULL", word))
    annotation.write_text((folder / "ann.txt").read_text().replace("nan", word))
    assert read_source(gct).gene_symbol is None
    ds = joined(tmp_path, gct, feature_kind="gene", annotation=str(annotation))
    assert sorted(map(str, ds["gene"].values)) == sorted(f"S{i}" for i in range(0, 40, 2))


def test_case__words_for_no_symbol__alone_the_labels_are_the_genes(tmp_path):
    ds = joined(tmp_path, CASES / "words-for-no-symbol" / "GSE1.gct", feature_kind="gene")
    assert ds.sizes["gene"] == 40


def test_source_options__value_columns(tmp_path):
    file, raw = CASES / "pvalue-columns" / "GSE1_non-normalized.txt", str(tmp_path / "GSE1.zarr")
    ingest(str(file), raw, options=SourceOptions(value_columns=["GSE1s[01].AVG_Signal"]))
    ds = open_store(raw)
    assert [str(name) for name in ds["sample"].values] == ["GSE1s0.AVG_Signal", "GSE1s1.AVG_Signal"]
    assert ds.attrs["details"]["left_out"][0]["n"] == 30
    options = SourceOptions(value_columns=["*"])
    with pytest.raises(SourceError, match=r"expected a table .* got series-matrix\. Remove"):
        ingest(str(MATRIX), str(tmp_path / "x.zarr"), options=options)
    assert SourceFile("a", "b", options).options.value_columns == ("*",)


# ---------------------------------------------------------------- each case has its test

NAMES = (
    "annotation-csv", "appledouble", "ensembl-versions", "entrez-column", "entrez-floats",
    "gctx-damaged", "gctx-ids-2d", "gzip-size", "late-settings", "par-y", "probe-list-header",
    "pvalue-columns", "series-characteristic", "symbol-headers", "toml-bom",
    "trailing-unnamed-column", "words-for-no-symbol",
)  # fmt: skip
"""The folders of trouble reports that were tried."""

ELSEWHERE = {"late-settings": "studies/test_early.py::test_late_settings"}


@pytest.mark.parametrize("name", NAMES)
def test_cases__each_has_a_test_named_after_it(name):
    place = ELSEWHERE.get(name, f"test_cases.py::test_case__{name.replace('-', '_')}")
    file, _, test = place.partition("::")
    tree = ast.parse((CASES.parents[1] / file).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert any(found == test or found.startswith(f"{test}__") for found in names)


@pytest.mark.data
def test_cases__no_folder_is_forgotten(data_dir):
    if not (folder := data_dir.parent / "cases").is_dir():
        pytest.skip(f"real data: {folder} is absent")
    assert {path.name for path in folder.iterdir()} == set(NAMES)
