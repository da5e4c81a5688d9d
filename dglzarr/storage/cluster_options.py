"""Where Dask runs, as a section of the settings."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dglzarr.storage.options import Options, choice
from dglzarr.storage.workers import WAIT_LIMIT

Count = Annotated[int, Field(gt=0)]

_BYTES = r"^(\d+(\.\d+)? *[kMGT]i?B|auto)$"
_WALLTIME = r"^\d+:[0-5]\d:[0-5]\d$"

QUEUES = ("slurm", "pbs", "lsf")
"""Kinds whose workers are jobs of a batch system."""

LAUNCHED = (*QUEUES, "kubernetes", "gateway", "class")
"""Kinds whose workers someone else starts for a run."""

_OF_KINDS = {
    **dict.fromkeys(("tls_ca", "tls_cert", "tls_key"), ("address", *QUEUES)),
    **dict.fromkeys(("queue", "account", "walltime"), QUEUES),
    **dict.fromkeys(("image", "namespace", "volumes"), ("kubernetes",)),
    "address": ("address", "gateway"),
    "cluster_class": ("class",),
    "arguments": LAUNCHED,
    "max_workers": ("local", *LAUNCHED),
}
_NEEDED = {
    "kubernetes": ("image", "volumes"),
    "gateway": ("address",),
    "class": ("cluster_class",),
}


class ClusterOptions(Options):
    """Where Dask runs."""

    section = "cluster"

    kind: Literal[
        "local", "address", "slurm", "pbs", "lsf", "kubernetes", "gateway", "class", "none"
    ] = choice(
        "local",
        "workers of its own; a scheduler that runs already; jobs of a batch system; pods of Dask's "
        "Kubernetes operator; a cluster of a Dask gateway; any cluster class; this process alone",
    )
    n_workers: Count = choice(2, "worker processes; of an adaptive cluster the fewest")
    max_workers: Count | None = choice(
        None, "adaptive: as many workers as tasks ask for, up to so many; without it n_workers stay"
    )
    threads_per_worker: Count = choice(1, "threads of each, and the processors that a job asks for")
    memory_limit: str = choice(
        "4GiB", "memory of each, and what a job asks for; local also auto", pattern=_BYTES
    )
    address: str | None = choice(
        None,
        "of the running scheduler (without it DASK_SCHEDULER_ADDRESS in the environment), or of "
        "the gateway",
    )
    tls_ca: str | None = choice(
        None, "certificate of the authority; batch systems without it: one made for the run",
        is_path=True, is_recorded=False,
    )  # fmt: skip
    tls_cert: str | None = choice(None, "own certificate", is_path=True, is_recorded=False)
    tls_key: str | None = choice(None, "own key", is_path=True, is_recorded=False)
    queue: str | None = choice(None, "batch system: the queue, or partition", min_length=1)
    account: str | None = choice(None, "batch system: who pays", min_length=1)
    walltime: str | None = choice(
        None,
        "batch system: hours:minutes:seconds of a job; a worker leaves before, and another comes. "
        "Without it dask-jobqueue's, half an hour",
        pattern=_WALLTIME,
    )
    image: str | None = choice(None, "Kubernetes: image of scheduler and workers", min_length=1)
    namespace: str | None = choice(None, "Kubernetes: namespace; without it the context's")
    volumes: dict[str, str] = choice(
        {}, 'Kubernetes: where workers see persistent volume claims: `{ claim = "/path" }`'
    )
    cluster_class: str | None = choice(
        None, "a cluster class, as in dask_cloudprovider.aws.FargateCluster"
    )
    arguments: dict[str, Any] = choice(
        {}, 'further keyword arguments of the cluster\'s class, as in `{ interface = "ib0" }`'
    )
    wait_limit: Count = choice(
        WAIT_LIMIT,
        "seconds that a run waits for a cluster to start, and then while no worker works (there is "
        "none, or all are paused at their memory limit) before it ends; told after 60. Raise it "
        "for a long queue",
    )

    @model_validator(mode="after")
    def _address_goes_with_kind(self) -> ClusterOptions:
        if self.kind == "address" and not self.scheduler:
            raise ValueError("cluster.kind: 'address' needs address or DASK_SCHEDULER_ADDRESS")
        for name in _NEEDED.get(self.kind, ()):
            if not getattr(self, name):
                raise ValueError(f"cluster.kind: {self.kind!r} needs {name}")
        if self.kind == "gateway" and not str(self.address).startswith(("http://", "https://")):
            raise ValueError(
                "cluster.address: expected http://HOST:PORT or https://... of a gateway, got "
                f"{self.address!r}"
            )
        return self

    @model_validator(mode="after")
    def _others_do_not(self) -> ClusterOptions:
        for name, kinds in _OF_KINDS.items():
            if getattr(self, name) and self.kind not in kinds:
                raise ValueError(
                    f"cluster.{name}: expected with kind {' or '.join(kinds)}, got kind "
                    f"{self.kind!r}. Remove it or correct the kind"
                )
        if self.max_workers and self.max_workers < self.n_workers:
            raise ValueError(
                f"cluster.max_workers: expected at least n_workers ({self.n_workers}), got "
                f"{self.max_workers}"
            )
        if self.memory_limit == "auto" and self.kind in (*QUEUES, "kubernetes"):
            raise ValueError(
                f"cluster.memory_limit: expected bytes for kind {self.kind!r}, as in 16GiB, got "
                "'auto'"
            )
        return self

    @model_validator(mode="after")
    def _certificates_go_together(self) -> ClusterOptions:
        given = {name: getattr(self, name) for name in ("tls_ca", "tls_cert", "tls_key")}
        if any(given.values()) and not all(given.values()):
            lacks = ", ".join(name for name, path in given.items() if not path)
            raise ValueError(
                f"cluster.tls_ca, tls_cert and tls_key go together: {lacks} is missing"
            )
        if self.tls_ca and self.kind == "address" and not self.scheduler.startswith("tls://"):
            raise ValueError(
                f"cluster.address: expected tls://HOST:PORT with certificates, got "
                f"{self.scheduler!r}"
            )
        return self

    @property
    def scheduler(self) -> str:
        """The address of the running scheduler, "" where none is told."""
        return self.address or os.environ.get("DASK_SCHEDULER_ADDRESS", "")

    @property
    def is_elsewhere(self) -> bool:
        """Whether workers may run on other machines."""
        return self.kind not in ("local", "none")
