"""The tables beside a report: landmarks.tsv, sorted_genes.csv, panels.tsv, and their cells."""

import csv

import numpy as np

from dglzarr.report.tables import cell
from tests.report.pages import GENES, N_GENES, evaluation_arrays, score_arrays


def test_landmarks_tsv__all_genes_by_rank(written):
    with (written.parent / "landmarks.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    score, rank = score_arrays()
    order = np.argsort(rank)
    assert [int(row["rank"]) for row in rows] == list(range(1, N_GENES + 1))
    assert [row["gene"] for row in rows] == [GENES[i] for i in order]
    assert [float(row["score"]) for row in rows] == score[order].tolist()
    assert [row["is_landmark"] for row in rows] == ["True"] * 8 + ["False"] * 52
    assert [row["is_forced"] for row in rows] == ["True"] * 2 + ["False"] * 58
    assert [row["gain"] for row in rows[:2] + rows[8:]] == ["0.4", "0.2", *[""] * 52]


def test_cell__text_is_no_formula_of_a_spreadsheet():
    values = ("=1+1", "-2+3+cmd|' /C calc'!A0", -0.5, "-0.5", np.float32("nan"), "TP53")
    assert [cell(v) for v in values] == [
        "'=1+1",
        "'-2+3+cmd|' /C calc'!A0",
        -0.5,
        "-0.5",
        "",
        "TP53",
    ]


def test_sorted_genes__csv_is_the_same_with_commas(written):
    text = (written.parent / "sorted_genes.csv").read_text()
    assert text.replace(",", "\t") == (written.parent / "landmarks.tsv").read_text()


def test_write_report__panels_tsv_holds_every_panel(written):
    with (written.parent / "panels.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert len(rows) == 2 * 7
    _, found = evaluation_arrays()
    assert float(rows[1]["mean_mae"]) == np.nanmean(found["mae"][0, 0, 0].astype("f8"))
    assert rows[1]["panel"] == "mined"
