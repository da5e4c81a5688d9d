"""Contrasts of held-out groups: what a panel tells, beside chance, the mean and the truth."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from dglzarr.cli import app
from dglzarr.errors import ConfigError
from dglzarr.prediction.contrast import Asked, _measured, _row, contrast
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.schemas import NORMALIZED, SCORES
from dglzarr.storage.store import open_store
from tests.builders import write_manifest, write_matrix, write_samples, write_store

N_GENES, PER_SERIES, N_SERIES = 160, 16, 8
ASKED = Asked("tissue", "ill", "well")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight series of five programs; in each the ill differ from the well by two of them."""
    rng = np.random.default_rng(0)
    n = N_SERIES * PER_SERIES
    is_ill = np.arange(n) % 2 == 0
    programs = rng.normal(size=(n, 5))
    programs[is_ill, :2] += 3 * rng.choice([-1, 1], (N_SERIES, 2)).repeat(PER_SERIES // 2, axis=0)
    values = 8 + programs @ rng.normal(size=(5, N_GENES)) + 0.7 * rng.normal(size=(n, N_GENES))
    values[-1, 3] = np.nan
    series = np.repeat(np.arange(N_SERIES), PER_SERIES)
    tissues = np.where(is_ill, "ill", "well").astype(object)
    tissues[(series == 7) & (np.arange(n) % 4 == 2)] = ""
    place = tmp_path_factory.mktemp("contrast") / "study"
    segment = place / "segments" / "0000"
    segment.mkdir(parents=True)
    uri = write_matrix(
        segment / "normalized.zarr", NORMALIZED, values.astype(np.float32),
        series=[f"GSE{k}" for k in series], split=np.where(series < 6, 0, 2).astype(np.int8),
        symbols=[f"G{i}" for i in range(N_GENES)],
        tissues=tissues.tolist(),
    )  # fmt: skip
    samples = write_samples(segment / "samples.zarr", uri, keep=np.ones(n, dtype=bool))
    ds = open_store(uri)
    labels = {name: ds[name].values for name in ("gene", "gene_symbol", "gene_id")}
    scores = {"score": np.ones(N_GENES), "latent_score": np.ones((1, N_GENES), np.float32)}
    source = write_store(
        place / "scores.zarr", SCORES, {**labels, "latent": np.zeros(1, np.int32), **scores}
    )
    options = SelectOptions(n_landmarks=12, selectors=("variance",), n_random=3, penalty=1.0)
    select(source, str(place / "landmarks.zarr"), normalized=uri, samples=samples, options=options)
    write_manifest(place, ["0000"])
    return str(place)


@pytest.fixture
def sets(tmp_path):
    file = tmp_path / "sets.gmt"
    lines = [f"s{k}\tna\t" + "\t".join(f"G{i}" for i in range(k, N_GENES, 9)) for k in range(9)]
    file.write_text("\n".join([*lines, "small\tna\tG1\tG2"]), encoding="utf-8")
    return str(file)


def test_contrast__beside_what_is_measured_random_panels_and_the_mean(root, sets):
    found = contrast(root, replace(ASKED, gene_sets=sets))
    table = found.table.set_index(["series", "panel"])
    assert table.index.get_level_values("panel").unique().tolist() == [
        "all targets", "mined", "variance", "random", "mean"
    ]  # fmt: skip
    assert (found.n_panels, found.n_sets) == (3, 9)
    assert 90 < found.n_targets < N_GENES - 12
    for series in ("GSE6", "GSE7"):
        of = table.loc[series]
        measured, mined, random, mean = (
            of.loc[name] for name in ("all targets", "mined", "random", "mean")
        )
        assert measured[["r", "recovered", "sign", "r_sets"]].tolist() == pytest.approx([1] * 4)
        assert mined["n_called"] > 20
        assert mined["r"] > 0.9
        assert mined["r_sets"] > 0.9
        assert mined["recovered"] > 0.8
        assert mined["sign"] > 0.95
        assert random["r_low"] < random["r"] < random["r_high"]
        assert mean["recovered"] == mean["n_called"] / found.n_targets
        assert mean[["r", "sign", "r_sets", "ari"]].isna().all()


def test_contrast__only_a_series_that_is_named_and_no_sets(root):
    table = contrast(root, replace(ASKED, series=("GSE7",))).table
    assert set(table["series"]) == {"GSE7"}
    assert table["r_sets"].isna().all()
    assert set(zip(table["n_case"], table["n_control"], strict=True)) == {(4, 8)}


def test_row__what_changes_the_other_way_is_found_and_has_the_wrong_sign():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(12, 50)).astype(np.float32)
    z[:6, :10] += 3
    std, case, control = np.full(50, 2, np.float32), np.arange(6), np.arange(6, 12)
    of = _measured("GSE1", z, std, case, control)
    assert of.called[:10].all()
    sets = [np.arange(k, k + 5) for k in range(0, 50, 5)]
    found = _row("p", "selector", of, z, -z, std, sets)
    assert found["r"] == found["r_sets"] == pytest.approx(-1)
    assert (found["recovered"], found["sign"]) == (1, 0)
    shuffled = _row("p", "selector", of, z, z[:, ::-1], std, sets)
    assert shuffled["recovered"] < 0.3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"label": "tisue"}, r"--label: expected a label .*'tissue'\], got 'tisue'.*did you mean"),
        ({"case": "dead"}, "'dead' and 'well' in one series, got none.*GSE6: ill, well"),
        ({"case": "well"}, "expected two values, got 'well' twice"),
        ({"series": ("GSE1",)}, "--series: expected series of held-out samples, got"),
    ],
)
def test_contrast__refused_in_one_line(root, changed, message):
    with pytest.raises(ConfigError, match=message) as error:
        contrast(root, replace(ASKED, **changed))
    assert "\n" not in str(error.value)


def test_command__a_table_a_series(root):
    options = ["contrast", root, "--label", "tissue", "--case", "ill", "--control", "well"]
    done = CliRunner().invoke(app, options, catch_exceptions=False)
    said = done.stdout.splitlines()
    assert said[0].startswith("GSE6: 8 + 8 held-out samples, ")
    assert said[1].split()[0] == "panel"
    assert [line.split("  ")[0] for line in said[2:7]] == [
        "all targets", "mined", "variance", "3 random", "mean"
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*options, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told["rows"][4]["r"] is None
    assert told["n_random"] == 3
