"""A grown study is compacted: its readers see the same, whatever dies; old segments go in time."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from typer.testing import CliRunner

import dglzarr
from dglzarr.cli import app
from dglzarr.errors import StoreError
from dglzarr.report.text import growth_lines, source_lines
from dglzarr.storage import merge as merging
from dglzarr.storage import study as storage
from dglzarr.storage.options import Run
from dglzarr.storage.store import checked_attributes, open_store
from dglzarr.storage.study import MANIFEST, RETIRED, SEGMENTED, locked, open_study
from dglzarr.studies import compact as compacting
from dglzarr.studies.compact import compact, compacted_lines
from dglzarr.studies.grow import grow
from dglzarr.studies.plan import Plan, mine, refit
from dglzarr.studies.repair import repair
from tests.builders import digests, simulate, write_files
from tests.studies.test_grow import settings

pytestmark = pytest.mark.slow

N_SERIES = 7
N_GROWN = 4


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A study of two series that grew by four, one after another; one series is to come."""
    folder = tmp_path_factory.mktemp("grown")
    simulated = simulate(140, 40, n_series=N_SERIES, n_duplicates=14, seed=4)
    sources = write_files(folder, simulated)
    held = folder / "held"
    held.mkdir()
    for source in sources[2:]:
        shutil.move(source.path, held)
    mine(settings(folder))
    for source in sources[2 : 2 + N_GROWN]:
        shutil.move(held / source.path.rpartition("/")[2], folder)
        grow(settings(folder))
    return folder


@pytest.fixture
def study(grown, tmp_path):
    """A copy of the grown study."""
    folder = tmp_path / "copy"
    shutil.copytree(grown, folder)
    return folder


def seen(root):
    """What a reader sees of every store that comes in segments."""
    return {name: dglzarr.open(f"{root}#{name}").load() for name in SEGMENTED}


def assert_same(before, after):
    for name in SEGMENTED:
        assert set(before[name].variables) == set(after[name].variables)
        for array in before[name].variables:
            known, made = before[name][array].values, after[name][array].values
            np.testing.assert_array_equal(made, known)
            assert made.dtype == known.dtype


def test_compact__readers_see_the_same(study):
    root = study / "study"
    before, first = seen(root), digests(root / "segments" / "0000")
    wholes = {p.name: digests(p) for p in root.glob("*.zarr")}
    pinned = dglzarr.open(f"{root}#normalized")  # a reader that has the old segments open
    done = compact(str(root))
    assert (done.merged, done.segment) == (("0001", "0002", "0003", "0004"), "0005")
    assert open_study(str(root)).segments == ("0000", "0005")
    assert_same(before, seen(root))
    assert digests(root / "segments" / "0000") == first
    assert {p.name: digests(p) for p in root.glob("*.zarr")} == wholes
    np.testing.assert_array_equal(pinned.expression.values, before["normalized"].expression.values)
    assert [v["problems"] for v in dglzarr.query.verify_study(str(root)) if v["problems"]] == []
    (merged, kept) = compacted_lines(done)
    assert merged.startswith("Merged 4 segments into 0005, equal bit for bit: 0001, 0002")
    assert "dglzarr compact" in kept


def test_compact__sums_of_regions_are_kept(study):
    """All sums together are what they were, to the last digits that adding in groups may change."""
    root = str(study / "study")
    uris = open_study(root).uris("contributions")[1:]
    before = [open_store(uri) for uri in uris]
    compact(root)
    after = open_store(open_study(root).uris("contributions")[1])
    for name in ("latent_total", "gene_total", "n_scored"):
        known = sum(ds[name].values.sum(axis=0) for ds in before)
        np.testing.assert_allclose(after[name].values.sum(axis=0), known, rtol=1e-12)
    n_regions = -(-after.sizes["sample"] // after.attrs["region_length"])
    assert after.sizes["region"] == n_regions > 1


def test_compact__lineage_and_what_was_told(study):
    root = str(study / "study")
    old = open_study(root)
    known = {name: [checked_attributes(uri) for uri in old.uris(name)] for name in SEGMENTED}
    lines = source_lines(root)
    compact(root)
    new = open_study(root)
    raws = {
        i["uri"] for one in known["expression"][1:] for i in one["inputs"] if "/raw/" in i["uri"]
    }
    for name in SEGMENTED:
        made = checked_attributes(new.uris(name)[1])
        uris = [entry["uri"] for entry in made["inputs"]]
        assert not [uri for uri in uris for s in old.segments[1:] if f"/segments/{s}/" in uri]
        assert made["parameters"] == known[name][1]["parameters"]
        ids = [one["store_id"] for one in made["details"]["compacted"]]
        assert ids == [one["store_id"] for one in known[name][1:]]
    expression = checked_attributes(new.uris("expression")[1])
    assert raws < {entry["uri"] for entry in expression["inputs"]}
    first = checked_attributes(new.uris("expression")[0])["store_id"]
    assert first in {entry["store_id"] for entry in expression["inputs"]}
    normalized = checked_attributes(new.uris("normalized")[1])
    source = next(e for e in normalized["inputs"] if e["role"] == "source")
    assert source["store_id"] == expression["store_id"]
    told = expression["details"]
    assert len(told["per_source"]) == N_GROWN
    assert told["n_missing"] == sum(o["details"]["n_missing"] for o in known["expression"][1:])
    assert sum(told["split_counts"].values()) == dglzarr.open(new.uris("expression")[1]).sample.size
    drift = [o["details"]["drift_largest"] for o in known["normalized"][1:]]
    assert normalized["details"]["drift_largest"] == max(drift)
    assert len(source_lines(root)) < len(lines)
    assert growth_lines(root)[0].startswith("Added as segment 0005")


def test_compact__then_grow_compact_and_refit(study):
    root = str(study / "study")
    undisturbed = study.parent / "undisturbed"
    shutil.copytree(study, undisturbed)
    compact(root)
    (last,) = (study / "held").glob("*")
    shutil.copy(last, undisturbed)
    shutil.move(last, study)
    grow(settings(study))
    grow(settings(undisturbed))
    assert open_study(root).segments == ("0000", "0005", "0006")
    assert_same(seen(undisturbed / "study"), seen(root))
    (study / "study" / MANIFEST).unlink()  # the old segments still stand, but are listed no more
    assert repair(root).segments == ("0000", "0005", "0006")
    done = compact(root, keep_hours=0)
    assert (done.merged, done.segment) == (("0005", "0006"), "0007")
    assert set(done.removed) == {f"000{i}" for i in range(1, 7)}
    assert_same(seen(undisturbed / "study"), seen(root))
    compacted = checked_attributes(open_study(root).uris("samples")[1])["details"]["compacted"]
    assert len(compacted) == N_GROWN + 1
    assert {s for step in Plan.of(settings(study)) for s in [step.name]} >= {"join", "report"}
    mine(settings(study))  # finds the first segment as it was made
    refit(settings(study))
    assert open_study(root).segments == ("0008",)
    assert compact(root, keep_hours=0).removed == ("0000", "0007")


def test_compact__of_one_grown_segment_does_nothing(study):
    root = str(study / "study")
    compact(root)
    before = digests(study / "study")
    done = compact(root)
    assert (done.merged, done.segment, done.removed) == ((), "", ())
    assert digests(study / "study") == before
    assert compacted_lines(done)[0].startswith("Nothing to merge")


def test_compact__old_segments_go_when_their_time_has_come(study, monkeypatch):
    root = study / "study"
    compact(str(root))
    done = compact(str(root), keep_hours=1)
    assert done.removed == ()
    assert set(done.kept) == {"0001", "0002", "0003", "0004"}
    mark = root / "segments" / "0002" / RETIRED
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    mark.write_text(json.dumps({"since": long_ago.isoformat()}))
    mark.with_name(RETIRED).parent.parent.joinpath("0003", RETIRED).unlink()  # is marked now
    done = compact(str(root), keep_hours=1)
    assert done.removed == ("0002",)
    assert set(done.kept) == {"0001", "0003", "0004"}
    assert not (root / "segments" / "0002").exists()
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)  # killed before it is removed
    compact(str(root), keep_hours=0)
    monkeypatch.undo()
    assert {p.name for p in (root / "segments").iterdir()} > {"0000", "0005"}
    compact(str(root), keep_hours=0)
    assert {p.name for p in (root / "segments").iterdir()} == {"0000", "0005"}


def test_compact__a_listed_segment_is_never_removed(study):
    root = str(study / "study")
    storage.retire(root, open_study(root).segments)  # killed between the marks and the manifest
    assert compact(root, keep_hours=0).removed == ("0001", "0002", "0003", "0004")
    assert open_study(root).segments == ("0000", "0005")
    seen(root)


def test_compact__damage_is_not_merged(study):
    root = study / "study"
    before = seen(root)
    objects = (root / "segments" / "0002" / "normalized.zarr" / "expression" / "c").rglob("*")
    shard = next(path for path in objects if path.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreError, match=r"normalized\.zarr: is damaged"):
        compact(str(root))
    assert len(open_study(str(root)).segments) == N_GROWN + 1
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    compact(str(root))
    assert_same(before, seen(root))


def test_compact__a_copy_that_differs_is_not_listed(study, monkeypatch):
    root = str(study / "study")
    real = merging._samples

    def spoiled(name, parts, rows):
        return real(name, parts, rows) + (name == "delta_error")

    monkeypatch.setattr(merging, "_samples", spoiled)
    with pytest.raises(StoreError, match="expected delta_error as in the segments, got other"):
        compact(root)
    assert len(open_study(root).segments) == N_GROWN + 1
    monkeypatch.undo()
    assert compact(root).segment == "0005"


def test_compact__other_choices_are_refused(study):
    root = study / "study"
    record = root / "segments" / "0003" / "latent.zarr"
    from tests.builders import set_attributes

    found = checked_attributes(str(record))
    set_attributes(str(record), parameters={**found["parameters"], "extra": 1})
    with pytest.raises(StoreError, match=r"made with the same choices, .*Run 'dglzarr refit'"):
        compact(str(root))


def test_compact__another_run_at_work(study):
    root = str(study / "study")
    with locked(root), pytest.raises(StoreError, match="another run is changing this study"):
        compact(root)


@pytest.mark.parametrize("moment", [0.4, 0.95])
def test_compact__killed_and_run_again(study, moment):
    """SIGKILL at a share of the steps of an undisturbed run; readers see one state or the other."""
    root = study / "study"
    before = seen(root)
    steps = []
    undisturbed = study.parent / "undisturbed"
    shutil.copytree(study, undisturbed)
    compact(str(undisturbed / "study"), run=Run(on_progress=lambda *s: steps.append(s)))
    last = int(moment * len(steps))
    program = (
        "import os, signal, sys\n"
        "from dglzarr.storage.options import Run\n"
        "from dglzarr.studies.compact import compact\n"
        f"left = [None] * {last}\n"
        "def told(*_):\n"
        "    left.pop() if left else os.kill(os.getpid(), signal.SIGKILL)\n"
        "compact(sys.argv[1], run=Run(on_progress=told))\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(root)], check=False, timeout=120)
    assert killed.returncode == -9
    assert_same(before, seen(root))
    compact(str(root))
    assert open_study(str(root)).segments == ("0000", "0005")
    assert_same(before, seen(root))


@pytest.mark.parametrize("killed_in", ["retire", "write_manifest", "_collected"])
def test_compact__killed_at_the_manifest(study, killed_in, monkeypatch):
    class KilledError(Exception):
        pass

    def die(*_):
        raise KilledError

    root = str(study / "study")
    before = seen(root)
    monkeypatch.setattr(compacting, killed_in, die)
    with pytest.raises(KilledError):
        compact(root)
    monkeypatch.undo()
    assert_same(before, seen(root))
    compact(root)
    assert open_study(root).segments == ("0000", "0005")
    assert_same(before, seen(root))


def test_cli__compact(study):
    def run(*words):
        return CliRunner().invoke(app, ["compact", *words, str(study / "study")])

    done = run("--keep-hours", "0")
    assert done.exit_code == 0, done.output
    merged, removed = done.stdout.strip().splitlines()
    assert merged.startswith("Merged 4 segments into 0005, equal bit for bit")
    assert removed == "Removed, no longer listed: 0001, 0002, 0003, 0004."
    again = json.loads(run("--json").stdout)
    assert again == {"merged": [], "segment": "", "removed": [], "kept": {}}
    assert run("--keep-hours", "-1").exit_code == 2
