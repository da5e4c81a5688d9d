import json
import re
import shutil
import sys

import numpy as np
import pytest

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.models.files import load_model, read_history
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import (
    TEST,
    TRAIN,
    digests,
    simulate,
    splits,
    times,
    write_matrix,
    write_samples,
)

pytestmark = pytest.mark.slow

SIZES = {"hidden": 12, "n_latent": 4, "epochs": 3, "batch_size": 16, "device": "cpu"}


@pytest.fixture(scope="module")
def train():
    from dglzarr.stages.train import train

    return train


@pytest.fixture(scope="module")
def values():
    return simulate(n_duplicates=0, missing_fraction=0.02).expression


class Study:
    def __init__(self, folder, values, *, split=None):
        self.split = splits(len(values)) if split is None else split
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9
        self.source = write_matrix(folder / "n", NORMALIZED, values, split=self.split)
        self.samples = write_samples(folder / "s", self.source, keep=self.keep)


@pytest.fixture(scope="module")
def study(tmp_path_factory, values):
    return Study(tmp_path_factory.mktemp("study"), values)


def weights(target):
    return [part for kernel, bias, _ in load_model(target).layers for part in (kernel, bias)]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def run(train, study, target, **options):
    return train(study.source, str(target), samples=study.samples, **{**SIZES, **options})


@pytest.fixture(scope="module")
def plain(train, study, tmp_path_factory):
    """A finished model; a test that changes it takes a copy."""
    run(train, study, target := tmp_path_factory.mktemp("models") / "plain")
    return target


class Killed(BaseException):
    """Stands for a kill after an epoch."""


def epoch_of(done, total, epochs=SIZES["epochs"]):
    """The epochs that are done, from the samples seen."""
    return done * epochs // total


def killed_after(epochs):
    def stop(_, done, total):
        if epoch_of(done, total) == epochs:
            raise Killed

    return stop


def test_train__model_carries_labels_moments_and_lineage(tmp_path, train, study, values):
    summary = run(train, study, tmp_path / "m")
    saved = load_model(tmp_path / "m")
    kept = values[study.keep & (study.split == TRAIN)].astype(np.float64)
    np.testing.assert_allclose(saved.gene_mean, np.nanmean(kept, axis=0))
    np.testing.assert_allclose(saved.gene_std, np.nanstd(kept, axis=0))
    assert [k.shape for k, _, _ in saved.layers] == [(40, 12), (12, 4), (4, 12), (12, 40)]
    assert [a for _, _, a in saved.layers] == ["sigmoid", "sigmoid", "sigmoid", "linear"]
    assert [i["uri"] for i in saved.inputs] == [study.source, study.samples]
    assert summary.details == {"model_id": saved.model_id}
    assert summary.sizes == {"gene": 40, "latent": 4}
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == 3
    assert history.loss[-1] < history.loss[0]
    assert not np.isnan(history.val_loss).any()


def test_train__removes_what_a_killed_run_left(tmp_path, train, study):
    run(train, study, tmp_path / "m")
    checkpoint = tmp_path / "m" / "checkpoint"
    checkpoint.mkdir()
    assert run(train, study, tmp_path / "m").state == "unchanged"
    assert not checkpoint.exists()


def test_train__what_is_refused_replaces_nothing(tmp_path, train, study, plain, monkeypatch):
    import keras

    shutil.copytree(plain, tmp_path / "m")
    before = digests(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"train.activation: expected one of .*, got 'gelu'"):
        run(train, study, tmp_path / "m", activation="gelu", overwrite=True)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda _: [])
    with pytest.raises(ConfigError, match=r"train\.device: expected a GPU"):
        run(train, study, tmp_path / "m", device="gpu", epochs=2, overwrite=True)
    assert digests(tmp_path / "m") == before


def test_train__a_broken_record_of_what_was_begun(tmp_path, train, study, plain):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "training.json").write_text("{")
    with pytest.raises(StoreError, match=r"training\.json: expected JSON, .*--overwrite"):
        run(train, study, tmp_path / "m")
    run(train, study, tmp_path / "m", overwrite=True)
    assert same(plain, tmp_path / "m")


def test_train__a_folder_of_others_is_left(tmp_path, train, study):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    run(train, study, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"


def test_train__same_seed_same_bits_other_seed_others(tmp_path, train, study, plain):
    for name, seed in (("b", 0), ("c", 1)):
        run(train, study, tmp_path / name, seed=seed)
    assert same(plain, tmp_path / "b")
    assert not same(plain, tmp_path / "c")


def test_train__test_and_dropped_samples_do_not_leak(tmp_path, train, study, values, plain):
    unused = ~study.keep | (study.split == TEST)
    (tmp_path / "other").mkdir()
    other = Study(tmp_path / "other", np.where(unused[:, None], values**2, values))
    run(train, other, tmp_path / "b")
    assert same(plain, tmp_path / "b")


@pytest.mark.parametrize("after", [1, 2])
def test_train__goes_on_after_a_kill(tmp_path, train, study, plain, after):
    with pytest.raises(Killed):
        run(train, study, tmp_path / "m", on_progress=killed_after(after))
    assert not (tmp_path / "m" / "model.json").exists()
    with pytest.raises(StoreError, match=r"expected a complete model, got no model.json"):
        load_model(tmp_path / "m")
    done = []
    run(train, study, tmp_path / "m", on_progress=lambda *call: done.append(call))
    n_train = (study.keep & (study.split == TRAIN)).sum()
    assert done == [("training samples", e * n_train, 3 * n_train) for e in range(after + 1, 4)]
    assert same(plain, tmp_path / "m")


def test_train__second_run_touches_nothing(tmp_path, train, study):
    first = run(train, study, tmp_path / "m")
    before = times(tmp_path)
    second = run(train, study, tmp_path / "m")
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


def test_train__other_parameters(train, study, plain):
    before = times(plain)
    others = {
        "hidden": 10,
        "n_latent": 3,
        "activation": "tanh",
        "output": "tanh",
        "dropout": 0.2,
        "dropout_position": "input",
        "window": 5,
        "windows_in_memory": 3,
        "l2": 0.1,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "patience": 1,
        "seed": 4,
    }
    for name, value in others.items():
        with pytest.raises(StoreError, match=f"other parameters: {name} .* -> {value!r}"):
            run(train, study, plain, **{name: value})
    assert times(plain) == before


@pytest.mark.parametrize(
    ("changed", "finished"),
    [({"epochs": 1}, True), ({"epochs": 1}, False), ({"dropout": 0.5}, False)],
    ids=str,
)
def test_train__overwrite_is_a_training_from_the_start(tmp_path, train, study, changed, finished):
    run(train, study, tmp_path / "whole", **changed)
    if finished:
        run(train, study, tmp_path / "m")
    else:
        with pytest.raises(Killed):
            run(train, study, tmp_path / "m", on_progress=killed_after(2))
    with pytest.raises(StoreError, match=f"other parameters: {next(iter(changed))} "):
        run(train, study, tmp_path / "m", **changed)
    assert run(train, study, tmp_path / "m", **changed, overwrite=True).state == "new"
    assert same(tmp_path / "whole", tmp_path / "m")
    epochs = len(read_history(tmp_path / "m" / "history.csv").epoch)
    assert epochs == changed.get("epochs", 3)


def test_train__overwrite_that_was_killed_goes_on(tmp_path, train, study):
    run(train, study, tmp_path / "whole", dropout=0.5)
    run(train, study, tmp_path / "m")
    with pytest.raises(Killed):
        run(train, study, tmp_path / "m", dropout=0.5, overwrite=True, on_progress=killed_after(2))
    done = []
    run(
        train, study, tmp_path / "m", dropout=0.5, overwrite=True,
        on_progress=lambda *call: done.append(epoch_of(*call[1:])),
    )  # fmt: skip
    assert done == [3]
    assert same(tmp_path / "whole", tmp_path / "m")


@pytest.mark.parametrize(
    "changed",
    [
        {"activation": "tanh"},
        {"output": "tanh"},
        {"dropout_position": "input"},
        {"window": 3},
        {"windows_in_memory": 1},
        {"dropout": 0.5},
        {"l2": 0.1},
        {"batch_size": 8},
        {"learning_rate": 0.01},
        {"epochs": 4},
    ],
    ids=str,
)
def test_train__every_option_changes_the_weights(tmp_path, train, study, plain, changed):
    run(train, study, tmp_path / "m", **changed)
    assert not same(plain, tmp_path / "m")


@pytest.mark.parametrize("device", ["auto", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_train__other_device_learns_the_same(tmp_path, train, study, plain, device):
    run(train, study, tmp_path / "m", device=device)
    for ours, theirs in zip(weights(tmp_path / "m"), weights(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert load_model(tmp_path / "m").parameters["trained_on"] in {"cpu", "gpu"}
    assert load_model(plain).parameters["trained_on"] == "cpu"


@pytest.mark.parametrize(
    ("options", "is_held"),
    [
        ({"device": "auto"}, True),
        ({"device": "auto", "cache": "memory"}, True),
        ({"device": "auto", "cache": "stream"}, False),
        ({"device": "cpu"}, False),
    ],
    ids=str,
)
def test_train__held_on_a_gpu_that_has_the_memory(
    monkeypatch, tmp_path, train, study, plain, options, is_held
):
    """Without a GPU the network stays on the CPU, so that no weight may differ."""
    from dglzarr.models import train as models_train

    asked = []
    epoch = models_train.OnDevice.epoch
    monkeypatch.setattr(models_train, "_free_gpu_nbytes", lambda: 2**30)
    monkeypatch.setattr(
        models_train.OnDevice,
        "epoch",
        lambda self, number: asked.append(number) or epoch(self, number),
    )
    run(train, study, tmp_path / "m", **options)
    assert asked == ([0, 0, 1, 0, 2, 0] if is_held else [])
    if load_model(tmp_path / "m").parameters["trained_on"] == "cpu":
        assert same(plain, tmp_path / "m")


def test_train__cache_does_not_matter(tmp_path, train, study, plain):
    run(train, study, tmp_path / "m", cache="stream")
    assert same(plain, tmp_path / "m")


def test_train__records_what_the_paper_leaves_open(plain):
    saved = load_model(plain)
    assert {**saved.config, **saved.parameters}.keys() >= {
        "activation", "output", "dropout", "dropout_position", "l2", "batch_size", "epochs",
        "learning_rate", "patience", "seed", "loss", "optimizer", "initializer", "input_scale",
        "fitted_on", "best_by",
    }  # fmt: skip


@pytest.mark.parametrize("windows", [None, 600])
def test_train__records_the_windows_that_a_batch_wants(tmp_path, train, study, windows):
    run(train, study, tmp_path / "m", epochs=1, batch_size=300, windows_in_memory=windows)
    assert load_model(tmp_path / "m").parameters["windows_in_memory"] == 600
    again = run(train, study, tmp_path / "m", epochs=1, batch_size=300)
    assert again.state == "unchanged"


@pytest.mark.parametrize("package", ["keras", "numba"])
def test_train__a_package_that_is_not_installed(tmp_path, train, study, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = f"expected {package} to be installed, got none. Run: pip install 'dglzarr[train]'"
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(train, study, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_train__an_infinity_in_the_matrix(tmp_path, train, values):
    (tmp_path / "study").mkdir()
    split = splits(len(values))
    spoilt = values.copy()
    at = int(np.flatnonzero(split == TRAIN)[3])
    study = Study(tmp_path / "study", values, split=split)
    study.keep[at] = True
    spoilt[at, 5] = np.inf
    source = write_matrix(tmp_path / "inf", NORMALIZED, spoilt, split=split)
    with pytest.raises(DglzarrError, match=r"expected a finite loss, got .* in epoch 1, batch \d"):
        train(
            source, str(tmp_path / "m"), samples=write_samples(
                tmp_path / "kept", study.source, keep=study.keep
            ), **SIZES,
        )  # fmt: skip
    assert not (tmp_path / "m" / "model.json").exists()


def test_train__a_wholly_missing_gene_is_zero(tmp_path, train, values):
    (tmp_path / "study").mkdir()
    lacking = values.copy()
    lacking[:, 7] = np.nan
    study = Study(tmp_path / "study", lacking)
    run(train, study, tmp_path / "m")
    assert all(np.isfinite(part).all() for part in weights(tmp_path / "m"))


def test_train__patience_ends_it_and_the_best_epoch_is_kept(tmp_path, train, study):
    run(train, study, tmp_path / "m", learning_rate=1.0, epochs=30, patience=2)
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == history.best_epoch + 2 < 30
    run(train, study, tmp_path / "best", learning_rate=1.0, epochs=history.best_epoch)
    assert same(tmp_path / "m", tmp_path / "best")


def test_train__other_inputs(tmp_path, train, values, plain):
    (tmp_path / "other").mkdir()
    other = Study(tmp_path / "other", values + 1)
    with pytest.raises(StoreError, match="other parameters: inputs "):
        run(train, other, plain)


def test_train__without_validation_the_last_epoch_is_kept(tmp_path, train, values):
    (tmp_path / "study").mkdir()
    split = splits(len(values), n_validation=0)
    study = Study(tmp_path / "study", values, split=split)
    run(train, study, tmp_path / "m", patience=1)
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == 3
    assert np.isnan(history.val_loss).all()


def test_train__damaged_weights(tmp_path, train, study, plain):
    shutil.copytree(plain, tmp_path / "m")
    with (tmp_path / "m" / "weights.npz").open("ab") as file:
        file.write(b"x")
    with pytest.raises(StoreError, match=r"weights.npz: expected the weights that model.json"):
        run(train, study, tmp_path / "m")
    run(train, study, tmp_path / "m", overwrite=True)
    assert same(plain, tmp_path / "m")


def test_train__a_loss_that_is_not_finite(tmp_path, train, study):
    with pytest.raises(DglzarrError, match=r"expected a finite loss, got .* Lower learning_rate"):
        run(train, study, tmp_path / "m", learning_rate=1e38, activation="relu", epochs=20)
    assert not (tmp_path / "m" / "model.json").exists()


def test_train__a_place_that_cannot_be_written(tmp_path, train, study):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/m: cannot be written: .*Free space"):
        run(train, study, tmp_path / "file" / "m")


def test_train__what_it_is_made_from_is_known_before_the_first_epoch(tmp_path, train, study):
    with pytest.raises(Killed):
        run(train, study, tmp_path / "m", on_progress=killed_after(1))
    begun = json.loads((tmp_path / "m" / "training.json").read_text())
    assert begun["epochs"] == 3
    assert begun["n_genes"] == 40
    assert not list((tmp_path / "m").glob("*.part"))
