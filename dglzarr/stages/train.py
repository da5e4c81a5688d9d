"""Train: the AutoEncoder on z-scored, kept training samples.

Reads ``normalized.zarr`` and ``samples.zarr``, writes a model folder: weights, configuration, gene
labels, learning curve and, while it runs, a checkpoint after every epoch.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import StoreError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.kernels.components import series_weights, spherical_components
from dglzarr.kernels.split import hold_back
from dglzarr.models import Device, check_installed
from dglzarr.models.batches import Batches
from dglzarr.models.files import CHECKPOINT, load_model, save_model
from dglzarr.models.options import BatchOptions, NetworkOptions
from dglzarr.models.quiet import loading_keras
from dglzarr.sources.chosen import studies_of
from dglzarr.storage.files import Place, place_of, remove, store_nbytes, told
from dglzarr.storage.options import Run, choice
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import MODEL, NORMALIZED, SAMPLES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, begin_model, open_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.models.files import History
    from dglzarr.storage.claims import Claim

logger = logging.getLogger(__name__)

FIXED = {
    "input_scale": "z",
    "loss": "mean_absolute_error",
    "optimizer": "adam in one operation, beta_1 0.9, beta_2 0.999, epsilon 1e-7",
    "initializer": "glorot_uniform",
    "fitted_on": "train and keep",
    "best_by": "lowest loss on validation and keep, else the last epoch",
}
"""What is not a setting, but for the record."""


class TrainOptions(BatchOptions, NetworkOptions):
    """The AutoEncoder and its training; deploy/settings/kong2021.toml has the paper's."""

    section = "train"

    epochs: int = choice(100, "how often each training sample is seen, at most", gt=0)
    learning_rate: float = choice(1e-4, "of Adam", paper="open", gt=0)
    held_back: float = choice(
        0.1,
        "share of the training samples, in whole series where there are two, that only chooses "
        "the best epoch where the split has no validation samples",
        paper="0.0",
        ge=0,
        le=0.5,
    )
    patience: int | None = choice(
        10,
        "it stops after so many epochs without a lower validation loss; the weights kept are those "
        "of the lowest",
        gt=0,
    )
    device: Device = choice(
        "auto",
        "auto is a GPU where there is one; it multiplies with fewer bits (TF32), so its model "
        "differs from a CPU's",
        is_recorded=False,
    )

    def recorded(self) -> dict[str, Any]:
        """Return the values that belong to the lineage; a patience that never ends is none."""
        is_endless = self.patience is None or self.patience >= self.epochs
        return {**super().recorded(), "patience": None if is_endless else self.patience}


def _damage(uri: str) -> str:
    """Return what is wrong with a model, "" where nothing is."""
    try:
        load_model(place_of(uri))
    except StoreError as error:
        return str(error)
    return ""


def _summarize(claim: Claim) -> StoreSummary:
    """Return the summary of a complete model, whose training needs its checkpoint no more."""
    target = place_of(claim.uri)
    remove(target / CHECKPOINT)
    saved = load_model(target)
    sizes = {"gene": len(saved.genes), "latent": int(saved.layers[1][0].shape[1])}
    seconds, nbytes = time.monotonic() - claim.started, store_nbytes(claim.uri)
    details = {"model_id": saved.model_id}
    assert claim.state != "refused"
    return StoreSummary(claim.uri, MODEL.name, claim.state, sizes, seconds, nbytes, details)


@stage(
    MODEL,
    reads=("source", "samples"),
    records=("seed",),
    constants=FIXED,
    summary=_summarize,
    damage=_damage,
)
def train(
    claim: Claim,
    source: str,
    target: str,
    *,
    samples: str,
    seed: int = 0,
    options: TrainOptions = TrainOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write the trained AutoEncoder and summarize it.

    Parameters
    ----------
    source, samples
        URIs of the normalized store and of the samples store (mask and per-gene moments).
    target
        Folder of the model.
    seed
        Of initial weights, dropout and the order of samples.
    options, run
        Its choices, and how it is run. Without validation samples a share of the training samples
        is held back to choose the best epoch; with none held back the weights kept are those of
        the last, and ``patience`` has no effect. A network that begins at components is judged
        before its first epoch, too: where training makes it no better, it is the components of
        all training samples.
        However the samples are held, the batches are the same, bit for bit.

    Raises
    ------
    StoreError
        When another model stands there.
    ConfigError
        When a GPU is asked for and there is none.
    DglzarrError
        When the loss is no longer finite.

    References
    ----------
    Kong et al. 2021, doi:10.1186/s12859-021-03972-5
    """
    genes = [str(gene) for gene in open_labels(source, NORMALIZED)["gene"].values]
    mask = open_labels(samples, SAMPLES)
    moments = mask["gene_mean"].values, mask["gene_std"].values
    everything, *batches = _batches(source, samples, moments, options, seed)
    check_installed("keras", "numba", extra="train")
    with loading_keras():
        # they load keras, only to train
        from dglzarr.models.autoencoder import build_autoencoder, dense_layers  # noqa: PLC0415
        from dglzarr.models.train import device_in_use, on_device  # noqa: PLC0415

        with on_device(options.device):
            model = build_autoencoder(len(genes), options, seed=seed)
    begin_model(claim)
    with told(target), on_device(options.device):
        if options.start == "components":
            _begin(model, batches[0], source)
        history = _fit(model, batches, place_of(target, CHECKPOINT), options, run)
        if not history.best_epoch and everything is not batches[0]:
            _begin(model, everything, source)
        del everything, batches  # the memory of their samples, before weights are copied
        network = options.model_dump(include=set(NetworkOptions.model_fields))
        trained_on = device_in_use() if options.device == "auto" else options.device
        save_model(
            place_of(target),
            dense_layers(model),
            config={"n_genes": len(genes), **network, "seed": seed},
            genes=genes,
            gene_mean=moments[0],
            gene_std=moments[1],
            inputs=claim.lineage["inputs"],
            parameters={
                **{k: v for k, v in claim.lineage["parameters"].items() if k not in network},
                "trained_on": trained_on,
            },
        )
    logger.info("%s: %d epochs, best %d", target, len(history.epoch), history.best_epoch)
    return _summarize(claim)


def _batches(
    source: str, samples: str, moments: tuple[Any, Any], options: TrainOptions, seed: int
) -> list[Batches]:
    """Return the batches of all training samples, to fit on and, where there are any, to validate.

    The first two are the same where no training samples are held back.
    """
    rows, (mean, std) = Rows(source), moments
    train, judging = kept_samples(source, samples), kept_samples(source, samples, "validation")
    common: dict[str, Any] = {"mean": mean, "std": std, "options": options, "seed": seed}
    everything = Batches(rows, keep=train, **common)
    if judging.any():
        return [everything, everything, Batches(rows, keep=judging, share=everything, **common)]
    judging[train] = hold_back(_studies(source, train), options.held_back, seed=seed)
    if not judging.any():
        return [everything, everything]
    fitted = Batches(rows, keep=train & ~judging, **common)
    return [everything, fitted, Batches(rows, keep=judging, share=fitted, **common)]


def _begin(model: Any, batches: Batches, source: str) -> None:  # noqa: ANN401  (of keras)
    """Let a network begin at the components of some samples, as many as it has latent units."""
    from dglzarr.models.autoencoder import begin_with_components  # noqa: PLC0415

    n_latent = model.get_layer("latent").units
    axes = spherical_components(
        batches.blocks, series_weights(_studies(source, batches.keep)), n_latent
    )
    begin_with_components(model, axes)


def _studies(source: str, keep: NDArray[np.bool_]) -> NDArray[np.object_]:
    return np.array(studies_of(read_array(source, "series")[keep]), dtype=object)


def _fit(
    model: Any,  # noqa: ANN401  (of keras)
    batches: list[Batches],
    checkpoint: Place,
    options: TrainOptions,
    run: Run,
) -> History:
    """Train a network on batches, validated on the second ones where there are two."""
    from dglzarr.models.train import OnDevice, Schedule, fit, fits_on_gpu  # noqa: PLC0415

    may_hold = options.device != "cpu" and options.cache != "stream"
    is_on_gpu = may_hold and fits_on_gpu(*batches)
    feeds = [OnDevice(some) for some in batches] if is_on_gpu else batches
    logger.info("training samples are %s", _place(batches[0], is_on_gpu=is_on_gpu))
    n_samples, is_validated = batches[0].n_samples, len(batches) > 1

    def on_progress(done: int, total: int) -> None:
        if run.on_progress is not None:
            run.on_progress("training samples", done * n_samples, total * n_samples)

    return fit(
        model,
        feeds[0],
        Schedule(
            options.epochs,
            options.learning_rate,
            options.patience if is_validated else None,
            judges_start=options.start == "components",
        ),
        validation=feeds[1] if is_validated else None,
        checkpoint=checkpoint,
        on_progress=on_progress,
    )


def _place(batches: Batches, *, is_on_gpu: bool) -> str:
    """Return where the samples of an epoch come from, in words."""
    if is_on_gpu:
        return "held on the GPU"
    return "held in memory" if batches.is_cached else "read anew each epoch"
