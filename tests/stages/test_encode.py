from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import SchemaError, StoreError
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.metrics import mae_per_gene, null_fraction, pcc_per_gene
from dglzarr.models.files import load_model
from dglzarr.stages import encode as stage
from dglzarr.stages.encode import encode
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import is_complete, open_store
from tests.builders import (
    TEST,
    Breaks,
    BrokenError,
    digests,
    remove_regions,
    simulate,
    splits,
    times,
    write_matrix,
    write_model,
    write_samples,
)


class Study:
    """A normalized store, its mask and an untrained model."""

    def __init__(self, folder, values, *, shard=16):
        self.values, self.split = values, splits(len(values))
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9
        self.source = write_matrix(
            folder / "normalized", NORMALIZED, values, split=self.split, shard=shard
        )
        self.samples = write_samples(folder / "samples", self.source, keep=self.keep)
        self.model = write_model(folder / "model", self.source, self.samples)

    def encode(self, folder, **options):
        target, latent = str(folder / "reconstruction"), str(folder / "latent")
        places = {"samples": self.samples, "model": self.model, "latent": latent}
        return encode(self.source, target, **{**places, **options})

    def by_hand(self):
        """z-scores, latent units and reconstruction of all samples, by the model's layers."""
        saved = load_model(Path(self.model))
        z = (self.values - saved.gene_mean) / saved.gene_std
        values = forward(saved.layers, np.nan_to_num(z))
        return z, values[1][1], values[-1][1]


@pytest.fixture(scope="module")
def values():
    return simulate(n_duplicates=0, missing_fraction=0.02).expression


@pytest.fixture(scope="module")
def study(tmp_path_factory, values):
    return Study(tmp_path_factory.mktemp("study"), values)


def test_encode__latent_units_of_every_sample(tmp_path, study):
    study.encode(tmp_path)
    _, latent, _ = study.by_hand()
    found = open_store(str(tmp_path / "latent"))
    np.testing.assert_allclose(found["latent"].values, latent, rtol=1e-4, atol=1e-6)
    assert found["sample"].values.tolist() == open_store(study.source)["sample"].values.tolist()


def test_encode__reconstruction_of_kept_test_samples(tmp_path, study):
    summary = study.encode(tmp_path)
    judged = study.keep & (study.split == TEST)
    z, _, predicted = (part[judged] for part in study.by_hand())
    found = open_store(str(tmp_path / "reconstruction"))
    np.testing.assert_allclose(found["mae"].values, mae_per_gene(z, predicted), rtol=1e-4)
    np.testing.assert_allclose(found["pcc"].values, pcc_per_gene(z, predicted), atol=1e-4)
    null = null_fraction(z, predicted)
    np.testing.assert_allclose(found["null_fraction"].values, null, atol=0.03)
    details = summary.details
    assert details["n_test"] == details["n_null"] == judged.sum()
    assert details["mean_mae"] == pytest.approx(float(found["mae"].mean()))
    assert details["mean_pcc"] == pytest.approx(float(found["pcc"].mean()))
    assert details["n_significant"] == int((found["null_fraction"] < 0.01).sum())


def test_encode__permutation_test_of_some_samples(tmp_path, study, monkeypatch):
    monkeypatch.setattr(stage, "N_NULL", 5)
    summary = study.encode(tmp_path)
    assert summary.details["n_null"] == 5
    assert summary.details["n_test"] > 5


def test_encode__without_test_samples(tmp_path, values):
    study = Study(tmp_path, values)
    study.keep[study.split == TEST] = False
    write_samples(tmp_path / "none kept", study.source, keep=study.keep)
    summary = study.encode(tmp_path, samples=str(tmp_path / "none kept"))
    assert summary.details["mean_mae"] is None
    assert summary.details["n_significant"] == 0
    assert np.isnan(read_array(summary.uri, "mae")).all()


def test_encode__shard_length_does_not_matter(tmp_path, values, study):
    study.encode(tmp_path / "a")
    Study(tmp_path, values, shard=112).encode(tmp_path / "b")
    for name, array in (("latent", "latent"), ("reconstruction", "mae"), ("reconstruction", "pcc")):
        a, b = (read_array(str(tmp_path / run / name), array) for run in "ab")
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_encode__resumes_with_the_same_bytes(tmp_path, study):
    study.encode(tmp_path)
    before = digests(tmp_path)
    remove_regions(tmp_path / "latent", ["latent"], [0, 3])
    remove_regions(tmp_path / "latent", ["agreement_total"], [2])
    study.encode(tmp_path)
    assert digests(tmp_path) == before
    stamps = times(tmp_path)
    assert study.encode(tmp_path).state == "unchanged"
    assert times(tmp_path) == stamps


def test_encode__fails_half_way_and_goes_on(tmp_path, study, monkeypatch):
    study.encode(tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_encode_region", Breaks(stage._encode_region, 3))
        with pytest.raises(BrokenError):
            study.encode(tmp_path / "broken")
    assert not is_complete(str(tmp_path / "broken" / "latent"))
    study.encode(tmp_path / "broken")
    assert digests(tmp_path / "broken") == digests(tmp_path / "whole")


def test_encode__another_model(tmp_path, study, values):
    study.encode(tmp_path)
    (tmp_path / "other").mkdir()
    model = write_model(tmp_path / "other" / "model", study.source, study.samples, seed=1)
    with pytest.raises(StoreError, match="latent: was made with other parameters: model_id"):
        study.encode(tmp_path, model=model)
    narrow = Study(tmp_path / "other", values[:, ::2])
    with pytest.raises(SchemaError, match="expected the 20 genes the model was fitted on, got 40"):
        study.encode(tmp_path / "new", model=narrow.model)
