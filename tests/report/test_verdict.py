"""Which panels are shown, of which kind they are, and what is said of them."""

import math

import pytest

from dglzarr.report.panels import CHANCE, PanelRow, panel_rows, shown_rows, verdict
from dglzarr.storage.store import (
    open_store,
)


def row(panel, mae, kind, *, versus=math.nan, low=math.nan, high=math.nan, pvalue=0.01):
    more = {"versus_low": low, "versus_high": high, "versus_pvalue": pvalue}
    more["n_series"] = 2
    nothing = [math.nan] * 3
    return PanelRow("test", panel, kind, mae, *nothing, None, None, versus_mined=versus, **more)


@pytest.mark.parametrize(
    ("random", "words"),
    [
        ([0.6, 0.7], "lower than that of 2 of 2 random panels: place 1 of 3."),
        ([0.6, 0.7, 0.4], "lower than that of 2 of 3 random panels: place 2 of 4."),
        ([0.6, 0.4], "lower than that of 1 of 2 random panels: place 2 of 3."),
        ([0.4, 0.5], "lower than that of 0 of 2 random panels: place 2 of 3."),
        ([0.6], "lower than that of 1 of 1 random panel: place 1 of 2."),
        ([], "no random panel"),
    ],
    ids=["all", "most", "half", "none-and-tie", "one", "no-random"],
)
def test_verdict__place_among_random(random, words):
    rows = [row("mined", 0.5, "mined")]
    rows += [row(f"random-{i}", mae, "random") for i, mae in enumerate(random)]
    assert words in " ".join(verdict(rows))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"versus": -0.1, "low": -0.2, "high": -0.01}, "0.4000, which is better than"),
        ({"versus": 0.1, "low": 0.01, "high": 0.2}, "0.4000, which is worse than"),
        ({"versus": 0.1, "low": -0.01, "high": 0.2}, "0.4000: no detectable difference"),
        ({"versus": 0.1, "low": 0.01, "high": 0.2, "pvalue": 0.2}, ": no detectable difference"),
        ({"versus": 0.0, "low": 0.0, "high": 0.0, "pvalue": math.nan}, ": no detectable"),
        ({"versus": 0.1}, ": beside the mined panel cannot be told: 2 held-out series."),
    ],
    ids=["better", "worse", "series-differ", "genes-differ", "same", "two-series"],
)
def test_verdict__only_a_paired_difference_says_better_or_worse(found, words):
    rows = [
        row("mean", 0.4, "baseline", **found),
        row("mined", 0.5, "mined", versus=0.0),
        row("l1000", 0.4, "published", **found),
    ]
    sentences = verdict(rows)
    assert words in next(s for s in sentences if "l1000" in s)
    assert words in next(s for s in sentences if "training mean" in s)
    assert ("fewer than 3 series" in " ".join(sentences)) == ("low" not in found)


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        (1, "The mined panel predicts better than panels drawn at random (their error"),
        (-1, "The mined panel predicts worse than panels drawn at random (their error"),
        (0, "No detectable difference between the mined panel and panels drawn at random (their"),
    ],
)
def test_verdict__against_random_panels_together(sign, words):
    low, high = {1: (0.01, 0.2), -1: (-0.2, -0.01), 0: (-0.1, 0.1)}[sign]
    chance = row(CHANCE, math.nan, "random", versus=0.05 * sign, low=low, high=high)
    rows = [row("mined", 0.5, "mined"), row("random-0", 0.6, "random"), chance]
    assert verdict(rows)[0].startswith(words)


def test_verdict__of_two_series_nothing_is_told_of_random_panels():
    chance = row(CHANCE, math.nan, "random", versus=0.05)
    said = verdict([row("mined", 0.5, "mined"), row("random-0", 0.6, "random"), chance])
    assert said[0].endswith("better than panels drawn at random cannot be told: 2 held-out series.")


def test_verdict__a_panel_that_is_not_judged():
    said = verdict([row("mined", 0.5, "mined"), row("l1000", math.nan, "published")])
    assert "l1000 could not be judged" in " ".join(said)


def test_verdict__mined_without_result():
    assert "could not be judged" in verdict([row("mined", math.nan, "mined")])[0]


def test_shown_rows__no_random_panels():
    rows = [row("mined", 0.5, "mined")]
    assert shown_rows(rows) == rows


def test_panel_rows__kinds_are_read_and_not_told_from_names(study):
    evaluation = open_store(study["stores"]["evaluation"])
    kinds = ["published", "mined", "selector", *["random"] * 3, "baseline"]
    evaluation = evaluation.assign_coords(kind=("panel", kinds))
    rows = panel_rows(evaluation, open_store(study["stores"]["landmarks"]))
    assert [r.panel for r in rows[:4]] == ["mean", "l1000", "random-0", "mined"]
    assert [r.kind for r in rows[:4]] == ["baseline", "mined", "selector", "published"]


def test_panel_rows__no_random_panels(study):
    evaluation = open_store(study["stores"]["evaluation"]).isel(panel=[0, 1, 6])
    rows = panel_rows(evaluation, open_store(study["stores"]["landmarks"]))
    assert [r.panel for r in rows[:3]] == ["mean", "mined", "l1000"]
    assert all(math.isnan(r.share_below_random) for r in rows)
