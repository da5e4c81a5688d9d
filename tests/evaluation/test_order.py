"""A panel that can be ordered: every condition holds, its price is told, what is wrong is named."""

import re
import shutil
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.evaluation.order import FAMILIES, Conditions, PanelMaker, is_like, write_sheet
from dglzarr.evaluation.panels import PanelOptions
from dglzarr.kernels.panels import select_panel
from dglzarr.kernels.penalties import Stretch
from dglzarr.report.text import order_lines
from dglzarr.sources.identifiers import read_panel
from dglzarr.stages.candidates import CandidateOptions, candidates
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED, SCORES
from dglzarr.storage.store import open_store
from tests.builders import (
    simulate,
    splits,
    write_manifest,
    write_matrix,
    write_samples,
    write_store,
)
from tests.conftest import DATA

N_SAMPLES, N_GENES = 120, 60
SYMBOLS = [f"G{i}" if i % 5 else "" for i in range(N_GENES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A study of normalized samples of six series, without panels."""
    root = tmp_path_factory.mktemp("order") / "study"
    values = simulate(N_SAMPLES, N_GENES).expression.astype(np.float32)
    split = splits(N_SAMPLES)
    series = [f"GSE{k}{i % 4}" for i, k in enumerate(split)]
    genes = ["AFFX-1_at", *(f"{i:03d}_at" for i in range(1, N_GENES))]
    segment = root / "segments" / "0000"
    segment.mkdir(parents=True)
    uri = write_matrix(
        segment / "normalized.zarr", NORMALIZED, values, split=split, series=series,
        genes=genes, symbols=SYMBOLS,
    )  # fmt: skip
    write_samples(segment / "samples.zarr", uri, keep=np.ones(N_SAMPLES, dtype=bool))
    write_manifest(root, ["0000"])
    return str(root)


@pytest.fixture(scope="module")
def maker(root):
    return PanelMaker(root)


FREE = Conditions(12)


def genes_of(made):
    return made.table["gene"].tolist()


def test_order__what_is_hardly_detected_is_left_out_where_rates_are_known(root, tmp_path):
    study = tmp_path / "study"
    shutil.copytree(root, study)
    maker = PanelMaker(str(study))
    with pytest.raises(StoreError, match=r"expression\.zarr"):
        maker.order(replace(FREE, min_detected=0.5))
    free = genes_of(maker.order(FREE))
    rate = np.full(N_GENES, 0.9)
    rate[1::2] = 0.2
    rate[3] = np.nan
    write_matrix(
        study / "segments" / "0000" / "expression.zarr", EXPRESSION,
        np.full((4, N_GENES), 5.0, np.float32), rate=rate,
    )  # fmt: skip
    made = maker.order(replace(FREE, min_detected=0.5), each=True)
    places = maker._ds.indexes["gene"].get_indexer(genes_of(made))
    assert set(places) <= {*range(0, N_GENES, 2), 3}
    assert genes_of(made) != free
    assert list(made.price) == ["all", "--min-detected"]
    assert genes_of(maker.order(replace(FREE, min_detected=0.2))) != genes_of(made)


def test_order__without_conditions_is_the_greedy_panel_and_costs_nothing(root, maker, tmp_path):
    made = maker.order(FREE)
    segment = f"{root}/segments/0000"
    target = str(tmp_path / "candidates.zarr")
    options = CandidateOptions(selectors=("greedy",), sizes=(12,), n_random=1, penalty=3.0)
    candidates(
        f"{segment}/normalized.zarr", target, samples=f"{segment}/samples.zarr", options=options
    )
    ds = open_store(target)
    expected = ds["panel_gene"].values[ds["panel"].values.tolist().index("greedy/12")]
    assert genes_of(made) == expected.tolist()
    assert made.price["all"].difference == 0
    assert made.price["all"].error == made.price["all"].free > 0
    assert set(made.table["why"]) == {"chosen"}
    assert made.table["share"].sum() == pytest.approx(100)
    assert made.notes == []
    assert list(made.price) == ["all"]
    assert not any("conditions cost" in line for line in order_lines(made))


def test_order__included_first_excluded_never(maker):
    free = genes_of(maker.order(FREE))
    made = maker.order(replace(FREE, include=("g7", "011_at"), exclude=(free[0],)), each=True)
    assert genes_of(made)[:2] == ["007_at", "011_at"]
    assert made.table["why"].tolist()[:3] == ["included", "included", "chosen"]
    assert free[0] not in genes_of(made)
    assert list(made.price) == ["all", "--include", "--exclude"]
    assert made.price["all"].error - made.price["all"].free == pytest.approx(
        made.price["all"].difference
    )


def test_order__what_cannot_be_chosen(maker):
    made = maker.order(replace(FREE, exclude_controls=True, exclude_unnamed=True))
    assert "AFFX-1_at" not in genes_of(made)
    assert (made.table["gene_symbol"] != "").all()
    low, high = np.quantile(maker._mean, [0.3, 0.9])
    made = maker.order(replace(FREE, min_mean=float(low), max_mean=float(high)))
    assert made.table["mean"].between(low, high).all()
    assert made.n_left == ((maker._mean >= low) & (maker._mean <= high)).sum()


def test_order__genes_are_left_out_by_what_symbols_they_have(maker):
    made = maker.order(replace(FREE, exclude_like=("g[1-4].", "mitochondrial")), each=True)
    assert not made.table["gene_symbol"].str.fullmatch("G[1-4].").any()
    assert made.notes == [
        "--exclude-like g[1-4].: 32 of 60 genes.",
        "--exclude-like mitochondrial: 0 of 60 genes.",
    ]
    assert list(made.price) == ["all", "--exclude-like"]


def test_order__feasible_and_costs(maker, tmp_path):
    file = tmp_path / "probes.tsv"
    lines = ["gene\tfeasible", *(f"{i:03d}_at\t{'no' if i % 3 else 'yes'}" for i in range(1, 50))]
    file.write_text("\n".join([*lines, "NOSUCH\tyes"]), encoding="utf-8")
    made = maker.order(replace(FREE, feasible=str(file), include=("055_at",)))
    assert genes_of(made)[0] == "055_at"
    with pytest.raises(ConfigError, match="--feasible: says no of G4, which --include or --start"):
        maker.order(replace(FREE, feasible=str(file), include=("004_at",)))
    assert all(int(gene[:3]) % 3 == 0 and int(gene[:3]) < 50 for gene in genes_of(made)[1:])
    assert made.notes == [
        "--feasible: 16 of 60 genes can be made; 1 of its 50 genes are not in the study."
    ]
    free = genes_of(maker.order(FREE))
    file.write_text(f"{free[0]}\t100\n", encoding="utf-8")
    made = maker.order(replace(FREE, costs=str(file)))
    assert free[0] not in genes_of(made)
    made = maker.order(replace(FREE, costs=str(file), include=(free[0],), budget=104.5))
    assert made.cost == 104
    assert made.notes[-1] == "The panel ends with 5 of 12 genes: no other can be paid."


@pytest.mark.data
def test_families__of_the_symbols_of_an_array():
    table = pd.read_csv(DATA / "annotation" / "GPL96.txt", sep="\t", dtype=str)
    symbols = table["Gene symbol"].fillna("").tolist()
    found = {name: set(np.array(symbols)[is_like(name, symbols)]) for name in FAMILIES}
    assert {"RPL13A", "RPS4X", "RPLP0", "MRPL12", "RPL23AP7", "FAM69A///RPL5"} <= found["ribosomal"]
    assert not {"RPS6KA1", "RPS6KB1", "RPAP1", "RPN1", "FAUP1"} & found["ribosomal"]
    assert {"HBA2", "HBB", "HBG1"} <= found["haemoglobin"]
    assert not {"HBP1", "HBS1L", "HBEGF", "HBXIP"} & found["haemoglobin"]
    assert {"SNORA31///TPT1"} <= found["noncoding"] < set(symbols)
    assert is_like("mitochondrial", ["MT-ND1", "MTOR", "MT1X"]).tolist() == [True, False, False]


def test_order__each_set_has_its_genes(maker, tmp_path):
    file = tmp_path / "sets.gmt"
    file.write_text("one\tna\tG1\tG2\tG3\tG4\ntwo\tna\tG51\tG52\tG53\n", encoding="utf-8")
    made = maker.order(replace(FREE, sets=str(file), at_least=3))
    found = set(made.table["gene_symbol"])
    assert len(found & {"G1", "G2", "G3", "G4"}) >= 3
    assert {"G51", "G52", "G53"} <= found
    with pytest.raises(ConfigError, match="expected 4 genes of each set that can be chosen, got f"):
        maker.order(replace(FREE, sets=str(file), at_least=4))
    start = tmp_path / "panel.txt"
    start.write_text("\n".join(made.table["gene"]), encoding="utf-8")
    with pytest.raises(ConfigError, match="made smaller to 5 genes, holds fewer than 3 of"):
        maker.order(Conditions(5, sets=str(file), at_least=3, start=str(start)))


def test_order__many_sets_that_overlap_are_held_by_few_genes(maker, tmp_path):
    """Of 400 sets of 6 genes, 18 of 60 genes hold one each; most gain alone never gets there."""
    rng = np.random.default_rng(1)
    named = [symbol for symbol in SYMBOLS[1:] if symbol]
    sets = [rng.choice(named, 6, replace=False).tolist() for _ in range(400)]
    file = tmp_path / "sets.gmt"
    file.write_text("".join(f"s{i}\tna\t" + "\t".join(g) + "\n" for i, g in enumerate(sets)))
    with pytest.raises(ConfigError, match=r"--sets: expected a --size of \d+, the genes") as info:
        maker.order(Conditions(5, sets=str(file)))
    assert re.search(
        r"got 5, with which \d{2,3} stay short \('s\d+', 's\d+', 's\d+', ...\)", str(info.value)
    )
    needed = int(re.search(r"--size of (\d+)", str(info.value))[1])
    for size in (needed, needed + 6):
        found = set(maker.order(Conditions(size, sets=str(file))).table["gene_symbol"])
        assert [genes for genes in sets if not found & {*genes}] == []
    with pytest.raises(ConfigError, match=rf"expected a --budget of {needed}, which the genes"):
        maker.order(Conditions(50, sets=str(file), budget=needed - 1.0))
    paid = maker.order(Conditions(50, sets=str(file), budget=float(needed)))
    assert paid.cost == needed


def test_order__sets_without_enough_genes_are_named_together(maker, tmp_path):
    file = tmp_path / "sets.gmt"
    lines = ["one\tna\tG1\tG2", "two\tna\tNOSUCH", *(f"s{i}\tna\tG{5 * i}" for i in range(1, 4))]
    file.write_text("\n".join(lines), encoding="utf-8")
    text = (
        r"got fewer of 4 of 5 sets: 'two' \(0 of its 1\), 's1' \(0 of its 1\), 's2' .*, \.\.\.\. L"
    )
    with pytest.raises(ConfigError, match=text):
        maker.order(replace(FREE, sets=str(file)))


def instead(made):
    """The genes that can be had instead, of each gene of a panel."""
    named = made.table.set_index("gene_symbol")["instead"]
    return {gene: set(re.findall(r"([\w-]+) \(", text)) for gene, text in named.items()}


def test_order__what_can_be_had_instead_keeps_the_sets(maker, tmp_path):
    """Of a set's only gene on the panel it is the set's others; of one that is spare, any gene."""
    file = tmp_path / "sets.gmt"
    file.write_text("one\tna\tG1\tG2\tG3\ntwo\tna\tG51\tG52\n", encoding="utf-8")
    names = ("G1", "G51", "G7", "G8")
    made = instead(maker.order(Conditions(4, sets=str(file), include=names)))
    assert (made["G1"], made["G51"]) == ({"G2", "G3"}, {"G52"})
    assert len(made["G7"]) == len(made["G8"]) == 3
    spare = instead(maker.order(Conditions(5, sets=str(file), include=(*names, "G2"))))
    assert len(spare["G1"] - {"G3"}) >= 2
    alone = Conditions(4, sets=str(file), include=names, exclude=("G52",))
    table = maker.order(alone).table.set_index("gene_symbol")
    assert table.loc["G51", "instead"] == "none"


def test_order__what_can_be_had_instead_can_be_paid(maker, tmp_path):
    file = tmp_path / "costs.tsv"
    file.write_text("".join(f"G{i}\t{2 + i % 3}\n" for i in range(60) if i % 5), encoding="utf-8")
    asked = Conditions(3, include=("G1", "G2", "G3"), costs=str(file), exclude_unnamed=True)
    made = maker.order(replace(asked, budget=9.0))
    assert made.cost == 9
    for gene, others in instead(made).items():
        assert others
        assert all(int(g[1:]) % 3 <= int(gene[1:]) % 3 for g in others)


def test_order__a_gene_that_a_set_needs_is_told_as_such(maker, tmp_path):
    free = maker.order(replace(FREE, exclude_unnamed=True)).table["gene_symbol"].tolist()
    last = maker.order(Conditions(40, exclude_unnamed=True)).table["gene_symbol"].iloc[-1]
    file = tmp_path / "sets.gmt"
    file.write_text(f"far\tna\t{last}\nnear\tna\t{free[0]}\n", encoding="utf-8")
    made = maker.order(replace(FREE, exclude_unnamed=True, sets=str(file)))
    why = made.table.set_index("gene_symbol")["why"].to_dict()
    assert why == {**dict.fromkeys(free[:-1], "chosen"), last: "chosen for a set"}
    assert "(11 chosen, 1 chosen for a set)" in order_lines(made)[0]
    assert "chosen for a set" in maker.why(made, last)[0]


def test_order__sets_that_the_study_hardly_has_are_told(maker, tmp_path):
    file = tmp_path / "sets.gmt"
    strange = "\t".join(f"X{i}" for i in range(40))
    lines = [f"{name}\tna\tG{i}\t{strange}" for i, name in enumerate("abcd", start=1)]
    file.write_text("\n".join([*lines, "e\tna\tG6\tG7\tY"]), encoding="utf-8")
    made = maker.order(replace(FREE, sets=str(file)))
    shown = "'a' (1 of its 41), 'b' (1 of its 41), 'c' (1 of its 41), ..."
    (note,) = [note for note in made.notes if "--sets" in note]
    assert note == f"--sets: 4 of 5 sets have under half of their genes in the study: {shown}."
    file.write_text("e\tna\tG6\tX\tY\nf\tna\tG7\tY", encoding="utf-8")
    (note,) = [n for n in maker.order(replace(FREE, sets=str(file))).notes if "--sets" in n]
    told = "1 of 2 sets has under half of its genes in the study: 'e' (1 of its 3)."
    assert note == f"--sets: {told}"
    file.write_text("e\tna\tG6\tG7\tY\tZ", encoding="utf-8")
    assert not any("--sets" in note for note in maker.order(replace(FREE, sets=str(file))).notes)


def test_order__features_of_one_gene_are_one_of_a_set(maker, tmp_path):
    """As two probes of a gene are."""
    symbols = list(maker._names["symbols"])
    file = tmp_path / "sets.gmt"
    file.write_text("one\tna\tG1\tG2\n", encoding="utf-8")
    other = copy(maker)
    other._names = {**maker._names, "symbols": ["G1" if s == "G3" else s for s in symbols]}
    order = replace(FREE, sets=str(file), include=("001_at", "003_at"))
    assert set(other.order(replace(order, at_least=2)).table["gene"]) >= {"001_at", "002_at"}
    with pytest.raises(ConfigError, match=r"of 1 of 1 sets: 'one' \(2 of its 2\)"):
        other.order(replace(order, at_least=3))


def test_order__a_panel_is_extended_or_made_smaller(maker, tmp_path):
    file = tmp_path / "panel.txt"
    panel = ["003_at", "014_at", "022_at", "031_at", "045_at"]
    file.write_text("\n".join(panel), encoding="utf-8")
    made = maker.order(replace(FREE, start=str(file)))
    assert genes_of(made)[:5] == panel
    assert made.table["why"].tolist()[4:6] == ["on the panel before", "chosen"]
    made = maker.order(Conditions(3, start=str(file), include=("045_at",)))
    assert len(made.table) == 3
    assert genes_of(made)[0] == "045_at"
    assert set(genes_of(made)) <= set(panel)
    with pytest.raises(ConfigError, match="--start: G3 stand in --exclude too"):
        maker.order(replace(FREE, start=str(file), exclude=("003_at",)))


def test_why__of_a_gene_on_the_panel_and_of_another(maker):
    made = maker.order(FREE)
    row = made.table.iloc[2]
    told = maker.why(made, row["gene"])
    assert "is gene 3: chosen" in told[0]
    assert told[1:] == [f"It serves {row['serves']}.", f"Instead: {row['instead']}."]
    other = next(g for g in maker._names["genes"] if g not in genes_of(made))
    assert maker.why(made, other)[0].startswith(f"{other} is not on the panel. The gene of the")
    with pytest.raises(ConfigError, match="did you mean"):
        maker.why(made, row["gene"] + "x")


def test_sheet__has_ids_and_reads_back(maker, tmp_path):
    made = maker.order(replace(FREE, include=("G7",), exclude=("G8", "GX")))
    assert made.notes == ["--exclude: 1 of its names no feature has: GX"]
    write_sheet(made, tmp_path / "order.tsv")
    found = pd.read_csv(tmp_path / "order.tsv", sep="\t", keep_default_na=False)
    assert found["gene"].tolist() == genes_of(made)
    assert found.columns.tolist() == made.table.columns.tolist()
    lines = order_lines(made)
    assert lines[0] == "12 genes (1 included, 11 chosen) of 59 that could be chosen."
    assert "      and 2 more." in lines
    (marked,) = [line for line in lines if "(included)" in line]
    assert marked.startswith("   1  007_at (included)  G7  ")
    made.table.loc[0, "gene_symbol"] = "=1+1"  # that a spreadsheet would reckon
    write_sheet(made, tmp_path / "order.tsv")
    assert "\t'=1+1\t" in (tmp_path / "order.tsv").read_text()
    assert any(line.startswith("The conditions cost ") for line in lines)


def test_sheet__is_of_the_kind_that_its_name_says(maker, tmp_path):
    made = maker.order(FREE)
    write_sheet(made, tmp_path / "order.csv")
    assert pd.read_csv(tmp_path / "order.csv")["gene"].tolist() == genes_of(made)
    with pytest.raises(ConfigError, match=r"--output: expected a file of \.tsv or \.csv, got"):
        write_sheet(made, tmp_path / "order.xlsx")


@pytest.mark.parametrize("name", ["order.tsv", "order.csv"])
def test_sheet__is_the_list_of_its_genes_wherever_one_is_read(maker, tmp_path, name):
    made = maker.order(FREE)
    sheet = tmp_path / name
    write_sheet(made, sheet)
    every = genes_of(made)
    names = maker._names
    assert list(read_panel(sheet, genes=names["genes"], symbols=names["symbols"]).genes) == every
    for changed in ({"include": str(sheet)}, {"start": str(sheet)}):
        assert genes_of(maker.order(replace(FREE, size=14, **changed)))[:12] == every
    assert not {*genes_of(maker.order(replace(FREE, exclude=str(sheet))))} & {*every}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"include": ("G77",)}, r"--include: expected genes of the study, got \['G77'\].*did you"),
        ({"include": ("G7",), "exclude": ("G7",)}, r"--include: \['G7'\] stand in --exclude too"),
        ({"size": 70}, "--size: expected 1 to 59, got 70"),
        ({"min_mean": 99.0}, "--size: expected at most 0, the genes that the conditions leave"),
        ({"min_mean": 9.0, "max_mean": 8.0}, "expected a window, got 9 to 8"),
        ({"include": ("G7", "G8"), "budget": 1.0}, "--budget: expected 2 at least"),
        ({"budget": 0.0}, "--budget: expected 1 at least, which the cheapest gene costs, got 0"),
        ({"budget": np.nan}, "--budget: expected 1 at least, .* got nan"),
        ({"include": ("G7",), "budget": np.nan}, "--budget: expected 1 at least, .* got nan"),
        ({"start": "mined"}, "landmarks"),
        ({"exclude_like": ("G(",)}, r"expression of symbols, got 'G\(': missing \)"),
        ({"exclude_like": ("ribosome",)}, "got 'ribosome', which no symbol is"),
        ({"at_least": 3}, "--at-least: expected --sets beside it, got 3 alone"),
        ({"size": 14, "exclude_like": (".*",), "include": ("G7",)}, "expected at most 13"),
    ],
)
def test_order__refused_in_one_line(maker, changed, message):
    with pytest.raises((ConfigError, OSError), match=message) as error:
        maker.order(replace(FREE, **changed))
    assert "\n" not in str(error.value)


def test_order__an_error_that_nothing_tells_is_told_as_such(maker, recwarn):
    made = maker.order(replace(FREE, size=59, exclude=("G7",)))
    lines = order_lines(made)
    assert "What the panel costs in error cannot be told: no other gene varies." in lines
    assert "nan" not in " ".join(lines)
    assert lines[1].endswith("instead none")
    assert not recwarn


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("feasible", "G1\tperhaps\n", "expected yes or no of each gene, got 'perhaps'"),
        ("costs", "G1\t-2\n", "expected a number over 0 of G1, got '-2'"),
        ("costs", "G1\t1\t2\n", "line 1: expected a gene and a value"),
        ("costs", "G1,1\nG1,2\n", "line 2: expected each gene once"),
        ("costs", "# nothing\n", "expected a gene and a value a line, got none"),
    ],
)
def test_order__wrong_files(maker, tmp_path, option, text, message):
    file = tmp_path / "file.tsv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SourceError, match=message):
        maker.order(replace(FREE, **{option: str(file)}))


def test_panel_options__penalty_is_recorded_where_it_is_used():
    assert "penalty" not in CandidateOptions(selectors=("medoids",)).recorded()
    assert "penalty" not in CandidateOptions(selectors=("greedy",), penalty=3.0).recorded()
    assert CandidateOptions(selectors=("greedy",)).recorded()["penalty"] == "chosen"
    assert CandidateOptions(selectors=("greedy",), penalty=2.0).recorded()["penalty"] == 2.0
    with pytest.raises(ValueError, match="penalty"):
        PanelOptions(penalty=0.0)


@pytest.mark.parametrize("excluded", [(), ("G7", "G8")])
def test_order__of_a_study_with_panels_begins_them_and_takes_their_penalties(
    root, maker, tmp_path, excluded
):
    place = tmp_path / "study"
    shutil.copytree(root, place)
    ds = open_store(f"{place}/segments/0000/normalized.zarr")
    labels = {name: ds[name].values for name in ("gene", "gene_symbol", "gene_id")}
    scores = {"score": np.ones(N_GENES), "latent_score": np.ones((1, N_GENES), np.float32)}
    source = write_store(
        place / "scores.zarr", SCORES, {**labels, "latent": np.zeros(1, np.int32), **scores}
    )
    options = SelectOptions(
        n_landmarks=20, selectors=(), n_random=1, penalty=0.5, excluded=excluded
    )
    stores = {n: f"{place}/segments/0000/{n}.zarr" for n in ("normalized", "samples")}
    select(source, str(place / "landmarks.zarr"), **stores, options=options)
    found = PanelMaker(str(place))
    mined = found._start("mined")
    own, others = found.order(FREE), maker.order(FREE)
    expected = select_panel("greedy", found._sketch, 12, path=[Stretch(1, 0.5)])
    assert genes_of(own) == [found._names["genes"][g] for g in expected]
    assert genes_of(own) != genes_of(others)
    assert (expected == mined[:12]).all() == (not excluded)
    np.testing.assert_array_equal(found._without_conditions(12), expected)
    smaller = found.order(Conditions(5, start="mined"))
    assert set(genes_of(smaller)) <= {found._names["genes"][g] for g in mined}
