"""Bundles, and tables of what was measured of their panel: drawn, read and compared."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dglzarr.prediction.bundle import describe_bundle, load_bundle
from dglzarr.prediction.predict import predict
from dglzarr.sources import read_source
from tests.fuzz_parsers import equal

if TYPE_CHECKING:
    from random import Random

    from dglzarr.prediction.bundle import Bundle

BUNDLE = Path(__file__).parent / "data" / "bundle.zip"
"""Four genes that predict five, made by `make_bundle` of sixty simulated samples."""


@cache
def _whole() -> Bundle:
    return load_bundle(BUNDLE)


def bundle(rng: Random) -> bytes:
    """Return a bundle, most with a member that is gone, changed, doubled or called otherwise."""
    with zipfile.ZipFile(BUNDLE) as file:
        members = [(one.filename, file.read(one)) for one in file.infolist()]
    if rng.random() < 0.9:
        at = rng.randrange(len(members))
        name, content = members[at]
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        other = members[rng.randrange(len(members))]
        ways = [
            *([], [(name, bytes(flipped))], [(name, bytes(flipped))], [(name, b"")]),
            *([(name, content[: len(content) // 2])], [(name, other[1])], [(other[0], content)]),
            *([(f"../{name}", content)], [(f"/{name}", content)], [("x", content)]),
            [(name, content.replace(b'"shape":[', b'"shape":[9999999999,'))],
            [(name, content.replace(b"true", b"false").replace(b"float", b"int"))],
        ]
        members[at : at + 1] = rng.choice(ways)
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        for name, content in dict(members).items():
            file.writestr(zipfile.ZipInfo(name), content)
    return raw.getvalue()


def read_bundle(path: Path) -> str:
    """Read a bundle; where it is read it is the one that it was drawn from."""
    found, whole = load_bundle(path), _whole()
    describe_bundle(path)
    for name, values in whole.arrays.items():
        equal(found[name].tolist(), values.tolist(), name)
    return "equal"


def measured(rng: Random) -> bytes:
    """Return a table of a panel, by labels, symbols or ids, with genes that are not on it."""
    names = rng.choice([_whole().panel.genes, _whole().panel.symbols, _whole().panel.gene_ids])
    names = [*names, *rng.sample(["G7", "ACTB", "x"], rng.randint(0, 2))]
    samples = [f"patient {i}" for i in range(rng.randint(1, 4))]
    rows = [[name, *(f"{rng.uniform(4, 12):.4f}" for _ in samples)] for name in names]
    mark = rng.choice("\t,")
    return "".join(f"{mark.join(row)}\n" for row in [["gene", *samples], *rows]).encode()


def read_measured(path: Path) -> str:
    """Predict from a table; compare with the ridge regression written out, of what pandas reads."""
    found = predict(_whole(), path, scale="given", max_missing=0.5)
    source, one = read_source(path), _whole()
    values = pd.DataFrame(source.read(0, len(source.samples)).T, index=source.genes)
    keys = next(
        (k for k in (one.panel.genes, one.panel.symbols) if set(k) <= set(values.index)), None
    )
    is_doubted = any("taken as missing" in note for note in found.notes)
    if keys is None or is_doubted or values.loc[keys].isna().any(axis=None):
        return "not comparable"
    z = (values.loc[keys].to_numpy().T - one["landmark_mean"]) / one["landmark_std"]
    expected = (z @ one["coefficient"] + one["intercept"]) * one["gene_std"] + one["gene_mean"]
    got = found.predicted.to_numpy()
    assert np.allclose(got, expected, rtol=1e-4, atol=1e-3), "predicted"
    equal(list(found.predicted.index), source.samples, "samples")
    return "equal"
