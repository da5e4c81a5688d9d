"""Settings: the documented form loads, everything else is refused in one line before any work."""

import importlib.util
from pathlib import Path
from unittest import mock

import pydantic
import pytest

from dglzarr.errors import ConfigError
from dglzarr.settings import (
    Settings,
    SourceSettings,
    build_settings,
    describe_settings,
    load_settings,
)
from dglzarr.stages.dedup import DedupOptions
from dglzarr.stages.join import JoinOptions
from dglzarr.stages.select import SelectOptions
from dglzarr.stages.train import TrainOptions
from dglzarr.storage.options import Options
from dglzarr.studies.plan import Plan

REPO = Path(__file__).resolve().parents[1]

# The shortest useful form, as the design fixes it.
DESIGN = """
root = "study"                      # folder or bucket
seed = 0
[[sources]]
uri = "geo/GSE55235_series_matrix.txt.gz"
[[sources]]
uri = "tables/*_expr.tsv.gz"        # one source a file; series from the file name
sample_sheet = "tables/{stem}_samples.tsv"   # optional; join_column = "Sample"
[[sources]]
uri = "gtex/GTEx_v6_skin_n20_gene_reads.gct.gz"
role = "cohort"
[ingest]
probes = "annotation/probes_22268.txt"   # optional list; else the common probes
annotation = "annotation/GPL96.txt"      # optional probe -> gene table
split_by = "series"
[train]
epochs = 100
[select]
n_landmarks = 943
[evaluate]
panels = { l1000 = "l1000/map_lm.txt" }
[enrich]
gene_sets = "go/c5.mf.v6.2.symbols.gmt"  # optional GMT; or ontology and associations
[cluster]
kind = "local"
n_workers = 2
"""
MINIMAL = 'root = "study"\n[[sources]]\nuri = "a.txt"\n'


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("DGLZARR_ROOT", "DASK_SCHEDULER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def write(folder, text):
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(directory, text=MINIMAL, *overrides, **options):
    return load_settings(write(directory, text), overrides, **options)


# ---------------------------------------------------------------- what loads


def test_load_settings__design_form(tmp_path):
    settings = load(tmp_path, DESIGN)
    assert settings.root == str(tmp_path / "study")
    assert [s.role for s in settings.sources] == ["train", "train", "cohort"]
    assert settings.sources[1].sample_sheet == str(tmp_path / "tables/{stem}_samples.tsv")
    assert settings.ingest.split_by == "series"
    assert settings.train.epochs == 100
    assert settings.select.n_landmarks == 943
    assert settings.evaluate.panels == {"l1000": str(tmp_path / "l1000/map_lm.txt")}
    assert (settings.cluster.kind, settings.cluster.n_workers) == ("local", 2)


def test_load_settings__root_and_sources_are_enough(tmp_path):
    settings = load(tmp_path)
    assert settings.sources == (SourceSettings(uri=str(tmp_path / "a.txt")),)
    assert settings.train == TrainOptions()


@pytest.mark.parametrize("path", sorted((REPO / "deploy" / "settings").glob("*.toml")), ids=str)
def test_load_settings__every_file_of_deploy(path, tmp_path):
    assert load_settings(path, folder=tmp_path).root == str(tmp_path / path.stem)


def test_load_settings__every_key_can_be_given(tmp_path):
    settings = load(tmp_path, DESIGN)
    content = settings.model_dump()
    assert build_settings(content, name="again", folder=tmp_path) == settings


def test_settings__defaults_of_the_paper():
    train = TrainOptions()
    assert (train.hidden, train.n_latent, train.l2, train.epochs) == (500, 100, 1e-6, 100)
    assert SelectOptions().n_landmarks == 943
    assert SelectOptions().n_random == 20
    dedup_settings = DedupOptions()
    assert (dedup_settings.n_clusters, dedup_settings.threshold) == (100, 1.0)
    assert Settings.model_fields["score"].default.layer == "latent"
    assert JoinOptions().split_by == "series"


def test_settings__frozen_at_every_level(tmp_path):
    settings = load(tmp_path)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.seed = 1
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.train.epochs = 1


# ---------------------------------------------------------------- declarations


def sections():
    """The sections of the file, by name."""
    return {
        n: type(f.default)
        for n, f in Settings.model_fields.items()
        if isinstance(f.default, Options)
    }


@pytest.mark.parametrize("section", sections())
def test_settings__every_choice_is_declared_with_a_meaning(section):
    for name, field in sections()[section].model_fields.items():
        assert field.description, f"{section}.{name}"
        assert not field.is_required()


def test_describe_settings__every_key_once_in_words():
    found = {one.key: one for one in describe_settings()}
    assert found["train.epochs"] == ("train.epochs", "integer > 0", "100", mock.ANY, mock.ANY)
    assert found["normalize.ties"].values == "midrank, tie-mean, dgex"
    assert found["ingest.test_fraction"].values == "number > 0, < 1"
    assert found["select.selectors"].default == '["top-score", "deeplift-greedy", "medoids"]'
    assert found["root"].default == "required"
    assert {"sources.uri", "evaluate.dgex.hidden", "cluster.kind", "stability.n_seeds"} < set(found)
    assert [one.key for one in describe_settings("dedup")] == [
        f"dedup.{name}" for name in DedupOptions.model_fields
    ]


def test_describe_settings__docs_are_current():
    path = REPO / "docs" / "make_settings.py"
    script = importlib.util.spec_from_file_location("make_settings", path)
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.settings_markdown()


def test_plan__no_setting_is_dropped(tmp_path):
    (tmp_path / "a.txt").touch()
    text = "[ingest]\nshard_samples = 48\n[train]\nepochs = 3\nwindows_in_memory = 9\n"
    settings = load(tmp_path, MINIMAL + text)
    plan = Plan.of(settings)
    for step, section in {
        "join": "ingest", "normalize": "normalize", "dedup": "dedup", "train": "train",
        "select": "select", "evaluate": "evaluate",
    }.items():  # fmt: skip
        assert plan[step].arguments["options"] == getattr(settings, section), step
    for step in ("explain", "score"):
        given = plan[step].arguments["options"].model_dump()
        assert given.items() <= settings.score.model_dump().items()
    assert plan["select"].arguments["panels"] == settings.evaluate.panels
    assert all(plan[s].arguments["seed"] == 0 for s in ("join", "dedup", "train", "select"))


@pytest.mark.parametrize(("batch_size", "windows"), [(64, 256), (128, 256), (300, 600)])
def test_train_options__windows_follow_the_batch_size(batch_size, windows):
    assert TrainOptions(batch_size=batch_size).recorded()["windows_in_memory"] == windows


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "section",
    ["ingest", "normalize", "dedup", "train", "score", "select", "evaluate", "group", "enrich"],
)
def test_load_settings__unknown_key_of_a_section(section, tmp_path):
    text = MINIMAL + f"[{section}]\nn_layer = 3\n"
    said = rf"study\.toml: {section}\.n_layer: unknown key, correct or remove it"
    message = rf"^.*{said}( \(did you mean .*\?\))?\.$"
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 1\n" + MINIMAL, r"study\.toml: sed: unknown key"),
        (MINIMAL + 'rolle = "train"\n', r"study\.toml: sources\.0\.rolle: unknown key"),
        (MINIMAL + "[dedupe]\nrule = 1\n", r"study\.toml: dedupe: unknown key"),
        ('[[sources]]\nuri = "a"\n', r"study\.toml: root: required, but missing"),
        ('root = "study"\n', r"study\.toml: sources: required, but missing"),
        (
            'root = "study"\n[[sources]]\n',
            r"sources\.0: expected one of uri, geo and gtex, got none",
        ),
    ],
    ids=["top", "source", "section", "no root", "no sources", "no uri"],
)
def test_load_settings__unknown_or_missing(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepochs = 'ten'", r"train\.epochs: .*valid integer.*, got 'ten'"),
        ("[train]\nepochs = '10'", r"train\.epochs: .*valid integer.*, got '10'"),
        ("[train]\nepochs = true", r"train\.epochs: .*valid integer.*, got True"),
        ("[train]\nepochs = 2.5", r"train\.epochs: .*valid integer.*, got 2\.5"),
        ("[train]\nepochs = 0", r"train\.epochs: .*greater than 0, got 0"),
        ("[train]\ndropout = 1.0", r"train\.dropout: .*less than 1, got 1\.0"),
        ("[train]\ndropout = -0.1", r"train\.dropout: .*got -0\.1"),
        ("[train]\nlearning_rate = inf", r"train\.learning_rate: .*finite number, got inf"),
        ("[train]\nactivation = 'step'", r"train\.activation: .*'sigmoid'.*got 'step'"),
        ("train = 3", r"train: .*got 3"),
        ("[ingest]\nsplit_by = ''", r"ingest\.split_by: .*got ''"),
        ("[ingest]\ntest_fraction = 0", r"ingest\.test_fraction: .*got 0"),
        ("[ingest]\nshard_samples = 0", r"ingest\.shard_samples: .*got 0"),
        ("[ingest]\nprobes = 5", r"ingest\.probes: .*valid string, got 5"),
        ("[normalize]\nties = 'first'", r"normalize\.ties: .*'midrank'.*got 'first'"),
        ("[dedup]\nthreshold = nan", r"dedup\.threshold: .*got nan"),
        ("[score]\nlayer = 'input'", r"score\.layer: .*got 'input'"),
        ("[select]\nn_landmarks = -1", r"select\.n_landmarks: .*got -1"),
        ("[evaluate]\nalphas = []", r"evaluate\.alphas: .*at least 1 item"),
        ("[evaluate]\nalphas = [1.0, 0.0]", r"evaluate\.alphas\.1: .*greater than 0, got 0\.0"),
        ("[evaluate]\npanels = ['a.txt']", r"evaluate\.panels: .*got \['a\.txt'\]"),
        ("[cluster]\nkind = 'slum'", r"cluster\.kind: .*got 'slum'"),
        ("[cluster]\nmemory_limit = 'much'", r"cluster\.memory_limit: .*got 'much'"),
        ("[cluster]\nn_workers = 0", r"cluster\.n_workers: .*got 0"),
    ],
)
def test_load_settings__wrong_type_or_value(text, message, tmp_path):
    if not text.startswith("["):
        text, after = text + "\n" + MINIMAL, ""
    else:
        text, after = MINIMAL, text
    with pytest.raises(ConfigError, match=rf"^.*study\.toml: {message}") as caught:
        load(tmp_path, text + after)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "role = 'cohort'\n", "sources: expected at least one of role 'train', got none"),
        ('root = "study"\nsources = []\n', "sources: .*at least 1 item"),
        (
            MINIMAL + "[ingest]\ntest_fraction = 0.6\nvalidation_fraction = 0.4\n",
            "ingest.test_fraction: with validation_fraction must be below 1",
        ),
        (MINIMAL + "[cluster]\nkind = 'address'\n", "cluster.kind: 'address' needs address or"),
        ('root = ""\n[[sources]]\nuri = "a"\n', "root: .*at least 1 character"),
        (
            'root = "https://bucket/study"\n[[sources]]\nuri = "a"\n',
            "root: expected a local folder or s3://BUCKET/FOLDER, .*got 'https://bucket/study'",
        ),
        (MINIMAL + "[train]\nn_latent = 400\n", r'hidden: .* set start = "random"\.$'),
        (MINIMAL + "[enrich]\nontology = 'go.obo'\n", "enrich.ontology: goes with associations"),
        (
            MINIMAL + "[enrich]\nontology = 'a'\nassociations = 'b'\ngene_sets = 'c'\n",
            "enrich.gene_sets: expected it or ontology, got both",
        ),
        (
            MINIMAL + "[enrich]\nmin_size = 5\nmax_size = 4\n",
            "enrich.min_size: expected at most max_size",
        ),
    ],
    ids=[
        "only cohorts",
        "no source",
        "split",
        "address",
        "empty root",
        "bucket",
        "narrow network",
        "no gaf",
        "two kinds of sets",
        "sizes",
    ],
)
def test_load_settings__impossible_combination(text, message, tmp_path):
    with pytest.raises(ConfigError, match=rf"study\.toml: {message}"):
        load(tmp_path, text)


def test_load_settings__address_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:1")
    assert load(tmp_path, MINIMAL + "[cluster]\nkind = 'address'\n").cluster.address is None


def test_load_settings__names_five_problems_and_counts_the_rest(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL + "[train]\n" + "".join(f"key{i} = 1\n" for i in range(7)))
    message = str(caught.value)
    assert message.count("unknown key") == 5
    assert message.endswith("; and 2 more.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"root = \n", r"study\.toml: expected TOML, got .*line 1"),
        (b"root = '\xff'\n", r"study\.toml: expected text in UTF-8, .*Save it as UTF-8"),
        (b"", r"study\.toml: root: required, but missing; sources: required"),
    ],
    ids=["syntax", "bytes", "empty"],
)
def test_load_settings__not_toml(content, message, tmp_path):
    (tmp_path / "study.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(tmp_path / "study.toml")


def test_load_settings__no_such_file(tmp_path):
    with pytest.raises(ConfigError, match=r"nosuch\.toml: cannot be read: No such file"):
        load_settings(tmp_path / "nosuch.toml")


def test_load_settings__a_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"a file of settings \(\.toml\), got a folder"):
        load_settings(tmp_path)


# ---------------------------------------------------------------- paths


def all_paths(settings):
    return [
        settings.root,
        settings.sources[1].uri,
        settings.sources[1].sample_sheet,
        settings.ingest.probes,
        settings.ingest.annotation,
        settings.evaluate.panels["l1000"],
        settings.enrich.gene_sets,
    ]


def test_load_settings__paths_are_taken_from_the_folder_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", DESIGN)
    monkeypatch.chdir(tmp_path)
    settings = load_settings("deep/study.toml")
    assert all(str(p).startswith(f"{tmp_path}/deep/") for p in all_paths(settings))


def test_load_settings__paths_are_taken_from_a_given_folder(tmp_path):
    settings = load(tmp_path, DESIGN, folder=tmp_path / "elsewhere")
    assert all(str(p).startswith(f"{tmp_path}/elsewhere/") for p in all_paths(settings))


def test_load_settings__absolute_and_home_paths_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    text = 'root = "/data/study"\n[[sources]]\nuri = "~/a.txt"\n'
    settings = load(tmp_path, text)
    assert settings.root == "/data/study"
    assert settings.sources[0].uri == "/home/somebody/a.txt"


def test_load_settings__root_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DGLZARR_ROOT", str(tmp_path / "other"))
    assert load(tmp_path).root == str(tmp_path / "other")
    assert load(tmp_path, MINIMAL, "root=third").root == str(tmp_path / "third")


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.epochs=3", "train", "epochs", 3),
        ("train.dropout=0.25", "train", "dropout", 0.25),
        ("train.patience=5", "train", "patience", 5),
        ("normalize.ties=dgex", "normalize", "ties", "dgex"),
        ('normalize.ties="dgex"', "normalize", "ties", "dgex"),
        (" normalize.ties =dgex", "normalize", "ties", "dgex"),
        ("evaluate.alphas=[1.0, 2]", "evaluate", "alphas", (1.0, 2.0)),
        ("cluster.memory_limit=500MB", "cluster", "memory_limit", "500MB"),
        ("group.label=00:30:00", "group", "label", "00:30:00"),
        ("group.label=2026-11-29", "group", "label", "2026-11-29"),
        ("group.label=tcp://a:1?b=c", "group", "label", "tcp://a:1?b=c"),
    ],
)
def test_load_settings__override(override, section, key, value, tmp_path):
    assert getattr(getattr(load(tmp_path, MINIMAL, override), section), key) == value


def test_load_settings__overrides_of_top_level_and_tables(tmp_path):
    settings = load(
        tmp_path,
        DESIGN,
        "seed=7",
        "title=My own study",
        "root=other",
        "evaluate.panels.mine=a.txt",
        'sources=[{uri = "b.txt"}]',
    )
    assert (settings.seed, settings.title) == (7, "My own study")
    assert settings.root == str(tmp_path / "other")
    assert set(settings.evaluate.panels) == {"l1000", "mine"}
    assert [s.uri for s in settings.sources] == [str(tmp_path / "b.txt")]


def test_load_settings__the_last_override_counts(tmp_path):
    assert load(tmp_path, MINIMAL, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", r"--set 'train\.epochs': expected section\.key=value"),
        ("nosuch.key=1", r"study\.toml: nosuch: unknown key"),
        ("train.nosuch=1", r"study\.toml: train\.nosuch: unknown key"),
        ("seed.key=1", r"--set 'seed\.key=1': 'seed' is not a section"),
        ("train.epochs.more=1", r"study\.toml: train\.epochs"),
        ("train.epochs=many", r"study\.toml: train\.epochs: .*got 'many'"),
        ("=1", r"expected section\.key=value"),
        (".epochs=1", r"expected section\.key=value"),
    ],
)
def test_load_settings__wrong_override(override, message, tmp_path):
    text = "seed = 0\n" + MINIMAL
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, override)


@pytest.mark.parametrize(
    "path", ["~nobody-of-this-name/x", "a\\nb", "a\\u0000", "x" * 300], ids=str.__len__
)
@pytest.mark.parametrize("setting", ["root", "uri"])
def test_load_settings__what_can_be_no_path(tmp_path, setting, path):
    old = 'root = "study"' if setting == "root" else 'uri = "a.txt"'
    with pytest.raises(ConfigError, match="expected a path") as caught:
        load(tmp_path, MINIMAL.replace(old, f'{setting} = "{path}"'))
    assert len(str(caught.value).splitlines()) == 1


def test_load_settings__a_key_of_two_lines_is_told_in_one(tmp_path):
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load(tmp_path, '"a\\nb" = 1\n' + MINIMAL)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("uri", ["/", "a**b*"])
def test_plan__what_can_be_no_pattern(tmp_path, uri):
    settings = load(tmp_path, MINIMAL.replace("a.txt", uri))
    with pytest.raises(ConfigError, match=r"^sources"):
        Plan.of(settings)
