"""The penalty of greedy selection: each stretch by the rule, and chosen as brute force chooses."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dglzarr.kernels import penalties
from dglzarr.kernels.greedy import greedy_order, ordered_gain
from dglzarr.kernels.panels import select_panel
from dglzarr.kernels.penalties import (
    ALPHAS,
    TRIED,
    Stretch,
    best_unless_alike,
    choose_path,
    greedy_path,
    panel_gain,
    stretch_ends,
)
from dglzarr.kernels.sketch import GeneSketch

NONE = np.empty(0, dtype=np.int64)


def sketch(n_rows=60, n_genes=40, *, seed=0, n_factors=5, n_groups=4, noise=0.7):
    """Rows of a few factors and noise, in groups."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((n_rows, n_factors))
    rows = factors @ rng.standard_normal((n_factors, n_genes)) / sqrt(n_factors)
    rows = (rows + noise * rng.standard_normal(rows.shape)).astype(np.float32)
    ones = np.ones(n_genes)
    return GeneSketch(rows, ones, ones, n_rows, np.arange(n_rows) % n_groups)


def every(n):
    return np.ones(n, dtype=bool)


@pytest.fixture
def short(monkeypatch):
    """Stretches of a few genes, so that small panels have several."""
    monkeypatch.setattr(penalties, "ENDS", (3, 6, 9))


@pytest.mark.parametrize(
    ("n", "ends"), [(1, [50]), (50, [50]), (51, [50, 100]), (944, [50, 100, 200, 470, 943, 1886])]
)
def test_stretch_ends(n, ends):
    assert stretch_ends(n) == ends


def test_greedy_path__one_stretch_is_the_greedy_order():
    known = sketch()
    path = greedy_path(known, 12, [Stretch(1, 2.0)], forced=NONE, allowed=every(40))
    expected = greedy_order(known.rows, 12, ridge=120.0, forced=NONE, allowed=every(40))
    np.testing.assert_array_equal(path, expected)


def ridge_error(rows, panel, ridge):
    x = rows[:, panel]
    coef = np.linalg.solve(x.T @ x + ridge * np.eye(len(panel)), x.T @ rows)
    return np.sum((rows - x @ coef) ** 2) + ridge * np.sum(coef**2)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0.05, 5), st.floats(1, 10), st.lists(st.integers(0, 14)))
def test_greedy_path__every_gene_is_the_best_by_the_penalty_of_its_stretch(seed, first, by, forced):
    known = sketch(12, 15, seed=seed)
    must = np.array(list(dict.fromkeys(forced))[:3], dtype=np.int64)
    path = [Stretch(4, first), Stretch(8, first * by)]
    found = greedy_path(known, 8, path, forced=must, allowed=every(15))
    np.testing.assert_array_equal(found[: must.size], must)
    rows = known.rows.astype(np.float64)
    for size in range(must.size, 8):
        ridge = 12 * (first if size < 4 else first * by)
        rest = np.setdiff1d(np.arange(15), found[:size])
        errors = {int(g): ridge_error(rows, [*found[:size], g], ridge) for g in rest}
        assert errors[int(found[size])] <= min(errors.values()) * (1 + 1e-6)


def test_panel_gain__each_gene_by_the_penalty_of_its_stretch():
    known = sketch()
    path = [Stretch(3, 1.0), Stretch(6, 4.0)]
    panel = greedy_path(known, 9, path, forced=np.array([7]), allowed=every(40))
    found = panel_gain(known, panel, path)
    total = (known.rows.astype(float) ** 2).sum()
    first = ordered_gain(known.rows, panel[:3], ridge=60.0, begin=0)
    later = ordered_gain(known.rows, panel, ridge=240.0, begin=3)
    np.testing.assert_allclose(found, np.concatenate([first, later]) / total, rtol=1e-6)
    assert 0 < found.sum() < 1


def test_panel_gain__rows_of_zeros_have_nothing_to_gain():
    known = sketch()
    known.rows[:] = 0
    assert panel_gain(known, np.array([1, 2]), [Stretch(50, 1.0)]).tolist() == [0, 0]


def test_greedy_order__many_forced_genes_are_taken_off_as_one_by_one():
    known = sketch(90, 200, n_factors=20)
    order = greedy_order(known.rows, 150, ridge=9.0, forced=NONE, allowed=every(200))
    rest = greedy_order(known.rows, 20, ridge=9.0, forced=order[:130], allowed=every(200))
    np.testing.assert_array_equal(rest, order[130:])


def chosen_by_brute_force(known, n, ends, targets_of):
    """The penalties of the stretches, by ridge regressions solved one by one."""
    rows, group = known.rows.astype(np.float64), known.group
    panels = {int(k): [] for k in np.unique(group)}
    found = []
    for end in ends:
        tried = [penalty * sqrt(end / ends[0]) for penalty in TRIED]
        extended, errors, counts = {}, {}, []
        for k, panel in panels.items():
            own, held = rows[group != k], rows[group == k]
            extended[k] = []
            for penalty in tried:
                more = list(panel)
                while len(more) < end:
                    rest = [g for g in range(rows.shape[1]) if g not in more]
                    ridge = penalty * len(own)
                    more.append(min(rest, key=lambda g: ridge_error(own, [*more, g], ridge)))
                extended[k].append(more)
            targets = targets_of(sorted({g for more in extended[k] for g in more}))
            for i, more in enumerate(extended[k]):
                x, x_mean, y_mean = own[:, more], own[:, more].mean(0), own[:, targets].mean(0)
                for j, alpha in enumerate(ALPHAS):
                    gram = (x - x_mean).T @ (x - x_mean) + alpha * len(own) * np.eye(len(more))
                    coef = np.linalg.solve(gram, (x - x_mean).T @ (own[:, targets] - y_mean))
                    predicted = (held[:, more] - x_mean) @ coef + y_mean
                    errors[k, i, j] = np.abs(predicted - held[:, targets]).mean(axis=1).sum()
            counts.append(len(held))
        sums = np.array(
            [[[errors[k, i, j] for j in range(len(ALPHAS))] for i in range(3)] for k in panels]
        )
        best_alpha = sums.sum(axis=0).argmin(axis=1)
        means = sums[:, range(3), best_alpha] / np.array(counts)[:, None]
        best = best_unless_alike(means, np.array(counts, dtype=float), 1)
        found.append(Stretch(end, tried[best]))
        panels = {k: extended[k][best] for k in panels}
        if end >= n:
            break
    return found


@pytest.mark.parametrize("seed", range(3))
def test_choose_path__as_brute_force(seed, monkeypatch):
    monkeypatch.setattr(penalties, "ENDS", (2, 4))
    known = sketch(24, 14, seed=seed, n_groups=3)
    found = choose_path(known, 4, forced=NONE, allowed=every(14), default=3.0)
    expected = chosen_by_brute_force(
        known, 4, [2, 4], lambda used: [g for g in range(14) if g not in used]
    )
    assert [s.end for s in found] == [s.end for s in expected]
    np.testing.assert_allclose([s.penalty for s in found], [s.penalty for s in expected])


@pytest.mark.usefixtures("short")
def test_choose_path__of_fewer_genes_begins_that_of_more():
    known = sketch(seed=3)
    asked = {"forced": np.array([7]), "allowed": every(40), "default": 3.0}
    long = choose_path(known, 12, **asked)
    assert [s.end for s in long] == [3, 6, 9, 18]
    assert choose_path(known, 5, **asked) == long[:2]
    panel = select_panel("greedy", known, 12, forced=[7], path=long)
    np.testing.assert_array_equal(
        select_panel("greedy", known, 5, forced=[7], path=long[:2]), panel[:5]
    )


@pytest.mark.parametrize(
    ("groups", "n_genes"), [(None, 40), (np.zeros(60, dtype=np.int64), 40), ("own", 30)]
)
def test_choose_path__where_folds_cannot_tell_it_is_the_default(groups, n_genes):
    known = sketch(n_genes=n_genes)
    if not isinstance(groups, str):
        known = GeneSketch(known.rows, known.std, known.score, known.n_samples, groups)
    found = choose_path(known, 20, forced=NONE, allowed=every(n_genes), default=3.0)
    assert found == [Stretch(50, 3.0)]


@pytest.mark.usefixtures("short")
def test_choose_path__many_genes_are_drawn(monkeypatch):
    monkeypatch.setattr(penalties, "N_GENES", 20)
    known, told = sketch(n_genes=200), []
    allowed = every(200)
    allowed[:50] = False
    found = choose_path(
        known, 9, forced=np.array([150, 199]), allowed=allowed, default=3.0,
        on_progress=lambda *what: told.append(what),
    )  # fmt: skip
    assert [s.end for s in found] == [3, 6, 9]
    assert told == [("choosing penalties", i, 3) for i in range(3)]
    genes = penalties._drawn_genes(allowed, np.array([150, 199]), 0)
    assert genes.size == 22
    assert genes[:2].tolist() == [150, 199]
    assert allowed[genes].all()


def test_choose_path__more_forced_than_a_stretch_holds(monkeypatch):
    monkeypatch.setattr(penalties, "ENDS", (3, 6))
    known = sketch()
    found = choose_path(known, 6, forced=np.arange(4), allowed=every(40), default=3.0)
    assert [s.end for s in found] == [6]
    assert found[0].penalty in [penalty * sqrt(2) for penalty in TRIED]


@pytest.mark.parametrize(
    ("errors", "weight", "column"),
    [
        ([[1.0, 0.9], [1.0, 0.9], [1.0, 0.9]], [1, 1, 1], 1),
        ([[1.0, 0.5], [1.0, 1.3], [1.0, 1.1]], [1, 1, 1], 0),
        ([[1.0, 1.1], [1.0, 0.5], [1.0, 0.6]], [9, 1, 0], 0),
        ([[1.0, 0.9, 0.8]], [1], 2),
    ],
)
def test_best_unless_alike(errors, weight, column):
    assert best_unless_alike(np.array(errors), np.array(weight, dtype=float), 0) == column
