"""One run at a time changes a study in a bucket: it holds a lease, an object that it puts again.

Taken, renewed, taken over and given back by conditional puts alone, so that of several runs one
wins whatever their timing. How old a lease is, the server's clock alone tells, and how long ago
one's own was renewed by the machine's clock that counts seconds, also those that it sleeps: no two
machines' clocks are compared. Who cannot renew stops writing before another may begin.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.errors import BucketError, BusyError, StoreError
from dglzarr.storage.buckets import BucketPath, ChangedError

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

LEASE = "study.lease"
SECONDS = 60.0
"""How long a lease holds after it was put."""

_RENEWALS = 4  # within that time
_SECONDS_OF_RESOLUTION = 2.0  # of a server's clock, in whole seconds
_PROBES = 5  # of that clock, where another run sweeps them

_held: dict[str, Lease] = {}


@dataclass
class Lease:
    """A lease that this process holds."""

    place: BucketPath
    content: dict[str, Any]
    e_tag: str = ""
    renewed: float = 0.0
    is_lost: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    def put(self, *, if_match: str = "") -> None:
        """Put it anew, never with the same content, so that its tag is another."""
        asked = _now()
        written = json.dumps({**self.content, "put": uuid.uuid4().hex}).encode()
        bucket, key = self.place.bucket, self.place.key
        self.e_tag = bucket.put(key, written, if_absent=not if_match, if_match=if_match)
        self.renewed = asked

    def renew(self) -> None:
        """Renew it now and then, until the run ends or another has it."""
        while not self.ended.wait(self.content["seconds"] / _RENEWALS):
            try:
                self.put(if_match=self.e_tag)
            except ChangedError:
                self.is_lost = True
                return
            except BucketError as error:
                logger.warning("%s: cannot be renewed yet: %s", self.place, error)

    def check(self) -> None:
        """Refuse to write without it."""
        age = _now() - self.renewed
        if self.is_lost or age > self.content["seconds"]:
            why = "another run has taken it" if self.is_lost else f"not renewed for {age:.0f} s"
            raise StoreError(
                f"{self.place}: this run has lost its lease: {why}. Run again; finished work is "
                "kept."
            )


@contextmanager
def held(root: str) -> Iterator[None]:
    """Hold the lease of a study in a bucket; one whose run has died is taken over.

    Raises
    ------
    BusyError
        When another run holds it, naming that.
    """
    lease = _taken(BucketPath(f"{root}/{LEASE}"))
    thread = threading.Thread(target=lease.renew, name="lease", daemon=True)
    _held[root] = lease
    thread.start()
    try:
        yield
    finally:
        del _held[root]
        lease.ended.set()
        thread.join()
        with suppress(ChangedError, BucketError):  # then it ends by itself, or is another's
            lease.content["is_free"] = True
            lease.put(if_match=lease.e_tag)


def check(place: str) -> None:
    """Refuse to write below a root whose lease this process has lost.

    Raises
    ------
    StoreError
        Saying how.
    """
    for root, lease in list(_held.items()):
        if place.startswith(f"{root}/"):
            lease.check()


def _taken(place: BucketPath) -> Lease:
    content = {
        "holder": f"{platform.node()}, process {os.getpid()}",
        "process": _process(os.getpid()),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": SECONDS,
    }
    lease = Lease(place, content)
    with suppress(ChangedError):
        lease.put()
        return lease
    found = place.bucket.get(place.key)
    known = _parsed(found.content)
    age = _seconds_since(place)  # after, so that the tag is no younger: who came since has another
    if not (known.get("is_free") or _has_died(known) or age > float(known["seconds"])):
        raise _is_held(place, age)
    try:
        lease.put(if_match=found.e_tag)
    except ChangedError as error:
        raise _is_held(place, 0.0) from error
    if not known.get("is_free"):
        logger.warning("%s: taken over from %s, which has died", place, known["holder"])
    return lease


def _is_held(place: BucketPath, age: float) -> BusyError:
    written = b""
    with suppress(FileNotFoundError):
        written = place.read_bytes()  # anew: another may have it by now
    known = _parsed(written)
    rest = max(0.0, float(known["seconds"]) - age) + _SECONDS_OF_RESOLUTION
    return BusyError(
        f"{place.parent}: another run is changing this study: {known['holder']}, since "
        f"{known['since']}, heard of {max(0.0, age):.0f} s ago. Wait for it; if it has died, run "
        f"again in {rest:.0f} s."
    )


def _parsed(written: bytes) -> dict[str, Any]:
    """Return what a lease says; one that is not readable is as old as its object."""
    nothing = {"holder": "unknown", "since": "unknown", "seconds": SECONDS}
    with suppress(ValueError, TypeError):
        found = {**nothing, **json.loads(written)}
        return {**found, "seconds": float(found["seconds"])}
    return nothing


def _seconds_since(place: BucketPath) -> float:
    """Return how long ago an object was put, at least; by the server's clock."""
    probe = place.with_name(f".clock-{uuid.uuid4().hex}.partial")
    put = place.modified()
    try:
        for _ in range(_PROBES):
            probe.bucket.put(probe.key, b"")
            with suppress(FileNotFoundError):  # who takes the lease now sweeps what is partial
                return probe.modified() - put - _SECONDS_OF_RESOLUTION
    finally:
        probe.unlink(missing_ok=True)
    raise BucketError(f"{probe}: was put {_PROBES} times, and is not there. Run again.")


def _now() -> float:
    """Return seconds that no one sets, and that a machine that sleeps counts too where it can."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


# ---------------------------------------------------------------- a process of this machine


def _process(pid: int) -> str:
    """Return what names a process of this machine until it is started anew, "" if there is none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").readlink()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    is_dead = fields[0] in "ZX"
    return "" if is_dead else f"{boot} {space} {pid} {fields[19]}"


def _has_died(known: dict[str, Any]) -> bool:
    """Return whether a lease is of a process of this machine that is no more."""
    own, named = _process(os.getpid()).split(), str(known.get("process", "")).split()
    if len(named) != len(own) or not own or named[:2] != own[:2] or not named[2].isdigit():
        return False
    return _process(int(named[2])) != " ".join(named)
