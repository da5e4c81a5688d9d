import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dglzarr import find_near_duplicates
from dglzarr.errors import DglzarrError, StoreError
from dglzarr.stages import dedup as stage
from dglzarr.stages.dedup import DedupOptions, dedup, dedup_more
from dglzarr.storage import store
from dglzarr.storage.cluster import ClusterOptions, client
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    LENGTHS,
    TEST,
    TRAIN,
    VALIDATION,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    older_study,
    splits,
    times,
    write_matrix,
)

N_SAMPLES, N_GENES = 100, 30


def plant(values, copy, original, distance, rng):
    """Let one row stand at a distance from another."""
    step = rng.normal(size=values.shape[1])
    values[copy] = values[original] + distance * step / np.linalg.norm(step)


@pytest.fixture(scope="module")
def split():
    return splits(N_SAMPLES)


@pytest.fixture(scope="module")
def planted(split):
    """Copies near and far, within a region and across, in all splits; who is to be dropped."""
    rng = np.random.default_rng(5)
    values = rng.uniform(4, 14, (N_SAMPLES, N_GENES))
    train, validation, test = (np.flatnonzero(split == s) for s in (TRAIN, VALIDATION, TEST))
    plant(values, train[1], train[0], 0.5, rng)  # same region
    plant(values, train[-1], train[2], 0.9, rng)  # first and last region
    plant(values, train[-2], train[3], 1.1, rng)  # just too far
    plant(values, test[0], train[40], 0.3, rng)  # the test sample goes, wherever it stands
    plant(values, train[-5], test[1], 0.3, rng)  # and here too, though it comes first
    plant(values, test[3], test[2], 0.0, rng)
    plant(values, validation[0], train[10], 0.7, rng)
    dropped = {
        train[1]: train[0],
        train[-1]: train[2],
        test[0]: train[40],
        test[1]: train[-5],
        test[3]: test[2],
        validation[0]: train[10],
    }
    return values.astype(np.float32), {int(a): int(b) for a, b in dropped.items()}


@pytest.fixture(scope="module")
def source(tmp_path_factory, planted, split):
    folder = tmp_path_factory.mktemp("study")
    return write_matrix(folder / "normalized.zarr", NORMALIZED, planted[0], split=split)


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "samples.zarr")


def brute_force(values, split, threshold):
    """Greedy, training samples first, from all distances."""
    distance = cdist(values.astype(np.float64), values.astype(np.float64))
    kept, repeats = [], {}
    for i in [*np.flatnonzero(split == TRAIN), *np.flatnonzero(split != TRAIN)]:
        near = [j for j in kept if distance[i, j] < threshold]
        if near:
            repeats[int(i)] = int(min(near, key=lambda j: distance[i, j]))
        else:
            kept.append(i)
    return repeats


def repeats(uri):
    ds = open_store(uri)
    place = {str(s): i for i, s in enumerate(ds["sample"].values)}
    dropped = np.flatnonzero(~ds["keep"].values)
    assert (ds["duplicate_of"].values[ds["keep"].values] == "").all()
    return {int(i): place[str(ds["duplicate_of"].values[i])] for i in dropped}


def test_dedup__drops_the_planted_copies(source, target, planted, split):
    values, dropped = planted
    dedup(source, target, options=DedupOptions(n_clusters=7))
    assert repeats(target) == dropped == brute_force(values, split, 1.0)


@pytest.mark.parametrize("n_clusters", [1, 40, 1000])
def test_dedup__clusters_do_not_matter(source, target, planted, n_clusters):
    summary = dedup(source, target, options=DedupOptions(n_clusters=n_clusters))
    assert repeats(target) == planted[1]
    n_train = int((splits(N_SAMPLES) == TRAIN).sum())
    assert summary.sizes["cluster_index"] == min(n_clusters, n_train)


@pytest.mark.parametrize("threshold", [0.0, 0.4, 1.2, 18.0])
def test_dedup__threshold(source, target, planted, split, threshold):
    summary = dedup(source, target, options=DedupOptions(threshold=threshold, n_clusters=5))
    wanted = brute_force(planted[0], split, threshold)
    assert repeats(target) == wanted
    assert summary.details["n_dropped"] == len(wanted)
    assert summary.details["n_dropped_test"] == sum(split[i] == TEST for i in wanted)
    assert threshold < 10 or len(wanted) > 20


def test_dedup__training_samples_alone_are_find_near_duplicates(tmp_path, target, planted):
    all_train = np.zeros(N_SAMPLES, dtype=np.int8)
    source = write_matrix(tmp_path / "n", NORMALIZED, planted[0], split=all_train)
    dedup(source, target, options=DedupOptions(n_clusters=5))
    np.testing.assert_array_equal(read_array(target, "keep"), find_near_duplicates(planted[0]))


def test_dedup__dgex_rule_looks_within_clusters(tmp_path, planted):
    all_train = np.zeros(N_SAMPLES, dtype=np.int8)
    source = write_matrix(tmp_path / "n", NORMALIZED, planted[0], split=all_train)
    dedup(
        source,
        one := str(tmp_path / "one"),
        options=DedupOptions(n_clusters=1, rule="dgex", threshold=18.0),
    )
    wanted = find_near_duplicates(planted[0], rule="dgex", threshold=18.0)
    np.testing.assert_array_equal(read_array(one, "keep"), wanted)
    dedup(
        source,
        many := str(tmp_path / "many"),
        options=DedupOptions(n_clusters=30, rule="dgex", threshold=18.0),
    )
    assert read_array(many, "keep").sum() > wanted.sum()


def test_dedup__moments_are_numpy_over_kept_training_samples(source, target, planted, split):
    dedup(source, target, options=DedupOptions(n_clusters=5))
    kept = planted[0][(split == TRAIN) & read_array(target, "keep")].astype(np.float64)
    np.testing.assert_allclose(read_array(target, "gene_mean"), kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(read_array(target, "gene_std"), kept.std(axis=0), rtol=1e-12)
    assert read_attributes(target)["details"]["n_fitted"] == len(kept)


def test_dedup__nearest_distance(source, target, planted):
    dedup(source, target, options=DedupOptions(n_clusters=5))
    distance = cdist(planted[0].astype(np.float64), planted[0].astype(np.float64))
    np.fill_diagonal(distance, np.inf)
    nearest = distance.min(axis=1)
    np.testing.assert_allclose(
        read_array(target, "nearest_distance"), np.where(nearest < 1, nearest, np.nan), rtol=1e-5
    )


def test_dedup__cluster_is_the_nearest_centroid(source, target, planted):
    dedup(source, target, options=DedupOptions(n_clusters=5))
    centroids = read_array(target, "centroid").astype(np.float64)
    nearest = cdist(planted[0].astype(np.float64), centroids).argmin(axis=1)
    np.testing.assert_array_equal(read_array(target, "cluster"), nearest)


def test_dedup__cluster_without_training_samples_takes_none(tmp_path, target):
    values = np.full((60, 4), 2.0, dtype=np.float32)
    values[30:] = 6.0
    values[50:] = 4.1  # test samples near the mean of all training samples
    split = np.repeat(np.array([TRAIN, TEST], dtype=np.int8), [50, 10])
    source = write_matrix(tmp_path / "n", NORMALIZED, values, split=split)
    dedup(source, target, options=DedupOptions(n_clusters=5))
    centroids = read_array(target, "centroid")
    used = np.unique(read_array(target, "cluster")[:50])
    assert used.size == 2
    assert np.isnan(np.delete(centroids, used, axis=0)).all()
    assert sorted(centroids[used, 0]) == [2, 6]
    new = write_matrix(
        tmp_path / "new", NORMALIZED, values[50:52], split=split[50:52], prefix="new"
    )
    chosen = DedupOptions(n_clusters=5)
    dedup_more(new, more := str(tmp_path / "more"), known=[(source, target)], options=chosen)
    np.testing.assert_array_equal(read_array(more, "centroid"), centroids)
    for uri in (target, more):
        assert (centroids[read_array(uri, "cluster")[-2:], 0] == 6).all()


def test_dedup__test_samples_do_not_enter_a_cluster_without_training_samples(
    tmp_path, target, monkeypatch
):
    values = np.repeat(np.float32([2, 6, 4.5]), 20)[:, None] * np.ones(4, np.float32)
    split = np.repeat(np.array([TRAIN, TEST], dtype=np.int8), [40, 20])
    source = write_matrix(tmp_path / "n", NORMALIZED, values, split=split)

    def with_one_for_no_training_sample(points, *_, **__):
        return np.stack([points[0], points[-1], 0.3 * points[0] + 0.7 * points[-1]])

    monkeypatch.setattr(stage, "fit_kmeans", with_one_for_no_training_sample)
    dedup(source, target, options=DedupOptions(n_clusters=3))
    assert read_array(target, "cluster").tolist() == [0] * 20 + [1] * 40
    assert np.isnan(read_array(target, "centroid")[2]).all()


def test_dedup__clusters_fit_as_well_as_naive_passes(source, target, planted, split):
    """Over all genes, beside the best of ten random starts moved by whole passes."""
    dedup(source, target, options=DedupOptions(n_clusters=10))
    rows, rng = planted[0][split == TRAIN], np.random.default_rng(0)
    naive = []
    for _ in range(10):
        centroids = rows[rng.permutation(len(rows))[:10]]
        for _ in range(20):
            nearest = cdist(rows, centroids).argmin(axis=1)
            centroids = np.array([rows[nearest == k].mean(axis=0) for k in range(10)])
        naive.append((cdist(rows, centroids).min(axis=1) ** 2).sum())
    inertia = (cdist(rows, read_array(target, "centroid")).min(axis=1) ** 2).sum()
    assert inertia <= 1.02 * min(naive)


@pytest.mark.slow
def test_dedup__workers_change_no_bit(tmp_path):
    values = np.random.default_rng(3).normal(8, 2, (400, 60)).astype(np.float32)
    source = write_matrix(tmp_path / "n", NORMALIZED, values, split=splits(400), shard=48)
    found = []
    for n_workers in range(4):
        kind = "local" if n_workers else "none"
        with client(ClusterOptions(kind=kind, n_workers=max(1, n_workers))):
            target = str(tmp_path / f"s{n_workers}")
            dedup(source, target, options=DedupOptions(n_clusters=20))
        found.append(digests(target))
    assert found == [found[0]] * 4


def test_dedup__missing_values_stand_at_the_training_mean(tmp_path, target, planted, split):
    values = planted[0].copy()
    rng = np.random.default_rng(0)
    values[rng.random(values.shape) < 0.02] = np.nan
    values[:, 4] = np.nan
    source = write_matrix(tmp_path / "n", NORMALIZED, values, split=split)
    dedup(source, target, options=DedupOptions(n_clusters=5))
    known = np.delete(values, 4, axis=1)
    mean = np.nanmean(known[split == TRAIN].astype(np.float64), axis=0)
    filled = np.where(np.isnan(known), mean.astype(np.float32), known)
    assert repeats(target) == brute_force(filled, split, 1.0)
    kept = known[(split == TRAIN) & read_array(target, "keep")].astype(np.float64)
    mean, std = read_array(target, "gene_mean"), read_array(target, "gene_std")
    assert np.isnan([mean[4], std[4]]).all()
    np.testing.assert_allclose(np.delete(mean, 4), np.nanmean(kept, axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.delete(std, 4), np.nanstd(kept, axis=0), rtol=1e-12)


def test_dedup__shard_length_does_not_matter(tmp_path, planted, split):
    for shard in LENGTHS:
        source = write_matrix(
            tmp_path / f"n{shard}", NORMALIZED, planted[0], split=split, shard=shard
        )
        dedup(source, target := str(tmp_path / f"s{shard}"), options=DedupOptions(n_clusters=5))
        assert repeats(target) == planted[1]
        kept = planted[0][(split == TRAIN) & read_array(target, "keep")].astype(np.float64)
        np.testing.assert_allclose(read_array(target, "gene_std"), kept.std(axis=0), rtol=1e-12)


def test_dedup__test_samples_do_not_leak(tmp_path, planted, split, source):
    changed = planted[0].copy()
    changed[split == TEST] **= 2
    other = write_matrix(tmp_path / "other", NORMALIZED, changed, split=split)
    dedup(source, a := str(tmp_path / "a"), options=DedupOptions(n_clusters=5))
    dedup(other, b := str(tmp_path / "b"), options=DedupOptions(n_clusters=5))
    for name in ("centroid", "gene_mean", "gene_std"):
        np.testing.assert_array_equal(read_array(a, name), read_array(b, name))
    for name in ("keep", "cluster"):
        np.testing.assert_array_equal(
            read_array(a, name)[split != TEST], read_array(b, name)[split != TEST]
        )
    assert (read_array(a, "keep") != read_array(b, "keep")).any()


def test_dedup__fails_half_way_and_goes_on(tmp_path, source, target, monkeypatch):
    dedup(source, whole := str(tmp_path / "whole"), options=DedupOptions(n_clusters=5))
    for module, name in ((stage, "reduce_regions"), (stage, "run_tasks"), (store, "finish")):
        for after in range(3 if name == "reduce_regions" else 1):
            with monkeypatch.context() as broken:
                broken.setattr(module, name, Breaks(getattr(module, name), after))
                with pytest.raises(BrokenError):
                    dedup(source, target, options=DedupOptions(n_clusters=5))
            assert not is_complete(target)
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    dedup(source, target, options=DedupOptions(n_clusters=5))
    assert digests(target) == digests(whole)


@pytest.mark.parametrize("infinite", [np.inf, -np.inf])
def test_dedup__an_infinity_in_a_training_sample(tmp_path, target, planted, split, infinite):
    spoilt = planted[0].copy()
    spoilt[np.flatnonzero(split == TRAIN)[7], 4] = infinite
    source = write_matrix(tmp_path / "inf", NORMALIZED, spoilt, split=split)
    with pytest.raises(
        DglzarrError, match=r"expected finite .* got an infinite one for gene '004_at'"
    ):
        dedup(source, target)
    assert not is_complete(target)


def test_dedup__second_run_touches_nothing(tmp_path, source, target):
    first = dedup(source, target)
    before = times(tmp_path)
    with no_computing():
        second = dedup(source, target)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


def test_dedup__other_parameters(source, target):
    dedup(source, target)
    others = {"n_clusters": 3, "threshold": 0.5, "rule": "dgex", "epochs": 1}
    for name, value in others.items():
        with pytest.raises(StoreError, match=rf"other parameters: dedup\.{name}: .* -> {value!r}"):
            dedup(source, target, options=DedupOptions(**{name: value}))
    with pytest.raises(StoreError, match=r"other parameters: seed: 0 -> 9"):
        dedup(source, target, seed=9)
    assert is_complete(target)


def test_dedup__overwrite(source, target, planted):
    dedup(source, target, options=DedupOptions(threshold=0.5, n_clusters=3))
    summary = dedup(source, target, options=DedupOptions(n_clusters=5), run=Run(overwrite=True))
    assert (summary.state, repeats(target)) == ("new", planted[1])
    assert summary.sizes["cluster_index"] == 5


def test_dedup_more__inputs_and_choices_are_recorded(tmp_path, source, target, planted):
    chosen = DedupOptions(n_clusters=5, threshold=0.8)
    dedup(source, target, options=chosen, seed=3)
    new = write_matrix(tmp_path / "new", NORMALIZED, planted[0][:20] + 1, prefix="new")
    more = str(tmp_path / "more")
    with pytest.raises(
        StoreError, match=r"expected threshold to be 0\.8, as it was made, got 1\.0"
    ):
        dedup_more(new, more, known=[(source, target)], options=DedupOptions(n_clusters=5), seed=3)
    assert read_attributes(more) is None
    settings = {"known": [(source, target)], "options": chosen, "seed": 3}
    assert dedup_more(new, more, **settings).state == "new"
    assert dedup_more.claim(new, more, **settings).state == "unchanged"
    found, first = read_attributes(more), read_attributes(target)
    assert found["parameters"] == first["parameters"]
    assert [entry["uri"] for entry in found["inputs"]] == [new, source, target]
    others = settings | {"known": [(new, target)]}
    assert dedup_more.claim(new, more, **others).state == "refused"


def test_dedup__a_store_of_0_1_0_is_unchanged(tmp_path):
    segments = older_study(tmp_path) / "segments"
    first, second = (
        [f"{segments}/{number}/{name}.zarr" for name in ("normalized", "samples")]
        for number in ("0000", "0001")
    )
    chosen = DedupOptions(n_clusters=2)
    assert dedup.claim(*first, seed=6, options=chosen).state == "unchanged"
    known = {"known": [tuple(first)], "seed": 6, "options": chosen}
    assert dedup_more.claim(*second, **known).state == "unchanged"
    claim = dedup.claim(*first, seed=6, options=DedupOptions(n_clusters=2, rule="dgex"))
    assert [str(d) for d in claim.differences] == ["dedup.rule: 'greedy' -> 'dgex'"]
