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
    widths = [options.hidden, options.n_latent, options.hidden, n_genes]
    names = ["hidden_in", "latent", "hidden_out", "output"]
    activations = [hidden, hidden, hidden, output]
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
