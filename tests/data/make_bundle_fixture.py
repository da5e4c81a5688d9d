"""Writes bundle.zip, which tests/fuzz.py mutates: four genes that predict five.

python -m tests.data.make_bundle_fixture
"""

import tempfile
from pathlib import Path

import numpy as np

from dglzarr.prediction.make import make_bundle
from dglzarr.storage.schemas import NORMALIZED
from tests.builders import write_manifest, write_matrix, write_samples

N, G = 60, 9

if __name__ == "__main__":
    folder = Path(tempfile.mkdtemp())
    segment = folder / "study" / "segments" / "0000"
    segment.mkdir(parents=True)
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (N, 3)) @ rng.normal(0, 1, (3, G)) + rng.normal(0, 0.3, (N, G))
    series = np.repeat(np.arange(6), 10)
    uri = write_matrix(
        segment / "normalized.zarr",
        NORMALIZED,
        (values + np.linspace(5, 12, G)).astype(np.float32),
        series=[f"GSE{k}" for k in series],
        split=np.where(series < 5, 0, 2).astype(np.int8),
        symbols=[f"G{i}" for i in range(G)],
        ids=[str(1000 + i) for i in range(G)],
        shard=48,
    )
    write_samples(segment / "samples.zarr", uri, keep=np.ones(N, bool))
    write_manifest(folder / "study", ["0000"])
    panel = folder / "panel.txt"
    panel.write_text("".join(f"{i:03d}_at\n" for i in range(4)), encoding="utf-8")
    place = Path(__file__).with_name("bundle.zip")
    make_bundle(str(folder / "study"), place, panel=str(panel), overwrite=True)
