"""Raw stores become one matrix: genes, samples, split, and what a claim tells beforehand."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.kernels.split import assign_split
from dglzarr.stages import join as stage
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.options import Run
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.store import is_complete, open_store, read_attributes, regions
from dglzarr.testing import write_annotation, write_gct, write_table
from tests.builders import (
    TEST,
    TRAIN,
    Breaks,
    BrokenError,
    digests,
    draw,
    ingest_and_join,
    no_computing,
    printed,
    remove_regions,
    simulate,
    times,
    write_files,
    write_gctx_source,
    write_source,
)

SEED = 1  # of the split: with it the simulated series are on both sides


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "expression.zarr")


def raws(sources):
    return [source.raw for source in sources]


def differences(claim):
    return [str(difference) for difference in claim.differences]


# ---------------------------------------------------------------- values and labels


def test_join__joins_the_sources(sources, target, simulated):
    summary = ingest_and_join(sources, target, seed=SEED)
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


def test_join__raw_scale_is_brought_to_log2(tmp_path, target, simulated):
    chosen = simulated.series[0]
    sources = write_files(tmp_path, simulated, raw_series=[chosen])
    ingest_and_join(sources, target, seed=SEED)
    ds = open_store(target)
    order = np.argsort(simulated.genes)
    np.testing.assert_allclose(ds["expression"].values, simulated.expression[:, order], atol=1e-3)
    scales = {s["source"]: s["scale"] for s in ds.attrs["details"]["per_source"]}
    assert scales == {s: "raw" if s == chosen else "log2" for s in simulated.series}
    assert read_array(sources[0].raw, "expression").max() > 100


def test_join__negative_raw_values_are_zero_and_counted(tmp_path, target, rng):
    values = rng.uniform(1, 12, (8, 12))
    source = write_source(tmp_path, "GSE1", values, scale="raw")
    table = write_table(
        tmp_path / "GSE2_expr.tsv",
        np.where(np.arange(12) == 3, -5.0, 2**values - 1),
        samples=[f"x{i}" for i in range(8)],
        genes=[f"{i}_at" for i in range(12)],
    )
    sources = [source, SourceFile(str(table), str(tmp_path / "raw/GSE2.zarr"))]
    ingest_and_join(sources, target, split_by="sample")
    ds = open_store(target)
    at = list(ds["gene"].values).index("3_at")
    np.testing.assert_array_equal(ds["expression"].values[8:, at], 0)
    assert [s["n_negative"] for s in ds.attrs["details"]["per_source"]] == [0, 8]


def test_join__common_probes(tmp_path, target, rng):
    a, b = draw(rng, n_genes=12), draw(rng, n_genes=10)
    names = [f"{i:02d}_at" for i in range(20)]
    first = write_source(tmp_path, "GSE1", a, names[:12])
    second = write_source(tmp_path, "GSE2", b, [*names[10:1:-1], "z_at"])
    ingest_and_join([first, second], target, split_by="sample")
    ds = open_store(target)
    assert list(ds["gene"].values) == names[2:11]
    np.testing.assert_array_equal(ds["expression"].values[:8], printed(a[:, 2:11]))
    np.testing.assert_array_equal(ds["expression"].values[8:], printed(b[:, :9][:, ::-1]))
    assert ds.attrs["details"]["gene_space"] == "intersection"


def test_join__listed_probes_keep_their_order_and_missing_is_nan(tmp_path, target, rng, caplog):
    values = draw(rng)
    listed = ["5_at", "absent_at", *[f"{i}_at" for i in range(11) if i != 5]]
    (tmp_path / "probes.txt").write_text("\n".join(listed) + "\n")
    values[2, 5] = np.nan
    source = write_source(tmp_path, "GSE1", values)
    ingest_and_join([source], target, probes=str(tmp_path / "probes.txt"), split_by="sample")
    ds = open_store(target)
    assert list(ds["gene"].values) == listed
    found = ds["expression"].values
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(found[2, 0])
    np.testing.assert_array_equal(found[:, 2:], printed(values)[:, [0, 1, 2, 3, 4, *range(6, 11)]])
    np.testing.assert_array_equal(ds["n_missing"].values, [1, 1, 2, 1, 1, 1, 1, 1])
    details = ds.attrs["details"]
    assert details["gene_space"] == "list"
    assert details["n_missing"] == 9
    assert details["per_source"][0]["coverage"] == pytest.approx(11 / 12)
    assert details["per_source"][0]["n_missing_genes"] == 1
    assert (details["n_unmeasured"], details["unmeasured"]) == (1, ["absent_at"])
    assert "no source measures 1 of 12 genes ('absent_at')" in caplog.text


def test_join__cohorts_stay_raw(tmp_path, sources, target, simulated, rng):
    path = write_gct(
        tmp_path / "skin.gct", 100 * draw(rng), samples=list("abcdefgh"), genes=list("ABCDEFGHIJKL")
    )
    cohort = SourceFile(
        str(path), str(tmp_path / "raw/skin.zarr"), options=SourceOptions(role="cohort")
    )
    ingest_and_join([*sources, cohort], target, seed=SEED)
    assert open_store(target).sizes["gene"] == len(simulated.genes)
    assert "skin" not in set(open_store(target)["source"].values)
    assert is_complete(cohort.raw)


def test_join__dates_of_the_annotation_are_told(tmp_path, sources, target, simulated):
    symbols = ["5-Mar", "", *simulated.gene_symbol[2:]]
    path = write_annotation(tmp_path / "a.txt", simulated.genes, symbols)
    ingest_and_join(sources, target, annotation=str(path), seed=SEED)
    (note,) = open_store(target).attrs["details"]["notes"]
    assert note.startswith("a.txt: 1 probe has a date for a symbol")
    assert "'5-Mar' is MARCHF5. Correct it" in note


def test_join__features_without_a_symbol_are_counted(tmp_path, sources, target, simulated):
    symbols = ["", "", *simulated.gene_symbol[2:]]
    path = write_annotation(tmp_path / "a.txt", simulated.genes, symbols)
    ingest_and_join(sources, target, annotation=str(path), feature_kind="gene", seed=SEED)
    (note,) = open_store(target).attrs["details"]["notes"]
    n_without = symbols.count("")
    names = [Path(source.raw).stem for source in sources]
    assert note.startswith("Features without a symbol, which stand for no gene: ")
    for name in names[:3]:
        assert f"{n_without} of {len(symbols)} in {name}" in note
    assert ("more sources" in note) == (len(names) > 3)


def test_join__symbols_from_the_annotation(tmp_path, sources, target, simulated):
    path = write_annotation(tmp_path / "a.txt", simulated.genes, simulated.gene_symbol)
    ingest_and_join(sources, target, annotation=str(path), seed=SEED)
    known = {
        g: s.split(" /// ")[0] for g, s in zip(simulated.genes, simulated.gene_symbol, strict=True)
    }
    ds = open_store(target)
    assert [known[g] for g in ds["gene"].values] == list(ds["gene_symbol"].values)


def test_join__labels_of_a_sample_sheet(tmp_path, target, rng):
    table = write_table(
        tmp_path / "GSE9_expr.tsv",
        draw(rng),
        samples=[f"s{i}" for i in range(8)],
        genes=[f"{i}_at" for i in range(12)],
        sample_sheet=tmp_path / "sheet.tsv",
        labels={"disease": [f"d{i % 3}" for i in range(8)]},
    )
    options = SourceOptions(sample_sheet=str(tmp_path / "sheet.tsv"))
    source = SourceFile(str(table), str(tmp_path / "raw/GSE9.zarr"), options=options)
    other = write_source(tmp_path, "GSE1", draw(rng))
    ingest_and_join([source, other], target, split_by="sample")
    ds = open_store(target)
    at = list(ds["label"].values).index("disease")
    expected = [f"d{i % 3}" for i in range(8)] + [""] * 8
    assert [str(v) for v in ds["sample_label"].values[:, at]] == expected


@pytest.mark.parametrize("scale", ["log2", "raw"])
def test_join__gctx_gives_the_values_of_a_series_matrix(tmp_path, rng, scale):
    values = printed(rng.uniform(4, 14, (40, 12)))
    values[3, 4] = np.nan
    shown = 2.0**values - 1 if scale == "raw" else values
    gctx = write_gctx_source(tmp_path, "GSE1", shown)
    ingest_and_join([gctx], a := str(tmp_path / "a"), split_by="sample")
    text = write_source(tmp_path, "GSE2", values, samples=[f"GSE1-{i}" for i in range(40)])
    ingest_and_join([text], b := str(tmp_path / "b"), split_by="sample")
    found, wanted = open_store(a), open_store(b)
    np.testing.assert_allclose(found["expression"].values, wanted["expression"].values, rtol=1e-6)
    np.testing.assert_array_equal(found["split"].values, wanted["split"].values)
    assert found.attrs["details"]["n_missing"] == 1
    assert found.attrs["details"]["per_source"][0]["scale"] == scale


def test_join__infinite_value_in_a_linked_gctx(tmp_path, target, rng):
    values = rng.uniform(4, 14, (700, 12))
    values[351, 3] = np.inf
    with pytest.raises(SourceError, match=r"GSE1_x\.gctx.*inf"):
        ingest_and_join([write_gctx_source(tmp_path, "GSE1", values)], target, split_by="sample")
    assert not is_complete(target)


def test_join__added_to_a_study_it_takes_its_genes(tmp_path, sources, target, rng):
    ingest_and_join(sources[:2], target, split_by="sample")
    genes = [str(gene) for gene in read_array(target, "gene")]
    uris = [target]
    for name in ("GSE8", "GSE9"):
        source = write_source(tmp_path, name, draw(rng, 4, 41), ["new_at", *genes[::-1]])
        uris.append(str(tmp_path / name / "expression.zarr"))
        ingest_and_join([source], uris[-1], like=uris[:-1], split_by="sample")
    ds = open_store(uris)
    assert ds.sizes["sample"] == open_store(target).sizes["sample"] + 8
    assert [str(gene) for gene in ds["gene"].values] == genes
    found = read_attributes(uris[-1])
    assert found["details"]["gene_space"] == "study"
    roles = [entry["role"] for entry in found["inputs"]]
    assert roles == ["source.GSE9", "like.expression", "like.expression 2"]


# ---------------------------------------------------------------- the split


def test_join__a_series_stays_on_one_side(tmp_path, target, rng):
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
        run = Run(overwrite=True)
        ingest_and_join(sources, target, test_fraction=0.4, seed=by_side[side], run=run)
        ds = open_store(target)
        split, series = ds["split"].values, ds["series"].values.astype(object)
        assert set(series) == set(series_names)
        assert set(split[series == "GSE14924"].tolist()) == {side}
        assert all(len(set(split[series == s].tolist())) == 1 for s in set(series))


def test_join__impossible_split_leaves_nothing(tmp_path, target, rng):
    with pytest.raises(ConfigError, match=r"ingest.split_by 'series'.*split_by = 'sample'"):
        ingest_and_join([write_source(tmp_path, "GSE1", draw(rng))], target)
    assert not Path(target).exists()


def test_join__fractions_are_shares_of_the_samples(sources, target):
    counts = {}
    for part, share in [("validation", 0.1), ("validation", 0.4), ("test", 0.4)]:
        options = {f"{part}_fraction": share, "split_by": "sample"}
        summary = ingest_and_join(sources, target, run=Run(overwrite=True), **options)
        counts[part, share] = summary.details["split_counts"]
    few, more, tested = counts.values()
    assert more["test"] == few["test"]
    assert few["validation"] < 20 < 30 < more["validation"] < 50
    assert few["test"] < 30 < tested["test"] < 50


def test_join__the_fold_is_the_test_split(sources, target):
    ingest_all(sources)
    tested = []
    for k in range(3):
        join(raws(sources), target, fold=(k, 3), run=Run(overwrite=True))
        ds = open_store(target)
        assert ds.attrs["parameters"]["fold"] == [k, 3]
        tested.append(set(ds["series"].values[ds["split"].values == TEST]))
    assert sorted(name for names in tested for name in names) == sorted(s.name for s in sources)
    (told,) = differences(join.claim(raws(sources), target, fold=(0, 3)))
    assert told == "fold: [2, 3] -> [0, 3]"


def test_join_options__shares_leave_something_to_train_on():
    message = "ingest.test_fraction: with validation_fraction must be below 1"
    with pytest.raises(ValidationError, match=message):
        JoinOptions(test_fraction=0.6, validation_fraction=0.4)


# ---------------------------------------------------------------- refusals


def test_join__no_common_probes(tmp_path, target, rng):
    a = write_source(tmp_path, "GSE1", draw(rng))
    b = write_source(tmp_path, "GSE2", draw(rng), [f"ILMN_{i}" for i in range(12)])
    with pytest.raises(SourceError, match=r"shares 0 probes.*role = 'cohort'.*ingest.probes"):
        ingest_and_join([a, b], target)
    assert not Path(target).exists()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_join__names_the_source_of_an_unknown_platform(tmp_path, target, rng, place):
    sources = [write_source(tmp_path, f"GSE{i}", draw(rng)) for i in (1, 2)]
    odd = write_source(tmp_path, "GSE9", draw(rng), [f"ILMN_{i}" for i in range(12)])
    sources.insert(place, odd)
    with pytest.raises(SourceError, match=r"GSE9: shares 0 probes.*share 12 among.*ILMN_0, ILMN_1"):
        ingest_and_join(sources, target)


def test_join__a_smaller_platform_is_welcome(tmp_path, target, rng):
    a = write_source(tmp_path, "GSE1", draw(rng))
    b = write_source(tmp_path, "GSE2", draw(rng)[:, :4], [f"{i}_at" for i in range(4)])
    assert ingest_and_join([a, b], target, split_by="sample").sizes["gene"] == 4


def test_join__too_few_listed_probes(tmp_path, target, rng):
    (tmp_path / "probes.txt").write_text("\n".join(f"{i}_at" for i in range(14)))
    source = write_source(tmp_path, "GSE1", draw(rng))
    options = {"probes": str(tmp_path / "probes.txt"), "split_by": "sample"}
    with pytest.raises(SourceError, match=r"GSE1: expected at least 90% of the 14 listed .*got 12"):
        ingest_and_join([source], target, **options)
    assert ingest_and_join([source], target, min_coverage=0.8, **options).state == "new"


def test_join__repeated_samples(tmp_path, target, rng):
    values = draw(rng)
    a = write_source(tmp_path, "GSE1", values, samples=list("abcdefgh"))
    b = write_source(tmp_path, "GSE2", values, samples=list("ijklmabn"))
    with pytest.raises(SourceError, match=r"GSE2: 2 samples are in GSE1 too, for example 'a'"):
        ingest_and_join([a, b], target)
    ingest_and_join([a], target, split_by="sample")
    with pytest.raises(SourceError, match=r"GSE2: 2 samples are in GSE1 too, for example 'a'"):
        ingest_and_join([b], str(tmp_path / "more"), like=[target], split_by="sample")


def test_join__a_refused_input_leaves_what_stood_there(tmp_path, target, rng):
    a = write_source(tmp_path, "GSE1", draw(rng), samples=list("abcdefgh"))
    b = write_source(tmp_path, "GSE2", draw(rng), samples=list("ijklmabn"))
    ingest_and_join([a], target, split_by="sample")
    before = digests(target)
    with pytest.raises(SourceError, match=r"GSE2: 2 samples are in GSE1 too"):
        ingest_and_join([a, b], target, split_by="sample", run=Run(overwrite=True))
    assert digests(target) == before
    assert is_complete(target)


# ---------------------------------------------------------------- regions


@pytest.mark.parametrize("length", [16, 48, 200, None])
def test_join__shard_length_does_not_matter(sources, target, simulated, length):
    ingest_and_join(sources, target, shard_samples=length, seed=SEED)
    order = np.argsort(simulated.genes)
    np.testing.assert_array_equal(
        open_store(target)["expression"].values, printed(simulated.expression)[:, order]
    )
    assert len(regions(target)) == -(-100 // (length or 112))


def test_join__resumes_with_the_same_bytes(sources, target):
    ingest_and_join(sources, target, shard_samples=16, seed=SEED)
    before = digests(target)
    remove_regions(target, ["expression"], [0, 4])
    remove_regions(target, ["n_missing"], [2])
    options = JoinOptions(shard_samples=16)
    assert join.claim(raws(sources), target, seed=SEED, options=options).state == "resumed"
    assert join(raws(sources), target, seed=SEED, options=options).state == "resumed"
    assert digests(target) == before


def test_join__fails_half_way_and_goes_on(tmp_path, sources, target, monkeypatch):
    options = {"shard_samples": 16, "seed": SEED}
    ingest_and_join(sources, whole := str(tmp_path / "whole.zarr"), **options)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "_join_region", Breaks(stage._join_region, 3))
        with pytest.raises(BrokenError):
            ingest_and_join(sources, target, **options)
    assert not is_complete(target)
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    ingest_and_join(sources, target, **options)
    assert digests(target) == digests(whole)


# ---------------------------------------------------------------- again


def test_join__second_run_touches_nothing(tmp_path, sources, target):
    first = ingest_and_join(sources, target, seed=SEED)
    before = times(tmp_path)
    second = ingest_and_join(sources, target, seed=SEED)
    assert (first.state, second.state) == ("new", "unchanged")
    assert second.details == first.details
    assert times(tmp_path) == before


def test_join__other_parameters(sources, target):
    ingest_and_join(sources, target, seed=SEED)
    before = read_attributes(target)["store_id"]
    others = {
        "seed": 3,
        "split_by": "sample",
        "test_fraction": 0.3,
        "validation_fraction": 0.2,
        "min_coverage": 0.5,
        "shard_samples": 16,
        "feature_kind": "gene",
    }
    for name, value in others.items():
        message = rf"other parameters: (ingest\.)?{name}: .* -> {value!r}\."
        with pytest.raises(StoreError, match=message):
            ingest_and_join(sources, target, **{"seed": SEED, name: value})
    assert read_attributes(target)["store_id"] == before
    assert is_complete(target)


def test_join__a_changed_file_is_another_input(tmp_path, target, rng):
    values = draw(rng)
    source = write_source(tmp_path, "GSE1", values)
    ingest_and_join([source], target, split_by="sample")
    write_source(tmp_path, "GSE1", values[:, ::-1] + 1, [f"{i}_at" for i in range(12)][::-1])
    ingest_all([source], run=Run(overwrite=True))
    options = JoinOptions(split_by="sample")
    claim = join.claim([source.raw], target, options=options)
    assert differences(claim) == ["source.GSE1: GSE1.zarr was made anew"]
    with pytest.raises(StoreError, match=r"expression.zarr: was made from other inputs: source\."):
        join([source.raw], target, options=options)
    ingest_and_join([source], target, split_by="sample", run=Run(overwrite=True))
    ds = open_store(target)
    order = np.argsort([f"{i}_at" for i in range(12)])
    np.testing.assert_array_equal(ds["expression"].values, printed(values + 1)[:, order])


def test_join__claim_names_the_file_that_is_left_out_or_another(tmp_path, sources, target):
    genes = simulate(n_series=3).genes
    for name in "ab":
        write_annotation(tmp_path / f"{name}.txt", genes, [name] * len(genes))
    (tmp_path / "probes.txt").write_text("\n".join(genes))
    given = {"annotation": str(tmp_path / "a.txt")}
    ingest_and_join(sources, target, seed=SEED, **given)
    before = times(tmp_path)
    for changed, told in [
        ({"annotation": None}, "ingest.annotation: a.txt -> none"),
        ({"annotation": str(tmp_path / "b.txt")}, "ingest.annotation: a.txt -> b.txt"),
        ({"probes": str(tmp_path / "probes.txt")}, "ingest.probes: none -> probes.txt"),
    ]:
        options = JoinOptions(**{**given, **changed})
        claim = join.claim(raws(sources), target, seed=SEED, options=options)
        assert (claim.state, differences(claim)) == ("refused", [told])
        with pytest.raises(StoreError, match=f"made from other inputs: {told}. Replace it"):
            join(raws(sources), target, seed=SEED, options=options)
    assert times(tmp_path) == before


def test_join__claim_tells_an_added_source_as_one_difference(tmp_path, sources, target, rng):
    ingest_and_join(sources, target, seed=SEED)
    added = write_source(tmp_path, "GSE9", draw(rng), samples=list("abcdefgh"))
    ingest_all([added])
    for place in (0, 1, len(sources)):
        more = [*raws(sources[:place]), added.raw, *raws(sources[place:])]
        claim = join.claim(more, target, seed=SEED)
        assert differences(claim) == ["source.GSE9: none -> GSE9.zarr"]
    claim = join.claim(raws(sources)[1:], target, seed=SEED)
    assert differences(claim) == [f"source.{sources[0].name}: {sources[0].name}.zarr -> none"]
    claim = join.claim(raws(sources)[::-1], target, seed=SEED)
    assert differences(claim)[0].startswith("order of the inputs: ")


def test_join__claim_changes_nothing(tmp_path, sources, target):
    assert join.claim(raws(sources), target, seed=SEED).state == "new", "nothing is there at all"
    ingest_all(sources)
    before = times(tmp_path)
    assert join.claim(raws(sources), target, seed=SEED).state == "new"
    assert times(tmp_path) == before
    join(raws(sources), target, seed=SEED)
    before = times(tmp_path)
    assert join.claim(raws(sources), target, seed=SEED).state == "unchanged"
    assert times(tmp_path) == before


def test_join__opening_computes_nothing(sources, target):
    ingest_and_join(sources, target, seed=SEED)
    with no_computing():
        ds = open_store([target])
        assert ds["expression"].shape == (100, 40)
        assert Rows(target).shape == (100, 40)
