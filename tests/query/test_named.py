"""`dglzarr genes`: what each id of a list is, became, and why."""

import io
import json
import time

import pandas as pd
import pytest

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.query.genes import GeneNames, names_of
from dglzarr.query.named import Names, read_known, trace_list
from dglzarr.sources.aliases import read_aliases, read_names

GPL = (
    "ID\tGene Symbol\tENTREZ_GENE_ID\n"
    "1007_s_at\tDDR1 /// MIR4640\t780\n"
    "5_at\tMARCH5\t54708\n"
    "6_at\t5-Mar\t54708\n"
    "7_at\tTP53\t7157.0\n"
    "AFFX-BioB-5_at\t---\t\n"
)
HGNC = (
    "symbol\talias_symbol\tprev_symbol\tentrez_id\tensembl_gene_id\n"
    "MARCHF5\tRNF153|MITOL\tMARCH5\t54708\tENSG00000198060\n"
    "TP53\tp53|LFS1\t\t7157\tENSG00000141510\n"
    "CCN2\tIGFBP8\tCTGF|OLD\t1490\tENSG00000118523\n"
    'NOX4\t"KOX|RENOX"\t\t50507\tENSG00000086991\n'
    "A1\tKOX|CTGF\tOLD\t5\tENSG00000000005\n"
)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "gpl.txt").write_text(GPL, encoding="utf-8")
    (tmp_path / "hgnc.txt").write_text(HGNC, encoding="utf-8")
    return tmp_path


@pytest.fixture
def known(files):
    return read_known([str(files / "gpl.txt")], str(files / "hgnc.txt"))


@pytest.mark.parametrize(
    ("name", "what", "symbol", "gene_id", "why"),
    [
        ("1007_s_at", "probe", "DDR1", "780", "DDR1 in gpl.txt"),
        ("TP53", "symbol", "TP53", "7157", ""),
        ("tp53", "symbol", "TP53", "7157", "written TP53"),
        ("p53", "alias", "TP53", "7157", "alias of TP53"),
        ("CTGF", "former symbol", "CCN2", "1490", "former symbol of CCN2"),
        ("MARCH5", "former symbol", "MARCHF5", "54708", "MARCH5 is a former symbol of MARCHF5"),
        ("5_at", "probe", "MARCHF5", "54708", "is a former symbol of MARCHF5"),
        ("6_at", "probe", "MARCHF5", "54708", "gpl.txt has the date '5-Mar' for its symbol"),
        ("5-Mar", "date", "MARCHF5", "54708", "once MARCH5"),
        ("1-Mar", "several", "", "", "MARCHF1 or MTARC1"),
        ("3-May", "date", "", "", "of no known gene"),
        ("7157", "Entrez id", "TP53", "7157", "id of TP53 in gpl.txt"),
        ("7157.0", "Entrez id", "TP53", "7157", "which a table of numbers made 7157.0"),
        ("ENSG00000141510.18", "Ensembl id", "TP53", "ENSG00000141510", "without its version"),
        ("ensg00000141510", "Ensembl id", "TP53", "ENSG00000141510", "Ensembl id of TP53"),
        ("CCN2|1490", "Entrez id", "CCN2", "1490", "1490 of the pair counts"),
        ("KOX", "several", "", "", "alias of NOX4 and of A1"),
        ("OLD", "several", "", "", "former symbol of CCN2 and of A1"),
        ("AFFX-BioB-5_at", "no symbol", "", "", "gpl.txt has no symbol for it"),
        ("TP54", "not known", "", "", "did you mean TP53"),
        ("999999", "not known", "", "", ""),
        ("---", "not known", "", "", ""),
    ],
)
def test_trace__says_what_an_id_became_and_why(known, name, what, symbol, gene_id, why):
    found = known.trace(name)
    assert (found.what, found.symbol) == (what, symbol)
    assert found.gene_id.upper() == gene_id
    assert why in found.why
    assert bool(found.why) == bool(why)


def test_trace__without_tables_tells_what_looks_tell():
    bare = Names()
    assert bare.is_empty
    assert bare.trace("Sep-02").symbol == "SEPTIN2"
    assert bare.trace("TP53").what == "not known"


def test_read_names__keeps_what_each_other_name_is_and_aliases_agree(files):
    table = read_names(files / "hgnc.txt")
    assert table.symbols["MARCHF5"] == "MARCHF5"
    assert table.others["CTGF"] == {"CCN2": "former symbol", "A1": "alias"}
    assert table.others["ENSG00000141510"] == {"TP53": "id"}
    assert read_aliases(files / "hgnc.txt") == {k: tuple(of) for k, of in table.others.items()}


def test_list__each_id_once_in_order_from_the_column_that_is_known(files, known):
    (files / "list.tsv").write_text(
        "# a list\nname\tprobe\nx1\t1007_s_at\nx2\t5_at\nx3\t5_at\nx4\tnope\n", encoding="utf-8"
    )
    frame, counted = trace_list(files / "list.tsv", known)
    assert frame["id"].tolist() == ["1007_s_at", "5_at", "nope"]
    assert list(frame) == ["id", "what", "symbol", "gene_id", "why"]
    assert counted == "list.tsv, column 2, 3 ids: probe 2, not known 1."


def test_study__tells_the_features_that_measure_it_under_any_of_its_names(example_study, files):
    names = names_of(dglzarr.open(f"{example_study}#landmarks"))
    label, symbol = names.labels[3], names.symbols[3]
    (files / "other.txt").write_text(f"symbol\tprev_symbol\nNEWNAME\t{symbol}\n", encoding="utf-8")
    known = read_known([], str(files / "other.txt"), names)
    new, old, far = known.trace("NEWNAME"), known.trace(symbol), known.trace("5-Mar")
    assert label in new.features.split(", ")
    assert (old.symbol, old.features) == ("NEWNAME", new.features)
    assert (far.symbol, far.features) == ("MARCHF5", "")
    assert far.why.endswith("not measured by the study")


@pytest.fixture
def genes(files, capsys, monkeypatch):
    monkeypatch.chdir(files)

    def call(*words):
        status = guarded(lambda: app(["genes", *map(str, words)], standalone_mode=False))
        return status, *capsys.readouterr()

    return call


def test_command__unknown_ids_are_no_error_and_a_study_brings_its_tables(files, genes):
    (files / "check.txt").write_text("5_at\nTP54\n", encoding="utf-8")
    (files / "study.toml").write_text(
        'root = "out"\n[ingest]\nannotation = "gpl.txt"\n[[sources]]\nuri = "*.gct"\n',
        encoding="utf-8",
    )
    status, out, err = genes("check.txt", "study.toml", "--aliases", "hgnc.txt")
    frame = pd.read_csv(io.StringIO(out), sep="\t", keep_default_na=False)
    assert status == 0
    assert frame["symbol"].tolist() == ["MARCHF5", ""]
    assert "out: not mined yet" in err
    assert "check.txt, 2 ids: probe 1, not known 1." in err
    status, out, _ = genes("check.txt", "--annotation", "gpl.txt", "--format", "json")
    assert (status, json.loads(out)[0]["symbol"]) == (0, "MARCH5")
    status, out, err = genes("check.txt", "--output", "t.csv")
    assert (status, out) == (0, "Written: t.csv, 2 rows\n")
    assert "No table of names" in err


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["nosuch.txt"], 1, "nosuch.txt"),
        (["empty.txt"], 1, "empty.txt: expected at least one id, got none."),
        (["ok.txt", "--annotation", "nosuch.txt"], 1, "nosuch.txt"),
        (["ok.txt", "--aliases", "gpl.txt"], 1, "expected columns of symbols and of aliases"),
        (["ok.txt", "nosuch.toml"], 2, "nosuch.toml: cannot be read"),
        (["ok.txt", "--format", "xls"], 2, "--format"),
    ],
)
def test_command__bad_input_is_one_line(files, genes, words, status, told):
    (files / "empty.txt").write_text("\n# none\n", encoding="utf-8")
    (files / "ok.txt").write_text("TP53\n", encoding="utf-8")
    (files / "gpl.txt").write_text("ID\tother\n1\t2\n", encoding="utf-8")
    got, out, err = genes(*words)
    assert (got, out) == (status, "")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.data
def test_real__the_published_landmarks_by_the_real_annotation(data_dir):
    known = read_known([str(data_dir / "annotation" / "GPL96.txt")])
    frame, counted = trace_list(data_dir / "l1000" / "map_lm.txt", known)
    assert len(frame) == 943
    assert "column 3" in counted
    assert (frame["what"] == "probe").sum() == 916


def test_list__of_a_whole_platform_takes_no_minutes(tmp_path):
    """Each id is looked up, not compared with all that the tables and the study know."""
    n = 30_000
    rows = "".join(f"{k}_at\tSIM{k}\t{k}\n" for k in range(n))
    (tmp_path / "gpl.txt").write_text(f"ID\tGene Symbol\tENTREZ_GENE_ID\n{rows}", encoding="utf-8")
    (tmp_path / "ids.txt").write_text("".join(f"{k}_at\n" for k in range(n)), encoding="utf-8")
    study = GeneNames([f"OTHER{k}" for k in range(n)])
    known = read_known([str(tmp_path / "gpl.txt")], study=study)
    started = time.process_time()
    frame, _ = trace_list(tmp_path / "ids.txt", known)
    assert time.process_time() - started < 20
    assert frame["symbol"].tolist() == [f"SIM{k}" for k in range(n)]
    assert set(frame["why"].str.partition(";")[2]) == {" not measured by the study"}
