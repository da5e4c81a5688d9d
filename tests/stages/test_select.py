import numpy as np
import pytest

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.schema import SCORES
from dglzarr.stages import select as stage
from dglzarr.stages.select import select
from dglzarr.store import (
    claim_store,
    create_store,
    finish,
    is_complete,
    open_store,
    read_attributes,
)
from tests.studies import Breaks, BrokenError, digests, text, times

SCORE = np.array([0.1, 0.9, 0.4, 0.9, 0.3, 0.0, 0.8, 0.4])
GENES = [f"{i}_at" for i in range(8)]
SYMBOLS = ["A", "B", "B", "C", "", "D", "E", "F"]
IDS = ["10", "11", "11", "12", "", "13", "14", "15"]


@pytest.fixture
def source(tmp_path):
    uri = str(tmp_path / "scores.zarr")
    labels = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text(IDS)}
    labels["latent"] = np.arange(2, dtype=np.int32)
    create_store(claim_store(uri, SCORES, inputs=[], parameters={}), labels)
    arrays = {"score": SCORE, "latent_score": np.stack([SCORE, SCORE]).astype(np.float32)}
    finish(uri, started=0.0, arrays=arrays)
    return uri


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "landmarks.zarr")


def panels(uri):
    ds = open_store(uri)
    rows = zip(ds["panel"].values, ds["panel_gene"].values, strict=True)
    return {str(name): [str(g) for g in row if g] for name, row in rows}


def test_select__ranks_and_breaks_ties_by_order(source, target):
    summary = select(source, target, n_landmarks=4, n_random=0)
    ds = open_store(target)
    assert panels(target) == {"mined": ["1_at", "3_at", "6_at", "2_at"]}
    np.testing.assert_array_equal(ds["rank"].values, [7, 1, 4, 2, 6, 8, 3, 5])
    np.testing.assert_array_equal(ds["is_landmark"].values, ds["rank"].values <= 4)
    np.testing.assert_array_equal(ds["score"].values, SCORE)
    assert summary.details == {"n_landmarks": 4, "n_distinct_genes": 3, "n_unnamed": 0}


def test_select__unnamed_features_are_no_distinct_genes(source, target):
    details = select(source, target, n_landmarks=7, n_random=0).details
    assert (details["n_distinct_genes"], details["n_unnamed"]) == (5, 1)


def test_select__random_panels_by_seed(source, tmp_path):
    found = []
    for name, seed, n_random in (("a", 0, 3), ("b", 0, 5), ("c", 1, 3)):
        select(source, str(tmp_path / name), n_landmarks=4, n_random=n_random, seed=seed)
        found.append(panels(str(tmp_path / name)))
    a, b, c = found
    assert list(b) == ["mined", *(f"random-{i}" for i in range(5))]
    assert all(b[name] == a[name] for name in a)
    assert any(c[name] != a[name] for name in a)
    assert a["mined"] == c["mined"]
    for name, genes in b.items():
        assert len(set(genes)) == len(genes) == 4
        assert set(genes) <= set(GENES)
        assert name == "mined" or genes == sorted(genes)
    assert len({tuple(genes) for genes in b.values()}) > 2


@pytest.mark.parametrize(
    ("content", "genes", "n_missing"),
    [
        ("6_at\n0_at\nX_at\n", ["6_at", "0_at"], 1),
        ("E\nB\nZZZ\nQ\n", ["6_at", "1_at"], 2),
        ("name\tprobe\nfirst\t3_at\nsecond\t7_at\n", ["3_at", "7_at"], 0),
        ("15\n12\n", ["7_at", "3_at"], 0),
    ],
    ids=["probe", "symbol", "column", "gene ID"],
)
def test_select__published_panel(tmp_path, source, target, content, genes, n_missing):
    (tmp_path / "list.txt").write_text(content)
    select(source, target, n_landmarks=3, n_random=1, panels={"l1000": str(tmp_path / "list.txt")})
    assert list(panels(target)) == ["mined", "l1000", "random-0"]
    assert panels(target)["l1000"] == genes
    assert open_store(target)["n_missing"].values.tolist() == [0, n_missing, 0]


def test_select__published_panel_larger_than_the_mined_one(tmp_path, source, target):
    (tmp_path / "list.txt").write_text("\n".join(GENES[:6]))
    select(source, target, n_landmarks=2, n_random=0, panels={"l": str(tmp_path / "list.txt")})
    assert panels(target) == {"mined": ["1_at", "3_at"], "l": GENES[:6]}


@pytest.mark.parametrize("n_landmarks", [0, 8, 9, 943])
def test_select__impossible_size(source, target, n_landmarks):
    with pytest.raises(ConfigError, match=f"n_landmarks: expected 1 to 7, got {n_landmarks}"):
        select(source, target, n_landmarks=n_landmarks)
    assert read_attributes(target) is None


@pytest.mark.parametrize("name", ["mined", "mean", "random-3"])
def test_select__names_that_are_taken(tmp_path, source, target, name):
    (tmp_path / "list.txt").write_text("1_at\n")
    with pytest.raises(ConfigError, match=rf"evaluate.panels: .*got \['{name}'\]. Rename"):
        select(source, target, n_landmarks=3, panels={name: str(tmp_path / "list.txt")})


def test_select__list_of_other_genes(tmp_path, source, target):
    (tmp_path / "list.txt").write_text("ILMN_1\nILMN_2\n")
    with pytest.raises(SourceError, match=r"list.txt.*ingest.annotation"):
        select(source, target, n_landmarks=3, panels={"l": str(tmp_path / "list.txt")})
    assert not is_complete(target)


def test_select__second_run_touches_nothing(tmp_path, source, target):
    first = select(source, target, n_landmarks=3)
    before = times(tmp_path)
    second = select(source, target, n_landmarks=3)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


@pytest.mark.parametrize(
    "changed",
    [{"n_landmarks": 4}, {"n_random": 1}, {"seed": 1}, {"panels": {"l": "list.txt"}}],
    ids=lambda changed: next(iter(changed)),
)
def test_select__other_parameters(tmp_path, source, target, changed, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("1_at\n")
    select(source, target, n_landmarks=3)
    options = {"n_landmarks": 3, **changed}
    with pytest.raises(StoreError, match=f"other parameters: {next(iter(changed))} "):
        select(source, target, **options)
    assert select(source, target, **options, overwrite=True).state == "new"


def test_select__a_changed_list_is_another_input(tmp_path, source, target):
    file = tmp_path / "list.txt"
    file.write_text("1_at\n")
    select(source, target, n_landmarks=3, panels={"l": str(file)})
    file.write_text("2_at\n3_at\n")
    with pytest.raises(StoreError, match="was made from other inputs"):
        select(source, target, n_landmarks=3, panels={"l": str(file)})
    select(source, target, n_landmarks=3, panels={"l": str(file)}, overwrite=True)
    assert panels(target)["l"] == ["2_at", "3_at"]


def test_select__fails_before_the_end_and_goes_on(tmp_path, source, target, monkeypatch):
    select(source, whole := str(tmp_path / "whole"), n_landmarks=3)
    with monkeypatch.context() as broken:
        broken.setattr(stage, "finish", Breaks(stage.finish, 0))
        with pytest.raises(BrokenError):
            select(source, target, n_landmarks=3)
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    select(source, target, n_landmarks=3)
    assert digests(target) == digests(whole)
