"""Counts of unequal depth, and batches: what the options of the join make of them."""

import numpy as np
import pytest

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import External
from dglzarr.evaluation.panels import undetected
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.stages.dedup import DedupOptions, dedup
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.normalize import normalize
from dglzarr.storage.store import open_store
from dglzarr.testing import write_gct, write_series_matrix
from tests.builders import ingest_and_join

GENES = [f"{n}_at" for n in range(20)]


def series(folder, values_of):
    """A series matrix of each block of values, in log2."""
    files = []
    for number, values in enumerate(values_of, start=1):
        path = write_series_matrix(
            folder / f"GSE{number}_series_matrix.txt", values, genes=GENES, platform="GPL96",
            series=f"GSE{number}", samples=[f"s{number}_{n}" for n in range(len(values))],
            tissue=["lung", "skin"] * (len(values) // 2),
        )  # fmt: skip
        files.append(SourceFile(str(path), str(folder / "raw" / f"GSE{number}")))
    return files


@pytest.fixture
def blocks(rng):
    """Three series that differ by an offset for each gene."""
    truth = rng.uniform(5, 12, 20)
    shift = rng.normal(0, 2, (3, 20))
    return [
        (truth + shift[n] + rng.normal(0, 0.5, (8, 20))).astype(np.float32).round(3)
        for n in range(3)
    ]


def joined(folder, blocks, **options):
    folder.mkdir()
    target = str(folder / "e.zarr")
    options = {"split_by": "sample", "test_fraction": 0.4, **options}
    ingest_and_join(series(folder, blocks), target, seed=1, **options)
    return open_store(target)


def test_centre__each_series_has_the_mean_of_the_training_samples(tmp_path, blocks):
    plain = joined(tmp_path / "plain", blocks)
    ds = joined(tmp_path / "centred", blocks, center_by="series")
    train = ds["split"].values == 0
    grand = plain["expression"].values[train].mean(axis=0)
    order = plain["gene"].values
    np.testing.assert_array_equal(order, ds["gene"].values)
    for one in ("GSE1", "GSE2", "GSE3"):
        of = ds["series"].values == one
        mean = plain["expression"].values[of & train].mean(axis=0)
        expected = plain["expression"].values[of] - mean + grand
        np.testing.assert_allclose(ds["expression"].values[of], expected, atol=2e-5)
    assert ds.attrs["details"]["n_centred"] == 3
    assert ds.attrs["details"]["n_centred_by_own"] == 0


def test_centre__held_out_samples_change_nothing_of_the_training_samples(tmp_path, blocks):
    before = joined(tmp_path / "a", blocks, center_by="series")
    train = before["split"].values == 0
    changed = [block.copy() for block in blocks]
    start = 0
    for block in changed:
        block[~train[start : start + 8]] += 3
        start += 8
    after = joined(tmp_path / "b", changed, center_by="series")
    np.testing.assert_array_equal(
        before["expression"].values[train], after["expression"].values[train]
    )
    moved = after["expression"].values[~train] - before["expression"].values[~train]
    np.testing.assert_allclose(moved, 3, atol=1e-4)


def test_centre__a_held_out_or_later_series_is_centred_by_its_own_mean(tmp_path, blocks):
    tmp_path.joinpath("study").mkdir()
    files = series(tmp_path / "study", blocks)
    first, later = str(tmp_path / "first.zarr"), str(tmp_path / "later.zarr")
    options = {"split_by": "series", "center_by": "series", "test_fraction": 0.5}
    for seed in range(20):
        try:
            ingest_and_join(files[:2], first, seed=seed, **options)
        except ConfigError:
            continue
        break
    ds = open_store(first)
    train = ds["split"].values == 0
    assert 0 < train.sum() < train.size
    grand = ds["expression"].values[train].mean(axis=0)
    np.testing.assert_allclose(ds["expression"].values[~train].mean(axis=0), grand, atol=1e-5)
    assert ds.attrs["details"]["n_centred_by_own"] == 1
    ingest_and_join(files[2:], later, like=[first], **options)
    added = open_store(later)["expression"].values
    np.testing.assert_allclose(added.mean(axis=0), grand, atol=1e-5)


def test_centre__a_cohort_is_centred_by_its_own_mean(tmp_path, blocks):
    joined(tmp_path / "study", blocks[:2], center_by="series")
    source, samples = (str(tmp_path / name) for name in ("n.zarr", "s.zarr"))
    normalize(str(tmp_path / "study" / "e.zarr"), source)
    dedup(source, samples, options=DedupOptions(n_clusters=2))
    (cohort,) = series(tmp_path, [blocks[2]])
    cohort = SourceFile(cohort.path, cohort.raw, SourceOptions(role="cohort"))
    ingest_all([cohort])
    z = External(cohort.raw, source, samples, "train").columns(np.arange(20))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)


def test_centre__a_label_and_those_without_it_and_small_groups_are_told(tmp_path, blocks):
    ds = joined(tmp_path / "a", [blocks[0], blocks[1][:2]], center_by="tissue")
    assert ds.attrs["details"]["n_centred"] == 2
    ds = joined(tmp_path / "b", [blocks[0], blocks[1][:2]], center_by="series")
    (note,) = ds.attrs["details"]["notes"]
    assert "1 of its groups have under 3 samples (GSE2)" in note


def test_centre__an_unknown_label_is_refused(tmp_path, blocks):
    with pytest.raises(ConfigError, match=r"center_by: expected a label .* 'tisue'.*'tissue'"):
        joined(tmp_path / "a", blocks, center_by="tisue")


# ---------------------------------------------------------------- depth of counts


def counted(folder, values, **options):
    folder.mkdir()
    path = write_gct(
        folder / "c.gct", values, samples=[f"s{n}" for n in range(len(values))], genes=GENES,
        descriptions=GENES,
    )  # fmt: skip
    file = SourceFile(str(path), str(folder / "raw" / "c"), SourceOptions(unit="counts"))
    target = str(folder / "e.zarr")
    ingest_and_join([file], target, split_by="sample", test_fraction=0.4, **options)
    return open_store(target)


def test_counts__log_cpm_is_of_all_genes_of_the_file_and_depth_is_gone(tmp_path, rng):
    counts = rng.poisson(300, (10, 20)).astype(np.float32)
    (tmp_path / "genes.txt").write_text("\n".join(GENES[:6]), encoding="utf-8")
    options = {"counts": "log-cpm", "probes": str(tmp_path / "genes.txt")}
    ds = counted(tmp_path / "a", counts, **options)
    expected = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)[:, :6]
    np.testing.assert_allclose(ds["expression"].values, expected, rtol=1e-5)
    deeper = counts * np.arange(1, 11)[:, None]
    again = counted(tmp_path / "b", deeper, **options)
    np.testing.assert_allclose(again["expression"].values, expected, rtol=1e-5)


def test_counts__what_quantiles_make_of_them_is_the_same_without(tmp_path, rng):
    counts = rng.poisson(300, (10, 20)).astype(np.float32)
    plain = counted(tmp_path / "a", counts)["expression"].values
    cpm = counted(tmp_path / "b", counts, counts="log-cpm")["expression"].values
    np.testing.assert_allclose(plain, np.log2(counts + 1)[:, np.argsort(GENES)], rtol=1e-6)
    assert not np.allclose(plain, cpm)
    reference = np.linspace(3, 14, 20)
    np.testing.assert_array_equal(apply_quantile(plain, reference), apply_quantile(cpm, reference))


# ---------------------------------------------------------------- detection


def test_detection__rates_of_training_samples_by_label_and_nothing_of_arrays(tmp_path, rng):
    counts = rng.poisson(rng.uniform(1, 25, 20), (30, 20)).astype(np.float32)
    (tmp_path / "sheet.tsv").write_text(
        "Sample\ttissue\n" + "".join(f"s{n}\t{'lung' if n % 3 else 'skin'}\n" for n in range(30)),
        encoding="utf-8",
    )
    path = write_gct(
        tmp_path / "c.gct", counts, samples=[f"s{n}" for n in range(30)], genes=GENES,
        descriptions=GENES,
    )  # fmt: skip
    options = SourceOptions(unit="counts", sample_sheet=str(tmp_path / "sheet.tsv"))
    counted = SourceFile(str(path), str(tmp_path / "raw" / "c"), options)
    arrays = series(tmp_path, [rng.uniform(4, 12, (6, 20)).astype(np.float32)])
    target, centred = str(tmp_path / "e.zarr"), str(tmp_path / "centred.zarr")
    by = {"split_by": "sample", "test_fraction": 0.4, "detection": "tissue"}
    ingest_and_join([counted, *arrays], target, **by)
    ds = open_store(target)
    train = ds["split"].values[:30] == 0
    is_skin = np.arange(30) % 3 == 0
    seen = counts[:, np.argsort(GENES)] >= 10
    assert ds["detection_group"].values.tolist() == ["all", "lung", "skin"]
    expected = [seen[train & of].mean(axis=0) for of in (np.full(30, True), ~is_skin, is_skin)]
    np.testing.assert_allclose(ds["detection_rate"].values, expected, rtol=1e-6)
    assert ds["n_detection"].values.tolist() == [
        train.sum(), (train & ~is_skin).sum(), (train & is_skin).sum()
    ]  # fmt: skip
    best = np.max(expected[0:3], axis=0)
    assert undetected(target, 0.5, "here") == np.flatnonzero(best < 0.5).tolist()
    assert f"{(best < 0.1).sum()} of 20 genes are detected" in ds.attrs["details"]["notes"][-1]
    ingest_and_join([counted, *arrays], centred, center_by="source", **by)
    np.testing.assert_array_equal(open_store(centred)["detection_rate"], ds["detection_rate"])
    later = str(tmp_path / "later.zarr")
    more = series(tmp_path, [np.full((2, 20), 5.0), rng.uniform(4, 12, (4, 20)).astype(np.float32)])
    ingest_and_join(more[1:], later, like=[target], **by)
    np.testing.assert_array_equal(open_store(later)["detection_rate"], ds["detection_rate"])
    assert open_store([target, later])["detection_rate"].dims == ("detection_group", "gene")


def test_detection__arrays_alone_do_not_tell_and_a_study_without_it_is_refused(tmp_path, blocks):
    joined(tmp_path / "a", blocks, detection="tissue")
    ds = open_store(str(tmp_path / "a" / "e.zarr"))
    assert np.isnan(ds["detection_rate"].values).all()
    assert "no source is of a unit that tells" in ds.attrs["details"]["notes"][-1]
    assert undetected(str(tmp_path / "a" / "e.zarr"), 0.5, "here") == []
    joined(tmp_path / "b", blocks)
    with pytest.raises(ConfigError, match=r"--min-detected: expected .* ingest\.detection"):
        undetected(str(tmp_path / "b" / "e.zarr"), 0.5, "--min-detected")
    with pytest.raises(ConfigError, match=r"ingest\.detection: expected a label"):
        joined(tmp_path / "c", blocks, detection="tisue")
