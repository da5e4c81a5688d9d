"""Stores of another study: every door to a study tells that they do not belong to it."""

import shutil
from pathlib import Path

import dask
import pytest

import dglzarr
from dglzarr import cli
from dglzarr.errors import StoreError
from dglzarr.query import stores
from dglzarr.query.checks import lineage_problems
from dglzarr.settings import load_settings
from dglzarr.studies.plan import mine
from tests.builders import simulate, write_files

pytestmark = pytest.mark.slow

STUDY = """
root = "study"
seed = {seed}
[[sources]]
uri = "GSE*"
[ingest]
split_by = "sample"
[dedup]
n_clusters = 4
[train]
hidden = 8
n_latent = 3
epochs = 2
batch_size = 16
[select]
n_landmarks = 5
n_random = 2
selectors = []
[group]
label = "tissue"
[cluster]
kind = "none"
"""
STORES = (
    "segments/0000/normalized", "segments/0000/samples", "segments/0000/latent",
    "segments/0000/contributions", "reconstruction", "scores", "landmarks", "evaluation", "groups",
)  # fmt: skip
DOORS = {
    "query": ["query", "{root}", "--top", "3"],
    "query latent": ["query", "{root}", "--latent", "0"],
    "query label": ["query", "{root}", "--by", "tissue", "--gene", "{gene}"],
    "export": ["export", "{root}", "--format", "tsv", "--output", "{out}/a.tsv"],
    "export h5ad": ["export", "{root}", "--format", "h5ad", "--output", "{out}/a.h5ad"],
    "panel": ["panel", "{root}", "--size", "4"],
    "bundle": ["bundle", "{root}", "--output", "{out}/b.zip"],
    "contrast": ["contrast", "{root}", "--label", "tissue", "--case", "skin", "--control", "liver"],
    "report": ["report", "{settings}"],
    "grow": ["grow", "{settings}"],
}
USED = {
    "query": ("landmarks", "scores", "samples"),
    "query latent": ("latent", "scores"),
    "query label": ("normalized", "samples", "landmarks"),
    "export": ("normalized", "samples", "landmarks", "scores"),
    "export h5ad": ("latent",),
    "panel": ("normalized", "samples", "landmarks"),
    "bundle": ("normalized", "samples", "landmarks"),
    "contrast": ("normalized", "samples", "landmarks"),
    "report": tuple(Path(store).name for store in STORES if "contributions" not in store),
    "grow": tuple(Path(store).name for store in STORES if "groups" not in store),
}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Two studies of the same files: the other one differs in its seed."""
    folder = tmp_path_factory.mktemp("doors")
    for name, seed in (("own", 0), ("other", 1)):
        (folder / name).mkdir()
        write_files(folder / name, simulate(64, 24, n_hubs=4, n_series=3))
        (folder / name / "study.toml").write_text(STUDY.format(seed=seed))
        with dask.config.set(scheduler="synchronous"):
            mine(load_settings(folder / name / "study.toml"))
    return folder


@pytest.fixture
def own(studies, tmp_path):
    """A copy of the first study with its files, which a test may change."""
    shutil.copytree(studies / "own", tmp_path / "own")
    return tmp_path / "own"


def take(studies, own, store):
    """Put the other study's store in the place of one's own."""
    shutil.rmtree(own / "study" / f"{store}.zarr")
    shutil.copytree(studies / "other" / "study" / f"{store}.zarr", own / "study" / f"{store}.zarr")


def run(own, door):
    """Return the exit status of a command on a study."""
    root = str(own / "study")
    (own / "out").mkdir(exist_ok=True)
    places = {"root": root, "settings": str(own / "study.toml"), "out": str(own / "out")}
    gene = simulate(64, 24, n_hubs=4, n_series=3).genes[0]
    arguments = [part.format(**places, gene=gene) for part in DOORS[door]]
    return cli.guarded(lambda: cli.app(arguments, standalone_mode=False))


@pytest.mark.parametrize("store", STORES)
def test_doors__a_store_of_another_study(studies, own, store, capsys, caplog):
    take(studies, own, store)
    root = str(own / "study")
    wrong = {Path(uri).stem for uri in lineage_problems(root, stores(root))}
    assert Path(store).name in wrong
    for door, used in USED.items():
        if wrong & set(used):
            status, said = run(own, door), capsys.readouterr().err
            assert status == 1, (door, said)
            assert said.count(" than stands in the study. Restore it from a copy"), (door, said)
            assert "Traceback" not in said
    caplog.clear()
    dglzarr.open(f"{root}#{Path(store).name}")
    assert "than stands in the study" in caplog.text
    caplog.clear()
    tree = dglzarr.open_study(root)
    assert "than stands in the study" in caplog.text
    told = {name for name, node in tree.children.items() if "problem" in node.attrs}
    assert told == wrong & {*tree.children}


def test_doors__a_whole_study_is_let_through(own, capsys, caplog):
    for door in ("query", "query latent", "query label", "export", "panel", "report"):
        assert run(own, door) == 0, (door, capsys.readouterr().err)
    assert "than stands" not in capsys.readouterr().err + caplog.text


def test_doors__of_what_is_served(studies, own):
    pytest.importorskip("starlette")
    from dglzarr.serve.answers import Answers
    from dglzarr.serve.cache import ArrayCache

    take(studies, own, "landmarks")
    served = Answers("study", str(own / "study"), ArrayCache(10**6))
    assert "than stands in the study" in served.problems["landmarks"]
    assert served.facts()["not_made"] == ["landmarks"]
    take(studies, own, "segments/0000/samples")
    with pytest.raises(StoreError, match="than stands in the study"):
        Answers("study", str(own / "study"), ArrayCache(10**6))


@pytest.mark.parametrize("door", ["export", "bundle"])
def test_doors__what_is_handed_on_is_as_it_was_written(own, door, capsys):
    shard = own / "study" / "segments" / "0000" / "normalized.zarr" / "expression" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 4
    shard.write_bytes(content)
    assert run(own, door) == 1
    assert "normalized.zarr: is damaged: expression/c/0/0" in capsys.readouterr().err
    assert list((own / "out").iterdir()) == []
