"""Two platforms in one gene space: a microarray series and RNA-seq, joined by symbol."""

import gzip
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import rankdata

from dglzarr.errors import SourceError
from dglzarr.settings import build_settings
from dglzarr.stages.ingest import SourceFile
from dglzarr.storage.store import open_store
from dglzarr.studies.plan import mine
from dglzarr.testing import write_annotation, write_gct, write_series_matrix
from tests.builders import TRAIN, ingest_and_join

PROBES = ["1_at", "2_at", "3_s_at", "4_at", "5_at"]
SYMBOLS = ["TP53", "MYC /// MYCL", "TP53", "C1orf112", ""]
COUNTED = ["ENSG1.4", "ENSG2.1", "ENSG3.9"]
COUNTED_SYMBOLS = ["MYC", "C1ORF112", "TP53"]


@pytest.fixture
def sources(tmp_path, rng):
    """Log2 values of five probes of three genes, and counts of the same three genes."""
    write_annotation(tmp_path / "annotation.txt", PROBES, SYMBOLS)
    values = rng.uniform(4, 14, (6, 5)).astype(np.float32).round(3)
    values[0, 2] = np.nan
    array = write_series_matrix(
        tmp_path / "GSE1_series_matrix.txt", values, samples=[f"a{i}" for i in range(6)],
        genes=PROBES, series="GSE1", platform="GPL96",
    )  # fmt: skip
    counts = rng.integers(0, 5000, (8, 3)).astype(np.float32)
    counted = write_gct(
        tmp_path / "seq.gct", counts, samples=[f"b{i}" for i in range(8)],
        genes=COUNTED, descriptions=COUNTED_SYMBOLS,
    )  # fmt: skip
    files = [SourceFile(str(p), str(tmp_path / "raw" / p.stem)) for p in (array, counted)]
    return files, values, counts


def test_join__probes_and_counts_become_genes(sources, tmp_path):
    files, values, counts = sources
    target = str(tmp_path / "e.zarr")
    ingest_and_join(
        files, target, feature_kind="gene", annotation=str(tmp_path / "annotation.txt"),
        split_by="sample",
    )  # fmt: skip
    ds = open_store(target)
    assert [str(g) for g in ds["gene"].values] == ["C1orf112", "MYC", "TP53"]
    assert [str(g) for g in ds["gene_symbol"].values] == ["C1orf112", "MYC", "TP53"]
    tp53 = np.array([values[0, 0], *values[1:, [0, 2]].mean(axis=1)])
    ours = np.stack([values[:, 3], values[:, 1], tp53], axis=1)
    np.testing.assert_allclose(ds["expression"].values[:6], ours, rtol=1e-6)
    np.testing.assert_allclose(
        ds["expression"].values[6:], np.log2(counts[:, [1, 0, 2]] + 1), rtol=1e-6
    )
    assert [s["coverage"] for s in ds.attrs["details"]["per_source"]] == [1, 1]


def test_join__listed_genes_and_one_unmeasured(sources, tmp_path):
    files, _, counts = sources
    (tmp_path / "genes.txt").write_text("MYC\nTP53\nGAPDH\n")
    options = {"annotation": str(tmp_path / "annotation.txt"), "split_by": "sample"}
    options |= {"feature_kind": "gene", "probes": str(tmp_path / "genes.txt")}
    ingest_and_join(files, target := str(tmp_path / "e.zarr"), min_coverage=0.6, **options)
    ds = open_store(target)
    assert [str(g) for g in ds["gene"].values] == ["MYC", "TP53", "GAPDH"]
    assert np.isnan(ds["expression"].values[:, 2]).all()
    np.testing.assert_allclose(
        ds["expression"].values[6:, :2], np.log2(counts[:, [0, 2]] + 1), rtol=1e-6
    )
    with pytest.raises(SourceError, match="expected at least 90% of the 3 listed"):
        ingest_and_join(files, str(tmp_path / "e2.zarr"), **options)


def test_join__by_probe_they_share_nothing(sources, tmp_path):
    with pytest.raises(SourceError, match=r"shares 0 probes .*feature_kind = 'gene'"):
        ingest_and_join(sources[0], str(tmp_path / "e.zarr"), split_by="sample")


def test_join__a_platform_added_to_a_study_of_genes(sources, tmp_path):
    (array, counted), _, counts = sources
    options = {"annotation": str(tmp_path / "annotation.txt"), "split_by": "sample"}
    options |= {"feature_kind": "gene"}
    ingest_and_join([array], first := str(tmp_path / "first.zarr"), **options)
    ingest_and_join([counted], second := str(tmp_path / "second.zarr"), like=[first], **options)
    ds = open_store([first, second])
    assert [str(g) for g in ds["gene"].values] == ["C1orf112", "MYC", "TP53"]
    np.testing.assert_allclose(
        ds["expression"].values[6:], np.log2(counts[:, [1, 0, 2]] + 1), rtol=1e-6
    )


# ---------------------------------------------------------------- the real files


def series_matrix(path, annotation):
    """Log2 genes of a raw series matrix, by pandas alone."""
    text = gzip.decompress(path.read_bytes()).decode()
    table = text.partition("!series_matrix_table_begin\n")[2]
    table = table.partition("!series_matrix_table_end")[0]
    return by_gene(pd.read_csv(io.StringIO(table), sep="\t", index_col=0), annotation)


def by_gene(frame, symbols):
    """Mean over the features of each gene of log2(x + 1), (gene, sample)."""
    names = pd.Series(frame.index, index=frame.index).map(symbols)
    names = names.fillna("").str.split("///").str[0].str.strip()
    logged = np.log2(frame.clip(lower=0).astype(np.float64) + 1)
    return logged[(names != "").values].groupby(names[names != ""].values).mean()


@pytest.fixture(scope="module")
def joined(tmp_path_factory, data_dir):
    """GSE55235 (GPL96) and GTEx read counts, mined as far as normalize."""
    folder = tmp_path_factory.mktemp("joint")
    settings = build_settings(
        {
            "root": str(folder / "study"),
            "sources": [
                {"uri": "geo/GSE55235_series_matrix.txt.gz"},
                {"uri": "gtex/GTEx_v6_skin_n20_gene_reads.gct.gz"},
            ],
            "ingest": {
                "feature_kind": "gene", "annotation": "annotation/GPL96.txt", "split_by": "sample",
                "shard_samples": 16,
            },
            "cluster": {"kind": "none"},
        },
        name="joint", folder=Path(data_dir),
    )  # fmt: skip
    mine(settings, only=("ingest", "join", "normalize"))
    return folder / "study" / "segments" / "0000"


@pytest.mark.data
def test_joint__geo_and_gtex_are_what_pandas_and_numpy_make_of_them(joined, data_dir):
    lines = (data_dir / "annotation/GPL96.txt").read_text().splitlines()[1:]
    symbols = dict(line.split("\t")[:2] for line in lines if "\t" in line)
    array = series_matrix(data_dir / "geo/GSE55235_series_matrix.txt.gz", symbols)
    table = pd.read_csv(
        data_dir / "gtex/GTEx_v6_skin_n20_gene_reads.gct.gz", sep="\t", skiprows=2, index_col=0
    )
    counted = by_gene(table.drop(columns="Description"), table["Description"].to_dict())
    both = pd.concat([array, counted], axis=1, join="inner").sort_index()

    ds = open_store(str(joined / "expression.zarr")).load()
    genes = [str(g) for g in ds["gene"].values]
    assert set(both.index) <= set(genes)
    assert len(genes) - len(both) <= 1, "C1orf-like symbols alone differ in case"
    assert len(genes) > 11_000
    ours = ds["expression"].sel(gene=both.index.to_numpy(dtype=str)).values
    np.testing.assert_allclose(ours, both.to_numpy().T, atol=2e-6)

    normalized = open_store(str(joined / "normalized.zarr"))
    values = ds["expression"].values.astype(np.float64)
    reference = np.sort(values[ds["split"].values == TRAIN], axis=1).mean(axis=0)
    np.testing.assert_allclose(normalized["quantile_reference"].values, reference, rtol=1e-12)
    ranks = np.stack([rankdata(sample) for sample in values]) - 1
    wanted = np.interp(ranks, np.arange(reference.size), reference)
    np.testing.assert_allclose(normalized["expression"].values, wanted, atol=1e-5)


@pytest.mark.data
def test_joint__one_distribution_after_and_two_before(joined):
    """The platforms' quartiles are log2 units apart before, and together after."""
    for name, is_apart in (("expression", True), ("normalized", False)):
        ds = open_store(str(joined / f"{name}.zarr"))
        quartiles = np.quantile(ds["expression"].values, [0.25, 0.5, 0.75], axis=1)
        gap = np.abs(quartiles[:, :30].mean(axis=1) - quartiles[:, 30:].mean(axis=1))
        assert (gap.max() > 1) == is_apart
        assert is_apart or gap.max() < 0.3
