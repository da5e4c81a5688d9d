"""Train under other settings: batch size, threads, compiled steps, bfloat16, steps a call.

    python benchmarks/train_settings.py --scratch /tmp --repeats 3 --only "as it is" "keras fit"

Prints a row for each: samples/s of the epochs after the first, beside the first row's, and the loss
of the validation samples after each epoch. Repeats take turns and have seeds of their own; rates
and ratios are medians, losses means, with the range of the last, and its largest distance from the
first row's under the same seed. Settings that change no batch see the same batches in the same
order, the Keras rows too: their array is laid out so before each epoch, which is not timed. Calling
fit for each epoch costs them about 0.2 s an epoch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_train import BATCH_SIZE
from common import PAPER, SIZES, Case, write_normalized_and_samples

from dglzarr.models.batches import Batches
from dglzarr.models.options import BatchOptions
from dglzarr.storage.rows import Rows, read_array

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "batches of 64": {"batch_size": 64},
    "batches of 256": {"batch_size": 256},
    "batches of 512": {"batch_size": 512},
    "one thread": {"threads": 1},
    "four threads": {"threads": 4},
    "steps compiled": {"jit_compile": True},
    "steps compiled, batches of 256": {"jit_compile": True, "batch_size": 256},
    "bfloat16 products": {"policy": "mixed_bfloat16"},
    "bfloat16 products, steps compiled": {"policy": "mixed_bfloat16", "jit_compile": True},
    "keras fit": {"steps_per_execution": 1},
    "keras fit, 8 steps a call": {"steps_per_execution": 8},
}
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def train(
    case: Case,
    epochs: int,
    *,
    batch_size: int = BATCH_SIZE,
    jit_compile: bool = False,
    policy: str = "float32",
    steps_per_execution: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Return samples/s after the first epoch, and the validation loss after each."""
    import keras  # noqa: PLC0415  (its threads are set before)

    from dglzarr.models.adam import Adam  # noqa: PLC0415
    from dglzarr.models.autoencoder import build_autoencoder  # noqa: PLC0415
    from dglzarr.models.train import LOSS, Schedule, fit  # noqa: PLC0415

    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(policy)
    moments = {n: read_array(case.path("samples.zarr"), f"gene_{n}") for n in ("mean", "std")}
    split = read_array(case.path("normalized.zarr"), "split")
    rows = Rows(case.path("normalized.zarr"))
    options = BatchOptions(batch_size=batch_size, cache="memory")
    common: dict[str, Any] = {**moments, "options": options, "seed": seed}
    batches, validation = (Batches(rows, keep=split == part, **common) for part in (0, 1))
    model = build_autoencoder(case.n_genes, PAPER, seed=seed)
    if not steps_per_execution:
        model.compile(optimizer=Adam(1e-3), loss=LOSS, jit_compile=jit_compile)
        with tempfile.TemporaryDirectory(dir=case.folder) as folder:
            history = fit(
                model, batches, Schedule(epochs, 1e-3), validation=validation,
                checkpoint=Path(folder),
            )  # fmt: skip
        seconds, losses = float(history.seconds[1:].sum()), history.val_loss.tolist()
    else:
        fitted, validated = (
            np.empty((some.n_samples, case.n_genes), np.float32) for some in (batches, validation)
        )
        np.concatenate(list(validation.epoch(0)), out=validated)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-3), loss=LOSS,
            steps_per_execution=steps_per_execution, jit_compile=jit_compile,
        )  # fmt: skip
        times: list[float] = []
        clock = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda *_: times.append(-time.perf_counter()),
            on_epoch_end=lambda *_: times.append(time.perf_counter()),
        )
        losses = []
        for epoch in range(epochs):
            for index, batch in enumerate(batches.epoch(epoch)):
                fitted[index * batch_size :][: len(batch)] = batch
            found = model.fit(
                fitted, fitted, validation_data=(validated, validated), batch_size=batch_size,
                epochs=1, shuffle=False, callbacks=[clock], verbose=0,
            )  # fmt: skip
            losses += found.history["val_loss"]
        seconds = sum(times[2:])
    rate = batches.n_samples * (epochs - 1) / seconds
    return {"samples_per_s": rate, "val_losses": losses}


def main() -> None:
    """Train once under each of the settings, in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--scratch", help="folder for the data, about 3 x the matrix")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--variant", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.epochs < 2:
        parser.error("--epochs: expected 2 or more: the first builds the graph.")
    if asked.variant:
        name, seed, folder = asked.variant
        options = {k: v for k, v in VARIANTS[name].items() if k != "threads"}
        case = Case(asked.size, *SIZES[asked.size], 2, folder)
        print(json.dumps(train(case, asked.epochs, seed=int(seed), **options)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.only}
    with tempfile.TemporaryDirectory(prefix="bench-", dir=asked.scratch) as folder:
        write_normalized_and_samples(Case(asked.size, *SIZES[asked.size], 2, folder))
        for seed in range(asked.repeats):
            for name in asked.only:
                threads = str(VARIANTS[name].get("threads", 2))
                command = [sys.executable, __file__, "--size", asked.size]
                command += ["--epochs", str(asked.epochs), "--variant", name, str(seed), folder]
                environment = os.environ | dict.fromkeys(THREADS, threads)
                done = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, text=True, env=environment
                )
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    print("| settings | samples/s | over the first | validation loss, by epoch | last | apart |")
    print("| --- | --- | --- | --- | --- | --- |")
    first_runs = found[asked.only[0]]
    for name, runs in found.items():
        rates = [run["samples_per_s"] for run in runs]
        pairs = list(zip(runs, first_runs, strict=True))
        ratio = statistics.median(a["samples_per_s"] / b["samples_per_s"] for a, b in pairs)
        apart = max(abs(a["val_losses"][-1] / b["val_losses"][-1] - 1) for a, b in pairs)
        epochs = zip(*(run["val_losses"] for run in runs), strict=True)
        losses = " ".join(f"{statistics.mean(epoch):.4f}" for epoch in epochs)
        last = [run["val_losses"][-1] for run in runs]
        print(
            f"| {name} | {statistics.median(rates):,.0f} | {ratio:.2f} | {losses} "
            f"| {min(last):.4f} to {max(last):.4f} | {apart:.2%} |"
        )


if __name__ == "__main__":
    main()
