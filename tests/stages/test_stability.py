"""Stability: halves that leave out each other's samples, and how far replicates agree."""

import numpy as np
import pytest

from dglzarr.errors import SchemaError, StoreError
from dglzarr.stages.stability import StabilityOptions, halve, stability
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED, SCORES
from dglzarr.storage.store import open_store
from tests.builders import TRAIN, splits, text, times, write_matrix, write_samples, write_store

GENES = [f"{i}_at" for i in range(6)]
NAMES = ["seed-0", "seed-1", "half-0-a", "half-0-b"]
SCORE = np.array(
    [
        [6, 5, 4, 3, 2, 1],
        [6, 5, 4, 3, 2, 1],
        [6, 5, 3, 4, 2, 1],
        [1, 2, 3, 4, 5, 6],
    ]
)  # (replicate, gene)


@pytest.fixture
def replicates(tmp_path):
    labels = {"gene": text(GENES), "latent": np.arange(1, dtype=np.int32)}
    return [
        write_store(tmp_path / name / "scores.zarr", SCORES, {**labels, "score": row.astype(float)})
        for name, row in zip(NAMES, SCORE, strict=True)
    ]


def test_halve__complementary_halves_of_the_training_samples(tmp_path):
    values = np.random.default_rng(0).normal(8, 1, (60, 5)).astype(np.float32)
    normalized = write_matrix(tmp_path / "n.zarr", NORMALIZED, values)
    keep = np.arange(60) % 7 > 0
    samples = write_samples(tmp_path / "s.zarr", normalized, keep=keep)
    kept = [
        open_store(
            halve(samples, str(tmp_path / half), normalized=normalized, half=half, seed=3).uri
        )
        for half in ("a", "b")
    ]
    a, b = (ds["keep"].values for ds in kept)
    is_training = splits(60) == TRAIN
    assert not (a & b & is_training).any()
    np.testing.assert_array_equal(a | b, keep)
    np.testing.assert_array_equal(a[~is_training], keep[~is_training])
    assert abs((a & is_training).sum() - (b & is_training).sum()) <= 1
    whole = open_store(samples)
    for name in ("gene_mean", "gene_std", "duplicate_of", "centroid"):
        np.testing.assert_array_equal(kept[0][name].values, whole[name].values)
    assert kept[0].attrs["parameters"] == {"half": "a", "seed": 3}
    with pytest.raises(StoreError, match="other parameters: half: 'a' -> 'b'; seed: 3 -> 4"):
        halve(samples, str(tmp_path / "a"), normalized=normalized, half="b", seed=4)


def test_stability__agreement_by_kind(tmp_path, replicates):
    target = str(tmp_path / "stability.zarr")
    summary = stability(replicates, target, replicates=NAMES, n_landmarks=3)
    ds = open_store(target)
    assert ds["replicate"].values.tolist() == ds["other"].values.tolist() == NAMES
    np.testing.assert_array_equal(ds["score"].values, SCORE)
    np.testing.assert_array_equal(ds["n_panels"].values, [3, 3, 2, 2, 1, 1])
    assert float(ds["overlap"].sel(replicate="seed-0", other="half-0-a")) == pytest.approx(2 / 3)
    correlation = ds["rank_correlation"].sel(replicate="seed-0", other="half-0-b")
    assert float(correlation) == pytest.approx(-1)
    # of the halves' ranks 1 2 4 3 5 6 and 6 5 4 3 2 1 the squared differences sum up to 68
    assert summary.details == pytest.approx(
        {
            "by_chance": 0.5,
            "n_in_every_seed": 3,
            "overlap_of_seeds": 1.0,
            "rank_correlation_of_seeds": 1.0,
            "overlap_of_halves": 1 / 3,
            "rank_correlation_of_halves": 1 - 6 * 68 / 210,
        }
    )


def test_stability__without_halves_nothing_is_said_of_them(tmp_path, replicates):
    target = str(tmp_path / "stability.zarr")
    summary = stability(replicates[:2], target, replicates=NAMES[:2], n_landmarks=3)
    assert summary.details["overlap_of_halves"] is None


def test_stability__again_touches_nothing(tmp_path, replicates):
    target = str(tmp_path / "stability.zarr")
    stability(replicates, target, replicates=NAMES, n_landmarks=3)
    before = times(target)
    assert stability(replicates, target, replicates=NAMES, n_landmarks=3).state == "unchanged"
    assert times(target) == before
    with pytest.raises(StoreError, match="n_landmarks: 3 -> 2"):
        stability(replicates, target, replicates=NAMES, n_landmarks=2)
    again = stability(replicates, target, replicates=NAMES, n_landmarks=2, run=Run(overwrite=True))
    assert again.state == "new"


def test_stability__stores_that_are_no_scores(tmp_path, replicates):
    values = np.ones((16, 5), dtype=np.float32)
    other = write_matrix(tmp_path / "n.zarr", NORMALIZED, values)
    target = tmp_path / "stability.zarr"
    with pytest.raises(SchemaError, match="expected schema 'scores', got 'normalized'"):
        stability([replicates[0], other], str(target), replicates=NAMES[:2], n_landmarks=3)
    assert not target.exists()


@pytest.mark.parametrize(("n_seeds", "n_halves"), [(1, 0), (0, 1), (2, -1)])
def test_stability_options__too_few_replicates(n_seeds, n_halves):
    message = "expected at least two replicates, got 1 seeds and 0 splits|greater than or equal"
    with pytest.raises(ValueError, match=message):
        StabilityOptions(n_seeds=n_seeds, n_halves=n_halves)
