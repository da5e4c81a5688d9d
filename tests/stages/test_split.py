"""What stays whole on one side of the split: series, donors, any label, and what binds them."""

import numpy as np
import pytest

from dglzarr.errors import ConfigError
from dglzarr.settings import build_settings
from dglzarr.sources import read_source
from dglzarr.sources.persons import iter_persons
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.rows import read_array
from dglzarr.studies.draft import draft_settings
from dglzarr.studies.forecast import estimate
from dglzarr.testing import write_table

GENES = [f"ENSG{i:011}" for i in range(30)]
DONORS = [f"GTEX-{name}" for name in ("111CU", "1117F", "ZZ64", "Y5V6", "XXEK", "WZTO")]
GTEX = [f"{donor}-{tissue:04}-SM-5GZZ7" for donor in DONORS for tissue in (226, 1626, 2026)]


def write(folder, name, samples, labels):
    """A table with its sheet, read already."""
    values = np.random.default_rng(len(samples)).uniform(2, 14, (len(samples), len(GENES)))
    path, sheet = folder / f"{name}.tsv", folder / f"{name}_sheet.tsv"
    write_table(path, values, samples=samples, genes=GENES, sample_sheet=sheet, labels=labels)
    source = SourceFile(
        str(path), str(folder / "raw" / f"{name}.zarr"), SourceOptions(sample_sheet=str(sheet))
    )
    ingest_all([source])
    return source.raw


def split_of(folder, raws, *, seed=0, like=(), **options):
    target = str(folder / f"{len(list(folder.iterdir()))}.zarr")
    join(raws, target, seed=seed, like=like, options=JoinOptions(**options))
    samples = [str(sample) for sample in read_array(target, "sample")]
    return target, dict(zip(samples, read_array(target, "split").tolist(), strict=True))


@pytest.fixture
def gtex(tmp_path):
    tissues = ["Skin", "Lung", "Liver"] * len(DONORS)
    return write(tmp_path, "gtex", GTEX, {"SMTS": tissues, "SMTSD": tissues})


@pytest.mark.usefixtures("gtex")
def test_read_source__gtex_says_donors_and_tissues(tmp_path):
    source = read_source(tmp_path / "gtex.tsv", sample_sheet=tmp_path / "gtex_sheet.tsv")
    assert source.labels["donor"] == [donor for donor in DONORS for _ in range(3)]
    assert source.labels["tissue"][:2] == ["Skin", "Lung"]
    path = tmp_path / "tcga.tsv"
    write_table(
        path, np.ones((2, 30)), samples=["TCGA.A1.A0SB.01A", "TCGA-A1-A0SB-11A"], genes=GENES
    )
    assert read_source(path).labels == {"donor": ["TCGA-A1-A0SB"] * 2}


def test_join__a_donor_stays_on_one_side(tmp_path, gtex):
    for seed in range(4):
        _, split = split_of(tmp_path, [gtex], split_by="donor", seed=seed, test_fraction=0.5)
        for donor in DONORS:
            assert len({side for sample, side in split.items() if sample.startswith(donor)}) == 1


def test_join__a_split_that_divides_donors_is_refused(tmp_path, gtex):
    with pytest.raises(
        ConfigError, match=r"split_by 'sample': .* of 'GTEX-.*Set .*split_by = 'don"
    ):
        split_of(tmp_path, [gtex], split_by="sample")
    _, split = split_of(tmp_path, [gtex], split_by="sample", divide_persons=True)
    assert set(split.values()) == {0, 1, 2}
    with pytest.raises(ConfigError, match=r"split_by 'series'.*set ingest.split_by = 'donor'"):
        split_of(tmp_path, [gtex])


def test_join__a_donor_of_two_series_is_not_divided_by_series(tmp_path):
    """A barcode stands for one person everywhere, a number for one person of its series."""
    samples = [f"GSM{i}" for i in range(40)]
    series = [f"GSE{i // 5}" for i in range(40)]
    numbers = write(
        tmp_path, "a", samples, {"series": series, "patient": [str(i % 5) for i in range(40)]}
    )
    _, split = split_of(tmp_path, [numbers])
    assert set(split.values()) == {0, 2}
    donors = write(
        tmp_path, "b", samples, {"series": series, "donor": [f"GTEX-A{i % 5}" for i in range(40)]}
    )
    with pytest.raises(ConfigError, match=r"split_by 'series': expected all samples of a person"):
        split_of(tmp_path, [donors])


def test_join__barcodes_of_samples_are_split_by_their_patients(tmp_path):
    samples = [f"GSM{i}" for i in range(24)]
    patients = [f"TCGA-A1-A0S{chr(65 + i // 2)}-{i % 2:02}A" for i in range(24)]
    raw = write(tmp_path, "a", samples, {"patient": patients})
    _, split = split_of(tmp_path, [raw], split_by="patient", test_fraction=0.4)
    sides = list(split.values())
    assert sides[::2] == sides[1::2]


def test_join__any_label_and_its_absence(tmp_path):
    samples = [f"GSM{i}" for i in range(24)]
    batches = [f"b{i % 6}" if i < 18 else "" for i in range(24)]
    raw = write(tmp_path, "a", samples, {"batch": batches})
    _, split = split_of(tmp_path, [raw], split_by="batch", test_fraction=0.4)
    for batch in set(batches):
        sides = {split[s] for s, own in zip(samples, batches, strict=True) if own == batch}
        assert len(sides) == 1
    with pytest.raises(ConfigError, match=r"got 'bach' \(did you mean 'batch'\?\)"):
        split_of(tmp_path, [raw], split_by="bach")


@pytest.mark.usefixtures("gtex")
def test_dry_run__tells_a_label_that_is_absent(tmp_path):
    content = {
        "root": "study",
        "sources": [{"uri": "gtex.tsv", "sample_sheet": "gtex_sheet.tsv"}],
        "ingest": {"split_by": "donors"},
        "select": {"n_landmarks": 5},
    }
    with pytest.raises(ConfigError, match=r"split_by: expected one of .*did you mean 'donor'"):
        estimate(build_settings(content, name="x", folder=tmp_path))


def test_join__samples_of_several_series_bind_these(tmp_path):
    """GSE0 and GSE1, GSE1 and GSE2 share a sample: the three are one unit, in folds too."""
    samples = [f"GSM{i}" for i in range(40)]
    series = [f"GSE{i // 4}" for i in range(40)]
    series[3], series[7] = "GSE0,GSE1", "GSE1;GSE2"
    raw = write(tmp_path, "a", samples, {"series": series})
    for seed in range(3):
        _, split = split_of(tmp_path, [raw], seed=seed, test_fraction=0.4)
        assert len({split[sample] for sample in samples[:12]}) == 1
    for k in range(3):
        target = str(tmp_path / f"fold-{k}.zarr")
        join([raw], target, fold=(k, 3))
        assert len(set(read_array(target, "split")[:12].tolist())) == 1


def test_join__a_grown_study_keeps_donors_and_series_on_their_side(tmp_path, gtex):
    old, before = split_of(tmp_path, [gtex], split_by="donor", seed=3, test_fraction=0.5)
    more = [f"{donor}-9999-SM-1" for donor in DONORS]
    raw = write(tmp_path, "more", more, {"SMTS": ["Skin"] * 6})
    _, after = split_of(tmp_path, [raw], like=[old], split_by="donor", seed=77)
    for donor, sample in zip(DONORS, more, strict=True):
        (side,) = {side for name, side in before.items() if name.startswith(donor)}
        assert after[sample] == side


def test_join__a_new_sample_that_binds_two_sides_is_refused(tmp_path):
    series = [f"GSE{i // 4}" for i in range(40)]
    raw = write(tmp_path, "a", [f"GSM{i}" for i in range(40)], {"series": series})
    old, split = split_of(tmp_path, [raw], test_fraction=0.4)
    side = {own: split[f"GSM{i}"] for i, own in enumerate(series)}
    train = next(own for own, place in side.items() if place == 0)
    test = next(own for own, place in side.items() if place == 2)
    more = write(tmp_path, "b", ["GSM90", "GSM91"], {"series": [f"{train},{test}", "GSE500"]})
    with pytest.raises(ConfigError, match=r"sample 'GSM90': expected series of one side"):
        split_of(tmp_path, [more], like=[old])
    other = write(tmp_path, "c", ["GSM92"], {"series": [f"{test},GSE501"]})
    assert split_of(tmp_path, [other], like=[old])[1] == {"GSM92": 2}


def test_join__a_new_sample_of_a_divided_donor_is_refused(tmp_path):
    """By series the new samples of a donor may fall on the other side: refused then."""
    samples, series = [f"GSM{i}" for i in range(20)], [f"GSE{i // 4}" for i in range(20)]
    donors = [f"GTEX-A{i // 4}" for i in range(20)]
    raw = write(tmp_path, "a", samples, {"series": series, "donor": donors})
    old, split = split_of(tmp_path, [raw], test_fraction=0.4)
    assert set(split.values()) >= {0, 2}
    new = {"series": [f"GSE9{i}" for i in range(20)], "donor": donors}
    more = write(tmp_path, "b", [f"GSM1{i:03}" for i in range(20)], new)
    with pytest.raises(ConfigError, match=r"samples of a person on one side"):
        split_of(tmp_path, [more], like=[old])


def test_iter_persons__labels_that_are_no_persons():
    labels = {"patient status": ["ill"], "Patient_ID": ["7"], "subject": ["NA"], "age": ["7"]}
    assert dict(iter_persons(labels, ["GSE1"])) == {"Patient_ID": ["GSE1: 7"], "subject": [""]}
    ((_, persons),) = iter_persons({"donor": ["7", "7"]}, ["GSE1", "GSE1,GSE2"])
    assert len(set(persons)) == 1


@pytest.mark.usefixtures("gtex")
def test_draft__splits_a_single_series_by_donor(tmp_path):
    assert 'split_by = "donor"' in draft_settings(tmp_path, base=tmp_path)
