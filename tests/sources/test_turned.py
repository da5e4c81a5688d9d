"""Matrices that lie the other way: genes as columns are never taken for samples."""

import h5py
import numpy as np
import pandas as pd
import pytest

from dglzarr.errors import SourceError
from dglzarr.sources import Reading, read_source
from dglzarr.sources.turned import are_turned, known_symbols


def words(*lines):
    """The words of some lines."""
    return " ".join(lines).split()


SYMBOLS = words("CCL5 DDR1 RFC2 HSPA6 PAX8 UBA7 THRA PTPN21 CYP2E1 EPHB3")
CELL_LINES = words(
    "A549 MCF7 HeLa K562 HL60 PC3 DU145 LNCaP U2OS HEK293 HepG2 Jurkat Raji Daudi THP1 U937",
    "NB4 KG1 MOLM13 MV411 RKO SW480 HCT116 HT29 CACO2 COLO205 LoVo SKOV3 OVCAR3 IGROV1 A2780",
    "T47D BT474 SKBR3 U87 U251 T98G SF268 SNB19 A375 SKMEL5 HOP62 EKVX HOP92 ACHN CAKI1 SN12C",
    "TK10 UO31 MOLT4 SR HAP1 RPE1 BJ WI38 IMR90 H1 H9 HEL SET2 CAL27 FADU T84 AGS CAPAN1",
    "PANC1 BXPC3 HUH7 REH SEM 697 DEL MJ HH T24 J82",
)
OTHERS = {
    "probes": ["1007_s_at", "1053_at", "117_at"],
    "Ensembl": ["ENSG00000000003.10", "ENSG00000000005", "ENSMUSG00000000001"],
    "Agilent": ["A_23_P100001", "A_23_P100022", "A_24_P10011"],
    "Illumina": ["ILMN_1343291", "ILMN_1343295", "ILMN_1651199"],
    "mouse": ["Trp53", "Ccl5", "Ddr1", "Rfc2"],
    "mixed": ["DDR1", "1053_at", "ENSG00000000003", "LOC9"],
}


def table(path, rows, columns, corner="", separator="\t"):
    """A table of log2 values."""
    values = np.random.default_rng(0).uniform(2, 12, (len(rows), len(columns)))
    frame = pd.DataFrame(values, rows, columns).rename_axis(corner)
    frame.to_csv(path, sep=separator, float_format="%.4f")
    return path


@pytest.mark.parametrize("columns", [SYMBOLS, *OTHERS.values()], ids=["symbols", *OTHERS])
def test_read_source__genes_as_columns(tmp_path, columns):
    path = table(tmp_path / "a.tsv", [f"S{i}" for i in range(8)], columns)
    with pytest.raises(SourceError) as error:
        read_source(path)
    said = str(error.value)
    assert "got a column" in said
    assert repr(columns[0]) in said
    assert "\n" not in said
    assert read_source(path, reading=Reading(samples_in="rows")).genes == columns
    assert read_source(path, reading=Reading(samples_in="columns")).samples == columns


@pytest.mark.parametrize(
    ("corner", "columns"),
    [("sample", ["TP53"]), ("patient_id", ["780", "5982"]), ("Cell line", ["TP53", "MYC"])],
)
def test_read_source__few_genes_or_entrez_ids_under_a_word_for_samples(tmp_path, corner, columns):
    path = table(tmp_path / "a.csv", ["K1", "K2", "K7"], columns, corner, ",")
    with pytest.raises(SourceError, match=r"State samples_in = 'rows'"):
        read_source(path)
    assert read_source(path, reading=Reading(samples_in="rows")).samples == ["K1", "K2", "K7"]


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_read_source__genes_as_columns_of_arrow(tmp_path, suffix):
    frame = pd.read_csv(table(tmp_path / "a.tsv", [f"S{i}" for i in range(8)], SYMBOLS), sep="\t")
    frame = frame.rename(columns={frame.columns[0]: "id"})
    path = tmp_path / f"a.{suffix}"
    getattr(frame, f"to_{suffix}")(path)
    with pytest.raises(SourceError, match=r"State samples_in = 'rows'"):
        read_source(path)
    assert read_source(path, reading=Reading(samples_in="rows")).genes == SYMBOLS


def test_read_source__genes_as_columns_of_gct_and_gctx(tmp_path):
    path = tmp_path / "a.gct"
    rows = [f"S{i}\t\t" + "\t".join(["5.5"] * len(SYMBOLS)) for i in range(4)]
    header = "Name\tDescription\t" + "\t".join(SYMBOLS)
    path.write_text("\n".join(["#1.2", f"4\t{len(SYMBOLS)}", header, *rows, ""]))
    gctx = tmp_path / "a.gctx"
    with h5py.File(gctx, "w") as file:
        file["0/DATA/0/matrix"] = np.full((len(SYMBOLS), 4), 5.5, np.float32)
        file["0/META/ROW/id"] = np.array([f"S{i}" for i in range(4)], "S")
        file["0/META/COL/id"] = np.array(SYMBOLS, "S")
    for file in (path, gctx):
        with pytest.raises(SourceError, match=r"way round\. .*, state samples_in = 'columns'"):
            read_source(file)
        assert read_source(file, reading=Reading(samples_in="columns")).samples == SYMBOLS
        with pytest.raises(SourceError, match=r"expected a table to choose samples_in of, got gct"):
            read_source(file, reading=Reading(samples_in="rows"))


def test_read_source__genes_as_obs_of_h5ad(tmp_path):
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.full((len(SYMBOLS), 4), 5.5, np.float32)
        for name, index in (("obs", SYMBOLS), ("var", [f"S{i}" for i in range(4)])):
            file[f"{name}/_index"] = np.array(index, "S")
    with pytest.raises(SourceError, match=r"expected samples as obs .* state samples_in = 'rows'"):
        read_source(path)
    assert read_source(path, reading=Reading(samples_in="rows")).samples == SYMBOLS


@pytest.mark.parametrize("rows", [SYMBOLS, *OTHERS.values(), ["x1", "x2"]])
@pytest.mark.parametrize(
    "columns",
    [CELL_LINES, ["HAP1", "HeLa", "RPE1"], ["1021", "1034", "2001"], ["CTRL", "MET"]],
    ids=["cell lines", "three lines", "numbers of patients", "two words"],
)
def test_are_turned__samples_that_look_like_genes_are_none(rows, columns):
    assert not are_turned(rows, columns, "gene")
    assert not are_turned(rows, columns)


def test_are_turned__columns_of_perturbed_genes():
    assert not are_turned(["TP53", "MYC", "1007_s_at"], SYMBOLS)
    assert not are_turned(["TP53", "MYC", "KRAS"], ["1021", "1034"], "sample")
    assert are_turned(["TCGA-AA-0001-01", "TCGA-AA-0002-01"], ["a", "b"])


def test_known_symbols__are_genes_alone():
    assert {"TP53", "ACTB", "MARCH5", "HLA-A"} <= known_symbols()
    assert not {"A1", "F11", "H12", "BRAIN", "DMSO"} & known_symbols()
