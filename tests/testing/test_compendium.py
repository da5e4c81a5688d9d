import json
import re
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dglzarr.kernels.duplicates import find_near_duplicates
from dglzarr.kernels.quantile import apply_quantile, finish_quantile, sum_sorted
from dglzarr.sources import read_source
from dglzarr.testing import write_compendium

LIMITS = {"exact": (0, 0), "near": (0.90, 0.99), "apart": (1.01, 1.10)}


def values_of(path):
    with h5py.File(path) as file:
        return file["0/DATA/0/matrix"][:]


def truth_of(path):
    return json.loads(path.with_suffix(".truth.json").read_text(encoding="utf-8"))


def rows_of(pair):
    return tuple(int(pair[role].removeprefix("GSM")) - 1_000_001 for role in ("copy", "original"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_compendium(
        tmp_path_factory.mktemp("compendium") / "big.gctx",
        n_samples=700,
        n_genes=1000,
        n_duplicates=90,
    )


@pytest.fixture(scope="module")
def source(path):
    return read_source(path)


@pytest.fixture(scope="module")
def values(path):
    return values_of(path)


@pytest.fixture(scope="module")
def pairs(path):
    return truth_of(path)["pairs"]


def test_write_compendium__layout(path, source):
    assert source.format == "gctx"
    assert (len(source.samples), len(source.genes)) == (700, 1000)
    assert len(set(source.samples)) == 700
    assert len(set(source.genes)) == 1000
    assert all(re.fullmatch(r"GSM\d{7}", sample) for sample in source.samples)
    assert all(re.fullmatch(r"\d{6}_at", gene) for gene in source.genes)
    assert set(source.labels) == {"series_id", "tissue"}
    with h5py.File(path) as file:
        matrix = file["0/DATA/0/matrix"]
        assert file.attrs["version"] == "GCTX1.0"
        assert (matrix.shape, matrix.dtype, matrix.chunks) == ((700, 1000), np.float32, None)


def test_write_compendium__values_are_skewed_between_4_and_15(values):
    low, quarter, median, most, high = np.quantile(values, [0, 0.25, 0.5, 0.9, 1])
    assert (low >= 4, high <= 15) == (True, True)
    assert 4.8 < quarter < median < 6.5
    assert most < 9
    assert high > 13


def test_write_compendium__every_sample_has_a_distribution_of_its_own(values):
    ascending = np.sort(values, axis=1)
    assert ascending[:, 500].std() > 0.05
    assert (ascending[:, 900] - ascending[:, 100]).std() > 0.05


def test_write_compendium__programs_are_of_low_rank(values):
    centred = values - values.mean(0)
    variance = np.linalg.svd(centred, compute_uv=False) ** 2
    assert variance[:70].sum() > 0.6 * variance.sum()
    assert variance[0] < 0.2 * variance.sum()


def test_write_compendium__samples_of_a_series_resemble_each_other(source, values, pairs):
    same = np.equal.outer(*[source.labels["series_id"]] * 2)
    same_tissue = np.equal.outer(*[source.labels["tissue"]] * 2)
    correlation = np.corrcoef(values - values.mean(0))
    for pair in pairs:
        correlation[rows_of(pair)] = correlation[rows_of(pair)[::-1]] = np.nan
    np.fill_diagonal(correlation, np.nan)
    assert np.nanmean(correlation[same]) > np.nanmean(correlation[~same & same_tissue]) + 0.02
    assert np.nanmean(correlation[same_tissue]) > np.nanmean(correlation[~same_tissue]) + 0.2


def series_sizes(source):
    """The sizes of the series, in the order of the file, each one run of samples."""
    series = np.array(source.labels["series_id"])
    starts = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
    assert len(starts) == len(set(series))
    return np.diff(np.append(starts, len(series)))


def test_write_compendium__series_have_5_to_300_samples(tmp_path):
    path = write_compendium(tmp_path / "a.gctx", n_samples=5001, n_genes=200, n_duplicates=0)
    source = read_source(path)
    sizes = series_sizes(source)
    assert sizes.min() >= 5
    assert 100 < sizes.max() <= 300
    assert len(set(sizes)) > 20
    assert len(set(source.labels["tissue"])) > 10
    labels = set(zip(source.labels["series_id"], source.labels["tissue"], strict=True))
    assert len(labels) == len(sizes)


@pytest.mark.parametrize("n_series", [1, 7, 50])
def test_write_compendium__number_of_series(tmp_path, n_series):
    path = write_compendium(tmp_path / "a.gctx", n_samples=50, n_genes=200, n_series=n_series)
    assert len(series_sizes(read_source(path))) == n_series


def test_write_compendium__same_seed_same_bytes(tmp_path):
    size = {"n_samples": 300, "n_genes": 200}
    one = write_compendium(tmp_path / "a.gctx", **size, seed=3)
    same = write_compendium(tmp_path / "b" / "a.gctx", **size, seed=3)
    other = write_compendium(tmp_path / "c" / "a.gctx", **size, seed=4)
    assert one.read_bytes() == same.read_bytes()
    assert truth_of(one) == truth_of(same)
    assert np.abs(values_of(one) - values_of(other)).min(axis=1).max() > 0


def test_write_compendium__longer_one_begins_alike(tmp_path, values, pairs):
    """The shorter one ends inside a block; only copies depend on the length."""
    path = write_compendium(tmp_path / "a.gctx", n_samples=400, n_genes=1000, n_series=None)
    copies = {rows_of(pair)[0] for pair in [*pairs, *truth_of(path)["pairs"]]}
    rows = [row for row in range(390) if row not in copies]
    assert len(rows) > 300
    np.testing.assert_array_equal(values_of(path)[rows], values[rows])


def test_write_compendium__pairs_are_disjoint_and_all_over_the_file(source, pairs):
    rows = np.array([rows_of(pair) for pair in pairs])
    assert len(pairs) == 90
    assert len(np.unique(rows)) == 180
    assert [sum(pair["kind"] == kind for pair in pairs) for kind in LIMITS] == [30, 30, 30]
    assert (rows[:, 0] > rows[:, 1]).all()
    blocks = {tuple(pair) for pair in rows // 256}
    assert blocks == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    series = np.array(source.labels["series_id"])[rows]
    assert (series[:, 0] != series[:, 1]).mean() > 0.7


def test_write_compendium__raw_distances(values, pairs):
    for pair in pairs:
        copy, original = values[list(rows_of(pair))].astype(np.float64)
        assert np.linalg.norm(copy - original) == pytest.approx(pair["raw_distance"], rel=1e-9)
        assert (pair["raw_distance"] == 0) == (pair["kind"] == "exact")


@pytest.mark.parametrize("fitted", ["all", "half of the series"])
def test_write_compendium__normalized_distances_by_brute_force(source, values, pairs, fitted):
    series = np.array(source.labels["series_id"])
    rows = np.isin(series, np.unique(series)[::2]) if fitted != "all" else slice(None)
    normalized = apply_quantile(values, finish_quantile(sum_sorted(values[rows])))
    distance = cdist(normalized, normalized)
    for pair in pairs:
        low, high = LIMITS[pair["kind"]]
        assert low <= distance[rows_of(pair)] <= high
        assert distance[rows_of(pair)] == pytest.approx(pair["distance"], rel=0.01)
        distance[rows_of(pair)] = distance[rows_of(pair)[::-1]] = np.inf
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 2
    assert find_near_duplicates(normalized, threshold=1.0).sum() == 700 - 60


def test_write_compendium__distances_at_full_width(tmp_path):
    path = write_compendium(tmp_path / "a.gctx", n_samples=260, n_duplicates=12)
    values = values_of(path)
    assert values.shape == (260, 22268)
    reference = finish_quantile(sum_sorted(values))
    for pair in truth_of(path)["pairs"]:
        copy, original = apply_quantile(values[list(rows_of(pair))], reference).astype(np.float64)
        assert np.linalg.norm(copy - original) == pytest.approx(pair["distance"], rel=0.005)
        low, high = LIMITS[pair["kind"]]
        assert low <= pair["distance"] <= high


def test_write_compendium__progress(tmp_path):
    calls = []
    write_compendium(
        tmp_path / "a.gctx",
        n_samples=600,
        n_genes=200,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(256, 600), (512, 600), (600, 600)]


def test_write_compendium__memory_does_not_grow_with_the_samples(tmp_path):
    tracemalloc.start()
    try:
        path = write_compendium(tmp_path / "a.gctx", n_samples=9000, n_genes=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 36e6
    assert peak < 12e6


def test_write_compendium__finished_file_is_left_alone(tmp_path):
    path = write_compendium(tmp_path / "a.gctx", n_samples=60, n_genes=200)
    before = path.stat()
    write_compendium(path, n_samples=60, n_genes=200, n_duplicates=1)
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert {p.name for p in tmp_path.iterdir()} == {"a.gctx", "a.truth.json"}


@pytest.mark.parametrize("damage", ["truth gone", "cut", "file gone"])
def test_write_compendium__damaged_file_is_written_anew(tmp_path, damage):
    path = write_compendium(tmp_path / "a.gctx", n_samples=60, n_genes=200)
    content = path.read_bytes()
    if damage == "truth gone":
        path.with_suffix(".truth.json").unlink()
        path.write_bytes(bytes(len(content)))
    elif damage == "cut":
        path.write_bytes(content[:-4])
    else:
        path.unlink()
    write_compendium(path, n_samples=60, n_genes=200)
    assert path.read_bytes() == content
    assert truth_of(path)["nbytes"] == len(content)


@pytest.mark.parametrize(
    "other",
    [{"n_samples": 61}, {"n_genes": 201}, {"n_series": 3}, {"n_duplicates": 2}, {"seed": 1}],
    ids=lambda other: next(iter(other)),
)
def test_write_compendium__other_arguments_write_anew(tmp_path, other):
    size = {"n_samples": 60, "n_genes": 200}
    content = write_compendium(tmp_path / "a.gctx", **size).read_bytes()
    path = write_compendium(tmp_path / "a.gctx", **(size | other))
    assert path.read_bytes() != content
    assert truth_of(path)["parameters"].items() >= other.items()


def test_write_compendium__failure_leaves_nothing(tmp_path):
    def fail(done, total):
        raise OSError(f"disk full at {done} of {total}")

    write_compendium(tmp_path / "a.gctx", n_samples=60, n_genes=200)
    with pytest.raises(OSError, match="disk full at 256 of 600"):
        write_compendium(tmp_path / "a.gctx", n_samples=600, n_genes=200, on_progress=fail)
    assert not list(tmp_path.iterdir())


def test_write_compendium__killed_leaves_no_file_that_looks_whole(tmp_path):
    code = (
        "import os, sys; from dglzarr.testing import write_compendium\n"
        "write_compendium(sys.argv[1], n_samples=600, n_genes=200,"
        " on_progress=lambda *_: os.kill(os.getpid(), 9))"
    )
    path = tmp_path / "a.gctx"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"a\.gctx\.\w+\.partial", left.name)
    write_compendium(path, n_samples=600, n_genes=200)
    assert {p.name for p in tmp_path.iterdir()} == {"a.gctx", "a.truth.json"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "a.gct"}, r"path: expected a name ending '\.gctx', got 'a\.gct'"),
        ({"n_samples": 1}, "n_samples: expected 2 to 1000000000, got 1"),
        ({"n_genes": 199}, "n_genes: expected 200 to 1000000, got 199"),
        ({"n_series": 0}, "n_series: expected 1 to 60, got 0"),
        ({"n_series": 61}, "n_series: expected 1 to 60, got 61"),
        ({"n_duplicates": 31}, "n_duplicates: expected 0 to 30, got 31"),
        ({"n_duplicates": -1}, "n_duplicates: expected 0 to 30, got -1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_write_compendium__bad_arguments(tmp_path, arguments, message):
    arguments = {"path": "a.gctx", "n_samples": 60, "n_genes": 200} | arguments
    path = tmp_path / arguments.pop("path")
    with pytest.raises(ValueError, match=message):
        write_compendium(path, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_samples", [2, 4, 5, 9, 256, 257])
def test_write_compendium__small_sizes(tmp_path, n_samples):
    path = write_compendium(
        tmp_path / "a.gctx", n_samples=n_samples, n_genes=200, n_duplicates=n_samples // 2
    )
    assert values_of(path).shape == (n_samples, 200)
    assert len(truth_of(path)["pairs"]) == n_samples // 2
