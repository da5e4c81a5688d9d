"""What the application answers is what the stores hold."""

import json

import numpy as np
import pytest

import dglzarr
from dglzarr.evaluation.order import Conditions, PanelMaker
from dglzarr.query.genes import GeneNames
from dglzarr.serve.genes import GeneIndex
from dglzarr.storage.study import open_study
from tests.serve.studies import (
    EVIL,
    GENES,
    KEEP,
    N_GENES,
    N_PANEL,
    SERIES,
    SPLIT,
    SYMBOLS,
    contributions_of,
    scores_of,
    tissues,
    values_of,
)

TRAINED = KEEP & (SPLIT == 0)


def test_studies__are_named_with_what_can_be_asked(served):
    found = served.get("/api").json()
    assert found["studies"] == ["study"]
    assert {"genes", "gene", "expression", "neighbours", "order"} <= {*found["questions"]}


def test_facts(served):
    found = served.json("")
    assert (found["n_samples"], found["n_genes"], found["n_latent"]) == (80, N_GENES, 4)
    assert found["n_kept"] == KEEP.sum()
    assert found["split"] == {"train": 48, "validation": 8, "test": 24}
    assert found["panels"]["published"] == {"kind": "published", "size": N_PANEL}
    assert found["labels"] == ["tissue", "series", "source", "split"]  # one platform
    assert found["not_made"] == []


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("TP53", ["000_at", "001_at"]),
        ("tp53", ["000_at", "001_at"]),
        ("7157", ["000_at", "001_at"]),
        ("7157.0", ["000_at", "001_at"]),
        (" 002_AT ", ["002_at"]),
        (EVIL, ["003_at"]),
    ],
)
def test_gene__by_any_of_its_names(served, name, features):
    found = served.json("/gene", params={"name": name})["features"]
    assert sorted(row["gene"] for row in found) == features
    assert found == sorted(found, key=lambda row: row["rank_by_score"])


def test_gene__by_an_alias_where_a_table_of_them_is_given(serve, original):
    known = serve(original, aliases={"P53": ("TP53",), "BOTH": ("MYC", "TP53"), "TP53": ("MYC",)})
    for name in ("p53", "TP53"):  # a symbol goes before an alias
        found = known.json("/gene", params={"name": name})["features"]
        assert sorted(row["gene"] for row in found) == ["000_at", "001_at"]
    assert known.json("/gene?name=both")["n_features"] == 3
    assert {row["gene_symbol"] for row in known.json("/genes?q=p53")["genes"][:2]} == {"TP53"}
    ordered = known.json("/order?size=4&include=p53")["genes"]
    assert (ordered[0]["gene_symbol"], ordered[0]["why"]) == ("TP53", "included")
    answer = known.get("/api/study/order?size=4&include=both", status=400)
    assert "an alias of MYC and TP53. Ask for one of them" in answer.json()["error"]


@pytest.mark.parametrize("name", ["MYC", "mycn", "MYC /// MYCN", "4609", "ENSG7", "A1BG"])
def test_gene__is_found_as_by_the_command_line(name):
    names = ["1_at", "2_at", "A1BG|1"], ["MYC /// MYCN", "", ""], ["4609", "ENSG7.1", ""]
    expected = GeneNames(*names).find(name).tolist()
    assert GeneIndex(*names, rank=[1, 2, 3]).find(name) == expected
    assert len(expected) == 1


def test_gene__score_and_rank_are_those_of_the_store(served):
    score = scores_of(values_of())
    for place in (0, 7, 39):
        (row,) = served.json("/gene", params={"name": GENES[place]})["features"]
        assert row["score"] == pytest.approx(score[place])
        assert row["rank_by_score"] == 1 + (score > score[place]).sum()
        assert row["is_landmark"] == (row["rank"] <= N_PANEL)
    (row,) = served.json("/gene", params={"name": "003_at"})["features"]
    assert row["panels"]["published"] == 4
    assert "random-0" not in row["panels"]


def test_gene__unknown_tells_names_like_it(served):
    found = served.json("/gene", params={"name": "TP35"}, status=404)
    assert found["error"] == "This study has no gene 'TP35'."
    assert found["near"][0] == "TP53"
    assert "near" not in served.json("/gene", params={"name": "qqqqqq"}, status=404)


@pytest.mark.parametrize(
    ("text", "first", "n"), [("TP5", "TP53", 2), ("sym1", "SYM1", 10), ("_at", "", N_GENES)]
)
def test_genes__search_begins_with_the_best(served, text, first, n):
    found = served.json("/genes", params={"q": text, "n": 3})
    assert (found["n_found"], len(found["genes"])) == (n, min(3, n))
    assert found["genes"][0]["called"].startswith(first)


def test_genes__pages_hold_each_once(served):
    pages = [served.json("/genes", params={"start": s, "n": 15})["genes"] for s in (0, 15, 30)]
    assert sorted(row["gene"] for page in pages for row in page) == GENES
    assert served.json("/genes", params={"start": 99})["genes"] == []


def test_expression__quantiles_of_each_group_as_numpy(served):
    found = served.json("/expression", params={"name": "002_at", "by": "tissue"})
    values, groups = values_of()[:, 2], np.array(tissues())
    assert {g["name"] for g in found["groups"]} == {*groups} - {""}
    assert [-g["n"] - g["n_missing"] for g in found["groups"]] == sorted(
        -g["n"] - g["n_missing"] for g in found["groups"]
    )
    assert found["n_without"] == (groups[KEEP] == "").sum()
    for group in found["groups"]:
        own = values[KEEP & (groups == group["name"])]
        known = own[~np.isnan(own)].astype(np.float64)
        assert (group["n"], group["n_missing"]) == (known.size, own.size - known.size)
        expected = np.quantile(known, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1))
        names = ("low", "q05", "q25", "median", "q75", "q95", "high")
        np.testing.assert_allclose([group[n] for n in names], expected, rtol=1e-6)
        assert group["mean"] == pytest.approx(known.mean())
    assert sum(g["n_missing"] for g in found["groups"]) == 1


def test_expression__of_a_symbol_is_that_of_its_best_feature(served):
    best = served.json("/gene", params={"name": "TP53"})["features"][0]["gene"]
    assert served.json("/expression", params={"name": "TP53", "n": 1})["gene"] == best


def test_scores__within_groups_are_means_of_contributions(served):
    found = served.json("/scores", params={"name": "007_at", "by": "series"})["scores"]
    values, series = contributions_of(values_of())[:, 7], np.array(SERIES)
    assert {row["name"] for row in found} == set(series[TRAINED])
    for row in found:
        own = values[TRAINED & (series == row["name"])]
        assert (row["n"], row["score"]) == (own.size, pytest.approx(own.mean()))


def test_neighbours__are_those_of_highest_correlation(served):
    found = served.json("/neighbours", params={"name": "009_at", "n": 7})["neighbours"]
    filled = values_of()[TRAINED].astype(np.float64)
    filled = np.where(np.isnan(filled), np.nanmean(filled, axis=0), filled)
    r = np.corrcoef(filled, rowvar=False)[9]
    r[9] = 0
    best = np.argsort(-np.abs(r))[:7]
    assert [row["gene"] for row in found] == [GENES[i] for i in best]
    np.testing.assert_allclose([row["r"] for row in found], r[best], atol=1e-3)


def test_neighbours__are_those_of_the_command_line(served, original):
    expected = dglzarr.open_study(original).dgl.neighbours("020_at", 5)
    found = served.json("/neighbours", params={"name": "020_at", "n": 5})["neighbours"]
    assert [row["gene"] for row in found] == expected["gene"].values.tolist()
    np.testing.assert_allclose([row["r"] for row in found], expected["r"].values)


def test_programs__of_a_gene_and_of_a_unit(served):
    rows = served.json("/programs", params={"name": "011_at", "n": 4})["programs"]
    assert sorted(row["latent"] for row in rows) == [0, 1, 2, 3]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    for row in rows:
        genes = served.json("/programs", params={"k": row["latent"], "n": N_GENES})["genes"]
        assert genes[row["rank"] - 1]["gene"] == "011_at"
    assert "latent unit 9" in served.json("/programs", params={"k": 9}, status=404)["error"]


def test_why__on_the_panel_and_beside_it(served, original):
    panel = [row["gene"] for row in served.json("/panel")["genes"]]
    on = served.json("/why", params={"name": panel[1]})
    assert (on["on_panel"], on["position"]) == (True, 2)
    made = PanelMaker(str(original)).order(Conditions(N_PANEL, start="mined"))
    assert on["serves"] == made.table.iloc[1]["serves"]
    beside = next(gene for gene in GENES if gene not in panel)
    off = served.json("/why", params={"name": beside})
    assert off["on_panel"] is False
    assert off["most_like"]["gene"] in panel


def test_compare__shared_genes_and_the_paired_difference(served):
    found = served.json("/compare", params={"a": "mined", "b": "published"})
    mined = {row["gene"] for row in served.json("/panel")["genes"]}
    published = set(GENES[:N_PANEL])
    assert {row["gene"] for row in found["shared"]} == mined & published
    assert [{r["gene"] for r in rows} for rows in found["only"]] == [
        mined - published,
        published - mined,
    ]
    (row,) = found["errors"]
    assert row["mean"] == pytest.approx(-0.1, abs=0.02)
    assert row["low"] < row["mean"] < row["high"] < 0
    assert (row["sign"], row["n_targets"]) == (-1, N_GENES - 10)
    other = served.json("/compare", params={"a": "published", "b": "mined"})["errors"][0]
    assert other["mean"] == pytest.approx(-row["mean"])


def test_order__holds_what_is_forced_and_not_what_is_excluded(served, original):
    free = [row["gene"] for row in served.json("/order?size=5")["genes"]]
    out = next(gene for gene in free if gene not in ("002_at", "020_at"))
    asked = {"size": 5, "include": "MYC, 020_at", "exclude": out}
    found = served.json("/order", params=asked)
    genes = [row["gene"] for row in found["genes"]]
    expected = PanelMaker(str(original)).order(
        Conditions(5, include=("MYC", "020_at"), exclude=(out,))
    )
    assert genes == expected.table["gene"].tolist()
    assert [row["why"] for row in found["genes"]][:2] == ["included", "included"]
    assert out not in genes
    assert found["error"] == pytest.approx(expected.price["all"].error)


def test_order__a_gene_is_never_a_file(served, tmp_path):
    file = tmp_path / "genes.txt"
    file.write_text("TP53\n")
    found = served.json("/order", params={"size": 3, "include": str(file)}, status=400)
    assert found["error"].startswith("include: the study has no gene")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("/gene", "name: expected a value, got none"),
        ("/gene?name=%00", "name: expected text, got a zero byte"),
        ("/gene?name=" + "x" * 300, "name: expected at most 200 characters, got 300"),
        ("/gene?name=TP53&nmae=1", "expected name, got 'nmae' (did you mean 'name'?)"),
        ("/gene?name=TP53&name=MYC", "name: expected once, got it again"),
        ("/genes?n=0", "n: expected a number from 1 to 500, got '0'"),
        ("/genes?n=1e3", "n: expected a number from 1 to 500, got '1e3'"),
        ("/genes?n=%D9%A1", "n: expected a number from 1 to 500"),
        ("/genes?n=99999999999999999999", "n: expected a number from 1 to 500"),
        ("/expression?name=TP53&by=tisue", "by: expected a label of the samples (tissue, series"),
        ("/order?size=0", "size: expected a number from 1 to 40"),
        ("/order?size=41", "size: expected a number from 1 to 40"),
        ("/order?size=3&include=TP53,TP54", "include: the study has no gene TP54"),
        ("/order?size=3&include=TP53&exclude=TP53", "TP53"),
        ("/order?size=3&min_mean=nan", "min_mean: expected a number, got 'nan'"),
        ("/order?size=3&min_mean=9&max_mean=2", "expected a window, got 9 to 2"),
        ("/order?size=3&start=/etc/passwd", "start: expected , mined, got '/etc/passwd'"),
        ("/order?size=3&feasible=/etc/passwd", "got 'feasible'"),
        ("/order?size=3&include=" + ",".join(f"g{i}" for i in range(2001)), "at most 2000 genes"),
    ],
)
def test_bad_questions__are_told_in_one_line(served, question, message):
    served.json("/order?size=2")  # it is prepared
    answer = served.client.get(f"/api/study{question}")
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]
    assert "Traceback" not in answer.text


def test_unknown_study_panel_and_address(served):
    assert served.get("/api/other", status=404).json()["near"] == ["study"]
    assert served.json("/panel?panel=x", status=404)["near"] == ["mined", "published", "random-0"]
    assert served.get("/api/study/nothing", status=404).json()["error"]
    assert "no such address" in served.get("/nothing", status=404).text


def test_answers__are_json_without_numbers_that_are_none(served):
    text = served.get("/api/study/compare?a=mined&b=random-0").text
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_answers__hold_the_labels_as_the_study_has_them(served):
    names = [row["gene_symbol"] for row in served.json("/genes?n=40")["genes"]]
    assert sorted(names) == sorted(SYMBOLS)


def test_served_without_panels__says_what_is_not_made(serve, root):
    import shutil

    for name in ("scores", "landmarks", "evaluation"):
        shutil.rmtree(root / f"{name}.zarr")
    asked = serve(root)
    assert asked.json("")["not_made"] == ["landmarks", "scores"]
    assert asked.json("/gene?name=TP53")["features"][0]["rank_by_score"] is None
    assert "'dglzarr mine' makes them" in asked.json("/panel", status=404)["error"]
    assert "no scores yet" in asked.json("/programs?name=TP53", status=404)["error"]
    assert asked.json("/expression?name=TP53")["groups"]
    assert "no panels yet" in asked.get("/s/study/").text
    assert "no panels yet" in asked.get("/s/study/gene?name=TP53").text


def test_served_study__is_open_study_by_its_segments(served, original):
    assert served.json("")["segments"] == list(open_study(str(original)).segments)
