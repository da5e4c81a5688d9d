"""A published quantile target takes the place of one that is fitted."""

import gzip

import numpy as np
import pytest

from dglzarr.errors import SourceError, StoreError
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.sources.targets import read_target
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EXPRESSION
from dglzarr.storage.store import open_store, read_attributes
from tests.builders import simulate, write_matrix

TARGET = np.linspace(2, 14, 321) ** 1.05


@pytest.fixture
def source(tmp_path):
    return write_matrix(tmp_path / "e", EXPRESSION, simulate().expression)


def write(path, values, head=""):
    text = head + "\n".join(map(repr, map(float, values))) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("name", "head"), [("t.tsv", ""), ("t.tsv.gz", '"x"\n'), ("t.txt", "# of HG-U133\n\n")]
)
def test_read_target__one_value_a_line(tmp_path, rng, name, head):
    path = write(tmp_path / name, rng.permutation(TARGET), head)
    np.testing.assert_array_equal(read_target(path, TARGET.size), TARGET)
    half = read_target(path, 161)
    np.testing.assert_allclose(half, TARGET[::2])
    assert read_target(path, 40)[[0, -1]].tolist() == [TARGET[0], TARGET[-1]]


@pytest.mark.parametrize(
    ("values", "head", "message"),
    [
        (TARGET, "a\nb\n", r"t\.tsv, line 2: expected a number of a quantile target, got 'b'"),
        (TARGET[:60], "", r"t\.tsv: expected a quantile target of 100 values or more, got 60"),
        (2**TARGET, "", r"t\.tsv: expected a quantile target in log2, got values up to"),
        (TARGET, "1\nnan\n", r"t\.tsv, line 2: expected a number"),
    ],
)
def test_read_target__refuses(tmp_path, values, head, message):
    with pytest.raises(SourceError, match=message):
        read_target(write(tmp_path / "t.tsv", values, head), 50)


def test_normalize__a_published_reference(tmp_path, source):
    path, target = write(tmp_path / "t.tsv", TARGET), str(tmp_path / "n")
    values = open_store(source)["expression"].values
    normalize(source, target, options=NormalizeOptions(reference=path))
    quantiles = read_target(path, values.shape[1])
    np.testing.assert_array_equal(read_array(target, "quantile_reference"), quantiles)
    np.testing.assert_allclose(
        open_store(target)["expression"].values, apply_quantile(values, quantiles), rtol=1e-6
    )
    found = read_attributes(target)
    assert found["details"]["fitted_on"] == path
    assert found["details"]["n_fitted"] == 0
    assert found["details"]["drift_rms"] > 0
    assert [entry["role"] for entry in found["inputs"]] == ["source", "reference_file"]
    assert normalize(source, target, options=NormalizeOptions(reference=path)).state == "unchanged"
    write(tmp_path / "t.tsv", TARGET + 0.5)
    with pytest.raises(StoreError, match=r"normalize\.reference"):
        normalize(source, target, options=NormalizeOptions(reference=path))


def test_normalize__a_study_counts_before_a_file(tmp_path, source):
    path = write(tmp_path / "t.tsv", TARGET)
    normalize(source, old := str(tmp_path / "old"))
    normalize(
        source,
        new := str(tmp_path / "new"),
        reference=old,
        options=NormalizeOptions(reference=path),
    )
    np.testing.assert_array_equal(
        read_array(new, "quantile_reference"), read_array(old, "quantile_reference")
    )
