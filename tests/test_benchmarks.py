"""Every benchmark runs at its smallest size, compares with a peer and a limit, and prints JSON."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import dglzarr
from dglzarr.settings import build_settings
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import open_store
from dglzarr.storage.study import planned_study
from dglzarr.studies.cross_validate import cross_validate
from dglzarr.studies.plan import source_files
from tests.builders import (
    TINY_SETTINGS,
    simulate,
    write_files,
    write_manifest,
    write_matrix,
    write_samples,
)

REPO = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((REPO / "benchmarks").glob("bench_*.py"))
KEYS = {
    "stage", "engine", "n_samples", "n_genes", "workers", "seconds", "samples_per_s", "mb_per_s",
    "start_rss_mb", "peak_rss_mb", "peaks_rss_mb", "ratio", "ratio_quartiles", "repeats",
    "load_before", "versions",
}  # fmt: skip
WITH_TENSORFLOW = ("gpu", "score", "train")
FIRST = "segments/0000"


def stage_of(path):
    return path.stem.removeprefix("bench_")


def run(path, *options, scratch):
    command = [sys.executable, str(path), "--size", "tiny", "--scratch", str(scratch), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=scratch, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def marked(path):
    marks = [pytest.mark.slow] if stage_of(path) in WITH_TENSORFLOW else []
    return pytest.param(path, id=stage_of(path), marks=marks)


@pytest.mark.parametrize("path", [marked(path) for path in SCRIPTS])
def test_benchmark__prints_peers_and_limits_as_ratios(path, tmp_path):
    lines = run(path, "--workers", "0", scratch=tmp_path)
    assert {line["stage"].split("-")[0] for line in lines} == {stage_of(path)}
    for line in lines:
        assert line.keys() >= KEYS
        assert line["n_genes"] == 200
        assert line["repeats"] == 1
        assert math.isclose(
            line["samples_per_s"] * line["seconds"], line["n_samples"], rel_tol=1e-3
        )
    for stage in {line["stage"] for line in lines}:
        engines = [line["engine"] for line in lines if line["stage"] == stage]
        assert engines[0] == "dglzarr"
        assert any(engine.startswith("limit: ") for engine in engines)
        assert len(set(engines)) == len(engines)
    ours = {line["stage"]: line for line in lines if line["engine"] == "dglzarr"}
    for line in lines:
        rates = ours[line["stage"]]["samples_per_s"], line["samples_per_s"]
        assert math.isclose(line["ratio"], rates[0] / rates[1], rel_tol=1e-2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_benchmark__workers_are_processes_with_their_own_memory(tmp_path):
    path = REPO / "benchmarks" / "bench_normalize.py"
    ours, peer, limit = run(path, "--workers", "1", scratch=tmp_path)
    assert ours["engine"] == "dglzarr"
    assert ours["workers"] == 1
    assert ours["coordinator_peak_rss_mb"] > 0
    assert limit["parts"].keys() == {"read twice", "sort", "rank", "write"}
    for line in (ours, peer, limit):
        assert line["peak_rss_mb"] >= line["start_rss_mb"] > 20


def test_line__ratio_is_the_median_of_paired_ratios(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    import common

    bench = common.Bench("stage", lambda _: None, {})
    pairs = [
        (common.Timed(ours, 10, 5, 6), common.Timed(theirs, 20, 7, peak))
        for ours, theirs, peak in [(1, 2, 8), (1, 4, 9), (2, 24, 3)]
    ]
    line = common._line(bench, common.Case("tiny", 10, 4, 2, "."), "peer", pairs)
    assert line["ratio"] == 2.0  # of 1, 2 and 6
    assert line["ratio_quartiles"] == [1.5, 4.0]
    assert line["samples_per_s"] == 5.0  # of 10, 5 and 0.83
    assert (line["seconds"], line["mb_per_s"], line["repeats"]) == (4.0, 8e-5, 3)
    assert (line["start_rss_mb"], line["peak_rss_mb"]) == (7, 9)
    assert line["peaks_rss_mb"] == [8, 9, 3]


def test_benchmark__wrong_size_is_refused():
    done = subprocess.run(
        [sys.executable, str(SCRIPTS[0]), "--size", "huge"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "tiny, small, full" in done.stderr.replace("'", "")


def test_run_here__memory_of_the_call_is_seen(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np; import common as c\n"
        "case = c.Case('tiny', 96, 200, 0, '.')\n"
        "np.ones(40_000_000)\n"
        "timed = c.run_here(case, lambda: np.ones(10_000_000))\n"
        "print(timed.peak_rss_mb - timed.start_rss_mb)\n"
    )
    command = [sys.executable, "-c", code, str(REPO / "benchmarks")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert 60 < float(done.stdout) < 120


@pytest.mark.slow
def test_scaling__table_and_picture(tmp_path):
    sizes = ["--n-samples", "48", "96", "--n-genes", "100", "--workers", "1", "--repeats", "1"]
    picture = tmp_path / "scaling.svg"
    command = [sys.executable, str(REPO / "benchmarks" / "scaling.py"), *sizes]
    done = subprocess.run(
        [*command, "--scratch", str(tmp_path), "--picture", str(picture)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert [json.loads(line)["stage"] for line in lines[:4]] == ["normalize", "dedup"] * 2
    assert len([line for line in lines if line.startswith("| normalize | ")]) == 2
    assert "<svg" in picture.read_text(encoding="utf-8")


def run_script(name, *options):
    """Run a script that is no benchmark of one stage; return its exit status and what it says."""
    command = [sys.executable, str(REPO / "benchmarks" / name), *map(str, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.slow
def test_full_size__every_planted_pair_is_found(tmp_path):
    sizes = ["--n-samples", 1500, "--n-genes", 300, "--epochs", 1, "--workers", 0]
    status, printed, said = run_script("full_size.py", *sizes, "--scratch", tmp_path)
    assert status == 0, said
    lines = [json.loads(line) for line in printed]
    stages = ["simulate", "ingest", "join", "normalize", "dedup", "train", "encode", "explain"]
    stages += ["score", "duplicates"]
    assert [line["stage"] for line in lines] == stages
    assert all(line["seconds"] > 0 for line in lines[1:-1])
    assert all(line["peak_rss_mb"] == line["coordinator_peak_rss_mb"] > 0 for line in lines[:-1])
    found = lines[-1]
    assert (found["planted"], found["found"], found["planted_just_apart"]) == (20, 20, 10)
    assert found["others_dropped"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_compare_simulated__the_hubs_are_found(tmp_path):
    sizes = ["--n-samples", 320, "--n-genes", 300, "--n-hubs", 10, "--sizes", 5, 10]
    options = ["--n-random", 2, "--folds", 2, "--panels", "greedy,variance"]
    status, printed, said = run_script(
        "compare_simulated.py", "--folder", tmp_path, *sizes, *options
    )
    assert status == 0, said
    assert printed[0].startswith("size\tpanel\tpredictor\tMAE (z)")
    assert "greedy/5: 5 hubs (5 to 5)" in printed
    assert [line for line in printed if re.fullmatch(r"greedy/10: 10 hubs \((9|10) to 10\)", line)]
    assert "variance/10: 0 hubs (0 to 0)" in printed
    assert "hubs/10: 10 hubs (10 to 10)" in printed
    best = "5 genes, ridge: greedy has the lowest error of 2"
    assert [line for line in printed if line.startswith(best)]


@pytest.mark.slow
def test_grow_real__nothing_old_is_rewritten(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    import grow_real

    write_files(tmp_path, simulate(120, 40, n_series=6, n_duplicates=0, seed=4))
    content = {
        **TINY_SETTINGS,
        "ingest": {"split_by": "sample", "shard_samples": 16},
        "train": {"epochs": 2, "hidden": 8, "n_latent": 3},
        "select": {"n_landmarks": 4, "n_random": 2},
    }
    settings = build_settings(content, name="test", folder=tmp_path)
    names = [file.name for file in source_files(settings, planned_study(settings.root))]
    assert grow_real.show_growth(settings, names[-2:]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+ files before, 0 of them rewritten: \[\]", said)
    assert "120 samples in segments ('0000', '0001')" in said
    assert f"new, of {names[-2]}, {names[-1]}; 0 near-duplicates" in said
    assert "unchanged: True" in said
    assert "the new segment's reference is the old one: True" in said
    assert "120 samples in segments ('0002',)" in said
    assert said.endswith("old segments and raw stores rewritten: 0\n")


@pytest.mark.slow
def test_nested_choice__each_fold_chooses_among_its_own_series(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    import nested_choice

    write_files(tmp_path, simulate(160, 60, n_series=8, n_hubs=6, n_duplicates=0, seed=4))
    names, sizes = ["greedy", "variance"], [2, 4]
    asked = {"selectors": names, "sizes": sizes, "n_folds": 4}
    settings = build_settings({**TINY_SETTINGS, "compare": asked}, name="test", folder=tmp_path)
    cross_validate(settings)
    nested_choice.show_choices(settings, names, sizes, inner_folds=3)
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert rows[0][1:4] == ["greedy, inside", "variance, inside", "choice"]
    assert [row[0] for row in rows[1:]] == ["0", "1", "2", "3", "mean"]
    outer = nested_choice.fold_errors(f"{settings.root}/comparison.zarr", sizes)
    for k, row in enumerate(rows[1:-1]):
        assert row[3] == "greedy"
        assert float(row[1]) < float(row[2])
        assert row[4] == f"{outer['greedy'][0, k]:.4f}, {outer['random'][0, k]:.4f}"
        held = open_store(f"{settings.root}/folds/{k}/segments/0000/normalized.zarr")
        tested = set(held["series"].values[held["split"].values == 2])
        within = open_store(f"{settings.root}/nested/{k}/folds/0/segments/0000/normalized.zarr")
        assert set(within["series"].values) == set(held["series"].values) - tested


def write_small_study(root, changed=None):
    """Stores of chosen values, two segments, a model and a replicate; some arrays changed."""
    near = np.array([[0.0, 0.0], [0.0, 2.0], [9.0, 9.0]], dtype=np.float32)
    arrays = {
        f"{FIRST}/normalized.zarr/expression": np.array([[7.5, np.nan], [8.0, 9.0], [1, 2]]),
        f"{FIRST}/normalized.zarr/split": np.array([0, 0, 2], dtype=np.int8),
        f"{FIRST}/samples.zarr/cluster": np.array([1, 1, 0], dtype=np.int32),
        f"{FIRST}/samples.zarr/projection": near,
        "segments/0001/normalized.zarr/gene": np.array(["A", "B"], np.dtypes.StringDType()),
        "groups.zarr/ari": np.array([0.5, 0.25]),
        "scores.zarr/score": np.linspace(0, 1, 5000),
        f"stability/{len(changed or []):08x}/seed-1/scores.zarr/score": np.ones(2),
        **(changed or {}),
    }
    for name, values in arrays.items():
        store, _, array = name.rpartition("/")
        group = zarr.open_group(str(root / store), mode="a")
        group.create_array(array, shape=values.shape, dtype=values.dtype)[...] = values
    (root / "models" / "seed-0").mkdir(parents=True)
    np.savez(root / "models" / "seed-0" / "weights.npz", kernel_0=near, bias_0=np.ones(2))
    return root


def compared(tmp_path, changed, *options):
    old = write_small_study(tmp_path / "old")
    new = write_small_study(tmp_path / "new", changed)
    return run_script("compare_studies.py", old, new, *options)


def test_compare_studies__equal_in_every_array(tmp_path):
    status, printed, said = compared(tmp_path, {})
    assert (status, said) == (0, [])
    assert printed == [
        "equal\tgroups.zarr/ari",
        "equal\tmodels/seed-0/weights.npz/bias_0",
        "equal\tmodels/seed-0/weights.npz/kernel_0",
        "equal\tscores.zarr/score",
        f"equal\t{FIRST}/normalized.zarr/expression",
        f"equal\t{FIRST}/normalized.zarr/split",
        f"equal\t{FIRST}/samples.zarr/cluster",
        f"equal\t{FIRST}/samples.zarr/projection",
        f"inertia\t{FIRST}/samples.zarr\t2 -> 2 (+0.00%)",  # about (0, 1), each is 1 away
        "equal\tsegments/0001/normalized.zarr/gene",
        "equal\tstability/*/seed-1/scores.zarr/score",
        "10 equal",
    ]


def test_compare_studies__one_value_differs(tmp_path):
    score = np.linspace(0, 1, 5000) + 1e-9 * (np.arange(5000) == 4321)
    status, printed, _ = compared(tmp_path, {"scores.zarr/score": score}, "--quiet")
    assert status == 1
    assert printed == [
        "different\tscores.zarr/score\t1 of 5000 values, largest difference 1e-09",
        f"inertia\t{FIRST}/samples.zarr\t2 -> 2 (+0.00%)",
        "1 different; 9 equal",
    ]


def test_compare_studies__any_kind_of_difference_is_told(tmp_path):
    changed = {
        "groups.zarr/ari": np.array([0.5, 0.2501]),
        "scores.zarr/score": np.ones(3),
        f"{FIRST}/normalized.zarr/expression": np.array([[7.5, 7], [8, 9], [1, 2]]),
        f"{FIRST}/samples.zarr/projection": np.zeros((3, 2)),
        "segments/0001/normalized.zarr/gene": np.array(["A", "C"], np.dtypes.StringDType()),
    }
    status, printed, _ = compared(tmp_path, changed, "--quiet")
    assert status == 1
    assert printed == [
        "different\tgroups.zarr/ari\t1 of 2 values, largest difference 0.0001",
        "different\tscores.zarr/score\tshape (5000,) -> (3,)",
        f"different\t{FIRST}/normalized.zarr/expression\t1 of 6 values, largest difference inf",
        f"different\t{FIRST}/samples.zarr/projection\ttype float32 -> float64",
        f"inertia\t{FIRST}/samples.zarr\t2 -> 0 (-100.00%)",
        "different\tsegments/0001/normalized.zarr/gene\t1 of 2 values",
        "5 different; 5 equal",
    ]


def test_compare_studies__what_may_differ(tmp_path):
    changed = {
        "groups.zarr/ari": np.array([0.5, 0.25 + 1e-7]),
        f"{FIRST}/samples.zarr/cluster": np.array([0, 1, 0], dtype=np.int32),
        "landmarks.zarr/kind": np.ones(2),
        "scores.zarr/kind": np.ones(2),
    }
    new = ["landmarks", "scores/kind"]
    status, printed, _ = compared(tmp_path, changed, "--quiet", "--from", "samples/cluster", *new)
    assert status == 0
    assert printed == [
        "near\tgroups.zarr/ari\t1 of 2 values, largest difference 1e-07",
        "only in new, expected\tlandmarks.zarr",
        "only in new, expected\tscores.zarr/kind",
        f"different, expected\t{FIRST}/samples.zarr/cluster\t1 of 3 values, largest difference 1",
        f"inertia\t{FIRST}/samples.zarr\t2 -> 0 (-100.00%)",
        "1 different, expected; 8 equal; 1 near; 2 only in new, expected",
    ]
    status, printed, _ = run_script("compare_studies.py", tmp_path / "new", tmp_path / "old")
    assert status == 1
    assert "only in old\tlandmarks.zarr" in printed
    assert "only in old\tscores.zarr/kind" in printed


def test_compare_studies__no_study(tmp_path):
    status, _, said = run_script("compare_studies.py", tmp_path, tmp_path)
    assert status == 2
    assert "expected a study, got no stores" in said[-1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_train_settings__a_row_for_each(tmp_path):
    script = REPO / "benchmarks/train_settings.py"
    options = ["--size", "tiny", "--epochs", "3", "--repeats", "2", "--scratch", str(tmp_path)]
    ways = ["bfloat16 products", "keras fit"]  # compiling takes minutes
    options += ["--only", *ways]
    done = subprocess.run(
        [sys.executable, script, *options], check=True, stdout=subprocess.PIPE, text=True
    )
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ways
    assert all(float(row[2]) > 0 for row in rows)
    assert rows[0][2] == "1.00"
    losses = [[float(loss) for loss in row[3].split()] for row in rows]
    assert all(len(each) == 3 and 0.5 < min(each) < max(each) < 1.5 for each in losses)
    for row, each in zip(rows, losses, strict=True):
        lowest, highest = map(float, row[4].split(" to "))
        assert lowest < each[-1] < highest  # two seeds
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_scripts__wrong_settings_are_told_in_one_line(tmp_path):
    sizes = ["--n-samples", 300, "--n-genes", 300, "--workers", 0]
    status, _, said = run_script("full_size.py", *sizes, "--scratch", tmp_path)
    assert (status, len(said)) == (2, 1), said
    assert "expected train and test samples" in said[0]
    assert list(tmp_path.iterdir()) == []
    root = tmp_path / "grown"
    status, _, said = run_script("grow_real.py", "--folder", tmp_path, "--root", root)
    assert (status, len(said)) == (2, 1), said
    assert "no such file" in said[0]


def test_panel_sizes__judges_by_the_ridge_of_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import panel_sizes

    from dglzarr.kernels.linear import predict_ridge, ridge_partial, ridge_path

    rng = np.random.default_rng(0)
    values = (rng.standard_normal((30, 4)) @ rng.standard_normal((4, 25))).astype(np.float32)
    values += rng.standard_normal(values.shape).astype(np.float32)
    fit, tune, held = values[:20], values[20:24], values[24:]
    keys = np.arange(25).astype(str).astype(object)
    fold = panel_sizes.Fold(fit, tune, held, *[np.zeros(6)] * 3, keys, np.ones(25, dtype=bool))
    panel, alphas = np.array([3, 8, 20]), (0.5, 5.0, 50.0)
    path = ridge_path(ridge_partial(fit[:, panel], fit))
    tried = [np.abs(p - tune).mean() for p in predict_ridge(path, tune[:, panel], alphas)]
    expected = predict_ridge(path, held[:, panel], [alphas[int(np.argmin(tried))]])[0]
    found = panel_sizes.Judge(fold, alphas).errors(panel)
    np.testing.assert_allclose(found, np.abs(expected - held), atol=1e-5)

    settings = panel_sizes.simulated(tmp_path, n_samples=96, n_genes=200)
    asked = {"n_random": 2, "others": ["medoids"], "alphas": alphas, "n_folds": 2}
    folds = panel_sizes.judge_data(settings, [5, 10], **asked)
    panel_sizes.show("simulated", folds, [5, 10])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[2] for row in rows] == ["old", "greedy", "medoids"] * 2
    for fold in folds:
        error = np.subtract(fold["greedy/10"], fold["random/10"])
        assert error.size == len(fold["series"])
    assert panel_sizes.judge_data(settings, [5, 10], **asked) == folds


@pytest.mark.slow
def test_load_serve__all_are_answered(tmp_path):
    options = ["--size", "tiny", "--clients", 4, "--seconds", 3, "--scratch", tmp_path]
    status, printed, said = run_script("load_serve.py", *options)
    assert status == 0, (printed, said)
    written, *kinds, every = [json.loads(line) for line in printed]
    assert (written["n_samples"], written["n_genes"]) == (600, 300)
    assert {line["question"] for line in kinds} <= {"scores", "neighbours", "expression"}
    assert sum(line["n"] for line in kinds) == every["n"] > 0
    assert every["errors"] == 0
    assert 0 < every["p50_ms"] <= every["p95_ms"] <= every["most_ms"]
    assert every["after"]["own_mb"] > 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_leaderboard__a_row_a_way_and_a_picture(tmp_path):
    picture = tmp_path / "board.svg"
    options = ["--size", "small", "--root", tmp_path, "--picture", picture, "--panels"]
    names = ["greedy, penalty chosen", "deeplift-greedy", "deeplift-greedy, permuted"]
    names += ["column-pivoted QR", "variance", "trained gates", "deeplift-greedy, of outputs"]
    names += ["most often chosen, of 4,096 genes", "one penalty, of 4,096 genes"]
    names += ["peel-off, of 4,096 genes", "L1000 landmarks"]
    status, printed, said = run_script("leaderboard.py", *options, *names)
    assert status == 0, said
    cells = [row.strip("| ").split(" | ") for row in printed]
    second = [row[0] for row in cells].index("true scores")
    rows = {
        row[0]: [float(x) for x in re.findall(r"[+-]?\d\.\d{4}", row[1])] for row in cells[2:second]
    }
    assert rows.keys() == {*names[:-1], "random"}  # no list is given
    for name in names[:-1]:
        error, mean, low, high = rows[name]
        assert mean == pytest.approx(error - rows["random"][0], abs=1.01e-4)
        assert low < mean < high
    assert rows["greedy, penalty chosen"][3] < 0 < rows["variance"][3]
    assert [row[:2] for row in cells[second + 2 :]] == [
        ["deeplift-greedy", "deeplift-greedy, permuted"],
        ["deeplift-greedy", "greedy, penalty chosen"],
        ["deeplift-greedy, of outputs", "deeplift-greedy"],
        ["deeplift-greedy, of outputs", "greedy, penalty chosen"],
    ]
    assert "greedy, penalty chosen" in picture.read_text(encoding="utf-8")
    panels = [json.loads(p.read_text()) for p in tmp_path.glob("folds/*/panels/[ct][or]*-10.json")]
    assert [len(set(one[0]["panels"]["10"])) for one in panels] == [10] * 6  # by QR and by gates
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("folds/*/panels/*")}
    assert len(written) == 3 * (len(names) + 2 * len(names))  # panels, penalties; errors by size
    assert run_script("leaderboard.py", *options, *names)[:2] == (0, printed)
    assert {path: path.stat().st_mtime_ns for path in written} == written  # all of it is kept


@pytest.mark.slow
def test_network__a_column_a_fold_and_seeds_of_all_training_series(tmp_path):
    n_samples, n_genes = 240, 120
    segment = tmp_path / "segments" / "0000"
    segment.mkdir(parents=True)
    values = simulate(n_samples, n_genes, n_duplicates=0).expression.astype(np.float32)
    series = [f"GSE{i % 6}" for i in range(n_samples)]
    split = np.zeros(n_samples, dtype=np.int8)
    uri = write_matrix(segment / "normalized.zarr", NORMALIZED, values, split=split, series=series)
    write_samples(segment / "samples.zarr", uri, keep=np.ones(n_samples, dtype=bool))
    write_manifest(tmp_path, ["0000"])
    options = ["--folds", 2, "--seeds", 2, "--networks", "default"]
    status, printed, said = run_script("network.py", "--root", tmp_path, *options)
    assert status == 0, said
    rows = [row.strip("| ").split(" | ") for row in printed[:-1]]
    assert [row[0] for row in rows][:2] == ["mean of each gene", "30 principal components"]
    assert rows[-1][0] == "network: default"
    assert all(len(row) == 4 for row in rows)
    assert all(float(row[1]) < 0.9 * float(rows[0][1]) for row in rows[2:])
    told = re.findall(r"(\d+) of (\d+) \((\d\.\d{4}), (\d\.\d{4})\)", printed[-1])
    assert len(told) == 4  # two folds, two seeds of all
    for best, last, before, after in told:
        assert (float(after) - float(before)) * (1 if best == "0" else -1) >= 0
        assert int(last) == min(100, int(best) + 10)


@pytest.mark.slow
def test_predictors__a_row_each_beside_ridge_and_the_mean(tmp_path):
    names = ["nearest samples", "kernel ridge", "reduced-rank ridge", "nearest landmarks"]
    names += ["network from ridge", "components, any panel", "masked network, any panel"]
    names += ["ridge, series centred", "ridge, series' means apart"]
    options = ["--size", "small", "--root", tmp_path, "--panel-size", 10, "--folds", 3]
    status, printed, said = run_script("predictors.py", *options, "--predictors", *names)
    assert status == 0, said
    cells = {row[0]: row[1:] for row in (line.strip("| ").split(" | ") for line in printed[2:])}
    assert list(cells) == ["mean", "ridge", *names]
    error = {name: float(row[0]) for name, row in cells.items()}
    for name in names:
        assert float(cells[name][1]) == pytest.approx(error[name] - error["ridge"], abs=1.01e-4)
    told = ["ridge", "reduced-rank ridge", "kernel ridge", "network from ridge"]
    told += ["components, any panel", "masked network, any panel"]
    assert max(error[name] for name in told) < 0.95 * error["mean"]
    kept = list(tmp_path.glob("folds/*/segments/*/predictors-10-*.json"))
    assert len(kept) == 3
    found = json.loads(kept[0].read_text(encoding="utf-8"))
    found["ridge"] = [9.0] * len(found["series"])
    kept[0].write_text(json.dumps(found), encoding="utf-8")
    _, again, _ = run_script("predictors.py", *options, "--predictors", "kernel ridge")
    assert float(again[3].strip("| ").split(" | ")[1]) > 2  # what stands there is read


def test_small_networks__gradients_are_those_of_the_loss(monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import gated
    import small_networks

    monkeypatch.setattr(gated, "STEP", 0)
    rng = np.random.default_rng(0)
    x, truth = rng.standard_normal((7, 30), np.float32), rng.standard_normal((7, 5), np.float32)
    first, second = rng.standard_normal((30, 6)) / 10, rng.standard_normal((6, 5))
    made = {"bias": np.zeros(5), "skip": rng.standard_normal((30, 5)), "relu": False}
    network = small_networks.Network(first, second, **made)

    def loss():
        return ((network.predict(x) - truth) ** 2).sum() / 2

    gradients = []
    monkeypatch.setattr(
        small_networks.Weights, "move", lambda _, gradient, *__: gradients.append(gradient)
    )
    network.learn(x, lambda out: out - truth, 1)
    parts = [network.second, network.bias, network.first, network.offset, network.skip]
    for part, gradient in zip(parts, gradients, strict=True):
        place = (3,) * part.values.ndim
        slope = []
        for step in (0.01, -0.02):
            part.values[place] += np.float32(step)
            slope.append(loss())
        assert gradient[place] == pytest.approx((slope[0] - slope[1]) / 0.02, rel=0.02)
        part.values[place] += np.float32(0.01)

    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    monkeypatch.setattr(gated, "STEP", 0)
    network = small_networks.Network(first, second, bias=np.zeros(5), skip=None, relu=True)
    gates, drawn = np.full(30, 0.5, np.float32), np.random.default_rng(3)
    noise = np.float32(gated.SPREAD) * np.random.default_rng(3).standard_normal((7, 30), np.float32)
    scale = 30 / np.clip(gates + noise, 0, 1).sum(axis=1, keepdims=True)
    found = gated._learn(network, gates, x, gated._squared(truth), drawn)
    slope = []
    for step in (0.01, -0.01):
        gates[2] = 0.5 + step
        out = network.predict(x * np.clip(gates + noise, 0, 1) * scale)
        slope.append(((out - truth) ** 2).sum() / 14)
    assert found[2] == pytest.approx((slope[0] - slope[1]) / 0.02, rel=0.02)


@pytest.mark.slow
def test_segments__a_line_for_each_question(tmp_path):
    options = ["--size", "tiny", "--repeats", 1, "--questions", "plain", "open_study"]
    status, printed, said = run_script("segments.py", *options, "--scratch", tmp_path)
    assert status == 0, said
    plain, tree = [json.loads(line) for line in printed]
    assert plain["question"] == "plain"
    assert plain["files_opened"] == 4 * 5 * 2 + 5
    assert tree["n_segments"] == 4
    assert plain["files_opened"] < tree["files_opened"] < 3 * plain["files_opened"]
    assert list(tmp_path.iterdir()) == []


def test_ask__of_a_study_whose_samples_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    import ask

    ask.write_study(str(tmp_path), 60, 120)
    ask.ask(str(tmp_path))
    told = [json.loads(line)["question"] for line in capsys.readouterr().out.splitlines()]
    assert {"open", "gene over all samples, cold", "neighbours", "by label"} <= {*told}
    assert dglzarr.open_study(str(tmp_path)).dgl.neighbours("G1", 3).attrs["n_samples"] == 60
