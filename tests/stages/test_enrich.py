"""Enrich: probes become genes, the universe is what is measured, every panel is tested."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.query import table
from dglzarr.stages.enrich import enrich
from dglzarr.stages.select import select
from dglzarr.storage.schemas import NORMALIZED, SCORES
from dglzarr.storage.store import claim_store, create_store, finish, open_store, read_attributes
from tests.builders import text, times, write_matrix, write_samples

GENES = [f"{i}_at" for i in range(12)]
SYMBOLS = ["A", "A", "B", "C", "D", "E", "F", "G /// X", "", "H", "I", "J"]
IDS = ["1", "1", "2", "3", "4", "5", "6", "7", "", "8", "9", "10"]
SCORE = np.linspace(1, 0.1, 12)  # the panel of 5: 0_at ... 4_at, genes A, B, C, D


@pytest.fixture
def source(tmp_path):
    scores, uri = str(tmp_path / "scores.zarr"), str(tmp_path / "landmarks.zarr")
    labels = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text(IDS)}
    labels["latent"] = np.arange(2, dtype=np.int32)
    create_store(claim_store(scores, SCORES, inputs=[], parameters={}), labels)
    arrays = {"score": SCORE, "latent_score": np.stack([SCORE, SCORE]).astype(np.float32)}
    finish(scores, started=0.0, arrays=arrays)
    values = np.random.default_rng(0).normal(8, 1, (60, 12)).astype(np.float32)
    normalized = write_matrix(tmp_path / "normalized.zarr", NORMALIZED, values, genes=GENES)
    samples = write_samples(tmp_path / "samples.zarr", normalized, keep=np.ones(60, dtype=bool))
    select(
        scores, uri, normalized=normalized, samples=samples, selector="top-score", selectors=(),
        n_landmarks=5, n_random=2,
    )  # fmt: skip
    return uri


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "enrichment.zarr")


def gmt(folder, *lines):
    path = folder / "sets.gmt"
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    return str(path)


def test_enrich__probes_count_as_the_genes_they_measure(source, target, tmp_path):
    sets = gmt(
        tmp_path, ["T1", "first", "A", "B", "Z"], ["T2", "second", "g", "C", "E", "F"],
        ["T3", "third", "I", "NOWHERE"],
    )  # fmt: skip
    summary = enrich(source, target, gene_sets=sets, min_size=1)
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
        enrich(source, target, gene_sets=sets, min_size=low, max_size=high, overwrite=True)
        ds = open_store(target).sel(panel="mined")
        assert ds["term"].values[~np.isnan(ds["p_value"].values)].tolist() == tested.split()


def test_enrich__a_table_has_the_mined_panels_terms_of_lowest_p(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "I", "H"], ["T2", "x", "E", "A"], ["T3", "x", "A", "B"])
    enrich(source, target, gene_sets=sets, min_size=1)
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
    found = enrich(source, target, gene_sets=gmt(tmp_path, ["T", "x", *members]), min_size=1)
    assert found.details["matched_by"] == kind
    assert open_store(target)["n_genes"].values.tolist() == [len(members)]


def test_enrich__sizes_are_settings(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "A", "B"], ["T2", "x", "A", "C", "E"])
    enrich(source, target, gene_sets=sets, min_size=3)
    p = open_store(target)["p_value"].sel(panel="mined").values
    np.testing.assert_array_equal(np.isnan(p), [True, False])
    with pytest.raises(StoreError, match="min_size 3 -> 1"):
        enrich(source, target, gene_sets=sets, min_size=1)


def test_enrich__second_call_touches_nothing(source, target, tmp_path):
    sets = gmt(tmp_path, ["T1", "x", "A", "B"])
    enrich(source, target, gene_sets=sets)
    before = times(target)
    assert enrich(source, target, gene_sets=sets).state == "unchanged"
    assert times(target) == before
    gmt(tmp_path, ["T1", "x", "A", "C"])
    with pytest.raises(StoreError, match="other inputs"):
        enrich(source, target, gene_sets=sets)
    assert enrich(source, target, gene_sets=sets, overwrite=True).state == "new"


def test_enrich__ontology_notes_what_was_left_out(source, target, tmp_path):
    head = "[Term]\nid: GO:{0}\nname: n{0}\nnamespace: molecular_function\n"
    obo, gaf = tmp_path / "go.obo", tmp_path / "a.gaf"
    obo.write_text(head.format(1) + "\n" + head.format(2) + "is_a: GO:1\n")
    rows = [("A", "GO:2"), ("E", "GO:1"), ("B", "GO:7")]
    gaf.write_text("".join("\t".join(["db", "x", s, "", t, *["-"] * 10]) + "\n" for s, t in rows))
    found = enrich(source, target, ontology=str(obo), associations=str(gaf), min_size=1)
    assert found.details["notes"] == {"annotations to unknown terms": 1}
    ds = open_store(target).sel(panel="mined")
    assert dict(zip(ds["term"].values.tolist(), ds["n_hits"].values.tolist(), strict=True)) == {
        "GO:1": 1, "GO:2": 1,
    }  # fmt: skip
    assert [i["uri"] for i in read_attributes(target)["inputs"]] == [source, str(obo), str(gaf)]


def test_enrich__no_gene_of_the_study(source, target, tmp_path):
    with pytest.raises(SourceError, match=r"expected genes of the study such as 'A' or '1'.*Give"):
        enrich(source, target, gene_sets=gmt(tmp_path, ["T", "x", "P53"]))


@pytest.mark.parametrize(
    "files",
    [{}, {"ontology": "a"}, {"associations": "a"}, {"gene_sets": "a", "ontology": "b"}],
    ids=str,
)
def test_enrich__one_kind_of_sets(source, target, files):
    with pytest.raises(ConfigError, match=r"expected enrich\.gene_sets"):
        enrich(source, target, **files)
