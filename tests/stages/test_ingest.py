import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.kernels.split import assign_split
from dglzarr.sources.scaled import find_scale
from dglzarr.stages import ingest as stage
from dglzarr.stages.ingest import SourceFile, ingest
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import is_complete, open_store, read_attributes, regions
from dglzarr.testing import (
    write_annotation,
    write_gct,
    write_gctx,
    write_series_matrix,
    write_table,
)
from tests.builders import (
    TEST,
    TRAIN,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    remove_regions,
    simulate,
    times,
    write_files,
)

SEED = 1  # of the split: with it the simulated series are on both sides


def printed(values):
    """What a text file of five decimals gives back."""
    return np.array([[float(f"{v:.5f}") for v in row] for row in values], dtype=np.float32)


@pytest.fixture(scope="module")
def simulated():
    return simulate(n_series=3)


@pytest.fixture
def sources(tmp_path, simulated):
    return write_files(tmp_path, simulated)


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "expression.zarr")


def matrix(folder, name, values, genes=None, *, samples=None, **options):
    """A source of chosen values: a series matrix."""
    path = write_series_matrix(
        folder / f"{name}_series_matrix.txt.gz",
        np.asarray(values, dtype=np.float32),
        samples=samples or [f"{name}-{i}" for i in range(len(values))],
        genes=genes or [f"{i}_at" for i in range(np.shape(values)[1])],
        series=name,
        platform="GPL96",
        **options,
    )
    return SourceFile(str(path), str(folder / "raw" / f"{name}.zarr"))


def draw(rng, n_samples=8, n_genes=12):
    return rng.uniform(4, 14, (n_samples, n_genes)).astype(np.float32)


# ---------------------------------------------------------------- values and labels


def test_ingest__joins_the_sources(sources, target, simulated):
    summary = ingest(sources, target, seed=SEED)
    ds = open_store(target)
    order = np.argsort(simulated.genes)
    np.testing.assert_array_equal(ds["gene"].values, np.array(simulated.genes)[order])
    np.testing.assert_array_equal(ds["sample"].values, simulated.samples)
    np.testing.assert_array_equal(ds["series"].values, simulated.series)
    np.testing.assert_array_equal(ds["source"].values, simulated.series)
    np.testing.assert_array_equal(ds["platform"].values, simulated.platform)
    np.testing.assert_array_equal(ds["expression"].values, printed(simulated.expression)[:, order])
    assert summary.sizes == {"sample": 100, "gene": 40, "label": ds.sizes["label"]}
    at = list(ds["label"].values).index("tissue")
    np.testing.assert_array_equal(ds["sample_label"].values[:, at], simulated.tissue)


def test_ingest__raw_store_is_the_file(sources, target, simulated):
    ingest(sources, target, seed=SEED)
    raw = open_store(sources[1].raw)
    rows = np.array(simulated.series) == raw["series"].values[0]
    np.testing.assert_array_equal(raw["expression"].values, printed(simulated.expression[rows]))
    np.testing.assert_array_equal(raw["gene"].values, simulated.genes)
    assert raw.attrs["details"]["scale"] == "log2"
    assert raw.attrs["details"]["format"] == "series-matrix"


def test_ingest__raw_scale_is_brought_to_log2(tmp_path, target, simulated):
    chosen = simulated.series[0]
    sources = write_files(tmp_path, simulated, raw_series=[chosen])
    ingest(sources, target, seed=SEED)
    ds = open_store(target)
    order = np.argsort(simulated.genes)
    np.testing.assert_allclose(ds["expression"].values, simulated.expression[:, order], atol=1e-3)
    scales = {s["source"]: s["scale"] for s in ds.attrs["details"]["per_source"]}
    assert scales == {s: "raw" if s == chosen else "log2" for s in simulated.series}
    assert read_array(sources[0].raw, "expression").max() > 100


def test_ingest__negative_raw_values_are_zero_and_counted(tmp_path, target, rng):
    values = rng.uniform(1, 12, (8, 12))
    source = matrix(tmp_path, "GSE1", values, scale="raw")
    path = Path(source.path)
    table = write_table(
        tmp_path / "GSE2_expr.tsv",
        np.where(np.arange(12) == 3, -5.0, 2**values - 1),
        samples=[f"x{i}" for i in range(8)],
        genes=[f"{i}_at" for i in range(12)],
    )
    sources = [source, SourceFile(str(table), str(tmp_path / "raw/GSE2.zarr"))]
    assert path.exists()
    ingest(sources, target, split_by="sample")
    ds = open_store(target)
    at = list(ds["gene"].values).index("3_at")
    np.testing.assert_array_equal(ds["expression"].values[8:, at], 0)
    assert [s["n_negative"] for s in ds.attrs["details"]["per_source"]] == [0, 8]


def test_ingest__a_matrix_too_large_for_memory_goes_by_a_scratch_file(
    tmp_path, monkeypatch, sources
):
    new = tmp_path / "new"
    apart = [dataclasses.replace(s, raw=str(new / Path(s.raw).name)) for s in sources]
    expected, target = str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")
    ingest(sources, expected, seed=SEED)
    monkeypatch.setattr("dglzarr.sources.matrix.SHARD_SAMPLES", 2)
    ingest(apart, target, seed=SEED)
    np.testing.assert_array_equal(Rows(target)[0:99], Rows(expected)[0:99])
    assert sorted(p.suffix for p in new.iterdir()) == [".zarr"] * len(sources)


def test_ingest__common_probes(tmp_path, target, rng):
    a, b = draw(rng, n_genes=12), draw(rng, n_genes=10)
    names = [f"{i:02d}_at" for i in range(20)]
    first = matrix(tmp_path, "GSE1", a, names[:12])
    second = matrix(tmp_path, "GSE2", b, [*names[10:1:-1], "z_at"])
    ingest([first, second], target, split_by="sample")
    ds = open_store(target)
    assert list(ds["gene"].values) == names[2:11]
    np.testing.assert_array_equal(ds["expression"].values[:8], printed(a[:, 2:11]))
    np.testing.assert_array_equal(ds["expression"].values[8:], printed(b[:, :9][:, ::-1]))
    assert ds.attrs["parameters"]["gene_space"] == "intersection"


def test_ingest__listed_probes_keep_their_order_and_missing_is_nan(tmp_path, target, rng):
    values = draw(rng)
    listed = ["5_at", "absent_at", *[f"{i}_at" for i in range(11) if i != 5]]
    (tmp_path / "probes.txt").write_text("\n".join(listed) + "\n")
    values[2, 5] = np.nan
    source = matrix(tmp_path, "GSE1", values)
    ingest([source], target, probes=str(tmp_path / "probes.txt"), split_by="sample")
    ds = open_store(target)
    assert list(ds["gene"].values) == listed
    found = ds["expression"].values
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(found[2, 0])
    np.testing.assert_array_equal(found[:, 2:], printed(values)[:, [0, 1, 2, 3, 4, *range(6, 11)]])
    np.testing.assert_array_equal(ds["n_missing"].values, [1, 1, 2, 1, 1, 1, 1, 1])
    details = ds.attrs["details"]
    assert details["n_missing"] == 9
    assert details["per_source"][0]["coverage"] == pytest.approx(11 / 12)
    assert details["per_source"][0]["n_missing_genes"] == 1


def test_ingest__cohorts_stay_raw(tmp_path, sources, target, simulated, rng):
    path = write_gct(
        tmp_path / "skin.gct", 100 * draw(rng), samples=list("abcdefgh"), genes=list("ABCDEFGHIJKL")
    )
    cohort = SourceFile(str(path), str(tmp_path / "raw/skin.zarr"), role="cohort")
    ingest([*sources, cohort], target, seed=SEED)
    assert open_store(target).sizes["gene"] == len(simulated.genes)
    assert "skin" not in set(open_store(target)["source"].values)
    raw = open_store(cohort.raw)
    assert list(raw["gene"].values) == list("ABCDEFGHIJKL")
    assert raw.attrs["parameters"]["role"] == "cohort"


def test_ingest__symbols_from_the_annotation(tmp_path, sources, target, simulated):
    path = write_annotation(tmp_path / "a.txt", simulated.genes, simulated.gene_symbol)
    ingest(sources, target, annotation=str(path), seed=SEED)
    known = {
        g: s.split(" /// ")[0] for g, s in zip(simulated.genes, simulated.gene_symbol, strict=True)
    }
    ds = open_store(target)
    assert [known[g] for g in ds["gene"].values] == list(ds["gene_symbol"].values)


def test_ingest__sample_sheet(tmp_path, target, rng):
    names = [f"s{i}" for i in range(8)]
    table = write_table(
        tmp_path / "GSE9_expr.tsv",
        draw(rng),
        samples=names,
        genes=[f"{i}_at" for i in range(12)],
        sample_sheet=tmp_path / "sheet.tsv",
        labels={"disease": [f"d{i % 3}" for i in range(8)]},
    )
    source = SourceFile(
        str(table), str(tmp_path / "raw/GSE9.zarr"), sample_sheet=str(tmp_path / "sheet.tsv")
    )
    ingest([source], target, split_by="sample")
    ds = open_store(target)
    assert list(ds["label"].values) == ["disease"]
    assert [str(v) for v in ds["sample_label"].values[:, 0]] == [f"d{i % 3}" for i in range(8)]
    (tmp_path / "sheet.tsv").write_text("Sample\tdisease\n")
    with pytest.raises(StoreError, match="was made from other inputs"):
        ingest([source], target, split_by="sample")


def gctx(folder, name, values):
    path = write_gctx(
        folder / f"{name}_x.gctx",
        np.asarray(values, dtype=np.float32),
        samples=[f"{name}-{i}" for i in range(len(values))],
        genes=[f"{i}_at" for i in range(np.shape(values)[1])],
    )
    return SourceFile(str(path), str(folder / "raw" / f"{name}.zarr"))


@pytest.mark.parametrize("scale", ["log2", "raw"])
def test_ingest__gctx_gives_the_values_of_a_series_matrix(tmp_path, rng, scale):
    values = printed(rng.uniform(4, 14, (40, 12)))
    values[3, 4] = np.nan
    shown = 2.0**values - 1 if scale == "raw" else values
    ingest([gctx(tmp_path, "GSE1", shown)], a := str(tmp_path / "a"), split_by="sample")
    text = matrix(tmp_path, "GSE2", values, samples=[f"GSE1-{i}" for i in range(40)])
    ingest([text], b := str(tmp_path / "b"), split_by="sample")
    found, wanted = open_store(a), open_store(b)
    np.testing.assert_allclose(found["expression"].values, wanted["expression"].values, rtol=1e-6)
    np.testing.assert_array_equal(found["split"].values, wanted["split"].values)
    assert found.attrs["details"]["n_missing"] == 1
    assert found.attrs["details"]["per_source"][0]["scale"] == scale


@pytest.mark.parametrize("scale", ["log2", "raw"])
def test_ingest__gctx_is_opened_once_and_not_at_all_when_unchanged(
    tmp_path, target, rng, monkeypatch, scale
):
    opened = []
    monkeypatch.setattr(stage, "find_scale", lambda *a: opened.append(a) or find_scale(*a))
    values = rng.uniform(4, 14, (40, 12))
    source = gctx(tmp_path, "GSE1", values if scale == "log2" else 2.0**values)
    for state in ("new", "unchanged"):
        assert ingest([source], target, split_by="sample").state == state
        assert len(opened) == 1


@pytest.mark.parametrize("n_samples", [30, 700])
def test_ingest__infinite_value_in_a_gctx(tmp_path, target, rng, n_samples):
    values = rng.uniform(4, 14, (n_samples, 12))
    values[n_samples // 2 + 1, 3] = np.inf
    with pytest.raises(SourceError, match=r"GSE1_x\.gctx.*inf"):
        ingest([gctx(tmp_path, "GSE1", values)], target, split_by="sample")
    assert not is_complete(target)


# ---------------------------------------------------------------- the split


def test_assign_split__depends_on_label_and_seed_alone():
    labels = [f"GSE{i}" for i in range(200)]
    split = assign_split(labels, "series", test=0.2, validation=0.1, seed=3)
    backwards = assign_split(labels[::-1], "series", test=0.2, validation=0.1, seed=3)
    np.testing.assert_array_equal(split, backwards[::-1])
    some = assign_split(labels[:50] * 2, "series", test=0.2, validation=0.1, seed=3)
    np.testing.assert_array_equal(some, np.tile(split[:50], 2))
    assert (assign_split(labels, "series", test=0.2, validation=0.1, seed=4) != split).any()
    shares = np.bincount(split) / 200
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.1)


def test_assign_split__is_the_same_in_another_process():
    code = (
        "from dglzarr.kernels.split import assign_split\n"
        "print(assign_split([f'GSE{i}' for i in range(40)], 'series', "
        "test=0.2, validation=0.1, seed=5).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={}
    )
    split = assign_split([f"GSE{i}" for i in range(40)], "series", test=0.2, validation=0.1, seed=5)
    assert done.stdout.strip() == str(split.tolist())


def test_assign_split__more_validation_moves_no_test_sample():
    labels = [f"s{i}" for i in range(300)]
    a = assign_split(labels, "sample", test=0.2, validation=0.1, seed=0)
    b = assign_split(labels, "sample", test=0.2, validation=0.4, seed=0)
    np.testing.assert_array_equal(a == TEST, b == TEST)
    assert (b[a == 1] == 1).all()


@pytest.mark.parametrize("split_by", ["series", "sample"])
def test_assign_split__names_a_seed_that_works(split_by):
    labels = ["GSE1"] * 3 + ["GSE2"] * 2
    seed = next(s for s in range(99) if not _is_split(labels, s))
    with pytest.raises(
        ConfigError, match=rf"{split_by!r}: expected train and test.*Set seed = "
    ) as e:
        assign_split(labels, split_by, test=0.2, validation=0.1, seed=seed)
    proposed = int(str(e.value).split("Set seed = ")[1].split(",")[0].rstrip("."))
    split = assign_split(labels, split_by, test=0.2, validation=0.1, seed=proposed)
    assert {TRAIN, TEST} <= set(split.tolist())


def _is_split(labels, seed):
    try:
        assign_split(labels, "series", test=0.2, validation=0.1, seed=seed)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("split_by", "remedy"),
    [("series", "Add sources of another series, or set ingest.split_by = 'sample'"),
     ("sample", "Add samples")],
)  # fmt: skip
def test_assign_split__one_label_cannot_be_split(split_by, remedy):
    with pytest.raises(ConfigError, match=remedy):
        assign_split(["GSE1"] * 5, split_by, test=0.2, validation=0.1, seed=0)


def test_ingest__a_series_stays_on_one_side(tmp_path, target, rng):
    names = ["GSE14924_CD4", "GSE14924_CD8", "GSE1", "GSE2"]
    sources = []
    for name in names:
        path = write_table(
            tmp_path / f"{name}_expr.tsv",
            draw(rng),
            samples=[f"{name}-{i}" for i in range(8)],
            genes=[f"{i}_at" for i in range(12)],
        )
        sources.append(SourceFile(str(path), str(tmp_path / f"raw/{name}.zarr")))
    series_names = ["GSE14924", "GSE14924", *names[2:]]
    by_side = {}
    for seed in range(50):
        try:
            split = assign_split(series_names, "series", test=0.4, validation=0.1, seed=seed)
        except ConfigError:
            continue
        by_side.setdefault(int(split[0]), seed)
    for side in (TRAIN, TEST):
        ingest(sources, target, test_fraction=0.4, seed=by_side[side], overwrite=True)
        ds = open_store(target)
        split, series = ds["split"].values, ds["series"].values.astype(object)
        assert set(series) == set(series_names)
        assert set(split[series == "GSE14924"].tolist()) == {side}
        assert all(len(set(split[series == s].tolist())) == 1 for s in set(series))


def test_ingest__impossible_split_leaves_nothing(tmp_path, target, rng):
    with pytest.raises(ConfigError, match=r"ingest.split_by 'series'.*split_by = 'sample'"):
        ingest([matrix(tmp_path, "GSE1", draw(rng))], target)
    assert not is_complete(target)


# ---------------------------------------------------------------- refusals


def test_ingest__no_common_probes(tmp_path, target, rng):
    a = matrix(tmp_path, "GSE1", draw(rng))
    b = matrix(tmp_path, "GSE2", draw(rng), [f"ILMN_{i}" for i in range(12)])
    with pytest.raises(SourceError, match=r"shares 0 probes.*role = 'cohort'.*ingest.probes"):
        ingest([a, b], target)
    assert not is_complete(target)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_ingest__names_the_source_of_an_unknown_platform(tmp_path, target, rng, place):
    sources = [matrix(tmp_path, f"GSE{i}", draw(rng)) for i in (1, 2)]
    odd = matrix(tmp_path, "GSE9", draw(rng), [f"ILMN_{i}" for i in range(12)])
    sources.insert(place, odd)
    with pytest.raises(SourceError, match=r"GSE9: shares 0 probes.*share 12 among.*ILMN_0, ILMN_1"):
        ingest(sources, target)


def test_ingest__a_smaller_platform_is_welcome(tmp_path, target, rng):
    a = matrix(tmp_path, "GSE1", draw(rng))
    b = matrix(tmp_path, "GSE2", draw(rng)[:, :4], [f"{i}_at" for i in range(4)])
    assert ingest([a, b], target, split_by="sample").sizes["gene"] == 4


def test_ingest__too_few_listed_probes(tmp_path, target, rng):
    (tmp_path / "probes.txt").write_text("\n".join(f"{i}_at" for i in range(14)))
    source = matrix(tmp_path, "GSE1", draw(rng))
    options = {"probes": str(tmp_path / "probes.txt"), "split_by": "sample"}
    with pytest.raises(SourceError, match=r"GSE1: expected at least 90% of the 14 listed .*got 12"):
        ingest([source], target, **options)
    assert ingest([source], target, min_coverage=0.8, overwrite=True, **options).state == "new"


def test_ingest__repeated_samples(tmp_path, target, rng):
    values = draw(rng)
    a = matrix(tmp_path, "GSE1", values, samples=list("abcdefgh"))
    b = matrix(tmp_path, "GSE2", values, samples=list("ijklmabn"))
    with pytest.raises(SourceError, match=r"GSE2: 2 samples are in GSE1 too, for example 'a'"):
        ingest([a, b], target)
    ingest([a], target, split_by="sample", overwrite=True)
    with pytest.raises(SourceError, match=r"GSE2: 2 samples are in GSE1 too, for example 'a'"):
        ingest([b], str(tmp_path / "more"), like=[target], split_by="sample")


def test_ingest__centred_values(tmp_path, target, rng):
    source = matrix(tmp_path, "GSE1", rng.normal(0, 1, (8, 12)))
    with pytest.raises(SourceError, match=r"GSE1_series_matrix.txt.gz: .*median-centred"):
        ingest([source], target)
    assert not is_complete(source.raw)


def test_ingest__only_missing_values(tmp_path, target):
    source = matrix(tmp_path, "GSE1", np.full((8, 12), np.nan))
    with pytest.raises(SourceError, match=r"GSE1_series_matrix.txt.gz: .*only missing values"):
        ingest([source], target)
    assert not is_complete(source.raw)


def test_ingest__missing_file(tmp_path, target):
    source = SourceFile(str(tmp_path / "absent.txt"), str(tmp_path / "raw/absent.zarr"))
    with pytest.raises(SourceError, match=r"absent.txt: no such file"):
        ingest([source], target)


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("length", [16, 48, 200, None])
def test_ingest__shard_length_does_not_matter(sources, target, simulated, length):
    ingest(sources, target, shard_length=length, seed=SEED)
    order = np.argsort(simulated.genes)
    np.testing.assert_array_equal(
        open_store(target)["expression"].values, printed(simulated.expression)[:, order]
    )
    assert len(regions(target)) == -(-100 // (length or 112))


def test_ingest__resumes_with_the_same_bytes(sources, target):
    ingest(sources, target, shard_length=16, seed=SEED)
    before = digests(target)
    remove_regions(target, ["expression"], [0, 4])
    remove_regions(target, ["n_missing"], [2])
    remove_regions(sources[1].raw, ["expression"], [0])
    raw_before = digests(sources[0].raw)
    ingest(sources, target, shard_length=16, seed=SEED)
    assert digests(target) == before
    assert digests(sources[0].raw) == raw_before
    assert is_complete(sources[1].raw)


def test_ingest__fails_half_way_and_goes_on(tmp_path, sources, target, monkeypatch):
    ingest(sources, whole := str(tmp_path / "whole.zarr"), shard_length=16, seed=SEED)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_join_region", Breaks(stage._join_region, 3))
        with pytest.raises(BrokenError):
            ingest(sources, target, shard_length=16, seed=SEED)
    assert not is_complete(target)
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    ingest(sources, target, shard_length=16, seed=SEED)
    assert digests(target) == digests(whole)


def test_ingest__a_source_that_fails_is_not_complete(sources, target, tmp_path):
    broken = tmp_path / "GSE5_series_matrix.txt"
    broken.write_text(Path(sources[0].path).read_text()[:-400])
    bad = SourceFile(str(broken), str(tmp_path / "raw/GSE5.zarr"))
    with pytest.raises(SourceError, match=r"GSE5_series_matrix.txt"):
        ingest([*sources, bad], target, seed=SEED)
    assert not is_complete(bad.raw)
    assert not is_complete(target)
    assert ingest(sources, target, seed=SEED).state == "new"


# ---------------------------------------------------------------- idempotence


def test_ingest__second_run_touches_nothing(tmp_path, sources, target):
    first = ingest(sources, target, seed=SEED)
    before = times(tmp_path)
    second = ingest(sources, target, seed=SEED)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


def test_ingest__fractions_are_shares_of_the_samples(sources, target):
    counts = {}
    for part, share in [("validation", 0.1), ("validation", 0.4), ("test", 0.4)]:
        options = {f"{part}_fraction": share, "split_by": "sample", "overwrite": True}
        summary = ingest(sources, target, **options)
        counts[part, share] = summary.details["split_counts"]
    few, more, tested = counts.values()
    assert more["test"] == few["test"]
    assert few["validation"] < 20 < 30 < more["validation"] < 50
    assert few["test"] < 30 < tested["test"] < 50


def test_ingest__other_parameters(sources, target):
    ingest(sources, target, seed=SEED)
    before = read_attributes(target)["store_id"]
    others = {
        "seed": 3,
        "split_by": "sample",
        "test_fraction": 0.3,
        "validation_fraction": 0.2,
        "min_coverage": 0.5,
        "shard_length": 16,
    }
    for name, value in others.items():
        with pytest.raises(StoreError, match=f"other parameters: {name} .* -> {value!r}"):
            ingest(sources, target, **{"seed": SEED, name: value})
    assert read_attributes(target)["store_id"] == before
    assert is_complete(target)


def test_ingest__a_changed_file_is_another_input(tmp_path, target, rng):
    values = draw(rng)
    source = matrix(tmp_path, "GSE1", values)
    ingest([source], target, split_by="sample")
    matrix(tmp_path, "GSE1", values[:, ::-1] + 1, [f"{i}_at" for i in range(12)][::-1])
    with pytest.raises(StoreError, match=r"GSE1.zarr: was made from other inputs"):
        ingest([source], target, split_by="sample")
    ingest([source], target, split_by="sample", overwrite=True)
    ds = open_store(target)
    order = np.argsort([f"{i}_at" for i in range(12)])
    np.testing.assert_array_equal(ds["expression"].values, printed(values + 1)[:, order])


def test_ingest__opening_computes_nothing(sources, target):
    ingest(sources, target, seed=SEED)
    with no_computing():
        ds = open_store([target])
        assert ds["expression"].shape == (100, 40)
        assert Rows(target).shape == (100, 40)


def test_source_file__is_plain_data():
    source = SourceFile("a", "b")
    assert dataclasses.asdict(source) == {
        "path": "a", "raw": "b", "role": "train", "unit": None, "sample_sheet": None,
        "sample_column": None,
    }  # fmt: skip
