"""A small finished study to ask, made in seconds without TensorFlow.

Its samples are simulated; its network is no trained one but the principal axes of its training
samples, so that stores, scores and panels are the genuine ones of a network of that kind.
"""

from pathlib import Path

import numpy as np

from dglzarr.models.files import save_model
from dglzarr.settings import load_settings
from dglzarr.storage.files import place_of
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import store_input
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import mine
from dglzarr.testing.study import write_study

_LATENT = 4
_OPTIONS = (
    'cluster={kind = "none"}',
    "dedup.n_clusters=4",
    "select.n_landmarks=12",
    "select.n_random=3",
    'select.selectors=["top-score"]',
)


def write_example(folder: str | Path) -> str:
    """Return the root of a finished study of 120 samples x 154 probes, written below a folder.

    Finished stores are kept, so that a second call takes no time.
    """
    settings = load_settings(write_study(folder, n_samples=120, n_genes=160), _OPTIONS)
    mine(settings, only=("ingest", "join", "normalize", "dedup"))
    _save_axes(settings.root, settings.seed)
    mine(settings, only=("encode", "reconstruct", "explain", "score", "select"))
    return settings.root


def _save_axes(root: str, seed: int) -> None:
    """Save a linear network: principal axes of the kept training samples, and back."""
    study = open_study(root)
    place = place_of(study.model(seed))
    if (place / "model.json").exists():
        return
    source, samples = study.uri("normalized"), study.uri("samples")
    rows = read_array(samples, "keep") & (read_array(source, "split") == 0)
    mean, std = read_array(samples, "gene_mean"), read_array(samples, "gene_std")
    values = Rows(source).take(np.flatnonzero(rows))
    z = np.nan_to_num((values - mean) / np.where(std > 0, std, np.inf))
    axes = np.linalg.svd(z, full_matrices=False)[2][:_LATENT].astype(np.float32)
    zeros = np.zeros(_LATENT, np.float32), np.zeros(axes.shape[1], np.float32)
    save_model(
        place,
        [(axes.T.copy(), zeros[0], "linear"), (axes.copy(), zeros[1], "linear")],
        config={"n_genes": int(axes.shape[1]), "seed": seed},
        genes=[str(gene) for gene in read_array(source, "gene")],
        gene_mean=mean,
        gene_std=std,
        inputs=[store_input(source), store_input(samples)],
        parameters={},
    )
