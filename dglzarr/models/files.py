"""A trained network on disk: ``weights.npz``, ``model.json`` and the learning curve.

This module owns the files of ``models/<id>/`` and knows no keras: a network is a sequence of dense
layers ``(kernel (in, out), bias (out,), activation name)``, so that workers that only apply it load
numpy alone. No pickle and no ``.keras`` file is ever read. ``model.json`` is written last: a folder
without it is not a model.
"""

import csv
import hashlib
import json
import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import SchemaError, StoreError
from dglzarr.kernels.deeplift import ACTIVATIONS, forward
from dglzarr.kernels.slices import iter_slices
from dglzarr.storage import schemas
from dglzarr.storage.files import Place, file_sha256, place_of, put, whole

Layer = tuple[NDArray[np.float32], NDArray[np.float32], str]

WEIGHTS = "weights.npz"
MODEL = schemas.MODEL_FILE
CHECKPOINT = "checkpoint"
HISTORY = "history.csv"
BESIDE = (HISTORY, schemas.BEGUN_FILE)
"""What training wrote beside a model: ``model.json`` names their digests too."""
FORMAT_VERSION = schemas.MODEL.version

_DENSE = {"InputLayer", "Dense", "Dropout"}
_KEPT = ("config", "genes", "model_id", "n_encoder_layers", "inputs", "parameters")
"""What ``model.json`` tells of a network as a `SavedModel` does."""
_TOLD = {*_KEPT, "format_version", "sha256", "weights_sha256", "activations"}
_PART_NBYTES = 2**22  # of an array that is written
_SLICE_NBYTES = 2**25  # of samples that go through a network together


@dataclass(frozen=True)
class History:
    """The learning curve: one value an epoch in each array.

    Attributes
    ----------
    epoch
        1, 2, 3 ...; before them 0, the network as it began, where that was judged too.
    loss
        Training loss, dropout on, the penalty on the weights included; NaN of epoch 0.
    val_loss
        Loss on the validation samples, dropout off; NaN where there are none.
    seconds
        Wall time of the epoch, without its checkpoint.
    """

    epoch: NDArray[np.int64]
    loss: NDArray[np.float64]
    val_loss: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def last_epoch(self) -> int:
        """The number of epochs of training."""
        return int(self.epoch.max(initial=0))

    @property
    def best_epoch(self) -> int:
        """The first epoch of lowest validation loss; the last epoch without validation."""
        if np.isnan(self.val_loss).all():
            return self.last_epoch
        return int(self.epoch[np.nanargmin(self.val_loss)])


@dataclass(frozen=True)
class SavedModel:
    """A network as it lies on disk.

    Attributes
    ----------
    config
        The settings it was built from.
    genes
        Label of each input, in order.
    gene_mean, gene_std
        What standardises an input, ``(gene,)``.
    layers
        ``(kernel (in, out), bias (out,), activation name)``, from input to output.
    model_id
        12 hexadecimal digits that name weights and config.
    n_encoder_layers
        How many of the first layers lead to the latent layer.
    inputs, parameters
        Lineage: the stores it was fitted on and the settings of the fit.
    keras
        Of a network that is no stack of dense layers, Keras' own description of the part from the
        genes to the latent units, as JSON; `layers` is empty then.
    weights
        The weights of that part, in Keras' order.
    """

    config: dict[str, object]
    genes: list[str]
    gene_mean: NDArray[np.float64]
    gene_std: NDArray[np.float64]
    layers: list[Layer]
    model_id: str
    n_encoder_layers: int
    inputs: list[dict[str, str]]
    parameters: dict[str, object]
    keras: str = ""
    weights: tuple[NDArray[np.float32], ...] = ()


def save_model(
    path: Place,
    layers: Sequence[Layer],
    *,
    config: Mapping[str, object],
    genes: Sequence[str],
    gene_mean: NDArray[np.float64],
    gene_std: NDArray[np.float64],
    inputs: Sequence[Mapping[str, str]],
    parameters: Mapping[str, object],
) -> str:
    """Return the id of the model written to folder `path`.

    Parameters
    ----------
    path
        The model's folder; made if absent, a model in it is replaced.
    layers
        ``(kernel (in, out), bias (out,), activation name)``, from input to output. The first half
        of those of an AutoEncoder, which gives back a value a gene, leads to the latent units;
        another network is an encoder alone.
    config
        The settings the network was built from.
    genes, gene_mean, gene_std
        Label, mean and standard deviation of each input.
    inputs
        The stores it was fitted on: ``uri`` and ``store_id`` of each.
    parameters
        The settings of the fit, for the record.

    Raises
    ------
    ValueError
        When the layers do not chain, do not begin with one input a gene, or have an activation
        that is not known.
    """
    _check_layers(layers, n_genes=len(genes))
    is_autoencoder = len(layers) > 1 and len(layers[-1][1]) == len(genes)
    arrays: dict[str, NDArray[np.floating]] = {"gene_mean": gene_mean, "gene_std": gene_std}
    for index, (kernel, bias, _) in enumerate(layers):
        arrays |= {f"kernel_{index}": kernel, f"bias_{index}": bias}
    description: dict[str, object] = {
        "config": dict(config),
        "activations": [activation for _, _, activation in layers],
        "n_encoder_layers": len(layers) // 2 if is_autoencoder else len(layers),
        "inputs": [dict(store) for store in inputs],
        "parameters": dict(parameters),
        "genes": list(genes),
    }
    return _write_model(path, arrays, description)


def save_keras_encoder(
    path: Place,
    keras: str,
    weights: Sequence[NDArray[np.float32]],
    *,
    genes: Sequence[str],
    gene_mean: NDArray[np.float64],
    gene_std: NDArray[np.float64],
    inputs: Sequence[Mapping[str, str]] = (),
    parameters: Mapping[str, object] | None = None,
) -> str:
    """Return the id of a Keras network of any layers, written to folder `path` to be scored.

    Parameters
    ----------
    path
        The model's folder; made if absent, a model in it is replaced.
    keras, weights
        ``model.to_json()`` and ``model.get_weights()`` of the part from the genes to the units
        whose contributions are wanted.
    genes, gene_mean, gene_std
        Label, mean and standard deviation of each input.
    inputs, parameters
        Lineage, as in `save_model`.
    """
    arrays: dict[str, NDArray[np.floating]] = {"gene_mean": gene_mean, "gene_std": gene_std}
    arrays |= {f"weight_{index}": weight for index, weight in enumerate(weights)}
    description: dict[str, object] = {
        "config": {"n_genes": len(genes), "keras": hashlib.sha256(keras.encode()).hexdigest()},
        "activations": [],
        "n_encoder_layers": 0,
        "inputs": [dict(store) for store in inputs],
        "parameters": dict(parameters or {}),
        "genes": list(genes),
        "keras": keras,
    }
    return _write_model(path, arrays, description)


def _write_model(
    path: Place, arrays: Mapping[str, NDArray[np.floating]], described: Mapping[str, object]
) -> str:
    """Return the id of the model whose weights and description are written, the latter last."""
    (path / MODEL).unlink(missing_ok=True)
    write_npz(path / WEIGHTS, arrays.items())
    digest = file_sha256(str(path / WEIGHTS))
    model_id = _model_id(digest, cast("Mapping[str, object]", described["config"]))
    description = {
        "format_version": FORMAT_VERSION,
        "model_id": model_id,
        "weights_sha256": digest,
        "files_sha256": {
            name: file_sha256(str(path / name)) for name in BESIDE if (path / name).is_file()
        },
        **described,
    }
    description["sha256"] = description_sha256(description)
    put(path / MODEL, f"{json.dumps(description, indent=1)}\n".encode())
    return model_id


def load_model(path: Place, *, genes: Sequence[str] | None = None) -> SavedModel:
    """Return the model saved in folder `path`, all of it checked against its digests.

    Parameters
    ----------
    path
        The model's folder.
    genes
        The labels of the data it is meant for; they must be the model's, in its order.

    Raises
    ------
    StoreError
        When the folder holds no complete model, or one that was changed since it was saved.
    SchemaError
        When `genes` differ from the model's labels.
    """
    description = _read_description(path)
    if genes is not None:
        _check_genes(path, expected=description["genes"], found=list(genes))
    weights = path / WEIGHTS
    if not weights.is_file() or file_sha256(str(weights)) != description["weights_sha256"]:
        raise StoreError(
            f"{weights}: expected the weights that {MODEL} names, got a missing or changed file. "
            "Train the model again."
        )
    try:
        with weights.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            layers = [
                (arrays[f"kernel_{index}"], arrays[f"bias_{index}"], activation)
                for index, activation in enumerate(description["activations"])
            ]
            gene_mean, gene_std = arrays["gene_mean"], arrays["gene_std"]
            n_weights = sum(name.startswith("weight_") for name in arrays.files)
            keras_weights = tuple(arrays[f"weight_{index}"] for index in range(n_weights))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise StoreError(
            f"{weights}: expected the arrays of a model, got {error}. Train the model again."
        ) from error
    return SavedModel(
        **{name: description[name] for name in _KEPT},
        gene_mean=gene_mean,
        gene_std=gene_std,
        layers=layers,
        keras=description.get("keras", ""),
        weights=keras_weights,
    )


def compared_files(path: Place) -> dict[str, bool]:
    """Return whether each file that ``model.json`` names beside the weights is as it was.

    An older model names none.

    Raises
    ------
    StoreError
        When the folder holds no complete model.
    """
    named = _read_description(path).get("files_sha256", {})
    return {
        name: (path / name).is_file() and file_sha256(str(path / name)) == digest
        for name, digest in named.items()
    }


@lru_cache(maxsize=2)
def load_model_once(path: str, model_id: str) -> SavedModel:
    """Return the model saved in folder `path`, kept for the next call in this process.

    Raises
    ------
    StoreError
        When the folder holds another model by now, or as `load_model`.
    """
    saved = load_model(place_of(path))
    if saved.model_id != model_id:
        raise StoreError(f"{path}: expected model {model_id}, got {saved.model_id}. Run again.")
    return saved


def encoder_layers(saved: SavedModel) -> list[Layer]:
    """Return the layers from the input to the latent layer.

    Raises
    ------
    SchemaError
        When the network is no stack of dense layers.
    """
    if saved.keras:
        raise SchemaError(
            f"model {saved.model_id}: expected a stack of Dense layers saved with save_model, got "
            f"a Keras network with {_beyond_dense(saved)}. It can be scored, with score.engine = "
            '"shap", but not be encoded or grouped.'
        )
    return saved.layers[: saved.n_encoder_layers]


def _beyond_dense(saved: SavedModel) -> str:
    """Say what of a Keras network the closed form does not take."""
    layers = json.loads(saved.keras)["config"].get("layers", [])
    found = set()
    for layer in layers:
        kind, activation = layer.get("class_name"), layer.get("config", {}).get("activation")
        if kind not in _DENSE:
            found.add(str(kind))
        elif kind == "Dense" and activation not in ACTIVATIONS:
            found.add(f"Dense of activation {activation}")
    return f"layers of type {', '.join(sorted(found))}" if found else "Dense layers alone"


def check_pre_activation(saved: SavedModel) -> None:
    """Refuse a network whose last layer is all activation: there is none to leave out.

    Raises
    ------
    SchemaError
        Naming the layer.
    """
    if not saved.keras:
        return
    last = json.loads(saved.keras)["config"]["layers"][-1]
    if "activation" not in last["config"]:
        raise SchemaError(
            f'model {saved.model_id}: score.layer = "pre-activation" expects a last layer with an '
            f"activation of its own, got {last['class_name']}. Save the network without it, or set "
            'score.layer = "latent".'
        )


def predict(saved: SavedModel, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the reconstruction of standardised samples, ``(sample, gene)``.

    Parameters
    ----------
    saved
        The model.
    samples
        Standardised by the model's own mean and std, missing values 0, ``(sample, gene)``.
    """
    out = np.empty((len(samples), len(saved.layers[-1][1])), np.float32)
    for rows in iter_slices(len(samples), 4 * out.shape[1], limit_nbytes=_SLICE_NBYTES):
        _, out[rows] = forward(saved.layers, samples[rows])[-1]
    return out


def write_history(path: Place, history: History) -> None:
    """Write the learning curve as comma-separated text, whole or not at all."""
    with whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", "loss", "val_loss", "seconds"])
        columns = (history.epoch, history.loss, history.val_loss, history.seconds)
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))


def read_history(path: Place) -> History:
    """Return the learning curve that `write_history` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    table = np.loadtxt(lines, delimiter=",", skiprows=1, ndmin=2).reshape(-1, 4)
    epoch, loss, val_loss, seconds = table.T
    return History(epoch.astype(np.int64), loss, val_loss, seconds)


def write_npz(path: Place, arrays: Iterable[tuple[str, Any]]) -> None:
    """Write arrays, or variables of keras, one at a time as an ``.npz`` file, whole or not at all.

    Notes
    -----
    Equal arrays give equal bytes: the members carry no date. Of what is no array of numpy's a few
    megabytes are copied at a time.
    """
    with whole(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays:
            shape, dtype = tuple(array.shape), np.dtype(array.dtype)
            descr = np.lib.format.dtype_to_descr(dtype)
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            row_nbytes = dtype.itemsize * math.prod(shape[1:])
            parts = iter_slices(shape[0], row_nbytes, limit_nbytes=_PART_NBYTES) if shape else [()]
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                for part in parts:
                    values = np.ascontiguousarray(array[part])
                    member.write(values.reshape(-1).view(np.uint8).data)


def _check_layers(layers: Sequence[Layer], *, n_genes: int) -> None:
    """Raise ValueError unless each layer takes what the one before gives."""
    width = n_genes
    for index, (kernel, bias, activation) in enumerate(layers):
        if kernel.ndim != 2 or kernel.shape[0] != width or bias.shape != kernel.shape[1:]:
            raise ValueError(
                f"layer {index}: expected a kernel of {width} inputs and a bias a unit, "
                f"got shapes {kernel.shape} and {bias.shape}."
            )
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"layer {index}: expected an activation of {', '.join(ACTIVATIONS)}, "
                f"got {activation!r}."
            )
        width = kernel.shape[1]


def _check_genes(path: Place, *, expected: list[str], found: list[str]) -> None:
    """Raise SchemaError at the first label that differs."""
    if found == expected:
        return
    if len(found) != len(expected):
        raise SchemaError(
            f"{path}: expected the {len(expected)} genes the model was fitted on, "
            f"got {len(found)}. Use the store it was fitted on, or train again."
        )
    place = next(
        i for i, pair in enumerate(zip(expected, found, strict=True)) if len(set(pair)) > 1
    )
    raise SchemaError(
        f"{path}: expected gene {place} to be {expected[place]!r}, got {found[place]!r}. "
        "Use the store it was fitted on, or train again."
    )


def _read_description(path: Place) -> dict[str, Any]:
    """Return what ``model.json`` says, or raise StoreError."""
    try:
        description = json.loads((path / MODEL).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StoreError(
            f"{path}: expected a complete model, got no {MODEL}. Train the model again."
        ) from error
    except ValueError as error:
        raise StoreError(
            f"{path / MODEL}: expected JSON, got {error}. Train the model again."
        ) from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION or not set(description) >= _TOLD:
        raise StoreError(
            f"{path / MODEL}: expected a model of format_version {FORMAT_VERSION}, "
            f"got {version!r}. Use the dglzarr that wrote it, or train the model again."
        )
    if description["sha256"] != description_sha256(description):
        raise StoreError(
            f"{path / MODEL}: expected it as it was saved, got a changed file. "
            "Train the model again."
        )
    return dict(description)


def description_sha256(description: Mapping[str, object]) -> str:
    """Return the digest of all that ``model.json`` says but the digest itself."""
    rest = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _model_id(weights_sha256: str, config: Mapping[str, object]) -> str:
    """Twelve digits that name weights and config."""
    text = weights_sha256 + json.dumps(dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
