"""The autoencoder whose latent layer the landmark genes are mined from.

This module owns the shape of the network and its initial weights; training is `train`, files are
`files`. It reads and writes no store.

References
----------
Kong et al. (2021), Mining influential genes based on deep learning, BMC Bioinformatics 22:27,
doi 10.1186/s12859-021-03972-5.
"""

import keras
import numpy as np
from numpy.typing import NDArray

from dglzarr.models.files import Layer
from dglzarr.models.options import NetworkOptions


def build_autoencoder(n_genes: int, options: NetworkOptions, *, seed: int) -> keras.Model:
    """Return the untrained network, ``(sample, gene)`` in and out.

    Notes
    -----
    Every initialiser and dropout has a seed of its own, drawn from the one given; no global random
    state is touched, so that equal arguments give equal weights in any process.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(8, np.uint32).tolist())
    hidden, output = options.activation, options.output
    latent = hidden if options.latent_activation == "hidden" else options.latent_activation
    widths = [options.hidden, options.n_latent, options.hidden, n_genes]
    names = ["hidden_in", "latent", "hidden_out", "output"]
    activations = [hidden, latent, hidden, output]
    inputs = keras.Input((n_genes,), name="expression")
    tensor = inputs
    if options.dropout_position == "input":
        tensor = _dropout(options.dropout, next(seeds), "expression")(tensor)
    for width, name, activation in zip(widths, names, activations, strict=True):
        tensor = keras.layers.Dense(
            width,
            activation=activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
            kernel_regularizer=keras.regularizers.L2(options.l2),
            name=name,
        )(tensor)
        if options.dropout_position == "hidden" and name != "output":
            tensor = _dropout(options.dropout, next(seeds), name)(tensor)
    return keras.Model(inputs, tensor, name="autoencoder")


def begin_with_components(model: keras.Model, axes: NDArray[np.float32]) -> None:
    """Let an untrained network rebuild what some components do, exactly.

    Parameters
    ----------
    model
        As `build_autoencoder` returns it, of an activation f with f(x) - f(-x) = x, with linear
        latent and output layers and at least twice as many hidden units as axes.
    axes
        Orthonormal, ``(axis, gene)``, at most as many as latent units.

    Notes
    -----
    A hidden unit of each axis and its mirror image add up to the axis' coordinate, which is a
    latent unit and comes back in the same way. The other hidden units look at what they did, and
    nobody listens to them yet; latent units without an axis are 0. So training begins at the
    components and has room to leave them.
    """
    n = len(axes)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    kernels = [np.asarray(layer.kernel).copy() for layer in layers]
    into, latent, back, output = kernels
    both, one = np.concatenate([axes, -axes]), np.eye(n, dtype=np.float32)
    into[:, : 2 * n] = both.T
    latent[:] = 0
    latent[: 2 * n, :n] = np.concatenate([one, -one])
    back[:, : 2 * n] = 0
    back[:n, : 2 * n] = np.concatenate([one, -one], axis=1)
    output[:] = 0
    output[: 2 * n] = both
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)


def dense_layers(model: keras.Model) -> list[Layer]:
    """Return ``(kernel (in, out), bias (out,), activation name)`` of each dense layer, in order."""
    return [
        (
            np.asarray(layer.kernel).copy(),
            np.asarray(layer.bias).copy(),
            str(layer.activation.__name__),
        )
        for layer in model.layers
        if isinstance(layer, keras.layers.Dense)
    ]


def _dropout(share: float, seed: int, name: str) -> keras.Layer:
    """Return a dropout named after the layer before it; keras' own numbers vary by process."""
    return keras.layers.Dropout(share, seed=seed, name=f"{name}_dropout")
