"""The folds of a comparison as one table; numbers of whole comparisons: tests/studies."""

import numpy as np
import pytest
from pydantic import ValidationError

from dglzarr.errors import StoreError
from dglzarr.stages.compare import CompareOptions, compare
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import CANDIDATES, EVALUATION
from dglzarr.storage.store import open_store, read_attributes
from tests.builders import digests, text, times, write_store

PANELS = ["greedy/2", "random/2", "random-0/2", "random-1/2", "list/3", "random-list-0/2"]
KINDS = ["selector", "selector", "random", "random", "published", "subset"]
FAMILIES = ["greedy", "random", "random", "random", "list", "random of list"]
N_SAMPLES, N_GENES = 4, 5


def write_fold(folder, k):
    """Candidates, and an evaluation whose errors numpy can sum up."""
    genes = [f"g{i}" for i in range(N_GENES)]
    candidates = write_store(
        folder / f"candidates-{k}.zarr",
        CANDIDATES,
        {
            "panel": text(PANELS), "kind": text(KINDS), "family": text(FAMILIES),
            "size": [2, 2, 2, 2, 3, 2], "position": np.arange(3), "gene": text(genes),
        },
    )  # fmt: skip
    rng = np.random.default_rng(k)
    n_panels = 1 + len(PANELS)
    error = rng.uniform(0.5, 1, (n_panels, 1, N_SAMPLES + 1)).astype(np.float32)
    mae = rng.uniform(0.5, 1, (n_panels, 1, 2, N_GENES)).astype(np.float32)
    mae[..., k] = np.nan
    evaluation = write_store(
        folder / f"evaluation-{k}.zarr",
        EVALUATION,
        {
            "panel": text(["mean", *(name.replace("/", "-") for name in PANELS)]),
            "kind": text(["baseline", *KINDS]), "predictor": text(["ridge"]),
            "cohort": text(["test", "other"]), "gene": text(genes), "bound": text(["low", "high"]),
            "judged": np.arange(N_SAMPLES + 1),
            "judged_sample": text([f"s{k}{i}" for i in range(N_SAMPLES + 1)]),
            "judged_series": text([f"GSE{k}{i // 2}" for i in range(N_SAMPLES + 1)]),
            "judged_cohort": text(["test"] * N_SAMPLES + ["other"]),
            "sample_error": error, "mae": mae, "is_target": np.arange(N_GENES) != k,
        },
    )  # fmt: skip
    return evaluation, candidates, error[:, 0, :N_SAMPLES]


@pytest.fixture
def folds(tmp_path):
    evaluations, candidates, errors = zip(*(write_fold(tmp_path, k) for k in range(3)), strict=True)
    return {"source": evaluations, "candidates": candidates}, np.concatenate(errors, axis=1)


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "comparison.zarr")


def test_compare__panels_of_a_family_and_size_make_a_row_of_their_kind(folds, target):
    stores, errors = folds
    compare(target=target, **stores)
    ds = open_store(target)
    assert ds["kind"].values.tolist() == ["baseline", *KINDS]
    rows = ["mean/0", "greedy/2", "random/2", "list/3", "random of list/2"]
    assert ds["row"].values.tolist() == rows
    kinds = ["baseline", "selector", "random", "published", "subset"]
    assert ds["row_kind"].values.tolist() == kinds
    assert ds["n_panels"].values.tolist() == [1, 1, 3, 1, 1]
    assert ds["sample"].values.tolist() == [f"s{k}{i}" for k in range(3) for i in range(4)]
    mean = errors.mean(axis=1, dtype=np.float64)  # (panel,)
    np.testing.assert_allclose(ds["mean_mae"].values[:, 0], mean, rtol=1e-6)
    random = mean[2:5].mean()
    expected = [np.nan, mean[1] - random, np.nan, np.nan, mean[6] - random]
    np.testing.assert_allclose(ds["versus_random"].values[:, 0], expected, rtol=1e-5)
    assert ds["n_random_better"].values[[0, 2, 3], 0].tolist() == [-1, -1, -1]


def test_compare__again_and_with_another_seed(folds, target, tmp_path):
    stores, _ = folds
    compare(target=target, **stores)
    inputs = read_attributes(target)["inputs"]
    assert [entry["role"] for entry in inputs] == [
        *(f"source.evaluation-{k}" for k in range(3)),
        *(f"candidates.candidates-{k}" for k in range(3)),
    ]
    before = times(tmp_path)
    assert compare(target=target, **stores).state == "unchanged"
    assert times(tmp_path) == before
    with pytest.raises(StoreError, match="other parameters: seed: 0 -> 1"):
        compare(target=target, seed=1, **stores)
    assert compare(target=target, seed=1, run=Run(overwrite=True), **stores).state == "new"
    other = str(tmp_path / "other.zarr")
    compare(target=other, seed=1, **stores)
    assert digests(target) == digests(other)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"selectors": ("best",)}, r"--panels: expected names of top-score.*got \['best'\]"),
        ({"selectors": ("greedy",) * 2}, r"--panels: expected each once .*\['greedy', 'greedy'\]"),
        ({"sizes": ()}, r"--sizes: expected numbers of genes, got \[\]"),
        ({"sizes": (5, 0)}, r"--sizes: expected numbers of genes, got \[0, 5\]"),
        ({"sizes": (5, 5)}, r"--sizes: expected each once and at least one, got \[5, 5\]"),
        ({"predictors": ("magic",)}, r"--predictors: expected names of.*got \['magic'\]"),
        ({"predictors": ()}, r"--predictors: expected each once and at least one, got \[\]"),
        ({"n_folds": 1}, r"--folds: expected 2 or more, got 1"),
    ],
)
def test_compare_options__what_cannot_be(asked, message):
    with pytest.raises(ValidationError, match=message):
        CompareOptions(**asked)
