"""A study up to its untrained model, to be encoded, rebuilt, explained and scored."""

import copy
from pathlib import Path

import numpy as np

from dglzarr import deeplift_contributions
from dglzarr.kernels.deeplift import forward
from dglzarr.models.files import encoder_layers, load_model, save_keras_encoder
from dglzarr.stages.encode import encode
from dglzarr.stages.explain import ExplainOptions, explain
from dglzarr.stages.reconstruct import reconstruct
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import TEST, TRAIN, splits, write_matrix, write_model, write_samples

PLAIN = Run()


class Study:
    """A normalized store, its mask, an untrained model, and where results go."""

    def __init__(self, folder, values, *, shard=16, keep=None, seed=0, tissues=None):
        folder.mkdir(exist_ok=True)
        self.folder, self.values = folder, values
        self.split = splits(len(values))
        self.split[16:32] = TEST  # a whole region of the smallest shards
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9 if keep is None else keep
        self.source = write_matrix(
            folder / "normalized",
            NORMALIZED,
            values,
            split=self.split,
            shard=shard,
            tissues=tissues,
        )
        self.samples = write_samples(folder / "samples", self.source, keep=self.keep)
        self.model = write_model(folder / "model", self.source, self.samples, seed=seed)
        self.results = folder

    def at(self, folder):
        """The same study, its results in another folder."""
        other = copy.copy(self)
        other.results = folder
        return other

    @property
    def latent(self):
        return str(self.results / "latent")

    @property
    def reconstruction(self):
        return str(self.results / "reconstruction")

    @property
    def contributions(self):
        return str(self.results / "contributions")

    @property
    def scores(self):
        return str(self.results / "scores")

    def encode(self, *, samples=None, model=None, run=PLAIN):
        return encode(
            self.source, self.latent, samples=samples or self.samples, model=model or self.model,
            run=run,
        )  # fmt: skip

    def reconstruct(self, *, samples=None, latent=None, model=None, run=PLAIN):
        return reconstruct(
            self.source, self.reconstruction, samples=samples or self.samples,
            latent=latent or self.latent, model=model or self.model, run=run,
        )  # fmt: skip

    def explain(self, *, model=None, latent=None, frozen=None, seed=0, run=PLAIN, **options):
        return explain(
            self.source, self.contributions, samples=self.samples, model=model or self.model,
            latent=latent, frozen=frozen, seed=seed, options=ExplainOptions(**options), run=run,
        )  # fmt: skip

    def score(self, group_by=None, *, run=PLAIN):
        return score(
            self.contributions, self.scores, normalized=self.source, samples=self.samples,
            options=ScoreOptions(group_by=group_by), run=run,
        )  # fmt: skip

    @property
    def averaged(self):
        return self.keep & (self.split == TRAIN)

    def reconstruction_by_hand(self):
        """z-scores, latent units and reconstruction of all samples, by the model's layers."""
        saved = load_model(Path(self.model))
        z = (self.values - saved.gene_mean) / saved.gene_std
        values = forward(saved.layers, np.nan_to_num(z))
        return z, values[1][1], values[-1][1]

    def contributions_by_kernel(self, deeplift_reference="mean", **options):
        """(sample, gene, latent), with all of numpy's own z-scores."""
        kept = self.values[self.averaged].astype(np.float64)
        mean, std = np.nanmean(kept, axis=0), np.nanstd(kept, axis=0)
        z = np.nan_to_num((self.values - mean) / std)
        zeros = -mean / std if deeplift_reference == "zeros" else np.zeros(len(mean))
        if not isinstance(deeplift_reference, str):
            zeros = z[deeplift_reference]
        layers = encoder_layers(load_model(self.folder / "model"))
        layers = [(k.astype(np.float64), b.astype(np.float64), a) for k, b, a in layers]
        return deeplift_contributions(layers, z, zeros, **options)

    def z_by_model(self):
        """z-scores of all samples by the model's moments, missing values 0."""
        like = load_model(self.folder / "model")
        return np.nan_to_num((self.values - like.gene_mean) / like.gene_std).astype(np.float32)

    def save_keras(self, folder, model):
        """Save a Keras network for the study's genes; return its folder."""
        like = load_model(self.folder / "model")
        moments = {"gene_mean": like.gene_mean, "gene_std": like.gene_std}
        save_keras_encoder(
            folder, model.to_json(), model.get_weights(), genes=like.genes, **moments
        )
        return str(folder)
