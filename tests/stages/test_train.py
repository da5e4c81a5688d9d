import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.models.files import load_model, predict, read_history
from dglzarr.stages.train import TrainOptions, train
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import store_input
from tests.builders import (
    KONG2021,
    TEST,
    TRAIN,
    digests,
    older_study,
    simulate,
    splits,
    times,
    write_matrix,
    write_samples,
)

pytestmark = pytest.mark.slow

SIZES = {
    **KONG2021, "hidden": 12, "n_latent": 4, "epochs": 3, "batch_size": 16, "device": "cpu",
}  # fmt: skip
COMPONENTS = {"start": "components", "activation": "relu", "latent_activation": "linear"}


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


def run(study, target, *, seed=0, overwrite=False, on_progress=None, **options):
    return train(
        study.source, str(target), samples=study.samples, seed=seed,
        options=TrainOptions(**{**SIZES, **options}), run=Run(overwrite, on_progress),
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(study, tmp_path_factory):
    """A finished model; a test that changes it takes a copy."""
    run(study, target := tmp_path_factory.mktemp("models") / "plain")
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


def test_train__model_carries_labels_moments_and_lineage(tmp_path, study, values):
    summary = run(study, tmp_path / "m")
    saved = load_model(tmp_path / "m")
    kept = values[study.keep & (study.split == TRAIN)].astype(np.float64)
    np.testing.assert_allclose(saved.gene_mean, np.nanmean(kept, axis=0))
    np.testing.assert_allclose(saved.gene_std, np.nanstd(kept, axis=0))
    assert [k.shape for k, _, _ in saved.layers] == [(40, 12), (12, 4), (4, 12), (12, 40)]
    assert [a for _, _, a in saved.layers] == ["sigmoid", "sigmoid", "sigmoid", "linear"]
    assert saved.inputs == [
        {"role": "source", **store_input(study.source)},
        {"role": "samples", **store_input(study.samples)},
    ]
    assert summary.details == {"model_id": saved.model_id}
    assert summary.sizes == {"gene": 40, "latent": 4}
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == 3
    assert history.loss[-1] < history.loss[0]
    assert not np.isnan(history.val_loss).any()


def test_train__removes_what_a_killed_run_left(tmp_path, study):
    run(study, tmp_path / "m")
    checkpoint = tmp_path / "m" / "checkpoint"
    checkpoint.mkdir()
    assert run(study, tmp_path / "m").state == "unchanged"
    assert not checkpoint.exists()


def test_train__what_is_refused_replaces_nothing(tmp_path, study, plain, monkeypatch):
    import keras

    shutil.copytree(plain, tmp_path / "m")
    before = digests(tmp_path / "m")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda _: [])
    with pytest.raises(ConfigError, match=r"train\.device: expected a GPU"):
        run(study, tmp_path / "m", device="gpu", epochs=2, overwrite=True)
    assert digests(tmp_path / "m") == before


@pytest.mark.parametrize("changed", [{"activation": "gelu"}, {"activation": "linear"}], ids=str)
def test_train_options__refuse_an_activation(changed):
    with pytest.raises(ValueError, match="Input should be 'sigmoid', 'tanh', 'relu', 'elu' or 's"):
        TrainOptions(**changed)


def older_training(folder, **changed):
    """The arguments of the training of the study of 0.1.0."""
    root = older_study(folder)
    normalized, samples = (
        f"{root}/segments/0000/{name}.zarr" for name in ("normalized", "samples")
    )
    options = TrainOptions(
        **{**KONG2021, "hidden": 4, "n_latent": 2, "epochs": 2, "batch_size": 8, **changed}
    )
    model = str(root / "models" / "seed-6")
    return {
        "source": normalized,
        "target": model,
        "samples": samples,
        "seed": 6,
        "options": options,
    }


def test_train__a_model_of_0_1_0_is_unchanged(tmp_path):
    assert train.claim(**older_training(tmp_path)).state == "unchanged"
    claim = train.claim(**older_training(tmp_path, l2=0.1))
    assert [str(d) for d in claim.differences] == ["train.l2: 1e-06 -> 0.1"]


def test_train__what_0_1_0_began_goes_on(tmp_path):
    arguments = older_training(tmp_path)
    Path(arguments["target"], "model.json").unlink()
    assert train.claim(**arguments).state == "resumed"
    claim = train.claim(**arguments | {"source": arguments["samples"]})
    told = {d.what for d in claim.differences}
    assert told == {"samples", "input 0"}, "what was the source is not wanted now"


def test_train__asking_changes_nothing(tmp_path, study, plain):
    def ask(target, **options):
        chosen = TrainOptions(**{**SIZES, **options})
        return train.claim(study.source, str(target), samples=study.samples, options=chosen)

    assert ask(tmp_path / "none").state == "new"
    shutil.copytree(plain, tmp_path / "m")
    (tmp_path / "m" / "checkpoint").mkdir()
    before = times(tmp_path)
    assert ask(tmp_path / "m").state == "unchanged"
    assert ask(tmp_path / "m", epochs=4).state == "refused"
    assert (tmp_path / "m" / "checkpoint").exists()
    assert times(tmp_path) == before
    (tmp_path / "m" / "weights.npz").unlink()
    (damage,) = ask(tmp_path / "m").differences
    assert damage.is_damage
    assert "weights.npz: expected the weights that model.json names" in str(damage)


def test_train__a_broken_record_of_what_was_begun(tmp_path, study, plain):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "training.json").write_text("{")
    with pytest.raises(StoreError, match=r"cannot be read: training\.json: .*--overwrite"):
        run(study, tmp_path / "m")
    run(study, tmp_path / "m", overwrite=True)
    assert same(plain, tmp_path / "m")


def test_train__a_folder_of_others_is_left(tmp_path, study):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"or nothing, got other files\. Remove that folder"):
        run(study, tmp_path / "m", overwrite=True)
    assert (tmp_path / "m" / "notes.txt").read_text() == "mine"


def test_train__same_seed_same_bits_other_seed_others(tmp_path, study, plain):
    for name, seed in (("b", 0), ("c", 1)):
        run(study, tmp_path / name, seed=seed)
    assert same(plain, tmp_path / "b")
    assert not same(plain, tmp_path / "c")


def test_train__test_and_dropped_samples_do_not_leak(tmp_path, study, values, plain):
    unused = ~study.keep | (study.split == TEST)
    (tmp_path / "other").mkdir()
    other = Study(tmp_path / "other", np.where(unused[:, None], values**2, values))
    run(other, tmp_path / "b")
    assert same(plain, tmp_path / "b")


@pytest.mark.parametrize("after", [1, 2])
def test_train__goes_on_after_a_kill(tmp_path, study, plain, after):
    with pytest.raises(Killed):
        run(study, tmp_path / "m", on_progress=killed_after(after))
    assert not (tmp_path / "m" / "model.json").exists()
    with pytest.raises(StoreError, match=r"expected a complete model, got no model.json"):
        load_model(tmp_path / "m")
    done = []
    run(study, tmp_path / "m", on_progress=lambda *call: done.append(call))
    n_train = (study.keep & (study.split == TRAIN)).sum()
    assert done == [("training samples", e * n_train, 3 * n_train) for e in range(after + 1, 4)]
    assert same(plain, tmp_path / "m")


def test_train__second_run_touches_nothing(tmp_path, study):
    first = run(study, tmp_path / "m")
    before = times(tmp_path)
    second = run(study, tmp_path / "m")
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


def test_train__other_parameters(study, plain):
    before = times(plain)
    others = {
        "hidden": 10,
        "n_latent": 3,
        "activation": "tanh",
        "latent_activation": "linear",
        "held_back": 0.2,
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
        with pytest.raises(
            StoreError, match=rf"other parameters: (train\.)?{name}: .* -> {value!r}"
        ):
            run(study, plain, **{name: value})
    assert times(plain) == before


@pytest.mark.parametrize(
    ("changed", "finished"),
    [({"epochs": 1}, True), ({"epochs": 1}, False), ({"dropout": 0.5}, False)],
    ids=str,
)
def test_train__overwrite_is_a_training_from_the_start(tmp_path, study, changed, finished):
    run(study, tmp_path / "whole", **changed)
    if finished:
        run(study, tmp_path / "m")
    else:
        with pytest.raises(Killed):
            run(study, tmp_path / "m", on_progress=killed_after(2))
    with pytest.raises(StoreError, match=rf"other parameters: train\.{next(iter(changed))}: "):
        run(study, tmp_path / "m", **changed)
    assert run(study, tmp_path / "m", **changed, overwrite=True).state == "new"
    assert same(tmp_path / "whole", tmp_path / "m")
    epochs = len(read_history(tmp_path / "m" / "history.csv").epoch)
    assert epochs == changed.get("epochs", 3)


def test_train__overwrite_that_was_killed_goes_on(tmp_path, study):
    run(study, tmp_path / "whole", dropout=0.5)
    run(study, tmp_path / "m")
    with pytest.raises(Killed):
        run(study, tmp_path / "m", dropout=0.5, overwrite=True, on_progress=killed_after(2))
    done = []
    run(
        study, tmp_path / "m", dropout=0.5, overwrite=True,
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
def test_train__every_option_changes_the_weights(tmp_path, study, plain, changed):
    run(study, tmp_path / "m", **changed)
    assert not same(plain, tmp_path / "m")


@pytest.mark.parametrize("device", ["auto", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_train__other_device_learns_the_same(tmp_path, study, plain, device):
    run(study, tmp_path / "m", device=device)
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
    monkeypatch, tmp_path, study, plain, options, is_held
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
    run(study, tmp_path / "m", **options)
    assert asked == ([0, 0, 1, 0, 2, 0] if is_held else [])
    if load_model(tmp_path / "m").parameters["trained_on"] == "cpu":
        assert same(plain, tmp_path / "m")


def test_train__cache_does_not_matter(tmp_path, study, plain):
    run(study, tmp_path / "m", cache="stream")
    assert same(plain, tmp_path / "m")


def test_train__records_what_the_paper_leaves_open(plain):
    saved = load_model(plain)
    assert {**saved.config, **saved.parameters}.keys() >= {
        "activation", "output", "dropout", "dropout_position", "l2", "batch_size", "epochs",
        "learning_rate", "patience", "seed", "loss", "optimizer", "initializer", "input_scale",
        "fitted_on", "best_by",
    }  # fmt: skip


@pytest.mark.parametrize("windows", [None, 600])
def test_train__records_the_windows_that_a_batch_wants(tmp_path, study, windows):
    run(study, tmp_path / "m", epochs=1, batch_size=300, windows_in_memory=windows)
    assert load_model(tmp_path / "m").parameters["windows_in_memory"] == 600
    again = run(study, tmp_path / "m", epochs=1, batch_size=300)
    assert again.state == "unchanged"


@pytest.mark.parametrize("package", ["keras", "numba"])
def test_train__a_package_that_is_not_installed(tmp_path, study, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = f"expected {package} to be installed, got none. Run: pip install 'dglzarr[train]'"
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(study, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_train__an_infinity_in_the_matrix(tmp_path, values):
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
            source, str(tmp_path / "m"), options=TrainOptions(**SIZES),
            samples=write_samples(tmp_path / "kept", study.source, keep=study.keep),
        )  # fmt: skip
    assert not (tmp_path / "m" / "model.json").exists()


def test_train__a_wholly_missing_gene_is_zero(tmp_path, values):
    (tmp_path / "study").mkdir()
    lacking = values.copy()
    lacking[:, 7] = np.nan
    study = Study(tmp_path / "study", lacking)
    run(study, tmp_path / "m")
    assert all(np.isfinite(part).all() for part in weights(tmp_path / "m"))


def test_train__patience_ends_it_and_the_best_epoch_is_kept(tmp_path, study):
    run(study, tmp_path / "m", learning_rate=1.0, epochs=30, patience=2)
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == history.best_epoch + 2 < 30
    run(study, tmp_path / "best", learning_rate=1.0, epochs=history.best_epoch)
    assert same(tmp_path / "m", tmp_path / "best")


def test_train__other_inputs(tmp_path, values, plain):
    (tmp_path / "other").mkdir()
    other = Study(tmp_path / "other", values + 1)
    with pytest.raises(StoreError, match="made from other inputs: source: n was made anew"):
        run(other, plain)


def test_train__without_validation_the_last_epoch_is_kept(tmp_path, values):
    (tmp_path / "study").mkdir()
    split = splits(len(values), n_validation=0)
    study = Study(tmp_path / "study", values, split=split)
    run(study, tmp_path / "m", patience=1)
    history = read_history(tmp_path / "m" / "history.csv")
    assert len(history.epoch) == 3
    assert np.isnan(history.val_loss).all()


def test_train__damaged_weights(tmp_path, study, plain):
    shutil.copytree(plain, tmp_path / "m")
    with (tmp_path / "m" / "weights.npz").open("ab") as file:
        file.write(b"x")
    message = r"weights.npz: expected the weights that model.json .* Use --overwrite to replace it"
    with pytest.raises(StoreError, match=message):
        run(study, tmp_path / "m")
    run(study, tmp_path / "m", overwrite=True)
    assert same(plain, tmp_path / "m")


def test_train__a_loss_that_is_not_finite(tmp_path, study):
    with pytest.raises(DglzarrError, match=r"expected a finite loss, got .* Lower learning_rate"):
        run(study, tmp_path / "m", learning_rate=1e38, activation="relu", epochs=20)
    assert not (tmp_path / "m" / "model.json").exists()


def test_train__a_place_that_cannot_be_written(tmp_path, study):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/m: cannot be created: .*run again"):
        run(study, tmp_path / "file" / "m")


def test_train__what_it_is_made_from_is_known_before_the_first_epoch(tmp_path, study):
    with pytest.raises(Killed):
        run(study, tmp_path / "m", on_progress=killed_after(1))
    begun = json.loads((tmp_path / "m" / "training.json").read_text())
    assert begun["parameters"]["epochs"] == 3
    assert [entry["role"] for entry in begun["inputs"]] == ["source", "samples"]
    assert not list((tmp_path / "m").rglob("*.partial"))
    with pytest.raises(StoreError, match="expected a complete model, got a begun one"):
        store_input(str(tmp_path / "m"))


def history_of(target):
    return read_history(target / "history.csv")


def test_train__begins_at_the_components_of_the_samples_it_is_fitted_on(tmp_path, study, values):
    run(study, tmp_path / "m", **COMPONENTS, epochs=1, learning_rate=1e-30)
    saved, kept = load_model(tmp_path / "m"), values[study.keep & (study.split == TRAIN)]
    z = np.nan_to_num((kept - saved.gene_mean) / saved.gene_std).astype("f4")
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    axes = np.linalg.svd(unit.astype(float), full_matrices=False)[2][:4]  # one series
    np.testing.assert_allclose(predict(saved, z), z @ axes.T @ axes, atol=2e-3)


def test_train__where_training_does_harm_the_components_are_kept(tmp_path, study):
    run(study, tmp_path / "m", **COMPONENTS, learning_rate=1.0, epochs=9, patience=2)
    history = history_of(tmp_path / "m")
    assert history.epoch.tolist() == [0, 1, 2]
    assert history.best_epoch == 0
    assert np.isnan(history.loss[0])
    run(study, tmp_path / "start", **COMPONENTS, learning_rate=1e-30, epochs=1)
    assert same(tmp_path / "m", tmp_path / "start")


def test_train__where_training_helps_its_best_epoch_is_kept(tmp_path, study):
    chosen = {**COMPONENTS, "n_latent": 2, "hidden": 40, "dropout": 0.0}
    run(study, tmp_path / "m", **chosen, learning_rate=1e-3, epochs=9)
    history = history_of(tmp_path / "m")
    assert history.best_epoch > 0
    assert history.val_loss.min() < history.val_loss[0]


@pytest.mark.parametrize("epoch", [1, 2])
def test_train__killed_after_it_began_at_components_goes_on(tmp_path, study, epoch):
    chosen = {**COMPONENTS, "learning_rate": 0.01}
    run(study, tmp_path / "whole", **chosen)
    with pytest.raises(Killed):
        run(study, tmp_path / "m", on_progress=killed_after(epoch), **chosen)
    run(study, tmp_path / "m", **chosen)
    assert same(tmp_path / "whole", tmp_path / "m")


def test_train__holds_training_samples_back_where_none_validate(tmp_path, values):
    (tmp_path / "study").mkdir()
    study = Study(tmp_path / "study", values, split=splits(len(values), n_validation=0))
    run(study, tmp_path / "none")
    assert np.isnan(history_of(tmp_path / "none").val_loss).all()
    run(study, tmp_path / "m", held_back=0.2, patience=2, learning_rate=1.0, epochs=30)
    history = history_of(tmp_path / "m")
    assert np.isfinite(history.val_loss).all()
    assert history.last_epoch == history.best_epoch + 2
    run(study, tmp_path / "start", **COMPONENTS, held_back=0.2, patience=1, learning_rate=9.0)
    run(study, tmp_path / "all", **COMPONENTS, epochs=1, learning_rate=1e-30)
    assert history_of(tmp_path / "start").best_epoch == 0
    for found, expected in zip(weights(tmp_path / "start"), weights(tmp_path / "all"), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_train_options__a_patience_that_never_ends_is_none():
    assert TrainOptions(epochs=5, patience=5).recorded()["patience"] is None
    assert TrainOptions(epochs=5, patience=4).recorded()["patience"] == 4
