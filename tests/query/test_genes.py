"""Genes by a name of several, and what is no name or number of them."""

import numpy as np
import pytest

import dglzarr
from dglzarr.errors import ConfigError
from dglzarr.query import open_study
from dglzarr.query.asked import Asked, answer
from dglzarr.query.genes import GeneNames
from dglzarr.serve.answers import Answers
from dglzarr.serve.cache import ArrayCache


@pytest.fixture(scope="module")
def ask(example_study):
    return open_study(example_study).dgl


def test_neighbours__of_several_features_are_of_the_best_and_say_so(ask, example_study):
    symbols = np.array(ask.names.symbols)
    several = [s for s in dict.fromkeys(symbols) if s and (symbols == s).sum() > 1]
    assert several
    pages = Answers("example", example_study, ArrayCache(10**6))
    for symbol in several:
        of, *others = (pages.genes.labels[place] for place in pages.find(symbol))
        near = ask.neighbours(symbol, 2)
        assert near.attrs["of"] == of
        frame = answer(example_study, Asked(neighbours=symbol, top=2))
        assert set(frame["of"]) == {of}
        assert all(label in frame.attrs["note"] for label in others)
        assert "\n" not in frame.attrs["note"]
    assert ask.neighbours(ask.names.labels[0]).attrs["note"] == ""


def test_alias__of_several_genes_is_refused_where_one_is_meant(example_study, tmp_path):
    path = tmp_path / "aliases.txt"
    path.write_text("symbol\talias_symbol\tprev_symbol\nSIM1\tLFS1|P53\t\nSIM2\tLFS1\t\n")
    ask = open_study(example_study, aliases=path).dgl
    for question in (lambda: ask.neighbours("lfs1"), lambda: ask.panel(3, include="lfs1")):
        with pytest.raises(ConfigError, match=r"got 'lfs1', an alias of SIM1 and SIM2. Ask"):
            question()
    assert ask.neighbours("p53").attrs["of"] == ask.neighbours("SIM1").attrs["of"]


def test_find__offers_no_alias_of_genes_that_are_not_there():
    names = GeneNames(["TP53"], aliases={"ZZZ": ("QQQ",), "ZZY": ("TP53",)})
    with pytest.raises(ConfigError, match=r"got 'ZZZ' \(did you mean 'ZZY'\?\)"):
        names.find("ZZZ")


@pytest.mark.parametrize(
    ("question", "told"),
    [
        (lambda ask: ask.top(-1), "top: expected a whole number from 0, got -1"),
        (lambda ask: ask.top("3"), "top: expected a whole number from 0, got '3'"),
        (lambda ask: ask.latent(0).top(-2), "top: expected a whole number"),
        (lambda ask: ask.neighbours("SIM1", -1), "neighbours: expected a whole number"),
        (lambda ask: ask.neighbours(None), "neighbours: expected a name, got None"),
        (lambda ask: ask.latent("0"), "latent: expected a unit from 0 to 3, got '0'"),
        (lambda ask: ask.gene(["SIM7"]), "gene: expected a name, got .* no text"),
        (lambda ask: ask.gene(5), "gene: expected a name, got 5"),
        (lambda ask: ask.panel(0), "^size: expected 1 to"),
        (lambda ask: ask.panel(3, include="NOPE"), "^include: expected genes of the study"),
        (lambda ask: ask.by(None), "by: expected a name, got None"),
    ],
)
def test_questions__of_another_kind_are_refused_in_one_line(question, told, ask):
    with pytest.raises(ConfigError, match=told) as caught:
        question(ask)
    assert "\n" not in str(caught.value)


def test_scores__the_first_are_the_best(example_study):
    frame = answer(f"{example_study}#scores", Asked(top=5))
    best = np.sort(dglzarr.open(f"{example_study}#scores")["score"].values)[::-1][:5]
    assert frame["score"].to_numpy() == pytest.approx(best)
