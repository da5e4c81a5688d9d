"""D-GEX's network, which predicts target genes from landmarks, and its training.

This module owns the shape of the network, its optimizer and learning-rate rule; the training loop
is `train`, batches are those of the autoencoder. It writes one model folder.

References
----------
Chen et al. (2016), Gene expression inference with deep learning, Bioinformatics 32:1832,
doi 10.1093/bioinformatics/btw074.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from dglzarr.models.adam import Adam
from dglzarr.models.autoencoder import dense_layers
from dglzarr.models.batches import Batches
from dglzarr.models.files import CHECKPOINT, save_model
from dglzarr.models.options import BatchOptions, DGexOptions
from dglzarr.models.train import Schedule, fit
from dglzarr.storage.files import Place, remove
from dglzarr.storage.rows import Rows

Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

MOMENTUM, LATER_LAYERS = 0.5, 3.0
DECAY, SMALLEST_STEP, N_PROBED = 0.9, 1e-5, 5000
OUTPUT_SPREAD = 1e-4


class Samples(NamedTuple):
    """A ``(sample, gene)`` matrix, its per-gene moments, and which samples fit and which tune."""

    matrix: Rows
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    is_fit: Mask
    is_tune: Mask


class Momentum(keras.optimizers.SGD):  # type: ignore[misc]
    """Stochastic gradient descent with momentum 0.5 and a step length for each weight."""

    def __init__(self, learning_rate: float, scales: Sequence[float]) -> None:
        super().__init__(learning_rate, momentum=MOMENTUM)
        self._scales = list(scales)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Make room for the error after the last epoch, which the learning-rate rule needs."""
        super().build(variables)
        self.last_error = self.add_variable((), initializer="zeros", name="last_error")

    def apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None
    ) -> None:
        """Move every weight; a longer step is the step of a longer gradient."""
        longer = [grad * scale for grad, scale in zip(grads, self._scales, strict=True)]
        super().apply(longer, trainable_variables)


class Landmarks(keras.layers.Layer):  # type: ignore[misc]
    """Keeps some genes of a sample."""

    def __init__(self, index: Sequence[int], name: str = "landmarks") -> None:
        super().__init__(name=name)
        self.index = list(index)

    def call(self, inputs: Any) -> Any:  # noqa: ANN401  (tensors)
        """Return the chosen genes (sample, landmark) of samples (sample, gene)."""
        return keras.ops.take(inputs, self.index, axis=1)

    def get_config(self) -> dict[str, Any]:
        """Return which genes it keeps: a network of other landmarks is another network."""
        return {"index": self.index, "name": self.name}


def build_dgex(
    options: DGexOptions, n_genes: int, landmarks: Index, targets: Index, *, seed: int
) -> keras.Model:
    """Return the untrained, compiled network: all genes of a sample in, its targets out.

    It looks at the landmarks alone. As its own target a sample holds all genes too: the loss, the
    squared error summed over targets, picks them out.
    """
    seeds = iter(np.random.SeedSequence(seed).generate_state(16, np.uint32).tolist())
    inputs = keras.Input((n_genes,), name="expression")
    tensor = Landmarks(landmarks.tolist())(inputs)
    for layer in range(1, options.n_layers + 1):
        tensor = keras.layers.Dense(
            options.hidden,
            activation="tanh",
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(seeds)),
            name=f"hidden_{layer}",
        )(tensor)
        dropout = keras.layers.Dropout(options.dropout, seed=next(seeds), name=f"dropout_{layer}")
        tensor = dropout(tensor)
    spread = keras.initializers.RandomUniform(-OUTPUT_SPREAD, OUTPUT_SPREAD, seed=next(seeds))
    outputs = keras.layers.Dense(targets.size, kernel_initializer=spread, name="output")(tensor)
    model = keras.Model(inputs, outputs, name="dgex")
    loss = _summed_squares(targets)
    model.compile(optimizer=_optimizer(model, options), loss=loss, jit_compile=False)
    return model


def train_dgex(
    folder: Place,
    samples: Samples,
    *,
    landmarks: Index,
    targets: Index,
    options: DGexOptions,
    seed: int,
    genes: Sequence[str],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the trained network of a panel; an interrupted training goes on from its checkpoint.

    Parameters
    ----------
    folder
        Of the model, its learning curve and, until it is trained, its checkpoint.
    samples
        What to fit on, and the samples whose loss chooses the best epoch.
    landmarks, targets
        Genes, as indices.
    options, seed
        The network and its training; of initial weights, dropout and the order of samples.
    genes
        Label of every gene.
    on_progress
        Called with the number of epochs done and in all.

    Raises
    ------
    DglzarrError
        When the loss is not finite.
    """

    def batches(keep: Mask, share: Batches | None = None) -> Batches:
        return Batches(
            samples.matrix,
            keep=keep,
            mean=samples.mean,
            std=samples.std,
            options=BatchOptions(batch_size=options.batch_size),
            seed=seed,
            share=share,
        )

    model = build_dgex(options, samples.mean.size, landmarks, targets, seed=seed)
    fitted = batches(samples.is_fit)
    after_epoch = None
    if options.optimizer == "momentum":
        few = np.random.default_rng(seed).permutation(np.flatnonzero(samples.is_fit))[:N_PROBED]
        probed = np.zeros_like(samples.is_fit)
        probed[few] = True
        after_epoch = _decay(batches(probed, fitted), targets)
    validation = batches(samples.is_tune, fitted) if samples.is_tune.any() else None
    fit(
        model,
        fitted,
        Schedule(options.epochs, options.step, options.patience if validation else None),
        validation=validation,
        checkpoint=folder / CHECKPOINT,
        after_epoch=after_epoch,
        on_progress=on_progress,
    )
    save_model(
        folder,
        dense_layers(model),
        config=options.model_dump(),
        genes=[genes[i] for i in landmarks],
        gene_mean=samples.mean[landmarks],
        gene_std=samples.std[landmarks],
        inputs=[],
        parameters={"seed": seed, "targets": int(targets.size)},
    )
    remove(folder / CHECKPOINT)


def _optimizer(model: keras.Model, options: DGexOptions) -> keras.optimizers.Optimizer:
    if options.optimizer == "adam":
        return Adam(options.step)
    weights = model.trainable_variables  # kernel and bias, layer by layer
    is_later_kernel = [i > 0 and i % 2 == 0 for i in range(len(weights))]
    return Momentum(options.step, [LATER_LAYERS if later else 1.0 for later in is_later_kernel])


def _summed_squares(targets: Index) -> Callable[[Any, Any], Any]:
    index = targets.astype(np.int32)

    def summed_squares(truth: Any, predicted: Any) -> Any:  # noqa: ANN401  (tensors)
        error = keras.ops.take(truth, index, axis=1) - predicted
        return keras.ops.sum(keras.ops.square(error), axis=1)

    return summed_squares


def _decay(probed: Batches, targets: Index) -> Callable[[keras.Model], None]:
    """Return the rule that shortens the steps after an epoch in which the error rose."""

    def after_epoch(model: keras.Model) -> None:
        total = sum(
            np.abs(np.asarray(model.predict_on_batch(z)) - z[:, targets]).sum(dtype=np.float64)
            for z in probed.epoch(0)
        )
        error = float(total) / (probed.n_samples * targets.size)
        optimizer = model.optimizer
        before = float(np.asarray(optimizer.last_error))
        if 0 < before < error:
            step = float(np.asarray(optimizer.learning_rate))
            optimizer.learning_rate = max(SMALLEST_STEP, DECAY * step)
        optimizer.last_error.assign(error)

    return after_epoch
