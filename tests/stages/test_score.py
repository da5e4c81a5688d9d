import copy

import numpy as np
import pytest

from dglzarr import deeplift_contributions
from dglzarr.errors import DglzarrError, SchemaError, StoreError
from dglzarr.models.files import encoder_layers, load_model
from dglzarr.rows import read_array
from dglzarr.schema import NORMALIZED
from dglzarr.stages import score as stage
from dglzarr.stages.score import score
from dglzarr.store import is_complete, open_store, read_attributes
from tests.studies import (
    LENGTHS,
    TEST,
    TRAIN,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    remove_regions,
    simulate,
    splits,
    times,
    write_matrix,
    write_model,
    write_samples,
)

N_SAMPLES = 100


class Study:
    """A normalized store, its mask, an untrained model, and where scores go."""

    def __init__(self, folder, values, *, shard=16, keep=None, seed=0):
        self.folder, self.values = folder, values
        self.split = splits(len(values))
        self.split[16:32] = TEST  # a whole region of the smallest shards
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9 if keep is None else keep
        self.source = write_matrix(
            folder / "normalized", NORMALIZED, values, split=self.split, shard=shard
        )
        self.samples = write_samples(folder / "samples", self.source, keep=self.keep)
        self.model = write_model(folder / "model", self.source, self.samples, seed=seed)
        self.target, self.contributions = str(folder / "scores"), str(folder / "contributions")

    def scored_at(self, folder):
        other = copy.copy(self)
        other.target, other.contributions = str(folder / "scores"), str(folder / "contributions")
        return other

    def score(self, **options):
        places = {"contributions": self.contributions, "samples": self.samples}
        return score(self.source, self.target, **{**places, "model": self.model, **options})

    @property
    def averaged(self):
        return self.keep & (self.split == TRAIN)

    def contributions_by_kernel(self, deeplift_reference="mean", **options):
        """(sample, gene, latent), with all of numpy's own z-scores."""
        kept = self.values[self.averaged].astype(np.float64)
        mean, std = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0)
        z = np.nan_to_num((self.values - mean) / std)
        zeros = np.zeros(len(mean)) if deeplift_reference == "mean" else -mean / std
        layers = encoder_layers(load_model(self.folder / "model"))
        layers = [(k.astype(np.float64), b.astype(np.float64), a) for k, b, a in layers]
        return deeplift_contributions(layers, z, zeros, **options)


@pytest.fixture(scope="module")
def values():
    return simulate(n_duplicates=0, missing_fraction=0.02).expression


@pytest.fixture(scope="module")
def made(tmp_path_factory, values):
    return Study(tmp_path_factory.mktemp("study"), values)


@pytest.fixture
def study(made, tmp_path):
    return made.scored_at(tmp_path)


@pytest.mark.parametrize("reference", ["mean", "zeros"])
@pytest.mark.parametrize("layer", ["latent", "pre-activation"])
def test_score__is_the_mean_over_kept_training_samples(study, reference, layer):
    study.score(deeplift_reference=reference, layer=layer)
    phi = np.abs(study.contributions_by_kernel(reference, layer=layer))
    found = open_store(study.target)
    wanted = phi[study.averaged].mean(axis=0)
    np.testing.assert_allclose(found["latent_score"].values.T, wanted, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(found["score"].values, wanted.mean(axis=1), rtol=1e-4)
    per_sample = open_store(study.contributions)["contribution"].values
    np.testing.assert_allclose(
        per_sample,
        np.where(np.isnan(study.values), np.nan, phi.sum(axis=2)),
        rtol=2e-4,
        atol=1e-5,
    )


def test_score__every_sample_is_scored_and_missing_stays_missing(study):
    summary = study.score()
    found = open_store(study.contributions)
    np.testing.assert_array_equal(np.isnan(found["contribution"].values), np.isnan(study.values))
    assert not np.isnan(found["delta_error"].values).any()
    assert found["delta_error"].values.max() < 1e-5
    assert found["n_scored"].values.tolist()[1] == 0
    assert found["n_scored"].values.sum() == study.averaged.sum() == summary.details["n_scored"]


def test_score__labels_and_lineage(study):
    study.score()
    found, before = open_store(study.target), open_store(study.source)
    for name in ("gene", "gene_id", "gene_symbol"):
        np.testing.assert_array_equal(found[name].values, before[name].values)
    assert found.attrs["inputs"][0]["uri"] == study.contributions
    parameters = found.attrs["parameters"]
    assert parameters["model_id"] == load_model(study.folder / "model").model_id
    assert (parameters["deeplift_reference"], parameters["layer"]) == ("mean", "latent")
    assert parameters["fitted_on"] == "train and keep"


def test_score__shard_length_does_not_matter(tmp_path, values):
    found = []
    for shard in LENGTHS:
        (tmp_path / str(shard)).mkdir()
        study = Study(tmp_path / str(shard), values, shard=shard)
        study.score()
        found.append(
            (read_array(study.target, "score"), read_array(study.contributions, "contribution"))
        )
    for scores, contribution in found[1:]:
        np.testing.assert_allclose(scores, found[0][0], rtol=1e-6)
        np.testing.assert_allclose(contribution, found[0][1], rtol=1e-4, atol=1e-6)


def test_score__test_samples_and_dropped_ones_do_not_leak(tmp_path, values):
    keep = np.random.default_rng(3).random(len(values)) < 0.9
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    study = Study(tmp_path / "a", values, keep=keep)
    changed = np.where(study.averaged[:, None], values, values**2)
    other = Study(tmp_path / "b", changed, keep=keep)
    study.score()
    other.score()
    for name in ("score", "latent_score"):
        np.testing.assert_array_equal(
            read_array(study.target, name), read_array(other.target, name)
        )
    assert not np.array_equal(
        read_array(study.contributions, "contribution"),
        read_array(other.contributions, "contribution"),
        equal_nan=True,
    )


def test_score__resumes_with_the_same_bytes(study):
    study.score()
    contributions, scores = digests(study.contributions), digests(study.target)
    remove_regions(study.contributions, ["contribution"], [0, 5])
    remove_regions(study.contributions, ["latent_total", "delta_error"], [3])
    study.score()
    assert digests(study.contributions) == contributions
    assert digests(study.target) == scores


@pytest.mark.parametrize(
    ("name", "after"), [("_score_region", 3), ("finish", 0), ("finish", 1)], ids=str
)
def test_score__fails_half_way_and_goes_on(tmp_path, study, monkeypatch, name, after):
    whole = study.scored_at(tmp_path / "whole")
    whole.score()
    with monkeypatch.context() as broken:
        broken.setattr(stage, name, Breaks(getattr(stage, name), after))
        with pytest.raises(BrokenError):
            study.score()
    assert not is_complete(study.target)
    assert is_complete(study.contributions) == (after == 1)
    study.score()
    assert digests(study.contributions) == digests(whole.contributions)
    assert digests(study.target) == digests(whole.target)


def test_score__second_run_touches_nothing(study, tmp_path):
    first = study.score()
    before = times(tmp_path), times(study.folder)
    second = study.score()
    assert (first.state, second.state) == ("new", "unchanged")
    assert (times(tmp_path), times(study.folder)) == before


def test_score__other_parameters(study):
    study.score()
    for name, value in {"deeplift_reference": "zeros", "layer": "pre-activation"}.items():
        before = read_array(study.target, "score")
        with pytest.raises(StoreError, match=f"contributions: was made with .*: {name} "):
            study.score(**{name: value})
        assert study.score(**{name: value}, overwrite=True).state == "new"
        assert not np.allclose(read_array(study.target, "score"), before, rtol=1e-3)
        study.score(overwrite=True)


def test_score__another_model_at_the_same_place(tmp_path, values):
    study = Study(tmp_path, values)
    study.score()
    before = read_array(study.target, "score")
    write_model(study.model, study.source, study.samples, seed=1)
    with pytest.raises(StoreError, match="other parameters: model_id"):
        study.score()
    study.score(overwrite=True)
    phi = np.abs(study.contributions_by_kernel())[study.averaged].mean(axis=(0, 2))
    np.testing.assert_allclose(read_array(study.target, "score"), phi, rtol=1e-4)
    assert not np.allclose(before, phi, rtol=1e-3)


def test_score__model_of_other_genes(tmp_path, study, values):
    (tmp_path / "other").mkdir()
    other = Study(tmp_path / "other", values[:, ::2])
    with pytest.raises(SchemaError, match="expected the 20 genes the model was fitted on, got 40"):
        study.score(model=other.model)
    assert read_attributes(study.contributions) is None


def test_score__gap_to_the_change_of_a_latent_unit_is_refused(study, monkeypatch):
    monkeypatch.setattr(stage, "_LARGEST_DELTA_ERROR", 1e-12)
    with pytest.raises(DglzarrError, match="sum to the change of a latent unit within 1e-12, got"):
        study.score()
    assert not is_complete(study.contributions)
    assert not is_complete(study.target)


def test_score__opening_computes_nothing(study):
    study.score()
    with no_computing():
        assert open_store([study.contributions])["contribution"].shape == (N_SAMPLES, 40)
        open_store(study.target)
