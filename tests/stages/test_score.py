import numpy as np
import pytest

from dglzarr.errors import ConfigError, StoreError
from dglzarr.stages.score import check_group_by
from dglzarr.storage import store
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    LENGTHS,
    TEST,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    splits,
    times,
    write_model,
)
from tests.stages.networks import Study

N_SAMPLES = 100
OVERWRITE = Run(overwrite=True)


@pytest.mark.parametrize("reference", ["mean", "zeros"])
@pytest.mark.parametrize("layer", ["latent", "pre-activation"])
def test_score__is_the_mean_over_kept_training_samples(study, reference, layer):
    study.explain(deeplift_reference=reference, layer=layer)
    summary = study.score()
    assert summary.details["n_scored"] == study.averaged.sum()
    phi = np.abs(study.contributions_by_kernel(reference, layer=layer))
    found = open_store(study.scores)
    wanted = phi[study.averaged].mean(axis=0)
    np.testing.assert_allclose(found["latent_score"].values.T, wanted, rtol=2e-4, atol=1e-6)
    known = np.where(np.isnan(study.values), 0, phi.mean(axis=2))
    wanted = known[study.averaged].mean(axis=0)
    np.testing.assert_allclose(found["score"].values, wanted, rtol=1e-4)


@pytest.mark.parametrize("aggregation", ["mean", "max", "variance-weighted"])
def test_score__aggregations(study, aggregation):
    latent = study.encode().uri if aggregation == "variance-weighted" else None
    study.explain(aggregation=aggregation, latent=latent)
    study.score()
    phi = study.contributions_by_kernel()
    by_sample = {
        "mean": phi.mean(axis=2),
        "max": np.abs(phi).max(axis=2),
        "variance-weighted": np.abs(phi) @ read_array(study.contributions, "latent_weight"),
    }[aggregation]
    scores = open_store(study.scores)
    wanted = np.abs(by_sample[study.averaged].mean(axis=0))
    np.testing.assert_allclose(scores["score"].values, wanted, rtol=1e-3, atol=1e-6)
    by_unit = phi if aggregation == "mean" else np.abs(phi)
    wanted = by_unit[study.averaged].mean(axis=0).T
    np.testing.assert_allclose(scores["latent_score"].values, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("shard", [16, 112])
def test_score__groups(tmp_path, values, shard):
    group = np.array(["a", "b", "", "c"], dtype=object)[np.arange(N_SAMPLES) % 4]
    group[:20] = "a"
    group[np.flatnonzero(splits(N_SAMPLES) == TEST)[:3]] = "only a test sample"
    study = Study(tmp_path, values, shard=shard, tissues=group.tolist())
    study.explain()
    said = []
    study.score("tissue", run=Run(on_progress=lambda what, *_: said.append(what)))
    assert set(said) == {"groups"}
    found = open_store(study.scores)
    assert found["group"].values.tolist() == ["a", "b", "c"]
    phi = np.abs(study.contributions_by_kernel()).mean(axis=2)
    phi[np.isnan(values)] = 0
    for name in found["group"].values:
        chosen = study.averaged & (group == name)
        row = found.sel(group=name)
        assert int(row["n_grouped"]) == chosen.sum()
        wanted = phi[chosen].mean(axis=0)
        np.testing.assert_allclose(row["group_score"].values, wanted, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("reference", ["mean", "zeros", "samples"])
def test_score__groups_of_a_coordinate_are_the_score_together(study, reference):
    study.explain(deeplift_reference=reference)
    study.score("series")
    found = open_store(study.scores)
    assert found["group"].values.tolist() == ["GSE1"]
    np.testing.assert_allclose(found["group_score"].values[0], found["score"].values, rtol=1e-6)
    with pytest.raises(
        StoreError, match=r"other parameters: score\.group_by: 'series' -> 'platform'"
    ):
        study.score("platform")
    assert "group" not in open_store(study.score(run=OVERWRITE).uri)


def test_score__unknown_label_to_group_by(study):
    message = r"group_by: expected one of series, .*, got 'organ'"
    with pytest.raises(ConfigError, match=message):
        check_group_by([open_store(study.source)], "organ")
    check_group_by([open_store(study.source)], "platform")
    check_group_by([open_store(study.source)], None)
    study.explain()
    study.score()
    before = digests(study.scores)
    with pytest.raises(ConfigError, match=message):
        study.score("organ", run=OVERWRITE)
    assert digests(study.scores) == before


def test_score__labels_and_lineage(study):
    study.explain()
    study.score()
    found, before = open_store(study.scores), open_store(study.source)
    for name in ("gene", "gene_id", "gene_symbol"):
        np.testing.assert_array_equal(found[name].values, before[name].values)
    assert found.attrs["inputs"] == [
        {
            "role": "source",
            "uri": study.contributions,
            "store_id": read_attributes(study.contributions)["store_id"],
        }
    ]
    assert found.attrs["parameters"] == {"group_by": None}


def test_score__shard_length_does_not_matter(tmp_path, values):
    found = []
    for shard in LENGTHS:
        study = Study(tmp_path / str(shard), values, shard=shard)
        study.explain()
        study.score()
        found.append(read_array(study.scores, "score"))
    for scores in found[1:]:
        np.testing.assert_allclose(scores, found[0], rtol=1e-6)


def test_score__test_samples_and_dropped_ones_do_not_leak(tmp_path, values):
    keep = np.random.default_rng(3).random(len(values)) < 0.9
    study = Study(tmp_path / "a", values, keep=keep)
    changed = np.where(study.averaged[:, None], values, values**2)
    other = Study(tmp_path / "b", changed, keep=keep)
    for made in (study, other):
        made.explain()
        made.score("series")
    for name in ("score", "latent_score", "group_score"):
        np.testing.assert_array_equal(
            read_array(study.scores, name), read_array(other.scores, name)
        )


def test_score__fails_half_way_and_goes_on(tmp_path, study, monkeypatch):
    whole = study.at(tmp_path / "whole")
    for made in (whole, study):
        made.explain()
    whole.score("series")
    with monkeypatch.context() as broken:
        broken.setattr(store, "finish", Breaks(store.finish, 0))
        with pytest.raises(BrokenError):
            study.score("series")
    assert not is_complete(study.scores)
    assert study.score("series").state == "resumed"
    assert digests(study.scores) == digests(whole.scores)


def test_score__second_run_touches_nothing(study, tmp_path):
    study.explain()
    first = study.score()
    before = times(tmp_path), times(study.folder)
    second = study.score()
    assert (first.state, second.state) == ("new", "unchanged")
    assert (times(tmp_path), times(study.folder)) == before


def test_score__contributions_that_were_made_anew(tmp_path, values):
    study = Study(tmp_path, values)
    study.explain()
    study.score()
    before = read_array(study.scores, "score")
    write_model(study.model, study.source, study.samples, seed=1)
    study.explain(run=OVERWRITE)
    message = "scores: was made from other inputs: source: contributions was made anew"
    with pytest.raises(StoreError, match=message):
        study.score()
    study.score(run=OVERWRITE)
    phi = np.abs(study.contributions_by_kernel())[study.averaged].mean(axis=(0, 2))
    np.testing.assert_allclose(read_array(study.scores, "score"), phi, rtol=1e-4)
    assert not np.allclose(before, phi, rtol=1e-3)


def test_score__opening_computes_nothing(study):
    study.explain()
    study.score()
    with no_computing():
        open_store(study.scores)
