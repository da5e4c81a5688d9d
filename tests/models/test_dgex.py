"""D-GEX: one step by hand, its learning-rate rule, resume bit for bit, and data that need it."""

import numpy as np
import pytest

from dglzarr.errors import DglzarrError
from dglzarr.models.dgex import Samples, _decay, build_dgex, train_dgex
from dglzarr.models.files import load_model
from dglzarr.models.options import DGexOptions
from dglzarr.stages.evaluate import EvaluateOptions, evaluate
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import open_store
from tests.arrays import InMemory
from tests.builders import text, write_landmarks, write_matrix, write_samples

pytestmark = pytest.mark.slow

LANDMARKS, TARGETS = np.array([5, 2, 0]), np.array([1, 3, 4, 6])
SMALL = {"hidden": 8, "epochs": 4, "batch_size": 16}


def curved(n_samples=400, n_genes=40, n_landmarks=6, seed=0):
    """Targets that are rectified functions of the landmarks: a line tells half of them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_samples, n_landmarks))
    y = np.maximum(x @ rng.normal(size=(n_landmarks, n_genes - n_landmarks)), 0)
    values = np.concatenate([x, y + 0.1 * rng.normal(size=y.shape)], axis=1)
    return (8 + values).astype(np.float32)


def samples(seed=0):
    values = np.random.default_rng(seed).normal(size=(60, 7)).astype(np.float32)
    is_tune = np.arange(60) % 5 == 0
    return Samples(InMemory(values), np.zeros(7), np.ones(7), ~is_tune, is_tune)


def train(folder, options, **more):
    train_dgex(
        folder, samples(), landmarks=LANDMARKS, targets=TARGETS, options=options, seed=3,
        genes=list("abcdefg"), **more,
    )  # fmt: skip
    return load_model(folder)


def test_dgex__learns_what_ridge_cannot(tmp_path):
    values = curved()
    split = np.zeros(400, dtype=np.int8)
    split[::5], split[1::10] = 2, 1
    genes = [f"{i:03d}_at" for i in range(40)]
    source = write_matrix(tmp_path / "normalized", NORMALIZED, values, split=split, genes=genes)
    kept = write_samples(tmp_path / "samples", source, keep=np.ones(400, dtype=bool))
    labels = {"gene": text(genes), "gene_id": text([""] * 40), "gene_symbol": text([""] * 40)}
    panels = write_landmarks(tmp_path / "landmarks", {"mined": genes[:6]}, labels)
    dgex = DGexOptions(hidden=64, learning_rate=1e-2, epochs=50, batch_size=32, dropout=0.0)
    chosen = EvaluateOptions(predictors=("ridge", "dgex"), dgex=dgex)
    target = str(tmp_path / "evaluation")
    evaluate(source, target, samples=kept, landmarks=panels, options=chosen)
    error = open_store(str(tmp_path / "evaluation"))["mean_mae"].sel(panel="mined", cohort="test")
    assert float(error.sel(predictor="ridge")) > 0.4
    assert float(error.sel(predictor="dgex")) < 0.6 * float(error.sel(predictor="ridge"))
    once = EvaluateOptions(predictors=("dgex",), dgex=dgex.model_copy(update={"epochs": 1}))
    evaluate(source, str(tmp_path / "short"), samples=kept, landmarks=panels, options=once)
    short = open_store(str(tmp_path / "short"))["mean_mae"].sel(panel="mined", cohort="test")
    assert float(short.sel(predictor="dgex")) > 1.2 * float(error.sel(predictor="dgex"))
    assert not list(tmp_path.glob("*networks*"))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_build_dgex__the_papers_network(n_layers):
    model = build_dgex(DGexOptions(hidden=9, n_layers=n_layers), 7, LANDMARKS, TARGETS, seed=0)
    dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"]
    shapes = [tuple(layer.kernel.shape) for layer in dense]
    assert shapes == [(3, 9), *[(9, 9)] * (n_layers - 1), (9, 4)]
    assert [d.activation.__name__ for d in dense] == ["tanh"] * n_layers + ["linear"]
    first, last = (np.asarray(dense[i].kernel) for i in (0, -1))
    assert np.abs(last).max() <= 1e-4 < np.abs(first).max() <= np.sqrt(6 / 12)
    assert sum(type(layer).__name__ == "Dropout" for layer in model.layers) == n_layers


def test_build_dgex__sees_landmarks_alone_and_sums_squares_over_targets():
    model = build_dgex(DGexOptions(hidden=9, dropout=0.0), 7, LANDMARKS, TARGETS, seed=0)
    z = samples().matrix.values[:16]
    other = z.copy()
    other[:, TARGETS] = 9
    np.testing.assert_array_equal(model.predict_on_batch(z), model.predict_on_batch(other))
    predicted = np.asarray(model.predict_on_batch(z))
    loss = model.test_on_batch(z, z, return_dict=True)["loss"]
    wanted = ((predicted - z[:, TARGETS]) ** 2).sum(axis=1).mean()
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_momentum__two_steps_by_hand():
    options = DGexOptions(hidden=4, dropout=0.0, optimizer="momentum", learning_rate=0.01)
    model = build_dgex(options, 7, LANDMARKS, TARGETS, seed=0)
    z = samples().matrix.values[:16]
    (w1, b1), (w2, b2) = (
        [np.asarray(v, dtype=np.float64) for v in (layer.kernel, layer.bias)]
        for layer in model.layers
        if type(layer).__name__ == "Dense"
    )
    velocity = [np.zeros_like(v) for v in (w1, b1, w2, b2)]
    x, y = z[:, LANDMARKS].astype(np.float64), z[:, TARGETS].astype(np.float64)
    for _ in range(2):
        hidden = np.tanh(x @ w1 + b1)
        error = 2 * (hidden @ w2 + b2 - y) / len(x)
        back = error @ w2.T * (1 - hidden**2)
        gradients = x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0)
        steps = (1, 1, 3, 1)
        velocity = [
            0.5 * v - 0.01 * s * g for v, s, g in zip(velocity, steps, gradients, strict=True)
        ]
        w1, b1, w2, b2 = (v + move for v, move in zip((w1, b1, w2, b2), velocity, strict=True))
        model.train_on_batch(z, z)
    found = [np.asarray(v) for v in model.trainable_variables]
    for a, b in zip(found, (w1, b1, w2, b2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_decay__steps_shorten_after_the_error_rose_and_never_under_the_floor():
    class Probe:
        n_samples = 2

        def epoch(self, _):
            yield np.full((2, 7), self.level, dtype=np.float32)

    options = DGexOptions(hidden=4, optimizer="momentum", learning_rate=1.05e-5)
    model = build_dgex(options, 7, LANDMARKS, TARGETS, seed=0)
    model.optimizer.build(model.trainable_variables)
    probe = Probe()
    rule = _decay(probe, TARGETS)
    steps = []
    for probe.level in (2.0, 1.0, 3.0, 4.0):
        rule(model)
        steps.append(float(np.asarray(model.optimizer.learning_rate)))
    np.testing.assert_allclose(steps, [1.05e-5, 1.05e-5, 1e-5, 1e-5], rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_train_dgex__broken_and_run_again_changes_no_bit(tmp_path, optimizer):
    options = DGexOptions(**SMALL, optimizer=optimizer)
    whole = train(tmp_path / "whole", options)

    def stop(done, _):
        if done == 2:
            raise DglzarrError("stopped")

    with pytest.raises(DglzarrError, match="stopped"):
        train(tmp_path / "broken", options, on_progress=stop)
    again = train(tmp_path / "broken", options)
    assert again.genes == ["f", "c", "a"]
    assert not (tmp_path / "broken" / "checkpoint").exists()
    for a, b in zip(whole.layers, again.layers, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (DGexOptions(), 1e-4),
        (DGexOptions(optimizer="momentum"), 5e-4),
        (DGexOptions(optimizer="momentum", n_layers=2), 3e-4),
        (DGexOptions(learning_rate=0.5), 0.5),
    ],
)
def test_dgex_options__steps_of_the_paper(options, step):
    assert options.step == step
