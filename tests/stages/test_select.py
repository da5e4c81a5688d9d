import numpy as np
import pytest
from pydantic import ValidationError

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.kernels.panels import RIDGE, SELECTORS
from dglzarr.stages.select import SelectOptions
from dglzarr.stages.select import select as any_select
from dglzarr.storage import store
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import EXPRESSION, NORMALIZED, SCORES
from dglzarr.storage.store import is_complete, open_store, read_attributes
from tests.builders import (
    Breaks,
    BrokenError,
    digests,
    text,
    times,
    write_matrix,
    write_samples,
    write_store,
)

SCORE = np.array([0.1, 0.9, 0.4, 0.9, 0.3, 0.0, 0.8, 0.4])
GENES = [f"{i}_at" for i in range(8)]
SYMBOLS = ["A", "B", "B", "C", "", "D", "E", "F"]
IDS = ["10", "11", "11", "12", "", "13", "14", "15"]


@pytest.fixture
def source(tmp_path):
    labels = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text(IDS)}
    labels["latent"] = np.arange(2, dtype=np.int32)
    arrays = {"score": SCORE, "latent_score": np.stack([SCORE, SCORE]).astype(np.float32)}
    return write_store(tmp_path / "scores.zarr", SCORES, {**labels, **arrays})


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """A normalized store of 40 samples, 30 of them for training, and its samples store."""
    folder = tmp_path_factory.mktemp("stores")
    values = 8 + np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    values[:, 4:] += values[:, :4]
    split = np.repeat(np.array([0, 2], np.int8), [30, 10])
    normalized = write_matrix(
        folder / "normalized.zarr", NORMALIZED, values, split=split, genes=GENES
    )
    keep = np.arange(40) != 3
    return {
        "normalized": normalized,
        "samples": write_samples(folder / "samples.zarr", normalized, keep=keep),
    }


@pytest.fixture
def select(stores):
    """The stage on these stores, with the paper's selector and a random panel unless asked."""

    def call(source, target, *, normalized=None, samples=None, overwrite=False, **chosen):
        places = {"normalized": normalized, "samples": samples}
        places = {name: uri or stores[name] for name, uri in places.items()}
        places |= {
            name: chosen.pop(name) for name in ("panels", "seed", "expression") if name in chosen
        }
        options = {"selector": "top-score", "selectors": (), "n_random": 1, **chosen}
        return any_select(
            source, target, **places, options=SelectOptions(**options), run=Run(overwrite=overwrite)
        )

    return call


@pytest.fixture
def target(tmp_path):
    return str(tmp_path / "landmarks.zarr")


def panels(uri):
    ds = open_store(uri)
    rows = zip(ds["panel"].values, ds["panel_gene"].values, strict=True)
    return {str(name): [str(g) for g in row if g] for name, row in rows}


def chosen(uri):
    """The panels that are not drawn at random."""
    return {name: genes for name, genes in panels(uri).items() if not name.startswith("random-")}


def test_select__ranks_and_breaks_ties_by_order(select, source, target):
    summary = select(source, target, n_landmarks=4)
    ds = open_store(target)
    assert chosen(target) == {"mined": ["1_at", "3_at", "6_at", "2_at"]}
    np.testing.assert_array_equal(ds["rank"].values, [7, 1, 4, 2, 6, 8, 3, 5])
    np.testing.assert_array_equal(ds["is_landmark"].values, ds["rank"].values <= 4)
    np.testing.assert_array_equal(ds["score"].values, SCORE)
    assert summary.details == {
        "n_landmarks": 4, "n_distinct_genes": 3, "n_unnamed": 0, "n_forced": 0, "n_excluded": 0,
        "n_sketch_rows": 29, "penalties": [], "missing": {}, "dates": {}, "excluded_missing": [],
    }  # fmt: skip


def test_select__unnamed_features_are_no_distinct_genes(select, source, target):
    details = select(source, target, n_landmarks=7).details
    assert (details["n_distinct_genes"], details["n_unnamed"]) == (5, 1)


def test_select__random_panels_by_seed(select, source, tmp_path):
    found = []
    for name, seed, n_random in (("a", 0, 3), ("b", 0, 5), ("c", 1, 3)):
        select(source, str(tmp_path / name), n_landmarks=4, n_random=n_random, seed=seed)
        found.append(panels(str(tmp_path / name)))
    a, b, c = found
    assert list(b) == ["mined", *(f"random-{i}" for i in range(5))]
    assert all(b[name] == a[name] for name in a)
    assert any(c[name] != a[name] for name in a)
    assert a["mined"] == c["mined"]
    for genes in b.values():
        assert len(set(genes)) == len(genes) == 4
        assert set(genes) <= set(GENES)
    assert len({tuple(genes) for genes in b.values()}) > 2


@pytest.mark.parametrize(
    ("content", "genes", "missing"),
    [
        ("6_at\n0_at\nX_at\n", ["6_at", "0_at"], ["X_at"]),
        ("E\nB\nZZZ\nQ\n", ["6_at", "1_at"], ["ZZZ", "Q"]),
        ("name\tprobe\nfirst\t3_at\nsecond\t7_at\n", ["3_at", "7_at"], []),
        ("15\n12\n", ["7_at", "3_at"], []),
    ],
    ids=["probe", "symbol", "column", "gene ID"],
)
def test_select__published_panel(select, tmp_path, source, target, content, genes, missing):
    (tmp_path / "list.txt").write_text(content)
    select(source, target, n_landmarks=3, n_random=1, panels={"l1000": str(tmp_path / "list.txt")})
    assert list(panels(target)) == ["mined", "l1000", "random-0"]
    assert panels(target)["l1000"] == genes
    assert open_store(target)["n_missing"].values.tolist() == [0, len(missing), 0]
    assert open_store(target)["kind"].values.tolist() == ["mined", "published", "random"]
    assert open_store(target).attrs["details"]["missing"] == {"l1000": missing}


def test_select__published_panel_larger_than_the_mined_one(select, tmp_path, source, target):
    (tmp_path / "list.txt").write_text("\n".join(GENES[:6]))
    select(source, target, n_landmarks=2, panels={"l": str(tmp_path / "list.txt")})
    assert chosen(target) == {"mined": ["1_at", "3_at"], "l": GENES[:6]}


@pytest.mark.parametrize("n_landmarks", [8, 9, 943])
def test_select__impossible_size(select, source, target, n_landmarks):
    with pytest.raises(ConfigError, match=f"n_landmarks: expected 1 to 7, got {n_landmarks}"):
        select(source, target, n_landmarks=n_landmarks)
    assert read_attributes(target) is None


@pytest.mark.parametrize("name", ["mined", "mean", "random-3", "greedy"])
def test_select__names_that_are_taken(select, tmp_path, source, target, name):
    (tmp_path / "list.txt").write_text("1_at\n")
    with pytest.raises(ConfigError, match=rf"evaluate.panels: .*got \['{name}'\]. Rename"):
        select(source, target, n_landmarks=3, panels={name: str(tmp_path / "list.txt")})


def test_select__list_of_another_platform(select, tmp_path, source, target):
    (tmp_path / "list.txt").write_text("\n".join([GENES[0], *(f"x{i}_at" for i in range(19))]))
    with pytest.raises(
        SourceError, match=r"panels\.l: expected at least 50% of its 20.*got 1 \(5%\).*x0_at"
    ):
        select(source, target, n_landmarks=3, panels={"l": str(tmp_path / "list.txt")})
    assert not is_complete(target)


def test_select__list_of_other_genes(select, tmp_path, source, target):
    (tmp_path / "list.txt").write_text("ILMN_1\nILMN_2\n")
    with pytest.raises(SourceError, match=r"list.txt.*ingest.annotation"):
        select(source, target, n_landmarks=3, panels={"l": str(tmp_path / "list.txt")})
    assert not is_complete(target)


def test_select__second_run_touches_nothing(select, tmp_path, source, target):
    first = select(source, target, n_landmarks=3)
    before = times(tmp_path)
    second = select(source, target, n_landmarks=3)
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"n_landmarks": 4}, r"with other parameters: select\.n_landmarks: 3 -> 4\."),
        ({"n_random": 2}, r"with other parameters: select\.n_random: 1 -> 2\."),
        ({"seed": 1}, r"with other parameters: seed: 0 -> 1\."),
        ({"panels": {"l": "list.txt"}}, r"inputs: evaluate\.panels\.l: none -> list\.txt\."),
        (
            {"forced": "list.txt"},
            r"with other parameters: select\.forced: none -> list\.txt\.",
        ),
    ],
    ids=lambda changed: next(iter(changed)) if isinstance(changed, dict) else "",
)
def test_select__other_parameters(select, tmp_path, source, target, changed, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("1_at\n")
    select(source, target, n_landmarks=3)
    options = {"n_landmarks": 3, **changed}
    with pytest.raises(StoreError, match=said):
        select(source, target, **options)
    assert select(source, target, **options, overwrite=True).state == "new"


def test_select__a_changed_list_is_another_input(select, tmp_path, source, target):
    file = tmp_path / "list.txt"
    file.write_text("1_at\n")
    select(source, target, n_landmarks=3, panels={"l": str(file)})
    file.write_text("2_at\n3_at\n")
    with pytest.raises(
        StoreError, match=r"from other inputs: evaluate\.panels\.l: list.txt was changed"
    ):
        select(source, target, n_landmarks=3, panels={"l": str(file)})
    select(source, target, n_landmarks=3, panels={"l": str(file)}, overwrite=True)
    assert panels(target)["l"] == ["2_at", "3_at"]


def test_select__fails_before_the_end_and_goes_on(select, tmp_path, source, target, monkeypatch):
    select(source, whole := str(tmp_path / "whole"), n_landmarks=3)
    with monkeypatch.context() as broken:
        broken.setattr(store, "finish", Breaks(store.finish, 0))
        with pytest.raises(BrokenError):
            select(source, target, n_landmarks=3)
    with pytest.raises(StoreError, match="not complete"):
        open_store(target)
    select(source, target, n_landmarks=3)
    assert digests(target) == digests(whole)


# ---------------------------------------------------------------- selectors and rules


def test_select__every_selector_is_a_panel_of_its_own(select, source, target):
    names = [name for name in SELECTORS if name != "peel-off"]
    select(source, target, n_landmarks=3, n_random=1, selector="greedy", selectors=names)
    ds, found = open_store(target), panels(target)
    assert list(found) == ["mined", *names, "random-0"]
    assert ds["selector"].values.tolist() == ["greedy", *names, "random"]
    assert ds["kind"].values.tolist() == ["mined", *["selector"] * len(names), "random"]
    assert found["mined"] == found["greedy"]
    assert found["top-score"] == ["1_at", "3_at", "6_at"]
    assert all(len(set(genes)) == 3 for genes in found.values())


def test_select__rank_is_the_panel_in_order_then_the_rest_by_score(select, source, target):
    select(source, target, n_landmarks=3, selector="greedy")
    ds = open_store(target)
    by_rank = [str(g) for g in ds["gene"].values[np.argsort(ds["rank"].values)]]
    assert by_rank[:3] == panels(target)["mined"]
    rest = [g for g in (GENES[i] for i in np.argsort(-SCORE, kind="stable")) if g in by_rank[3:]]
    assert by_rank[3:] == rest
    np.testing.assert_array_equal(ds["is_landmark"].values, ds["rank"].values <= 3)


def test_select__is_fitted_on_kept_training_samples(select, stores, source, tmp_path):
    kept = open_store(stores["normalized"])["expression"].values[:30]
    z = np.delete(kept, 3, axis=0)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    select(source, str(tmp_path / "l.zarr"), n_landmarks=3, selector="greedy")
    products = z.T @ z
    gain = (products**2).sum(axis=0) / (RIDGE * 29 + products.diagonal())
    assert panels(str(tmp_path / "l.zarr"))["mined"][0] == GENES[gain.argmax()]
    stored = open_store(str(tmp_path / "l.zarr"))["gain"].values
    assert np.nanmax(stored) == pytest.approx(gain.max() / (z**2).sum(), rel=1e-5)


@pytest.mark.parametrize("selector", ["top-score", "greedy", "medoids", "random"])
def test_select__forced_and_excluded_by_any_name(select, source, target, selector):
    select(
        source, target, n_landmarks=4, n_random=2, selector=selector, selectors=["variance"],
        forced=["f", "11"], excluded=["0_AT", "C", "nobody"],
    )  # fmt: skip
    for genes in panels(target).values():
        assert genes[:2] == ["7_at", "1_at"]
        assert not {"0_at", "3_at"} & set(genes)
    ds = open_store(target).sortby("rank")
    assert ds["is_forced"].values.tolist() == [True, True, *[False] * 6]
    assert (ds["gain"].values[:4] > 0).all()
    assert np.isnan(ds["gain"].values[4:]).all()


def test_select__names_that_are_dates_or_unknown_are_told(select, tmp_path, source, target):
    with pytest.raises(ConfigError, match=r"got \['5-Mar'\] among 1 \('5-Mar' is MARCHF5\)"):
        select(source, target, n_landmarks=4, forced=["5-Mar"])
    path = tmp_path / "list.txt"
    path.write_text("A\nB\n1-Mar\nnone-such\n")
    summary = select(source, target, n_landmarks=4, excluded=["F", "TP54"], panels={"l": str(path)})
    assert summary.details["excluded_missing"] == ["TP54"]
    assert summary.details["missing"] == {"l": ["1-Mar", "none-such"]}
    assert summary.details["dates"] == {"l": {"1-Mar": ""}}
    path.write_text("A\n1-Mar\nnone-such\n")
    with pytest.raises(SourceError, match=r"Dates among them: '1-Mar' is MARCHF1 or MTARC1\."):
        select(source, f"{target}-2", n_landmarks=4, panels={"l": str(path)})


def test_select__what_is_hardly_detected_is_left_out_unless_forced(
    select, source, target, tmp_path
):
    rate = np.full(8, 0.8)
    rate[[1, 3]] = 0.1
    expression = write_matrix(
        tmp_path / "expression.zarr", EXPRESSION, np.full((3, 8), 5.0, np.float32), genes=GENES,
        rate=rate,
    )  # fmt: skip
    asked = {"expression": expression, "min_detected": 0.5, "n_landmarks": 3}
    select(source, target, **asked)
    assert chosen(target) == {"mined": ["6_at", "2_at", "7_at"]}
    select(source, target, **asked, forced=("3_at",), overwrite=True)
    assert chosen(target)["mined"][0] == "3_at"
    assert "1_at" not in chosen(target)["mined"]


def test_select__controls_and_unnamed_features_are_left_out_where_asked(select, source, target):
    """AFFX-... and the feature without a name are chosen unless settings say otherwise."""
    labels = [f"AFFX-{gene}" if gene == "3_at" else gene for gene in GENES]
    controls = write_store(
        f"{target}-scores",
        SCORES,
        {
            "gene": text(labels),
            "gene_symbol": text(SYMBOLS),
            "gene_id": text(IDS),
            "latent": np.arange(2, dtype=np.int32),
            "score": SCORE,
            "latent_score": np.stack([SCORE, SCORE]).astype(np.float32),
        },
    )
    select(source, target, n_landmarks=6)
    assert "exclude_controls" not in read_attributes(target)["parameters"]
    assert {"3_at", "4_at"} <= chosen_genes(target)
    more = {"exclude_controls": True, "exclude_unnamed": True}
    summary = select(controls, f"{target}-2", n_landmarks=6, **more)
    found = open_store(f"{target}-2")
    assert {"AFFX-3_at", "4_at"}.isdisjoint(found["panel_gene"].values.ravel().tolist())
    assert summary.details["n_excluded"] == 2
    assert read_attributes(f"{target}-2")["parameters"]["exclude_controls"] is True
    select(controls, f"{target}-3", n_landmarks=6, forced=["AFFX-3_at"], **more)
    assert "AFFX-3_at" in chosen_genes(f"{target}-3")


def chosen_genes(target):
    """The genes of the mined panel."""
    ds = open_store(target)
    return set(ds["gene"].values[ds["is_landmark"].values].tolist())


def test_select__excluded_symbol_with_all_its_features(select, source, target):
    select(source, target, n_landmarks=5, excluded=["b"])
    assert panels(target)["mined"] == ["3_at", "6_at", "7_at", "4_at", "0_at"]


def test_select__lists_from_files(select, source, target, tmp_path):
    (tmp_path / "forced.txt").write_text("E\n0_at\n")
    (tmp_path / "excluded.txt").write_text("# not these\nC\n")
    files = {"forced": str(tmp_path / "forced.txt"), "excluded": str(tmp_path / "excluded.txt")}
    summary = select(source, target, n_landmarks=3, **files)
    assert panels(target)["mined"] == ["6_at", "0_at", "1_at"]
    assert (summary.details["n_forced"], summary.details["n_excluded"]) == (2, 1)
    (tmp_path / "forced.txt").write_text("E\n")
    with pytest.raises(StoreError, match=r"inputs: select\.forced: forced.txt was changed"):
        select(source, target, n_landmarks=3, **files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"forced": ["A", "XYZ"]}, r"select.forced: expected genes of the study, got \['XYZ'\]"),
        ({"forced": ["A"], "excluded": ["10"]}, r"select.forced: \['A'\] stand in .* too"),
        ({"excluded": ["A", "B", "C"]}, "n_landmarks: expected 1 to 4, got 5: .* 4 excluded"),
        ({"forced": ["A", "C"], "n_landmarks": 1}, "n_landmarks: expected 2 to 7, got 1"),
    ],
)
def test_select__impossible_rules(select, source, target, options, message):
    with pytest.raises(ConfigError, match=message):
        select(source, target, **{"n_landmarks": 5, **options})
    assert read_attributes(target) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selector": "best"}, r"select.selector: expected any of .* got \['best'\]"),
        ({"selectors": ["greedy", "x"]}, r"select.selectors: expected any of .* got \['x'\]"),
        ({"n_landmarks": 0}, "n_landmarks\n.*greater than 0"),
        ({"n_random": 0}, "n_random\n.*greater than 0"),
    ],
)
def test_select_options__what_cannot_be(options, message):
    with pytest.raises(ValidationError, match=message):
        SelectOptions(**options)


def test_select__genes_that_do_not_vary_are_never_chosen(select, source, target, tmp_path):
    values = 8 + np.random.default_rng(1).standard_normal((20, 8)).astype(np.float32)
    values[:, [1, 6]] = 7
    normalized = write_matrix(
        tmp_path / "n.zarr", NORMALIZED, values, split=np.zeros(20, np.int8), genes=GENES
    )
    samples = write_samples(tmp_path / "s.zarr", normalized, keep=np.ones(20, dtype=bool))
    options = {"normalized": normalized, "samples": samples, "n_random": 3}
    select(source, target, n_landmarks=6, **options, selectors=["greedy", "medoids"])
    assert all(not {"1_at", "6_at"} & set(genes) for genes in panels(target).values())
    with pytest.raises(ConfigError, match=r"expected 1 to 6, got 7: .* 2 do not vary"):
        select(source, target, n_landmarks=7, **options, overwrite=True)
