"""Places that cannot be written, full disks, workers: one clear line, and a run that goes on."""

import contextlib
import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.bad_input.spoiled import Run, large, word_among_numbers
from tests.builders import digests


@pytest.mark.parametrize("place", ["file/study", "/proc/dglzarr/study"])
@pytest.mark.parametrize("verb", ["ingest", "mine"])
def test_root__unwritable(study, place, verb):
    (study.folder / "file").write_text("")
    study.root = study.folder / place
    run = study.run(verb)
    assert run.status == 1
    assert re.search(r"study: cannot be written: .*Choose a writable root", run.complaint)


AS_ROOT = ["/usr/bin/env", *(() if os.geteuid() == 0 else ("sudo", "-n"))]


@contextlib.contextmanager
def disk(place, options):
    place.mkdir()
    options = f"{options},uid={os.geteuid()},mode=700"
    made = subprocess.run(
        [*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent(f"mount: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([*AS_ROOT, "umount", str(place)], check=True)


def resize(place, kib):
    subprocess.run([*AS_ROOT, "mount", "-o", f"remount,size={kib}k", str(place)], check=True)


def test_root__read_only(study):
    with disk(study.folder / "disk", "ro"):
        study.root = study.folder / "disk" / "study"
        study.expect(1, r"disk/study: cannot be written: .*Read-only.*Choose a writable root")


def stores(root):
    """Digests of the stores and of the weights."""
    found = digests(root)
    return {n: d for n, d in found.items() if ".zarr/" in n or n.endswith("weights.npz")}


NO_SPACE = r"disk/study.*No space left|No space left.*disk/study"


@pytest.mark.parametrize("kib", [4, 60, 140, 200, 260])
def test_disk_full(study, kib):
    large(study)
    place = study.folder / "disk"
    with disk(place, f"size={kib}k"):
        study.root = place / "study"
        study.expect(1, NO_SPACE)
        resize(place, 16384)
        assert study.run().status == 0
        assert study.complete == ["segments/0000/expression.zarr"]


WRITES = {
    "ingest": "raw|expression",
    "normalize": "normalized",
    "dedup": "samples",
    "train": "models",
    "encode": "latent|reconstruction",
    "score": "contributions|scores",
    "select": "landmarks",
    "evaluate": "evaluation",
    "report": "report|landmarks|panels",
}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_disk_full__in_every_stage(study):
    """Each stage finds 16 KiB; the disk grows a little whenever it is full, until it is through."""
    large(study)
    study.settings |= {"train.hidden": 24, "train.n_latent": 4, "train.epochs": 3}
    place = study.folder / "disk"
    with disk(place, "size=16k"):
        study.root = place / "study"
        for verb, names in WRITES.items():
            complaints = []
            resize(place, shutil.disk_usage(place).used // 1024 + 16)
            while (run := study.run(verb)).status:
                assert run.status == 1, run.err
                assert re.search(NO_SPACE, run.complaint), run.complaint
                complaints.append(run.complaint)
                resize(place, shutil.disk_usage(place).total // 1024 + 1024)
            assert complaints, f"{verb} fits into 16 KiB"
            assert re.search(rf"disk/study/.*({names})", "\n".join(complaints)), complaints
        assert len(study.complete) == 9
        found = stores(study.root)
    study.root = study.folder / "undisturbed"
    assert study.run("mine").status == 0
    assert found == stores(study.root)


@pytest.mark.slow
def test_workers_add_nothing_to_the_line(study):
    word_among_numbers(study)
    study.settings["cluster.kind"] = "local"
    environment = {**os.environ, "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", "from dglzarr.cli import main; main()", "ingest", study.toml()],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    run = Run(done.returncode, done.stdout, done.stderr)
    assert run.status == 1
    assert re.search(r"GSE1_series_matrix\.txt, line \d+: .*'high'", run.complaint)
    assert study.complete == []
