"""What a gene does on a panel: closed forms beside ridge regressions solved anew."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.kernels.exchange import panel_roles, shrink_order
from dglzarr.kernels.greedy import greedy_order
from dglzarr.kernels.limits import Limits, cover

NONE = np.empty(0, dtype=np.int64)


def matrix(seed, n_rows=20, n_genes=16, dtype=np.float64):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, 4)) @ rng.standard_normal((4, n_genes))
    return (rows + rng.standard_normal(rows.shape)).astype(dtype)


def errors(rows, panel, ridge):
    """Squares and penalty that ridge regression on a panel leaves, (target,)."""
    x = rows[:, panel]
    coef = np.linalg.solve(x.T @ x + ridge * np.eye(len(panel)), x.T @ rows)
    return ((rows - x @ coef) ** 2).sum(axis=0) + ridge * (coef**2).sum(axis=0)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 50), st.integers(2, 6))
def test_panel_roles__as_solved_anew(seed, ridge, size):
    rows = matrix(seed)
    panel = np.random.default_rng(seed).permutation(16)[:size]
    allowed = np.ones(16, dtype=bool)
    allowed[3] = False
    found = panel_roles(rows, panel, ridge=ridge, allowed=allowed, n_served=4, n_substitutes=2)
    whole = errors(rows, panel, ridge)
    for i, gene in enumerate(panel):
        rest = panel[panel != gene]
        without = errors(rows, rest, ridge)
        assert found.loss[i] == pytest.approx((without - whole).sum(), rel=1e-6)
        rise = without - whole
        most = np.sort(np.delete(rise, panel))[::-1][:4]
        np.testing.assert_allclose(found.served_share[i] * found.loss[i], most, rtol=1e-6)
        np.testing.assert_allclose(rise[found.served[i]], most, rtol=1e-6)
        assert not np.isin(found.served[i], panel).any()
        others = [g for g in range(16) if g != 3 and g not in panel]
        gain = {g: (without - errors(rows, [*rest, g], ridge)).sum() for g in others}
        best = sorted(gain.values(), reverse=True)[:2]
        np.testing.assert_allclose(found.regained[i] * found.loss[i], best, rtol=1e-6)
        assert gain[int(found.substitute[i, 0])] == pytest.approx(best[0], rel=1e-9)


def test_panel_roles__blocks_of_genes_are_alike(monkeypatch):
    rows = matrix(1, 60, 50, np.float32)
    panel, asked = np.arange(20), {"ridge": 5.0, "allowed": np.ones(50, dtype=bool)}
    whole = panel_roles(rows, panel, **asked)
    monkeypatch.setattr("dglzarr.kernels.exchange._BLOCK", 7)
    for one, other in zip(whole, panel_roles(rows, panel, **asked), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


def test_panel_roles__a_copy_stands_in_for_its_original():
    rows = matrix(2)
    rows[:, 9] = rows[:, 2]
    found = panel_roles(rows, np.array([2, 5]), ridge=1.0, allowed=np.arange(16) == 9)
    assert found.substitute.tolist() == [[9], [9]]
    assert found.regained[0, 0] == pytest.approx(1)
    assert found.regained[1, 0] < 1


def test_panel_roles__each_gene_may_have_its_own_substitutes():
    rows, allowed = matrix(3), np.zeros((2, 16), dtype=bool)
    allowed[0, [7, 9]] = allowed[1, 2:6] = True  # 2 and 5 are on the panel
    found = panel_roles(rows, np.array([2, 5]), ridge=1.0, allowed=allowed)
    assert found.substitute.shape == (2, 2)
    assert set(found.substitute[0]) == {7, 9}
    assert set(found.substitute[1]) == {3, 4}
    allowed[1] = np.arange(16) == 11
    found = panel_roles(rows, np.array([2, 5]), ridge=1.0, allowed=allowed)
    assert found.substitute[1, 0] == 11
    assert (np.isfinite(found.regained)).tolist() == [[True, True], [True, False]]


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 50), st.integers(1, 6))
def test_shrink_order__the_least_needed_goes_each_time(seed, ridge, n):
    rows = matrix(seed)
    panel = list(np.random.default_rng(seed).permutation(16)[:7])
    forced = panel[6]
    found = shrink_order(rows, np.array(panel), n, ridge=ridge, forced=np.array([forced]))
    while len(panel) > n:
        left = {
            g: errors(rows, [p for p in panel if p != g], ridge).sum() for g in panel if g != forced
        }
        panel.remove(min(left, key=left.get))
    assert found.tolist() == panel


@pytest.mark.parametrize(("n", "text"), [(0, "expected 1 to 3"), (4, "expected 1 to 3")])
def test_shrink_order__refused(n, text):
    with pytest.raises(ValueError, match=text):
        shrink_order(matrix(0), np.array([1, 2, 3]), n, ridge=1.0, forced=np.array([2]))


def limits(n, **changed):
    known = {
        "size": n, "cost": np.ones(16), "budget": np.inf,
        "member": np.zeros((0, 16), dtype=np.uint16), "least": 0,
    }  # fmt: skip
    return Limits(**{**known, **changed})


def order(n, given_limits=None, forced=NONE):
    allowed = np.ones(16, dtype=bool)
    return greedy_order(
        matrix(4), n, ridge=2.0, forced=forced, allowed=allowed, limits=given_limits
    )


def test_limits__none_that_bind_change_nothing():
    np.testing.assert_array_equal(order(6, limits(6)), order(6))


@given(st.integers(1, 3), st.integers(0, 10**6))
def test_limits__each_set_has_its_genes(least, seed):
    member = np.zeros((3, 16), dtype=np.uint16)
    genes = np.random.default_rng(seed).permutation(16)
    for i in range(3):
        member[i, genes[5 * i : 5 * i + 5]] = [1, 1, 2, 3, 3]  # three genes, two of two features
    forced = genes[[0, 2]]
    open_ = np.ones(16, dtype=bool)
    kept = cover(member, least, first=forced, allowed=open_, cost=np.ones(16))
    for n in (9, 2 + kept.size):
        found = order(n - 2, limits(n, member=member, least=least, kept=kept), forced=forced)
        panel = [*forced, *found]
        assert len(set(panel)) == n
        assert all(len({*of[panel]} - {0}) >= least for of in member)


def test_limits__room_goes_to_genes_that_do_as_much_and_gain_more():
    """One set: the gene that room is kept for is the first of it, not the best."""
    best = order(16)
    member = np.zeros((1, 16), dtype=np.uint16)
    some = best[[3, 9, 12]]
    member[0, some] = [1, 2, 3]
    for kept in some:
        found = order(2, limits(2, member=member, least=1, kept=np.array([kept])))
        assert found.tolist() == order(2, limits(2, member=member, least=1, kept=some[:1])).tolist()
        assert found[0] == best[0]
    assert order(4, limits(4, member=member, least=1, kept=some[1:2])).tolist() == best[:4].tolist()


def test_limits__cost_and_budget():
    cost = np.linspace(1, 3, 16)
    found = order(10, limits(10, cost=cost, budget=9.0))
    assert 0 < found.size < 10
    assert cost[found].sum() <= 9.0
    rest = np.setdiff1d(np.arange(16), found)
    assert cost[found].sum() + cost[rest].min() > 9.0
    dear = np.ones(16)
    dear[order(1)] = 1000
    assert order(1)[0] not in order(5, limits(5, cost=dear))
