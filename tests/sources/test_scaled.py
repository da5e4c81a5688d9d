"""The unit of a source: as stated, as its values show, and refused where both disagree."""

import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.kernels.scale import looks_like_counts
from dglzarr.sources import read_source
from dglzarr.sources.scaled import find_scale
from dglzarr.testing import write_gct

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(30, (6, 40)) * RNG.integers(0, 2, (6, 40)) * 9.0
COUNTS[0, 0] = 0
LOG2 = RNG.uniform(2, 14, (6, 40))


@pytest.fixture
def source(tmp_path):
    def write(values):
        samples, genes = (
            [f"{c}{i}" for i in range(n)] for c, n in zip("sg", values.shape, strict=True)
        )
        path = write_gct(
            tmp_path / "a.gct", values, samples=samples, genes=genes, descriptions=genes
        )
        return read_source(path)

    return write


@pytest.mark.parametrize(
    ("values", "stated", "scale", "unit"),
    [
        (COUNTS, None, "raw", "counts"),
        (COUNTS + 0.5, None, "raw", None),
        (LOG2, None, "log2", "log2"),
        (COUNTS, "counts", "raw", "counts"),
        (COUNTS * 0.31, "rpkm", "raw", "rpkm"),
        (LOG2, "tpm", "raw", "tpm"),
        (LOG2, "log2", "log2", "log2"),
        (LOG2 - 8, "log2", "log2", "log2"),
        (COUNTS - 3, "intensity", "raw", "intensity"),
    ],
    ids=[
        "counts seen",
        "raw",
        "log2 seen",
        "counts",
        "rpkm",
        "low tpm",
        "log2",
        "centred log2",
        "negative intensities",
    ],
)
def test_find_scale__stated_or_seen(source, values, stated, scale, unit):
    found = find_scale(source(values), stated)
    assert (found.scale, found.unit) == (scale, unit)


@pytest.mark.parametrize(
    ("values", "stated", "message"),
    [
        (COUNTS, "log2", r"a\.gct: unit: expected log2 values, got up to .* Correct the unit\."),
        (COUNTS - 3, "tpm", r"a\.gct: unit: expected tpm from 0, got down to -3\. Correct"),
    ],
)
def test_find_scale__refused(source, values, stated, message):
    with pytest.raises(SourceError, match=message):
        find_scale(source(values), stated)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 3, np.nan], True),
        ([1, 3], False),
        ([0, 1.5], False),
        ([-1, 0], False),
        ([np.nan], False),
    ],
)
def test_looks_like_counts(values, expected):
    assert looks_like_counts(np.array(values, dtype=np.float64)) is expected
