"""What is wrong with files and values ends in one clear line, and nothing half-made."""

import gzip
import re

import numpy as np
import pytest

from dglzarr.storage.rows import read_array
from dglzarr.storage.store import is_complete
from dglzarr.testing import write_gct, write_gctx, write_soft, write_table
from tests.bad_input.spoiled import GENES, large, word_among_numbers


def test_a_good_study_passes(study):
    assert study.run().status == 0
    assert study.complete == ["segments/0000/expression.zarr"]


def not_there(study):
    study.sources = [{"uri": "absent.txt"}]


def truncated_gz(study):
    text = (study.folder / "GSE1_series_matrix.txt").read_bytes()
    (study.folder / "GSE1_series_matrix.txt").unlink()
    packed = gzip.compress(text)
    (study.folder / "GSE1_series_matrix.txt.gz").write_bytes(packed[: len(packed) // 2])


def damaged_gz(study):
    text = (study.folder / "GSE1_series_matrix.txt").read_bytes()
    (study.folder / "GSE1_series_matrix.txt").unlink()
    packed = bytearray(gzip.compress(text))
    packed[len(packed) // 2] ^= 255
    (study.folder / "GSE1_series_matrix.txt.gz").write_bytes(packed)


def truncated_text(study):
    path = study.folder / "GSE1_series_matrix.txt"
    path.write_text(path.read_text()[:-60])


def empty_file(study):
    study.replace("")


def empty_table(study):
    lines = (study.folder / "GSE1_series_matrix.txt").read_text().splitlines(keepends=True)
    study.replace("".join(line for line in lines if "_at" not in line))


def header_alone(study):
    study.replace("ID_REF\ta\tb\n")


def repeated_probe(study):
    study.edit("GSE1_series_matrix.txt", '"03_at"', '"02_at"')


def repeated_sample(study):
    study.edit("GSE1_series_matrix.txt", '"GSE1-3"', '"GSE1-2"', 99)


def sample_of_another_series(study):
    study.edit("GSE2_series_matrix.txt", '"GSE2-3"', '"GSE1-2"', 99)


def infinite_value(study):
    study.edit("GSE1_series_matrix.txt", f"{study.values[0, 3]:.5f}", "inf")


def short_row(study):
    study.edit("GSE1_series_matrix.txt", f"\t{study.values[0, 3]:.5f}", "")


def centred_values(study):
    study.write("GSE1", study.values[:8] - np.median(study.values[:8]))


def missing_values_alone(study):
    study.write("GSE1", np.full((8, 12), np.nan))


def spreadsheet(study):
    (study.folder / "GSE1_series_matrix.txt").write_bytes(b"PK\x03\x04\x14\x00\x06\x00" * 40)


def prose(study):
    study.replace("This series is not available.\nAsk the authors.\n")


def gctx_in_name_alone(study):
    (study.folder / "GSE3_x.gctx").write_text("#1.3\n3\t2\n")


def gctx_of_other_content(study):
    import h5py

    with h5py.File(study.folder / "GSE3_x.gctx", "w") as file:
        file["something"] = [1, 2]


def no_common_probes(study):
    study.write("GSE2", study.values[:8], [f"ILMN_{i}" for i in range(12)])


def unknown_platform(study):
    study.write("GSE3", study.values[:8])
    study.edit("GSE3_series_matrix.txt", "_at", "_chip", 999)


def unlisted_platform(study):
    (study.folder / "probes.txt").write_text("\n".join(f"ILMN_{i}" for i in range(9)))
    study.settings["ingest.probes"] = "probes.txt"


def sheet_of_other_samples(study):
    (study.folder / "sheet.tsv").write_text("Sample\tdisease\nx\tno\n")
    study.sources = [{"uri": "GSE*", "sample_sheet": "sheet.tsv"}]


def sheet_not_there(study):
    study.sources = [{"uri": "GSE*", "sample_sheet": "{stem}.tsv"}]


@pytest.mark.parametrize(
    ("spoil", "status", "pattern"),
    [
        (not_there, 2, r"sources\.0\.uri: no such file: .*absent\.txt"),
        (truncated_gz, 1, r"GSE1_series_matrix\.txt\.gz.*(truncated|incomplete|ended|download)"),
        (damaged_gz, 1, r"GSE1_series_matrix\.txt\.gz"),
        (truncated_text, 1, r"GSE1_series_matrix\.txt, line \d+: expected"),
        (empty_file, 1, r"GSE1_series_matrix\.txt.*empty|GSE1_series_matrix\.txt.*got"),
        (empty_table, 1, r"GSE1_series_matrix\.txt.*expected"),
        (header_alone, 1, r"GSE1_series_matrix\.txt.*expected"),
        (repeated_probe, 1, r"GSE1_series_matrix\.txt, line \d+: .*'02_at'"),
        (repeated_sample, 1, r"GSE1_series_matrix\.txt, line \d+: .*'GSE1-2'"),
        (sample_of_another_series, 1, r"GSE2: 1 samples are in GSE1 too, for example 'GSE1-2'"),
        (word_among_numbers, 1, r"GSE1_series_matrix\.txt, line \d+: .*'high'"),
        (infinite_value, 1, r"GSE1_series_matrix\.txt.*inf"),
        (short_row, 1, r"GSE1_series_matrix\.txt, line \d+: expected 9 columns, got 8"),
        (centred_values, 1, r"GSE1_series_matrix\.txt: .*median-centred.*before centring"),
        (missing_values_alone, 1, r"GSE1_series_matrix\.txt: .*only missing values"),
        (spreadsheet, 1, r"GSE1_series_matrix\.txt"),
        (prose, 1, r"GSE1_series_matrix\.txt, line 1: expected a series matrix, SOFT, GCT"),
        (gctx_in_name_alone, 1, r"GSE3_x\.gctx"),
        (gctx_of_other_content, 1, r"GSE3_x\.gctx"),
        (no_common_probes, 1, r"GSE\d: shares 0 probes .*role = 'cohort'"),
        (unknown_platform, 1, r"GSE3: shares 0 probes .*Unknown platform"),
        (unlisted_platform, 1, r"GSE1: expected at least 90% of the 9 listed probes, got 0"),
        (sheet_of_other_samples, 1, r"sheet\.tsv: expected a column with all 8 samples"),
        (sheet_not_there, 1, r"GSE\d\.tsv: no such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_source(study, spoil, status, pattern):
    spoil(study)
    run = study.expect(status, pattern)
    bad = re.search(r"GSE\d", pattern)
    if status == 1 and bad and "shares" not in pattern and "samples are" not in pattern:
        raw = [p for p in study.root.glob(f"raw/{bad.group()}*.zarr") if is_complete(str(p))]
        assert raw == [] or "listed" in pattern, run.err


@pytest.mark.parametrize(
    "write",
    [
        lambda folder, **matrix: write_gct(folder / "GSE1_x.gct", **matrix),
        lambda folder, **matrix: write_gctx(folder / "GSE1_x.gctx", **matrix),
        lambda folder, **matrix: write_table(folder / "GSE1_x.csv", **matrix),
        lambda folder, **matrix: write_soft(
            folder / "GSE1_x.soft", series="GSE1", platform="GPL96", **matrix
        ),
    ],
    ids=["gct", "gctx", "csv", "soft"],
)
@pytest.mark.parametrize("fault", ["half the file", "repeated probe"])
def test_source__any_format(study, write, fault):
    (study.folder / "GSE1_series_matrix.txt").unlink()
    genes = list(GENES)
    if fault == "repeated probe":
        genes[3] = genes[2]
    samples = [f"x{i}" for i in range(8)]
    path = write(study.folder, expression=study.values[:8], samples=samples, genes=genes)
    if fault == "half the file":
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    study.expect(1, rf"{path.name}|GSE1_x", "ingest")


@pytest.mark.data
def test_source__wrong_extension(study, data_dir):
    """GCT text named .gctx is told by its content, and these values are z-scores."""
    study.sources = [{"uri": str(data_dir / "gctx" / "test_l1000.gctx")}]
    study.expect(1, r"test_l1000\.gctx: .*median-centred.*before centring")


def in_first_series(study, sample, gene, value):
    values = study.values[:8].copy()
    values[sample, gene] = value
    study.write("GSE1", values)


@pytest.mark.parametrize("value", [3e38, 900.0, -900.0])
def test_value__huge_among_log2_values(study, value):
    large(study)
    names = [f"{i:03d}_at" for i in range(400)]
    values = np.random.default_rng(1).uniform(4, 14, (32, 400))
    values[2, 3] = value
    study.write("GSE1", values, names)
    study.expect(1, r"GSE1_series_matrix\.txt: .*one scale, got log2 .*Take the outliers out")
    assert not is_complete(str(study.root / "raw" / "GSE1.zarr"))


@pytest.mark.parametrize("value", [3e38, -900.0])
def test_value__huge_where_the_scale_is_not_looked_at(study, value):
    """Of a large file a few windows tell the scale; the value stands between two of them."""
    values = np.tile(study.values[:8], (75, 1))
    values[34, 3] = value
    names = [f"x{i}" for i in range(600)]
    write_gctx(study.folder / "GSE3_x.gctx", values, samples=names, genes=GENES)
    study.expect(1, r"sample 'x34', gene '03_at': expected a log2 value, got -?[39]")


def test_value__a_little_below_zero_is_a_log2_value(study):
    in_first_series(study, 2, 3, -0.5)
    assert study.run().status == 0
    assert read_array(f"{study.root}/segments/0000/expression.zarr", "expression").min() == -0.5


def test_sample__without_values(study):
    in_first_series(study, 2, slice(None), np.nan)
    study.expect(1, r"sample 'GSE1-2': expected values, got none for any gene of the study")


def test_sample__constant_gets_the_middle_of_the_reference(study):
    in_first_series(study, 2, slice(None), 8.0)
    assert study.run().status == study.run("normalize").status == study.run("dedup").status == 0
    store = f"{study.root}/segments/0000/normalized.zarr"
    reference = read_array(store, "quantile_reference")
    found = read_array(store, "expression")[2]
    np.testing.assert_array_equal(found, np.float32((reference[5] + reference[6]) / 2))


@pytest.mark.slow
def test_gene__without_values(study):
    """It stays missing, its score is 0 and its rank the last."""
    study.values[:, 3] = np.nan
    study.write("GSE1", study.values[:8])
    study.write("GSE2", study.values[8:])
    study.settings |= {"train.hidden": 6, "train.n_latent": 2, "train.epochs": 2}
    study.settings["select.n_random"] = 1
    assert study.run("mine").status == 0
    for name in ("expression", "normalized"):
        values = read_array(f"{study.root}/segments/0000/{name}.zarr", "expression")
        np.testing.assert_array_equal(np.isnan(values).all(axis=0), np.arange(12) == 3)
    contribution = read_array(f"{study.root}/segments/0000/contributions.zarr", "contribution")
    np.testing.assert_array_equal(np.isnan(contribution).all(axis=0), np.arange(12) == 3)
    assert read_array(f"{study.root}/scores.zarr", "score")[3] == 0
    assert read_array(f"{study.root}/landmarks.zarr", "rank")[3] == 12
