import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from dglzarr import deeplift_contributions
from dglzarr.errors import ConfigError, DglzarrError, SchemaError, StoreError
from dglzarr.models.files import (
    encoder_layers,
    load_model,
    save_keras_encoder,
    save_model,
)
from dglzarr.stages import score as stage
from dglzarr.stages.encode import encode_samples
from dglzarr.stages.score import explain, score
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
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

    def __init__(self, folder, values, *, shard=16, keep=None, seed=0, tissues=None):
        self.folder, self.values = folder, values
        self.split = splits(len(values))
        self.split[16:32] = TEST  # a whole region of the smallest shards
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9 if keep is None else keep
        self.source = write_matrix(
            folder / "normalized",
            NORMALIZED,
            values,
            split=self.split,
            shard=shard,
            tissues=tissues,
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

    def encode(self):
        target = str(Path(self.target).parent / "latent")
        encode_samples(self.source, target, samples=self.samples, model=self.model)
        return target

    @property
    def averaged(self):
        return self.keep & (self.split == TRAIN)

    def contributions_by_kernel(self, deeplift_reference="mean", **options):
        """(sample, gene, latent), with all of numpy's own z-scores."""
        kept = self.values[self.averaged].astype(np.float64)
        mean, std = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0)
        z = np.nan_to_num((self.values - mean) / std)
        zeros = -mean / std if deeplift_reference == "zeros" else np.zeros(len(mean))
        if not isinstance(deeplift_reference, str):
            zeros = z[deeplift_reference]
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
    known = np.where(np.isnan(study.values), 0, phi.mean(axis=2))
    wanted = known[study.averaged].mean(axis=0)
    np.testing.assert_allclose(found["score"].values, wanted, rtol=1e-4)
    per_sample = open_store(study.contributions)["contribution"].values
    np.testing.assert_allclose(
        per_sample,
        np.where(np.isnan(study.values), np.nan, phi.mean(axis=2)),
        rtol=2e-4,
        atol=1e-5,
    )


@pytest.mark.filterwarnings("error")
def test_score__an_infinity_is_named(study, tmp_path):
    spoilt = study.values.copy()
    spoilt[37, 5] = np.inf
    source = write_matrix(tmp_path / "inf", NORMALIZED, spoilt, split=study.split)
    message = (
        r"inf: expected finite or missing values, got inf for gene '.*' in sample '.*37'\. Mend"
    )
    mask = write_samples(tmp_path / "mask", source, keep=study.keep)
    with pytest.raises(DglzarrError, match=message):
        score(
            source, str(tmp_path / "s"), samples=mask, model=study.model,
            contributions=str(tmp_path / "c"),
        )  # fmt: skip


def test_score__every_sample_is_scored_and_missing_stays_missing(study):
    summary = study.score()
    found = open_store(study.contributions)
    np.testing.assert_array_equal(np.isnan(found["contribution"].values), np.isnan(study.values))
    assert not np.isnan(found["delta_error"].values).any()
    assert found["delta_error"].values.max() < 1e-5
    assert found["n_scored"].values.tolist()[1] == 0
    assert found["n_scored"].values.sum() == study.averaged.sum() == summary.details["n_scored"]


@pytest.mark.parametrize("aggregation", ["mean", "max", "variance-weighted"])
def test_score__aggregations(study, aggregation):
    latent = study.encode() if aggregation == "variance-weighted" else None
    study.score(aggregation=aggregation, latent=latent)
    phi = study.contributions_by_kernel()
    found = open_store(study.contributions)
    weight = found["latent_weight"].values
    assert weight.sum() == pytest.approx(1)
    by_sample = {
        "mean": phi.mean(axis=2),
        "max": np.abs(phi).max(axis=2),
        "variance-weighted": np.abs(phi) @ weight,
    }[aggregation]
    known = ~np.isnan(study.values)
    np.testing.assert_allclose(
        found["contribution"].values[known], by_sample[known], rtol=2e-4, atol=1e-5
    )
    scores = open_store(study.target)
    wanted = np.abs(by_sample[study.averaged].mean(axis=0))
    np.testing.assert_allclose(scores["score"].values, wanted, rtol=1e-3, atol=1e-6)
    by_unit = phi if aggregation == "mean" else np.abs(phi)
    wanted = by_unit[study.averaged].mean(axis=0).T
    np.testing.assert_allclose(scores["latent_score"].values, wanted, rtol=1e-3, atol=1e-6)


def test_score__weights_are_shares_of_the_variance_of_training_samples(study):
    latent = study.encode()
    study.score(aggregation="variance-weighted", latent=latent)
    variance = open_store(latent)["latent"].values[study.averaged].var(axis=0)
    found = open_store(study.contributions)["latent_weight"].values
    np.testing.assert_allclose(found, variance / variance.sum(), rtol=1e-5)


def test_score__weights_need_the_latent_store(study):
    with pytest.raises(ValueError, match="latent: expected the URI of the latent store"):
        study.score(aggregation="variance-weighted")


def test_score__references_are_kept_training_samples(study):
    study.score(deeplift_reference="samples", n_references=3, seed=5)
    found = open_store(study.contributions)
    z = found["deeplift_reference"].values
    kept = study.values[study.averaged].astype(np.float64)
    all_z = np.nan_to_num((study.values - np.nanmean(kept, axis=0)) / np.nanstd(kept, axis=0))
    rows = [int(np.abs(all_z - row).max(axis=1).argmin()) for row in z]
    np.testing.assert_allclose(z, all_z[rows], atol=1e-5)
    assert len(set(rows)) == 3
    assert study.averaged[rows].all()
    phi = np.abs(study.contributions_by_kernel(rows))[study.averaged].mean(axis=0)
    scores = open_store(study.target)
    np.testing.assert_allclose(scores["latent_score"].values.T, phi, rtol=1e-3, atol=1e-6)
    before = scores["score"].values
    study.score(deeplift_reference="samples", n_references=3, seed=6, overwrite=True)
    assert not np.allclose(open_store(study.target)["score"].values, before, rtol=1e-3)


def test_explain__frozen_references_and_weights(study, tmp_path):
    options = {"deeplift_reference": "samples", "n_references": 2}
    study.score(**options)
    explain(
        study.source, str(tmp_path / "frozen"), samples=study.samples, model=study.model,
        frozen=study.contributions, seed=9, **options,
    )  # fmt: skip
    for name in ("deeplift_reference", "latent_weight", "contribution"):
        np.testing.assert_array_equal(
            read_array(str(tmp_path / "frozen"), name), read_array(study.contributions, name)
        )


@pytest.mark.parametrize("shard", [16, 112])
def test_score__groups(tmp_path, values, shard):
    group = np.array(["a", "b", "", "c"], dtype=object)[np.arange(N_SAMPLES) % 4]
    group[:20] = "a"
    split = splits(N_SAMPLES)
    group[np.flatnonzero(split == TEST)[:3]] = "only a test sample"
    study = Study(tmp_path, values, shard=shard, tissues=group.tolist())
    study.score(group_by="tissue")
    found = open_store(study.target)
    assert found["group"].values.tolist() == ["a", "b", "c"]
    phi = np.abs(study.contributions_by_kernel()).mean(axis=2)
    phi[np.isnan(values)] = 0
    for name in found["group"].values:
        chosen = study.averaged & (group == name)
        row = found.sel(group=name)
        assert int(row["n_grouped"]) == chosen.sum()
        wanted = phi[chosen].mean(axis=0)
        np.testing.assert_allclose(row["group_score"].values, wanted, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("reference", ["mean", "zeros", "samples"])
def test_score__groups_of_a_coordinate_are_the_score_together(study, reference):
    options = {"deeplift_reference": reference}
    study.score(group_by="series", **options)
    found = open_store(study.target)
    assert found["group"].values.tolist() == ["GSE1"]
    np.testing.assert_allclose(found["group_score"].values[0], found["score"].values, rtol=1e-6)
    with pytest.raises(StoreError, match="other parameters: group_by 'series' -> 'platform'"):
        study.score(group_by="platform", **options)
    assert "group" not in open_store(study.score(overwrite=True, **options).uri)


def close(study, other):
    """Whether two studies were scored alike but for rounding."""
    for uri in ("contributions", "target"):
        ours, theirs = (open_store(getattr(made, uri)) for made in (study, other))
        assert set(ours.data_vars) == set(theirs.data_vars)
        for name in ("contribution", "latent_total", "score", "latent_score"):
            if name in ours:
                np.testing.assert_allclose(
                    ours[name].values, theirs[name].values, rtol=1e-4, atol=1e-6
                )


@pytest.mark.gpu
def test_score__a_gpu_scores_the_same(study, tmp_path):
    pytest.importorskip("cupy")
    other = study.scored_at(tmp_path / "gpu")
    study.score(device="cpu")
    other.score(device="gpu")
    close(study, other)


def test_score__another_array_library_scores_the_same(study, tmp_path, monkeypatch):
    """What stands where cupy does refuses numpy's arrays, as a GPU's library does."""
    study.score(device="cpu")
    fake = ModuleType("cupy")
    fake.__dict__.update(vars(array_api_strict))
    used = []
    fake.asarray = lambda x: used.append(x) or array_api_strict.asarray(x)
    fake.ndarray = type("ndarray", (), {})
    fake.cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    other = study.scored_at(tmp_path / "other")
    other.score(device="gpu")
    close(study, other)
    assert used


def test_score__a_gpu_that_is_absent_is_told(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ConfigError, match=r"score\.device: expected a GPU on every worker"):
        study.score(device="gpu")
    assert read_attributes(study.contributions) is None
    with pytest.raises(ConfigError, match=r"score\.device: .* for engine 'shap', got 'gpu'"):
        study.score(device="gpu", engine="shap")


def test_score__memory_that_ends_is_told_in_one_line(study, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("out of memory: 1 GiB asked for")

    monkeypatch.setattr(stage, "aggregate_contributions", fail)
    with pytest.raises(DglzarrError, match=r"expected memory for .* samples, got: out of memory"):
        study.score()


def test_score__unknown_label_to_group_by(study):
    with pytest.raises(ConfigError, match=r"group_by: expected one of series, .*, got 'organ'"):
        study.score(group_by="organ")
    assert read_attributes(study.contributions) is None


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
    remove_regions(study.contributions, ["latent_total", "gene_total", "delta_error"], [3])
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
    others = {"deeplift_reference": "zeros", "layer": "pre-activation", "aggregation": "max"}
    for name, value in others.items():
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


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["latent", "pre-activation"])
def test_score__shap_gives_what_the_closed_form_gives(study, tmp_path, layer):
    options = {"deeplift_reference": "samples", "n_references": 2, "layer": layer}
    study.score(**options)
    other = study.scored_at(tmp_path / "shap")
    other.score(engine="shap", **options)
    for uri, names in (
        (lambda s: s.target, ["score", "latent_score"]),
        (lambda s: s.contributions, ["contribution", "gene_total"]),
    ):
        for name in names:
            np.testing.assert_allclose(
                read_array(uri(other), name), read_array(uri(study), name), rtol=1e-3, atol=1e-5
            )


@pytest.fixture
def branched(study, tmp_path):
    """A Keras encoder with a skip connection, saved for the study's genes; and the network."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((40,))
    hidden = keras.layers.Dense(6, activation="tanh")(inputs)
    added = keras.layers.Add()([hidden, keras.layers.Dense(6)(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid")(added))
    return save_keras(tmp_path / "branched", model, study), model


@pytest.mark.slow
def test_score__a_network_that_is_no_dense_stack(study, branched):
    path, model = branched
    with pytest.raises(
        SchemaError, match=r"expected a stack of Dense layers .* got .* Add\. .*shap"
    ):
        study.score(model=path)
    summary = study.score(model=path, engine="shap")
    assert summary.details["max_delta_error"] < 1e-4
    like = load_model(study.folder / "model")
    z = np.nan_to_num((study.values - like.gene_mean) / like.gene_std).astype(np.float32)
    change = np.asarray(model(z)) - np.asarray(model(np.zeros_like(z[:1])))
    signed = study.scored_at(Path(study.target).parent / "signed")
    signed.score(model=path, engine="shap", aggregation="mean")
    by_gene = np.nan_to_num(read_array(signed.contributions, "contribution"))
    known = ~np.isnan(study.values).any(axis=1)
    np.testing.assert_allclose(
        by_gene[known].sum(axis=1), change[known].mean(axis=1), rtol=1e-3, atol=1e-5
    )


def save_keras(folder, model, study):
    """Save a Keras network for the study's genes."""
    like = load_model(study.folder / "model")
    moments = {"gene_mean": like.gene_mean, "gene_std": like.gene_std}
    save_keras_encoder(folder, model.to_json(), model.get_weights(), genes=like.genes, **moments)
    return str(folder)


def built(kind):
    """A Keras encoder of 40 genes whose last weights do not tell its number of units."""
    import keras

    keras.utils.set_random_seed(0)
    last = {
        "Conv1D": [keras.layers.Conv1D(2, 3, strides=8, activation="tanh"), keras.layers.Flatten()],
        "Activation": [keras.layers.Flatten(), keras.layers.Dense(3, use_bias=False)],
    }[kind]
    if kind == "Activation":
        last.append(keras.layers.Activation("relu"))
    return keras.Sequential([keras.Input((40,)), keras.layers.Reshape((40, 1)), *last])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "layer", "n_units"), [("Conv1D", "latent", 10), ("Activation", "pre-activation", 3)]
)
def test_score__a_sequential_network(study, tmp_path, kind, layer, n_units):
    model = built(kind)
    path = save_keras(tmp_path / "m", model, study)
    summary = study.score(model=path, engine="shap", aggregation="mean", layer=layer)
    assert summary.sizes["latent"] == n_units
    assert summary.details["max_delta_error"] < 1e-4
    like = load_model(study.folder / "model")
    z = np.nan_to_num((study.values - like.gene_mean) / like.gene_std).astype(np.float32)
    if kind == "Activation":
        model.layers[-1].activation = lambda x: x
    change = np.asarray(model(z)) - np.asarray(model(np.zeros_like(z[:1])))
    by_gene = np.nan_to_num(read_array(study.contributions, "contribution"))
    known = ~np.isnan(study.values).any(axis=1)
    np.testing.assert_allclose(
        by_gene[known].sum(axis=1), change[known].mean(axis=1), rtol=1e-3, atol=1e-5
    )


@pytest.mark.slow
def test_score__a_last_layer_that_is_all_activation(study, tmp_path):
    import keras

    last = [keras.layers.Dense(3), keras.layers.ReLU()]
    path = save_keras(tmp_path / "m", keras.Sequential([keras.Input((40,)), *last]), study)
    with pytest.raises(SchemaError, match=r"expects a last layer with an activation.* got ReLU\."):
        study.score(model=path, engine="shap", layer="pre-activation")
    assert read_attributes(study.contributions) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "message"),
    [("gelu", "layers of type Dense of activation gelu"), ("tanh", "Dense layers alone")],
)
def test_score__a_keras_network_of_dense_layers_is_refused_as_it_is(
    study, tmp_path, activation, message
):
    import keras

    dense = keras.layers.Dense(3, activation=activation)
    path = save_keras(tmp_path / "m", keras.Sequential([keras.Input((40,)), dense]), study)
    with pytest.raises(SchemaError, match=f"saved with save_model, got a .* with {message}"):
        study.score(model=path)


@pytest.mark.slow
def test_score__what_shap_cannot_explain_is_one_line(study, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(3, activation="gelu")])
    path = save_keras(tmp_path / "m", model, study)
    with pytest.raises(DglzarrError, match=r"expected shap.DeepExplainer to explain it, got: .*"):
        study.score(model=path, engine="shap")


@pytest.mark.slow
def test_score__what_is_refused_replaces_nothing(study, branched):
    study.score()
    before = digests(study.contributions)
    for options in ({}, {"engine": "shap", "aggregation": "variance-weighted"}):
        latent = study.encode()
        with pytest.raises((SchemaError, StoreError), match=r"expected (a stack|latent units of)"):
            study.score(model=branched[0], latent=latent, overwrite=True, **options)
        assert digests(study.contributions) == before


def test_score__weights_of_another_model_are_refused(study, tmp_path):
    latent = study.encode()
    other = write_model(tmp_path / "other", study.source, study.samples, seed=1)
    with pytest.raises(StoreError, match=r"latent: expected latent units of model \w+, got those"):
        study.score(model=other, aggregation="variance-weighted", latent=latent)
    assert read_attributes(study.contributions) is None


def test_score__an_encoder_alone(study, tmp_path):
    like = load_model(study.folder / "model")
    encoder = encoder_layers(like)
    common = {"inputs": like.inputs, "parameters": {}, "genes": like.genes}
    common |= {"gene_mean": like.gene_mean, "gene_std": like.gene_std}
    save_model(tmp_path / "m", encoder, config={}, **common)
    study.score()
    other = study.scored_at(tmp_path / "alone")
    other.score(model=str(tmp_path / "m"))
    np.testing.assert_array_equal(
        read_array(other.target, "latent_score"), read_array(study.target, "latent_score")
    )
    with pytest.raises(SchemaError, match="got an encoder alone"):
        encode_samples(
            study.source, str(tmp_path / "l"), samples=study.samples, model=str(tmp_path / "m")
        )


def test_score__opening_computes_nothing(study):
    study.score()
    with no_computing():
        assert open_store([study.contributions])["contribution"].shape == (N_SAMPLES, 40)
        open_store(study.target)
