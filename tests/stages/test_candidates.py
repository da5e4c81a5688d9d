import numpy as np
import pytest

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.kernels.panels import select_panel
from dglzarr.kernels.sketch import GeneSketch
from dglzarr.stages.candidates import CandidateOptions, candidates
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED
from dglzarr.storage.store import open_store
from tests.builders import TRAIN, digests, simulate, splits, times, write_matrix, write_samples

N_SAMPLES, N_GENES = 80, 40
GENES = [f"{i:03d}_at" for i in range(N_GENES)]
LISTED = [3, 8, 30, 31, 17, 5]
OPTIONS = {"selectors": ("greedy", "medoids", "variance"), "sizes": (4, 9), "n_random": 3}


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    values = simulate(N_SAMPLES, N_GENES, n_duplicates=0).expression
    source = write_matrix(folder / "normalized", NORMALIZED, values, genes=GENES)
    samples = write_samples(folder / "samples", source, keep=np.arange(N_SAMPLES) % 9 != 0)
    return source, samples, values


@pytest.fixture
def run(stores, tmp_path):
    def call(name="candidates", *, overwrite=False, **options):
        target = str(tmp_path / name)
        options = CandidateOptions(**{**OPTIONS, **options})
        run = Run(overwrite=overwrite)
        return candidates(stores[0], target, samples=stores[1], options=options, run=run), target

    return call


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\n".join([*(GENES[i] for i in LISTED), "nobody_at"]) + "\n")
    return {"paper": str(path)}


def panels(target):
    ds = open_store(target)
    rows = zip(ds["panel"].values, ds["panel_gene"].values, strict=True)
    return {str(name): [GENES.index(str(g)) for g in row if g] for name, row in rows}


def test_candidates__selectors_see_kept_training_samples_alone(stores, run):
    _, samples, values = stores
    _, target = run()
    found = panels(target)
    mask = open_store(samples)
    chosen = mask["keep"].values & (splits(N_SAMPLES) == TRAIN)
    mean, std = mask["gene_mean"].values, mask["gene_std"].values
    z = ((values[chosen] - mean) / std).astype(np.float32)
    sketch = GeneSketch(z, std, np.full(N_GENES, np.nan), int(chosen.sum()))
    for name in OPTIONS["selectors"]:
        for size in OPTIONS["sizes"]:
            assert found[f"{name}/{size}"] == select_panel(name, sketch, size).tolist()


def test_candidates__random_panels_of_each_size(run):
    ds = open_store(run()[1])
    found = panels(run()[1])
    for i in range(3):
        assert found[f"random-{i}/9"][:4] == found[f"random-{i}/4"]
        assert len(set(found[f"random-{i}/9"])) == 9
    assert found["random-0/9"] != found["random-1/9"]
    assert ds["family"].values.tolist().count("random") == 6
    assert ds["size"].values.tolist() == [4, 9] * 6


def test_candidates__a_list_whole_and_in_random_subsets(run, listed):
    summary, target = run(panels=listed)
    found = panels(target)
    assert found["paper/6"] == LISTED
    subsets = [name for name in found if name.startswith("random-paper")]
    assert subsets == [f"random-paper-{i}/4" for i in range(3)]
    assert all(len(set(found[name])) == 4 and set(found[name]) < set(LISTED) for name in subsets)
    assert summary.details["missing"] == {"paper": ["nobody_at"]}
    ds = open_store(target)
    assert int(ds["n_missing"].sel(panel="paper/6")) == 1
    kinds = ["selector"] * 6 + ["random"] * 6 + ["published"] + ["subset"] * 3
    assert ds["kind"].values.tolist() == kinds
    assert ds["family"].values.tolist()[-4:] == ["paper", *["random of paper"] * 3]


def test_candidates__a_list_of_another_platform(run, tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("\n".join([GENES[0], *(f"x{i}_at" for i in range(19))]))
    with pytest.raises(
        SourceError, match=r"panels\.paper: expected at least 50% of its 20.*got 1 \(5%\).*x0_at"
    ):
        run(panels={"paper": str(path)})


def test_candidates__unknown_selector_and_impossible_sizes(run):
    with pytest.raises(ConfigError, match=r"expected names of top-score.*got \['best'\]"):
        run(selectors=("best",))
    for size in (0, N_GENES, N_GENES + 1):
        with pytest.raises(ConfigError, match=rf"sizes: expected 1 to 39.*got \[{size}\]"):
            run(sizes=(4, size))


@pytest.fixture
def with_constant_genes(stores, tmp_path):
    values = stores[2].copy()
    values[:, [2, 11]] = 7
    source = write_matrix(tmp_path / "constant", NORMALIZED, values, genes=GENES)
    return source, write_samples(tmp_path / "kept", source, keep=np.ones(N_SAMPLES, dtype=bool))


def test_candidates__forced_excluded_and_constant_genes(with_constant_genes, tmp_path):
    source, samples = with_constant_genes
    target, forced, excluded = str(tmp_path / "candidates"), ["007_AT", "030_at"], ["005_at"]
    rules = {**OPTIONS, "sizes": (4, 37), "forced": forced, "excluded": excluded}

    def run(*, overwrite=False, **other):
        options, how = CandidateOptions(**{**rules, **other}), Run(overwrite=overwrite)
        return candidates(source, target, samples=samples, options=options, run=how)

    run()
    found = panels(target)
    assert len(found) == 12
    for genes in found.values():
        assert genes[:2] == [7, 30]
        assert not {2, 5, 11} & set(genes)
    assert {len(set(genes)) for genes in found.values()} == {4, 37}
    with pytest.raises(ConfigError, match=r"--sizes: expected 2 to 37, got 38: of 40 genes 2 are"):
        run(sizes=(38,), overwrite=True)
    assert panels(target) == found
    with pytest.raises(StoreError, match=r"select\.excluded: \['005_at'\] -> none"):
        run(excluded=())


@pytest.mark.parametrize("name", ["mined", "mean", "random", "random-3", "greedy"])
def test_candidates__names_that_are_taken(run, listed, name):
    with pytest.raises(ConfigError, match=rf"evaluate.panels: .*got \['{name}'\]. Rename"):
        run(panels={name: listed["paper"]})


def test_candidates__again_and_with_other_parameters(run, tmp_path):
    _, target = run()
    before = times(tmp_path)
    assert run()[0].state == "unchanged"
    assert times(tmp_path) == before
    with pytest.raises(StoreError, match=r"other parameters: select\.n_random: 3 -> 2"):
        run(n_random=2)
    assert run(n_random=2, overwrite=True)[0].state == "new"
    assert digests(run("other", n_random=2)[1]) == digests(target)
