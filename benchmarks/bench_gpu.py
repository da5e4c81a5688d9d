"""Network and scoring where they run by default: a GPU where there is one, else this machine's CPU.

    python benchmarks/bench_gpu.py --size full --workers 0

Training by TensorFlow with samples in device memory and streamed, batches of 128 and 512, the
seconds of epochs without their checkpoints; scoring from the store. Each line names the device, and
the limit is of the matrix products of the same work on the same device, in float32 as Keras and
the array library multiply there. ``ratio`` on the limit's line is the share of it that is reached.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import bench_score
import bench_train
import numpy as np
from bench_train import HIDDEN, N_LATENT, quiet_tensorflow
from common import Bench, Case, Timed, main, run_here, write_normalized_and_samples

from dglzarr.models.quiet import loading_keras
from dglzarr.stages.explain import array_library

if TYPE_CHECKING:
    from collections.abc import Callable

    from common import Engine

REPEATS = {"tiny": 2, "small": 16, "full": 64}


def named(timed: Timed) -> Timed:
    """Return what an engine took, with the device of networks and the bytes of samples a second."""
    with loading_keras():
        import keras  # noqa: PLC0415

        from dglzarr.models.train import device_in_use  # noqa: PLC0415
    of = {"device": device_in_use(), "backend": keras.backend.backend()}
    return replace(timed, more={**timed.more, **of})


def train(case: Case, *, batch_size: int, cache: str) -> Timed:
    """Time epochs after the first, without checkpoints."""
    timed = bench_train.with_dglzarr(case, batch_size=batch_size, cache=cache)
    return named(replace(timed, seconds=timed.more["parts"]["epochs"]))


def train_limit(case: Case, *, batch_size: int) -> Timed:
    """Time the matrix products of training steps on the device, forward and back."""
    quiet_tensorflow(case)
    with loading_keras():
        import keras  # noqa: PLC0415
    widths = [case.n_genes, HIDDEN, N_LATENT, HIDDEN, case.n_genes]
    draw = np.random.default_rng(0).standard_normal
    rows = [keras.ops.convert_to_tensor(draw((batch_size, n), np.float32)) for n in widths]
    kernels = [keras.ops.convert_to_tensor(draw(shape, np.float32)) for shape in pairwise(widths)]
    matmul, transpose = keras.ops.matmul, keras.ops.transpose

    def step() -> Any:  # noqa: ANN401  (a tensor)
        for place, (kernel, (left, right)) in enumerate(zip(kernels, pairwise(rows), strict=True)):
            last = matmul(left, kernel)
            matmul(transpose(left), right)
            if place:  # nobody asks for the gradient of the samples
                matmul(right, transpose(kernel))
        return last

    n = REPEATS[case.size]
    return named(
        run_here(case, _waited(step, keras.ops.convert_to_numpy, n), n_samples=n * batch_size)
    )


def score(case: Case) -> Timed:
    """Time contributions and scores from the store."""
    return _with_library(bench_score.with_dglzarr(case))


def score_limit(case: Case) -> Timed:
    """Time the one product that scoring cannot avoid, by the library that scores."""
    xp = array_library("auto")
    n = bench_score.N_PRODUCT
    back = xp.asarray(np.random.default_rng(0).random((n * N_LATENT, HIDDEN), np.float32))
    kernel = xp.asarray(np.random.default_rng(1).random((HIDDEN, case.n_genes), np.float32))
    times = REPEATS[case.size]
    work = _waited(lambda: back @ kernel, lambda found: float(found[0, 0]), times)
    return _with_library(run_here(case, work, n_samples=times * n))


def _with_library(timed: Timed) -> Timed:
    library = array_library("auto").__name__
    return replace(timed, more={**timed.more, "library": library})


def _waited(step: Callable[[], Any], read: Callable[[Any], object], n: int) -> Callable[[], object]:
    """Return a call that does a step some times, after a first one, and waits for the last."""
    read(step())

    def work() -> object:
        for _ in range(n):
            found = step()
        return read(found)

    return work


def engines(batch_size: int) -> dict[str, Engine]:
    """Return what trains in batches of a size."""
    return {
        "dglzarr": partial(train, batch_size=batch_size, cache="memory"),
        "dglzarr, streamed": partial(train, batch_size=batch_size, cache="stream"),
        "limit: float32 matrix products": partial(train_limit, batch_size=batch_size),
    }


def trained(batch_size: int) -> Bench:
    """Return the bench of batches of a size."""
    stage = f"gpu-train, batches of {batch_size}"
    packages = bench_train.PACKAGES
    return Bench(stage, write_normalized_and_samples, engines(batch_size), packages=packages)


SCORERS: dict[str, Engine] = {"dglzarr": score, "limit: float32 matrix product": score_limit}
BENCHES = [trained(128), trained(512), Bench("gpu-score", bench_score.prepare, SCORERS)]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
