"""Gene sets: GMT as MSigDB writes it, the Gene Ontology propagated, every fault in one line."""

import gzip

import pytest

from dglzarr.errors import SourceError
from dglzarr.sources.terms import read_gmt, read_ontology

OBO = """format-version: 1.2
ontology: go

[Term]
id: GO:1
name: molecular_function
namespace: molecular_function

[Term]
id: GO:2
name: binding
namespace: molecular_function
alt_id: GO:22
is_a: GO:1 ! molecular_function

[Term]
id: GO:3
name: DNA binding
namespace: molecular_function
is_a: GO:2 {source="x"} ! binding
relationship: part_of GO:8 ! a process
relationship: regulates GO:4 ! a part

[Term]
id: GO:4
name: a part
namespace: molecular_function
relationship: part_of GO:2 ! binding

[Term]
id: GO:5
name: gone
namespace: molecular_function
is_obsolete: true
is_a: GO:2

[Term]
id: GO:8
name: a process
namespace: biological_process

[Typedef]
id: part_of
name: part of
"""


def gaf(*rows):
    lines = ["!gaf-version: 2.2", "! a comment"]
    for symbol, qualifier, term in rows:
        cells = ["UniProtKB", f"P{symbol}", symbol, qualifier, term, "PMID:1", "IDA", "", "F"]
        lines.append(
            "\t".join([*cells, "name", "", "protein", "taxon:9606", "20260101", "GO", "", ""])
        )
    return "\n".join(lines) + "\n"


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def obo(tmp_path):
    return write(tmp_path / "go.obo", OBO)


def members(terms):
    return {i: set(g) for i, g in zip(terms.ids, terms.genes, strict=True)}


# ---------------------------------------------------------------- GMT


def test_read_gmt__terms_names_and_genes(tmp_path):
    text = "GO:01\tto bind\tA\tB\t\tA\n\nGO_TO_BIND\thttp://x.org/GO\tC\r\nplain_name\tna\tA\n"
    terms = read_gmt(write(tmp_path / "a.gmt", text))
    assert terms.ids == ["GO:01", "GO_TO_BIND", "plain_name"]
    assert terms.names == ["to bind", "to bind", "plain name"]
    assert members(terms) == {"GO:01": {"A", "B"}, "GO_TO_BIND": {"C"}, "plain_name": {"A"}}


def test_read_gmt__gzip(tmp_path):
    path = tmp_path / "a.gmt.gz"
    path.write_bytes(gzip.compress(b"T\tx\tA\n"))
    assert read_gmt(path).ids == ["T"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("T\tx\tA\nU\tx\n", r"a.gmt, line 2: .* got no genes for 'U'. Remove the line."),
        ("T\tx\t \t\n", r"line 1: .* got no genes for 'T'"),
        ("just a word\n", r"line 1: expected a term, a description and genes, tab-separated"),
        ("T\tx\tA\nU\tx\tA\nT\tx\tB\n", r"line 3: expected each term once, got 'T' of line 1"),
        ("", "got an empty file"),
    ],
)
def test_read_gmt__refused(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        read_gmt(write(tmp_path / "a.gmt", text))


# ---------------------------------------------------------------- OBO and GAF


def test_read_ontology__propagates_over_is_a_and_part_of_alone(tmp_path, obo):
    path = write(tmp_path / "a.gaf", gaf(("A", "enables", "GO:3"), ("B", "enables", "GO:4")))
    terms = read_ontology(obo, path)
    assert members(terms) == {"GO:1": {"A", "B"}, "GO:2": {"A", "B"}, "GO:3": {"A"}, "GO:4": {"B"}}
    assert dict(zip(terms.ids, terms.names, strict=True))["GO:3"] == "DNA binding"
    assert not terms.notes
    process = read_ontology(obo, path, namespace="biological_process")
    assert members(process) == {"GO:8": {"A"}}


def test_read_ontology__not_obsolete_unknown_and_alternative(tmp_path, obo):
    rows = [
        ("A", "NOT|enables", "GO:2"), ("B", "enables", "GO:22"), ("C", "enables", "GO:5"),
        ("D", "enables", "GO:99"), ("E", "enables", "GO:99"),
    ]  # fmt: skip
    terms = read_ontology(obo, write(tmp_path / "a.gaf", gaf(*rows)))
    assert members(terms) == {"GO:1": {"B"}, "GO:2": {"B"}}
    assert terms.notes == {
        "annotations with NOT": 1,
        "annotations to obsolete terms": 1,
        "annotations to unknown terms": 2,
    }


def test_read_ontology__a_cycle_ends(tmp_path):
    obo = write(
        tmp_path / "go.obo",
        "[Term]\nid: GO:1\nnamespace: molecular_function\nis_a: GO:2\n\n"
        "[Term]\nid: GO:2\nnamespace: molecular_function\nis_a: GO:1\n",
    )
    terms = read_ontology(obo, write(tmp_path / "a.gaf", gaf(("A", "", "GO:1"))))
    assert members(terms) == {"GO:1": {"A"}, "GO:2": {"A"}}


@pytest.mark.parametrize(
    ("obo_text", "gaf_text", "message"),
    [
        ("one\ntwo\n", gaf(("A", "", "GO:1")), r"go.obo: expected an OBO file with \[Term\]"),
        ("[Term]\nid: GO:1\nnonsense\n", gaf(("A", "", "GO:1")), "go.obo, line 3: expected 'tag"),
        (OBO, "A\tB\n", "a.gaf, line 1: expected the 15 or 17 columns of a GAF"),
        (OBO, "!gaf-version: 2.2\n", "a.gaf: expected a GAF with annotations, got none"),
        (OBO, gaf(("A", "", "GO:99")), "a.gaf: expected annotations to terms of go.obo, got none"),
        (OBO, gaf(("A", "", "GO:8")), "expected annotated terms of namespace 'molecular_function'"),
    ],
)
def test_read_ontology__refused(tmp_path, obo_text, gaf_text, message):
    obo, path = write(tmp_path / "go.obo", obo_text), write(tmp_path / "a.gaf", gaf_text)
    with pytest.raises(SourceError, match=message):
        read_ontology(obo, path)
