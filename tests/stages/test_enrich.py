"""Enrich: probes become genes, the universe is what is measured, every panel is tested."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.query import table
from dglzarr.stages.enrich import EnrichOptions, enrich
from dglzarr.storage.options import Run
from dglzarr.storage.store import open_store, read_attributes
from tests.builders import text, times, write_landmarks

GENES = [f"{i}_at" for i in range(12)]
SYMBOLS = ["A", "A", "B", "C", "D", "E", "F", "G /// X", "", "H", "I", "J"]
IDS = ["1", "1", "2", "3", "4", "5", "6", "7", "", "8", "9", "10"]
PANELS = {  # the mined one measures A, B, C and D
    "mined": GENES[:5],
    "random-0": [GENES[i] for i in (11, 2, 7, 5, 0)],
    "random-1": [GENES[i] for i in (8, 3, 10, 1, 6)],
}


@pytest.fixture
def source(tmp_path):
    labels = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text(IDS)}
    return write_landmarks(tmp_path / "landmarks.zarr", PANELS, labels)


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "enrichment.zarr")


def run(source, target, *, overwrite=False, **choices):
    return enrich(source, target, options=EnrichOptions(**choices), run=Run(overwrite=overwrite))


def gmt(folder, *lines):
    path = folder / "sets.gmt"
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return str(path)


def test_enrich__probes_count_as_the_genes_they_measure(source, target, tmp_path):
    sets = gmt(
        tmp_path, ["T1", "first", "A", "B", "Z"], ["T2", "second", "g", "C", "E", "F"],
        ["T3", "third", "I", "NOWHERE"],
    )  # fmt: skip
    summary = run(source, target, gene_sets=sets, min_size=1)
    assert open_store(target)["kind"].values.tolist() == ["mined", "random", "random"]
    ds = open_store(target).sel(panel="mined")
    assert ds["term_name"].values.tolist() == ["first", "second", "third"]
    np.testing.assert_array_equal(ds["n_genes"].values, [2, 4, 1])
    np.testing.assert_array_equal(ds["n_hits"].values, [2, 1, 0])
    assert ds["hits"].values.tolist() == ["A/B", "C", ""]
    # A, B, C, E, F, G and I are measured and have a term; of the panel A, B and C
    assert int(ds["n_query"]) == 3
    expected = hypergeom.sf([1, 0], 7, [2, 4], 3)
    np.testing.assert_allclose(ds["p_value"].values, [*expected, np.nan])
    assert summary.details["n_universe"] == 7
    assert summary.details["n_measured"] == 10
    assert summary.details["matched_by"] == "gene_symbol"
    assert list(summary.details["panels"]) == ["mined", "random-0", "random-1"]
    assert summary.details["panels"]["mined"] == {"n_tested": 2, "n_enriched": 0, "n_query": 3}


def test_enrich__terms_of_too_many_or_too_few_genes_are_not_tested(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "A"], ["T2", "x", "B", "C"], ["T3", "x", "A", "E", "F"])
    for low, high, tested in [(1, 500, "T1 T2 T3"), (2, 500, "T2 T3"), (1, 2, "T1 T2")]:
        run(source, target, gene_sets=sets, min_size=low, max_size=high, overwrite=True)
        ds = open_store(target).sel(panel="mined")
        assert ds["term"].values[~np.isnan(ds["p_value"].values)].tolist() == tested.split()


def test_enrich__a_table_has_the_mined_panels_terms_of_lowest_p(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "I", "H"], ["T2", "x", "E", "A"], ["T3", "x", "A", "B"])
    run(source, target, gene_sets=sets, min_size=1)
    frame = table(target, top=2)
    assert frame.index.tolist() == ["T3", "T2"]
    assert frame["hits"].tolist() == ["A/B", "A"]
    with pytest.raises(ValueError, match="has no genes to choose from"):
        table(target, genes=["A"])


@pytest.mark.parametrize(
    ("members", "kind"),
    [(["1", "2"], "gene_id"), (["2_AT", "3_at"], "gene"), (["a"], "gene_symbol")],
)
def test_enrich__any_kind_of_name(source, target, tmp_path, members, kind):
    found = run(source, target, gene_sets=gmt(tmp_path, ["T", "x", *members]), min_size=1)
    assert found.details["matched_by"] == kind
    assert open_store(target)["n_genes"].values.tolist() == [len(members)]


def test_enrich__sizes_are_settings(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "A", "B"], ["T2", "x", "A", "C", "E"])
    run(source, target, gene_sets=sets, min_size=3)
    p = open_store(target)["p_value"].sel(panel="mined").values
    np.testing.assert_array_equal(np.isnan(p), [True, False])
    with pytest.raises(StoreError, match=r"enrich\.min_size: 3 -> 1"):
        run(source, target, gene_sets=sets, min_size=1)


def test_enrich__second_call_touches_nothing(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "A", "B"])
    run(source, target, gene_sets=sets)
    before = times(target)
    assert run(source, target, gene_sets=sets).state == "unchanged"
    assert times(target) == before
    gmt(tmp_path, ["T1", "x", "A", "C"])
    with pytest.raises(StoreError, match="other inputs"):
        run(source, target, gene_sets=sets)
    assert run(source, target, gene_sets=sets, overwrite=True).state == "new"


def test_enrich__ontology_notes_what_was_left_out(source, target, tmp_path):
    head = "[Term]\nid: GO:{0}\nname: n{0}\nnamespace: molecular_function\n"
    obo, gaf = tmp_path / "go.obo", tmp_path / "a.gaf"
    obo.write_text(head.format(1) + "\n" + head.format(2) + "is_a: GO:1\n")
    rows = [("A", "GO:2"), ("E", "GO:1"), ("B", "GO:7")]
    gaf.write_text("".join("\t".join(["db", "x", s, "", t, *["-"] * 10]) + "\n" for s, t in rows))
    found = run(source, target, ontology=str(obo), associations=str(gaf), min_size=1)
    assert found.details["notes"] == {"annotations to unknown terms": 1}
    ds = open_store(target).sel(panel="mined")
    assert dict(zip(ds["term"].values.tolist(), ds["n_hits"].values.tolist(), strict=True)) == {
        "GO:1": 1, "GO:2": 1,
    }  # fmt: skip
    assert [i["uri"] for i in read_attributes(target)["inputs"]] == [source, str(obo), str(gaf)]


def test_enrich__no_gene_of_the_study(source, target, tmp_path):
    with pytest.raises(SourceError, match=r"expected genes of the study such as 'A' or '1'.*Give"):
        run(source, target, gene_sets=gmt(tmp_path, ["T", "x", "P53"]))


def test_enrich__no_sets(source, target):
    with pytest.raises(ConfigError, match=r"expected enrich\.gene_sets"):
        run(source, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ontology": "a"}, r"enrich\.ontology: goes with associations"),
        ({"associations": "a"}, r"enrich\.ontology: goes with associations"),
        ({"gene_sets": "a", "ontology": "b"}, r"enrich\.ontology: goes with associations"),
        (
            {"gene_sets": "a", "ontology": "b", "associations": "c"},
            r"enrich\.gene_sets: expected it or ontology, got both",
        ),
        ({"min_size": 9, "max_size": 8}, r"enrich\.min_size: expected at most max_size"),
    ],
    ids=str,
)
def test_enrich_options__one_kind_of_sets(options, message):
    with pytest.raises(ValueError, match=message):
        EnrichOptions(**options)
