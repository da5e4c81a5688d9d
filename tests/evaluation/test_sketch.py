"""The sketch of a store: chosen samples in z units, folded region by region."""

import dask
import numpy as np
import pytest

from dglzarr.evaluation.sketch import sketch_samples, sketch_training
from dglzarr.kernels.moments import chunk_moments, finish_moments, standardize
from dglzarr.prediction.fit import Training, fit_panel
from dglzarr.stages.train import TrainOptions, _batches
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import simulate, write_matrix, write_samples

N_SAMPLES, N_GENES = 100, 40


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store of seven regions, the samples chosen of it (none of the third), and moments."""
    values = simulate(N_SAMPLES, N_GENES).expression.astype(np.float32)
    values[::9, 5] = np.nan
    uri = write_matrix(tmp_path_factory.mktemp("s") / "normalized.zarr", NORMALIZED, values)
    chosen = np.random.default_rng(0).random(N_SAMPLES) < 0.8
    chosen[32:48] = False
    mean, std = finish_moments(chunk_moments(values[chosen]))
    return uri, values, chosen, {"mean": mean, "std": std, "score": np.arange(N_GENES) / 7}


def test_studies__one_that_is_told_in_several_ways_stays_on_one_side(study, tmp_path):
    _, values, _, _ = study
    series = np.repeat(["GSE1", "GSE1,GSE2", "GSE2", "GSE3", "GSE4"], 20)
    of_one = np.arange(N_SAMPLES) < 60
    split = np.zeros(N_SAMPLES, dtype=np.int8)
    uri = write_matrix(tmp_path / "n", NORMALIZED, values, series=series, split=split)
    samples = write_samples(tmp_path / "s", uri, keep=np.ones(N_SAMPLES, dtype=bool))
    found = sketch_training(uri, samples, np.zeros(N_GENES), seed=0)
    assert len(set(found.group[of_one].tolist())) == 1
    data = Training(uri, samples, np.arange(10), np.arange(10, N_GENES))
    assert fit_panel(data).n_groups == 3
    held = {
        study
        for seed in range(9)
        for _, _, judging in [_batches(uri, samples, data.moments, TrainOptions(), seed)]
        for study in series[judging.keep]
    }
    assert held == {"GSE3", "GSE4"}, "the others are over half of all"


def test_sketch_samples__few_samples_in_order(study):
    uri, values, chosen, options = study
    found = sketch_samples(uri, chosen, **options)
    np.testing.assert_array_equal(
        found.rows, standardize(values[chosen], options["mean"], options["std"])
    )
    assert found.n_samples == chosen.sum()
    assert found.std is options["std"]
    assert found.score is options["score"]


def test_sketch_samples__many_samples_are_folded(study):
    uri, values, chosen, options = study
    z = standardize(values[chosen], options["mean"], options["std"])
    folds = [sketch_samples(uri, chosen, **options, n_rows=20, seed=i) for i in range(60)]
    assert all(20 <= len(f.rows) <= 27 for f in folds)
    assert all(f.n_samples == len(z) for f in folds)
    mean = np.mean([f.rows.T @ f.rows for f in folds], axis=0)
    np.testing.assert_allclose(mean, z.T @ z, atol=0.25 * len(z))
    assert (folds[0].rows != folds[1].rows).any()


@pytest.mark.parametrize("n_rows", [20, 200])
def test_sketch_samples__any_scheduler(study, n_rows):
    uri, _, chosen, options = study
    with dask.config.set(scheduler="synchronous"):
        one = sketch_samples(uri, chosen, **options, n_rows=n_rows)
    with dask.config.set(scheduler="threads", num_workers=3):
        three = sketch_samples(uri, chosen, **options, n_rows=n_rows)
    np.testing.assert_array_equal(one.rows, three.rows)
