"""A small finished study to ask, made in seconds without TensorFlow.

Its samples are simulated; its network is no trained one but the principal axes of its training
samples, so that stores, scores and panels are the genuine ones of a network of that kind.
"""

import gzip
import shutil
from pathlib import Path

import numpy as np

from dglzarr.models.files import save_model
from dglzarr.settings import Settings, load_settings
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
WANTED = (
    "TP53", "GAPDH", "MYC", "EGFR", "BRCA1", "BRCA2", "ESR1", "ERBB2", "CDKN2A", "PTEN", "RB1",
    "KRAS", "STAT1", "CCND1",
)  # fmt: skip
"""Symbols of genes that people ask for."""

_REAL = ("GSE3726", "GSE1751", "GSE781", "GSE3585")
_REAL_SETTINGS = """\
root = "real"
seed = 4
[[sources]]
uri = "*_expr.tsv"
sample_sheet = "{stem}_samples.tsv"
[ingest]
annotation = "GPL96.txt"
split_by = "series"
"""


def write_example(folder: str | Path) -> str:
    """Return the root of a finished study of 120 samples x 154 probes, written below a folder.

    Finished stores are kept, so that a second call takes no time.
    """
    return _mine(load_settings(write_study(folder, n_samples=120, n_genes=160), _OPTIONS))


def write_real_example(folder: str | Path, data: Path) -> str:
    """Return the root of a finished study of real series, 164 samples x some 900 probes.

    Parameters
    ----------
    data
        The folder of real files; one probe in 24 is taken, and all of `WANTED`.
    """
    folder = Path(folder)
    head, *lines = (data / "annotation" / "GPL96.txt").read_text(encoding="utf-8").splitlines()
    named = [line for line in lines if line.split("\t")[1]]
    kept = [x for i, x in enumerate(named) if i % 24 == 0 or x.split("\t")[1] in WANTED]
    probes = {line.split("\t")[0] for line in kept}
    for name in _REAL:
        with gzip.open(data / "tables" / f"{name}_expr.tsv.gz", "rt", encoding="utf-8") as file:
            some = [next(file), *(line for line in file if line.split("\t", 1)[0] in probes)]
        (folder / f"{name}_expr.tsv").write_text("".join(some), encoding="utf-8")
        shutil.copy(data / "tables" / f"{name}_samples.tsv", folder)
    (folder / "GPL96.txt").write_text("\n".join([head, *kept, ""]), encoding="utf-8")
    (folder / "real.toml").write_text(_REAL_SETTINGS, encoding="utf-8")
    return _mine(load_settings(folder / "real.toml", _OPTIONS))


def _mine(settings: Settings) -> str:
    """Mine a study with principal axes for a network; return its root."""
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
