"""The one training loop, with a checkpoint after every epoch.

This module owns how a network is fitted and how an interrupted fit goes on. It writes
``last.npz`` and ``best.npz`` in the checkpoint folder and ``history.csv`` beside that folder; it
knows neither stores nor the network's shape.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import fields
from typing import Any, NamedTuple

import keras
import numpy as np

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.models import Device
from dglzarr.models.adam import Adam
from dglzarr.models.batches import Batches
from dglzarr.models.files import HISTORY, History, write_history, write_npz
from dglzarr.storage.buckets import BucketPath
from dglzarr.storage.files import Place, open_filesystem, sweep_partial_files, whole

logger = logging.getLogger(__name__)

LOSS = "mean_absolute_error"

Progress = Callable[[int, int], None]


def on_device(device: Device) -> AbstractContextManager[object]:
    """Return a context in which networks are built and trained on a device.

    Raises
    ------
    ConfigError
        When a GPU is asked for and there is none.
    """
    if device == "gpu" and not keras.distribution.list_devices("gpu"):
        raise ConfigError(
            f"train.device: expected a GPU, got none that {keras.backend.backend()} sees. Install "
            "'dglzarr[gpu]' on a machine that has one, or take 'auto'."
        )
    return nullcontext() if device == "auto" else keras.device(f"{device}:0")


class OnDevice:
    """Batches whose samples all lie in the memory of the present device: no step waits for them.

    They are those of the batches given, bit for bit.
    """

    def __init__(self, batches: Batches) -> None:
        self.n_samples, self.fingerprint = batches.n_samples, batches.fingerprint
        self._batches = batches
        blocks = [keras.ops.convert_to_tensor(block) for block in batches.blocks()]
        self._rows = keras.ops.concatenate(blocks, axis=0)

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Yield the batches ``(batch, gene)`` of one epoch."""
        order, size = self._batches.order(epoch), self._batches.batch_size
        for start in range(0, len(order), size):
            yield keras.ops.take(self._rows, order[start : start + size], axis=0)


def device_in_use() -> str:
    """Return ``"gpu"`` where networks are on one by default, else ``"cpu"``."""
    return "gpu" if keras.distribution.list_devices("gpu") else "cpu"


def fits_on_gpu(*batches: Batches) -> bool:
    """Whether all samples of some batches take at most a quarter of the free memory of a GPU.

    While they come they are there twice, in pieces that the memory's allocator need not join.
    Without a GPU, or without cupy to ask for its memory, they do not fit.
    """
    nbytes = sum(4 * some.n_samples * some.n_genes for some in batches)
    return 4 * nbytes <= _free_gpu_nbytes()


def _free_gpu_nbytes() -> int:
    with suppress(ImportError):  # not installed, or not fit for the machine
        import cupy  # noqa: PLC0415

        if keras.distribution.list_devices("gpu") and cupy.cuda.is_available():
            return int(cupy.cuda.Device(0).mem_info[0])
    return 0


class Schedule(NamedTuple):
    """How long a network is trained, and how fast.

    Attributes
    ----------
    epochs
        How often every training sample is seen, at most.
    learning_rate
        Of Adam; a network that is compiled already keeps its own optimizer.
    patience
        Stop after so many epochs without a lower validation loss.
    judges_start
        Whether the network as it begins may be the best one, by its validation loss.
    """

    epochs: int
    learning_rate: float
    patience: int | None = None
    judges_start: bool = False


def fit(
    model: keras.Model,
    batches: Batches | OnDevice,
    schedule: Schedule,
    *,
    validation: Batches | OnDevice | None = None,
    checkpoint: Place,
    after_epoch: Callable[[keras.Model], None] | None = None,
    on_progress: Progress | None = None,
) -> History:
    """Return the learning curve of a network trained on samples that are their own targets.

    Parameters
    ----------
    model
        The network; it holds the weights of the best epoch afterwards.
    batches, validation
        Training samples, and the samples whose loss chooses the best epoch; without them the last
        epoch is the best.
    schedule
        How long, and how fast. The loss is the mean absolute error plus the network's own
        penalties, unless it is compiled already.
    checkpoint
        Folder of the state after the last and after the best epoch. An interrupted fit goes on
        from there.
    after_epoch
        Called with the network after every epoch, before its checkpoint; what it remembers must be
        in the optimizer's variables.
    on_progress
        Called with the number of epochs done and in all, after each epoch's checkpoint.

    Raises
    ------
    DglzarrError
        When the loss is not finite; the checkpoint of the epoch before stays.
    StoreError
        When the checkpoint belongs to other settings or cannot be read.

    Notes
    -----
    On a CPU with the same number of threads an interrupted fit ends with the weights of an
    undisturbed one, bit for bit; on a GPU sums may differ in their last bits from run to run.
    Needs four times the size of the weights, and the batches.
    """
    epochs, learning_rate, patience, judges_start = schedule
    if patience is not None and (validation is None or patience < 1):
        raise ValueError(
            f"patience: expected at least 1 epoch and validation samples, got {patience!r}."
        )
    if not model.compiled:
        model.compile(optimizer=Adam(learning_rate), loss=LOSS, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    checkpoint.mkdir(parents=True, exist_ok=True)
    sweep_partial_files(*open_filesystem(str(checkpoint)))
    fingerprint = _fingerprint(model, batches, validation, learning_rate)
    history = _restore(model, checkpoint / "last.npz", fingerprint)
    _keep_best(checkpoint, history)  # a run may have been killed before it did
    if judges_start and validation is not None and not len(history.epoch):
        history = _judge_start(model, validation, history)
        _save(model, checkpoint, history, fingerprint)
    while history.last_epoch < epochs and not _is_over(history, patience):
        history = _fit_epoch(model, batches, validation, history)
        if after_epoch is not None:
            after_epoch(model)
        _save(model, checkpoint, history, fingerprint)
        if on_progress is not None:
            on_progress(history.last_epoch, epochs)
    if history.best_epoch != history.last_epoch:
        best = _restore(model, checkpoint / "best.npz", fingerprint)
        if not len(best.epoch) or best.last_epoch != history.best_epoch:
            raise StoreError(
                f"{checkpoint / 'best.npz'}: expected the checkpoint of epoch "
                f"{history.best_epoch}, got {best.last_epoch if len(best.epoch) else 'none'}. "
                "Remove the folder to train anew."
            )
    return history


def _fit_epoch(
    model: keras.Model,
    batches: Batches | OnDevice,
    validation: Batches | OnDevice | None,
    history: History,
) -> History:
    """Return the history, longer by the epoch that this call trains."""
    epoch = history.last_epoch + 1
    start = time.perf_counter()
    loss = _mean_loss(model.train_on_batch, batches.epoch(epoch - 1), f"epoch {epoch}")
    val_loss = math.nan
    if validation is not None:
        val_loss = _mean_loss(model.test_on_batch, validation.epoch(0), f"validation {epoch}")
    seconds = time.perf_counter() - start
    logger.info(
        "epoch %d: loss %.4f, validation %s, %.0f samples/s",
        epoch,
        loss,
        "none" if validation is None else f"{val_loss:.4f}",
        batches.n_samples / seconds,
    )
    return _longer(history, epoch, loss, val_loss, seconds)


def _judge_start(model: keras.Model, validation: Batches | OnDevice, history: History) -> History:
    """Return the history with the loss of the network as it begins: epoch 0."""
    start = time.perf_counter()
    val_loss = _mean_loss(model.test_on_batch, validation.epoch(0), "validation 0")
    logger.info("before training: validation %.4f", val_loss)
    return _longer(history, 0, math.nan, val_loss, time.perf_counter() - start)


def _longer(history: History, *values: float) -> History:
    """Return a history with one more epoch: its number, losses and seconds."""
    curves = (getattr(history, field.name) for field in fields(History))
    return History(*(np.append(curve, value) for curve, value in zip(curves, values, strict=True)))


def _mean_loss(step: Callable[..., dict[str, float]], batches: Iterator[Any], place: str) -> float:
    """Mean loss over samples of one pass, each batch given to one of keras' own steps."""
    total, n_samples = 0.0, 0
    for index, batch in enumerate(batches, start=1):
        values = keras.ops.convert_to_tensor(batch)  # once, though it is input and target
        loss = float(step(values, values, return_dict=True)["loss"])
        if not math.isfinite(loss):
            is_finite = bool(keras.ops.all(keras.ops.isfinite(values)))
            remedy = "Lower learning_rate" if is_finite else "A value of the matrix is not finite"
            raise DglzarrError(
                f"training: expected a finite loss, got {loss!r} in {place}, batch {index}. "
                f"{remedy}; the checkpoint of the epoch before, if any, is kept."
            )
        total += loss * len(batch)
        n_samples += len(batch)
        del batch, values  # before the next is made
    return total / n_samples


def _is_over(history: History, patience: int | None) -> bool:
    """Whether the patience is spent."""
    return patience is not None and history.last_epoch - history.best_epoch >= patience


def _fingerprint(
    model: keras.Model,
    batches: Batches | OnDevice,
    validation: Batches | OnDevice | None,
    learning_rate: float,
) -> str:
    """Digest of all settings that decide what an epoch computes."""
    parts = [
        json.dumps(model.get_config(), sort_keys=True, default=str),
        f"{type(model.optimizer).__module__}.{type(model.optimizer).__qualname__}",
        batches.fingerprint,
        "" if validation is None else validation.fingerprint,
        repr(float(learning_rate)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _state(model: keras.Model) -> list[tuple[str, keras.Variable]]:
    """Weights, seed-generator states and optimiser variables, by name."""
    groups = {"model": model.variables, "optimizer": model.optimizer.variables}
    return [(f"{g}_{i}", variable) for g in groups for i, variable in enumerate(groups[g])]


def _save(model: keras.Model, checkpoint: Place, history: History, fingerprint: str) -> None:
    """Write the learning curve and ``last.npz``, and keep it where it is best."""
    curve = [(f"history_{field.name}", getattr(history, field.name)) for field in fields(History)]
    arrays = [("fingerprint", np.array(fingerprint)), *curve, *_state(model)]
    write_history(checkpoint.with_name(HISTORY), history)
    write_npz(checkpoint / "last.npz", arrays)
    _keep_best(checkpoint, history)


def _keep_best(checkpoint: Place, history: History) -> None:
    """Let ``best.npz`` be ``last.npz`` where the last epoch is the best so far."""
    if len(history.epoch) and history.best_epoch == history.last_epoch:
        _link(checkpoint / "last.npz", checkpoint / "best.npz")


def _link(source: Place, target: Place) -> None:
    """Let `target` be the file `source`, replaced at once; a copy where links are refused."""
    if isinstance(source, BucketPath):
        source.bucket.copy(source.key, BucketPath(str(target)).key)
        return
    with whole(target) as partial:
        try:
            os.link(str(source), partial)
        except OSError:
            shutil.copyfile(str(source), partial)


def _restore(model: keras.Model, path: Place, fingerprint: str) -> History:
    """Return the history at a checkpoint and bring the model to its state; empty without one."""
    if not path.exists():
        return History(*(np.empty(0, dtype) for dtype in (np.int64, *[np.float64] * 3)))
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if str(arrays["fingerprint"]) != fingerprint:
                raise StoreError(
                    f"{path}: expected the checkpoint of this training, got one of other data or "
                    "settings. Remove the folder to train anew, or use the former settings."
                )
            for name, variable in _state(model):
                variable.assign(arrays[name])
            return History(**{f.name: arrays[f"history_{f.name}"] for f in fields(History)})
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise StoreError(
            f"{path}: expected a whole checkpoint, got {error}. Remove the folder to train anew."
        ) from error
