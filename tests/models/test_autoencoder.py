from dataclasses import replace

import numpy as np
import pytest

from dglzarr.models.files import encoder_layers, load_model, predict, save_model

pytestmark = pytest.mark.slow

N_GENES = 7


@pytest.fixture(scope="module")
def autoencoder():
    from dglzarr.models import autoencoder

    return autoencoder


@pytest.fixture
def config(autoencoder):
    return autoencoder.AutoEncoderConfig(n_genes=N_GENES, hidden=5, n_latent=3, seed=4)


def weights(autoencoder, config):
    return [
        kernel for kernel, _, _ in autoencoder.dense_layers(autoencoder.build_autoencoder(config))
    ]


def test_autoencoder_config__defaults_are_the_papers(autoencoder):
    model = autoencoder.build_autoencoder(autoencoder.AutoEncoderConfig(n_genes=30))
    layers = autoencoder.dense_layers(model)
    assert [kernel.shape for kernel, _, _ in layers] == [
        (30, 500),
        (500, 100),
        (100, 500),
        (500, 30),
    ]
    assert [name for _, _, name in layers] == ["sigmoid", "sigmoid", "sigmoid", "linear"]
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", *["Dense", "Dropout"] * 3, "Dense"]
    assert {layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"} == {0.1}


def test_build_autoencoder__paper_size_is_22_million(autoencoder):
    model = autoencoder.build_autoencoder(autoencoder.AutoEncoderConfig(n_genes=22_268))
    assert model.count_params() == pytest.approx(22.39e6, rel=1e-3)


def test_build_autoencoder__equal_configs_give_equal_weights(autoencoder, config):
    np.random.default_rng(0).random()
    for left, right in zip(weights(autoencoder, config), weights(autoencoder, config), strict=True):
        np.testing.assert_array_equal(left, right)


def test_build_autoencoder__layers_of_one_shape_start_differently(autoencoder):
    config = autoencoder.AutoEncoderConfig(n_genes=5, hidden=5, n_latent=5)
    kernels = weights(autoencoder, config)
    assert len({kernel.tobytes() for kernel in kernels}) == 4


def test_build_autoencoder__biases_start_at_zero(autoencoder, config):
    layers = autoencoder.dense_layers(autoencoder.build_autoencoder(config))
    assert not any(bias.any() for _, bias, _ in layers)


def test_build_autoencoder__l2_is_the_penalty_on_every_kernel(autoencoder, config):
    model = autoencoder.build_autoencoder(replace(config, l2=0.5))
    expected = 0.5 * sum(
        (kernel.astype(float) ** 2).sum()
        for kernel in (layer[0] for layer in autoencoder.dense_layers(model))
    )
    assert sum(float(loss) for loss in model.losses) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"hidden": 6},
        {"n_latent": 4},
        {"activation": "tanh"},
        {"output": "sigmoid"},
        {"dropout": 0.9},
        {"dropout_position": "input"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_autoencoder_config__every_field_changes_the_training_output(autoencoder, config, change):
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    outputs = [
        np.asarray(autoencoder.build_autoencoder(c)(samples, training=True))
        for c in (config, replace(config, **change))
    ]
    assert not np.array_equal(*outputs)


@pytest.mark.parametrize("position", ["hidden", "input"])
def test_build_autoencoder__no_dropout_at_inference(autoencoder, config, position):
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    dropped = replace(config, dropout=0.5, dropout_position=position)
    plain = replace(dropped, dropout=0.0)
    outputs = [np.asarray(autoencoder.build_autoencoder(c)(samples)) for c in (dropped, plain)]
    np.testing.assert_array_equal(*outputs)


def test_dense_layers__saved_model_predicts_as_keras(autoencoder, config, tmp_path):
    model = autoencoder.build_autoencoder(config)
    save_model(
        tmp_path,
        autoencoder.dense_layers(model),
        config=config.__dict__,
        genes=[f"g{i}" for i in range(N_GENES)],
        gene_mean=np.zeros(N_GENES),
        gene_std=np.ones(N_GENES),
        inputs=[],
        parameters={},
    )
    saved = load_model(tmp_path)
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    np.testing.assert_allclose(predict(saved, samples), np.asarray(model(samples)), atol=1e-6)
    assert encoder_layers(saved)[-1][0].shape == (5, 3)
    assert autoencoder.AutoEncoderConfig(**saved.config) == config
