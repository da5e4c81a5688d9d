"""A run that is killed and started again leaves the bits of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from dglzarr.models.files import load_model
from dglzarr.storage.store import is_complete
from dglzarr.testing import simulate_expression, write_gctx
from tests.builders import digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

COMMAND = (sys.executable, "-c", "from dglzarr.cli import main; main()", "mine", "study.toml")
SLOW = """
import time
from dglzarr.settings import load_settings
from dglzarr.storage.options import Run
from dglzarr.studies.plan import mine

def rest(what, *_):
    time.sleep(0.01 if what in ("normalizing", "scoring") else 0.02)

mine(load_settings("study.toml"), run=Run(on_progress=rest))
"""
N_REGIONS = 50
SETTINGS = """
root = "study"
[[sources]]
uri = "GSE1_x.gctx"
[ingest]
split_by = "sample"
shard_samples = 16
[dedup]
n_clusters = 5
[train]
epochs = 25
hidden = 64
n_latent = 12
batch_size = 32
[select]
n_landmarks = 20
n_random = 2
[cluster]
kind = "local"
n_workers = 2
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    simulated = simulate_expression(
        16 * N_REGIONS - 5, 1000, n_hubs=20, n_series=5, n_duplicates=20, missing_fraction=0.001
    )
    write_gctx(
        folder / "GSE1_x.gctx", simulated.expression,
        samples=simulated.samples, genes=simulated.genes,
    )  # fmt: skip
    (folder / "study.toml").write_text(SETTINGS)
    return folder


def start(folder, *command):
    """A program in a process group of its own, workers included."""
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def finish(folder, *options):
    process = start(folder, *COMMAND, *options)
    assert process.wait(timeout=200) == 0, (folder / "log.txt").read_text()[-2000:]


def kill_when(folder, is_time):
    """Start a run, kill its whole process group as soon as it is time; fail if it ends before.

    It rests at each step that it tells, so that the moment cannot be missed.
    """
    process = start(folder, sys.executable, "-c", SLOW)
    deadline = time.monotonic() + 200
    while not is_time():
        assert process.poll() is None, (folder / "log.txt").read_text()[-2000:]
        assert time.monotonic() < deadline, "it never was time"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=30) == -signal.SIGKILL
    while members(process.pid):
        assert time.monotonic() < deadline, "workers survive"
        time.sleep(0.01)


def members(group):
    """Processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(member) == group and state != "Z":
            found.append(stat)
    return found


def regions(store, name):
    """Names of the regions that are whole."""
    folder = store / name / "c"
    return sorted(p.parent.name for p in folder.glob("*/0"))


def is_half_done(store, name):
    return lambda: 2 <= len(regions(store, name)) < N_REGIONS - 5


def values(store):
    """Every array of a store."""
    return {name: array[...] for name, array in zarr.open_group(str(store), mode="r").arrays()}


def test_killed_in_normalize_train_and_score__same_bits_as_undisturbed(study):
    finish(study, "--set", 'root="undisturbed"')
    root, segment = study / "study", study / "study" / "segments" / "0000"
    model = root / "models" / "seed-0"

    kill_when(study, is_half_done(segment / "normalized.zarr", "expression"))
    assert is_complete(str(segment / "expression.zarr"))
    assert not is_complete(str(segment / "normalized.zarr"))
    early = regions(segment / "normalized.zarr", "expression")
    assert 2 <= len(early) < N_REGIONS
    written = {r: _changed(segment / "normalized.zarr", r) for r in early}

    kill_when(study, (model / "checkpoint" / "last.npz").exists)
    assert {r: _changed(segment / "normalized.zarr", r) for r in early} == written
    assert is_complete(str(segment / "samples.zarr"))
    assert not (model / "model.json").exists()

    kill_when(study, is_half_done(segment / "contributions.zarr", "contribution"))
    assert (model / "model.json").exists()
    assert not is_complete(str(segment / "contributions.zarr"))
    assert not is_complete(str(root / "scores.zarr"))

    finish(study)
    other = study / "undisturbed"
    stores = sorted(p.relative_to(root) for p in root.rglob("*.zarr"))
    assert stores == sorted(p.relative_to(other) for p in other.rglob("*.zarr"))
    assert len(stores) >= 7
    for name in stores:
        assert is_complete(str(root / name))
        assert digests(root / name) == digests(other / name), name
        found, wanted = values(root / name), values(other / name)
        assert set(found) == set(wanted)
        for array in found:
            np.testing.assert_array_equal(found[array], wanted[array], err_msg=f"{name} {array}")
    ours, theirs = load_model(model), load_model(other / "models" / "seed-0")
    assert ours.model_id == theirs.model_id
    for (kernel, bias, _), (kernel_, bias_, _) in zip(ours.layers, theirs.layers, strict=True):
        assert np.array_equal(kernel, kernel_)
        assert np.array_equal(bias, bias_)


def _changed(store, region):
    return max(p.stat().st_mtime_ns for p in (store / "expression" / "c" / region).rglob("*"))
