"""A study of each release is read as that release reads it; data/make_study_fixture.py made it."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dglzarr
from dglzarr.query import describe_study, table, verify_study
from dglzarr.report.text import headline
from dglzarr.stages.encode import encode
from dglzarr.stages.enrich import EnrichOptions, enrich
from dglzarr.stages.evaluate import EvaluateOptions, evaluate
from dglzarr.stages.explain import ExplainOptions, explain
from dglzarr.stages.group import GroupOptions, group
from dglzarr.stages.ingest import SourceFile, ingest, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.stages.reconstruct import reconstruct
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.stages.select import SelectOptions, select
from dglzarr.storage.study import open_study
from tests.builders import KONG2021

VERSIONS = ("0.1.0", "0.2.0")
DATA = Path(__file__).parent / "data"
EVERY = {v: json.loads((DATA / f"study-{v}.json").read_text(encoding="utf-8")) for v in VERSIONS}
EXPECTED = EVERY["0.1.0"]
FORMER_ALPHAS = (1.0, 10.0, 100.0, 1000.0, 10000.0)
MATRICES = {"expression": "expression", "normalized": "expression", "contributions": "contribution"}


def unpacked(version, tmp_path_factory):
    """Settings, sources and the study, in a folder other than that it was made in."""
    place = tmp_path_factory.mktemp("older")
    with tarfile.open(DATA / f"study-{version}.tar.xz") as archive:
        archive.extractall(place, filter="data")
    return place / "study"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return unpacked("0.1.0", tmp_path_factory)


@pytest.fixture(scope="module")
def study(folder):
    return str(folder / "mined")


@pytest.fixture(scope="module", params=VERSIONS)
def release(request, tmp_path_factory):
    """The study of one release, and what it read from it."""
    folder = unpacked(request.param, tmp_path_factory)
    return str(folder / "mined"), EVERY[request.param]


@pytest.mark.parametrize("version", VERSIONS)
def test_older_study__is_small(version):
    assert (DATA / f"study-{version}.tar.xz").stat().st_size < 50_000


def test_older_study__every_store_is_described_and_complete(release):
    study, expected = release
    found = describe_study(study)
    assert [line["problem"] for line in found] == [""] * len(found)
    assert all(line["complete"] for line in found)
    names = [line["schema"].partition(" version ")[0] for line in found]
    segmented = ("expression", "normalized", "samples", "latent", "contributions")
    n_segments = len(expected["study"]["segments"])
    assert names.count("raw") == 6
    for name in expected["sizes"]:
        assert names.count(name) == (n_segments if name in segmented else 1)


def test_older_study__every_store_and_model_is_sound(release):
    study, expected = release
    found = verify_study(study)
    assert {line["schema"] for line in found} == {"raw", "model", *expected["sizes"]}
    assert [line["problems"] for line in found] == [[]] * len(found)


@pytest.mark.parametrize("name", EXPECTED["sizes"])
def test_older_study__sizes(release, name):
    study, expected = release
    sizes = dglzarr.open(f"{study}#{name}").sizes
    assert {dim: sizes[dim] for dim in expected["sizes"][name]} == expected["sizes"][name]


@pytest.mark.parametrize("name", EXPECTED["tables"])
def test_older_study__tables(release, name):
    study, expected = release
    content = expected["tables"][name]
    known = pd.DataFrame(content["data"], content["index"], content["columns"])
    samples = content["index"] if name == "samples" else ()
    genes = content["index"] if name == "scores" else ()  # a later version lists the best first
    found = table(f"{study}#{name}", genes=genes, samples=samples, top=3)
    found = found.loc[known.index, known.columns]
    pd.testing.assert_frame_equal(
        found, known, check_dtype=False, check_names=False, check_index_type=False,
        check_column_type=False, rtol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_older_study__missing_values(release, name):
    study, expected = release
    values = dglzarr.open(f"{study}#{name}")[MATRICES[name]].values
    assert np.isnan(values).sum() == expected["missing"][name]


def test_older_study__latent_units(release):
    study, expected = release
    ds = dglzarr.open(f"{study}#latent")
    assert ds["sample"].values.tolist() == list(expected["latent"])
    np.testing.assert_allclose(ds["latent"].values, list(expected["latent"].values()), rtol=1e-6)


def test_older_study__ranks_and_panels(release):
    study, expected = release
    ds = dglzarr.open(f"{study}#landmarks").sortby("rank")
    assert ds["gene"].values.tolist() == expected["study"]["ranked"]
    panels = zip(ds["panel"].values, ds["panel_gene"].values, strict=True)
    found = {name: [gene for gene in genes.tolist() if gene] for name, genes in panels}
    assert found == expected["panels"]


def test_older_study__errors_of_panels(release):
    study, expected = release
    ds = dglzarr.open(f"{study}#evaluation").sel(predictor="ridge")
    for panel, errors in expected["errors"].items():
        for cohort, error in errors.items():
            found = float(ds["mean_mae"].sel(panel=panel, cohort=cohort))
            assert found == pytest.approx(error, rel=1e-9)


def test_older_study__kinds_of_panels(study):
    expected = {
        "landmarks": ["mined", "selector", "published", "random"],
        "enrichment": ["mined", "selector", "published", "random"],
        "evaluation": ["baseline", "mined", "selector", "published", "random"],
        "groups": ["", "", "", "mined", "selector", "published", "random"],
    }
    for name, kinds in expected.items():
        assert dglzarr.open(f"{study}#{name}")["kind"].values.tolist() == kinds
    ds = dglzarr.open(f"{study}#comparison")
    of = {"mean": "baseline", "random": "random", "published": "published"}
    for family, kind in (("family", "kind"), ("row_family", "row_kind")):
        kinds = [of.get(str(name), "selector") for name in ds[family].values]
        kinds = [
            "subset" if " of " in n else k for n, k in zip(ds[family].values, kinds, strict=True)
        ]
        assert ds[kind].values.tolist() == kinds


@pytest.mark.parametrize("number", [0, 1])
def test_older_study__segments_count_as_explained(study, number):
    made = open_study(study)
    names = ("normalized", "samples", "latent", "contributions")
    source, samples, latent, contributions = (made.uris(name)[number] for name in names)
    given = {"samples": samples, "model": made.model(6)}
    assert encode.claim(source, latent, **given).state == "unchanged"
    frozen = made.uris("contributions")[0] if number else None
    asked = {**given, "seed": 6, "frozen": frozen}
    assert explain.claim(source, contributions, **asked).state == "unchanged"
    options = ExplainOptions(layer="pre-activation")
    assert explain.claim(source, contributions, **asked, options=options).state == "refused"


def test_older_study__scores_count_as_made(study):
    made = open_study(study)
    source, samples, latent = (made.uris(name)[0] for name in ("normalized", "samples", "latent"))
    given = {"samples": samples, "latent": latent, "model": made.model(6)}
    claim = reconstruct.claim(source, made.uri("reconstruction"), **given)
    assert claim.state == "unchanged"
    given = {"normalized": source, "samples": samples, "options": ScoreOptions(group_by="tissue")}
    claim = score.claim(made.uris("contributions")[0], made.uri("scores"), **given)
    assert claim.state == "unchanged"


def test_older_study__panels_count_as_chosen_and_evaluated(folder, study):
    made, lists = open_study(study), {"published": str(folder / "data" / "published.txt")}
    source, samples = (made.uris(name)[0] for name in ("normalized", "samples"))
    landmarks, cohorts = made.uri("landmarks"), [made.raw("cohort")]
    chosen = SelectOptions(n_landmarks=5, selectors=("top-score",), n_random=1, penalty=3.0)
    sets = EnrichOptions(gene_sets=str(folder / "data" / "sets.gmt"), min_size=2)
    given = {"normalized": source, "samples": samples, "panels": lists, "seed": 6}
    data = {"samples": samples, "landmarks": landmarks, "cohorts": cohorts}
    label = {"model": made.model(6), "options": GroupOptions(label="tissue")}
    asked = {"seed": 6, "options": EvaluateOptions(panels=lists, alphas=FORMER_ALPHAS)}
    claims = [
        select.claim(made.uri("scores"), landmarks, **given, options=chosen),
        evaluate.claim(source, made.uri("evaluation"), **data, **asked),
        group.claim(source, made.uri("groups"), **data, **label),
        enrich.claim(landmarks, made.uri("enrichment"), options=sets),
    ]
    assert [claim.state for claim in claims] == ["unchanged"] * 4
    now = chosen.model_copy(update={"penalty": "chosen"})
    claim = select.claim(made.uri("scores"), landmarks, **given, options=now)
    assert [str(d) for d in claim.differences] == ["select.penalty: none -> 'chosen'"]
    del given["panels"]
    other = select.claim(made.uri("scores"), landmarks, **given, options=chosen)
    assert "published.txt -> none" in other.refusal()


@pytest.mark.slow
def test_older_study__mined_again_is_done(folder):
    """The files have moved since; they are known by what is in them. Defaults were these."""
    command = [sys.executable, "-c", "from dglzarr.cli import main; main()", "mine", "--json"]
    former = {f"train.{name}": value for name, value in KONG2021.items()}
    former |= {"select.penalty": 3.0, "evaluate.alphas": FORMER_ALPHAS}
    for name, value in former.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    done = subprocess.run(
        [*command, folder / "settings.toml"], check=True, stdout=subprocess.PIPE, text=True
    )
    found = {name: result for name, result in json.loads(done.stdout).items() if name != "report"}
    assert {result["state"] for result in found.values()} == {"unchanged"}
    page = (folder / "mined" / "report.html").read_text(encoding="utf-8")
    assert "Gains are absent: the panel was selected by an older version" in page
    assert headline(str(folder / "mined"))


@pytest.fixture
def joined(folder, tmp_path):
    """The sources of a copy of the study, and its joined stores with what they are made from."""
    place = tmp_path / "study"
    shutil.copytree(folder, place)
    study = open_study(str(place / "mined"))
    sources = [
        SourceFile(str(path), study.raw(path.name.partition("_")[0]))
        for path in sorted((place / "data").glob("GSE*"))
    ]
    first, second = study.uris("expression")
    shares = {"test_fraction": 0.25, "validation_fraction": 0.25}
    chosen = {"annotation": str(place / "data" / "annotation.txt"), "shard_samples": 16, **shares}
    raws, seed = [source.raw for source in sources], 6
    return sources, [
        ((raws[:4], first), {"seed": seed, "options": JoinOptions(**chosen)}),
        ((raws[4:], second), {"seed": seed, "like": [first], "options": JoinOptions(**shares)}),
    ]


def test_older_study__read_and_joined_anew_is_unchanged(joined):
    sources, calls = joined
    assert ingest_all(sources).state == "unchanged"
    assert [join(*stores, **options).state for stores, options in calls] == ["unchanged"] * 2


def test_older_study__what_has_changed_is_named(joined):
    (source, *_), (((raws, first), options), _) = joined
    path = Path(source.path)
    head, begin, values = path.read_text(encoding="utf-8").partition("!series_matrix_table_begin")
    path.write_text(head + begin + values.replace("1", "2", 1), encoding="utf-8")
    changed = [str(difference) for difference in ingest.claim(source.path, source.raw).differences]
    assert changed == [f"sources: {path.name} was changed"]
    named = options["options"].model_copy(update={"annotation": None})
    claim = join.claim(raws[1:], first, **{**options, "options": named})
    told = [str(difference) for difference in claim.differences]
    assert told == [f"input 0: {source.name}.zarr -> none", "input 4: annotation.txt -> none"]
