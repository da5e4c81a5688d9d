import numpy as np
import pytest

from dglzarr.errors import StoreError
from dglzarr.kernels.metrics import mae_per_gene, null_fraction, pcc_per_gene
from dglzarr.models.files import load_model
from dglzarr.stages import reconstruct as stage
from dglzarr.storage import store
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    TEST,
    Breaks,
    BrokenError,
    digests,
    times,
    write_model,
    write_samples,
)
from tests.stages.networks import Study


@pytest.fixture
def study(study):
    """A study whose samples are encoded."""
    study.encode()
    return study


def test_reconstruct__kept_test_samples(study):
    summary = study.reconstruct()
    tested = study.keep & (study.split == TEST)
    z, _, predicted = (part[tested] for part in study.reconstruction_by_hand())
    found = open_store(study.reconstruction)
    np.testing.assert_allclose(found["mae"].values, mae_per_gene(z, predicted), rtol=1e-4)
    np.testing.assert_allclose(found["pcc"].values, pcc_per_gene(z, predicted), atol=1e-4)
    null = null_fraction(z, predicted)
    np.testing.assert_allclose(found["null_fraction"].values, null, atol=0.03)
    details = summary.details
    assert details["n_test"] == details["n_null"] == tested.sum()
    assert details["mean_mae"] == pytest.approx(float(found["mae"].mean()))
    assert details["mean_pcc"] == pytest.approx(float(found["pcc"].mean()))
    assert details["n_significant"] == int((found["null_fraction"] < 0.01).sum())


def test_reconstruct__beside_the_mean_and_principal_components(study):
    """The errors are those of numpy's own decomposition of the kept training samples."""
    rivals = study.reconstruct().details["rivals"]
    normalized, mask = open_store(study.source), open_store(study.samples)
    z = (normalized["expression"].values - mask["gene_mean"].values) / mask["gene_std"].values
    is_missing = np.isnan(z)
    filled = np.where(is_missing, 0, z)
    split, keep = normalized["split"].values, mask["keep"].values
    _, _, axes = np.linalg.svd(filled[(split == 0) & keep], full_matrices=False)
    tested = (split == 2) & keep
    n = rivals["components"]["n"]
    rebuilt = filled[tested] @ axes[:n].T @ axes[:n]
    z[is_missing] = np.nan
    expected = np.nanmean(np.abs(z[tested] - rebuilt), axis=1).mean()
    assert rivals["components"]["mae"] == pytest.approx(expected, rel=1e-4)
    assert rivals["mean"]["mae"] == pytest.approx(
        np.nanmean(np.abs(z[tested]), axis=1).mean(), rel=1e-4
    )
    for rival in rivals.values():
        assert rival["difference"] == pytest.approx(rival["network"] - rival["mae"], rel=1e-4)


def test_reconstruct__permutation_test_of_some_samples(study, monkeypatch):
    monkeypatch.setattr(stage, "N_NULL", 5)
    summary = study.reconstruct()
    assert summary.details["n_null"] == 5
    assert summary.details["n_test"] > 5


def test_reconstruct__without_test_samples(tmp_path, study):
    keep = study.keep & (study.split != TEST)
    samples = write_samples(tmp_path / "none kept", study.source, keep=keep)
    study.encode(samples=samples, run=Run(overwrite=True))
    summary = study.reconstruct(samples=samples)
    assert summary.details["mean_mae"] is None
    assert summary.details["n_significant"] == 0
    assert np.isnan(read_array(summary.uri, "mae")).all()


def test_reconstruct__labels_and_lineage(study):
    study.reconstruct()
    found, before = open_store(study.reconstruction), open_store(study.source)
    for name in ("gene", "gene_id", "gene_symbol"):
        np.testing.assert_array_equal(found[name].values, before[name].values)
    inputs = [(entry["role"], entry["uri"]) for entry in found.attrs["inputs"]]
    assert inputs == [("latent", study.latent), ("model", study.model)]
    assert found.attrs["inputs"][1]["store_id"] == load_model(study.folder / "model").model_id
    assert found.attrs["parameters"] == {"judged_on": "test and keep", "n_null": 2048}


def test_reconstruct__shard_length_does_not_matter(tmp_path, values, study):
    study.reconstruct()
    other = Study(tmp_path / "other", values, shard=112)
    other.encode()
    other.reconstruct()
    for array in ("mae", "pcc"):
        a, b = (read_array(made.reconstruction, array) for made in (study, other))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_reconstruct__second_run_touches_nothing(tmp_path, study):
    assert study.reconstruct().state == "new"
    before = times(tmp_path)
    assert study.reconstruct().state == "unchanged"
    assert times(tmp_path) == before


def test_reconstruct__fails_half_way_and_goes_on(tmp_path, study, monkeypatch):
    whole = study.at(tmp_path / "whole")
    whole.reconstruct(latent=study.latent)
    with monkeypatch.context() as broken:
        broken.setattr(store, "finish", Breaks(store.finish, 0))
        with pytest.raises(BrokenError):
            study.reconstruct()
    assert not is_complete(study.reconstruction)
    assert study.reconstruct().state == "resumed"
    assert digests(study.reconstruction) == digests(whole.reconstruction)


def test_reconstruct__another_model(tmp_path, study):
    study.reconstruct()
    before = read_attributes(study.reconstruction)["store_id"]
    model = write_model(tmp_path / "other", study.source, study.samples, seed=1)
    study.encode(model=model, run=Run(overwrite=True))
    message = (
        "reconstruction: was made from other inputs: latent: latent was made anew; "
        "model: model -> other"
    )
    with pytest.raises(StoreError, match=message):
        study.reconstruct(model=model)
    assert study.reconstruct(model=model, run=Run(overwrite=True)).state == "new"
    assert read_attributes(study.reconstruction)["store_id"] != before
