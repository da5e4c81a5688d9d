"""The pipeline as a whole: planted genes are found, every setting counts, any scheduler will do."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from dglzarr import settings as config
from dglzarr.access.discover import DiscoverOptions
from dglzarr.access.options import FetchOptions
from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.report.panels import CHANCE, panel_rows
from dglzarr.settings import Settings, load_settings
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.schemas import SCORES
from dglzarr.storage.store import create_store, finish, is_complete, open_store
from dglzarr.studies import early
from dglzarr.studies import plan as pipeline
from dglzarr.studies.plan import OPTIONAL, STEPS, VERBS, Plan, mine
from dglzarr.testing import write_study
from tests.builders import Breaks, BrokenError, claimed, digests, simulate, times, write_files

TINY = {
    "ingest": {"split_by": "sample", "shard_samples": 16},
    "dedup": {"n_clusters": 4},
    "train": {"start": "random", "hidden": 8, "n_latent": 3, "epochs": 2, "batch_size": 16},
    "score": {"deeplift_reference": "samples", "n_references": 2},
    "select": {"n_landmarks": 5, "n_random": 2},
    "cluster": {"kind": "none"},
}


ALWAYS = tuple(name for name in STEPS if name not in OPTIONAL)
GROUP = {"label": "tissue"}
ENRICH = {"ontology": "go.obo", "associations": "go.gaf", "min_size": 1}


def tiny(folder, **sections):
    """Settings of a study of 64 samples and 24 genes whose files lie in a folder."""
    if not list(folder.glob("GSE*")):
        write_files(folder, simulate(64, 24, n_hubs=4, n_series=3, n_duplicates=4))
    content = {"root": "study", "sources": [{"uri": "GSE*"}], **TINY}
    for name, values in sections.items():
        content[name] = {**content[name], **values} if name in TINY else values
    return config.build_settings(content, name="test", folder=folder)


def write_ontology(folder, genes):
    """An ontology of two terms in each of two namespaces, and annotations of some genes."""
    for name in ("go", "other"):
        spaces = ("molecular_function", "biological_process")
        stanzas = [
            f"[Term]\nid: GO:{i}\nname: {name}\nnamespace: {s}\n" for i, s in enumerate(spaces)
        ]
        (folder / f"{name}.obo").write_text("\n".join(stanzas))
        rows = [["db", name, g, "", f"GO:{i % 2}", *["-"] * 10] for i, g in enumerate(genes)]
        (folder / f"{name}.gaf").write_text("".join("\t".join(r) + "\n" for r in rows))


# ---------------------------------------------------------------- planted genes


class Mined:
    """The demo, mined."""

    def __init__(self, folder):
        path = write_study(folder)
        self.truth = json.loads((folder / "truth.json").read_text())
        self.hubs = set(self.truth["hubs"])
        self.settings = load_settings(path, ('cluster.kind="none"',))
        self.results = mine(self.settings)
        self.study = pipeline.open_study(self.settings.root)

    def open(self, name):
        return open_store(self.study.uris(name)[-1])

    def n_hubs(self, genes):
        return len(self.hubs & {str(g) for g in genes})


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    return Mined(tmp_path_factory.mktemp("demo"))


def finds_most_hubs(mined, landmarks):
    """Whether most of the panel in a landmarks store are planted hubs."""
    ds = open_store(landmarks)
    panel = ds["gene"].values[ds["is_landmark"].values]
    assert len(panel) == len(mined.hubs) // 3
    return mined.n_hubs(panel) >= 0.7 * len(panel)


@pytest.mark.slow
def test_mine__finds_most_planted_hubs(mined):
    assert finds_most_hubs(mined, mined.study.uri("landmarks"))
    assert list(mined.results) == list(ALWAYS)
    assert Path(mined.study.report).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mine__shuffled_scores_find_few(mined, tmp_path, seed):
    ds = mined.open("scores")
    order = np.random.default_rng(seed).permutation(ds.sizes["gene"])
    uri = str(tmp_path / "scores.zarr")
    labels = {str(name): ds[name].values for name in ds.coords}
    claim = claimed(uri, SCORES)
    create_store(claim, labels)
    shuffled = {n: np.take(ds[n].values, order, axis=-1) for n in ("score", "latent_score")}
    finish(claim, arrays=shuffled)
    stores = {name: mined.study.uri(name) for name in ("normalized", "samples")}
    chosen = mined.settings.select.model_dump() | {"selector": "top-score", "selectors": ()}
    select(uri, str(tmp_path / "landmarks.zarr"), **stores, options=SelectOptions(**chosen))
    assert not finds_most_hubs(mined, str(tmp_path / "landmarks.zarr"))


@pytest.mark.slow
def test_mine__variance_finds_few(mined):
    ds = mined.open("samples")
    varying = np.argsort(-ds["gene_std"].values)[: len(mined.hubs)]
    assert mined.n_hubs(ds["gene"].values[varying]) <= 0.1 * len(mined.hubs)


@pytest.mark.slow
def test_mine__mined_panel_is_better_than_random_ones(mined):
    error = mined.open("evaluation").attrs["details"]["mean_mae"]
    random = [e for name, e in error.items() if name.startswith("random-")]
    assert len(random) == mined.settings.select.n_random
    assert error["mined"] < np.mean(random) - 2 * np.std(random)
    assert error["mined"] < min(random)
    assert max(random) < error["mean"]


@pytest.mark.slow
def test_mine__selectors_differ_as_the_paired_tests_say(mined):
    """The demo shows what a verdict looks like: two selectors are worse, one is not told apart."""
    rows = panel_rows(mined.open("evaluation"), mined.open("landmarks"))
    words = {row.panel: row.word for row in rows if row.cohort == "test"}
    assert words["top-score"] == words["medoids"] == words["mean"] == words[CHANCE] == "worse"
    assert words["deeplift-greedy"] == "no detectable difference"


@pytest.mark.slow
def test_mine__finds_the_planted_duplicates(mined):
    ds = mined.open("samples")
    keep = dict(zip(ds["sample"].values.tolist(), ds["keep"].values.tolist(), strict=True))
    found = [not (keep[a] and keep[b]) for a, b in mined.truth["duplicates"]]
    assert np.mean(found) >= 0.9
    assert (~ds["keep"].values).sum() <= len(mined.truth["duplicates"])


@pytest.mark.slow
def test_mine__scales_are_told_apart(mined):
    details = mined.open("expression").attrs["details"]
    assert [s["source"] for s in details["per_source"] if s["scale"] == "raw"] == ["GSE900002"]


@pytest.mark.slow
def test_mine__cohort_is_judged_too(mined):
    ds = mined.open("evaluation")
    cohort = next(str(c) for c in ds["cohort"].values if str(c).startswith("GTEx"))
    errors = ds["mae"].sel(cohort=cohort, predictor="ridge").mean("gene")
    assert float(errors.sel(panel="mined")) < float(errors.sel(panel="mean"))


# ---------------------------------------------------------------- order and names


def states(settings):
    """How each step stands, in order."""
    return [one.state for one in Plan.of(settings).standings().values()]


def test_plan__steps_in_order_write_what_the_next_ones_read(tmp_path):
    written = set()
    for step, name in zip(Plan.of(tiny(tmp_path)), ALWAYS, strict=True):
        assert step.name == name
        for key in ("source", "normalized", "samples", "landmarks", "model", "latent"):
            if step.arguments.get(key) and name != "join":
                assert step.arguments[key] in written, (name, key)
        written.add(step.writes)


def test_plan__writes_nothing(tmp_path):
    settings = tiny(tmp_path)
    before = times(tmp_path)
    assert {one.state for one in Plan.of(settings).standings().values()} == {"to do"}
    assert times(tmp_path) == before


def test_source_files__patterns_and_sheets(tmp_path):
    settings = tiny(tmp_path, sources=[{"uri": "GSE*", "sample_sheet": "{stem}.tsv"}])
    first, *_ = files = pipeline.source_files(settings, pipeline.planned_study(settings.root))
    assert [Path(f.path).name for f in files] == sorted(p.name for p in tmp_path.glob("GSE*"))
    assert first.options.sample_sheet == str(tmp_path / f"{Path(first.raw).stem}.tsv")


def test_plan__optional_stages_only_where_settings_ask(tmp_path):
    settings = tiny(tmp_path, group=GROUP, enrich={"gene_sets": "sets.gmt"})
    (tmp_path / "sets.gmt").write_text("T\tx\tA\n")
    assert [step.name for step in Plan.of(settings)] == list(STEPS)


@pytest.mark.parametrize("stage", OPTIONAL)
def test_mine__an_optional_stage_asks_for_its_settings(tmp_path, stage):
    with pytest.raises(ConfigError, match=rf"{stage}: .* Add a section \[{stage}\]"):
        mine(tiny(tmp_path), only=[stage])


def test_mine__every_step_is_executed(tmp_path):
    called = []
    settings = tiny(tmp_path)
    mine(settings, execute=lambda step, run: called.append(step.name) or step(run), only=STEPS[:4])
    assert called == list(STEPS[:4])
    assert states(settings) == ["done"] * 4 + ["to do"] * 8


def test_mine__refuses_bad_settings_before_it_makes_a_root(tmp_path):
    with pytest.raises(ConfigError, match=r"sources\.1\.uri: no such file"):
        mine(tiny(tmp_path, sources=[{"uri": "GSE*"}, {"uri": "absent.gct"}]))
    assert not (tmp_path / "study").exists()


def test_mine__a_stage_that_fails_stops_the_rest(tmp_path):
    settings = tiny(tmp_path)

    def execute(step, run):
        if step.name == "dedup":
            raise DglzarrError("stopped")
        return step(run)

    with pytest.raises(DglzarrError, match="stopped"):
        mine(settings, execute=execute)
    assert states(settings) == ["done"] * 3 + ["to do"] * 9


# ---------------------------------------------------------------- every setting counts


def fields(model, prefix=""):
    """The dotted name of every setting."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if name == "sources":
            yield from fields(config.SourceSettings, "sources.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


RECORDED = {  # setting -> (value, the step that refuses to go on, what it says)
    "seed": (5, "ingest", "seed: 0 -> 5"),
    "sources.uri": ("GSE*[12]_*", "ingest", "other inputs"),
    "sources.role": ("cohort", "ingest", "@: 'train' -> 'cohort'"),
    "sources.unit": ("log2", "ingest", "@: none -> 'log2'"),
    "sources.sample_sheet": ("sheet.tsv", "ingest", "other inputs"),
    "sources.join_column": ("Sample", "ingest", "@: none -> 'Sample'"),
    "sources.annotation": ("annotation.txt", "ingest", "other inputs"),
    "sources.value_columns": (["*"], "ingest", "@: none -> ['*']"),
    "sources.samples_in": ("columns", "ingest", "@: none -> 'columns'"),
    "sources.only_series": (["GSE1"], "ingest", "@: none -> ['GSE1']"),
    "sources.only_matching": ("liver", "ingest", "@: none -> 'liver'"),
    "sources.only_samples": ("probes.txt", "ingest", "other inputs"),
    "sources.max_single_cell": (0.5, "ingest", "@: none -> 0.5"),
    "sources.layer": ("counts", "ingest", "@: none -> 'counts'"),
    "sources.pseudocount": (0.5, "ingest", "@: none -> 0.5"),
    "ingest.feature_kind": ("gene", "ingest", "@: 'probe' -> 'gene'"),
    "ingest.probes": ("probes.txt", "ingest", "@: none -> probes.txt"),
    "ingest.annotation": ("annotation.txt", "ingest", "other inputs"),
    "ingest.split_by": ("series", "ingest", "@: 'sample' -> 'series'"),
    "ingest.test_fraction": (0.3, "ingest", "@: 0.2 -> 0.3"),
    "ingest.validation_fraction": (0.3, "ingest", "@: 0.1 -> 0.3"),
    "ingest.min_coverage": (0.5, "ingest", "@: 0.9 -> 0.5"),
    "ingest.counts": ("log-cpm", "ingest", "@: none -> 'log-cpm'"),
    "ingest.center_by": ("series", "ingest", "@: none -> 'series'"),
    "ingest.detection": ("tissue", "ingest", "@: none -> 'tissue'"),
    "ingest.shard_samples": (32, "ingest", "@: 16 -> 32"),
    "normalize.method": ("none", "normalize", "@: 'quantile' -> 'none'"),
    "normalize.ties": ("dgex", "normalize", "@: 'midrank' -> 'dgex'"),
    "normalize.reference": ("target.txt", "normalize", "other inputs"),
    "normalize.fit_on": ("all", "normalize", "@: 'train' -> 'all'"),
    "dedup.n_clusters": (5, "dedup", "@: 4 -> 5"),
    "dedup.threshold": (2.0, "dedup", "@: 1.0 -> 2.0"),
    "dedup.rule": ("dgex", "dedup", "@: 'greedy' -> 'dgex'"),
    "dedup.epochs": (4, "dedup", "@: 3 -> 4"),
    "train.hidden": (9, "train", "@: 8 -> 9"),
    "train.n_latent": (4, "train", "@: 3 -> 4"),
    "train.activation": ("softplus", "train", "@: 'relu' -> 'softplus'"),
    "train.output": ("tanh", "train", "@: 'linear' -> 'tanh'"),
    "train.dropout_position": ("input", "train", "@: 'hidden' -> 'input'"),
    "train.window": (4, "train", "@: 10 -> 4"),
    "train.windows_in_memory": (2, "train", "@: 256 -> 2"),
    "train.dropout": (0.2, "train", "@: 0.0 -> 0.2"),
    "train.l2": (0.5, "train", "@: 1e-06 -> 0.5"),
    "train.epochs": (3, "train", "@: 2 -> 3"),
    "train.batch_size": (8, "train", "@: 16 -> 8"),
    "train.learning_rate": (0.1, "train", "@: 0.0001 -> 0.1"),
    "train.patience": (1, "train", "@: none -> 1"),
    "train.latent_activation": ("hidden", "train", "@: 'linear' -> 'hidden'"),
    "train.start": ("components", "train", "@: 'random' -> 'components'"),
    "train.held_back": (0.2, "train", "@: 0.1 -> 0.2"),
    "score.deeplift_reference": ("zeros", "score", "@: 'samples' -> 'zeros'"),
    "score.n_references": (3, "score", "@: 2 -> 3"),
    "score.aggregation": ("max", "score", "@: 'mean-abs' -> 'max'"),
    "score.engine": ("shap", "score", "@: 'closed-form' -> 'shap'"),
    "score.group_by": ("series", "score", "@: none -> 'series'"),
    "score.layer": ("pre-activation", "score", "@: 'latent' -> 'pre-activation'"),
    "select.selector": ("variance", "select", "@: 'greedy' -> 'variance'"),
    "select.selectors": (("random",), "select", "selectors"),
    "select.forced": ("list.txt", "select", "@: none -> "),
    "select.excluded": ("list.txt", "select", "@: none -> "),
    "select.exclude_controls": (True, "select", "@: none -> True"),
    "select.exclude_unnamed": (True, "select", "@: none -> True"),
    "select.penalty": (2.0, "select", "@: 'chosen' -> 2.0"),
    "select.min_detected": (0.5, "select", "@: none -> 0.5"),
    "select.n_landmarks": (4, "select", "@: 5 -> 4"),
    "select.n_random": (1, "select", "@: 2 -> 1"),
    "evaluate.panels": ({"l": "list.txt"}, "select", "panels"),
    "evaluate.predictors": (("ridge", "knn"), "evaluate", "predictors"),
    "evaluate.alphas": ((2.0,), "evaluate", "alphas"),
    "evaluate.neighbors": ((3,), "evaluate", "neighbors"),
    "evaluate.dgex.hidden": (9, "evaluate", "'hidden': 9"),
    "evaluate.dgex.n_layers": (2, "evaluate", "'n_layers': 2"),
    "evaluate.dgex.dropout": (0.2, "evaluate", "'dropout': 0.2"),
    "evaluate.dgex.optimizer": ("momentum", "evaluate", "'optimizer': 'momentum'"),
    "evaluate.dgex.learning_rate": (0.1, "evaluate", "'learning_rate': 0.1"),
    "evaluate.dgex.epochs": (3, "evaluate", "'epochs': 3"),
    "evaluate.dgex.batch_size": (8, "evaluate", "'batch_size': 8"),
    "evaluate.dgex.patience": (1, "evaluate", "'patience': 1"),
    "evaluate.target_rule": ("feature", "evaluate", "@: 'gene' -> 'feature'"),
    "evaluate.cohort_scale": ("cohort", "evaluate", "@: 'train' -> 'cohort'"),
    "group.label": ("series", "group", "@: 'tissue' -> 'series'"),
    "group.series": (["GSE900002"], "group", "@: none -> ['GSE900002']"),
    "group.linkage": ("average", "group", "@: 'ward' -> 'average'"),
    "enrich.namespace": ("biological_process", "enrich", "'molecular_function' -> 'biological"),
    "enrich.min_size": (2, "enrich", "@: 1 -> 2"),
    "enrich.max_size": (20, "enrich", "@: 500 -> 20"),
    "enrich.ontology": ("other.obo", "enrich", "other inputs"),
    "enrich.associations": ("other.gaf", "enrich", "other inputs"),
}
ELSEWHERE = {
    "verify_on_read",
    "ingest.divide_persons",
    "train.cache",
    "train.device",
    "score.device",
    "root",
    "title",
    "enrich.gene_sets",
}
NOT_OF_MINE = {
    "sources.geo", "sources.platform", "sources.gtex", "sources.gtex_values", "sources.tissue",
    "sources.platform_table", "sources.by_ranges",
    *(f"fetch.{name}" for name in FetchOptions.model_fields),
    *(f"discover.{name}" for name in DiscoverOptions.model_fields),
    "compare.selectors", "compare.sizes", "compare.predictors", "compare.n_folds",
    "stability.n_seeds", "stability.n_halves",
}  # fmt: skip
"""Asked by other verbs, whose tests change them; tests/access has those of fetching."""
CLUSTER = {
    "kind": "local", "n_workers": 3, "max_workers": 9, "threads_per_worker": 2,
    "memory_limit": "1GiB", "address": "tls://127.0.0.1:1", "tls_ca": "ca.pem",
    "tls_cert": "cert.pem", "tls_key": "key.pem", "queue": "long", "account": "lab",
    "walltime": "10:00:00", "image": "dglzarr:1", "namespace": "lab", "volumes": {"data": "/data"},
    "cluster_class": "distributed.LocalCluster", "arguments": {"interface": "lo"}, "wait_limit": 7,
}  # fmt: skip
CLUSTER_KINDS = {
    "address": ("address", "tls_ca", "tls_cert", "tls_key"),
    "slurm": ("queue", "account", "walltime", "arguments"),
    "kubernetes": ("image", "namespace", "volumes"),
    "class": ("cluster_class",),
}


def cluster_with(name, folder):
    """A section with one choice, and what it takes to be valid."""
    kind = next((kind for kind, names in CLUSTER_KINDS.items() if name in names), "local")
    asked = {"address": CLUSTER_KINDS["address"], "kubernetes": ("image", "volumes")}.get(kind, ())
    section = {"kind": kind, **{key: CLUSTER[key] for key in (*asked, name)}}
    return {
        key: str(folder / value) if key.startswith("tls_") else value
        for key, value in section.items()
    }


def written(root):
    """When each file of the stores and of the model was changed."""
    return {n: t for n, t in times(root).items() if ".zarr/" in n or n.startswith("models/")}


def changed(folder, name, value):
    """The settings of the tiny study, but for one value."""
    section, _, key = name.rpartition(".")
    if name == "sources.role":
        first, *others = sorted(str(f) for f in folder.glob("GSE*"))
        return tiny(folder, sources=[{"uri": first, key: value}, *({"uri": f} for f in others)])
    if section == "sources":
        beside = {"unit": "log2"} if key == "pseudocount" else {}
        return tiny(folder, sources=[{"uri": "GSE*", key: value, **beside}])
    if section == "evaluate.dgex":
        return tiny(folder, evaluate={"dgex": {key: value}})
    if section in (optional := {"group": GROUP, "enrich": ENRICH}):
        return tiny(folder, **{section: {**optional[section], key: value}})
    return tiny(folder, **({section: {key: value}} if section else {key: value}))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    settings = tiny(folder)
    mine(settings)
    ds = open_store(pipeline.open_study(settings.root).uri("expression"))
    genes = [str(g) for g in ds["gene"].values]
    write_ontology(folder, genes)
    mine(tiny(folder, group=GROUP, enrich=ENRICH))
    (folder / "probes.txt").write_text("\n".join(genes))
    (folder / "target.txt").write_text("\n".join(str(4 + i / 20) for i in range(200)))
    (folder / "list.txt").write_text("\n".join(genes[:4]))
    (folder / "annotation.txt").write_text("ID\tGene symbol\n" + f"{genes[0]}\tABC\n")
    sheet = ["Sample\tother", *(f"{s}\tx" for s in ds["sample"].values)]
    (folder / "sheet.tsv").write_text("\n".join(sheet) + "\n")
    return folder


def test_settings__every_field_is_tested():
    tested = {*RECORDED, *ELSEWHERE, *NOT_OF_MINE, *(f"cluster.{name}" for name in CLUSTER)}
    assert set(fields(Settings)) == tested


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDED)
def test_settings__field_is_recorded(done, name):
    value, stage, message = RECORDED[name]
    settings = changed(done, name, value)
    before = written(done / "study")
    with pytest.raises(StoreError) as error:
        mine(settings, only=VERBS.get(stage, (stage,)))
    assert message.replace("@", name) in str(error.value)
    assert written(done / "study") == before


@pytest.mark.slow
def test_settings__root_and_title(done, tmp_path):
    settings = tiny(done, root=str(tmp_path / "other"), title="Something else")
    mine(settings, only=VERBS["ingest"])
    assert is_complete(str(tmp_path / "other/segments/0000/expression.zarr"))
    mine(tiny(done, title="Something else"), only=["report"])
    assert "Something else" in (done / "study/report.html").read_text()


@pytest.mark.slow
def test_settings__a_gpu_that_is_absent_is_told(tmp_path, monkeypatch):
    import keras

    monkeypatch.setattr(keras.distribution, "list_devices", lambda _: [])
    settings = tiny(tmp_path, train={"device": "gpu"})
    with pytest.raises(ConfigError, match=r"train\.device: expected a GPU, got none that .* sees"):
        mine(settings, only=STEPS[:5])
    assert not list(tmp_path.rglob("model.json"))


@pytest.mark.parametrize("cache", ["memory", "stream"])
def test_settings__cache_reaches_the_batches(tmp_path, monkeypatch, cache):
    import importlib

    stage = importlib.import_module("dglzarr.stages.train")
    seen = []

    def batches(*_, **options):
        seen.append(options["options"].cache)
        raise BrokenError

    monkeypatch.setattr(stage, "Batches", batches)
    settings = tiny(tmp_path, train={"cache": cache})
    with pytest.raises(BrokenError):
        mine(settings, only=STEPS[:5])
    assert seen == [cache]


@pytest.mark.parametrize("name", CLUSTER)
def test_settings__cluster_field_reaches_the_client(tmp_path, monkeypatch, name):
    seen = {}

    def client(options, **_):
        seen.update(options.model_dump())
        raise BrokenError

    monkeypatch.setattr(pipeline, "client", client)
    monkeypatch.setattr(early, "check_launch", lambda _: None)  # no batch system is needed
    section = cluster_with(name, tmp_path)
    for key in ("tls_ca", "tls_cert", "tls_key"):
        (tmp_path / CLUSTER[key]).touch()
    with pytest.raises(BrokenError):
        mine(tiny(tmp_path, cluster=section))
    assert seen[name] == section[name]


# ---------------------------------------------------------------- bits


def stores(folder):
    """Digests of all a study holds but what carries a time."""
    return {
        name: digest
        for name, digest in digests(folder).items()
        if name.endswith("weights.npz") or ".zarr/" in name
    }


@pytest.mark.slow
def test_mine__second_run_touches_no_store(done):
    before = written(done / "study")
    settings = tiny(done, group=GROUP, enrich=ENRICH)
    mine(settings, only=["report"])  # that another test gave another title
    assert set(states(settings)) == {"done"}
    results = mine(settings)
    del results["report"]
    assert {r.state for r in results.values()} == {"unchanged"}
    assert written(done / "study") == before


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 2])
def test_mine__workers_change_no_bit(done, tmp_path, n_workers):
    cluster = {"kind": "local", "n_workers": n_workers}
    mine(tiny(done, root=str(tmp_path / "other"), cluster=cluster, group=GROUP, enrich=ENRICH))
    assert stores(tmp_path / "other") == stores(done / "study")


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 2, 3])
def test_mine__broken_and_run_again_changes_no_bit(done, tmp_path, monkeypatch, after):
    from dglzarr.stages import explain, normalize

    settings = tiny(done, root=str(tmp_path / "other"), group=GROUP, enrich=ENRICH)
    for module, name in ((normalize, "_apply_region"), (explain, "_explain_region")):
        with monkeypatch.context() as broken:
            broken.setattr(module, name, Breaks(getattr(module, name), after))
            with pytest.raises(BrokenError):
                mine(settings)
    mine(settings)
    assert stores(tmp_path / "other") == stores(done / "study")
