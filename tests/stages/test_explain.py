import sys
from types import ModuleType, SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from dglzarr.errors import ConfigError, DglzarrError, SchemaError, StoreError
from dglzarr.models.files import encoder_layers, load_model, save_model
from dglzarr.stages import explain as stage
from dglzarr.stages.explain import ExplainOptions, explain
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    LENGTHS,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    remove_regions,
    times,
    write_matrix,
    write_model,
    write_samples,
)
from tests.stages.networks import Study

N_SAMPLES = 100
OVERWRITE = Run(overwrite=True)


@pytest.fixture
def of_two(tmp_path, values):
    """Of two regions: shap starts a process for each, which loads TensorFlow."""
    return Study(tmp_path / "two", values, shard=64)


@pytest.fixture(scope="module")
def made_of_one(tmp_path_factory, values):
    return Study(tmp_path_factory.mktemp("one"), values, shard=len(values))


@pytest.fixture
def of_one(made_of_one, tmp_path):
    """Of one region, for what another region would prove again."""
    return made_of_one.at(tmp_path)


def latent_mean(study):
    """The mean over the samples that count of every unit's contributions, (gene, latent)."""
    total = read_array(study.contributions, "latent_total").sum(axis=0)
    return total.T / read_array(study.contributions, "n_scored").sum()


@pytest.mark.parametrize("reference", ["mean", "zeros"])
@pytest.mark.parametrize("layer", ["latent", "pre-activation"])
def test_explain__is_the_kernel(study, reference, layer):
    study.explain(deeplift_reference=reference, layer=layer)
    phi = np.abs(study.contributions_by_kernel(reference, layer=layer))
    np.testing.assert_allclose(
        read_array(study.contributions, "contribution"),
        np.where(np.isnan(study.values), np.nan, phi.mean(axis=2)),
        rtol=2e-4,
        atol=1e-5,
    )
    wanted = phi[study.averaged].mean(axis=0)
    np.testing.assert_allclose(latent_mean(study), wanted, rtol=2e-4, atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_explain__an_infinity_is_named(study, tmp_path):
    spoilt = study.values.copy()
    spoilt[37, 5] = np.inf
    source = write_matrix(tmp_path / "inf", NORMALIZED, spoilt, split=study.split)
    message = (
        r"inf: expected finite or missing values, got inf for gene '.*' in sample '.*37'\. Mend"
    )
    mask = write_samples(tmp_path / "mask", source, keep=study.keep)
    with pytest.raises(DglzarrError, match=message):
        explain(source, str(tmp_path / "c"), samples=mask, model=study.model)


def test_explain__every_sample_is_explained_and_missing_stays_missing(study):
    study.explain()
    found = open_store(study.contributions)
    np.testing.assert_array_equal(np.isnan(found["contribution"].values), np.isnan(study.values))
    assert not np.isnan(found["delta_error"].values).any()
    assert found["delta_error"].values.max() < 1e-5
    assert found["n_scored"].values.tolist()[1] == 0
    assert found["n_scored"].values.sum() == study.averaged.sum()


@pytest.mark.parametrize("aggregation", ["mean", "max", "variance-weighted"])
def test_explain__aggregations(study, aggregation):
    is_weighted = ExplainOptions(aggregation=aggregation).weighs_by_latent
    assert is_weighted == (aggregation == "variance-weighted")
    latent = study.encode().uri if is_weighted else None
    study.explain(aggregation=aggregation, latent=latent)
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
    by_unit = phi if aggregation == "mean" else np.abs(phi)
    wanted = by_unit[study.averaged].mean(axis=0)
    np.testing.assert_allclose(latent_mean(study), wanted, rtol=1e-3, atol=1e-6)


def test_explain__weights_are_shares_of_the_variance_of_training_samples(study):
    study.encode()
    study.explain(aggregation="variance-weighted", latent=study.latent)
    variance = open_store(study.latent)["latent"].values[study.averaged].var(axis=0)
    found = open_store(study.contributions)["latent_weight"].values
    np.testing.assert_allclose(found, variance / variance.sum(), rtol=1e-5)


def test_explain__weights_come_of_an_input(study, tmp_path):
    study.encode()
    study.explain(aggregation="variance-weighted", latent=study.latent)
    assert read_attributes(study.contributions)["inputs"][-1]["role"] == "latent"
    (tmp_path / "latent").rename(tmp_path / "before")
    study.encode()
    with pytest.raises(StoreError, match="other inputs: latent: latent was made anew"):
        study.explain(aggregation="variance-weighted", latent=study.latent)


def test_explain__weights_need_the_latent_store(study):
    with pytest.raises(ValueError, match="latent: expected the URI of the latent store"):
        study.explain(aggregation="variance-weighted")


def test_explain__references_are_kept_training_samples(study):
    options = {"deeplift_reference": "samples", "n_references": 3}
    study.explain(seed=5, **options)
    z = read_array(study.contributions, "deeplift_reference")
    kept = study.values[study.averaged].astype(np.float64)
    all_z = np.nan_to_num((study.values - np.nanmean(kept, axis=0)) / np.nanstd(kept, axis=0))
    rows = [int(np.abs(all_z - row).max(axis=1).argmin()) for row in z]
    np.testing.assert_allclose(z, all_z[rows], atol=1e-5)
    assert len(set(rows)) == 3
    assert study.averaged[rows].all()
    phi = np.abs(study.contributions_by_kernel(rows))[study.averaged].mean(axis=0)
    np.testing.assert_allclose(latent_mean(study), phi, rtol=1e-3, atol=1e-6)
    study.explain(seed=6, run=OVERWRITE, **options)
    assert not np.allclose(latent_mean(study), phi, rtol=1e-3)


def test_explain__frozen_references_and_weights(study, tmp_path):
    options = {"deeplift_reference": "samples", "n_references": 2}
    study.explain(**options)
    other = study.at(tmp_path / "frozen")
    other.explain(frozen=study.contributions, seed=9, **options)
    for name in ("deeplift_reference", "latent_weight", "contribution"):
        np.testing.assert_array_equal(
            read_array(other.contributions, name), read_array(study.contributions, name)
        )
    inputs = read_attributes(other.contributions)["inputs"]
    assert inputs[-1]["role"] == "frozen"
    assert inputs[-1]["store_id"] == read_attributes(study.contributions)["store_id"]


def close(study, other):
    """Whether two studies were explained alike but for rounding."""
    ours, theirs = (open_store(made.contributions) for made in (study, other))
    assert set(ours.data_vars) == set(theirs.data_vars)
    for name in ("contribution", "gene_total", "latent_total"):
        np.testing.assert_allclose(ours[name].values, theirs[name].values, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_explain__a_gpu_finds_the_same(study, tmp_path):
    pytest.importorskip("cupy")
    other = study.at(tmp_path / "gpu")
    study.explain(device="cpu")
    other.explain(device="gpu")
    close(study, other)


def test_explain__another_array_library_finds_the_same(study, tmp_path, monkeypatch):
    """What stands where cupy does refuses numpy's arrays, as a GPU's library does."""
    study.explain(device="cpu")
    fake = ModuleType("cupy")
    fake.__dict__.update(vars(array_api_strict))
    used = []
    fake.asarray = lambda x: used.append(x) or array_api_strict.asarray(x)
    fake.ndarray = type("ndarray", (), {})
    fake.cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    other = study.at(tmp_path / "other")
    other.explain(device="gpu")
    close(study, other)
    assert used


def test_explain__a_device_is_no_other_result(study):
    study.explain(device="cpu")
    assert study.explain(device="auto").state == "unchanged"


def test_explain__a_gpu_that_is_absent_is_told(study, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ConfigError, match=r"score\.device: expected a GPU on every worker"):
        study.explain(device="gpu")
    assert read_attributes(study.contributions) is None
    with pytest.raises(ConfigError, match=r"score\.device: .* for engine 'shap', got 'gpu'"):
        study.explain(device="gpu", engine="shap")


def test_explain__memory_that_ends_is_told_in_one_line(study, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("out of memory: 1 GiB asked for")

    monkeypatch.setattr(stage, "aggregate_contributions", fail)
    with pytest.raises(DglzarrError, match=r"expected memory for .* samples, got: out of memory"):
        study.explain()


def test_explain__lineage(study):
    study.explain(seed=3)
    found = read_attributes(study.contributions)
    places = [("source", study.source), ("samples", study.samples), ("model", study.model)]
    assert [(entry["role"], entry["uri"]) for entry in found["inputs"]] == places
    assert found["inputs"][-1]["store_id"] == load_model(study.folder / "model").model_id
    assert found["parameters"] == {
        "rule": "rescale",
        "deeplift_reference": "mean",
        "n_references": 10,
        "seed": 3,
        "layer": "latent",
        "aggregation": "mean-abs",
        "engine": "closed-form",
        "scale": "z",
        "fitted_on": "train and keep",
    }


def test_explain__shard_length_does_not_matter(tmp_path, values):
    found = []
    for shard in LENGTHS:
        study = Study(tmp_path / str(shard), values, shard=shard)
        study.explain()
        found.append((latent_mean(study), read_array(study.contributions, "contribution")))
    for mean, contribution in found[1:]:
        np.testing.assert_allclose(mean, found[0][0], rtol=1e-6)
        np.testing.assert_allclose(contribution, found[0][1], rtol=1e-4, atol=1e-6)


def test_explain__test_samples_and_dropped_ones_do_not_leak(tmp_path, values):
    keep = np.random.default_rng(3).random(len(values)) < 0.9
    study = Study(tmp_path / "a", values, keep=keep)
    changed = np.where(study.averaged[:, None], values, values**2)
    other = Study(tmp_path / "b", changed, keep=keep)
    study.explain()
    other.explain()
    for name in ("gene_total", "latent_total"):
        np.testing.assert_array_equal(
            read_array(study.contributions, name), read_array(other.contributions, name)
        )
    assert not np.array_equal(
        read_array(study.contributions, "contribution"),
        read_array(other.contributions, "contribution"),
        equal_nan=True,
    )


def test_explain__resumes_with_the_same_bytes(study):
    study.explain()
    before = digests(study.contributions)
    remove_regions(study.contributions, ["contribution"], [0, 5])
    remove_regions(study.contributions, ["latent_total", "gene_total", "delta_error"], [3])
    assert study.explain().state == "resumed"
    assert digests(study.contributions) == before


@pytest.mark.parametrize(("name", "after"), [("_explain_region", 3), ("finish", 0)], ids=str)
def test_explain__fails_half_way_and_goes_on(tmp_path, study, monkeypatch, name, after):
    whole = study.at(tmp_path / "whole")
    whole.explain()
    with monkeypatch.context() as broken:
        broken.setattr(stage, name, Breaks(getattr(stage, name), after))
        with pytest.raises(BrokenError):
            study.explain()
    assert not is_complete(study.contributions)
    study.explain()
    assert digests(study.contributions) == digests(whole.contributions)


def test_explain__second_run_touches_nothing(study, tmp_path):
    first = study.explain()
    before = times(tmp_path), times(study.folder)
    second = study.explain()
    assert (first.state, second.state) == ("new", "unchanged")
    assert (times(tmp_path), times(study.folder)) == before


@pytest.mark.parametrize(
    ("name", "value", "change"),
    [
        ("deeplift_reference", "zeros", "'mean' -> 'zeros'"),
        ("layer", "pre-activation", "'latent' -> 'pre-activation'"),
        ("aggregation", "max", "'mean-abs' -> 'max'"),
    ],
)
def test_explain__other_parameters(study, name, value, change):
    study.explain()
    before = read_array(study.contributions, "gene_total")
    with pytest.raises(
        StoreError, match=rf"contributions: was made with .*: score\.{name}: {change}"
    ):
        study.explain(**{name: value})
    assert study.explain(**{name: value}, run=OVERWRITE).state == "new"
    assert not np.allclose(read_array(study.contributions, "gene_total"), before, rtol=1e-3)


def test_explain__another_model_at_the_same_place(tmp_path, values):
    study = Study(tmp_path, values)
    study.explain()
    before = latent_mean(study)
    write_model(study.model, study.source, study.samples, seed=1)
    with pytest.raises(StoreError, match="other inputs: model: model was made anew"):
        study.explain()
    study.explain(run=OVERWRITE)
    phi = np.abs(study.contributions_by_kernel())[study.averaged].mean(axis=0)
    np.testing.assert_allclose(latent_mean(study), phi, rtol=1e-3, atol=1e-6)
    assert not np.allclose(before, phi, rtol=1e-3)


def test_explain__model_of_other_genes(tmp_path, study, values):
    other = Study(tmp_path / "other", values[:, ::2])
    with pytest.raises(SchemaError, match="expected the 20 genes the model was fitted on, got 40"):
        study.explain(model=other.model)
    assert read_attributes(study.contributions) is None


def test_explain__gap_to_the_change_of_a_latent_unit_is_refused(study, monkeypatch):
    monkeypatch.setattr(stage, "_LARGEST_DELTA_ERROR", 1e-12)
    with pytest.raises(DglzarrError, match="sum to the change of a latent unit within 1e-12, got"):
        study.explain()
    assert not is_complete(study.contributions)


@pytest.mark.slow
@pytest.mark.parametrize(("layer", "which"), [("latent", "of_two"), ("pre-activation", "of_one")])
def test_explain__shap_gives_what_the_closed_form_gives(request, tmp_path, layer, which):
    study = request.getfixturevalue(which)
    options = {"deeplift_reference": "samples", "n_references": 2, "layer": layer}
    study.explain(**options)
    other = study.at(tmp_path / "shap")
    other.explain(engine="shap", **options)
    np.testing.assert_allclose(latent_mean(other), latent_mean(study), rtol=1e-3, atol=1e-5)
    for name in ("contribution", "gene_total"):
        ours, theirs = (read_array(made.contributions, name) for made in (study, other))
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-5)


@pytest.fixture
def branched(of_one, tmp_path):
    """A Keras encoder with a skip connection, saved for the study's genes; and the network."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((40,))
    hidden = keras.layers.Dense(6, activation="tanh")(inputs)
    added = keras.layers.Add()([hidden, keras.layers.Dense(6)(inputs)])
    model = keras.Model(inputs, keras.layers.Dense(3, activation="sigmoid")(added))
    return of_one.save_keras(tmp_path / "branched", model), model


def assert_sums_to_the_change(study, model):
    """Signed contributions of samples without missing values sum to the network's change."""
    z = study.z_by_model()
    change = np.asarray(model(z)) - np.asarray(model(np.zeros_like(z[:1])))
    by_gene = np.nan_to_num(read_array(study.contributions, "contribution"))
    known = ~np.isnan(study.values).any(axis=1)
    np.testing.assert_allclose(
        by_gene[known].sum(axis=1), change[known].mean(axis=1), rtol=1e-3, atol=1e-5
    )


@pytest.mark.slow
def test_explain__a_network_that_is_no_dense_stack(of_one, branched):
    path, model = branched
    with pytest.raises(
        SchemaError, match=r"expected a stack of Dense layers .* got .* Add\. .*shap"
    ):
        of_one.explain(model=path)
    summary = of_one.explain(model=path, engine="shap", aggregation="mean")
    assert summary.details["max_delta_error"] < 1e-4
    assert_sums_to_the_change(of_one, model)


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
def test_explain__a_sequential_network(of_one, tmp_path, kind, layer, n_units):
    model = built(kind)
    path = of_one.save_keras(tmp_path / "m", model)
    summary = of_one.explain(model=path, engine="shap", aggregation="mean", layer=layer)
    assert summary.sizes["latent"] == n_units
    assert summary.details["max_delta_error"] < 1e-4
    if kind == "Activation":
        model.layers[-1].activation = lambda x: x
    assert_sums_to_the_change(of_one, model)


@pytest.mark.slow
def test_explain__a_last_layer_that_is_all_activation(study, tmp_path):
    import keras

    last = [keras.layers.Dense(3), keras.layers.ReLU()]
    path = study.save_keras(tmp_path / "m", keras.Sequential([keras.Input((40,)), *last]))
    with pytest.raises(SchemaError, match=r"expects a last layer with an activation.* got ReLU\."):
        study.explain(model=path, engine="shap", layer="pre-activation")
    assert read_attributes(study.contributions) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "message"),
    [("gelu", "layers of type Dense of activation gelu"), ("tanh", "Dense layers alone")],
)
def test_explain__a_keras_network_of_dense_layers_is_refused_as_it_is(
    study, tmp_path, activation, message
):
    import keras

    dense = keras.layers.Dense(3, activation=activation)
    path = study.save_keras(tmp_path / "m", keras.Sequential([keras.Input((40,)), dense]))
    with pytest.raises(SchemaError, match=f"saved with save_model, got a .* with {message}"):
        study.explain(model=path)


@pytest.mark.slow
def test_explain__what_shap_cannot_explain_is_one_line(of_one, tmp_path):
    import keras

    model = keras.Sequential([keras.Input((40,)), keras.layers.Dense(3, activation="gelu")])
    path = of_one.save_keras(tmp_path / "m", model)
    with pytest.raises(DglzarrError, match=r"expected shap.DeepExplainer to explain it, got: .*"):
        of_one.explain(model=path, engine="shap")


@pytest.mark.slow
def test_explain__what_is_refused_replaces_nothing(of_one, branched):
    of_one.explain()
    of_one.encode()
    before = digests(of_one.contributions)
    for options in ({}, {"engine": "shap", "aggregation": "variance-weighted"}):
        with pytest.raises((SchemaError, StoreError), match=r"expected (a stack|latent units of)"):
            of_one.explain(model=branched[0], latent=of_one.latent, run=OVERWRITE, **options)
        assert digests(of_one.contributions) == before


def test_explain__weights_of_another_model_are_refused(study, tmp_path):
    study.encode()
    other = write_model(tmp_path / "other", study.source, study.samples, seed=1)
    with pytest.raises(StoreError, match=r"latent: expected latent units of model \w+, got those"):
        study.explain(model=other, aggregation="variance-weighted", latent=study.latent)
    assert read_attributes(study.contributions) is None


def test_explain__an_encoder_alone(study, tmp_path):
    like = load_model(study.folder / "model")
    common = {"inputs": like.inputs, "parameters": {}, "genes": like.genes}
    common |= {"gene_mean": like.gene_mean, "gene_std": like.gene_std}
    save_model(tmp_path / "m", encoder_layers(like), config={}, **common)
    study.explain()
    other = study.at(tmp_path / "alone")
    other.explain(model=str(tmp_path / "m"))
    np.testing.assert_array_equal(latent_mean(other), latent_mean(study))


def test_explain__opening_computes_nothing(study):
    study.explain()
    with no_computing():
        assert open_store([study.contributions])["contribution"].shape == (N_SAMPLES, 40)
