"""A cluster that never starts: told in time, with the reason, and nothing of it is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dglzarr.errors import ConfigError
from dglzarr.storage import launch
from dglzarr.storage.cluster import client
from dglzarr.storage.cluster_options import ClusterOptions
from dglzarr.testing import write_study
from tests import kube

PROGRAM = str(Path(sys.executable).with_name("dglzarr"))
SETTINGS = """
root = "study"
[[sources]]
uri = "data/*.gctx"
[cluster]
kind = "kubernetes"
image = "registry.lab/no:1"
volumes = {data = "/data"}
"""


def ours():
    """The threads of a cluster that is made, or was."""
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("dglzarr") or "IO loop" in name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pod", "message"),
    [
        (
            kube.WITHOUT_NODE,
            (
                r"got none in 3 s \(cluster\.wait_limit\): pod dglzarr-\w+-scheduler: Pending, "
                r"Unschedulable \(0/3 nodes are available: 3 Insufficient memory\)\. Correct KUBEC"
            ),
        ),
        (None, r"\(cluster\.wait_limit\): the operator has made no pod \(is it running\?\)\. Corr"),
    ],
)
def test_client__pods_that_never_run(pod, message, monkeypatch, tmp_path):
    pytest.importorskip("dask_kubernetes")
    before = ours()
    asked = {"kind": "kubernetes", "image": "x", "volumes": {"data": "/data"}, "wait_limit": 3}
    with kube.kubernetes(tmp_path, pod) as api:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        with pytest.raises(ConfigError, match=message) as error, client(ClusterOptions(**asked)):
            pass
        assert "\n" not in str(error.value)
        assert any(line.startswith("POST") for line in api.asked)
        assert api.clusters == []  # removed again
        assert ours() == before
        so_far = len(api.asked)
        time.sleep(1)
        assert len(api.asked) == so_far  # nobody asks any more
    del error
    kube.collect()


@pytest.mark.slow
def test_client__no_operator(monkeypatch, tmp_path):
    pytest.importorskip("dask_kubernetes")
    asked = {"kind": "kubernetes", "image": "x", "volumes": {"data": "/data"}, "wait_limit": 60}
    message = r"got no kind DaskCluster there \(the server .*\)\. .* the operator must be installed"
    with kube.kubernetes(tmp_path, None, has_operator=False):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        with pytest.raises(ConfigError, match=message) as error, client(ClusterOptions(**asked)):
            pass
    assert "\n" not in str(error.value)
    del error
    kube.collect()


@pytest.mark.slow
def test_waiting__workers_whose_pods_have_no_machine(monkeypatch, tmp_path):
    pytest.importorskip("dask_kubernetes")
    options = ClusterOptions(kind="kubernetes", image="x", volumes={"data": "/data"})
    started = SimpleNamespace(name="dglzarr-1", namespace="default")
    with kube.kubernetes(tmp_path, kube.WITHOUT_NODE) as api:
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        api.clusters.append(started.name)
        cause, remedy = launch.waiting(options, started)()
    assert cause.startswith("no pod works yet (pod dglzarr-1-scheduler: Pending, Unschedulable (0/")
    assert remedy == "Look at 'kubectl describe pods'"
    kube.collect()


def mining(folder, wait_limit):
    """Start to mine on an API's pods."""
    write_study(folder, n_samples=40, n_genes=60)
    (folder / "study.toml").write_text(f"{SETTINGS}wait_limit = {wait_limit}\n")
    return subprocess.Popen(
        [PROGRAM, "mine", "study.toml"], cwd=folder, text=True,
        env={**os.environ, "KUBECONFIG": str(folder / "kubeconfig")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_mine__an_image_that_is_not_there_in_one_line(tmp_path):
    pytest.importorskip("dask_kubernetes")
    with kube.kubernetes(tmp_path, kube.WITHOUT_IMAGE) as api:
        program = mining(tmp_path, wait_limit=3)
        (line,) = program.communicate(timeout=120)[0].splitlines()
        assert program.returncode == 2
        assert api.clusters == []
    assert "none in 3 s (cluster.wait_limit): pod dglzarr-" in line
    assert '-scheduler: ErrImagePull (rpc error: code = NotFound: "registry.lab/no:1")' in line
    assert line.endswith("image, namespace, volumes or arguments; the operator must be installed.")


@pytest.mark.slow
def test_mine__a_stop_while_pods_wait(tmp_path):
    pytest.importorskip("dask_kubernetes")
    with kube.kubernetes(tmp_path, kube.WITHOUT_IMAGE) as api:
        program = mining(tmp_path, wait_limit=600)
        while not api.clusters:
            assert program.poll() is None, program.stdout.read()
            time.sleep(0.1)
        program.send_signal(signal.SIGINT)
        assert program.communicate(timeout=60)[0] == "stopped; run again to go on\n"
        assert program.returncode == 130
        assert api.clusters == []


def test_started__a_class_that_waits_without_an_end():
    """Its constructor cannot be ended; what it makes in the end is closed."""
    goes_on, closed = threading.Event(), threading.Event()

    class Slow:
        def __init__(self):
            goes_on.wait(60)

        def close(self, timeout):
            assert timeout
            closed.set()

    asked = ClusterOptions(kind="class", cluster_class="distributed.LocalCluster", wait_limit=1)
    message = r"got none in 1 s \(cluster\.wait_limit\)\. Correct cluster_class or arguments"
    with pytest.raises(ConfigError, match=message):
        launch._started(asked, launch.Launch(Slow, {}))
    assert not closed.is_set()
    goes_on.set()
    assert closed.wait(10)
