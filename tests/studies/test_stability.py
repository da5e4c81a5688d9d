"""Replicates of a study: what they are made of, that they are kept, and how they are compared."""

import shutil

import numpy as np
import pytest

from dglzarr.errors import ConfigError, StoreError
from dglzarr.models.files import load_model
from dglzarr.report.text import reconstruction_line, stability_lines
from dglzarr.stages.stability import StabilityOptions
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import CONTRIBUTIONS
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import mine
from dglzarr.studies.stability import replicate
from tests.builders import digests, times
from tests.studies.test_plan import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stability")
    mine(tiny(folder))
    return folder


@pytest.fixture
def folder(mined, tmp_path):
    return shutil.copytree(mined, tmp_path / "copy")


def stability(settings, *, n_seeds, n_halves, run=Run(), **options):  # noqa: B008
    asked = StabilityOptions(n_seeds=n_seeds, n_halves=n_halves)
    return replicate(settings.model_copy(update={"stability": asked}), run=run, **options)


def replica(folder, name):
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
        assert [p.name for p in replica(folder, name).glob("*.zarr") if "samples" not in p.name
                ] == ["scores.zarr"]  # fmt: skip
    page = (folder / "study" / "report.html").read_text()
    for line in [*stability_lines(summary.uri), reconstruction_line(study.uri("reconstruction"))]:
        assert line in page


def test_stability__finished_replicates_are_kept_and_more_are_added(folder):
    settings = tiny(folder)
    stability(settings, n_seeds=2, n_halves=0)
    before = times(replica(folder, "seed-1")), times(folder / "study/models/seed-1")
    summary = stability(settings, n_seeds=3, n_halves=0)
    assert (times(replica(folder, "seed-1")), times(folder / "study/models/seed-1")) == before
    assert summary.sizes["replicate"] == 3
    assert summary.details["overlap_of_halves"] is None


def test_stability__interrupted_it_goes_on_with_the_same_bytes(folder, tmp_path):
    class StoppedError(Exception):
        pass

    def until_scored(step, run):
        if step.name == "score":
            raise StoppedError
        return step(run)

    settings = tiny(folder)
    other = shutil.copytree(folder, tmp_path / "other")
    stability(tiny(other), n_seeds=1, n_halves=1)
    with pytest.raises(StoppedError):
        stability(settings, n_seeds=1, n_halves=1, execute=until_scored)
    stability(settings, n_seeds=1, n_halves=1)
    for name in ("half-0-a", "half-0-b"):
        assert digests(replica(folder, name) / "scores.zarr") == digests(
            replica(other, name) / "scores.zarr"
        )


def test_stability__other_settings_are_refused_or_replaced(folder):
    stability(tiny(folder), n_seeds=2, n_halves=0)
    settings = tiny(folder, train={"epochs": 3})
    with pytest.raises(StoreError, match=r"seed-0: expected it made with .* got 'other settings'"):
        stability(settings, n_seeds=2, n_halves=0, run=Run(overwrite=True))
    mine(settings, run=Run(overwrite=True))
    assert "How much of a panel" not in (folder / "study" / "report.html").read_text()
    with pytest.raises(
        StoreError, match=r"seed-1: was made with other parameters: train\.epochs: 2 -> 3"
    ):
        stability(settings, n_seeds=2, n_halves=0)
    stability(settings, n_seeds=2, n_halves=0, run=Run(overwrite=True))
    assert load_model(folder / "study/models/seed-1").parameters["epochs"] == 3
    assert "How much of a panel" in (folder / "study" / "report.html").read_text()


def test_stability__scores_of_other_settings_are_refused(folder):
    settings = tiny(folder, score={"layer": "pre-activation"})
    with pytest.raises(
        StoreError, match=r"contributions\.zarr: expected it made with .* Run 'dglzarr mine'"
    ):
        stability(settings, n_seeds=2, n_halves=0)


@pytest.mark.parametrize("aggregation", ["mean-abs", "variance-weighted"])
def test_stability__encodes_where_latent_units_weigh(folder, aggregation):
    settings = tiny(folder, score={"aggregation": aggregation})
    mine(settings, run=Run(overwrite=True))
    run = []

    def noted(step, how):
        run.append(step.name)
        return step(how)

    stability(settings, n_seeds=2, n_halves=0, execute=noted)
    encoded = ["encode"] if aggregation == "variance-weighted" else []
    assert run == ["train", *encoded, "explain", "score"]


def test_stability__removes_what_a_killed_run_left(folder):
    stability(tiny(folder), n_seeds=2, n_halves=0)
    (store,) = replica(folder, "seed-1").rglob("contributions.zarr")
    left = store / "contribution" / "c" / "0"
    left.mkdir(parents=True)
    stability(tiny(folder), n_seeds=2, n_halves=0)
    assert not left.parent.exists()
    assert not [a.name for a in CONTRIBUTIONS.region_arrays if (store / a.name / "c").exists()]
    assert (store / "sample" / "c").exists(), "labels are kept"


@pytest.mark.parametrize(("n_seeds", "n_halves"), [(1, 0), (0, 1), (2, -1)])
def test_stability__too_few_replicates(mined, n_seeds, n_halves):
    asked = {"n_seeds": n_seeds, "n_halves": n_halves}
    with pytest.raises(
        ConfigError, match=r"stability.*(at least two replicates, got|greater than)"
    ):
        tiny(mined, stability=asked)


def test_stability__needs_scores(folder):
    shutil.rmtree(folder / "study" / "scores.zarr")
    with pytest.raises(StoreError, match=r"scores\.zarr: no such store"):
        stability(tiny(folder), n_seeds=2, n_halves=0)
