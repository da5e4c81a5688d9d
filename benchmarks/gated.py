"""Panels by gates that are trained with a network: genes whose gates stay open longest.

Each gene comes to the network through a gate of 0 to 1, the more noise on it the less it is sure;
the expected number of open gates costs more and more, until only those of the smallest panel are
open (stochastic gates). The network begins at 100 components and their mirror images, as the
package's does, and rebuilds all genes: their squared error is that of the samples' coordinates on
their own axes, of which there are no more than samples. Genes that say the same are not told apart.

References
----------
Yamada et al. (2020), arXiv 1810.04247: stochastic gates.
Lemhadri et al. (2021), arXiv 1907.12207: from all features to few in one training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import ndtr
from small_networks import Network, Weights

from dglzarr.kernels.panels import principal_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]

N_AXES, BATCH, N_STEPS, N_FREE = 100, 64, 600, 60
"""Steps in all, and those before the first gate must close."""

SPREAD = 0.5
STEP, GATE_STEP = 3e-4, 1e-2


def gated_panels(rows: Matrix, sizes: Sequence[int], *, seed: int = 0) -> dict[int, Index]:
    """Return the columns of each size that are most open when as many are to be, most open first.

    Parameters
    ----------
    rows : training samples in z units, (sample, gene)
    sizes : of the panels, rising
    """
    rng = np.random.default_rng(seed)
    axes, _ = principal_axes(rows, 1.0)
    truth, first = rows @ axes.T, axes[:N_AXES]
    back = np.eye(len(first), len(axes), dtype=np.float32)
    network = Network(
        np.hstack([first.T, -first.T]),
        np.vstack([back, -back]),
        bias=np.zeros(len(axes)),
        skip=None,
        relu=True,
    )
    gates, price, panels = Weights(np.full(rows.shape[1], SPREAD)), 0.0, {}
    for step in range(N_STEPS):
        some = rng.choice(len(rows), min(BATCH, len(rows)), replace=False)
        wrong = _squared(truth[some])
        gradient = _learn(network, gates.values, rows[some], wrong, rng)
        left = max(0.0, (step - N_FREE) / (N_STEPS - 1 - N_FREE))
        wanted = rows.shape[1] * (sizes[0] / rows.shape[1]) ** left
        share = ndtr(gates.values / SPREAD)
        if step == N_FREE:
            price = float(np.median(np.abs(gradient)))
        price *= np.exp(0.5 * np.clip(np.log(share.sum() / wanted), -1, 1))
        closing = np.exp(-0.5 * (gates.values / SPREAD) ** 2)
        gates.move(gradient + np.float32(price) * closing, GATE_STEP)
        for size in (n for n in sizes if n not in panels and wanted <= n * (1 + 1e-6)):
            panels[size] = np.argsort(-gates.values, kind="stable")[:size]
    return panels


def _learn(
    network: Network,
    gates: Matrix,
    x: Matrix,
    wrong: Callable[[Matrix], Matrix],
    rng: np.random.Generator,
) -> Matrix:
    """Make a step of the network behind gates that are drawn; return the gates' own gradient.

    What is open is scaled up by how little it is, so that the network need not grow.
    """
    noise = np.float32(SPREAD) * rng.standard_normal(x.shape, dtype=np.float32)
    drawn = gates + noise
    is_between = (drawn > 0) & (drawn < 1)
    drawn = np.clip(drawn, 0, 1)
    scale = np.float32(x.shape[1]) / np.maximum(drawn.sum(axis=1, keepdims=True), 1)
    into: Any = network.learn(x * drawn * scale, wrong, STEP, wants_input=True)
    return np.asarray((into * x * scale * is_between).sum(axis=0))


def _squared(truth: Matrix) -> Callable[[Matrix], Matrix]:
    return lambda out: (out - truth) / np.float32(len(truth))
