"""Clusters that others start for a run: batch jobs, pods, a gateway's, or those of any class."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import subprocess
import tempfile
import threading
import uuid
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask

from dglzarr.errors import ConfigError
from dglzarr.storage import pods
from dglzarr.storage.cluster_options import QUEUES
from dglzarr.storage.files import told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dglzarr.storage.cluster_options import ClusterOptions
    from dglzarr.storage.workers import Why

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(2**25),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
    "MALLOC_ARENA_MAX": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # TensorFlow takes a whole GPU otherwise
}
"""How a worker's memory is managed, beside what Dask sets.

Dask makes it go back to the system at once, so that every temporary above 128 KiB costs a system
call and fresh pages: quantiles take twice the time. Some may stay with the worker.
"""

LOGS = "logs"
"""The folder of a study where jobs write what they say."""

SECONDS_BETWEEN_REPLACEMENTS = 30.0
SECONDS_TO_CLOSE = 20.0

_QUEUE_CLASSES = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster"}
_LOOK = {"slurm": "squeue --me", "pbs": "qstat -u $USER", "lsf": "bjobs"}
_PACKAGES = {
    **dict.fromkeys(QUEUES, ("dask_jobqueue", "slurm")),
    "kubernetes": ("dask_kubernetes", "kubernetes"),
    "gateway": ("dask_gateway", "gateway"),
}
_JOB_WORDS = {
    **dict.fromkeys(("cores", "processes", "job_cpu", "ncpus"), "threads_per_worker"),
    **dict.fromkeys(("memory", "mem", "job_mem"), "memory_limit"),
    **dict.fromkeys(("account", "project"), "account"),
    **{name: name for name in ("queue", "walltime")},
    "security": "tls_ca, tls_cert and tls_key",
}
_POD_WORDS = {
    **{name: name for name in ("image", "namespace")},
    **dict.fromkeys(
        ("env", "resources", "worker_command", "custom_cluster_spec", "scheduler_service_type"),
        "cluster_class = 'dask_kubernetes.operator.KubeCluster' with kind 'class'",
    ),
}
_DECLARED = {
    **dict.fromkeys(QUEUES, _JOB_WORDS),
    "kubernetes": _POD_WORDS,
    "gateway": {"address": "address"},
    "class": {},
}
"""By kind, what the settings call a keyword argument of the cluster's class."""
_KEYS = ".tls-"
_OWN = ("asynchronous", "loop")


class Launch(NamedTuple):
    """A class of clusters, and what it is called with."""

    make: Callable[..., Any]
    keywords: dict[str, Any]


def launch_of(options: ClusterOptions, root: str = "", certificates: Any = None) -> Launch:  # noqa: ANN401
    """Return how a cluster of a kind is started; starts nothing.

    Parameters
    ----------
    options
        Of a kind that is launched.
    root
        The folder of the study, whose folder of logs the jobs write to.
    certificates
        Of the scheduler, the workers and the client of a batch system.

    Raises
    ------
    ConfigError
        When its package, class or command is not there, or an argument is none of its own.
    """
    check_launch(options)
    if options.kind in QUEUES:
        import dask_jobqueue  # noqa: PLC0415  (an extra)

        made: Launch = Launch(
            getattr(dask_jobqueue, _QUEUE_CLASSES[options.kind]),
            {**_job_keywords(options, root), "security": certificates},
        )
    elif options.kind == "kubernetes":
        from dask_kubernetes.operator import KubeCluster  # noqa: PLC0415  (an extra)

        given = {"namespace": options.namespace, "custom_cluster_spec": manifest(options)}
        made = Launch(KubeCluster, {"quiet": True, **given, **options.arguments})
    elif options.kind == "gateway":
        from dask_gateway import GatewayCluster  # noqa: PLC0415  (an extra)

        made = Launch(GatewayCluster, {"address": options.address, **options.arguments})
    else:
        made = Launch(_class_named(options.cluster_class or ""), dict(options.arguments))
    return made


def check_launch(options: ClusterOptions) -> None:
    """Refuse a kind whose package, class or command is not there.

    Raises
    ------
    ConfigError
        Naming what is missing, and how to get it.
    """
    if options.kind in _PACKAGES:
        package, extra = _PACKAGES[options.kind]
        if find_spec(package) is None:
            raise ConfigError(
                f"cluster.kind: expected {package} to be installed for kind {options.kind!r}, got "
                f"none. Run: pip install 'dglzarr[{extra}]'"
            )
    if options.kind in QUEUES:
        import dask_jobqueue  # noqa: PLC0415  (an extra)

        submit = getattr(dask_jobqueue, _QUEUE_CLASSES[options.kind]).job_cls.submit_command
        if shutil.which(submit.split()[0]) is None:
            raise ConfigError(
                f"cluster.kind: expected the command {submit} for kind {options.kind!r}, got none "
                "on PATH. Start the run on a machine that submits jobs."
            )
    if options.kind == "class":
        _class_named(options.cluster_class or "")
    declared = {"n_workers": "n_workers", **_DECLARED[options.kind]}
    for name in options.arguments:
        if name in _OWN:
            raise ConfigError(f"cluster.arguments: {name!r} is the run's own. Remove it.")
        if name in declared:
            raise ConfigError(
                f"cluster.arguments: expected no {name!r}, which has a setting. Use cluster."
                f"{declared[name]}."
            )


def _class_named(name: str) -> Callable[..., Any]:
    """Return a class by its dotted name."""
    module, _, attribute = name.rpartition(".")
    place = f"cluster.cluster_class: expected a class as package.module.Class, got {name!r}"
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{place}: {error}. Correct it or install its package.") from error
    if not isinstance(found, type) or not hasattr(found, "scale"):
        raise ConfigError(f"{place}, which is no cluster class. Name one that has 'scale'.")
    return found


# ---------------------------------------------------------------- batch systems


def _job_keywords(options: ClusterOptions, root: str) -> dict[str, Any]:
    """Return what dask-jobqueue's class is called with: one worker a job."""
    arguments = dict(options.arguments)
    logs = f"{root}/{LOGS}" if root else None
    payer = "project" if options.kind == "lsf" else "account"
    exports = [f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()]
    keywords = {
        "cores": options.threads_per_worker,
        "memory": options.memory_limit,
        "processes": 1,
        "job_name": "dglzarr",
        "queue": options.queue,
        payer: options.account,
        "walltime": _walltime(options),
        "log_directory": logs,
        "worker_extra_args": [*_lifetime(options), *arguments.pop("worker_extra_args", ())],
        "job_script_prologue": [*exports, *arguments.pop("job_script_prologue", ())],
        "scheduler_options": {
            "dashboard_address": "127.0.0.1:0",
            **arguments.pop("scheduler_options", {}),
        },
    }
    if options.kind == "lsf":
        keywords["job_cls"] = _lsf_job()
    return {**{k: v for k, v in keywords.items() if v is not None}, **arguments}


def _lsf_job() -> Any:  # noqa: ANN401
    """Return a job of LSF that is told what ``bsub`` says: dask-jobqueue's throws that away."""
    from dask_jobqueue.lsf import LSFJob  # noqa: PLC0415  (an extra)

    class Job(LSFJob):  # type: ignore[misc]
        async def _submit_job(self, script_filename: str) -> Any:  # noqa: ANN401
            if self.use_stdin:
                command = f"{self.submit_command} < {script_filename}"
                return await self._call([command], shell=True)  # noqa: S604  (its own file)
            return await super()._submit_job(script_filename)

    return Job


def _walltime(options: ClusterOptions) -> str | None:
    """Return the time of a job as its batch system writes it: LSF knows no seconds."""
    if options.kind == "lsf" and options.walltime:
        return options.walltime.rpartition(":")[0]
    return options.walltime


def _lifetime(options: ClusterOptions) -> list[str]:
    """Return how a worker is told to leave before its job is ended."""
    known = options.walltime or dask.config.get(f"jobqueue.{options.kind}.walltime", None)
    parts = str(known or "").split(":")
    if not all(part.isdigit() for part in parts):
        return []  # a form of the site's own, such as days
    parts = [*parts, "0"] if options.kind == "lsf" and len(parts) == 2 else parts
    hours, minutes, seconds = ([0, 0] + [int(part) for part in parts])[-3:]
    whole = 3600 * hours + 60 * minutes + seconds
    stagger = whole // 20
    return ["--lifetime", f"{whole - 2 * stagger}s", "--lifetime-stagger", f"{stagger}s"]


def security(options: ClusterOptions) -> Any:  # noqa: ANN401
    """Return the certificates that are named, for every role; None where none are."""
    if options.tls_ca and options.tls_cert and options.tls_key:
        return _security(options.tls_ca, options.tls_cert, options.tls_key)
    return None


def _security(authority: str, certificate: str, key: str) -> Any:  # noqa: ANN401
    from distributed.security import Security  # noqa: PLC0415  (takes a second to import)

    roles = ("scheduler", "worker", "client")
    own = {f"tls_{role}_cert": certificate for role in roles}
    own |= {f"tls_{role}_key": key for role in roles}
    return Security(tls_ca_file=authority, require_encryption=True, **own)


@contextmanager
def _certified(options: ClusterOptions, root: str) -> Iterator[Any]:
    """Yield the certificates of a batch system's cluster: those named, or some made for the run.

    These stand in the folder of logs, where jobs see them and nobody else may look; they are gone
    in the end. A killed run leaves them, and the next one removes them.
    """
    if named := security(options):
        yield named
        return
    from distributed.security import Security  # noqa: PLC0415  (takes a second to import)

    made = Security.temporary()
    folder = Path(tempfile.mkdtemp(prefix=_KEYS, dir=Path(root, LOGS) if root else None))
    try:
        paths = {}
        for name in ("ca_file", "client_cert", "client_key"):
            paths[name] = str(folder / f"{name}.pem")
            Path(paths[name]).write_text(getattr(made, f"tls_{name}"), encoding="ascii")
        yield _security(paths["ca_file"], paths["client_cert"], paths["client_key"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- Kubernetes


def manifest(options: ClusterOptions) -> dict[str, Any]:
    """Return the DaskCluster that the operator is asked for, by its own template."""
    from dask_kubernetes.operator import make_cluster_spec  # noqa: PLC0415  (an extra)

    memory = options.memory_limit.replace(" ", "").removesuffix("B")
    asked = {"cpu": str(options.threads_per_worker), "memory": memory}
    worker = ["dask", "worker", "--nthreads", str(options.threads_per_worker)]
    made: dict[str, Any] = make_cluster_spec(
        name=f"dglzarr-{uuid.uuid4().hex[:8]}",
        image=options.image,
        n_workers=options.n_workers,
        resources={"requests": asked, "limits": asked},
        env=dict(WORKER_ENVIRONMENT),
        worker_command=[*worker, "--memory-limit", options.memory_limit.replace(" ", "")],
    )
    (scheduler,) = made["spec"]["scheduler"]["spec"]["containers"]
    if scheduler["args"][:1] == ["dask-scheduler"]:  # a command that Dask no longer installs
        scheduler["args"][:1] = ["dask", "scheduler"]
    pod = made["spec"]["worker"]["spec"]
    pod["volumes"] = [
        {"name": f"volume-{i}", "persistentVolumeClaim": {"claimName": claim}}
        for i, claim in enumerate(options.volumes)
    ]
    pod["containers"][0]["volumeMounts"] = [
        {"name": f"volume-{i}", "mountPath": path}
        for i, path in enumerate(options.volumes.values())
    ]
    return made


# ---------------------------------------------------------------- running


@contextmanager
def held(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals wait until the end of a block that would leave processes behind."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def launched(options: ClusterOptions, root: str = "") -> Iterator[tuple[Any, Any]]:
    """Yield a cluster that is started for a run, and its client; both are closed in the end.

    Raises
    ------
    ConfigError
        When the cluster's class refuses what it is told, or its service the first request.
    """
    check_launch(options)
    with ExitStack() as stack:
        certificates = None
        if options.kind in QUEUES:
            if root:
                _prepare(root)
            certificates = stack.enter_context(_certified(options, root))
        cluster, client = _started(options, launch_of(options, root, certificates))
        try:
            _replace_lost(cluster)
            yield cluster, client
        finally:
            with held(signal.SIGINT, signal.SIGTERM), ExitStack() as closing:
                for opened in (cluster, client):  # the last is closed first, and each in any case
                    closing.callback(_close, opened)


def _close(opened: Any) -> None:  # noqa: ANN401
    with suppress(OSError, TimeoutError):
        opened.close()


def _started(options: ClusterOptions, launch: Launch) -> tuple[Any, Any]:
    """Return a cluster that has been asked for its workers, and its client; in time or not at all.

    It is made in a thread of its own, for some classes wait without an end, as for a pod whose
    image is not there; this thread hears a stop.
    """
    made: list[Any] = []
    is_over = threading.Event()
    before = _instances(launch.make)
    starting = _beside(_start, options, launch, made, is_over)
    try:
        started: tuple[Any, Any] = starting.result(timeout=options.wait_limit)
    except BaseException as error:  # whatever a class, its service or its library raises; a stop
        is_over.set()
        reason = ""
        if isinstance(error, Exception):
            is_late = not starting.done()
            reason = _late(options, launch) if is_late else _reason(error)
        for half_made in {*made, *_instances(launch.make)} - before:
            _give_up(half_made)
        if options.kind == "kubernetes":  # one that was asked for, and closed before it was there
            with suppress(Exception):
                _beside(pods.remove, *_place(options, launch)).result(pods.SECONDS_TO_ANSWER + 5)
        if not isinstance(error, Exception):
            raise
        raise ConfigError(f"{_refused(options)} {reason}. {_remedy(options)}") from error
    return started


def _start(
    options: ClusterOptions, launch: Launch, made: list[Any], is_over: threading.Event
) -> tuple[Any, Any]:
    """Make a cluster, ask it for workers and for a client; close it where nobody waits any more."""
    cluster = launch.make(**launch.keywords)
    made.append(cluster)
    if is_over.is_set():
        _give_up(cluster)
        raise TimeoutError
    if options.kind in QUEUES:
        cluster.sync(_hand_in, cluster, options.n_workers)
    else:
        cluster.scale(options.n_workers)
    if options.max_workers:
        cluster.adapt(minimum=options.n_workers, maximum=options.max_workers)
    return cluster, cluster.get_client()


def _beside(call: Callable[..., Any], *given: Any) -> Future[Any]:  # noqa: ANN401
    """Call in a thread of its own, which keeps nobody from ending; return what will come of it."""
    coming: Future[Any] = Future()

    def run() -> None:
        try:
            coming.set_result(call(*given))
        except BaseException as error:  # noqa: BLE001  (raised to whoever asks for the result)
            coming.set_exception(error)

    threading.Thread(target=run, name=f"dglzarr {call.__name__}", daemon=True).start()
    return coming


def _late(options: ClusterOptions, launch: Launch) -> str:
    """Return that a cluster did not start in time, and why where its service tells."""
    late = f"none in {options.wait_limit} s (cluster.wait_limit)"
    waits = _waits(*_place(options, launch)) if options.kind == "kubernetes" else ""
    return f"{late}: {waits}" if waits else late


def _waits(name: str, namespace: str | None) -> str:
    """Return what pods wait for, "" where nobody tells."""
    with suppress(Exception):
        asked = _beside(pods.waits_of, name, namespace)
        return str(asked.result(pods.SECONDS_TO_ANSWER + 5))
    return ""


def _place(options: ClusterOptions, launch: Launch) -> tuple[str, str | None]:
    """Return name and namespace of a DaskCluster."""
    return launch.keywords["custom_cluster_spec"]["metadata"]["name"], options.namespace


def _instances(make: Any) -> set[Any]:  # noqa: ANN401
    """Return the clusters that a class closes at the end of the process, half-made ones too."""
    return set(getattr(make, "_instances", ()))


def _give_up(cluster: Any) -> None:  # noqa: ANN401
    """Close a cluster of which some jobs never came to be, or which never came to be itself."""
    from distributed.core import Status  # noqa: PLC0415  (takes a second to import)

    for worker in getattr(cluster, "workers", {}).values():
        if getattr(worker, "job_id", "") is None:
            worker.status = Status.failed  # or closing it fails too
    with suppress(Exception):
        _beside(lambda: cluster.close(timeout=10)).result(timeout=SECONDS_TO_CLOSE)
    with suppress(Exception):
        cluster._loop_runner.stop()  # noqa: SLF001  (ends what it still waits for)
    if _instances(type(cluster)):
        cluster.status = Status.closed  # or it is closed again at the end, with a traceback


def _prepare(root: str) -> None:
    """Make the folder of logs, without keys that a killed run left in it."""
    logs = Path(root, LOGS)
    with told(root, remedy="Choose a writable root."):
        logs.mkdir(parents=True, exist_ok=True)
        for left in logs.glob(f"{_KEYS}*"):
            shutil.rmtree(left, ignore_errors=True)


async def _hand_in(cluster: Any, n_workers: int) -> None:  # noqa: ANN401
    """Hand in the first jobs, which raises what their batch system says: ``scale`` does not."""
    while len(cluster.worker_spec) < n_workers:
        cluster.worker_spec.update(cluster.new_worker_spec())
    await cluster


def _replace_lost(cluster: Any) -> None:  # noqa: ANN401
    """Ask for another worker where one is gone: its time was over, or its machine died."""
    from distributed.deploy.spec import SpecCluster  # noqa: PLC0415  (takes a second to import)

    if not isinstance(cluster, SpecCluster):
        return  # its service does so

    async def replace() -> None:
        while cluster.status.name == "running":
            try:
                await cluster  # starts whom it lacks
            except (OSError, RuntimeError, ValueError) as error:
                logger.warning("cluster: a lost worker is not replaced: %s.", _reason(error))
                for name, worker in list(cluster.workers.items()):
                    if getattr(worker, "job_id", name) is None:
                        del cluster.workers[name]  # asked for again
            await asyncio.sleep(SECONDS_BETWEEN_REPLACEMENTS)

    cluster.loop.add_callback(replace)


def waiting(options: ClusterOptions, cluster: Any) -> Why:  # noqa: ANN401
    """Return what tells why no worker has come, and what to do."""

    def why() -> tuple[str, str]:
        if options.kind == "kubernetes":
            waits = _waits(cluster.name, cluster.namespace) or "none waits"
            return f"no pod works yet ({waits})", "Look at 'kubectl describe pods'"
        if options.kind not in QUEUES:
            return f"{type(cluster).__name__} has no workers yet", "Look at what its service says"
        jobs = [worker.job_id for worker in cluster.workers.values() if worker.job_id]
        states = _states(jobs) if options.kind == "slurm" else f"jobs {', '.join(jobs)}"
        cause = f"no job of {options.kind} works yet ({states})"
        return cause, f"Look at '{_LOOK[options.kind]}' and the jobs' logs in {LOGS} of the study"

    return why


def _states(jobs: list[str]) -> str:
    """Return what SLURM says of some jobs."""
    command = ["squeue", "--noheader", "--jobs", ",".join(jobs), "--format", "%i %T %r"]
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10, "check": False}
    try:
        asked = subprocess.run(command, **how)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (
        "; ".join(asked.stdout.replace(" None", "").split("\n")).strip("; ")
        or f"{', '.join(jobs)}: ended"
    )


def _refused(options: ClusterOptions) -> str:
    if options.kind in QUEUES:
        return f"cluster.kind: expected {options.kind} to take the job, got"
    return f"cluster.kind: expected a cluster of kind {options.kind!r}, got"


def _reason(error: Exception) -> str:
    """Return what a library says, in one line: of a command that failed what it wrote."""
    text = str(error) or type(error).__name__
    if type(error).__module__.startswith("kr8s") and "could not find the requested" in text:
        text = f"no kind DaskCluster there ({text})"
    _, _, said = text.partition("stderr:\n")
    lines = [line.strip() for line in (said.strip() or text).splitlines() if line.strip()]
    return "; ".join(lines)[:400].rstrip(".")


def _remedy(options: ClusterOptions) -> str:
    return {
        **dict.fromkeys(QUEUES, "Correct queue, account, walltime, memory or arguments."),
        "kubernetes": (
            "Correct KUBECONFIG, image, namespace, volumes or arguments; the operator must be "
            "installed."
        ),
        "gateway": "Correct address or arguments.",
    }.get(options.kind, "Correct cluster_class or arguments.")
