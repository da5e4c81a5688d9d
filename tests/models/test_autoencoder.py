import numpy as np
import pytest

from dglzarr.models.files import encoder_layers, load_model, predict, save_model
from dglzarr.models.options import NetworkOptions
from tests.builders import KONG2021

pytestmark = pytest.mark.slow

N_GENES = 7
RANDOM = {"start": "random", "activation": "sigmoid", "dropout": 0.1}


@pytest.fixture(scope="module")
def autoencoder():
    from dglzarr.models import autoencoder

    return autoencoder


@pytest.fixture
def build(autoencoder):
    def build(n_genes=N_GENES, *, seed=4, **changes):
        options = NetworkOptions(**({"hidden": 6, "n_latent": 3, **RANDOM} | changes))
        return autoencoder.build_autoencoder(n_genes, options, seed=seed)

    return build


def kernels(autoencoder, model):
    return [kernel for kernel, _, _ in autoencoder.dense_layers(model)]


def test_build_autoencoder__the_papers(autoencoder):
    chosen = {k: v for k, v in KONG2021.items() if k in NetworkOptions.model_fields}
    model = autoencoder.build_autoencoder(30, NetworkOptions(**chosen), seed=0)
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
    model = autoencoder.build_autoencoder(22_268, NetworkOptions(), seed=0)
    assert model.count_params() == pytest.approx(22.39e6, rel=1e-3)


def test_build_autoencoder__equal_arguments_give_equal_weights(autoencoder, build):
    np.random.default_rng(0).random()
    pair = (kernels(autoencoder, build()) for _ in range(2))
    for left, right in zip(*pair, strict=True):
        np.testing.assert_array_equal(left, right)


def test_build_autoencoder__layers_of_one_shape_start_differently(autoencoder, build):
    found = kernels(autoencoder, build(5, n_latent=5))
    assert len({kernel.tobytes() for kernel in found}) == 4


def test_build_autoencoder__biases_start_at_zero(autoencoder, build):
    layers = autoencoder.dense_layers(build())
    assert not any(bias.any() for _, bias, _ in layers)


def test_build_autoencoder__l2_is_the_penalty_on_every_kernel(autoencoder, build):
    model = build(l2=0.5)
    expected = 0.5 * sum((k.astype(float) ** 2).sum() for k in kernels(autoencoder, model))
    assert sum(float(loss) for loss in model.losses) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 5},
        {"hidden": 7},
        {"n_latent": 4},
        {"activation": "tanh"},
        {"latent_activation": "hidden"},
        {"output": "sigmoid"},
        {"dropout": 0.9},
        {"dropout_position": "input"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_build_autoencoder__every_choice_changes_the_training_output(build, change):
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    outputs = [np.asarray(build(**c)(samples, training=True)) for c in ({}, change)]
    assert not np.array_equal(*outputs)


@pytest.mark.parametrize("position", ["hidden", "input"])
def test_build_autoencoder__no_dropout_at_inference(build, position):
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    shares = 0.5, 0.0
    outputs = [
        np.asarray(build(dropout=share, dropout_position=position)(samples)) for share in shares
    ]
    np.testing.assert_array_equal(*outputs)


def test_dense_layers__saved_model_predicts_as_keras(autoencoder, build, tmp_path):
    model = build()
    save_model(
        tmp_path,
        autoencoder.dense_layers(model),
        config=NetworkOptions(hidden=6, n_latent=3).model_dump(),
        genes=[f"g{i}" for i in range(N_GENES)],
        gene_mean=np.zeros(N_GENES),
        gene_std=np.ones(N_GENES),
        inputs=[],
        parameters={},
    )
    saved = load_model(tmp_path)
    samples = np.random.default_rng(0).normal(size=(8, N_GENES)).astype("f4")
    np.testing.assert_allclose(predict(saved, samples), np.asarray(model(samples)), atol=1e-6)
    assert encoder_layers(saved)[-1][0].shape == (6, 3)
    assert NetworkOptions(**saved.config) == NetworkOptions(hidden=6, n_latent=3)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("n_axes", [0, 2, 3])
def test_begin_with_components__rebuilds_what_they_do(autoencoder, build, activation, n_axes):
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.normal(size=(N_GENES, 3)))[0].T[:n_axes].astype("f4")
    samples = rng.normal(size=(8, N_GENES)).astype("f4")
    model = build(activation=activation, hidden=9)
    autoencoder.begin_with_components(model, axes)
    np.testing.assert_allclose(np.asarray(model(samples)), samples @ axes.T @ axes, atol=1e-6)


def test_begin_with_components__training_reaches_every_layer(autoencoder, build):
    import keras

    axes = np.eye(2, N_GENES, dtype="f4")  # a latent unit is left without an axis
    model = build(activation="relu", hidden=12, dropout=0.0)
    autoencoder.begin_with_components(model, axes)
    before = kernels(autoencoder, model)
    model.compile(keras.optimizers.SGD(0.1), "mean_absolute_error")
    samples = np.random.default_rng(2).normal(size=(64, N_GENES)).astype("f4")
    model.fit(samples, samples, epochs=3, verbose=0)
    for old, new in zip(before, kernels(autoencoder, model), strict=True):
        changed = old != new
        assert changed.any(axis=0).all() or changed.any(axis=1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "tanh"}, "activation: expected relu or softplus .*, got tanh"),
        ({"latent_activation": "relu"}, "latent_activation: expected linear .*, got relu"),
        ({"output": "sigmoid"}, "output: expected linear .*, got sigmoid"),
        ({"hidden": 199}, "hidden: expected at least 2 x n_latent = 200 .*, got 199"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_network_options__refuse_what_cannot_hold_components(change, message):
    with pytest.raises(ValueError, match=message):
        NetworkOptions(**change)
    NetworkOptions(**change, start="random")
