"""A study whose genes follow five programs, and a bundle of it."""

import numpy as np
import pytest

from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.make import make_bundle
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import write_manifest, write_matrix, write_samples

N_GENES, N_PANEL, PER_SERIES = 90, 24, 14
PANEL = [f"{i:03d}_at" for i in range(N_PANEL)]
SYMBOLS = [f"G{i}" for i in range(N_GENES)]


@pytest.fixture(scope="session")
def values():
    """Log2 values (sample, gene) of 13 series; the first genes carry the programs."""
    rng = np.random.default_rng(3)
    load = rng.normal(0, 1, (5, N_GENES))
    programs = rng.normal(0, 1, (13 * PER_SERIES, 5))
    programs += np.repeat(rng.normal(0, 0.7, (13, 5)), PER_SERIES, axis=0)
    noise = rng.uniform(0.3, 1.2, N_GENES) * rng.normal(0, 1, (13 * PER_SERIES, N_GENES))
    noise += np.repeat(rng.normal(0, 0.3, (13, N_GENES)), PER_SERIES, axis=0)
    found = np.linspace(5, 12, N_GENES)[rng.permutation(N_GENES)] + programs @ load + noise
    found[:, -1] = 7.0
    found[3, 40] = np.nan
    found[4, 2] = np.nan
    return found.astype(np.float32)


def write_study(root, values):
    """Write a study of ten training series and three that are held out; return its folder."""
    segment = root / "segments" / "0000"
    segment.mkdir(parents=True)
    series = np.repeat(np.arange(13), PER_SERIES)
    uri = write_matrix(
        segment / "normalized.zarr", NORMALIZED, values, series=[f"GSE{k}" for k in series],
        split=np.where(series < 10, 0, 2).astype(np.int8), symbols=SYMBOLS, shard=48,
        ids=[str(1000 + i) for i in range(N_GENES)],
    )  # fmt: skip
    write_samples(segment / "samples.zarr", uri, keep=np.ones(len(values), dtype=bool))
    write_manifest(root, ["0000"])
    return str(root)


@pytest.fixture(scope="session")
def root(values, tmp_path_factory):
    """The folder of the study."""
    return write_study(tmp_path_factory.mktemp("predict") / "study", values)


@pytest.fixture(scope="session")
def panel_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("panel") / "panel.txt"
    file.write_text("\n".join(PANEL) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture(scope="session")
def made(root, panel_file, tmp_path_factory):
    """What `make_bundle` returned."""
    return make_bundle(root, tmp_path_factory.mktemp("bundle") / "a.zip", panel=panel_file)


@pytest.fixture(scope="session")
def bundle(made):
    return load_bundle(made.output)


@pytest.fixture(scope="session")
def held_out(values):
    """Values of the held-out samples."""
    return values[10 * PER_SERIES :]
