"""Enrichment: frozen results of R's phyper, qvalue and DOSE; SciPy's Fisher test; properties."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array
from scipy.stats import fisher_exact, hypergeom

from dglzarr.kernels.enrichment import enrich_terms, is_enriched, storey_qvalue

FIXTURE = json.loads(
    (Path(__file__).parents[1] / "data" / "enrichment.json").read_text(encoding="utf-8")
)


def sets(min_genes=1):
    shapes = st.tuples(st.integers(1, 6), st.integers(min_genes, 15))
    return shapes.flatmap(lambda shape: hnp.arrays(np.int64, shape, elements=st.integers(0, 1)))


def test_enrich_terms__hand_worked():
    # 5 of 6 genes have a term; the panel holds 3, of which one has none
    members = csr_array(np.array([[1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0]]))
    query = np.array([True, True, False, False, False, True])
    found = enrich_terms(query, members, min_size=1, max_size=3)
    assert (found.n_query, found.n_universe) == (2, 5)
    np.testing.assert_array_equal(found.n_hits, [2, 1, 0])
    np.testing.assert_array_equal(found.n_genes, [2, 3, 1])
    # both of 2 in 2 of 5: 1 / C(5, 2); at least one of 3 in 2 of 5: 1 - C(2, 2) / C(5, 2)
    np.testing.assert_allclose(found.p_value, [0.1, 0.9, np.nan])
    np.testing.assert_allclose(found.p_adjusted, [0.2, 0.9, np.nan])
    np.testing.assert_allclose(found.q_value, [0.2, 0.9, np.nan])


@pytest.mark.parametrize(("low", "high", "tested"), [(2, 3, 2), (3, 3, 1), (2, 2, 1), (4, 9, 0)])
def test_enrich_terms__size_limits_are_inclusive(low, high, tested):
    members = csr_array(np.array([[1, 1, 0, 0], [1, 1, 1, 0]]))
    found = enrich_terms(np.array([True, False, False, True]), members, min_size=low, max_size=high)
    assert (~np.isnan(found.p_value)).sum() == tested


def test_hypergeometric_tail__equals_r():
    tails = {name: np.array(values) for name, values in FIXTURE["tails"].items()}
    p = hypergeom.sf(tails["k"] - 1, tails["N"], tails["M"], tails["n"])
    assert tails["p"].min() < 1e-200
    np.testing.assert_allclose(p, tails["p"], rtol=1e-12)


@pytest.mark.parametrize("name", FIXTURE["cases"])
def test_enrich_terms__equals_clusterprofiler(name):
    case = FIXTURE["cases"][name]
    genes = case["universe"]
    held = [[g in FIXTURE["terms"][term] for g in genes] for term in case["terms"]]
    found = enrich_terms(
        np.isin(genes, case["query"]),
        csr_array(np.array(held, dtype=np.int64)),
        min_size=case["min_size"],
        max_size=case["max_size"],
    )
    at = [case["terms"].index(term) for term in case["tested"]]
    assert sorted(at) == np.flatnonzero(~np.isnan(found.p_value)).tolist()
    assert found.n_hits[at].tolist() == case["k"]
    assert found.n_genes[at].tolist() == case["M"]
    assert {found.n_query} >= {*case["n"]}
    assert {found.n_universe} >= {*case["N"]}
    for ours, theirs in (("p_value", "p"), ("p_adjusted", "p_adjusted"), ("q_value", "q")):
        expected = np.array(case[theirs], dtype=np.float64)
        np.testing.assert_allclose(getattr(found, ours)[at], expected, rtol=1e-12)


def test_fixture__has_terms_without_q_values():
    unknown = {n for n, c in FIXTURE["cases"].items() if c["q"] and c["q"][0] is None}
    assert unknown == {"one_term", "all_significant"}


@given(sets(), st.data())
def test_enrich_terms__equals_one_sided_fisher(held, data):
    query = data.draw(hnp.arrays(bool, held.shape[1]))
    found = enrich_terms(query, csr_array(held), min_size=1)
    universe = held.any(axis=0)
    for i, row in enumerate(held[:, universe].astype(bool)):
        drawn = query[universe]
        table = [[(row & drawn).sum(), (row & ~drawn).sum()]]
        table.append([(~row & drawn).sum(), (~row & ~drawn).sum()])
        if table[0][0]:
            expected = fisher_exact(table, alternative="greater").pvalue
            np.testing.assert_allclose(found.p_value[i], expected, rtol=1e-9)
        else:
            assert np.isnan(found.p_value[i])


@given(sets(min_genes=2), st.data())
def test_enrich_terms__genes_without_a_term_change_nothing(held, data):
    query = data.draw(hnp.arrays(bool, held.shape[1]))
    more = np.hstack([held, np.zeros((len(held), 3), dtype=np.int64)])
    padded = np.concatenate([query, [True, False, True]])
    one, other = (
        enrich_terms(q, csr_array(m), min_size=1) for q, m in ((query, held), (padded, more))
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@given(sets(), st.data())
def test_enrich_terms__order_of_genes_does_not_matter(held, data):
    query = data.draw(hnp.arrays(bool, held.shape[1]))
    order = np.array(data.draw(st.permutations(range(held.shape[1]))))
    one = enrich_terms(query, csr_array(held), min_size=1)
    other = enrich_terms(query[order], csr_array(held[:, order]), min_size=1)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@given(hnp.arrays(np.float64, st.integers(2, 30), elements=st.floats(0, 1)))
def test_storey_qvalue__naive_loop(p):
    q = storey_qvalue(p)
    null_share = min(1, np.mean(p >= 0.05) / 0.95)
    if not null_share:
        assert np.isnan(q).all()
        return
    for i in range(p.size):
        rates = [min(1, null_share * t * p.size / (p <= t).sum()) for t in p if t >= p[i]]
        assert q[i] == pytest.approx(min(*rates, null_share))


def test_is_enriched__both_limits():
    p = np.array([0.01, 0.04, 0.06, 0.01, np.nan])
    q = np.array([0.1, 0.2, 0.1, np.nan, np.nan])
    assert is_enriched(p, q).tolist() == [True, False, False, True, False]
