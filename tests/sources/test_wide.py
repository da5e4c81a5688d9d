"""Wide matrices of text: TCGA's and DepMap's names, samples in rows, logarithms of x + c."""

import numpy as np
import pytest

from dglzarr.errors import SourceError
from dglzarr.settings import build_settings
from dglzarr.sources import Reading, read_source
from dglzarr.sources.identifiers import match_genes
from dglzarr.sources.peek import peek_size
from dglzarr.sources.wide import Picked
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage.rows import Rows

GENES = [f"GENE{i} ({i + 100})" for i in range(40)]
HEAD = ",SequencingID,ModelID,IsDefaultEntryForModel,ModelConditionID,IsDefaultEntryForMC"


def depmap(values, defaults):
    """As DepMap 25Q3 writes it: the index, five columns of text, the genes."""
    lines = [",".join([HEAD, *GENES])]
    for row, (cells, default) in enumerate(zip(values, defaults, strict=True)):
        model = f"ACH-{row // 2:06}"
        text = [str(row), f"CDS-{row}", model, default, f"MC-{row}", "Yes"]
        lines.append(",".join([*text, *(f"{value:.6g}" for value in cells)]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_read_table__depmap(tmp_path, rng, suffix):
    import gzip

    values = rng.uniform(0, 12, (6, 40)).round(3)
    text = depmap(values, ["Yes", "No", "No", "Yes", "Yes", "No"]).encode()
    path = tmp_path / f"OmicsExpression.{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    source = read_source(path)
    assert source.samples == ["ACH-000000", "ACH-000001", "ACH-000002"]
    assert source.genes == GENES
    assert source.gene_symbol == [f"GENE{i}" for i in range(40)]
    assert np.array_equal(source.read(0, 3), values[[0, 3, 4]].astype(np.float32))
    assert np.array_equal(source.read(1, 3), values[[3, 4]].astype(np.float32))
    assert source.labels["SequencingID"] == ["CDS-0", "CDS-3", "CDS-4"]
    assert [str(one) for one in source.left_out] == [
        "3 samples left out: not marked as default in 'IsDefaultEntryForModel' ('1', '2', '5')"
    ]
    n_samples, n_genes = peek_size(path)
    assert abs(n_samples - 6) <= 1
    assert abs(n_genes - 40) <= 6


def test_read_table__depmap_without_a_default(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(depmap(np.ones((2, 40)), ["No", "No"]))
    with pytest.raises(SourceError, match=r"a\.csv: expected 'Yes' for some samples in 'IsDefault"):
        read_source(path)


def test_read_table__samples_in_rows_as_stated(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("id\tsex\tTP53\tMYC\nS1\tm\t1\t2\nS2\tf\t3\tNA\n")
    source = read_source(path, reading=Reading(samples_in="rows"))
    assert (source.samples, source.genes, source.labels) == (
        ["S1", "S2"], ["TP53", "MYC"], {"sex": ["m", "f"]},
    )  # fmt: skip
    assert np.array_equal(source.read(0, 2), [[1, 2], [3, np.nan]], equal_nan=True)
    chosen = read_source(path, reading=Reading(("MYC",), "rows"))
    assert chosen.genes == ["MYC"]
    assert chosen.labels["TP53"] == ["1", "3"]
    path.write_text("id\tTP53\nS1\ta\n")
    with pytest.raises(SourceError, match="expected columns of genes behind the first"):
        read_source(path, reading=Reading(samples_in="rows"))
    path.write_text("id\tsex\tTP53\tMYC\n\tm\t1\t2\n\tf\t3\t3\n")
    with pytest.raises(SourceError, match="expected an id, got ''"):
        read_source(path, reading=Reading(samples_in="rows"))


def test_read_source__samples_in_is_of_tables(tmp_path):
    path = tmp_path / "a.gct"
    path.write_text("#1.2\n1\t2\nName\tDescription\tS1\tS2\ng\tG\t1\t2\n")
    with pytest.raises(SourceError, match="expected a table to choose samples_in of, got gct"):
        read_source(path, reading=Reading(samples_in="rows"))


def test_read_table__tcga(tmp_path):
    """Symbols are told from names, ids count where names are compared, labels stay as published."""
    path = tmp_path / "a.tsv"
    path.write_text("gene_id\tS1\tS2\n?|653553\t1\t2\nA1BG|1\t3\t4\nTP53|7157\t5\t6\n")
    source = read_source(path)
    assert source.genes == ["?|653553", "A1BG|1", "TP53|7157"]
    assert source.gene_symbol == ["", "A1BG", "TP53"]
    match = match_genes(source.genes, source.gene_symbol, ["7157", "x_at"], gene_ids=["", "653553"])
    assert (match.study.tolist(), match.query.tolist()) == ([0, 1], [2, 0])


def test_join__logarithms_of_x_and_a_pseudocount(tmp_path, rng):
    """Xena's log2(TPM + 0.001) becomes the log2(x + 1) of the same values."""
    tpm = rng.uniform(0, 50, (12, 30))
    tpm[:, 3] = 0
    joined = []
    for name, values, options in (
        ("xena", np.log2(tpm + 0.001), SourceOptions(unit="log2", pseudocount=0.001)),
        ("tpm", tpm, SourceOptions(unit="tpm")),
    ):
        path, raw = tmp_path / f"{name}.tsv", str(tmp_path / "raw" / f"{name}.zarr")
        rows = ["\t".join([f"g{g}", *(f"{v:.9g}" for v in values[:, g])]) for g in range(30)]
        path.write_text("\n".join(["id\t" + "\t".join(f"S{i}" for i in range(12)), *rows]) + "\n")
        ingest_all([SourceFile(str(path), raw, options)])
        target = str(tmp_path / f"{name}.zarr")
        join([raw], target, options=JoinOptions(split_by="sample"), seed=1)
        joined.append(Rows(target)[0:12])
    assert np.allclose(*joined, atol=1e-5)
    assert (joined[0] >= 0).all()


def test_source_options__pseudocount_needs_its_unit(tmp_path):
    from dglzarr.errors import ConfigError

    content = {"root": "r", "sources": [{"uri": "a", "pseudocount": 0.001}]}
    with pytest.raises(ConfigError, match=r"sources.pseudocount: expected unit = 'log2' beside it"):
        build_settings(content, name="s", folder=tmp_path)


def test_picked__reads_runs(rng):
    matrix = rng.random((20, 3))
    rows = np.array([1, 2, 3, 9, 11, 12])
    picked = Picked(matrix, rows)
    assert picked.shape == (6, 3)
    assert np.array_equal(picked[0:6], matrix[rows])
    assert np.array_equal(picked[2:5], matrix[rows[2:5]])
    assert picked[3:3].shape == (0, 3)
