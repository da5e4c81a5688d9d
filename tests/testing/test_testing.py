import gzip
import json
import re
import tomllib

import h5py
import numpy as np
import pytest

from dglzarr.kernels.duplicates import find_near_duplicates
from dglzarr.kernels.quantile import quantile_normalize
from dglzarr.kernels.scale import detect_scale, value_quantiles
from dglzarr.settings import load_settings
from dglzarr.sources import read_source
from dglzarr.sources.identifiers import read_annotation_table
from dglzarr.testing import (
    simulate_expression,
    write_annotation,
    write_gct,
    write_gctx,
    write_series_matrix,
    write_soft,
    write_study,
    write_table,
)

SMALL = {"n_samples": 200, "n_genes": 120, "n_hubs": 8, "n_programs": 4, "n_series": 5}
SAMPLES, GENES = ["GSM1", "GSM2"], ["1007_s_at", "1053_at", "117_at"]
MATRIX = np.array([[4.5, 7.0, 12.25], [5.0, np.nan, 9.125]])
GEO = {"samples": SAMPLES, "genes": GENES, "series": "GSE9", "platform": "GPL96"}
LABELS = {"samples": SAMPLES, "genes": GENES}


@pytest.fixture(scope="module")
def simulated():
    return simulate_expression()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("demo"), n_samples=200, n_genes=120, seed=3)


def columns(simulated, genes):
    place = {gene: i for i, gene in enumerate(simulated.genes)}
    return np.array([place[gene] for gene in genes])


def z_scores(simulated):
    normalized = quantile_normalize(simulated.expression.astype(np.float64))
    return (normalized - normalized.mean(0)) / normalized.std(0)


def share_of_hubs(simulated, score):
    n_hubs = len(simulated.hubs)
    best = np.argsort(-score)[:n_hubs]
    return len(set(best) & set(columns(simulated, simulated.hubs))) / n_hubs


def test_simulate_expression__shapes_and_ranges(simulated):
    assert simulated.expression.shape == (1200, 1200)
    assert simulated.expression.dtype == np.float32
    assert simulated.expression.min() >= 4
    assert simulated.expression.max() <= 15
    for labels in (simulated.series, simulated.platform, simulated.tissue):
        assert len(labels) == 1200
    assert len(set(simulated.samples)) == len(set(simulated.genes)) == 1200
    assert len(set(simulated.series)) == 16
    assert set(simulated.platform) == {"GPL96", "GPL570"}
    assert all(re.fullmatch(r"\d+(_[sx])?_at", gene) for gene in simulated.genes)


def test_simulate_expression__every_gene_has_one_kind(simulated):
    kinds = [simulated.hubs, simulated.followers, simulated.decoys, simulated.noise_genes]
    assert [len(kind) for kind in kinds] == [40, 600, 180, 380]
    assert sorted(gene for kind in kinds for gene in kind) == sorted(simulated.genes)


def test_simulate_expression__hubs_are_spread_over_the_gene_order(simulated):
    assert 300 < np.median(columns(simulated, simulated.hubs)) < 900


def test_simulate_expression__hub_symbols_are_their_own(simulated):
    symbols = [simulated.gene_symbol[i] for i in columns(simulated, simulated.hubs)]
    assert all(re.fullmatch(r"SIM\d+", symbol) for symbol in symbols)
    assert "" in simulated.gene_symbol
    assert any("///" in symbol for symbol in simulated.gene_symbol)
    assert len(set(simulated.gene_symbol)) < len(simulated.genes)


def test_simulate_expression__same_seed_same_bytes():
    one, same = simulate_expression(**SMALL, seed=4), simulate_expression(**SMALL, seed=4)
    np.testing.assert_array_equal(one.expression, same.expression)
    assert one.hubs == same.hubs
    assert one.duplicates == same.duplicates


def test_simulate_expression__another_seed_moves_the_hubs():
    assert simulate_expression(**SMALL, seed=4).hubs != simulate_expression(**SMALL, seed=5).hubs


def test_simulate_expression__variance_finds_decoys_and_no_hub(simulated):
    std = simulated.expression.std(0)
    assert share_of_hubs(simulated, std) == 0
    top = np.argsort(-std)[:40]
    assert {simulated.genes[i] for i in top} <= set(simulated.decoys)


def test_simulate_expression__shared_variance_finds_the_hubs(simulated):
    z = z_scores(simulated)
    left, size, right = np.linalg.svd(z, full_matrices=False)
    shared = ((left[:, :8] * size[:8]) @ right[:8]).std(0)
    assert share_of_hubs(simulated, shared) > 0.9
    shuffled = np.random.default_rng(0).permutation(shared)
    assert share_of_hubs(simulated, shuffled) < 0.2


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("hubs", 0.7, 1), ("followers", 0, 0.6), ("decoys", 0, 0.25), ("noise_genes", 0, 0.25)],
)
def test_simulate_expression__correlation_with_the_hubs(simulated, kind, low, high):
    z = z_scores(simulated)
    hubs = columns(simulated, simulated.hubs)
    correlation = np.abs(z[:, hubs].T @ z / len(z))
    correlation[np.arange(len(hubs)), hubs] = 0
    best = correlation.max(0)[columns(simulated, getattr(simulated, kind))]
    assert low < np.median(best) < high


def test_simulate_expression__hubs_predict_better_than_random_panels(simulated):
    z = z_scores(simulated)
    test = np.isin(simulated.series, sorted(set(simulated.series))[:4])

    def pcc(panel):
        others = np.setdiff1d(np.arange(z.shape[1]), panel)
        known = z[~test][:, panel]
        weights = np.linalg.solve(
            known.T @ known + np.eye(len(panel)), known.T @ z[~test][:, others]
        )
        predicted, truth = z[test][:, panel] @ weights, z[test][:, others]
        predicted, truth = predicted - predicted.mean(0), truth - truth.mean(0)
        spread = np.linalg.norm(predicted, axis=0) * np.linalg.norm(truth, axis=0)
        return ((predicted * truth).sum(0) / spread).mean()

    rng = np.random.default_rng(0)
    random = [pcc(rng.permutation(z.shape[1])[:40]) for _ in range(5)]
    assert pcc(columns(simulated, simulated.hubs)) > max(random) + 0.03


def test_simulate_expression__some_followers_are_not_linear():
    simulated = simulate_expression(4000, 120, n_hubs=4, n_programs=1, n_series=1, n_duplicates=0)
    hub = simulated.expression[:, columns(simulated, simulated.hubs[:1])[0]]
    z = (hub - hub.mean()) / hub.std()
    followers = simulated.expression[:, columns(simulated, simulated.followers)]
    curved = np.abs([np.corrcoef(z**2 - 1, f)[0, 1] for f in followers.T])
    assert 0.1 < (curved > 0.1).mean() < 0.5


def test_simulate_expression__series_shift_the_level(simulated):
    level = simulated.expression.mean(1)
    accession = np.array(simulated.series)
    means = [level[accession == name].mean() for name in np.unique(accession)]
    within = np.mean([level[accession == name].std() for name in np.unique(accession)])
    assert np.std(means) > 3 * within


def test_simulate_expression__duplicates_are_found_by_the_kernel(simulated):
    matrix = quantile_normalize(simulated.expression)
    keep = find_near_duplicates(matrix, threshold=1.0)
    dropped = {simulated.samples[i] for i in np.flatnonzero(~keep)}
    assert dropped == {copy for copy, _ in simulated.duplicates}
    assert len(dropped) == 20


def test_simulate_expression__exact_and_near_duplicates_alternate(simulated):
    row = dict(zip(simulated.samples, simulated.expression.astype(np.float64), strict=True))
    distances = np.array([np.linalg.norm(row[a] - row[b]) for a, b in simulated.duplicates])
    assert (distances[::2] == 0).all()
    assert ((distances[1::2] > 0.1) & (distances[1::2] < 0.6)).all()


def test_simulate_expression__missing_fraction():
    simulated = simulate_expression(**SMALL, missing_fraction=0.1)
    assert np.isnan(simulated.expression).mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("n_hubs", 31),
        ("n_programs", 9),
        ("n_series", 201),
        ("n_duplicates", 101),
        ("missing_fraction", -0.1),
    ],
)
def test_simulate_expression__out_of_range(argument, value):
    with pytest.raises(ValueError, match=rf"{argument}: expected .*, got {value}"):
        simulate_expression(**{**SMALL, argument: value})


@pytest.mark.parametrize("name", ["GSE9_series_matrix.txt", "GSE9_series_matrix.txt.gz"])
@pytest.mark.parametrize("scale", ["log2", "raw"])
def test_write_series_matrix__read_back(tmp_path, name, scale):
    path = write_series_matrix(
        tmp_path / name, MATRIX, **GEO, scale=scale, tissue=["liver", "skin"]
    )
    source = read_source(path)
    assert (source.format, source.series) == ("series-matrix", "GSE9")
    assert (source.samples, source.genes) == (SAMPLES, GENES)
    assert source.platform == ["GPL96", "GPL96"]
    assert source.labels["tissue"] == ["liver", "skin"]
    expected = 2**MATRIX - 1 if scale == "raw" else MATRIX
    np.testing.assert_allclose(source.read(0, 2), expected, atol=5e-3)


def test_write_series_matrix__header(tmp_path):
    path = write_series_matrix(tmp_path / "a.txt", MATRIX, **GEO)
    text = path.read_text()
    assert '!Sample_data_row_count\t"3"\t"3"\n' in text
    assert '!Sample_platform_id\t"GPL96"\t"GPL96"\n' in text
    assert '\n"1053_at"\t7.00000\tnull\n' in text
    assert text.endswith("!series_matrix_table_end\n")


def test_write_series_matrix__more_genes_than_a_block(tmp_path, rng):
    matrix = rng.uniform(4, 15, (2, 1030))
    genes = [f"P{i}_at" for i in range(1030)]
    path = write_series_matrix(
        tmp_path / "a.txt", matrix, samples=SAMPLES, genes=genes, series="GSE9", platform="GPL96"
    )
    source = read_source(path)
    assert source.genes == genes
    np.testing.assert_allclose(source.read(0, 2), matrix, atol=1e-5)


def test_write_series_matrix__gz_bytes_depend_on_content_alone(tmp_path):
    one = write_series_matrix(tmp_path / "one.txt.gz", MATRIX, **GEO)
    other = write_series_matrix(tmp_path / "other.txt.gz", MATRIX, **GEO)
    assert one.read_bytes() == other.read_bytes()
    assert gzip.decompress(one.read_bytes()).startswith(b"!Series_title")


def test_write_soft__read_back(tmp_path):
    source = read_source(write_soft(tmp_path / "GSE9_family.soft.gz", MATRIX, **GEO))
    assert (source.format, source.series) == ("soft", "GSE9")
    assert (source.samples, source.genes) == (SAMPLES, GENES)
    assert source.platform == ["GPL96", "GPL96"]
    np.testing.assert_allclose(source.read(0, 2), MATRIX, atol=1e-5)


@pytest.mark.parametrize("writer", [write_series_matrix, write_soft])
def test_write_geo__unknown_scale(tmp_path, writer):
    with pytest.raises(ValueError, match="scale: expected 'log2' or 'raw', got 'ln'"):
        writer(tmp_path / "a.txt", MATRIX, **GEO, scale="ln")


def test_write_gct__read_back(tmp_path):
    path = write_gct(tmp_path / "a.gct", MATRIX, **LABELS, descriptions=["DDR1", "RFC2", "HSPA6"])
    assert path.read_text().startswith("#1.2\n3\t2\nName\tDescription\tGSM1\tGSM2\n1007_s_at\tDDR1")
    source = read_source(path)
    assert (source.samples, source.genes) == (SAMPLES, GENES)
    assert source.gene_symbol == ["DDR1", "RFC2", "HSPA6"]
    np.testing.assert_allclose(source.read(0, 2), MATRIX)


def test_write_gctx__read_back(tmp_path):
    path = write_gctx(
        tmp_path / "a.gctx",
        MATRIX,
        **LABELS,
        gene_symbol=["DDR1", "RFC2", "HSPA6"],
        labels={"tissue": ["liver", "skin"]},
    )
    source = read_source(path)
    assert (source.format, source.samples, source.genes) == ("gctx", SAMPLES, GENES)
    assert source.gene_symbol == ["DDR1", "RFC2", "HSPA6"]
    assert source.labels["tissue"] == ["liver", "skin"]
    np.testing.assert_allclose(source.read(0, 2), MATRIX)


def test_write_gctx__layout_and_blocks(tmp_path, rng):
    matrix = rng.uniform(4, 15, (300, 5)).astype(np.float32)
    samples, genes = [f"s{i}" for i in range(300)], [f"g{i}" for i in range(5)]
    one = write_gctx(tmp_path / "a.gctx", matrix, samples=samples, genes=genes)
    other = write_gctx(tmp_path / "b" / "a.gctx", matrix, samples=samples, genes=genes)
    assert one.read_bytes() == other.read_bytes()
    with h5py.File(one) as file:
        assert file.attrs["version"] == "GCTX1.0"
        np.testing.assert_array_equal(file["0/DATA/0/matrix"], matrix)
        assert file["0/META/COL/id"][299] == b"s299"


@pytest.mark.parametrize("suffix", ["tsv.gz", "csv"])
def test_write_table__read_back(tmp_path, suffix):
    sheet = tmp_path / f"GSE9_samples.{suffix}"
    path = write_table(
        tmp_path / f"GSE9_expr.{suffix}",
        MATRIX,
        **LABELS,
        sample_sheet=sheet,
        labels={"Tissue": ["liver", "skin"]},
    )
    source = read_source(path, sample_sheet=sheet)
    assert (source.samples, source.genes) == (SAMPLES, GENES)
    assert source.labels["Tissue"] == ["liver", "skin"]
    np.testing.assert_allclose(source.read(0, 2), MATRIX)


@pytest.mark.parametrize("writer", [write_gct, write_gctx, write_table])
def test_write__labels_must_fit_the_matrix(tmp_path, writer):
    with pytest.raises(ValueError, match=r"expected shape .* = \(2, 3\), got \(3, 2\)"):
        writer(tmp_path / "a.gct", MATRIX.T, **LABELS)


def test_write_annotation__read_back(tmp_path):
    path = write_annotation(tmp_path / "a.txt", GENES, ["DDR1", "RFC2", "HSPA6"])
    assert read_annotation_table(path).symbol == dict(
        zip(GENES, ["DDR1", "RFC2", "HSPA6"], strict=True)
    )


def test_write_study__every_source_reads(study):
    sources = {p.name: read_source(p) for p in study.parent.glob("data/*[xz]")}
    matrices = [s for s in sources.values() if s.format == "series-matrix"]
    assert len(matrices) == 17
    assert {s.platform[0] for s in matrices} == {"GPL96", "GPL570"}
    assert {s.format for s in sources.values()} == {"series-matrix", "gctx", "gct"}
    trained = [s for s in sources.values() if s.format != "gct"]
    assert len({s.series for s in trained}) == 18
    assert sum(len(s.samples) for s in trained) == 200


def test_write_study__one_series_is_raw(study):
    scales = {}
    for path in sorted(study.parent.glob("data/*_series_matrix.txt.gz")):
        source = read_source(path)
        scales[source.series] = detect_scale(value_quantiles(source.read(0, len(source.samples))))
    assert [series for series, scale in scales.items() if scale == "raw"] == ["GSE900002"]


def test_write_study__platforms_differ_and_share_the_hubs(study):
    first, second = (
        read_source(study.parent / "data" / f"GSE90000{i}_series_matrix.txt.gz").genes
        for i in (1, 3 + 1)
    )
    assert set(first) - set(second)
    assert set(second) - set(first)
    shared = set(first) & set(second)
    assert [g for g in first if g in shared] != [g for g in second if g in shared]
    hubs = json.loads((study.parent / "truth.json").read_text())["hubs"]
    assert len(hubs) == 4
    assert set(hubs) <= shared


def test_write_study__duplicates_survive_the_files(study):
    truth = json.loads((study.parent / "truth.json").read_text())
    rows = {}
    for path in study.parent.glob("data/GSE*"):
        source = read_source(path)
        values = source.read(0, len(source.samples)).astype(np.float64)
        log2 = np.log2(values + 1) if source.series == "GSE900002" else values
        for sample, row in zip(source.samples, log2, strict=True):
            rows[sample] = dict(zip(source.genes, row, strict=True))
    assert truth["duplicates"]
    for copy, original in truth["duplicates"]:
        both = rows[copy].keys() & rows[original].keys()
        gap = [rows[copy][gene] - rows[original][gene] for gene in both]
        assert np.linalg.norm(gap) < 0.7


def test_write_study__cohort_carries_the_same_programs(tmp_path):
    folder = write_study(tmp_path, n_samples=600, n_genes=300).parent
    hubs = json.loads((folder / "truth.json").read_text())["hubs"]
    symbol = read_annotation_table(folder / "data" / "annotation.txt").symbol
    cohort = read_source(folder / "data" / "GTEx_simulated_gene_reads.gct.gz")
    assert all(gene.startswith("ENSG") and "." in gene for gene in cohort.genes)
    place = {name: i for i, name in enumerate(cohort.gene_symbol)}
    counts = np.log2(cohort.read(0, len(cohort.samples)) + 1.0)
    series = read_source(folder / "data" / "GSE900018_matrix.gctx")
    arrays = series.read(0, 90)

    def correlation(matrix, at):
        return np.corrcoef(matrix[:, at].T)[np.triu_indices(len(hubs), 1)]

    in_cohort = correlation(counts, [place[symbol[gene]] for gene in hubs])
    in_arrays = correlation(arrays, [series.genes.index(gene) for gene in hubs])
    assert np.corrcoef(in_cohort, in_arrays)[0, 1] > 0.5


def test_write_study__settings_load(study):
    settings = load_settings(study)
    content = tomllib.loads(study.read_text())
    assert content["root"] == "study"
    assert settings.seed == 3
    assert settings.select.n_landmarks == 2
    assert [s.role for s in settings.sources] == ["train", "train", "cohort"]


def test_write_study__published_panel_is_half_hubs(study):
    lines = (study.parent / "data" / "published.txt").read_text().splitlines()
    probes = [line.split("\t")[2] for line in lines]
    hubs = json.loads((study.parent / "truth.json").read_text())["hubs"]
    assert len(probes) == len(hubs) == 4
    assert len(set(probes) & set(hubs)) == 2


def times(folder):
    return {p.name: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_write_study__left_alone_when_complete(tmp_path):
    write_study(tmp_path, n_samples=40, n_genes=60)
    before = times(tmp_path)
    write_study(tmp_path, n_samples=40, n_genes=60)
    assert times(tmp_path) == before


@pytest.mark.parametrize("broken", ["truth.json", "study.toml", "data/annotation.txt"])
def test_write_study__completed_when_a_file_is_gone(tmp_path, broken):
    write_study(tmp_path, n_samples=40, n_genes=60)
    names = times(tmp_path).keys()
    before = (tmp_path / broken).read_bytes()
    (tmp_path / broken).unlink()
    write_study(tmp_path, n_samples=40, n_genes=60)
    assert times(tmp_path).keys() == names
    assert (tmp_path / broken).read_bytes() == before


def test_write_study__other_arguments_write_anew(tmp_path):
    write_study(tmp_path, n_samples=40, n_genes=60)
    names = times(tmp_path).keys()
    write_study(tmp_path, n_samples=44, n_genes=66, seed=1)
    assert times(tmp_path).keys() == names
    other = json.loads((tmp_path / "truth.json").read_text())
    assert other["parameters"]["seed"] == 1
    assert "seed = 1\n" in (tmp_path / "study.toml").read_text()


@pytest.mark.parametrize(("argument", "value"), [("n_samples", 39), ("n_genes", 59)])
def test_write_study__too_small(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument}: expected .*, got {value}"):
        write_study(tmp_path, **{argument: value})
    assert not list(tmp_path.iterdir())
