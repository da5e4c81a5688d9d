"""The paper's figures say in words what their values are, whatever the values."""

import re

import numpy as np
import pytest
from scipy.cluster.hierarchy import leaves_list, linkage

from dglzarr.report.drawings import (
    GROUP_COLORS,
    _leaves,
    circles,
    enriched_terms,
    error_and_correlation,
    panel_against,
)

RNG = np.random.default_rng(0)


def words(drawing):
    """The text of a drawing, which is valid in both forms."""
    assert drawing.png.startswith(b"\x89PNG")
    return " ".join(re.findall(r"<text[^>]*>([^<]*)", drawing.svg))


@pytest.mark.parametrize(
    ("mae", "mean"),
    [
        (np.array([0.2, 0.4, np.nan, 0.9]), "mean 0.5000"),
        (np.full(5, 0.25), "mean 0.2500"),
        (np.array([0.75]), "mean 0.7500"),
        (np.full(3, np.nan), "no gene known"),
    ],
    ids=["spread", "constant", "one", "none"],
)
def test_error_and_correlation__tells_means(mae, mean):
    text = words(error_and_correlation({"": mae}, {"": np.array([0.1, 0.5, 0.6])}))
    assert mean in text
    assert "mean 0.4000" in text


def test_error_and_correlation__same_bytes_again():
    values = RNG.uniform(0, 1, 50)
    one, other = (error_and_correlation({"x": values}, {"x": values}) for _ in range(2))
    assert one == other


def test_panel_against__counts_the_genes_that_are_better():
    mae = {"mined": np.array([0.1, 0.5, 0.3, np.nan]), "list": np.array([0.2, 0.4, 0.3, 0.1])}
    pcc = {"mined": np.array([0.9, 0.8, 0.7, 0.1]), "list": np.array([0.5, 0.9, 0.6, 0.0])}
    text = words(panel_against(mae, pcc, names=("mined", "list")))
    assert "mined better: 33.3% of 3 genes" in text
    assert "mined better: 75.0% of 4 genes" in text
    assert [letter for letter in "ABCD" if f" {letter} " in f" {text} "] == [*"ABCD"]


def test_circles__legend_names_groups_and_counts():
    tree = linkage(RNG.normal(size=(9, 3)), "ward")
    drawing = circles({"latent": tree, "pca": tree}, [*"aaaabbbcc"])
    text = words(drawing)
    assert all(label in text for label in ("a (4)", "b (3)", "c (2)", "latent", "pca"))


def test_circles__small_groups_beyond_the_colours_are_told_together():
    groups = [f"g{i:02d}" for i in range(14) for _ in range(14 - i)]
    tree = linkage(RNG.normal(size=(len(groups), 3)), "average")
    text = words(circles({"latent": tree}, groups))
    assert "g00 (14)" in text
    assert f"{14 - len(GROUP_COLORS) + 1} other groups (15)" in text


def test_circles__equal_samples():
    tree = linkage(np.zeros((4, 2)), "ward")
    assert "a (4)" in words(circles({"latent": tree}, [*"aaaa"]))


def test_leaves__equal_scipy():
    for n in (2, 3, 40):
        tree = linkage(RNG.normal(size=(n, 3)), "complete")
        joined = [(int(a), int(b)) for a, b in tree[:, :2]]
        assert _leaves(joined, n) == leaves_list(tree).tolist()


def test_leaves__a_chain_of_thousands():
    n = 5000
    joined = [(0, 1), *((n + i, i + 2) for i in range(n - 2))]
    assert sorted(_leaves(joined, n)) == list(range(n))


def test_enriched_terms__names_and_scale_and_hollow_dots():
    drawings = [
        enriched_terms(
            ["kinase activity", "b" * 80],
            np.array([0.1, 0.05]),
            np.array([12, 6]),
            np.array([1e-6, 0.03]),
            is_enriched=np.array(enriched),
        )
        for enriched in ([True, False], [True, True], [False, False])
    ]
    for text in map(words, drawings):
        assert "kinase activity" in text
        assert "b" * 49 + "..." in text
        assert all(n in text.split() for n in ("3", "6", "12"))
    assert len({drawing.svg for drawing in drawings}) == 3
