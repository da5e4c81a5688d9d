import logging
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from dglzarr.errors import DglzarrError, StoreError
from dglzarr.models.batches import Batches
from dglzarr.models.files import read_history
from dglzarr.models.options import BatchOptions, DGexOptions, NetworkOptions
from tests.arrays import InMemory

pytestmark = pytest.mark.slow

N_GENES = 12
EPOCHS = 5


@pytest.fixture(scope="module")
def train():
    from dglzarr.models import train

    return train


@pytest.fixture(scope="module")
def expression():
    """Samples that follow two programs, so that training has something to learn."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(90, 2)) @ rng.normal(size=(2, N_GENES))
    return (matrix + 0.1 * rng.normal(size=matrix.shape)).astype(np.float32)


def build(*, seed=1, **changes):
    from dglzarr.models.autoencoder import build_autoencoder

    options = NetworkOptions(**({"hidden": 16, "n_latent": 4, "dropout": 0.2} | changes))
    return build_autoencoder(N_GENES, options, seed=seed)


def batches(matrix, rows=slice(None), *, seed=3, **changes):
    keep = np.zeros(len(matrix), bool)
    keep[rows] = True
    options = {"batch_size": 16, "window": 8, "windows_in_memory": 4} | changes
    n_genes = matrix.shape[1]
    moments = {"mean": np.zeros(n_genes), "std": np.ones(n_genes)}
    return Batches(
        InMemory(matrix), keep=keep, **moments, options=BatchOptions(**options), seed=seed
    )


def fit(model, given, *, epochs, learning_rate, patience=None, **more):
    from dglzarr.models import train

    return train.fit(model, given, train.Schedule(epochs, learning_rate, patience), **more)


def test_on_device__the_same_batches(train, expression):
    expression = expression.copy()
    expression[3, 2] = np.nan
    given = batches(expression, slice(5, 80), batch_size=13)
    held = train.OnDevice(given)
    assert (held.n_samples, held.fingerprint) == (75, given.fingerprint)
    for epoch in range(2):
        for ours, theirs in zip(held.epoch(epoch), given.epoch(epoch), strict=True):
            assert np.asarray(ours).tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("free", "expected"), [(14_399, False), (14_400, True)])
def test_fits_on_gpu__four_times(monkeypatch, train, expression, free, expected):
    monkeypatch.setattr(train, "_free_gpu_nbytes", lambda: free)
    both = batches(expression, slice(60)), batches(expression, slice(60, 75))
    assert 4 * 75 * N_GENES * 4 == 14_400
    assert train.fits_on_gpu(*both) is expected


def state(folder, name="last.npz"):
    with np.load(folder / name, allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files if key != "history_seconds"}


def assert_same_state(left, right):
    assert left.keys() == right.keys()
    for key, values in left.items():
        assert np.array_equal(values, right[key], equal_nan=key == "history_val_loss"), key


def kernels(model):
    from dglzarr.models.autoencoder import dense_layers

    return [kernel for kernel, _, _ in dense_layers(model)]


class Wrapped:
    """Batches that call `spoil(epoch, batch number, batch)` on their way."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil
        self.n_samples, self.fingerprint = inner.n_samples, inner.fingerprint

    def epoch(self, epoch):
        for number, batch in enumerate(self.inner.epoch(epoch)):
            yield self.spoil(epoch, number, batch)


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stop_after(n_epochs):
    def on_progress(done, _total):
        if done == n_epochs:
            raise StoppedError

    return on_progress


def test_fit__learns(expression, tmp_path):
    model = build(dropout=0.0)
    history = fit(
        model,
        batches(expression, slice(0, 70)),
        validation=batches(expression, slice(70, 90)),
        epochs=60,
        learning_rate=0.02,
        checkpoint=tmp_path / "checkpoint",
    )
    baseline = np.abs(expression[70:]).mean()
    assert history.epoch.tolist() == list(range(1, 61))
    assert history.val_loss.min() < 0.5 * baseline
    assert history.loss[-1] < history.loss[0]


def test_fit__history_is_the_loss_of_keras(expression, tmp_path):
    """Without dropout or steps in size, the validation loss is MAE plus penalty, by hand."""
    model = build(dropout=0.0, l2=0.01)
    validation = batches(expression, slice(70, 90), batch_size=7)
    history = fit(
        model,
        batches(expression, slice(0, 70)),
        validation=validation,
        epochs=1,
        learning_rate=0.01,
        checkpoint=tmp_path / "checkpoint",
    )
    held_out = expression[70:]
    penalty = 0.01 * sum((kernel.astype(float) ** 2).sum() for kernel in kernels(model))
    expected = np.abs(np.asarray(model(held_out)) - held_out).mean() + penalty
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-5)


def test_fit__model_and_best_checkpoint_hold_the_best_epoch(expression, tmp_path):
    val_losses = []
    model = build()
    checkpoint = tmp_path / "checkpoint"
    history = fit(
        model,
        batches(expression, slice(0, 30)),
        validation=batches(expression, slice(70, 90)),
        epochs=14,
        learning_rate=0.3,
        checkpoint=checkpoint,
        on_progress=lambda done, total: val_losses.append((done, total)),
    )
    assert val_losses == [(epoch, 14) for epoch in range(1, 15)]
    best = history.best_epoch
    assert 1 <= best < 14
    assert len(state(checkpoint, "best.npz")["history_epoch"]) == best
    assert len(state(checkpoint, "last.npz")["history_epoch"]) == 14
    assert sorted(file.name for file in checkpoint.iterdir()) == ["best.npz", "last.npz"]
    again = {
        "validation": batches(expression, slice(70, 90)), "epochs": 14, "learning_rate": 0.3,
        "checkpoint": checkpoint,
    }  # fmt: skip
    (checkpoint / "best.npz").unlink()
    with pytest.raises(StoreError, match=rf"checkpoint of epoch {best}, got none"):
        fit(build(), batches(expression, slice(0, 30)), **again)
    held_out = expression[70:]
    penalty = 1e-6 * sum((kernel.astype(float) ** 2).sum() for kernel in kernels(model))
    loss = np.abs(np.asarray(model(held_out)) - held_out).mean() + penalty
    assert loss == pytest.approx(history.val_loss.min(), rel=1e-5)


def test_fit__same_seeds_same_bytes(expression, tmp_path):
    for name in "ab":
        fit(build(), batches(expression), epochs=2, learning_rate=0.01, checkpoint=tmp_path / name)
    assert_same_state(state(tmp_path / "a"), state(tmp_path / "b"))


@pytest.mark.parametrize(
    ("model", "order", "rate"),
    [({"seed": 2}, {}, 0.01), ({}, {"seed": 4}, 0.01), ({}, {}, 0.02)],
    ids=["model-seed", "batch-seed", "learning-rate"],
)
def test_fit__each_setting_changes_the_weights(expression, tmp_path, model, order, rate):
    plain, changed = build(), build(**model)
    common = {"epochs": 1}
    fit(plain, batches(expression), learning_rate=0.01, checkpoint=tmp_path / "a", **common)
    fit(
        changed,
        batches(expression, **order),
        learning_rate=rate,
        checkpoint=tmp_path / "b",
        **common,
    )
    assert not np.array_equal(kernels(plain)[0], kernels(changed)[0])


@pytest.mark.parametrize("n_epochs", [1, 3, 5])
@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_fit__resumed_run_ends_with_the_same_bytes(expression, tmp_path, n_epochs, cache):
    def run(folder, on_progress=None):
        model = build()
        fit(
            model,
            batches(expression, slice(0, 70), cache=cache),
            validation=batches(expression, slice(70, 90)),
            epochs=EPOCHS,
            learning_rate=0.05,
            checkpoint=folder / "checkpoint",
            on_progress=on_progress,
        )
        return model

    undisturbed = run(tmp_path / "a")
    with pytest.raises(StoppedError):
        run(tmp_path / "b", stop_after(n_epochs))
    resumed = run(tmp_path / "b")
    for left, right in zip(kernels(undisturbed), kernels(resumed), strict=True):
        assert np.array_equal(left, right)
    for name in ("last.npz", "best.npz"):
        assert_same_state(*(state(tmp_path / run / "checkpoint", name) for run in "ab"))
    curves = [read_history(tmp_path / run / "history.csv") for run in "ab"]
    np.testing.assert_array_equal(curves[0].val_loss, curves[1].val_loss)


def test_fit__resume_needs_the_seed_states(expression, tmp_path):
    """The test above would notice a checkpoint that forgot the dropout's state."""
    checkpoint = tmp_path / "b"
    undisturbed = build()
    common = {"epochs": 4, "learning_rate": 0.05}
    fit(undisturbed, batches(expression), checkpoint=tmp_path / "a", **common)
    with pytest.raises(StoppedError):
        fit(
            build(),
            batches(expression),
            checkpoint=checkpoint,
            on_progress=stop_after(2),
            **common,
        )
    with np.load(checkpoint / "last.npz") as arrays:
        stored = dict(arrays)
    seeds = [
        name for name, values in stored.items() if name.startswith("model") and values.shape == (2,)
    ]
    assert len(seeds) == 3
    for name in seeds:
        stored[name] = stored[name][::-1]
    np.savez(checkpoint / "last.npz", **stored)
    resumed = build()
    fit(resumed, batches(expression), checkpoint=checkpoint, **common)
    assert not np.array_equal(kernels(undisturbed)[0], kernels(resumed)[0])


KILLED = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from tests_train import Wrapped, batches, build, fit

    matrix, checkpoint, victim = np.load(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def kill(epoch, number, batch):
        if (epoch, number) == (victim, 2):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch

    fit(
        build(), Wrapped(batches(matrix), kill), epochs=4, learning_rate=0.05, checkpoint=checkpoint
    )
""")


def test_fit__killed_in_an_epoch_and_resumed_ends_with_the_same_bytes(expression, tmp_path):
    np.save(tmp_path / "x.npy", expression)
    (tmp_path / "tests_train.py").symlink_to(__file__)

    def run(folder, victim):
        command = [sys.executable, "-c", KILLED, tmp_path / "x.npy", tmp_path / folder, str(victim)]
        path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, check=False
        ).returncode

    fit(build(), batches(expression), epochs=4, learning_rate=0.05, checkpoint=tmp_path / "a")
    assert run("b", 2) == -signal.SIGKILL
    assert state(tmp_path / "b")["history_epoch"].tolist() == [1, 2]
    (tmp_path / "b" / "last.npz.0.partial").write_bytes(b"half a file")
    assert run("b", -1) == 0
    assert sorted(file.name for file in (tmp_path / "b").iterdir()) == ["best.npz", "last.npz"]
    assert_same_state(state(tmp_path / "a"), state(tmp_path / "b"))


def test_fit__finished_run_trains_no_more(expression, tmp_path):
    def forbidden(_epoch, _number, _batch):
        raise AssertionError

    first, again = build(), build()
    common = {"epochs": 3, "learning_rate": 0.01, "checkpoint": tmp_path / "checkpoint"}
    fit(first, batches(expression), **common)
    history = fit(again, Wrapped(batches(expression), forbidden), **common)
    assert history.epoch.tolist() == [1, 2, 3]
    assert np.array_equal(kernels(first)[0], kernels(again)[0])


def test_fit__more_epochs_go_on_from_the_last(expression, tmp_path):
    common = {"learning_rate": 0.01}
    fit(build(), batches(expression), epochs=4, checkpoint=tmp_path / "a", **common)
    for epochs in (2, 4):
        fit(build(), batches(expression), epochs=epochs, checkpoint=tmp_path / "b", **common)
    assert_same_state(state(tmp_path / "a"), state(tmp_path / "b"))


def test_fit__patience_stops_it(expression, tmp_path):
    def run():
        return fit(
            build(),
            batches(expression, slice(0, 30)),
            validation=batches(expression, slice(70, 90)),
            epochs=50,
            learning_rate=0.3,
            patience=2,
            checkpoint=tmp_path / "checkpoint",
        )

    history = run()
    assert len(history.epoch) == history.best_epoch + 2 < 50
    assert len(run().epoch) == len(history.epoch)


def test_fit__a_network_that_diverges(expression, tmp_path):
    with pytest.raises(
        DglzarrError, match=r"got (nan|inf) in epoch \d+, batch \d+\. Lower learning_"
    ):
        fit(
            build(activation="relu"), batches(expression), epochs=40, learning_rate=1e30,
            checkpoint=tmp_path / "checkpoint",
        )  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_fit__loss_that_is_not_finite_ends_it(expression, tmp_path, value):
    def spoil(epoch, number, batch):
        return np.full_like(batch, value) if (epoch, number) == (2, 1) else batch

    checkpoint = tmp_path / "checkpoint"
    common = {"epochs": 4, "learning_rate": 0.01}
    message = r"got (nan|inf) in epoch 3, batch 2\. A value of the matrix is not finite; the check"
    with pytest.raises(DglzarrError, match=message):
        fit(build(), Wrapped(batches(expression), spoil), checkpoint=checkpoint, **common)
    assert state(checkpoint)["history_epoch"].tolist() == [1, 2]
    fit(build(), batches(expression), checkpoint=checkpoint, **common)
    fit(build(), batches(expression), checkpoint=tmp_path / "a", **common)
    assert_same_state(state(tmp_path / "a"), state(checkpoint))


@pytest.mark.parametrize(
    ("model", "order", "rate"),
    [({"n_latent": 5}, {}, 0.01), ({}, {"batch_size": 8}, 0.01), ({}, {}, 0.02)],
    ids=["model", "batches", "learning-rate"],
)
def test_fit__refuses_the_checkpoint_of_other_settings(expression, tmp_path, model, order, rate):
    fit(build(), batches(expression), epochs=1, learning_rate=0.01, checkpoint=tmp_path / "c")
    with pytest.raises(StoreError, match=r"last\.npz: expected the checkpoint of this training"):
        fit(
            build(**model),
            batches(expression, **order),
            epochs=2,
            learning_rate=rate,
            checkpoint=tmp_path / "c",
        )


def test_fit__refuses_the_checkpoint_of_another_optimizer(train, expression, tmp_path):
    import keras

    settings = {"learning_rate": 0.01, "checkpoint": tmp_path / "c"}
    fit(build(), batches(expression), epochs=1, **settings)
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=train.LOSS, jit_compile=False)
    with pytest.raises(StoreError, match=r"last\.npz: expected the checkpoint of this training"):
        fit(model, batches(expression), epochs=2, **settings)


def test_fit__compiles_no_step_where_there_is_a_gpu(train, expression, tmp_path, monkeypatch):
    """Keras' own default would, and the bits would be others."""
    import keras
    import tensorflow as tf

    from dglzarr.models.dgex import build_dgex

    cpu = tf.config.list_physical_devices("CPU")
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [*cpu, gpu])
    by_default = build()
    by_default.compile(optimizer=keras.optimizers.Adam(0.01), loss=train.LOSS)
    assert by_default.jit_compile
    model = build()
    fit(model, batches(expression), epochs=1, learning_rate=0.01, checkpoint=tmp_path / "c")
    assert not model.jit_compile
    network = build_dgex(DGexOptions(hidden=4), 7, np.arange(3), np.arange(3, 7), seed=0)
    assert not network.jit_compile


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut short", b""], ids=["cut", "empty"])
def test_fit__refuses_a_broken_checkpoint(expression, tmp_path, content):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "last.npz").write_bytes(content)
    with pytest.raises(StoreError, match="expected a whole checkpoint"):
        fit(build(), batches(expression), epochs=1, learning_rate=0.01, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(("patience", "rows"), [(1, None), (0, slice(0, 9))], ids=["alone", "zero"])
def test_fit__refuses_patience(expression, tmp_path, patience, rows):
    validation = None if rows is None else batches(expression, rows)
    with pytest.raises(ValueError, match="patience: expected at least 1 epoch and validation"):
        fit(
            build(),
            batches(expression),
            validation=validation,
            epochs=1,
            learning_rate=0.01,
            patience=patience,
            checkpoint=tmp_path / "c",
        )


def test_fit__writes_where_links_are_refused(expression, tmp_path, monkeypatch):
    def refuse(*_args):
        raise OSError("links not supported")

    monkeypatch.setattr(os, "link", refuse)
    fit(build(), batches(expression), epochs=2, learning_rate=0.01, checkpoint=tmp_path / "c")
    assert_same_state(state(tmp_path / "c", "best.npz"), state(tmp_path / "c"))


def test_fit__killed_before_the_best_is_kept_goes_on(train, expression, tmp_path, monkeypatch):
    def run(folder):
        fed = {"validation": batches(expression), "learning_rate": 0.01, "checkpoint": folder}
        return fit(build(), batches(expression), epochs=1, **fed)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_link", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    monkeypatch.undo()
    assert not (tmp_path / "killed" / "best.npz").exists()
    run(tmp_path / "killed")
    run(tmp_path / "whole")
    assert_same_state(state(tmp_path / "killed", "best.npz"), state(tmp_path / "whole", "best.npz"))


def test_fit__logs_one_line_an_epoch(expression, tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="dglzarr.models.train"):
        fit(build(), batches(expression), epochs=3, learning_rate=0.01, checkpoint=tmp_path / "c")
    assert [record.getMessage()[:8] for record in caplog.records] == [
        f"epoch {epoch}:" for epoch in (1, 2, 3)
    ]
    assert caplog.text.count(", validation none, ") == 3
    assert "samples/s" in caplog.text
