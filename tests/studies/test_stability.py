"""Replicates of a study: what they are made of, that they are kept, and how they are compared."""

import shutil

import numpy as np
import pytest
from tests.studies.test_plan import tiny

from dglzarr.errors import ConfigError, StoreError
from dglzarr.models.files import load_model
from dglzarr.report.text import reconstruction_line, stability_lines
from dglzarr.stages.stability import compare_replicates, halve
from dglzarr.storage.store import open_store
from dglzarr.studies.plan import STAGES, mine, open_study
from dglzarr.studies.stability import stability
from tests.builders import digests, times

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stability")
    mine(tiny(folder), only=STAGES)
    return folder


@pytest.fixture
def folder(mined, tmp_path):
    return shutil.copytree(mined, tmp_path / "copy")


def replicate(folder, name):
    (found,) = (folder / "study" / "stability").glob(f"*/{name}")
    return found


def test_stability__replicates_of_seeds_and_halves(folder):
    settings = tiny(folder)
    summary = stability(settings, n_seeds=3, n_halves=1)
    study = open_study(settings.root)
    ds = open_store(summary.uri)
    names = ["seed-0", "seed-1", "seed-2", "half-0-a", "half-0-b"]
    assert ds["replicate"].values.tolist() == ds["other"].values.tolist() == names
    np.testing.assert_allclose(
        ds["score"].values[0], open_store(study.uri("scores"))["score"].values, rtol=1e-6
    )
    panels = ds["rank"].values <= settings.select.n_landmarks
    assert (panels.sum(axis=1) == settings.select.n_landmarks).all()
    np.testing.assert_array_equal(ds["n_panels"].values, panels.sum(axis=0))
    shared = (panels[1] & panels[3]).sum() / settings.select.n_landmarks
    assert float(ds["overlap"].sel(replicate="seed-1", other="half-0-a")) == shared
    assert len({row.tobytes() for row in ds["score"].values}) == 5
    assert summary.details["by_chance"] == pytest.approx(5 / 24)
    assert summary.details["n_in_every_seed"] == panels[:3].all(axis=0).sum()
    pairs = [ds["overlap"].values[i, j] for i in range(3) for j in range(3) if i != j]
    assert summary.details["overlap_of_seeds"] == pytest.approx(np.mean(pairs))
    assert load_model(folder / "study/models/seed-2").config["seed"] == 2
    for name in names[1:]:
        assert [p.name for p in replicate(folder, name).glob("*.zarr") if "samples" not in p.name
                ] == ["scores.zarr"]  # fmt: skip
    page = (folder / "study" / "report.html").read_text()
    for line in [*stability_lines(summary.uri), reconstruction_line(study.uri("reconstruction"))]:
        assert line in page


def test_stability__halves_are_complementary_halves_of_the_training_samples(folder):
    settings = tiny(folder)
    study = open_study(settings.root)
    whole, split = open_store(study.uri("samples")), open_store(study.uri("normalized"))["split"]
    is_training = split.values == 0
    kept = [
        open_store(
            halve(
                study.uri("samples"), str(folder / part), normalized=study.uri("normalized"),
                part=part, seed=3,
            ).uri
        )
        for part in "ab"
    ]  # fmt: skip
    a, b = (ds["keep"].values for ds in kept)
    keep = whole["keep"].values
    assert not (a & b & is_training).any()
    np.testing.assert_array_equal((a | b), keep)
    np.testing.assert_array_equal(a[~is_training], keep[~is_training])
    assert abs((a & is_training).sum() - (b & is_training).sum()) <= 1
    np.testing.assert_array_equal(kept[0]["gene_mean"].values, whole["gene_mean"].values)


def test_stability__finished_replicates_are_kept_and_more_are_added(folder):
    settings = tiny(folder)
    stability(settings, n_seeds=2, n_halves=0)
    before = times(replicate(folder, "seed-1")), times(folder / "study/models/seed-1")
    summary = stability(settings, n_seeds=3, n_halves=0)
    assert (times(replicate(folder, "seed-1")), times(folder / "study/models/seed-1")) == before
    assert summary.sizes["replicate"] == 3
    assert summary.details["overlap_of_halves"] is None


def test_stability__interrupted_it_goes_on_with_the_same_bytes(folder, tmp_path):
    class StoppedError(Exception):
        pass

    def until_scored(step):
        if step.name == "score":
            raise StoppedError
        return step()

    settings = tiny(folder)
    other = shutil.copytree(folder, tmp_path / "other")
    stability(tiny(other), n_seeds=1, n_halves=1)
    with pytest.raises(StoppedError):
        stability(settings, n_seeds=1, n_halves=1, run=until_scored)
    stability(settings, n_seeds=1, n_halves=1)
    for name in ("half-0-a", "half-0-b"):
        assert digests(replicate(folder, name) / "scores.zarr") == digests(
            replicate(other, name) / "scores.zarr"
        )


def test_stability__other_settings_are_refused_or_replaced(folder):
    stability(tiny(folder), n_seeds=2, n_halves=0)
    settings = tiny(folder, train={"epochs": 3})
    with pytest.raises(StoreError, match=r"seed-0: expected it made with .* got 'other settings'"):
        stability(settings, n_seeds=2, n_halves=0, overwrite=True)
    mine(settings, only=STAGES, overwrite=True)
    assert "How much of a panel" not in (folder / "study" / "report.html").read_text()
    with pytest.raises(StoreError, match="seed-1: was made with other parameters: epochs 2 -> 3"):
        stability(settings, n_seeds=2, n_halves=0)
    stability(settings, n_seeds=2, n_halves=0, overwrite=True)
    assert load_model(folder / "study/models/seed-1").parameters["epochs"] == 3
    assert "How much of a panel" in (folder / "study" / "report.html").read_text()


def test_stability__scores_of_other_settings_are_refused(folder):
    settings = tiny(folder, score={"layer": "pre-activation"})
    with pytest.raises(
        StoreError, match=r"scores\.zarr: expected it made with .* Run 'dglzarr mine'"
    ):
        stability(settings, n_seeds=2, n_halves=0)


@pytest.mark.parametrize("aggregation", ["mean-abs", "variance-weighted"])
def test_stability__encodes_where_latent_units_weigh(folder, aggregation):
    settings = tiny(folder, score={"aggregation": aggregation})
    mine(settings, only=STAGES, overwrite=True)
    run = []

    def noted(step):
        run.append(step.name)
        return step()

    stability(settings, n_seeds=2, n_halves=0, run=noted)
    assert run == ["train", *(["encode"] if aggregation == "variance-weighted" else []), "score"]


def test_stability__removes_what_a_killed_run_left(folder):
    stability(tiny(folder), n_seeds=2, n_halves=0)
    left = replicate(folder, "seed-1") / "contributions.zarr"
    left.mkdir()
    stability(tiny(folder), n_seeds=2, n_halves=0)
    assert not left.exists()


@pytest.mark.parametrize(("n_seeds", "n_halves"), [(1, 0), (0, 1), (2, -1)])
def test_stability__too_few_replicates(mined, n_seeds, n_halves):
    with pytest.raises(ConfigError, match="expected at least two replicates, got"):
        stability(tiny(mined), n_seeds=n_seeds, n_halves=n_halves)


def test_stability__needs_scores(folder):
    shutil.rmtree(folder / "study" / "scores.zarr")
    with pytest.raises(StoreError, match=r"scores\.zarr: no such store"):
        stability(tiny(folder))


def test_compare_replicates__again_touches_nothing(mined, tmp_path):
    scores = open_study(tiny(mined).root).uri("scores")
    arguments = {"replicates": {"seed-0": scores, "seed-1": scores}, "n_landmarks": 5}
    target = str(tmp_path / "stability.zarr")
    first = compare_replicates(target, **arguments)
    assert compare_replicates(target, **arguments).state == "unchanged"
    assert first.details["overlap_of_seeds"] == 1
    assert first.details["rank_correlation_of_seeds"] == pytest.approx(1)
