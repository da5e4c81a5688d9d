"""A first column that holds no ids of genes, and columns of spreads: taken for nothing else."""

import numpy as np
import pandas as pd
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import Reading, read_source

VALUES = np.random.default_rng(0).uniform(4, 12, (6, 3)).round(3)


@pytest.mark.parametrize("names", [["S1", "S2", "S3"], ["GSM11", "GSM12", "GSM13"]])
@pytest.mark.parametrize("factor", [1, 1000], ids=["log2", "counts"])
@pytest.mark.parametrize("separator", ["\t", ","])
def test_read_source__a_table_without_a_column_of_ids(tmp_path, names, factor, separator):
    values = (VALUES * factor).astype(int) if factor > 1 else VALUES
    path = tmp_path / "a.txt"
    pd.DataFrame(values, columns=names).to_csv(path, sep=separator, index=False)
    with pytest.raises(SourceError) as error:
        read_source(path)
    said = str(error.value)
    assert said.startswith("a.txt, line 1: expected ids of genes in the first column, got numbers")
    assert f"such as '{values[0, 0]}' under '{names[0]}'" in said
    assert "value_columns = ['*']" in said


@pytest.mark.parametrize("corner", ["ID", "gene", ""])
def test_read_source__fractions_are_no_ids(tmp_path, corner):
    path = tmp_path / "a.tsv"
    frame = pd.DataFrame(VALUES, columns=["a", "b", "c"])
    frame.set_index("a").rename_axis(corner).to_csv(path, sep="\t")
    with pytest.raises(SourceError, match=r"expected ids of genes in the first column, got numb"):
        read_source(path)
    reading = Reading(value_columns=("*",))
    assert read_source(path, reading=reading).samples == ["b", "c"]


@pytest.mark.parametrize(
    ("corner", "ids"),
    [
        ("gene_id", ["7157", "4609", "672", "675", "1956", "3845"]),
        ("V1", ["7157", "4609", "672", "675", "1956", "3845"]),
        ("ID", ["7157.0", "4609.0", "672.0", "675.0", "1956.0", "3845.0"]),
        ("S0", ["g1", "g2", "g3", "g4", "g5", "g6"]),
        ("", ["AC012345.1", "AL1.2", "U3.5", "x", "y", "z"]),
    ],
)
def test_read_source__ids_that_are_or_look_like_numbers(tmp_path, corner, ids):
    path = tmp_path / "a.tsv"
    columns = ["V2", "V3", "V4"] if corner == "V1" else ["S1", "S2", "S3"]
    pd.DataFrame(VALUES, ids, columns).rename_axis(corner).to_csv(path, sep="\t")
    found = read_source(path)
    assert (found.genes, found.samples) == (ids, columns)


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [
        (["S1_mean", "S1_sd", "S2_mean", "S2_sd"], ["S1_sd", "S2_sd"]),
        (["S1", "S1.StdDev", "S2", "S2.StdDev"], ["S1.StdDev", "S2.StdDev"]),
        (["A AVG", "A SEM", "B AVG", "B_cv"], ["A SEM", "B_cv"]),
        (["S1_var", "S1", "KO_sd", "WT_sd"], []),
    ],
)
def test_read_source__spreads_are_no_samples(tmp_path, columns, left_out):
    path = tmp_path / "a.tsv"
    frame = pd.DataFrame(np.tile(VALUES[:, :1], 4), [f"g{i}" for i in range(6)], columns)
    frame.rename_axis("ID").to_csv(path, sep="\t")
    found = read_source(path)
    assert found.samples == [name for name in columns if name not in left_out]
    assert [list(one.names) for one in found.left_out] == ([left_out] if left_out else [])


@pytest.mark.parametrize("name", ["gene", "gene_id", "ID_REF", "Probe", "name"])
@pytest.mark.parametrize("row", ["TP53\t8.1\t9.2\t7.3", "TP53\t8\t9\t7", "TP53\tNA\t9\t7"])
def test_read_table__header_one_name_short(tmp_path, name, row):
    path = tmp_path / "a.tsv"
    path.write_text(f"{name}\tS1\tS2\n{row}\nMYC\t8\t10\t11\n")
    with pytest.raises(SourceError, match=rf"line 1: expected a name for each .* under '{name}'"):
        read_source(path)


def test_read_table__decimal_commas_are_no_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("gene,S1\nTP53,8,125\nMYC,9,5\nEGFR,9,375\n")
    with pytest.raises(SourceError, match=r"line 1: .* got 2 over rows of 3 cells.* with points"):
        read_source(path)


@pytest.mark.parametrize(
    ("header", "row", "symbols"),
    [
        ("symbol\tS1\tS2", "1007_at\tDDR1\t8.5\t9.25", ["DDR1"]),
        ("gene_id\tS1\tS2", "TP53\t7157\t8.5\t9.25", None),
        ("gene_id\tS1\tS2", "1\t7157\t8\t9", None),
        ("S1\tS2", "TP53\t8\t9", None),
    ],
)
def test_read_table__header_as_r_writes_it(tmp_path, header, row, symbols):
    path = tmp_path / "a.tsv"
    path.write_text(f"{header}\n{row}\n")
    source = read_source(path)
    assert (source.samples, source.gene_symbol) == (["S1", "S2"], symbols)
    assert source.read(0, 2)[:, 0].tolist() == [float(cell) for cell in row.split("\t")[-2:]]


@pytest.mark.parametrize("name", ["id", "name", "genes", "probes", "feature"])
@pytest.mark.parametrize("ids", [("5000", "5007"), ("TP53", "MYC")])
@pytest.mark.parametrize("n_samples", [2, 200])
def test_read_table__index_before_ids(tmp_path, name, ids, n_samples):
    path = tmp_path / "a.csv"
    values = np.arange(2 * n_samples).reshape(2, -1) / 4
    table = pd.DataFrame(values, columns=[f"S{i}" for i in range(n_samples)])
    table.insert(0, name, ids)
    table.to_csv(path)
    source = read_source(path)
    assert (source.samples, source.genes) == ([*table.columns[1:]], [*ids])
    assert [str(one) for one in source.left_out] == ["1 column left out: numbers of rows ('')"]
    np.testing.assert_array_equal(source.read(0, n_samples), values.T)


def test_read_table__ids_beside_ids(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",id,S1,S2\nTP53,7157,8.1,9.2\n")
    source = read_source(path)
    assert (source.samples, source.genes) == (["S1", "S2"], ["TP53"])
    assert "identifiers ('id')" in str(source.left_out[0])
