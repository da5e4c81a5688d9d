"""Bundles: what they predict is ridge regression, calibrated without the series told of."""

import json
from pathlib import Path

import numpy as np
import pytest

from dglzarr.cli import app, guarded
from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.prediction.fit import Training, fit_panel, training_groups
from dglzarr.prediction.judge import Judged
from dglzarr.prediction.make import make_bundle
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import write_manifest, write_matrix, write_samples
from tests.prediction.conftest import N_GENES, N_PANEL, PANEL, PER_SERIES

N_TRAIN = 10 * PER_SERIES


def in_z(values):
    """Training samples of all genes in z units; of the last, which is constant, 0."""
    of = values[:N_TRAIN].astype(np.float64)
    std = np.nanstd(of, axis=0)
    return np.nan_to_num((of - np.nanmean(of, axis=0)) / np.where(std > 1e-6, std, np.inf))


def test_make_bundle__coefficients_are_those_of_ridge_regression(bundle, values):
    z = in_z(values)
    x, y = z[:, :N_PANEL], z[:, N_PANEL:-1]
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    coef = np.linalg.solve(xc.T @ xc + bundle.details["alpha"] * np.eye(N_PANEL), xc.T @ yc)
    np.testing.assert_allclose(bundle["coefficient"], coef, atol=1e-4)
    np.testing.assert_allclose(
        bundle["intercept"], y.mean(axis=0) - x.mean(axis=0) @ coef, atol=1e-4
    )
    assert bundle.panel.genes == PANEL
    assert bundle.targets.genes == [f"{i:03d}_at" for i in range(N_PANEL, N_GENES - 1)]
    np.testing.assert_allclose(bundle["correlation"], x.T @ x / N_TRAIN, atol=1e-5)
    np.testing.assert_allclose(
        bundle["landmark_low"], np.nanmin(values[:N_TRAIN, :N_PANEL], axis=0)
    )


def test_make_bundle__judged_on_the_held_out_series(made):
    judged = made.details["judged"]["given"]
    assert judged["n_series"] == 3
    assert judged["n_samples"] == 3 * PER_SERIES
    assert 0.9 < judged["coverage"]["mean"] < 0.99
    assert judged["width"] < 0.8 * judged["mean_width"]
    assert judged["error"]["low"] < judged["error"]["mean"] < judged["error"]["high"]
    assert judged["error"]["high"] < judged["mean_error"]["low"]
    assert made.details["error"]["given"] < made.details["mean_error"]
    assert any("calibrated on 10 series; under 19 nothing guarantees" in n for n in made.notes)
    assert any(note.startswith("1 genes do not vary in training") for note in made.notes)


def test_judged__a_share_ends_at_one():
    """Intervals over few series are wide; those of a share still lie between 0 and 1."""
    shares, errors = np.array([0.99, 0.97, 0.8]), np.array([0.1, 0.1, 0.9])
    series = np.array(["a", "b", "c"], dtype=object)
    told = Judged("given", series, errors, errors, shares, shares, errors, 1.0, 1.0).told()
    assert told["coverage"]["high"] == 1
    assert 0 < told["coverage"]["low"] < 0.8
    assert told["error"]["low"] == 0
    assert told["error"]["high"] > 1


def test_fit_panel__left_out_series_are_not_fitted_on(root, values):
    """Width, error and novelty of a fold stay the same whatever its own samples are fitted to."""
    segment = f"{root}/segments/0000"
    landmarks, targets = np.arange(N_PANEL), np.arange(N_PANEL, N_GENES - 1)
    data = Training(f"{segment}/normalized.zarr", f"{segment}/samples.zarr", landmarks, targets)
    found = fit_panel(data)
    z = in_z(values)
    series = np.repeat(np.arange(10), PER_SERIES)
    squares, absolute = [], 0.0
    for one in range(10):
        x, y = z[series != one][:, landmarks], z[series != one][:, targets]
        xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
        coef = np.linalg.solve(xc.T @ xc + found.alpha * np.eye(N_PANEL), xc.T @ yc)
        of = z[series == one]
        residual = (of[:, landmarks] - x.mean(axis=0)) @ coef + y.mean(axis=0) - of[:, targets]
        squares.append((residual**2).mean(axis=0))
        absolute += np.abs(residual).sum()
    assert found.left_out.error[2] == pytest.approx(absolute / z[:, targets].size, rel=1e-3)
    plain = np.sqrt(np.mean(squares, axis=0))
    ratio = found.left_out.half_width[2] / plain
    assert 1.6 < np.median(ratio) < 2.6
    assert found.n_groups == 10


def test_training_groups__one_series_is_left_out_by_sample():
    groups = training_groups(["a"] * 40, 0)
    assert not groups.are_series
    assert groups.group.max() == 29
    many = training_groups([f"GSE{i % 50}" for i in range(200)], 0)
    assert many.fold.size == 30
    assert len(set(many.fold_of_sample.tolist())) == 10
    for series in range(50):
        assert len(set(many.group[series::50].tolist())) == 1


def test_make_bundle__size_is_a_greedy_panel(root, tmp_path):
    made = make_bundle(root, tmp_path / "b.zip", size=6)
    assert made.details["panel"] == "greedy, 6 genes"
    assert made.details["n_landmarks"] == 6


@pytest.mark.parametrize("called", ["order.tsv", "order.csv"])
def test_make_bundle__order_sheet(called, root, tmp_path, capsys):
    sheet = str(tmp_path / called)
    with pytest.raises(SystemExit) as left:
        app(["panel", root, "--size", "5", "--include", "G7", "--output", sheet])
    assert left.value.code == 0
    output = tmp_path / "b.zip"
    with pytest.raises(SystemExit) as left:
        app(["bundle", root, "--panel", sheet, "--output", str(output), "--json"])
    assert left.value.code == 0
    told = capsys.readouterr().out
    made = json.loads(told[told.index("{\n") :])
    assert made["details"]["n_landmarks"] == 5
    assert made["nbytes"] == output.stat().st_size


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"panel": "nosuch"}, StoreError, "landmarks"),
        ({"panel": "x.txt", "size": 5}, ConfigError, "--size: expected no --panel beside it"),
        ({"output": "x.bundle"}, ConfigError, r"--output: expected a name that ends in \.zip"),
    ],
)
def test_make_bundle__refused(root, tmp_path, arguments, error, match):
    asked = {"output": "b.zip", **arguments}
    with pytest.raises(error, match=match):
        make_bundle(root, tmp_path / asked.pop("output"), **asked)
    assert list(tmp_path.iterdir()) == []


def test_make_bundle__a_study_with_centred_batches_is_refused(tmp_path, values):
    segment = tmp_path / "study" / "segments" / "0000"
    segment.mkdir(parents=True)
    uri = write_matrix(
        segment / "normalized.zarr", NORMALIZED, values, details={"center_by": "series"}
    )
    write_samples(segment / "samples.zarr", uri, keep=np.ones(len(values), dtype=bool))
    write_manifest(tmp_path / "study", ["0000"])
    with pytest.raises(ConfigError, match=r"no mean to be centred by, .*center_by = 'series'"):
        make_bundle(str(tmp_path / "study"), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_make_bundle__genes_of_a_file_must_be_of_the_study(root, tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("G1\nNOSUCH\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"list.txt: expected genes of the study, got \['NOSUCH'"):
        make_bundle(root, tmp_path / "b.zip", panel=str(file))
    file.write_text("G1\n001_at\n", encoding="utf-8")
    with pytest.raises(SourceError, match="expected each gene once, got the same as"):
        make_bundle(root, tmp_path / "b.zip", panel=str(file))


def test_make_bundle__what_stands_there_stays(root, made, panel_file):
    before = Path(made.output).read_bytes()
    with pytest.raises(ConfigError, match=r"a\.zip: exists\. Remove it, or give --overwrite"):
        make_bundle(root, made.output, panel=panel_file)
    assert Path(made.output).read_bytes() == before


def test_bundle__no_study(tmp_path, capsys):
    status = guarded(lambda: app(["bundle", str(tmp_path), "--output", str(tmp_path / "b.zip")]))
    assert status == 1
    assert "no study here" in capsys.readouterr().err


def test_read_array__is_what_moments_are(root):
    segment = f"{root}/segments/0000"
    data = Training(f"{segment}/normalized.zarr", f"{segment}/samples.zarr", *[np.arange(2)] * 2)
    np.testing.assert_array_equal(
        data.moments[0], read_array(f"{segment}/samples.zarr", "gene_mean")
    )
