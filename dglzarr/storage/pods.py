"""What the pods of a cluster wait for, and its removal, as the API of Kubernetes tells and does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SECONDS_TO_ANSWER = 10.0
_LENGTH = 200


def waits_of(name: str, namespace: str | None) -> str:
    """Return what the pods of a DaskCluster that do not run wait for, "" where all run.

    Whatever the API raises is raised.
    """
    return asyncio.run(asyncio.wait_for(_waits_of(name, namespace), SECONDS_TO_ANSWER))


def remove(name: str, namespace: str | None) -> None:
    """Remove a DaskCluster where there is one.

    Whatever the API raises is raised.
    """
    asyncio.run(asyncio.wait_for(_remove(name, namespace), SECONDS_TO_ANSWER))


async def _waits_of(name: str, namespace: str | None) -> str:
    import kr8s  # noqa: PLC0415  (an extra)

    api = await kr8s.asyncio.api()
    found: Any = api.async_get(
        "pods",
        namespace=namespace or api.namespace,
        label_selector=f"dask.org/cluster-name={name}",
    )
    waits: dict[str, str] = {}  # of pods that wait for the same the first
    number = 0
    async for pod in found:
        number += 1
        for wait in waits_told(pod.raw):
            waits.setdefault(wait, pod.name)
    if not number:
        return "the operator has made no pod (is it running?)"
    return "; ".join(f"pod {pod}: {wait}" for wait, pod in waits.items())


def waits_told(pod: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a pod waits for.

    Examples
    --------
    >>> list(waits_told({"status": {"phase": "Pending", "conditions": [
    ...     {"status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no memory."}]}}))
    ['Pending, Unschedulable (0/3 nodes: no memory)']
    >>> list(waits_told({"status": {"phase": "Running"}}))
    []
    """
    status = pod.get("status", {})
    held = [
        state["waiting"]
        for of in ("initContainerStatuses", "containerStatuses")
        for container in status.get(of, ())
        if "waiting" in (state := container.get("state", {}))
    ]
    if not held and (phase := status.get("phase", "Pending")) not in ("Running", "Succeeded"):
        refused = [c for c in status.get("conditions", ()) if c.get("status") == "False"]
        held = [
            {**told, "reason": ", ".join(filter(None, (phase, told.get("reason"))))}
            for told in (refused or [status])[:1]
        ]
    for told in held:
        message = " ".join(told.get("message", "").split())[:_LENGTH].rstrip(". ")
        yield f"{told.get('reason', 'waiting')}{f' ({message})' if message else ''}"


async def _remove(name: str, namespace: str | None) -> None:
    import kr8s  # noqa: PLC0415  (an extra)
    from dask_kubernetes.operator._objects import DaskCluster  # noqa: PLC0415  (an extra)

    api = await kr8s.asyncio.api()
    cluster = await DaskCluster({"metadata": {"name": name}}, namespace or api.namespace)
    if await cluster.exists():
        await cluster.delete()
