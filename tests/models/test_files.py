import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import keras
import numpy as np
import pytest

from dglzarr.errors import SchemaError, StoreError
from dglzarr.models.files import (
    History,
    description_sha256,
    encoder_layers,
    load_model,
    predict,
    read_history,
    save_model,
    write_history,
    write_npz,
)

GENES = ["A", "B", "C"]
WIDTHS = [3, 4, 2, 4, 3]


@pytest.fixture
def layers():
    rng = np.random.default_rng(0)
    names = ["sigmoid", "sigmoid", "sigmoid", "linear"]
    return [
        (rng.normal(size=(n_in, n_out)).astype("f4"), rng.normal(size=n_out).astype("f4"), name)
        for n_in, n_out, name in zip(WIDTHS, WIDTHS[1:], names, strict=False)
    ]


def save(path, layers, **changes):
    described = {
        "config": {"n_genes": 3, "seed": 1},
        "genes": GENES,
        "gene_mean": np.array([7.0, 8, 9]),
        "gene_std": np.array([1.0, 2, 3]),
        "inputs": [{"uri": "normalized.zarr", "store_id": "n1"}],
        "parameters": {"epochs": 3},
    }
    return save_model(path, layers, **(described | changes))


def edit(path, **changes):
    description = json.loads((path / "model.json").read_text())
    changed = description | changes
    changed["sha256"] = description_sha256(changed)
    (path / "model.json").write_text(json.dumps(changed))


def test_load_model__gives_back_what_was_saved(tmp_path, layers):
    model_id = save(tmp_path / "m", layers)
    saved = load_model(tmp_path / "m", genes=GENES)
    assert saved.model_id == model_id
    assert saved.config == {"n_genes": 3, "seed": 1}
    assert saved.genes == GENES
    assert saved.inputs == [{"uri": "normalized.zarr", "store_id": "n1"}]
    assert saved.parameters == {"epochs": 3}
    assert saved.gene_mean.tolist() == [7, 8, 9]
    assert saved.gene_std.tolist() == [1, 2, 3]
    for (kernel, bias, name), (kernel_0, bias_0, name_0) in zip(saved.layers, layers, strict=True):
        assert kernel.dtype == bias.dtype == np.float32
        np.testing.assert_array_equal(kernel, kernel_0)
        np.testing.assert_array_equal(bias, bias_0)
        assert name == name_0


def test_encoder_layers__end_at_the_latent_layer(tmp_path, layers):
    save(tmp_path, layers)
    encoder = encoder_layers(load_model(tmp_path))
    assert [kernel.shape for kernel, _, _ in encoder] == [(3, 4), (4, 2)]


def test_predict__is_the_forward_pass(tmp_path, layers):
    save(tmp_path, layers)
    samples = np.random.default_rng(1).normal(size=(5, 3)).astype("f4")
    values = samples
    for kernel, bias, name in layers:
        values = values @ kernel + bias
        values = 1 / (1 + np.exp(-values)) if name == "sigmoid" else values
    found = predict(load_model(tmp_path), samples)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)


def test_save_model__id_is_twelve_hexadecimal_digits_and_repeats(tmp_path, layers):
    first, second = (save(tmp_path / name, layers) for name in "ab")
    assert first == second
    assert len(first) == 12
    int(first, 16)
    files = [(tmp_path / name / "weights.npz").read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "change",
    [{"config": {"n_genes": 3, "seed": 2}}, {"gene_mean": np.array([7.0, 8, 9.5])}],
    ids=["config", "mean"],
)
def test_save_model__id_follows_weights_and_config(tmp_path, layers, change):
    assert save(tmp_path / "a", layers) != save(tmp_path / "b", layers, **change)


def test_save_model__replaces_a_model(tmp_path, layers):
    save(tmp_path, layers)
    doubled = [(2 * kernel, bias, name) for kernel, bias, name in layers]
    model_id = save(tmp_path, doubled)
    saved = load_model(tmp_path)
    assert saved.model_id == model_id
    np.testing.assert_array_equal(saved.layers[0][0], doubled[0][0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "weights.npz"]


def test_save_model__interrupted_leaves_no_complete_model(tmp_path, layers):
    save(tmp_path, layers)
    with pytest.raises(TypeError):
        save(tmp_path, layers, parameters={"epochs": object()})
    with pytest.raises(StoreError, match=r"got no model\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda layers: layers[1:], id="first-layer-missing"),
        pytest.param(lambda layers: [layers[0], layers[0]], id="not-chained"),
        pytest.param(lambda layers: [(layers[0][0], np.zeros(3), "linear")], id="bias"),
    ],
)
def test_save_model__refuses_layers_that_do_not_chain(tmp_path, layers, spoil):
    with pytest.raises(ValueError, match=r"layer \d: expected a kernel of \d inputs"):
        save(tmp_path, spoil(layers))


def test_load_model__refuses_an_empty_folder(tmp_path):
    with pytest.raises(StoreError, match=r"expected a complete model, got no model\.json"):
        load_model(tmp_path)


def test_load_model__refuses_changed_weights(tmp_path, layers):
    save(tmp_path, layers)
    content = bytearray((tmp_path / "weights.npz").read_bytes())
    content[200] ^= 1
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(StoreError, match=r"weights\.npz: expected the weights that model\.json"):
        load_model(tmp_path)


def test_load_model__refuses_missing_weights(tmp_path, layers):
    save(tmp_path, layers)
    (tmp_path / "weights.npz").unlink()
    with pytest.raises(StoreError, match="missing or changed"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        pytest.param(["A", "C", "B"], "expected gene 1 to be 'B', got 'C'", id="order"),
        pytest.param(["A", "B", "X"], "expected gene 2 to be 'C', got 'X'", id="label"),
        pytest.param(["A", "B"], "expected the 3 genes .* got 2", id="fewer"),
    ],
)
def test_load_model__refuses_other_genes(tmp_path, layers, genes, message):
    save(tmp_path, layers)
    with pytest.raises(SchemaError, match=message):
        load_model(tmp_path, genes=genes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("{", "expected JSON", id="truncated"),
        pytest.param("[]", "expected a model of format_version 2, got None", id="list"),
        pytest.param('{"format_version": 2}', "expected a model", id="keys-missing"),
    ],
)
def test_load_model__refuses_a_foreign_description(tmp_path, layers, text, message):
    save(tmp_path, layers)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        load_model(tmp_path)


def test_load_model__refuses_a_later_format(tmp_path, layers):
    save(tmp_path, layers)
    edit(tmp_path, format_version=3)
    with pytest.raises(StoreError, match="format_version 2, got 3"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"activations": ["tanh", "sigmoid", "sigmoid", "linear"]},
        {"activations": 5},
        {"n_encoder_layers": 0},
        {"n_encoder_layers": 1},
        {"config": {"n_genes": 3, "seed": 2}},
        {"genes": None},
        {"keras": "no JSON"},
        {"inputs": []},
    ],
    ids=repr,
)
def test_load_model__refuses_a_changed_description(tmp_path, layers, changes):
    save(tmp_path, layers)
    description = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(description))  # in other words, but the same
    load_model(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(description | changes))
    with pytest.raises(
        StoreError, match=r"model\.json: expected it as it was saved, got a changed"
    ):
        load_model(tmp_path)


def test_save_model__refuses_an_unknown_activation(tmp_path, layers):
    spoilt = [*layers[:3], (*layers[3][:2], "gelu")]
    with pytest.raises(ValueError, match=r"layer 3: expected an activation of .*tanh, got 'gelu'"):
        save(tmp_path, spoilt)
    assert not (tmp_path / "model.json").exists()


def test_save_model__an_encoder_alone(tmp_path, layers):
    save(tmp_path, layers[:3])
    assert len(encoder_layers(load_model(tmp_path))) == 3


def test_load_model__never_unpickles(tmp_path, layers):
    save(tmp_path, layers)
    np.savez(tmp_path / "weights.npz", kernel_0=np.array([print], dtype=object))
    digest = hashlib.sha256((tmp_path / "weights.npz").read_bytes()).hexdigest()
    edit(tmp_path, weights_sha256=digest)
    with pytest.raises(StoreError, match="allow_pickle=False"):
        load_model(tmp_path)


def test_files__loads_without_keras():
    code = "import sys, dglzarr.models.files; assert not {'keras', 'tensorflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_write_npz__keeps_the_old_file_when_it_fails(tmp_path):
    def failing():
        yield "a", np.ones(3)
        raise OSError("disk full")

    path = tmp_path / "x.npz"
    write_npz(path, [("a", np.zeros(3))])
    with pytest.raises(OSError, match="disk full"):
        write_npz(path, failing())
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["a"].tolist() == [0, 0, 0]


def test_write_npz__part_by_part_as_numpy_does(tmp_path, monkeypatch, rng):
    monkeypatch.setattr("dglzarr.models.files._PART_NBYTES", 40)
    values = rng.normal(size=(11, 3))
    arrays = {
        "single": values.astype(np.float32),
        "by column": np.asfortranarray(values),
        "wider than a part": values.reshape(3, 11),
        "vector": np.arange(7),
        "number": np.array(3),
        "text": np.array("ab"),
        "empty": np.empty((0, 3)),
        "no columns": np.empty((3, 0)),
    }
    variable = keras.Variable(values.astype(np.float32))
    write_npz(tmp_path / "x.npz", [*arrays.items(), ("variable", variable)])
    with np.load(tmp_path / "x.npz", allow_pickle=False) as found:
        assert list(found) == [*arrays, "variable"]
        for name, expected in arrays.items():
            assert found[name].dtype == expected.dtype
            np.testing.assert_array_equal(found[name], expected, strict=True)
        np.testing.assert_array_equal(found["variable"], arrays["single"], strict=True)


def history(val_loss):
    n_epochs = len(val_loss)
    loss = np.linspace(1, 1 / 3, n_epochs)
    return History(np.arange(1, n_epochs + 1), loss, np.array(val_loss, float), loss)


def test_write_history__is_read_back_exactly(tmp_path):
    curve = history([0.1, np.nan, 1 / 3])
    write_history(tmp_path / "history.csv", curve)
    found = read_history(tmp_path / "history.csv")
    assert found.epoch.tolist() == [1, 2, 3]
    for name in ("loss", "val_loss", "seconds"):
        np.testing.assert_array_equal(getattr(found, name), getattr(curve, name))
    assert (
        (tmp_path / "history.csv").read_text().startswith("epoch,loss,val_loss,seconds\n1,1.0,0.1,")
    )


@pytest.mark.parametrize(
    ("val_loss", "expected"),
    [([3, 1, 2], 2), ([2, 1, 1], 2), ([np.nan] * 3, 3), ([], 0)],
    ids=["lowest", "first-of-equal", "no-validation", "no-epoch"],
)
def test_best_epoch__of(val_loss, expected):
    assert history(val_loss).best_epoch == expected


def test_history__cannot_be_changed():
    with pytest.raises(AttributeError):
        history([1.0]).loss = None
    assert replace(history([1.0]), loss=np.zeros(1)).loss.tolist() == [0]
