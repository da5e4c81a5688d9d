"""A study mined straight into a bucket, killed on its way: the same as on the disk; read back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from starlette.testclient import TestClient

pytest.importorskip("moto.server", reason="the S3 server is moto's")

import dglzarr
from dglzarr.cli import app, guarded
from dglzarr.errors import StoreError
from dglzarr.models.files import load_model
from dglzarr.query.checks import verify_study
from dglzarr.serve.app import build_app
from dglzarr.stages.train import TrainOptions, train
from dglzarr.storage import buckets
from dglzarr.storage.files import place_of
from dglzarr.storage.objects import list_objects
from dglzarr.storage.options import Run
from dglzarr.storage.study import open_study
from dglzarr.studies.copy import copy_study
from tests import bucket
from tests.example import write_example

pytestmark = pytest.mark.slow

ROOT = f"s3://{bucket.BUCKET}/study"
MINE = "import sys; from tests.example import write_example; write_example(sys.argv[1])"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Roots of one study: on the disk, and in a bucket, where its first run was killed."""
    folder = tmp_path_factory.mktemp("studies")
    with pytest.MonkeyPatch.context() as patch, bucket.server(folder) as endpoint:
        for name, value in bucket.environment(endpoint).items():
            patch.setenv(name, value)
        buckets._connected.cache_clear()
        patch.chdir(folder)
        local = write_example(folder / "files")
        patch.setenv("DGLZARR_ROOT", ROOT)
        killed = subprocess.Popen(
            [sys.executable, "-c", MINE, folder / "files"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        deadline = time.monotonic() + 120
        while len(list_objects(f"{ROOT}/segments/0000/expression.zarr")) < 10:
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)  # each look keeps the server busy
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        write_example(folder / "files")
        patch.delenv("DGLZARR_ROOT")
        yield local, ROOT
        assert not [p for p in folder.iterdir() if p.name.startswith("s3:")]


def test_every_array_is_that_of_the_disk(studies):
    local, there = studies
    pairs = [*zip(open_study(local).raws(), open_study(there).raws(), strict=True)][:2]
    known, found = dglzarr.open_study(local), dglzarr.open_study(there)
    assert set(known.children) == set(found.children)
    same = [*pairs, *((f"{local}#{name}", f"{there}#{name}") for name in known.children)]
    for one, other in same:
        ds, of_bucket = dglzarr.open(one), dglzarr.open(other)
        for name in ds.variables:
            np.testing.assert_array_equal(ds[name].values, of_bucket[name].values, err_msg=one)
    assert [r["uri"] for r in verify_study(there) if r["problems"]] == []
    assert list(place_of(there).glob("*.partial")) == []


def test_questions_are_answered(studies):
    known, found = (dglzarr.open_study(root).dgl for root in studies)
    xr.testing.assert_equal(known.top(10), found.top(10))


def test_no_credentials_are_written(studies):
    place = place_of(studies[1])
    for name in place.bucket.find(place.key):
        if name.endswith(".json"):
            written = place.bucket.cat_file(name)
            assert bucket.SECRET.encode() not in written
            assert bucket.KEY.encode() not in written


def test_a_model_is_trained_there_and_goes_on(studies, tmp_path):
    options = TrainOptions(hidden=8, n_latent=3, epochs=3, patience=None, device="cpu")

    def stop(what, done, total):
        if what == "training samples" and done * 2 > total:
            raise KeyboardInterrupt

    found = []
    for root, target in zip(studies, (str(tmp_path / "m"), f"{ROOT}/models/tried"), strict=True):
        study = open_study(root)
        where = study.uri("normalized"), target
        arguments = {"samples": study.uri("samples"), "options": options}
        if root == ROOT:
            with pytest.raises(KeyboardInterrupt):
                train(*where, **arguments, run=Run(on_progress=stop))
            assert place_of(target, "checkpoint", "last.npz").exists()
        train(*where, **arguments)
        assert not place_of(target, "checkpoint").exists()
        found.append(load_model(place_of(target)))
    for one, other in zip(found[0].layers, found[1].layers, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_a_copy_is_compared(studies, tmp_path, capsys):
    target = str(tmp_path / "restored")
    assert guarded(lambda: app(["copy", studies[1], target], standalone_mode=False)) == 0
    assert "objects" in capsys.readouterr().out
    assert [r["uri"] for r in verify_study(target) if r["problems"]] == []
    with pytest.raises(StoreError, match="expected nothing"):
        copy_study(ROOT, target)


def test_it_is_served(studies):
    """Pages, and stores by ranges, as of a study on the disk."""
    local, there = (TestClient(build_app([root]), base_url="http://localhost") for root in studies)
    deadline = time.monotonic() + 60
    while there.get("/").status_code == 503:  # a study that takes its time to open
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert local.get("/").status_code == there.get("/").status_code == 200
    for path in ("normalized.zarr/expression/zarr.json", "normalized.zarr/expression/c/0/0"):
        asked = f"/data/study/{path}"
        for headers in ({}, {"range": "bytes=3-90"}, {"range": "bytes=-20"}):
            known, found = local.get(asked, headers=headers), there.get(asked, headers=headers)
            assert found.status_code == known.status_code
            assert found.content == known.content
        tag = found.headers["etag"]
        assert there.get(asked, headers={"if-none-match": tag}).status_code == 304
    assert there.get("/data/study/scores.zarr/none").status_code == 404
    assert there.get("/data/study/scores.zarr/rank/%2e%2e/zarr.json").status_code == 404
