"""Settings drafted from a folder: they load, train what belongs together and name what does not."""

import gzip
import json
import re
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from dglzarr import cli
from dglzarr.errors import ConfigError
from dglzarr.settings import load_settings
from dglzarr.storage.store import open_store
from dglzarr.storage.study import planned_study
from dglzarr.studies.draft import draft_settings
from dglzarr.studies.plan import mine, source_files
from dglzarr.testing import write_study


def table(path, samples, genes, *, seed=0):
    values = np.random.default_rng(seed).normal(8, 2, (len(genes), len(samples)))
    rows = [
        "\t".join([gene, *(f"{v:.3f}" for v in row)])
        for gene, row in zip(genes, values, strict=True)
    ]
    path.write_text("\n".join(["\t".join(["ID", *samples]), *rows]) + "\n", encoding="utf-8")


def names(prefix, n):
    return [f"{prefix}{i}" for i in range(n)]


def drafted(folder, place):
    place.write_text(draft_settings(folder, base=place.parent), encoding="utf-8")
    return place.read_text(encoding="utf-8"), load_settings(place)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("draft")
    return write_study(folder / "made", n_samples=120, n_genes=160)


def test_draft__of_simulated_files_reads_the_same_as_their_own_settings(simulated, tmp_path):
    own = load_settings(simulated)
    text, settings = drafted(simulated.parent / "data", tmp_path / "study.toml")

    def files(one):
        study = planned_study(str(tmp_path / "study"))
        return {file.name: file.options.role for file in source_files(one, study)}

    assert files(settings) == files(own)
    assert Path(settings.ingest.annotation).samefile(own.ingest.annotation)
    assert '#panels = { published = "' in text  # offered, not set
    assert len(settings.sources) == len(own.sources)  # a pattern stands for the files it names


def test_draft__is_mined_as_it_is(simulated, tmp_path):
    text, settings = drafted(simulated.parent / "data", tmp_path / "study.toml")
    alone = settings.model_copy(
        update={"cluster": settings.cluster.model_copy(update={"kind": "none"})}
    )
    mine(alone, only=("ingest", "join"))
    expression = open_store(planned_study(settings.root).uri("expression"))
    sizes = expression.sizes
    n_series = len(set(expression["series"].values))
    told = (
        f"# {sizes['sample']} samples of {n_series} series train this, over {sizes['gene']} genes."
    )
    assert text.startswith(told)


def test_draft__joins_what_gives_most_values_and_names_the_rest(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    small, large = names("p", 60), names("p", 100)
    table(data / "GSE1_expr.tsv", names("a", 12), small)
    table(data / "GSE2_expr.tsv", names("b", 10), large)  # measures all of the small one's genes
    table(data / "GSE3_expr.tsv", names("c", 8), names("q", 90))
    table(data / "copy.tsv", names("a", 4), small)
    table(data / "few.tsv", names("d", 4), names("p", 9))
    (data / "notes.txt").write_text("nothing\n", encoding="utf-8")
    (data / ".GSE9_expr.tsv").write_text("hidden\n", encoding="utf-8")
    shutil.copytree(data, data / "old")
    (data / "old" / "study.json").write_text("{}", encoding="utf-8")
    sheet = ["id\ttissue\tage", *(f"a{i}\t{'skin' if i % 2 else 'bone'}\t{i}" for i in range(12))]
    (data / "GSE1_sheet.tsv").write_text("\n".join(sheet) + "\n", encoding="utf-8")

    text, settings = drafted(data, tmp_path / "study.toml")

    assert [source.uri.rpartition("/")[2] for source in settings.sources] == [
        "GSE1_expr.tsv", "GSE2_expr.tsv",
    ]  # fmt: skip
    assert settings.sources[0].sample_sheet.endswith("GSE1_sheet.tsv")
    assert settings.ingest.split_by == "sample"  # two series cannot be held out
    assert settings.select.n_landmarks == 6
    assert settings.train.n_latent == 6  # 100 would copy 60 genes
    assert text.startswith("# 22 samples of 2 series train this, over 60 genes.\n")
    assert "labels: tissue (2 kinds)" in text  # age is no kind
    assert '#label = "tissue"' in text
    assert "# Left out: data/copy.tsv: repeats samples of data/GSE1_expr.tsv." in text
    assert "# Left out: data/GSE3_expr.tsv (8 samples, 90 genes such as 'q0')" in text
    assert "# Not taken: data/few.tsv: expected at least 20 genes, got 9." in text
    assert "# Not taken: data/notes.txt: line 1: expected" in text
    assert "data/old" not in text
    assert "GSE9" not in text


def test_draft__labels_that_tell_files_apart(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for name, tissue in (("GSE1", "skin"), ("GSE2", "bone"), ("GSE3", "bone")):
        samples = names(name, 8)
        table(data / f"{name}_expr.tsv", samples, names("p", 40))
        rows = ["id\ttissue\torganism\tsex", *(f"{s}\t{tissue}\tman\tfm" for s in samples)]
        (data / f"{name}_sheet.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    text, _ = drafted(data, tmp_path / "study.toml")
    assert "labels: tissue (skin), organism (man), sex (fm)" in text
    assert '#label = "tissue"' in text


def test_draft__survives_hostile_names(tmp_path):
    hostile = 'a "b"\\ #[x]'
    (tmp_path / hostile).mkdir()
    path = tmp_path / hostile / "t' #.tsv"
    for one in (path, path.with_name("t\nroot = 'x'.tsv"), path.with_name("u\x01.tsv")):
        table(one, names("s", 9), names("p", 40))
    text, settings = drafted(tmp_path / hostile, tmp_path / "study.toml")
    assert [source.uri for source in settings.sources] == [str(path)]
    assert "t root = 'x'.tsv: expected a name of one line" in text
    assert re.search(r"# Left out: .*u \.tsv: repeats samples of", text)
    assert tomllib.loads(text)["root"] == "study"


def test_draft__of_packed_files_and_a_matrix_of_another_scale(tmp_path):
    table(tmp_path / "x.tsv", names("s", 9), names("p", 40))
    packed = gzip.compress((tmp_path / "x.tsv").read_bytes())
    (tmp_path / "x.tsv.gz").write_bytes(packed)
    (tmp_path / "x.tsv").unlink()
    (tmp_path / "cut.tsv.gz").write_bytes(packed[:100])
    ratios = [
        "\t".join(["ID", "r1", "r2"]),
        *(f"p{i}\t{i % 3 - 1.1}\t{i % 5 - 2.2}" for i in range(40)),
    ]
    (tmp_path / "ratios.tsv").write_text("\n".join(ratios) + "\n", encoding="utf-8")
    text, settings = drafted(tmp_path, tmp_path / "study.toml")
    assert [source.uri for source in settings.sources] == [str(tmp_path / "x.tsv.gz")]
    assert "# Not taken: cut.tsv.gz" in text
    assert "# Not taken: ratios.tsv: expression values: expected raw or log2" in text


@pytest.mark.parametrize("made", ["nothing", "empty", "notes"])
def test_draft__without_expression_is_one_line(tmp_path, made):
    folder = tmp_path / "data"
    if made != "nothing":
        folder.mkdir()
    if made == "notes":
        (folder / "notes.txt").write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expected .*expression files, got none") as error:
        draft_settings(folder)
    assert "\n" not in str(error.value)


def test_init__writes_the_draft_and_never_replaces_a_file(simulated, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.app([*arguments], prog_name="dglzarr", standalone_mode=True)
        return left.value.code

    assert run("init", str(simulated.parent / "data")) == 0
    assert "Written: study.toml. Look at it, then run: dglzarr mine" in capsys.readouterr().out
    assert load_settings("study.toml").root == str(tmp_path / "study")
    before = (tmp_path / "study.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"study\.toml: exists"):
        cli.app(["init", str(simulated.parent / "data")], standalone_mode=False)
    assert (tmp_path / "study.toml").read_bytes() == before
    assert json.loads((simulated.parent / "truth.json").read_text())  # nothing else was touched
