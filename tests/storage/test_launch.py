"""Clusters that others start: job scripts, manifests, a real SLURM, TLS, and one line where not."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from importlib.resources import files
from itertools import pairwise
from shutil import which

import pytest
import yaml

from dglzarr.errors import ConfigError, DglzarrError
from dglzarr.settings import build_settings
from dglzarr.storage import cluster, launch, workers
from dglzarr.storage.cluster import client
from dglzarr.storage.cluster_options import ClusterOptions
from dglzarr.storage.launch import LOGS, check_launch, launch_of, manifest
from dglzarr.storage.store import open_store
from dglzarr.storage.tasks import run_tasks
from dglzarr.studies.plan import mine
from tests import gateway
from tests.builders import simulate, write_files
from tests.kube import collect, write_kubeconfig
from tests.slurm import absent, slurm
from tests.tls import certificates, secured

ENVIRONMENT = "\n".join(f"export {k}={v}" for k, v in launch.WORKER_ENVIRONMENT.items())
HEADERS = {
    "slurm": """\
#!/usr/bin/env bash

#SBATCH -J dglzarr
#SBATCH -e {logs}/dglzarr-%J.err
#SBATCH -o {logs}/dglzarr-%J.out
#SBATCH -p long
#SBATCH -A lab
#SBATCH -n 1
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH -t 10:00:00
#SBATCH --constraint=avx2""",
    "pbs": """\
#!/usr/bin/env bash

#PBS -N dglzarr
#PBS -q long
#PBS -A lab
#PBS -l select=1:ncpus=4:mem=16GB
#PBS -l walltime=10:00:00
#PBS -e {logs}/
#PBS -o {logs}/
#PBS --constraint=avx2""",
    "lsf": """\
#!/usr/bin/env bash

#BSUB -J dglzarr
#BSUB -e {logs}/dummy-name-%J.err
#BSUB -o {logs}/dummy-name-%J.out
#BSUB -q long
#BSUB -P "lab"
#BSUB -n 4
#BSUB -R "span[hosts=1]"
#BSUB -M 17179870
#BSUB -W 10:00
#BSUB --constraint=avx2""",
}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}


def queued(kind="slurm", **choices):
    """Options of a batch system on this machine."""
    arguments = {"interface": "lo", **choices.pop("arguments", {})}
    return ClusterOptions(kind=kind, arguments=arguments, **choices)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Commands of batch systems that are not here: nobody calls them but `which`."""
    place = tmp_path / "bin"
    place.mkdir()
    for name in (*SUBMIT.values(), "lsadmin"):
        (place / name).write_text("#!/bin/sh\nexit 1\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


# ---------------------------------------------------------------- what is asked for


@pytest.mark.slow
@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize("kind", HEADERS)
def test_job_script__is_what_the_settings_say(kind, tmp_path):
    """The script is dask-jobqueue's own, which starts a scheduler for it but hands nothing in."""
    options = queued(
        kind, queue="long", account="lab", walltime="10:00:00", threads_per_worker=4,
        memory_limit="16GiB",
        arguments={
            "job_extra_directives": ["--constraint=avx2"],
            "job_script_prologue": ["module load python"],
            **({"lsf_units": "kb"} if kind == "lsf" else {}),
        },
    )  # fmt: skip
    made = launch_of(options, str(tmp_path))
    with made.make(**made.keywords) as started:
        script = started.job_script()
        address = started.scheduler.address
    header, _, command = script.partition("\n" + ENVIRONMENT)
    assert header == HEADERS[kind].format(logs=tmp_path / LOGS)
    assert command.startswith("\nmodule load python\n")
    words = command.split("\n")[-2].split()
    assert words[:4] == [sys.executable, "-m", "distributed.cli.dask_worker", address]
    asked = dict(pairwise(words))
    assert (asked["--nthreads"], asked["--memory-limit"]) == ("4", "16.00GiB")
    assert (asked["--lifetime"], asked["--lifetime-stagger"]) == ("32400s", "1800s")
    assert asked["--interface"] == "lo"
    assert subprocess.run(["/bin/bash", "-n"], input=script, text=True, check=True).returncode == 0


def test_lifetime__leaves_before_the_job_ends():
    pytest.importorskip("dask_jobqueue")  # its configuration has the walltime that it takes

    def seconds(kind, walltime):
        (_, lifetime, _, stagger) = launch._lifetime(queued(kind, walltime=walltime))
        return int(lifetime[:-1]), int(stagger[:-1])

    for kind in SUBMIT:
        for walltime, whole in (("00:30:00", 1800), ("72:00:00", 259200)):
            lifetime, stagger = seconds(kind, walltime)
            assert 0.85 * whole <= lifetime <= lifetime + stagger < whole
        assert seconds(kind, None) == seconds(kind, "00:30:00")  # dask-jobqueue's own


def pods(**choices):
    asked = {"image": "registry.lab/dglzarr:1", "volumes": {"data": "/data", "work": "/work"}}
    return ClusterOptions(kind="kubernetes", **{**asked, **choices})


def operators_schema():
    """What the operator takes as a DaskCluster; Kubernetes' own parts are left to its client."""
    folder = files("dask_kubernetes.operator.customresources")
    definitions = yaml.safe_load(folder.joinpath("templates.yaml").read_text())["definitions"]

    def resolved(part):
        if isinstance(part, dict) and "$ref" in part:
            place, _, name = part["$ref"].rpartition("/")
            return resolved(definitions[name]) if "dask_kubernetes" in place else {}
        if isinstance(part, dict):
            return {key: resolved(value) for key, value in part.items()}
        return [resolved(value) for value in part] if isinstance(part, list) else part

    return resolved(definitions["dask.k8s.api.v1.DaskCluster"])


def test_manifest__follows_the_operators_schema_and_kubernetes():
    jsonschema = pytest.importorskip("jsonschema")
    kubernetes = pytest.importorskip("kubernetes")
    made = manifest(pods(n_workers=3, threads_per_worker=4, memory_limit="16 GiB"))
    schema = operators_schema()
    jsonschema.validate(made, schema)
    wrong = {**made["spec"], "worker": {**made["spec"]["worker"], "replicas": "three"}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**made, "spec": wrong}, schema)
    api = kubernetes.client.ApiClient()
    for role in ("scheduler", "worker"):  # what the client does not know, it leaves out
        pod = made["spec"][role]["spec"]
        read = api._ApiClient__deserialize(pod, "V1PodSpec")
        assert api.sanitize_for_serialization(read) == pod
    worker = made["spec"]["worker"]
    assert worker["replicas"] == 3
    (container,) = worker["spec"]["containers"]
    assert container["image"] == "registry.lab/dglzarr:1"
    words = ["dask", "worker", "--nthreads", "4", "--memory-limit", "16GiB"]
    assert container["args"][:6] == words
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi"}
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/data", "/work"]
    claims = [v["persistentVolumeClaim"]["claimName"] for v in worker["spec"]["volumes"]]
    assert claims == ["data", "work"]
    (scheduler,) = made["spec"]["scheduler"]["spec"]["containers"]
    assert scheduler["args"][:2] == ["dask", "scheduler"]


def test_manifest__commands_are_those_that_dask_installs():
    """Pods start ``dask worker``; the template's ``dask-scheduler`` is not installed by Dask."""
    options = manifest(pods())["spec"]["worker"]["spec"]["containers"][0]["args"]
    known = subprocess.run(
        [sys.executable, "-m", "dask", "worker", "--help"],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    for option in options:
        assert not option.startswith("--") or option in known


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"queue": "long"}, "cluster.queue: expected with kind slurm or pbs or lsf, got kind"),
        ({"kind": "slurm", "image": "x"}, "cluster.image: expected with kind kubernetes, got kind"),
        ({"address": "tcp://a:1"}, "cluster.address: expected with kind address or gateway, got"),
        ({"kind": "none", "max_workers": 4}, "cluster.max_workers: expected with kind local or "),
        ({"n_workers": 4, "max_workers": 3}, r"max_workers: expected at least n_workers \(4\)"),
        ({"kind": "slurm", "memory_limit": "auto"}, "memory_limit: expected bytes for kind 'slurm"),
        ({"kind": "slurm", "walltime": "1-00"}, "walltime: String should match pattern"),
        ({"kind": "kubernetes"}, "cluster.kind: 'kubernetes' needs image"),
        ({"kind": "kubernetes", "image": "x"}, "cluster.kind: 'kubernetes' needs volumes"),
        ({"kind": "gateway"}, "cluster.kind: 'gateway' needs address"),
        (
            {"kind": "gateway", "address": "127.0.0.1:8000"},
            "cluster.address: expected http://HOST:PORT or https://... of a gateway, got '127.0.0",
        ),
        ({"kind": "class"}, "cluster.kind: 'class' needs cluster_class"),
        ({"kind": "slurm", "tls_ca": "ca.pem"}, "go together: tls_cert, tls_key is missing"),
        (
            {
                "kind": "address",
                "address": "tcp://a:1",
                "tls_ca": "a",
                "tls_cert": "b",
                "tls_key": "c",
            },
            "cluster.address: expected tls://HOST:PORT with certificates, got 'tcp://a:1'",
        ),
    ],
)
def test_options__that_contradict_each_other(choices, message, tmp_path):
    content = {"root": "study", "sources": [{"uri": "x.tsv"}], "cluster": choices}
    with pytest.raises(ConfigError, match=message) as error:
        build_settings(content, name="study.toml", folder=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ClusterOptions(kind="pbs"), r"expected the command qsub for kind 'pbs', got none on PATH"),
        (
            ClusterOptions(kind="class", cluster_class="distributed.NoCluster"),
            r"got 'distributed\.NoCluster': module 'distributed' has no attribute 'NoCluster'",
        ),
        (
            ClusterOptions(kind="class", cluster_class="no_such_package.Cluster"),
            "No module named 'no_such_package'. Correct it or install its package",
        ),
        (ClusterOptions(kind="class", cluster_class="Cluster"), "cluster_class: expected a class"),
        (ClusterOptions(kind="class", cluster_class="os.path"), "cluster_class: expected a class"),
        (
            ClusterOptions(kind="class", cluster_class="pathlib.Path"),
            "which is no cluster class. Name one that has 'scale'",
        ),
        (
            ClusterOptions(
                kind="class", cluster_class="distributed.LocalCluster", arguments={"n_workers": 2}
            ),
            "expected no 'n_workers', which has a setting. Use cluster.n_workers",
        ),
        (
            pods(arguments={"resources": {}}),
            "expected no 'resources', which has a setting. Use cluster.cluster_class = 'dask_kube",
        ),
        (pods(arguments={"asynchronous": True}), "'asynchronous' is the run's own. Remove it"),
    ],
)
def test_check_launch__what_is_missing(options, message, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=message) as error:
        check_launch(options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [
        (ClusterOptions(kind="lsf"), "dask_jobqueue", "slurm"),
        (pods(), "dask_kubernetes", "kubernetes"),
        (ClusterOptions(kind="gateway", address="http://a"), "dask_gateway", "gateway"),
    ],
)
def test_check_launch__packages_that_are_not_installed(options, package, extra, monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == package else True)
    message = rf"expected {package} to be installed .* pip install 'dglzarr\[{extra}\]'"
    with pytest.raises(ConfigError, match=message):
        check_launch(options)


def study(folder, root, asked):
    """Settings of a small study, whose panel is found in seconds."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        write_files(data, simulate(64, 32, n_series=4))
    content = {
        "root": str(root),
        "sources": [{"uri": f"{data}/*_series_matrix.txt"}],
        "ingest": {"split_by": "sample", "shard_samples": 16},
        "dedup": {"n_clusters": 2},
        "train": {"epochs": 1, "hidden": 8, "n_latent": 3},
        "select": {"n_landmarks": 4, "n_random": 2, "selector": "top-score"},
        "cluster": asked,
    }
    return build_settings(content, name="test", folder=folder)


def test_mine__refuses_a_cluster_before_work(tmp_path):
    wrong = {"kind": "class", "cluster_class": "distributed.NoCluster"}
    with pytest.raises(ConfigError, match="has no attribute 'NoCluster'"):
        mine(study(tmp_path, tmp_path / "study", wrong))
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ClusterOptions(kind="gateway", address="http://127.0.0.1:1"),
            "cluster.kind: expected a cluster of kind 'gateway', got .*Connect.* Correct address",
        ),
        (pods(), "got All connection attempts failed. Correct KUBECONFIG, image, namespace, volu"),
        (pods(namespace="absent"), r"got Context absent not found\. Correct KUBECONFIG"),
        (pods(arguments={"context": "x"}), "got .* unexpected keyword argument 'context'"),
    ],
)
def test_client__a_service_that_does_not_answer(options, message, monkeypatch, tmp_path):
    kubecluster = pytest.importorskip("dask_kubernetes.operator.kubecluster.kubecluster")
    config = tmp_path / "kubeconfig"  # of a server that is not there
    write_kubeconfig(config, "http://127.0.0.1:1", current=options.namespace or "x")
    monkeypatch.setenv("KUBECONFIG", str(config))
    started = time.monotonic()
    with pytest.raises(ConfigError, match=message) as error, client(options):
        pass
    assert "\n" not in str(error.value)
    assert time.monotonic() - started < 60
    kubecluster.reap_clusters()  # the end of the process: it raised what it could not close
    del error
    collect()


# ---------------------------------------------------------------- at work


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """The small study, mined in this process."""
    folder = tmp_path_factory.mktemp("mined")
    mine(study(folder, folder / "study", {"kind": "none"}))
    return folder


def assert_same_panel(root, mined):
    for name in ("landmarks", "scores", "segments/0000/normalized"):
        made, known = (open_store(f"{place}/{name}.zarr") for place in (root, mined / "study"))
        assert made.drop_attrs().equals(known.drop_attrs())


@pytest.mark.slow
def test_client__any_class_fixed_and_adaptive():
    arguments = {
        "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0",
        "memory_limit": "1GiB", "silence_logs": logging.CRITICAL, "host": "127.0.0.1",
    }  # fmt: skip
    asked = {"kind": "class", "cluster_class": "distributed.LocalCluster", "arguments": arguments}
    with client(ClusterOptions(n_workers=1, max_workers=3, **asked)) as connected:
        pids = run_tasks(os.getpid, [()], what="tasks")
        assert pids != [os.getpid()]
        assert 1 <= len(connected.scheduler_info(n_workers=-1)["workers"]) <= 3


@pytest.mark.slow
def test_launched__a_stop_while_it_starts_leaves_no_cluster():
    """Of a real cluster, as a signal raises it: not an Exception."""
    from distributed import LocalCluster

    made = []

    class Cluster(LocalCluster):
        def get_client(self):
            made.append(self)
            raise KeyboardInterrupt

    keywords = {"n_workers": 0, "processes": False, "dashboard_address": ":0"}
    with pytest.raises(KeyboardInterrupt):
        launch._started(
            ClusterOptions(kind="class", cluster_class="distributed.LocalCluster", n_workers=1),
            launch.Launch(Cluster, {**keywords, "silence_logs": logging.CRITICAL}),
        )
    assert made[0].status.name == "closed"


def test_launched__the_cluster_is_closed_whatever_closing_its_client_raises(monkeypatch):
    closed = []

    class Closed:
        def close(self):
            closed.append(self)
            raise RuntimeError("loop is closed") if self is client else TimeoutError

    started, client = Closed(), Closed()
    asked = ClusterOptions(kind="class", cluster_class="distributed.LocalCluster")
    monkeypatch.setattr(launch, "_started", lambda *_: (started, client))
    with pytest.raises(RuntimeError, match="loop is closed"), launch.launched(asked):
        pass
    assert closed == [client, started]


@pytest.mark.slow
def test_mine__over_tls__the_same_panel(mined, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "TIME_TO_CONNECT", "2s")
    with secured(tmp_path) as (address, own):
        assert address.startswith("tls://127.0.0.1")
        there = {"kind": "address", "address": address}
        mine(study(mined, tmp_path / "study", {**there, **own}))
        assert_same_panel(tmp_path / "study", mined)
        stranger = certificates(tmp_path / "stranger")
        with (
            pytest.raises(ConfigError, match=r"at 'tls://.*, or takes no such certificates"),
            client(ClusterOptions(**there, **stranger)),
        ):
            pass
    unread = {**own, "tls_key": str(tmp_path / "none.pem")}
    with (
        pytest.raises(ConfigError, match=r"they cannot be read: .* Correct cluster\.tls_ca"),
        client(ClusterOptions(**there, **unread)),
    ):
        pass


REFUSALS = {
    "slurm": (
        "sbatch: error: Batch job submission failed: Invalid account or account/partition "
        "combination specified"
    ),
    "pbs": "qsub: Invalid account",
    "lsf": "nope: is not a valid project. Job not submitted.",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSALS)
def test_client__a_wrong_account_in_one_line(kind, commands, tmp_path):
    """As the batch system's own command says it: a SLURM without accounting refuses no account."""
    (commands / SUBMIT[kind]).write_text(f"#!/bin/sh\necho '{REFUSALS[kind]}' >&2\nexit 1\n")
    said = re.escape(REFUSALS[kind].rstrip("."))
    message = rf"^cluster\.kind: expected {kind} to take the job, got {said}\. Correct queue, acc"
    options = queued(kind, account="nope")
    with pytest.raises(ConfigError, match=message) as error, client(options, root=str(tmp_path)):
        pass
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- a real SLURM


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """SLURM on this machine, with a partition that works and one that is closed."""
    if missing := absent():
        pytest.skip(f"SLURM: {', '.join(missing)} are not installed (Debian: slurm-wlm, munge)")
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def impatient(batch, monkeypatch, caplog):
    """What takes a minute takes a second; SLURM's commands reach the one that runs here."""
    monkeypatch.setenv("SLURM_CONF", batch["SLURM_CONF"])
    monkeypatch.setattr(workers, "SECONDS_FOR_A_WORKER", 1.0)
    monkeypatch.setattr(workers, "SECONDS_UNTOLD", 1.0)
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", 0.2)
    monkeypatch.setattr(launch, "SECONDS_BETWEEN_REPLACEMENTS", 0.5)
    caplog.set_level(logging.WARNING, logger="dglzarr")
    return caplog


def jobs():
    asked = [which("squeue"), "--noheader", "--format=%i", "--states=RUNNING,PENDING"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_slurm__mines_the_same_panel(mined, tmp_path):
    asked = {
        "kind": "slurm", "queue": "short", "walltime": "00:30:00", "memory_limit": "2GiB",
        "arguments": {"interface": "lo"},
    }  # fmt: skip
    mine(study(mined, tmp_path / "study", asked))
    assert_same_panel(tmp_path / "study", mined)
    assert jobs() == []
    logs = tmp_path / "study" / LOGS
    assert len(list(logs.glob("dglzarr-*.err"))) == 2
    assert [path.name for path in logs.glob(".*")] == []  # no keys are left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"queue": "nope"}, "expected slurm to take the job, got sbatch: .*invalid partition"),
        ({"queue": "short", "memory_limit": "4000GiB"}, "Correct queue, account, walltime, memory"),
        (
            {"queue": "closed", "wait_limit": 2},
            r"^cluster: no job of slurm works yet \(\d+ PENDING PartitionDown.*'squeue --me'",
        ),
    ],
)
@pytest.mark.usefixtures("impatient")
def test_slurm__what_it_refuses_in_one_line(choices, message, tmp_path):
    with (
        pytest.raises(DglzarrError, match=message) as error,
        client(queued(**choices), root=str(tmp_path)),
    ):
        pass
    assert "\n" not in str(error.value)
    assert jobs() == []


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_slurm__a_job_that_is_lost_is_replaced(tmp_path):
    import dask

    with dask.config.set({"distributed.deploy.lost-worker-timeout": "500ms"}):
        options = queued(n_workers=1, queue="short", memory_limit="2GiB")
        with client(options, root=str(tmp_path)):
            (first,) = run_tasks(os.getpid, [()], what="tasks")
            (job,) = jobs()
            subprocess.run([which("scancel"), job], check=True)
            deadline = time.monotonic() + 60
            while jobs() in ([], [job]) and time.monotonic() < deadline:
                time.sleep(0.2)
            (second,) = run_tasks(os.getpid, [()], what="tasks")
    assert second not in (first, os.getpid())


# ---------------------------------------------------------------- a real gateway


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """The address of a Dask gateway on this machine."""
    if not gateway.is_installed():
        pytest.skip("a Dask gateway: dask-gateway-server[local] is not installed")
    with gateway.gateway(tmp_path_factory.mktemp("gateway")) as address:
        yield address


@pytest.mark.slow
def test_gateway__mines_the_same_panel(mined, tmp_path, gate):
    mine(study(mined, tmp_path / "study", {"kind": "gateway", "address": gate}))
    assert_same_panel(tmp_path / "study", mined)
    collect()
    assert gateway.processes(gate) == []


@pytest.mark.slow
def test_gateway__a_worker_that_is_killed_is_replaced(gate):
    options = ClusterOptions(kind="gateway", address=gate, n_workers=1)
    with client(options):
        (first,) = run_tasks(os.getpid, [()], what="tasks")
        os.kill(first, signal.SIGKILL)
        (second,) = run_tasks(os.getpid, [()], what="tasks")
    collect()
    assert second not in (first, os.getpid())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "arguments", "message"),
    [
        ("", {"image": "x"}, r"got Unknown fields \['image'\]\. Correct address or arguments"),
        ("/other", {}, r"got 404: Not Found\. Correct address or arguments"),
    ],
)
def test_gateway__what_it_refuses_in_one_line(place, arguments, message, gate):
    options = ClusterOptions(kind="gateway", address=f"{gate}{place}", arguments=arguments)
    with pytest.raises(ConfigError, match=message) as error, client(options):
        pass
    assert "\n" not in str(error.value)
    del error
    collect()
    assert gateway.processes(gate) == []
