"""DeepLIFT by ``shap.DeepExplainer``, for Keras networks that are no stack of dense layers.

shap swaps entries of TensorFlow's gradient registry and breaks under threads, so it runs in a
process of its own with one thread: ``python -m dglzarr.models.explainer FOLDER``. Arrays go in and
out as ``.npz`` files of that folder, which lasts as long as the call. The process takes seconds to
start, so it is asked for many samples at once.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dglzarr.errors import DglzarrError
from dglzarr.kernels.deeplift import AggregatedContributions, Aggregation, aggregate_given
from dglzarr.kernels.slices import iter_slices
from dglzarr.models.files import encoder_layers, load_model, write_npz
from dglzarr.models.quiet import loading_keras
from dglzarr.storage.files import place_of

_ONE_THREAD = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
)  # fmt: skip


def count_units(model: str) -> int:
    """Return the number of units that a Keras network ends in.

    Parameters
    ----------
    model
        Folder of the model.

    Raises
    ------
    DglzarrError
        When Keras cannot build it, or it does not end in one row of units.
    """
    return int(_ask({"model": np.array(model)})["n_units"])


def explain_with_shap(
    model: str,
    samples: NDArray[np.float32],
    references: NDArray[np.float32],
    *,
    layer: str,
    aggregation: Aggregation,
    latent_weight: NDArray[np.float64] | None,
    counts: NDArray[np.bool_],
) -> AggregatedContributions:
    """Return aggregated contributions as the closed form does, by shap, of any Keras network.

    Parameters
    ----------
    model
        Folder of the model.
    samples, references
        Standardised, ``(sample, gene)`` and ``(reference, gene)``.
    layer, aggregation, latent_weight, counts
        As in `dglzarr.kernels.deeplift.aggregate_contributions`.

    Raises
    ------
    DglzarrError
        When shap is not installed or does not support a layer.
    """
    found = _ask(
        {
            "model": np.array(model),
            "layer": np.array(layer),
            "aggregation": np.array(aggregation),
            "samples": samples,
            "references": references,
            "weight": np.zeros(0) if latent_weight is None else latent_weight,
            "counts": counts,
        }
    )
    return AggregatedContributions(
        found["contribution"], found["gene_total"], found["latent_total"], found["delta_error"]
    )


def _ask(asked: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what the process answers."""
    with tempfile.TemporaryDirectory() as folder:
        write_npz(Path(folder, "asked.npz"), asked.items())
        done = subprocess.run(  # noqa: S603  (this module, by this Python)
            [sys.executable, "-m", "dglzarr.models.explainer", folder],
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise DglzarrError(
                f"{asked['model']}: expected shap.DeepExplainer to explain it, got: {reason}. "
                "Install 'dglzarr[oracle]', or use layers that shap supports."
            )
        with np.load(Path(folder, "found.npz"), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _answer(folder: Path) -> None:
    """Answer what ``asked.npz`` asks in ``found.npz``."""
    with np.load(folder / "asked.npz", allow_pickle=False) as arrays:
        asked: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    model = _build(str(asked["model"]), is_linear=str(asked.get("layer")) == "pre-activation")
    shapes = [output.shape for output in model.outputs]
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"expected one output (sample, unit), got shapes {shapes}")
    found = _explain(model, asked) if "samples" in asked else {"n_units": np.array(shapes[0][1])}
    write_npz(folder / "found.npz", found.items())


def _explain(model: Any, asked: dict[str, Any]) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    """Return aggregated contributions by name."""
    samples, references, counts = asked["samples"], asked["references"], asked["counts"]
    import shap  # noqa: PLC0415

    explainer = shap.DeepExplainer((model.inputs, model.outputs[0]), references)
    at_reference = np.asarray(model(references)).mean(axis=0)
    parts = []
    n_latent = at_reference.shape[0]
    for rows in iter_slices(len(samples), 4 * samples.shape[1] * n_latent, limit_nbytes=2**26):
        values = np.asarray(explainer.shap_values(samples[rows], check_additivity=False))
        parts.append(
            aggregate_given(
                values,
                np.asarray(model(samples[rows])) - at_reference,
                aggregation=str(asked["aggregation"]),  # type: ignore[arg-type]
                latent_weight=asked["weight"] if asked["weight"].size else None,
                counts=counts[rows],
            )
        )
    return {
        "contribution": np.concatenate([part.contribution for part in parts]),
        "delta_error": np.concatenate([part.delta_error for part in parts]),
        "gene_total": np.sum([part.gene_total for part in parts], axis=0),
        "latent_total": np.sum([part.latent_total for part in parts], axis=0),
    }


def _build(path: str, *, is_linear: bool) -> Any:  # noqa: ANN401
    """Return the Keras network from the genes to the explained units."""
    with loading_keras():
        import keras  # noqa: PLC0415

        keras.ops.zeros(1)  # finds the devices, and says so

    saved = load_model(place_of(path))
    if saved.keras:
        model = keras.models.model_from_json(saved.keras)
        weights = list(saved.weights)
    else:
        inputs = tensor = keras.Input((len(saved.genes),))
        for _, bias, activation in encoder_layers(saved):
            tensor = keras.layers.Dense(len(bias), activation=activation)(tensor)
        model = keras.Model(inputs, tensor)
        weights = [part for layer in encoder_layers(saved) for part in layer[:2]]
    model.set_weights(weights)
    if is_linear:
        model.layers[-1].activation = keras.activations.linear
    return model


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _answer(Path(sys.argv[1]))
