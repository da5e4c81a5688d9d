"""Settings that are wrong are told before any work, or once labels are read; never after it."""

import json
import re
import sys

import pytest

from dglzarr import cli
from dglzarr.errors import ConfigError, hint
from dglzarr.settings import load_settings
from dglzarr.studies import early
from dglzarr.studies.plan import Plan
from dglzarr.studies.plan import mine as run_mine

STUDY = """
root = "study"
[[sources]]
uri = "GSE*"
[ingest]
split_by = "sample"
[select]
n_landmarks = 3
n_random = 2
[train]
hidden = 8
n_latent = 3
epochs = 2
[cluster]
kind = "none"
"""
WRONG = {
    "select.selector=Greedy": r"select.selector: expected any of .*did you mean 'greedy'",
    'select.selectors=["medoid"]': r"select.selectors: expected .*did you mean 'medoids'",
    "select.n_landmarks=100": r"select.n_landmarks: expected 1 to 23, .*got 100",
    "select={n_landmarks=23, n_random=4}": r"select: expected genes that .*4 panels cover",
    'select.forced=["SYM3x"]': r"select.forced: expected genes of the study.*did you mean 'SYM3'",
    "group.label=tisue": r"group.label: expected a label .*did you mean 'tissue'",
    'group={label="tissue", series=["GSE7"]}': r"group.series: .*did you mean 'GSE",
    "score.group_by=tisue": r"score.group_by: expected one of .*did you mean 'tissue'",
    "score.group_bye=tissue": r"score.group_bye: unknown key.*did you mean 'group_by'",
    "selct.n_landmarks=3": r"selct: unknown key.*did you mean 'select'",
    "ingest.split_by=serie": r"ingest.split_by: .*did you mean 'series'",
    'sources=[{uri="GSE1_series_matrix.text"}]': r"no such file: .*mean 'GSE1_series_matrix.txt'",
    'evaluate.panels={l1000="pnael.txt"}': r"no such file: .*did you mean 'panel.txt'",
}


def matrix():
    """A GEO series of 24 probes and 12 samples whose tissue is known."""
    samples = [f"GSM{i}" for i in range(12)]
    lines = [
        '!Series_geo_accession\t"GSE1"',
        "!Sample_geo_accession\t" + "\t".join(f'"{s}"' for s in samples),
        "!Sample_characteristics_ch1\t" + "\t".join(['"tissue: skin"', '"tissue: liver"'] * 6),
        "!series_matrix_table_begin",
        '"ID_REF"\t' + "\t".join(f'"{s}"' for s in samples),
        *(
            f'"{gene}_at"\t'
            + "\t".join(f"{4 + (gene * 7 + i * i) % 9 + i / 10:.2f}" for i in range(12))
            for gene in range(24)
        ),
        "!series_matrix_table_end",
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "GSE1_series_matrix.txt").write_text(matrix())
    (tmp_path / "study.toml").write_text(
        STUDY.replace("[select]", 'annotation = "annotation.tsv"\n[select]')
    )
    rows = [f"{gene}_at\tSYM{gene}" for gene in range(24)]
    (tmp_path / "annotation.tsv").write_text("\n".join(["ID\tGene Symbol", *rows]) + "\n")
    (tmp_path / "panel.txt").write_text("SYM1\n")
    return tmp_path


def mine(folder, *more):
    """Return the exit status of the command."""
    arguments = ["mine", str(folder / "study.toml"), *more]
    return cli.guarded(lambda: cli.app(arguments, standalone_mode=False))


@pytest.mark.parametrize("dry", [True, False], ids=["dry-run", "mine"])
@pytest.mark.parametrize("wrong", WRONG)
def test_late_settings(folder, capsys, wrong, dry):
    """The case late-settings: each of them was told after training, or not by a dry run."""
    status = mine(folder, *["--dry-run"] * dry, "--set", wrong)
    found = capsys.readouterr().err
    assert status == 2, found
    assert re.search(WRONG[wrong], found), found
    assert not (folder / "study" / "models").exists()
    assert not list(folder.glob("study/segments/*/normalized.zarr"))
    if dry:
        assert not (folder / "study").exists()


def test_late_settings__what_is_right_is_let_through(folder, capsys):
    right = ["group.label=tissue", "score.group_by=tissue", 'select.forced=["SYM3", "4_at"]']
    assert mine(folder, "--dry-run", *(part for one in right for part in ("--set", one))) == 0
    assert capsys.readouterr().err == ""


def test_late_settings__of_stores_that_stand(folder, capsys):
    assert (
        cli.guarded(lambda: cli.app(["ingest", str(folder / "study.toml")], standalone_mode=False))
        == 0
    )
    capsys.readouterr()
    assert mine(folder, "--dry-run", "--set", "group.label=tisue") == 2
    assert "did you mean 'tissue'" in capsys.readouterr().err


def test_late_settings__a_large_file_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(early, "CHEAP_NBYTES", 10)
    monkeypatch.setattr(early, "read_source", lambda *_, **__: pytest.fail("it was read"))
    assert mine(folder, "--dry-run", "--set", "group.label=tisue") == 0


@pytest.mark.parametrize(
    ("asked", "absent", "words"),
    [
        ([], "keras", r"dglzarr\[train\]"),
        ([], "numba", r"dglzarr\[train\]"),
        (["score.engine=shap"], "shap", r"dglzarr\[oracle\]"),
        (["score.device=gpu"], "cupy", r"dglzarr\[gpu\]"),
    ],
)
def test_late_settings__an_extra_that_is_not_installed(
    folder, capsys, monkeypatch, asked, absent, words
):
    monkeypatch.setattr("dglzarr.models.find_spec", lambda name: None if name == absent else sys)
    options = [part for one in asked for part in ("--set", one)]
    for dry in (["--dry-run"], []):
        assert mine(folder, *dry, *options) == 2
        found = capsys.readouterr().err
        assert f"expected {absent} to be installed" in found
        assert re.search(words, found)
        assert not (folder / "study").exists()


def test_hint__the_nearest_name_or_none():
    assert hint("n_landmark", ["n_landmarks", "n_random"]) == " (did you mean 'n_landmarks'?)"
    assert hint("zzz", ["n_landmarks"]) == hint("", []) == ""


def test_extras__a_model_that_stands_needs_none(folder, monkeypatch):
    (folder / "model").mkdir()
    (folder / "model" / "model.json").write_text(json.dumps({}))
    monkeypatch.setattr("dglzarr.models.find_spec", lambda _: None)
    settings = load_settings(folder / "study.toml")
    early.check_extras(settings, {"train": str(folder / "model")})
    with pytest.raises(ConfigError, match="keras"):
        early.check_extras(settings, {"train": str(folder / "nothing")})


# ---------------------------------------------------------------- panels, before training


@pytest.mark.parametrize("selector", ["greedy", "variance"])
def test_check_panels__the_mined_panel_completes_the_cover(folder, capsys, selector):
    asked = f'select={{n_landmarks=14, n_random=3, selector="{selector}", selectors=[]}}'
    assert mine(folder, "--set", asked, "--set", "dedup.threshold=0") == 2
    found = capsys.readouterr().err
    assert "select: expected genes that no panel measures, but 4 panels cover all 24" in found
    assert list(folder.glob("study/segments/*/samples.zarr"))
    assert not (folder / "study" / "models").exists()


def test_check_panels__too_few_genes_vary(folder, capsys):
    path = folder / "GSE1_series_matrix.txt"
    flat = [f'"{gene}_at"\t' + "\t".join(["7.5"] * 12) for gene in range(20)]
    head, _, rest = path.read_text().partition('"0_at"')
    path.write_text(head + "\n".join(flat) + "\n" + rest[rest.index('"20_at"') :])
    asked = ("select.n_landmarks=5", "normalize.method=none", "dedup.threshold=0")
    assert mine(folder, *(part for one in asked for part in ("--set", one))) == 2
    found = capsys.readouterr().err
    assert re.search(r"select.n_landmarks: expected 1 to 4, got 5: of 24 genes .* 20 do not", found)
    assert not (folder / "study" / "models").exists()


@pytest.mark.parametrize(("n", "is_told"), [(14, True), (4, False)])
def test_check_panels__a_panel_by_score_may_complete_it(folder, caplog, n, is_told):
    shape = {"n_landmarks": n, "n_random": 1, "selector": "greedy", "selectors": ["top-score"]}
    settings = load_settings(folder / "study.toml", ["dedup.threshold=0"])
    settings = settings.model_copy(update={"select": settings.select.model_copy(update=shape)})
    run_mine(settings, only=("ingest", "join", "normalize", "dedup"))
    early.check_panels(Plan.of(settings)["select"].arguments, "gene")
    assert ("by score (top-score)" in caplog.text) is is_told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            "one sample",
            r"expected kept samples, 2 to fit and 1 to test on, got 1 and 0 of 12 \(11 are near",
        ),
        ("constant", r"select.n_landmarks: expected genes to choose from, got none: .* 24 do"),
        ("one gene", r"sources: expected 2 genes or more in common, got 1\. Name files"),
    ],
)
def test_check_panels__data_that_nothing_can_be_judged_on(folder, capsys, values, message):
    path = folder / "GSE1_series_matrix.txt"
    head, _, rest = path.read_text().partition('"0_at"')
    rows = ['"0_at"' + rest.partition("\n")[0]]
    if values != "one gene":
        rows = [f'"{i}_at"\t' + "\t".join([f"{5 + i / 8:.2f}"] * 12) for i in range(24)]
    path.write_text("\n".join([head + rows[0], *rows[1:], "!series_matrix_table_end", ""]))
    asked = ["--set", "dedup.threshold=0"] if values == "constant" else []
    assert mine(folder, *asked) == 2
    found = capsys.readouterr().err
    assert re.search(message, found), found
    assert not (folder / "study" / "models").exists()
