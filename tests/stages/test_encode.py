import numpy as np
import pytest

from dglzarr.errors import SchemaError, StoreError
from dglzarr.models.files import encoder_layers, load_model, save_model
from dglzarr.stages import encode as stage
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import LATENT
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    Breaks,
    BrokenError,
    digests,
    remove_regions,
    times,
    write_model,
)
from tests.stages.networks import Study


def test_encode__latent_units_of_every_sample(study):
    study.encode()
    _, latent, _ = study.reconstruction_by_hand()
    found = open_store(study.latent, LATENT)
    np.testing.assert_allclose(found["latent"].values, latent, rtol=1e-4, atol=1e-6)
    assert found["sample"].values.tolist() == open_store(study.source)["sample"].values.tolist()


def test_encode__lineage(study):
    study.encode()
    found = read_attributes(study.latent)
    places = [("source", study.source), ("samples", study.samples), ("model", study.model)]
    assert [(entry["role"], entry["uri"]) for entry in found["inputs"]] == places
    assert found["inputs"][-1]["store_id"] == load_model(study.folder / "model").model_id
    assert found["parameters"] == {"judged_on": "test and keep"}


def test_encode__shard_length_does_not_matter(tmp_path, values, study):
    study.encode()
    other = Study(tmp_path / "other", values, shard=112)
    other.encode()
    a, b = (read_array(made.latent, "latent") for made in (study, other))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_encode__resumes_with_the_same_bytes(tmp_path, study):
    study.encode()
    before = digests(tmp_path)
    remove_regions(study.latent, ["latent"], [0, 3])
    remove_regions(study.latent, ["agreement_total"], [2])
    assert study.encode().state == "resumed"
    assert digests(tmp_path) == before
    stamps = times(tmp_path)
    assert study.encode().state == "unchanged"
    assert times(tmp_path) == stamps


def test_encode__fails_half_way_and_goes_on(tmp_path, study, monkeypatch):
    whole = study.at(tmp_path / "whole")
    whole.encode()
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_encode_region", Breaks(stage._encode_region, 3))
        with pytest.raises(BrokenError):
            study.encode()
    assert not is_complete(study.latent)
    study.encode()
    assert digests(study.latent) == digests(whole.latent)


def test_encode__another_model(tmp_path, study, values):
    study.encode()
    model = write_model(tmp_path / "other", study.source, study.samples, seed=1)
    with pytest.raises(
        StoreError, match="latent: was made from other inputs: model: model -> other"
    ):
        study.encode(model=model)
    narrow = Study(tmp_path / "narrow", values[:, ::2])
    with pytest.raises(SchemaError, match="expected the 20 genes the model was fitted on, got 40"):
        study.at(tmp_path / "new").encode(model=narrow.model)
    assert read_attributes(str(tmp_path / "new" / "latent")) is None


def test_encode__an_encoder_alone(tmp_path, study):
    like = load_model(study.folder / "model")
    common = {"inputs": like.inputs, "parameters": {}, "genes": like.genes}
    common |= {"gene_mean": like.gene_mean, "gene_std": like.gene_std}
    save_model(tmp_path / "m", encoder_layers(like), config={}, **common)
    with pytest.raises(SchemaError, match="got an encoder alone"):
        study.encode(model=str(tmp_path / "m"))
    assert read_attributes(study.latent) is None
