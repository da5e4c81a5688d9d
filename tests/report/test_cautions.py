"""Each caution is told where it holds, with what to do, and not elsewhere."""

import numpy as np
import pytest
import xarray as xr

from dglzarr.models.files import History
from dglzarr.report.cautions import cautions, nothing_against
from dglzarr.report.panels import CHANCE, PanelRow, verdict
from tests.builders import text

N_GENES, N_LANDMARKS = 40, 10


def rival(difference, low, high, **more):
    found = {"mae": 0.7, "network": 0.7 + difference, "difference": difference}
    return {**found, "low": low, "high": high, **more}


def opened(**changes):
    """The stores of a study that nothing stands against, but for what is changed."""
    asked = {
        "n_series": 6, "n_tested": 3, "validation": 5, "kept": 60, "genes": None, "symbols": None,
        "rivals": {"mean": rival(-0.1, -0.2, -0.05), "components": rival(-0.1, -0.2, -0.05, n=3)},
        "n_latent": 4, **changes,
    }  # fmt: skip
    split = np.repeat([0, 1, 2], [asked["kept"], asked["validation"], 12])
    series = [f"GSE{i % asked['n_series']}" for i in range(split.size)]
    genes = asked["genes"] or [f"{i}_at" for i in range(N_GENES)]
    symbols = asked["symbols"] or [f"S{i}" for i in range(N_GENES)]
    return {
        "expression": xr.Dataset({"split": ("sample", split), "series": ("sample", text(series))}),
        "samples": xr.Dataset({"keep": ("sample", np.ones(split.size, bool))}),
        "landmarks": xr.Dataset(
            {
                "gene": ("gene", text(genes)),
                "gene_symbol": ("gene", text(symbols)),
                "gene_id": ("gene", text([""] * N_GENES)),
                "is_landmark": ("gene", np.arange(N_GENES) < N_LANDMARKS),
            }
        ),
        "scores": xr.Dataset(
            {"latent_score": (("latent", "gene"), np.zeros((asked["n_latent"], N_GENES)))}
        ),
        "evaluation": xr.Dataset(
            {"n_series": ("cohort", [asked["n_tested"]])},
            coords={"cohort": text(["test"]), "predictor": text(["ridge"])},
        ),
        "reconstruction": xr.Dataset(attrs={"details": {"rivals": asked["rivals"]}}),
    }


def row(panel, mae, kind, **more):
    return PanelRow("test", panel, kind, mae, *[np.nan] * 3, None, None, **more)


def rows(low=0.01, high=0.1, random=(0.6, 0.7), mean=(0.2, 0.1, 0.3), pvalue=0.001):
    chance = row(
        CHANCE, np.nan, "random", versus_mined=0.1, versus_low=low, versus_high=high,
        versus_pvalue=pvalue,
    )  # fmt: skip
    drawn = [row(f"random-{i}", mae, "random") for i, mae in enumerate(random)]
    versus = dict(zip(("versus_mined", "versus_low", "versus_high"), mean, strict=True))
    baseline = row("mean", 0.5 + mean[0], "baseline", versus_pvalue=0.001, **versus)
    return [baseline, row("mined", 0.5, "mined"), *drawn, chance]


def history(*val_loss, first=1):
    n = len(val_loss)
    return History(np.arange(first, first + n), np.ones(n), np.array(val_loss, float), np.ones(n))


GOOD = history(0.8, 0.6, 0.7)
NAMES = [f"S{i}" for i in range(N_GENES)]


def test_cautions__nothing_stands_against_a_good_study():
    assert cautions(opened(), rows(), GOOD) == []
    without = opened()
    del without["reconstruction"]
    assert cautions(without, rows()) == []
    assert cautions(opened(rivals={}), rows(), GOOD) == []  # a store of before


@pytest.mark.parametrize(
    ("stores", "found", "curve", "what", "remedy"),
    [
        ({"n_series": 2, "n_tested": 1}, {}, GOOD, "The study is of 2 series", "Add series"),
        ({"n_tested": 2}, {}, GOOD, "held-out samples are of 2 series", "ingest.test_fraction"),
        ({"validation": 0}, {}, GOOD, "no validation samples", "ingest.validation_fraction"),
        ({"kept": 9}, {}, GOOD, "9 training samples for a panel of 10", "select.n_landmarks"),
        ({}, {}, history(0.8, 0.7), "still improved when it stopped, in epoch 2", "train.epochs"),
        ({}, {}, history(0.7, 0.8, first=0), "no better than the components", "more samples"),
        ({}, {"low": -0.01}, GOOD, "lower error, but series differ too much", "dglzarr compare"),
        ({}, {"pvalue": 0.2}, GOOD, "lower error, but target genes differ too", "dglzarr compare"),
        (
            {}, {"mean": (0.1, -0.1, 0.2)}, GOOD,
            "better than the mean of each does: mean absolute error 0.5000 beside 0.6000",
            "Do not predict by it",
        ),
        (
            {}, {"mean": (1e-9, np.nan, np.nan)}, GOOD,
            "not shown to predict the other genes better than the mean", "select.n_landmarks",
        ),
        (
            {}, {"low": -0.2, "high": -0.1, "random": (0.4, 0.7)}, GOOD,
            "1 of 2 random panels have a lower error", "add series",
        ),
        (
            {"n_latent": N_GENES}, {}, GOOD,
            "has 40 units for 40 genes: it squeezes nothing", "Set train.n_latent lower, as to 4;",
        ),
        (
            {"rivals": {"mean": rival(-0.01, -0.03, 0.01)}}, {}, GOOD,
            "no better than the mean of each gene", "Do not read its scores",
        ),
        (
            {"rivals": {"components": rival(0.02, 0.01, 0.03, n=7)}}, {}, GOOD,
            "worse than 7 principal components", "train.start",
        ),
        (
            {"genes": ["AFFX-BioB-5_at", *(f"{i}_at" for i in range(1, N_GENES))]}, {}, GOOD,
            "1 control probe on the panel (AFFX-BioB-5_at)", "select.exclude_controls",
        ),
        (
            {"symbols": ["", "", *NAMES[2:]]}, {}, GOOD,
            "2 of 10 genes of the panel have no symbol", "select.exclude_unnamed",
        ),
        ({"symbols": [""] * N_GENES}, {}, GOOD, "No gene has a symbol", "ingest.annotation"),
    ],
)  # fmt: skip
def test_cautions__each_with_what_to_do(stores, found, curve, what, remedy):
    (one,) = cautions(opened(**stores), rows(**found), curve)
    assert what in one.what
    assert remedy in one.remedy
    assert str(one) == f"{one.what} {one.remedy}"


NETWORK = "a network that rebuilds held-out samples better than the mean of each gene"


@pytest.mark.parametrize(
    ("rivals", "told"),
    [
        ({}, ""),
        ({"mean": rival(-0.1, None, None)}, ""),
        ({"mean": rival(-0.1, -0.2, -0.05)}, f"{NETWORK}, a panel"),
        (
            {"mean": rival(-0.1, -0.2, -0.05), "components": rival(-0.1, -0.2, -0.05, n=3)},
            f"{NETWORK} and than 3 principal components, a panel",
        ),
        (
            {"mean": rival(-0.1, -0.2, -0.05), "components": rival(6e-5, -0.001, 0.001, n=24)},
            f"{NETWORK}, though not told apart from 24 principal components, a panel",
        ),
    ],
)
def test_nothing_against__says_what_is_shown_of_the_network(rivals, told):
    said = nothing_against(opened(rivals=rivals), rows())
    assert cautions(opened(rivals=rivals), rows(), GOOD) == []
    assert told in said
    assert ("network" in said) == bool(told)
    assert "validation samples, " in said


def test_nothing_against__says_of_chance_what_is_shown():
    drawn = [one for one in rows() if one.kind != "random"]
    assert "a panel better than chance" in nothing_against(opened(), rows())
    assert cautions(opened(), drawn, GOOD) == []
    assert "chance" not in nothing_against(opened(), drawn)


@pytest.mark.parametrize(
    ("random", "told"),
    [
        ((0.50004, 0.49996), "lower than that of 0 of 2 random panels: place 1 of 3. As low: 2."),
        ((0.5, 0.7), "lower than that of 1 of 2 random panels: place 1 of 3. As low: 1."),
        ((0.4, 0.7), "lower than that of 1 of 2 random panels: place 2 of 3."),
    ],
)
def test_verdict__a_tie_is_no_win(random, told):
    assert f"Its error is {told}" in verdict(rows(random=random))


def test_cautions__what_is_not_told():
    few = {"n_tested": 2}
    nothing_told = rows(low=np.nan, high=np.nan)  # of two series, and lower than every random panel
    assert len(cautions(opened(**few), nothing_told, GOOD)) == 1
    beaten = rows(low=np.nan, high=np.nan, random=(0.4, 0.7))
    assert len(cautions(opened(**few), beaten, GOOD)) == 2
    unsure = {"components": rival(0.02, -0.01, 0.03, n=7)}
    assert cautions(opened(rivals=unsure), rows(), GOOD) == []
    assert cautions(opened(), rows(), history(np.nan, np.nan)) == []
