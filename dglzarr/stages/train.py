"""Train: the AutoEncoder on z-scored, kept training samples.

Reads ``normalized.zarr`` and ``samples.zarr``, writes a model folder: weights, configuration, gene
labels, learning curve and, while it runs, a checkpoint after every epoch.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dglzarr.errors import ConfigError, StoreError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.deeplift import ACTIVATIONS
from dglzarr.models import check_installed
from dglzarr.models.batches import Batches, enough_windows
from dglzarr.models.files import MODEL, AutoEncoderConfig, load_model, save_model
from dglzarr.models.quiet import quiet_stderr
from dglzarr.storage.files import store_nbytes
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import NORMALIZED, SAMPLES
from dglzarr.storage.store import State, StoreSummary, open_store, store_input

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dglzarr.models import Device
    from dglzarr.models.batches import Cache
    from dglzarr.storage.tasks import Progress

logger = logging.getLogger(__name__)

BEGUN = "training.json"
FIXED = {
    "input_scale": "z",
    "loss": "mean_absolute_error",
    "optimizer": "adam in one operation, beta_1 0.9, beta_2 0.999, epsilon 1e-7",
    "initializer": "glorot_uniform",
    "fitted_on": "train and keep",
    "best_by": "lowest loss on validation and keep, else the last epoch",
}
"""What is not a setting, but for the record."""


def train(
    source: str,
    target: str,
    *,
    samples: str,
    hidden: int = 500,
    n_latent: int = 100,
    activation: str = "sigmoid",
    output: str = "linear",
    dropout: float = 0.1,
    dropout_position: Literal["hidden", "input"] = "hidden",
    l2: float = 1e-6,
    epochs: int = 100,
    batch_size: int = 128,
    window: int = 10,
    windows_in_memory: int | None = None,
    learning_rate: float = 1e-3,
    patience: int | None = None,
    cache: Cache = "auto",
    device: Device = "auto",
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write the trained AutoEncoder and summarize it.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store (mask and per-gene moments).
    target
        Folder of the model.
    hidden, n_latent, activation, output, dropout, dropout_position, l2
        The network: genes - hidden - latent - hidden - genes, and its regularisation.
    epochs, batch_size, learning_rate, patience
        The training; the weights kept are those of the lowest validation loss, or the last where
        there are no validation samples (``patience`` then has no effect).
    window, windows_in_memory
        Neighbouring samples read together, and about how many such windows are in memory, by
        default twice the batch size and at least 256; those of twice as many are mixed. A stream
        holds about a quarter more, and what of a batch is over that.
    cache
        ``"memory"`` holds the training samples, ``"stream"`` reads them anew each epoch, ``"auto"``
        holds up to 1 GiB of them; but where there is a GPU that has memory for them, both hold them
        there. Validation samples go with them. The batches are the same, bit for bit.
    device
        ``"auto"`` is a GPU where TensorFlow sees one. A GPU multiplies float32 with fewer bits
        (TF32) by default, so its model differs from a CPU's.
    seed
        Of initial weights, dropout and the order of samples.
    overwrite
        Replace a model made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    StoreError
        When another model stands there.
    ConfigError
        When an activation is not known, or a GPU is asked for and there is none.
    DglzarrError
        When the loss is no longer finite.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    started = time.monotonic()
    if windows_in_memory is None:
        windows_in_memory = enough_windows(batch_size)
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    config = AutoEncoderConfig(
        n_genes=ds.sizes["gene"],
        hidden=hidden,
        n_latent=n_latent,
        activation=activation,
        output=output,
        dropout=dropout,
        dropout_position=dropout_position,
        l2=l2,
        seed=seed,
    )
    for name, chosen in {"activation": activation, "output": output}.items():
        if chosen not in ACTIVATIONS:
            raise ConfigError(
                f"train.{name}: expected one of {', '.join(ACTIVATIONS)}, got {chosen!r}."
            )
    inputs = [store_input(source), store_input(samples)]
    parameters = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "window": window,
        "windows_in_memory": windows_in_memory,
        "seed": seed,
        **FIXED,
    }
    made_from = {**asdict(config), **parameters, "inputs": [i["store_id"] for i in inputs]}
    state = _state(target, made_from, overwrite=overwrite)
    if state == "unchanged":
        shutil.rmtree(Path(target) / "checkpoint", ignore_errors=True)  # what a killed run left
        return _summary(target, "unchanged", 0.0)
    mean, std = mask["gene_mean"].values, mask["gene_std"].values
    rows = Rows(source)
    common: dict[str, Any] = {"mean": mean, "std": std, "batch_size": batch_size, "seed": seed}
    common |= {"window": window, "windows_in_memory": windows_in_memory, "cache": cache}
    is_validation = kept_samples(source, samples, "validation")
    batches = Batches(rows, keep=kept_samples(source, samples), **common)
    both = [batches]
    if is_validation.any():
        both.append(Batches(rows, keep=is_validation, share=batches, **common))
    n_train = batches.n_samples
    check_installed("keras", "numba", extra="train")
    with quiet_stderr():
        # they load keras, only to train
        from dglzarr.models.autoencoder import build_autoencoder, dense_layers  # noqa: PLC0415
        from dglzarr.models.train import (  # noqa: PLC0415
            OnDevice,
            device_in_use,
            fit,
            fits_on_gpu,
            on_device,
        )

        with on_device(device):
            model = build_autoencoder(config)
    _begin(target, made_from, state)
    with _written_to(target), on_device(device):
        is_on_gpu = device != "cpu" and cache != "stream" and fits_on_gpu(*both)
        feeds = [OnDevice(some) for some in both] if is_on_gpu else both
        logger.info("training samples are %s", _place(batches, is_on_gpu=is_on_gpu))
        history = fit(
            model,
            feeds[0],
            validation=feeds[1] if is_validation.any() else None,
            epochs=epochs,
            learning_rate=learning_rate,
            patience=patience if is_validation.any() else None,
            checkpoint=Path(target) / "checkpoint",
            on_progress=lambda done, total: (
                on_progress("training samples", done * n_train, total * n_train)
                if on_progress
                else None
            ),
        )
        del batches, both, feeds  # the memory of their samples, before weights are copied
        save_model(
            Path(target),
            dense_layers(model),
            config=asdict(config),
            genes=[str(g) for g in ds["gene"].values],
            gene_mean=mean,
            gene_std=std,
            inputs=inputs,
            parameters={
                **parameters,
                "trained_on": device_in_use() if device == "auto" else device,
            },
        )
        shutil.rmtree(Path(target) / "checkpoint")
    logger.info("%s: %d epochs, best %d", target, len(history.epoch), history.best_epoch)
    return _summary(target, "new", time.monotonic() - started)


def _place(batches: Batches, *, is_on_gpu: bool) -> str:
    """Return where the samples of an epoch come from, in words."""
    if is_on_gpu:
        return "held on the GPU"
    return "held in memory" if batches.is_cached else "read anew each epoch"


def _state(target: str, made_from: dict[str, Any], *, overwrite: bool) -> State:
    """Return whether a model is to be made, is being made or stands there; nothing is changed.

    Raises
    ------
    StoreError
        When a model of other inputs or parameters is there, and is not to be replaced.
    """
    folder = Path(target)
    found = _found(folder, overwrite=overwrite)
    changed = [k for k in made_from if found.get(k) != made_from[k]] if found else []
    if changed and not overwrite:
        shown = ", ".join(f"{k} {found.get(k)!r} -> {made_from[k]!r}" for k in changed[:5])
        raise StoreError(
            f"{target}: was made with other parameters: {shown}. "
            "Replace it (--overwrite), or use another root."
        )
    if not found or changed:
        return "new"
    return "unchanged" if (folder / MODEL).exists() else "resumed"


def _begin(target: str, made_from: dict[str, Any], state: State) -> None:
    """Make the folder ready for training; what another training left is removed.

    What a training is made from is written before it begins, so that a later call can tell whether
    a checkpoint is its own.
    """
    folder = Path(target)
    with _written_to(target):
        if state == "new" and any((folder / name).exists() for name in (MODEL, BEGUN)):
            (folder / MODEL).unlink(missing_ok=True)
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{BEGUN}.part"
        partial.write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / BEGUN)


def _found(folder: Path, *, overwrite: bool) -> dict[str, Any]:
    """Return what the model or the begun training in a folder is made from, empty without one."""
    if (folder / MODEL).exists():
        try:
            saved = load_model(folder)
        except StoreError:
            if overwrite:
                return {"inputs": None}
            raise
        stores = [i["store_id"] for i in saved.inputs]
        return {**saved.config, **saved.parameters, "inputs": stores}
    begun = folder / BEGUN
    if not begun.exists():
        return {}
    try:
        return dict(json.loads(begun.read_text(encoding="utf-8")))
    except ValueError as error:
        if overwrite:
            return {"inputs": None}
        raise StoreError(f"{begun}: expected JSON, got {error}. Train with --overwrite.") from error


@contextmanager
def _written_to(target: str) -> Iterator[None]:
    """Say which model could not be written."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"{target}: cannot be written: {error}. Free space and run again; "
            "the last whole checkpoint is kept."
        ) from error


def _summary(target: str, state: State, seconds: float) -> StoreSummary:
    saved = load_model(Path(target))
    sizes = {"gene": len(saved.genes), "latent": int(saved.layers[1][0].shape[1])}
    details = {"model_id": saved.model_id}
    logger.info("model %s %s: %s in %.1f s", saved.model_id, state, sizes, seconds)
    return StoreSummary(target, "model", state, sizes, seconds, store_nbytes(target), details)
