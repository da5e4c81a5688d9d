"""A finished study grows by new segments: nothing old is touched, readers see all or nothing."""

import json
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.spatial.distance import cdist

import dglzarr
from dglzarr.errors import SourceError, StoreError
from dglzarr.kernels.quantile import apply_quantile, finish_quantile, sum_sorted
from dglzarr.query.checks import verify_study
from dglzarr.report.text import drift_lines, growth_lines
from dglzarr.settings import build_settings
from dglzarr.storage.options import Run
from dglzarr.storage.store import open_store
from dglzarr.storage.study import locked, open_study
from dglzarr.studies import plan
from dglzarr.studies.grow import grow
from dglzarr.studies.plan import mine, refit
from tests.builders import digests, simulate, wait_for, write_files

pytestmark = pytest.mark.slow

SERIES = 6


def settings(folder, *uris):
    """A study of some files, quickly trained."""
    content = {
        "root": "study",
        "sources": [{"uri": uri} for uri in uris or ["*_series_matrix.txt"]],
        "ingest": {"split_by": "sample", "shard_samples": 16},
        "train": {"epochs": 2, "hidden": 8, "n_latent": 3},
        "select": {"n_landmarks": 4, "n_random": 2},
        "dedup": {"n_clusters": 4},
        "cluster": {"kind": "none"},
    }
    return build_settings(content, name="test", folder=Path(folder))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A mined study of four series, and two series to come, one repeating samples of both."""
    folder = tmp_path_factory.mktemp("finished")
    simulated = simulate(120, 40, n_series=SERIES, n_duplicates=12, seed=4)
    sources = write_files(folder, simulated)
    held = folder / "held"
    held.mkdir()
    for source in sources[-2:]:
        shutil.move(source.path, held)
    mine(settings(folder))
    return folder


@pytest.fixture
def study(finished, tmp_path):
    """A copy of the finished study with the two new series in place."""
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    for path in (folder / "held").iterdir():
        shutil.move(path, folder)
    return folder


def values(folder, name, array):
    return dglzarr.open(f"{folder}/study#{name}")[array].values


def test_grow__old_objects_stay_and_new_samples_are_there(study):
    root = study / "study"
    before = digests(root / "segments" / "0000")
    n_before = dglzarr.open(f"{root}#normalized").sizes["sample"]
    done = grow(settings(study))
    assert digests(root / "segments" / "0000") == before
    assert open_study(str(root)).segments == ("0000", "0001")
    for name in ("expression", "normalized", "samples", "latent", "contributions"):
        assert dglzarr.open(f"{root}#{name}").sizes["sample"] == 120
    assert done["join"].sizes["sample"] == 120 - n_before
    assert not np.isnan(values(study, "contributions", "contribution")).any()


def test_grow__normalizes_with_the_frozen_reference_and_measures_drift(study):
    grow(settings(study))
    old, new = (open_store(u) for u in open_study(str(study / "study")).uris("normalized"))
    raw = open_store(open_study(str(study / "study")).uris("expression")[1])["expression"].values
    reference = old["quantile_reference"].values
    np.testing.assert_array_equal(new["quantile_reference"].values, reference)
    np.testing.assert_array_equal(new["expression"].values, apply_quantile(raw, reference))
    frozen = dglzarr.open(f"{study}/study#normalized").quantile_reference
    here = dglzarr.quantile_normalize(raw, reference=frozen)
    np.testing.assert_array_equal(here, new["expression"].values)
    drift = finish_quantile(sum_sorted(raw)) - reference
    assert new.attrs["details"]["drift_rms"] == pytest.approx(np.sqrt(np.mean(drift**2)))
    (line,) = drift_lines(str(study / "study"))
    added, *_ = growth_lines(str(study / "study"))
    n_dropped = int((~open_store(open_study(str(study / "study")).uri("samples"))["keep"]).sum())
    held = "|".join(sorted(set(new["source"].values)))
    assert re.search(rf"segment 0001: {len(raw)} samples of ({held}).*; 120 in all", added)
    assert added.endswith(f"Near-duplicates: {n_dropped}")
    assert f"{np.sqrt(np.mean(drift**2)):.3f}" in line


def test_grow__duplicates_are_found_across_segments(study):
    first = values(study, "samples", "keep").copy()
    grow(settings(study))
    keep, names = values(study, "samples", "keep"), values(study, "samples", "sample")
    duplicate_of = values(study, "samples", "duplicate_of")
    np.testing.assert_array_equal(keep[: first.size], first)
    expression = values(study, "normalized", "expression").astype(np.float64)
    distance = cdist(expression, expression)
    kept = np.flatnonzero(keep)
    assert (distance[np.ix_(kept, kept)] + 9 * np.eye(kept.size) >= 1).all()
    place = {str(s): i for i, s in enumerate(names)}
    dropped = np.flatnonzero(~keep[first.size :]) + first.size
    originals = [place[str(duplicate_of[i])] for i in dropped]
    assert keep[originals].all()
    assert (distance[dropped, originals] < 1).all()
    assert any(i < first.size for i in originals), "some repeat a sample of the first segment"


def test_grow__moments_and_split_stay(study):
    mean, split = values(study, "samples", "gene_mean"), values(study, "normalized", "split")
    grow(settings(study))
    np.testing.assert_array_equal(values(study, "samples", "gene_mean"), mean)
    grown = values(study, "normalized", "split")
    np.testing.assert_array_equal(grown[: split.size], split)
    assert set(grown[split.size :].tolist()) <= {0, 1, 2}


def test_grow__a_reader_keeps_its_view(study):
    root = str(study / "study")
    before = dglzarr.open(f"{root}#normalized")
    grow(settings(study))
    assert before.sizes["sample"] == before["expression"].compute().sizes["sample"] < 120


def test_grow__scores_as_the_study_was_scored_whatever_the_settings_say(study):
    root, asked = str(study / "study"), settings(study)
    score = asked.score.model_copy(update={"aggregation": "max", "layer": "pre-activation"})
    grow(asked.model_copy(update={"score": score, "seed": 7}))
    old, new = (open_store(u).attrs["parameters"] for u in open_study(root).uris("contributions"))
    assert new == old


def test_grow__a_model_that_did_not_score_the_study_is_refused(study):
    other = settings(study).train.model_copy(update={"hidden": 9})
    changed = settings(study).model_copy(update={"train": other})
    mine(changed, only=("train",), run=Run(overwrite=True))
    with pytest.raises(StoreError, match=r"seed-0: expected model .*, which scored.*refit"):
        grow(changed)
    assert open_study(str(study / "study")).segments == ("0000",)


@pytest.mark.parametrize("name", ["expression", "normalized"])
def test_grow__a_lost_shard_of_a_grown_segment_needs_a_refit(study, name):
    root = study / "study"
    grow(settings(study))
    (root / "segments" / "0001" / f"{name}.zarr" / "expression" / "c" / "0" / "0").unlink()
    for run in (mine, grow):
        with pytest.raises(StoreError, match="Of a grown segment, 'dglzarr refit' alone does that"):
            run(settings(study))
    refit(settings(study))
    assert dglzarr.open(f"{root}#{name}").sizes["sample"] == 120


def test_grow__nothing_new(finished):
    assert grow(settings(finished)) == {}


def test_grow__again_and_mine_again_change_nothing(study):
    grow(settings(study))
    before = digests(study / "study" / "segments")
    assert grow(settings(study)) == {}
    states = {getattr(result, "state", "unchanged") for result in mine(settings(study)).values()}
    assert states == {"unchanged"}
    assert digests(study / "study" / "segments") == before


def test_grow__twice_in_turn(study):
    held = max(study.glob("*_series_matrix.txt"))
    aside = shutil.move(held, study / "held")
    grow(settings(study))
    shutil.move(aside, held)
    grow(settings(study))
    assert open_study(str(study / "study")).segments == ("0000", "0001", "0002")
    assert sorted(values(study, "samples", "sample")) == sorted(
        set(values(study, "samples", "sample"))
    )
    assert values(study, "samples", "sample").size == 120


def test_grow__an_unfinished_study_is_refused(study):
    shutil.rmtree(study / "study" / "scores.zarr")
    with pytest.raises(StoreError, match=r"scores\.zarr: no such store"):
        grow(settings(study))
    assert open_study(str(study / "study")).segments == ("0000",)


@pytest.mark.parametrize("name", ["expression", "normalized", "samples", "contributions"])
def test_grow__a_segment_that_is_not_complete_is_refused(study, name):
    """As a killed run leaves it; 'mine' goes on, and then it grows."""
    store = study / "study" / "segments" / "0000" / f"{name}.zarr"
    known = known_series(study)
    zarr.open_group(str(store), mode="r+").attrs.update({"complete": False})
    with pytest.raises(StoreError, match=rf"{name}\.zarr: not complete. Run the stage"):
        grow(settings(study))
    assert not (study / "study" / "segments" / "0001").exists()
    old = settings(study, *(f"{s}_series_matrix.txt" for s in known))
    mine(old)
    grow(settings(study))
    assert open_study(str(study / "study")).segments == ("0000", "0001")


def known_series(folder):
    """The series of the first segment."""
    return sorted(set(dglzarr.open(f"{folder}/study#expression")["series"].values))


def test_grow__other_genes_are_refused(study):
    (study / "GSE77_expr.tsv").write_text("ID_REF\tX1\tX2\nfoo\t5\t6\nbar\t7\t8\n")
    with pytest.raises(SourceError, match="GSE77: expected at least 90%"):
        grow(settings(study, "GSE77_expr.tsv"))
    assert open_study(str(study / "study")).segments == ("0000",)
    assert dglzarr.open(f"{study}/study#samples").sizes["sample"] < 120


def test_grow__genes_in_another_order_are_put_right(study):
    path = max(study.glob("*_series_matrix.txt"))
    lines = path.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "matrix_table_begin" in line) + 2
    lines[at:-1] = lines[at:-1][::-1]
    wanted = None
    for text in (path.read_text(), "\n".join(lines) + "\n"):
        folder = study / f"run{wanted is None}"
        shutil.copytree(study, folder, ignore=shutil.ignore_patterns("run*"))
        (folder / path.name).write_text(text)
        grow(settings(folder))
        found = values(folder, "normalized", "expression")
        assert wanted is None or np.array_equal(found, wanted)
        wanted = found


def test_grow__samples_of_the_study_are_refused(study):
    path = min(study.glob("*_series_matrix.txt"))
    shutil.copy(path, study / "GSE78_series_matrix.txt")
    with pytest.raises(SourceError, match="samples are in"):
        grow(settings(study, "GSE78_series_matrix.txt"))
    assert open_study(str(study / "study")).segments == ("0000",)


def test_grow__two_at_once(study):
    root = str(study / "study")
    with (
        locked(root),
        pytest.raises(StoreError, match="another run is changing this study"),
    ):
        grow(settings(study))
    grow(settings(study))
    assert open_study(root).segments == ("0000", "0001")


def test_mine__a_study_that_grew_while_it_was_planned(study, monkeypatch):
    """Another run ended before the lock was taken: what is done then is of the study as it is."""
    done = []

    @contextmanager
    def late(root, *, is_new):
        grow(settings(study))
        with locked(root, is_new=is_new):
            yield

    monkeypatch.setattr(plan, "locked", late)
    n_before = len(list(study.glob("*_series_matrix.txt"))) - 2
    mine(settings(study), only=("ingest",), execute=lambda step, _: done.append(step))
    assert open_study(str(study / "study")).segments == ("0000", "0001")
    assert len(done[0].arguments["sources"]) == n_before, "the first segment stays as it is"


STANDING_STILL = """
import sys, time
from pathlib import Path
from dglzarr.studies.grow import grow
from tests.studies.test_grow import settings

def execute(step, run):
    result = step(run)
    if step.name == sys.argv[2]:
        Path(sys.argv[3]).touch()
        for _ in range(3000):
            if Path(sys.argv[3] + ".go").exists():
                break
            time.sleep(0.05)
    return result

grow(settings(sys.argv[1]), execute=execute)
"""


def test_grow__two_processes_at_once(study, tmp_path):
    """The second is refused in a line, what the first makes is whole."""
    ready, root = tmp_path / "ready", study / "study"
    command = [sys.executable, "-c", STANDING_STILL, str(study), "ingest", str(ready)]
    first = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        wait_for(ready.exists)
        with pytest.raises(StoreError, match=r"another run is changing this study\. Wait for it\."):
            grow(settings(study))
    finally:
        ready.with_name("ready.go").touch()
        status = first.wait(timeout=200)
    assert status == 0
    assert open_study(str(root)).segments == ("0000", "0001")
    assert dglzarr.open(f"{root}#samples").sizes["sample"] == 120
    assert grow(settings(study)) == {}


@pytest.mark.parametrize("stage", ["join", "dedup", "encode", "explain"])
def test_grow__killed_and_started_again(study, tmp_path, stage):
    root, ready = study / "study", tmp_path / "ready"
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(study, undisturbed)
    grow(settings(undisturbed))
    command = [sys.executable, "-c", STANDING_STILL, str(study), stage, str(ready)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    try:
        wait_for(ready.exists)
    finally:
        process.kill()
        process.wait()
    assert open_study(str(root)).segments == ("0000",), "half a growth is not visible"
    grow(settings(study))
    assert digests(root / "segments") == digests(undisturbed / "study" / "segments")


def test_grow__killed_before_its_report_writes_it_the_next_time(study, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dglzarr.studies.grow.rewrite_report", killed)
        with pytest.raises(KeyboardInterrupt):
            grow(settings(study))
    report = study / "study" / "report.html"
    before = report.read_bytes()
    assert grow(settings(study)) == {"report": str(report)}
    assert report.read_bytes() != before
    assert grow(settings(study)) == {}


def test_refit__one_new_segment_of_everything(study):
    root = study / "study"
    grow(settings(study))
    before = digests(root / "segments" / "0000")
    refit(settings(study))
    assert json.loads((root / "study.json").read_text())["segments"] == ["0002"]
    after = digests(root / "segments" / "0000")
    assert after.pop("retired.json")
    assert after == before
    again = study / "fresh"
    again.mkdir()
    for path in study.glob("*_series_matrix.txt"):
        shutil.copy(path, again)
    mine(settings(again))
    for name, array in [("normalized", "expression"), ("samples", "keep"), ("scores", "score")]:
        np.testing.assert_array_equal(values(study, name, array), values(again, name, array))
    assert {getattr(r, "state", "unchanged") for r in mine(settings(study)).values()} == {
        "unchanged"
    }


def test_refit__stopped_leaves_the_old_manifest(study):
    grow(settings(study))

    def stop(step, run):
        if step.name == "dedup":
            raise StoreError("stopped")
        return step(run)

    with pytest.raises(StoreError, match="stopped"):
        refit(settings(study), execute=stop)
    assert open_study(str(study / "study")).segments == ("0000", "0001")
    assert values(study, "samples", "sample").size == 120
    refit(settings(study))
    assert open_study(str(study / "study")).segments == ("0002",)


@pytest.mark.parametrize("verb", ["mine --overwrite", "refit"])
def test_lost__what_verify_says_to_run_makes_it_whole(finished, tmp_path, verb):
    study = shutil.copytree(finished, tmp_path / "copy")
    makes = {
        "mine --overwrite": lambda: mine(settings(study), run=Run(overwrite=True)),
        "refit": lambda: refit(settings(study)),
    }
    root = study / "study"
    if verb == "refit":
        for path in (study / "held").iterdir():
            shutil.move(path, study)
        grow(settings(study))
    shutil.rmtree(root / "segments" / "0000" / "normalized.zarr")
    with pytest.raises(StoreError, match="normalized"):
        mine(settings(study))  # which makes it, but replaces nothing that was made of it
    told = [line for found in verify_study(str(root)) for line in found["problems"]]
    assert {*re.findall(r"or run 'dglzarr ([\w -]+)' for", "\n".join(told))} == {verb}
    makes[verb]()
    assert [found["uri"] for found in verify_study(str(root)) if found["problems"]] == []
