"""Networks of one hidden layer in numpy, for what the package does not train: see their callers.

A step takes some rows of the first layer alone, so that a network of 22,268 genes is trained on
small panels at the price of small panels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Matrix = NDArray[np.float32]
    Index = NDArray[np.int64]

ALL = slice(None)


class Weights:
    """An array that Adam moves, or some of its rows (Kingma and Ba 2015, arXiv 1412.6980)."""

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = np.array(values, dtype=np.float32)
        self._first, self._second = (np.zeros_like(self.values) for _ in range(2))
        self._n_steps = 0

    def move(self, gradient: Matrix, step: float, rows: Index | slice = ALL) -> None:
        """Move some rows against their gradient; the averages of other rows stand still."""
        self._n_steps += 1
        first = 0.9 * self._first[rows] + np.float32(0.1) * gradient
        second = 0.999 * self._second[rows] + np.float32(0.001) * gradient**2
        self._first[rows], self._second[rows] = first, second
        first = first / np.float32(1 - 0.9**self._n_steps)
        spread = np.sqrt(second / np.float32(1 - 0.999**self._n_steps))
        self.values[rows] -= np.float32(step) * first / (spread + np.float32(1e-8))


class Network:
    """Inputs - hidden units - outputs, and straight from inputs to outputs where there is a skip.

    ``first (input, hidden)``, ``second (hidden, output)``, ``skip (input, output)`` or None.
    """

    def __init__(
        self,
        first: NDArray[Any],
        second: NDArray[Any],
        *,
        bias: NDArray[Any],
        skip: NDArray[Any] | None,
        relu: bool,
    ) -> None:
        self.first, self.second, self.bias = Weights(first), Weights(second), Weights(bias)
        self.offset = Weights(np.zeros(first.shape[1]))
        self.skip = None if skip is None else Weights(skip)
        self._relu = relu

    @property
    def parts(self) -> list[Weights]:
        """All that is trained."""
        some = [self.first, self.second, self.bias, self.offset]
        return some if self.skip is None else [*some, self.skip]

    def hidden(self, x: Matrix, rows: Index | slice = ALL) -> Matrix:
        """Return the hidden units (sample, hidden) of some inputs."""
        pre = x @ self.first.values[rows] + self.offset.values
        return np.asarray(np.maximum(pre, 0) if self._relu else np.tanh(pre))

    def predict(self, x: Matrix, rows: Index | slice = ALL) -> Matrix:
        """Return the outputs (sample, output)."""
        out = self.hidden(x, rows) @ self.second.values + self.bias.values
        return np.asarray(out if self.skip is None else out + x @ self.skip.values)

    def learn(
        self,
        x: Matrix,
        wrong: Callable[[Matrix], Matrix],
        step: float,
        rows: Index | slice = ALL,
        *,
        wants_input: bool = False,
    ) -> Matrix | None:
        """Make one step; return the gradient of the inputs where it is wanted.

        ``wrong`` gives the gradient of the loss at the outputs.
        """
        hidden = self.hidden(x, rows)
        out = hidden @ self.second.values + self.bias.values
        gradient = wrong(out if self.skip is None else out + x @ self.skip.values)
        back = gradient @ self.second.values.T
        back *= (hidden > 0) if self._relu else 1 - hidden**2
        into = back @ self.first.values[rows].T if wants_input else None
        self.second.move(hidden.T @ gradient, step)
        self.bias.move(gradient.sum(axis=0), step)
        self.first.move(x.T @ back, step, rows)
        self.offset.move(back.sum(axis=0), step)
        if self.skip is not None:
            self.skip.move(x.T @ gradient, step)
        return into


def train(
    network: Network,
    epoch: Callable[[], None],
    error: Callable[[], float],
    *,
    n: int,
    patience: int,
) -> int:
    """Run n epochs at most, keep the weights of the lowest error; return their epoch or 0."""
    best, kept, at = error(), [part.values.copy() for part in network.parts], 0
    for done in range(1, n + 1):
        epoch()
        found = error()
        if found < best:
            best, kept, at = found, [part.values.copy() for part in network.parts], done
        elif done - at >= patience:
            break
    for part, values in zip(network.parts, kept, strict=True):
        part.values = values
    return at
