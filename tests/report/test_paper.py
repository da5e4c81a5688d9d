"""The paper's figures and lists say what the stores say; what a study lacks has no figure."""

import numpy as np
import pytest
import xarray as xr
from scipy.cluster.hierarchy import linkage
from scipy.stats import hypergeom

from dglzarr.report.paper import (
    Overlap,
    cohort_figure,
    comparison_figure,
    enrichment_figure,
    enrichment_words,
    group_rows,
    groups_figure,
    overlaps,
    paper_figures,
    reconstruction_figure,
    term_rows,
)

RNG = np.random.default_rng(1)
PANELS = ["mean", "mined", "l1000", "worse", "random-0", "random-1"]
KINDS = ["baseline", "mined", "published", "published", "random", "random"]
LEVEL = np.array([0.9, 0.5, 0.45, 0.8, 0.5, 0.6])
N_GENES = 30


def evaluation(panels=PANELS, cohorts=("test", "gtex")):
    shape = (len(PANELS), 1, 2, N_GENES)
    dims = ("panel", "predictor", "cohort", "gene")
    mae = LEVEL[:, None, None, None] + RNG.uniform(-0.05, 0.05, shape)
    mae[..., :5] = np.nan
    arrays = {
        "mae": mae,
        "pcc": np.where(np.isnan(mae), np.nan, RNG.uniform(0.2, 0.9, shape)),
        "null_fraction": np.where(np.isnan(mae), np.nan, RNG.uniform(0, 0.03, shape)),
    }
    arrays["null_fraction"][4:] = np.nan
    ds = xr.Dataset({name: (dims, values) for name, values in arrays.items()})
    ds = ds.assign_coords(panel=PANELS, predictor=["ridge"], cohort=["test", "gtex"])
    ds = ds.assign_coords(kind=("panel", KINDS))
    return ds.sel(panel=list(panels), cohort=list(cohorts))


def groups(reason=""):
    names = ["latent", "pca", "all genes", "panel mined", "panel random-0", "panel random-1"]
    value = np.array([0.3, 0.5, 0.4, 0.2, 0.1, 0.3]) if not reason else np.full(6, np.nan)
    tree = linkage(RNG.normal(size=(6, 2)), "ward")
    return xr.Dataset(
        {
            "tree": (("representation", "merge", "node"), np.stack([tree] * 6)),
            **dict.fromkeys(("ari", "nmi", "silhouette"), (("representation",), value)),
            "reason": (("representation",), [reason] * 6),
        },
        coords={
            "representation": names,
            "kind": ("representation", ["", "", "", "mined", "random", "random"]),
            "group": ("sample", [*"aabbcc"]),
            "series": ("sample", ["GSE1"] * 6),
        },
        attrs={
            "parameters": {"label": "tissue", "linkage": "ward"},
            "details": {"n_trained_on": 2},
        },
    )


def enrichment():
    p = np.array([[0.5, np.nan, 0.001, 0.04], [0.9, 0.2, 0.3, 0.4]])
    found = {"p_value": p, "p_adjusted": 2 * p, "q_value": p, "n_hits": np.full((2, 4), 3)}
    ds = xr.Dataset({name: (("panel", "term"), values) for name, values in found.items()})
    ds["hits"] = (("panel", "term"), np.full((2, 4), "A/B/C"))
    ds["n_genes"] = ("term", [12, 5, 30, 20])
    ds["n_query"] = ("panel", [60, 70])
    counts = {"n_tested": 3, "n_enriched": 1, "n_query": 60}
    return ds.assign_coords(
        panel=["mined", "random-0"],
        kind=("panel", ["mined", "random"]),
        term=[*"abcd"],
        term_name=("term", ["first", "second", "third", "fourth"]),
    ).assign_attrs(details={"panels": {"mined": counts, "random-0": {**counts, "n_enriched": 0}}})


def test_paper_figures__in_the_papers_order():
    reconstruction = xr.Dataset(
        {n: ("gene", RNG.uniform(0, 1, 20)) for n in ("mae", "pcc", "null_fraction")}
    )
    opened = {
        "evaluation": evaluation(), "groups": groups(), "enrichment": enrichment(),
        "reconstruction": reconstruction,
    }  # fmt: skip
    assert [f.name for f in paper_figures(opened)] == [
        "figure-2a-reconstruction", "figure-2b-groups", "figure-3-panels", "figure-4-1-cohort",
        "figure-5-enrichment",
    ]  # fmt: skip
    assert [f.name for f in paper_figures({"evaluation": evaluation(cohorts=["test"])})] == [
        "figure-3-panels"
    ]


def test_reconstruction_figure__means_and_significance():
    ds = xr.Dataset(
        {
            "mae": ("gene", [0.2, 0.4, np.nan]),
            "pcc": ("gene", [0.9, 0.7, np.nan]),
            "null_fraction": ("gene", [0.0, 0.02, np.nan]),
        }
    )
    caption = reconstruction_figure(ds).caption
    assert "mean error 0.3000, mean correlation 0.8000. 1 of 2 genes pass" in caption


def test_groups_figure__tells_every_circle_and_chance():
    caption = groups_figure(groups()).caption
    assert "6 samples of GSE1, coloured by 'tissue'; the model was trained on 2" in caption
    assert "latent units: ARI 0.300" in caption
    assert "principal components: ARI 0.500" in caption
    assert "2 random panels: ARI 0.100 to 0.300" in caption


def test_groups_figure__a_reason_stands_in_the_title():
    figure = groups_figure(groups("all samples are of one group"))
    assert "all samples are of one group" in figure.drawing.svg
    assert "latent units: all samples are of one group" in figure.caption
    assert "2 random panels: ARI not known" in figure.caption
    assert "nan" not in figure.caption


def test_group_rows__random_panels_as_their_mean():
    rows = group_rows(groups())
    assert [row["name"] for row in rows] == [
        "latent units", "principal components", "all genes", "mined panel",
        "random panels, mean of 2",
    ]  # fmt: skip
    assert [row["ari"] for row in rows] == pytest.approx([0.3, 0.5, 0.4, 0.2, 0.2])


def test_comparison_figure__ranges_and_failures_of_the_best_published_panel():
    ds = evaluation()
    [figure] = comparison_figure(ds)
    assert figure.title == "Figure 3: mined panel and l1000"
    for panel in ("mined", "l1000"):
        here = ds.sel(panel=panel, cohort="test", predictor="ridge")
        mae, pcc = here["mae"].values, here["pcc"].values
        failed = int((here["null_fraction"].values >= 0.01).sum())
        assert failed
        assert (
            f"{panel}: error {np.nanmin(mae):.4f} to {np.nanmax(mae):.4f}, correlation "
            f"{np.nanmin(pcc):.4f} to {np.nanmax(pcc):.4f}, {failed} targets fail"
        ) in figure.caption


def test_comparison_figure__what_is_not_known_is_told_so():
    ds = evaluation()
    ds["pcc"][:] = np.nan
    [figure] = comparison_figure(ds)
    assert "correlation not known" in figure.caption
    assert "nan" not in figure.caption


def test_comparison_figure__without_published_panels_a_random_one():
    [figure] = comparison_figure(evaluation(["mean", "mined", "random-0"]))
    assert figure.title.endswith("random-0")
    assert figure.caption.count("fail the permutation test") == 1
    assert comparison_figure(evaluation(["mean", "mined"])) == []
    assert comparison_figure(evaluation(["mean", "l1000"])) == []


def test_cohort_figure__share_that_passes():
    ds = evaluation()
    [figure] = cohort_figure(ds, "gtex", 1)
    null = ds["null_fraction"].sel(panel="mined", cohort="gtex").values
    known = null[np.isfinite(null)]
    assert f"{(known < 0.01).mean():.2%} of {known.size} targets pass" in figure.caption
    ds["mae"][:, :, 1] = np.nan
    assert cohort_figure(ds, "gtex", 1) == []


def test_enrichment__best_terms_first_and_untested_left_out():
    rows = term_rows(enrichment())
    assert [row["term"] for row in rows] == ["c", "d", "a"]
    assert rows[0]["p_adjusted"] == pytest.approx(0.002)
    [figure] = enrichment_figure(enrichment())
    assert "third" in figure.drawing.svg
    assert "second" not in figure.drawing.svg
    words = "mined: 1 of 3 tested terms are enriched; 1 random panels: 0 to 0."
    assert enrichment_words(enrichment()) == words
    assert words in figure.caption


def test_enrichment_figure__nothing_tested():
    ds = enrichment()
    ds["p_value"][:] = np.nan
    assert enrichment_figure(ds) == []


def test_overlaps__distinct_genes_and_chance():
    symbols = ["A", "A", "B", "C", "D", "E", "", "F"]
    text = np.dtypes.StringDType()
    landmarks = xr.Dataset(
        {
            "panel_gene": (
                ("panel", "position"),
                np.array(
                    [["p0", "p2", "p3", "p6"], ["p1", "p3", "p4", ""], ["p0", "p1", "", ""]],
                    dtype=text,
                ),
            )
        },
        coords={
            "panel": ["mined", "l1000", "random-0"],
            "kind": ("panel", ["mined", "published", "random"]),
            "gene": [f"p{i}" for i in range(8)],
            "gene_symbol": ("gene", np.array(symbols, dtype=text)),
            "gene_id": ("gene", np.array([""] * 8, dtype=text)),
        },
    )
    # A, B, C and the unnamed p6 against A, C, D: two of the seven distinct genes
    p = float(hypergeom.sf(1, 7, 4, 3))
    assert overlaps(landmarks) == [Overlap("mined", "l1000", 4, 3, 2, 12 / 7, p)]
