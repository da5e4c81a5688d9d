"""Cross-validation: every series held out once, nothing fitted on it, resumable; rows by numpy."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from dglzarr.errors import ConfigError
from dglzarr.kernels.comparison import Paired, bootstrap_interval
from dglzarr.report.comparison import (
    COLUMNS,
    ComparisonRow,
    cells,
    comparison_rows,
    comparison_verdict,
)
from dglzarr.settings import build_settings
from dglzarr.storage.options import Run
from dglzarr.storage.store import open_store
from dglzarr.studies import cross_validate as module
from dglzarr.studies import plan
from dglzarr.studies.cross_validate import (
    comparison_uri,
    cross_validate,
    fold_plan,
    fold_steps,
)
from dglzarr.studies.plan import Plan
from tests.builders import (
    TINY_SETTINGS,
    Breaks,
    BrokenError,
    digests,
    simulate,
    times,
    write_files,
)

ASKED = {
    "selectors": ("greedy", "variance"),
    "sizes": (2, 4),
    "predictors": ("ridge", "knn"),
    "n_folds": 3,
}


def settings(folder, **sections):
    if not list(folder.glob("GSE*")):
        write_files(folder, simulate(90, 30, n_hubs=4, n_series=6, n_duplicates=4))
    sections = {"compare": ASKED, **sections}
    return build_settings({**TINY_SETTINGS, **sections}, name="test", folder=folder)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    cross_validate(settings(folder))
    return folder


@pytest.fixture(scope="module")
def found(done):
    return open_store(comparison_uri(str(done / "study"))).load()


def fold(done, k, name):
    return open_store(f"{done}/study/folds/{k}/{name}.zarr").load()


def test_cross_validate__every_kept_series_is_tested_in_one_fold(done, found):
    for series in set(found["series"].values.tolist()):
        at = set(found["fold_of"].values[found["series"].values == series].tolist())
        assert len(at) == 1
        [k] = at
        ds = fold(done, k, "segments/0000/normalized")
        here = ds["series"].values == series
        assert set(ds["split"].values[here].tolist()) == {2}
    names = found["sample"].values.tolist()
    assert len(set(names)) == len(names) > 80
    for k in range(3):
        mask = fold(done, k, "segments/0000/samples")
        keep = mask["keep"].values & (fold(done, k, "segments/0000/normalized")["split"] == 2)
        kept = mask["sample"].values[keep.values].tolist()
        assert [n for n, at in zip(names, found["fold_of"].values, strict=True) if at == k] == kept


def test_cross_validate__needs_no_network_where_no_selector_reads_its_scores(done):
    assert not (done / "study/folds/0/models").exists()
    chosen = settings(done, compare={"selectors": ("top-score",)})
    steps = fold_steps(fold_plan(Plan.of(chosen), 0))
    assert [s.name for s in steps] == [
        "ingest", "join", "normalize", "dedup", "train", "explain", "score", "candidates",
        "evaluate",
    ]  # fmt: skip


@pytest.mark.slow
def test_cross_validate__selectors_that_read_scores_and_a_list(tmp_path):
    """By default: the selectors of the settings, on scores of each fold's own network."""
    write_files(tmp_path, simulate(90, 30, n_hubs=4, n_series=6, n_duplicates=4))
    first = min(tmp_path.glob("GSE*")).read_text().splitlines()
    begin = first.index("!series_matrix_table_begin") + 2
    listed = [line.split("\t")[0].strip('"') for line in first[begin : begin + 6]]
    (tmp_path / "list.txt").write_text("\n".join(listed))
    chosen = settings(
        tmp_path,
        train={"hidden": 8, "n_latent": 3, "epochs": 1},
        select={"n_random": 2, "selector": "top-score", "selectors": ["deeplift-greedy"]},
        evaluate={"panels": {"paper": "list.txt"}},
        compare={"sizes": (2, 4), "n_folds": 2},
    )
    cross_validate(chosen)
    best = []
    for k in range(2):
        scores, chosen = fold(tmp_path, k, "scores"), fold(tmp_path, k, "candidates")
        highest = scores["gene"].values[np.argsort(-scores["score"].values)[:4]]
        panel = chosen["panel_gene"].values[chosen["panel"].values.tolist().index("top-score/4")]
        assert [g for g in panel.tolist() if g] == highest.tolist()
        best.append(scores["score"].values)
    assert not np.array_equal(*best), "each fold has scores of its own"
    found = open_store(comparison_uri(str(tmp_path / "study"))).load()
    rows = found["row"].values.tolist()
    assert {"top-score/4", "deeplift-greedy/4", "paper/6", "random/4"} <= set(rows)
    assert int(found["n_panels"].sel(row="random of paper/4")) == 2


def test_cross_validate__panels_are_those_of_the_folds(done, found):
    for k in range(3):
        ds = fold(done, k, "evaluation")
        here = found["fold_of"].values == k
        np.testing.assert_array_equal(
            found["sample_error"].values[..., here], ds["sample_error"].values
        )
        np.testing.assert_array_equal(
            found["fold_mae"].values[..., k], ds["mean_mae"].values[..., 0]
        )
    mae = np.stack([fold(done, k, "evaluation")["mae"].values[:, :, 0] for k in range(3)])
    known = ~np.isnan(mae)
    np.testing.assert_array_equal(found["n_folds"].values, known[:, 0, 0].sum(axis=0))
    some = known.any(axis=0)
    np.testing.assert_allclose(
        found["mae"].values[some], np.nansum(mae, axis=0)[some] / known.sum(axis=0)[some], rtol=1e-5
    )
    errors = found["sample_error"].values.astype(np.float64)
    np.testing.assert_allclose(found["mean_mae"].values, errors.mean(axis=-1), rtol=1e-6)


def test_cross_validate__rows_stand_beside_random_panels_of_their_size(found):
    here = found.sel(predictor="ridge")
    error = here["sample_error"].values.astype(np.float64)
    panels, series = found["panel"].values.tolist(), found["series"].values.astype(object)
    for size in (2, 4):
        random = [panels.index(f"random-{i}/{size}") for i in range(3)]
        at = panels.index(f"greedy/{size}")
        row = here.sel(row=f"greedy/{size}")
        ours, theirs = error[at], error[random].mean(axis=0)
        assert float(row["versus_random"]) == pytest.approx(ours.mean() - theirs.mean())
        both = bootstrap_interval(np.array([ours, ours - theirs]), series)
        np.testing.assert_allclose(row["row_interval"].values, both[0])
        np.testing.assert_allclose(row["versus_random_interval"].values, both[1])
        n_better = (error[random].mean(axis=1) < ours.mean()).sum()
        assert int(row["n_random_better"]) == n_better
        mae = here["mae"].values
        a, b = mae[at], mae[random].mean(axis=0)
        known = ~np.isnan(a)
        assert float(row["share_better"]) == pytest.approx((a < b)[known].mean())
        p = scipy.stats.ttest_rel(a[known], b[known]).pvalue
        assert float(row["t_pvalue"]) == pytest.approx(p, rel=1e-3)
        whole = here.sel(row=f"random/{size}")
        assert int(whole["n_panels"]) == 3
        assert float(whole["row_best"]) == pytest.approx(error[random].mean(axis=1).min())
        assert np.isnan(float(whole["versus_random"]))


def test_cross_validate__held_out_values_reach_no_panel(done, tmp_path):
    other = settings(tmp_path)
    held_out = set(fold(done, 0, "evaluation")["judged_series"].values.tolist())
    for path in Path(tmp_path).glob("GSE*"):
        if path.name.split("_")[0] in held_out:
            lines = path.read_text().splitlines()
            begin = lines.index("!series_matrix_table_begin") + 2
            lines[begin:-1] = [_doubled(line) for line in lines[begin:-1]]
            path.write_text("\n".join(lines) + "\n")
    cross_validate(other)
    for k, same in ((0, True), (1, False)):
        a, b = fold(done, k, "candidates"), fold(tmp_path, k, "candidates")
        chosen = a["family"].values == "greedy"
        equal = (a["panel_gene"].values[chosen] == b["panel_gene"].values[chosen]).all()
        assert equal == same
    moments = [fold(f, 0, "segments/0000/samples")["gene_mean"].values for f in (done, tmp_path)]
    np.testing.assert_array_equal(*moments)


def _doubled(line):
    name, *cells = line.split("\t")
    values = [c if c in ("", "null") else f"{(i * 7919) % 11 + 4}" for i, c in enumerate(cells)]
    return "\t".join([name, *values])


def test_cross_validate__broken_and_run_again_changes_no_bit(done, tmp_path, monkeypatch):
    again = settings(tmp_path)
    for name, after in (("candidates", 1), ("evaluate", 2)):
        breaking = Breaks(plan._STAGES[name], after)
        breaking.writes = plan._STAGES[name].writes
        with monkeypatch.context() as broken:
            broken.setitem(plan._STAGES, name, breaking)
            with pytest.raises(BrokenError):
                cross_validate(again)
    with monkeypatch.context() as broken:
        broken.setattr(module, "compare", Breaks(module.compare, 0))
        with pytest.raises(BrokenError):
            cross_validate(again)
    cross_validate(again)
    a, b = digests(done / "study"), digests(tmp_path / "study")
    assert a == b


def test_cross_validate__second_run_touches_nothing_and_says_what_it_does(done):
    before = {n: t for n, t in times(done / "study").items() if ".zarr/" in n}
    said = []
    summary = cross_validate(settings(done), run=Run(on_progress=lambda *a: said.append(a)))
    assert summary.state == "unchanged"
    assert {n: t for n, t in times(done / "study").items() if ".zarr/" in n} == before
    assert {what.split(":")[0] for what, *_ in said} == {f"fold {k} of 3" for k in (1, 2, 3)}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"selectors": ("best",)}, r"--panels: expected names of top-score.*got \['best'\]"),
        ({"sizes": ()}, r"--sizes: expected numbers of genes, got \[\]"),
        ({"predictors": ("magic",)}, r"--predictors: expected names of.*got \['magic'\]"),
        ({"predictors": ()}, r"--predictors: expected each once and at least one, got \[\]"),
        (
            {"predictors": ("knn",) * 2},
            r"--predictors: expected each once.*got \['knn', 'knn'\]",
        ),
        (
            {"selectors": ("greedy",) * 2},
            r"--panels: expected each once .*got \['greedy', 'greedy'\]",
        ),
        ({"sizes": (5, 5)}, r"--sizes: expected each once and at least one, got \[5, 5\]"),
        ({"n_folds": 0}, r"--folds: expected 2 or more, got 0\."),
        ({"n_folds": 1}, r"--folds: expected 2 or more, got 1\."),
        (
            {"selectors": ("greedy",), "sizes": (2,), "n_folds": 7},
            r"expected 2 to 6, the number of series.*got 7",
        ),
        (
            {"selectors": ("greedy",), "sizes": (30,), "n_folds": 2},
            r"sizes: expected 1 to 29.*got \[30\]",
        ),
    ],
    ids=[
        "selector",
        "no size",
        "predictor",
        "no predictor",
        "predictor twice",
        "selector twice",
        "size twice",
        "no fold",
        "one fold",
        "more folds than series",
        "a panel of all genes",
    ],
)
def test_cross_validate__one_line_for_what_cannot_be(tmp_path, asked, message):
    with pytest.raises(ConfigError, match=message):
        cross_validate(settings(tmp_path, compare=asked))
    assert not (tmp_path / "study/comparison.zarr").exists()


def test_cross_validate__genes_to_hold_and_to_keep_out(done, tmp_path):
    genes = fold(done, 0, "candidates")["gene"].values.tolist()
    rules = {"n_random": 3, "forced": [genes[4]], "excluded": [genes[9]]}
    asked = {"selectors": ("greedy",), "sizes": (2, 4), "n_folds": 2}
    cross_validate(settings(tmp_path, select=rules, compare=asked))
    for k in range(2):
        table = fold(tmp_path, k, "candidates")["panel_gene"].values
        assert set(table[:, 0].tolist()) == {genes[4]}
        assert genes[9] not in table


@pytest.mark.slow
def test_cross_validate__scores_weighted_by_variance(tmp_path):
    chosen = settings(
        tmp_path, score={"aggregation": "variance-weighted"},
        train={"hidden": 8, "n_latent": 3, "epochs": 1},
        compare={"selectors": ("top-score",), "sizes": (2,), "n_folds": 2},
    )  # fmt: skip
    cross_validate(chosen)
    weight = fold(tmp_path, 1, "segments/0000/contributions")["latent_weight"].values
    assert len(set(weight.tolist())) == 3
    assert weight.sum() == pytest.approx(1)


# ---------------------------------------------------------------- what it says


def test_comparison_rows__equal_the_store(done, found):
    rows = comparison_rows(comparison_uri(str(done / "study")))
    assert len(rows) == found.sizes["row"] * 2
    assert [r.predictor for r in rows] == ["ridge"] * (len(rows) // 2) + ["knn"] * (len(rows) // 2)
    assert (rows[0].family, rows[0].size) == ("mean", 0)
    for row in rows:
        here = found.sel(row=f"{row.family}/{row.size}", predictor=row.predictor)
        assert row.mae == float(here["row_mae"])
        assert len(cells(row)) == len(COLUMNS)
    assert all(
        a.size < b.size or a.mae <= b.mae
        for a, b in itertools.pairwise(rows)
        if a.predictor == b.predictor
    )


def row(family, size, mae, **more):
    known = dict.fromkeys(ComparisonRow.__dataclass_fields__, float("nan"))
    known["kind"] = {"random": "random", "random of l1000": "subset"}.get(family, "selector")
    known |= {"n_panels": 1, "n_random": 0, "n_random_better": None, "predictor": "ridge"}
    known["n_series"] = 18
    kinds = {"random": "random", "random of l1000": "subset"}
    known["kind"] = kinds.get(family, "selector")
    return ComparisonRow(**{**known, "family": family, "size": size, "mae": mae, **more})


def test_cells__every_value_in_its_column():
    full = row(
        "greedy", 50, 0.61, n_panels=3, low=0.52, high=0.73, best=0.54, worst=0.75,
        versus_random=-0.06, versus_low=-0.07, versus_high=0.08, n_random_better=9, n_random=20,
        share_better=0.81, t_pvalue=0.001, wilcoxon_pvalue=0.002, mae_within=0.43,
        share_failed=0.32,
    )  # fmt: skip
    assert cells(full) == (
        "50", "greedy (3)", "ridge", "0.6100", "0.5200 to 0.7300", "0.5400 to 0.7500", "-0.0600",
        "-0.0700 to +0.0800", "9 of 20", "81.0%", "0.4300", "32.0%",
    )  # fmt: skip


def test_comparison_verdict__differences_and_half_sizes():
    rows = [
        row("random", 50, 0.7, best=0.69, n_panels=20),
        row("random", 100, 0.65, best=0.64, n_panels=20),
        row("greedy", 50, 0.66, versus_random=-0.04, versus_low=-0.05, versus_high=-0.03),
        row(
            "medoids",
            50,
            0.64,
            versus_random=-0.06,
            versus_low=-0.08,
            versus_high=0.01,
            wilcoxon_pvalue=0.001,
            versus_twice=Paired(-0.01, -0.02, -0.005, 0.01),
        ),
        row(
            "greedy",
            100,
            0.62,
            versus_random=-0.03,
            versus_low=-0.04,
            versus_high=-0.01,
            wilcoxon_pvalue=0.001,
        ),
        row("random of l1000", 50, 0.1),
    ]
    (untold,) = comparison_verdict([rows[0], row("medoids", 50, 0.64, n_series=2)])
    assert untold.endswith("over series): cannot be told: 2 held-out series.")
    said = comparison_verdict(rows)
    assert len(said) == 3
    assert "50 genes, ridge: medoids has the lowest error of 2" in said[0]
    assert said[0].endswith("no detectable difference.")
    near = row(
        "medoids", 50, 0.6, versus_random=-0.06, versus_low=-0.11, versus_high=-0.01,
        wilcoxon_pvalue=0.001,
    )  # fmt: skip
    assert comparison_verdict([rows[0], near])[0].endswith(
        "(-0.1100 to -0.0100 over series): better than random panels."
    )
    rivals = [row(f"list {i}", 50, 0.65) for i in range(4)]
    assert comparison_verdict([rows[0], near, *rivals])[0].endswith(
        "(-0.1287 to +0.0087 over series, as the lowest of 5): no detectable difference."
    )
    assert "greedy has the lowest error of 1" in said[1]
    assert said[1].endswith("better than random panels.")
    twice = "medoids with 50 genes (0.6400) is {} random panels of 100 (0.6500)."
    assert said[2] == twice.format("better than")
    for ends in ((-0.02, 0.005, 0.01), (-0.02, -0.001, 0.01), (-0.02, -0.005, 0.04)):  # of 2 panels
        rows[3] = replace(rows[3], versus_twice=Paired(-0.01, *ends))
        assert comparison_verdict(rows)[2] == twice.format("without detectable difference to")


def test_comparison_verdict__nothing_to_compare_with():
    assert comparison_verdict([row("greedy", 50, 0.5)]) == []
