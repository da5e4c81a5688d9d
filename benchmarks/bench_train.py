"""Train beside plain Keras fit on the array in memory, and the loader beside the store's reads."""

from __future__ import annotations

import csv
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import (
    PAPER,
    Bench,
    Case,
    Timed,
    main,
    peak_rss_mb,
    product_seconds,
    reset_peak,
    run_here,
    simulated_matrix,
    write_normalized_and_samples,
)
from threadpoolctl import threadpool_limits

from dglzarr.kernels.moments import standardize
from dglzarr.models.batches import Batches
from dglzarr.models.options import BatchOptions
from dglzarr.stages.train import TrainOptions, train
from dglzarr.storage.options import Run
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import regions

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIDDEN, N_LATENT = 500, 100
BATCH_SIZE = 128
EPOCHS = 3
FEW_WINDOWS = 128


def prepare(case: Case) -> None:
    """Write the stores of all samples, and of a quarter of them."""
    write_normalized_and_samples(case)
    write_normalized_and_samples(a_quarter(case))


def a_quarter(case: Case) -> Case:
    """Return the case of a quarter of the samples."""
    return replace(case, n_samples=case.n_samples // 4, folder=case.path("quarter"))


def with_dglzarr(case: Case, *, batch_size: int = BATCH_SIZE, **options: Any) -> Timed:  # noqa: ANN401
    """Time the stage's epochs after the first, with their validation and checkpoints."""
    quiet_tensorflow(case)
    target = case.path("model")
    shutil.rmtree(target, ignore_errors=True)
    ends: list[float] = []
    before = reset_peak()
    train(
        case.path("normalized.zarr"),
        target,
        samples=case.path("samples.zarr"),
        options=TrainOptions(epochs=EPOCHS, batch_size=batch_size, **options),
        run=Run(on_progress=lambda *_: ends.append(time.perf_counter())),
    )
    timed = later_epochs(case, ends, before)
    with Path(target, "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    epochs = [float(row["seconds"]) for row in rows][1:]
    parts = {"epochs": round(sum(epochs), 3), "checkpoints": round(timed.seconds - sum(epochs), 3)}
    return replace(timed, more={"parts": parts, "val_loss": round(float(rows[-1]["val_loss"]), 4)})


def with_streaming(case: Case) -> Timed:
    """Time the stage, the samples read anew each epoch."""
    return with_dglzarr(case, cache="stream")


def with_few_windows(case: Case) -> Timed:
    """Time the stage, so few windows in memory that at size full a quarter fills it too."""
    return with_dglzarr(case, cache="stream", windows_in_memory=FEW_WINDOWS)


def with_a_quarter(case: Case) -> Timed:
    """Time a quarter of the samples, of which the usual memory holds nearly all."""
    return with_streaming(a_quarter(case))


def with_a_quarter_and_few_windows(case: Case) -> Timed:
    """Time a quarter of the samples, few windows in memory: it should be the same memory."""
    return with_few_windows(a_quarter(case))


def with_one_batch(case: Case) -> Timed:
    """Time Keras fit on one batch, again and again: the memory that no feeding can avoid."""
    quiet_tensorflow(case)
    from dglzarr.models.autoencoder import build_autoencoder, keras  # noqa: PLC0415

    batch = np.random.default_rng(0).standard_normal((BATCH_SIZE, case.n_genes), np.float32)
    model = build_autoencoder(case.n_genes, PAPER, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_absolute_error")
    before = reset_peak()
    model.fit(batch, batch, batch_size=BATCH_SIZE, epochs=1, verbose=0)
    started = time.perf_counter()
    n_steps = 2 if case.size == "tiny" else 16
    model.fit(batch, batch, batch_size=BATCH_SIZE, epochs=n_steps, verbose=0)
    seconds = time.perf_counter() - started
    return Timed(seconds, n_steps * BATCH_SIZE, before, peak_rss_mb())


def with_keras(case: Case) -> Timed:
    """Time the epochs after the first of the same network on an array in memory."""
    quiet_tensorflow(case)
    import keras  # noqa: PLC0415

    from dglzarr.models.autoencoder import build_autoencoder  # noqa: PLC0415

    z, split = standardized(case)
    fitted, validated = z[split == 0], z[split == 1]
    model = build_autoencoder(case.n_genes, PAPER, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mean_absolute_error")
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    before = reset_peak()
    history = model.fit(
        fitted, fitted, validation_data=(validated, validated), batch_size=BATCH_SIZE,
        epochs=EPOCHS, callbacks=[clock], verbose=0,
    )  # fmt: skip
    timed = later_epochs(case, ends, before)
    return replace(timed, more={"val_loss": round(history.history["val_loss"][-1], 4)})


def with_products(case: Case) -> Timed:
    """Time the matrix products of a training step and of its validation, in float32."""
    genes, batch = case.n_genes, BATCH_SIZE
    outer = [(batch, genes, HIDDEN), (genes, batch, HIDDEN)]  # forward and weights of hidden_in
    outer += [(batch, HIDDEN, genes), (HIDDEN, batch, genes), (batch, genes, HIDDEN)]
    inner = 2 * [(batch, HIDDEN, N_LATENT), (HIDDEN, batch, N_LATENT), (batch, N_LATENT, HIDDEN)]
    with threadpool_limits(max(1, case.workers)):
        step = product_seconds(outer + inner)
        check = product_seconds([outer[0], outer[2], inner[0], inner[2]])
    return Timed(step + check / 8, batch)


def with_loader(case: Case, *, is_cold: bool = False) -> Timed:
    """Time one epoch of streamed batches, after a first one."""
    samples = case.path("samples.zarr")
    split = read_array(case.path("normalized.zarr"), "split")
    batches = Batches(
        Rows(case.path("normalized.zarr")),
        keep=split == 0,
        mean=read_array(samples, "gene_mean"),
        std=read_array(samples, "gene_std"),
        options=BatchOptions(batch_size=BATCH_SIZE, cache="stream"),
    )

    def epoch(number: int) -> None:
        for _ in batches.epoch(number):
            pass

    epoch(0)
    if is_cold:
        leave_page_cache(case)
    return run_here(case, lambda: epoch(1), n_samples=batches.n_samples)


def with_cold_loader(case: Case) -> Timed:
    """Time the same, nothing of the store in the page cache."""
    return with_loader(case, is_cold=True)


def with_reads(case: Case, *, is_cold: bool = False) -> Timed:
    """Time one sequential read of the store into the same memory, after a first one."""
    source = case.path("normalized.zarr")
    rows, parts = Rows(source), regions(source)
    memory = np.empty((max(part.stop - part.start for part in parts), case.n_genes), np.float32)

    def read() -> None:
        for part in parts:
            rows.read_into(np.arange(part.start, part.stop), memory)

    read()
    if is_cold:
        leave_page_cache(case)
    return run_here(case, read)


def with_cold_reads(case: Case) -> Timed:
    """Time the same, nothing of the store in the page cache."""
    return with_reads(case, is_cold=True)


def leave_page_cache(case: Case) -> None:
    """Have the system forget what it holds of the matrix."""
    os.sync()
    for path in Path(case.path("normalized.zarr"), "expression", "c").glob("*/*"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def later_epochs(case: Case, ends: list[float], before: float) -> Timed:
    """Return the time of the epochs after the first, which builds the graph."""
    n_train = len(np.flatnonzero(read_array(case.path("normalized.zarr"), "split") == 0))
    seconds = ends[-1] - ends[0]
    return Timed(seconds, n_train * (len(ends) - 1), before, peak_rss_mb())


def standardized(case: Case) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the matrix in z units and the split of its samples."""
    mean, std = (read_array(case.path("samples.zarr"), n) for n in ("gene_mean", "gene_std"))
    z = standardize(simulated_matrix(case.n_samples, case.n_genes), mean, std)
    return z, read_array(case.path("normalized.zarr"), "split")


def quiet_tensorflow(case: Case) -> None:
    """Give TensorFlow as many threads as the case has workers, before it is loaded."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(max(1, case.workers))


PACKAGES = ["keras", "tensorflow"]
BENCHES = [
    Bench(
        "train",
        prepare,
        {
            "dglzarr": with_dglzarr,
            "dglzarr, streamed": with_streaming,
            "dglzarr, streamed, a quarter of the samples": with_a_quarter,
            "dglzarr, streamed, 128 windows": with_few_windows,
            "dglzarr, streamed, 128 windows, a quarter": with_a_quarter_and_few_windows,
            "keras fit, in memory": with_keras,
            "keras fit, one batch repeated": with_one_batch,
            "limit: float32 matrix products": with_products,
        },
        packages=PACKAGES,
    ),
    Bench(
        "train-loader",
        write_normalized_and_samples,
        {"dglzarr": with_loader, "limit: sequential read": with_reads},
    ),
    Bench(
        "train-loader, from the disk",
        write_normalized_and_samples,
        {"dglzarr": with_cold_loader, "limit: sequential read": with_cold_reads},
    ),
]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
