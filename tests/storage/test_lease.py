"""Of several runs on a study in a bucket one writes, whatever their timing and their clocks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

pytest.importorskip("moto.server", reason="the S3 server is moto's")

from dglzarr.errors import StoreError
from dglzarr.query.checks import verify_study
from dglzarr.storage import lease
from dglzarr.storage.buckets import BucketPath, ChangedError
from dglzarr.storage.files import put
from dglzarr.storage.study import create_study, locked
from tests import bucket
from tests.builders import simulate, write_files

pytestmark = pytest.mark.slow


def test_the_second_run_says_who_holds_the_study(root):
    create_study(root)
    with locked(root), pytest.raises(StoreError) as told, locked(root):
        pass
    assert f"process {os.getpid()}, since 20" in str(told.value)
    assert "run again in" in str(told.value)
    assert len(str(told.value).splitlines()) == 1
    with locked(root):  # it was given back
        pass


def test_a_run_of_a_process_that_died_is_taken_over_at_once(root, caplog):
    create_study(root)
    code = (
        "import os, sys\nfrom dglzarr.storage.study import locked\n"
        "with locked(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, root], check=False).returncode == -9
    with locked(root):
        assert "taken over from" in caplog.text


def test_a_run_of_another_machine_is_taken_over_when_its_lease_has_ended(root, monkeypatch):
    monkeypatch.setattr(lease, "SECONDS", 3.0)
    monkeypatch.setattr(lease.platform, "node", lambda: "other-machine")
    monkeypatch.setattr(lease, "_process", lambda _: "")  # so that none is known to have died
    held = lease.held(root)
    held.__enter__()
    mine = lease._held[root]
    time.sleep(4)  # it is renewed meanwhile, whatever the clocks of machines say
    with pytest.raises(StoreError, match="other-machine, process"), locked(root):
        pass
    mine.ended.set()  # as where its process is stopped
    deadline = time.monotonic() + 20
    while True:
        try:
            taken = lease._taken(mine.place)
            break
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(0.3)
    with pytest.raises(StoreError, match="has lost its lease"):
        put(f"{root}/x", b"of the first")
    mine.renewed = lease._now() + 99
    with pytest.raises(ChangedError):  # it cannot renew what another has
        mine.put(if_match=mine.e_tag)
    held.__exit__(None, None, None)
    content = json.loads(taken.place.read_bytes())
    assert "is_free" not in content  # nor give it back


def test_a_machine_that_slept_writes_nothing(root, monkeypatch):
    """The clock of the process stood still meanwhile, that of the machine did not."""
    asleep = 0.0
    real = time.clock_gettime
    monkeypatch.setattr(lease.time, "clock_gettime", lambda clock: real(clock) + asleep)
    create_study(root)
    with locked(root):
        put(f"{root}/x", b"before")
        asleep = 3600.0
        with pytest.raises(StoreError, match=r"not renewed for 36\d\d s"):
            put(f"{root}/x", b"after")


def test_the_clock_of_a_lease_is_swept_while_it_is_read(root, monkeypatch):
    """By who takes the lease at that moment; how old it is, is asked again."""
    create_study(root)
    real, swept = BucketPath.modified, []

    def modified(place):
        if place.name.startswith(".clock-") and not swept:
            swept.append(place)
            place.unlink(missing_ok=True)
        return real(place)

    monkeypatch.setattr(BucketPath, "modified", modified)
    with locked(root), pytest.raises(StoreError, match="another run is changing"), locked(root):
        pass
    assert swept


# ---------------------------------------------------------------- other clocks

HOLDER = """
import sys, time
from datetime import UTC, datetime
from dglzarr.storage import lease
lease.SECONDS = 20.0
lease._process = lambda _: ""
with lease.held(sys.argv[1]):
    print(time.time(), datetime.now(UTC).isoformat(), flush=True)
    sys.stdin.read()
"""
"""Another machine's, as far as anyone can tell."""

needs_faketime = pytest.mark.skipif(not shutil.which("faketime"), reason="no faketime here")


def _holder(root, shift):
    return subprocess.Popen(
        [shutil.which("faketime"), "-f", shift, sys.executable, "-c", HOLDER, root],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )  # fmt: skip


@needs_faketime
@pytest.mark.parametrize("shift", ["+3600", "-3600"])
def test_a_holder_whose_clock_is_an_hour_off(root, shift):
    """It keeps its lease while it renews it, and for no longer than others when it has died."""
    create_study(root)
    place = BucketPath(f"{root}/{lease.LEASE}")
    with _holder(root, shift) as holder:
        clock = float(holder.stdout.readline().split()[0])
        assert abs(clock - time.time() - float(shift)) < 600
        tags, deadline = set(), time.monotonic() + 120
        while len(tags) < 3:  # each renewal is another object
            assert time.monotonic() < deadline
            tags.add(place.bucket.info(place.key)["e_tag"])
            with pytest.raises(StoreError, match=r"heard of \d+ s ago"), locked(root):
                pass
        holder.kill()
    began = time.monotonic()
    while True:
        try:
            with locked(root):
                break
        except StoreError:
            assert time.monotonic() - began < 120, "it holds it for an hour"
            time.sleep(0.5)


@needs_faketime
@pytest.mark.parametrize("shift", ["+3600", "-3600"])
def test_who_comes_with_a_clock_an_hour_off_waits(root, shift):
    create_study(root)
    with locked(root), _holder(root, shift) as other:
        assert other.stdout.readline() == ""
        assert other.wait() == 1
        put(f"{root}/x", b"still of the first")


# ---------------------------------------------------------------- at the same moment

RUN = """
import os, sys
from dglzarr.cli import guarded
from dglzarr.settings import load_settings
from dglzarr.storage.options import Run
from dglzarr.studies.plan import mine

told = []

def wait(*_):
    if not told:
        told.append(print("writes", flush=True))
        sys.stdin.readline()

for line in sys.stdin:
    os.environ["DGLZARR_ROOT"] = line.strip()
    told.clear()
    run = lambda: mine(load_settings(sys.argv[1]), only=("ingest",), run=Run(on_progress=wait))
    print("status", guarded(run), flush=True)
"""


class Runner:
    """A process that runs when told, behind a proxy that counts what it writes."""

    def __init__(self, stack, endpoint, settings):
        self.proxy = bucket.Proxy(endpoint)
        stack.callback(self.proxy.close)
        self.proxy.spoil = self.note
        self.written = []
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", RUN, settings],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **bucket.environment(self.proxy.address)},
            )
        )  # fmt: skip
        stack.callback(self.process.send_signal, signal.SIGKILL)

    def note(self, method, path):
        if method == "PUT" and lease.LEASE not in path and ".clock-" not in path:
            self.written.append(path)

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def said(self):
        return self.process.stdout.readline().strip()


@pytest.mark.timeout(1200)  # of a busy machine
def test_two_runs_at_the_same_moment__exactly_one_writes(endpoint, root, tmp_path):
    """Four times, or as the environment says: on a root that is new, and where a run has died."""
    write_files(tmp_path, simulate(16, 12, n_series=1, n_hubs=3, n_duplicates=2))
    settings = tmp_path / "study.toml"
    settings.write_text('root = "study"\n[[sources]]\nuri = "GSE*"\n')
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        dead = {"holder": "one that died", "process": lease._process(one.pid), "seconds": 60.0}
    with ExitStack() as stack:
        runners = [Runner(stack, endpoint, settings) for _ in range(2)]
        for number in range(int(os.environ.get("DGLZARR_RACES", "4"))):
            place = f"{root}-{number}"
            if number % 2:
                put(f"{place}/{lease.LEASE}", json.dumps(dead).encode())
            for one in runners:
                one.written.clear()
                one.tell(place)
            said = [one.said() for one in runners]
            assert sorted(said) == ["status 1", "writes"]
            winner, loser = (runners[said.index(s)] for s in ("writes", "status 1"))
            assert "another run is changing this study" in loser.process.stderr.readline()
            assert loser.written == []
            winner.tell("go on")
            assert winner.said() == "status 0"
            if number % 2:
                assert "taken over from one that died" in winner.process.stderr.readline()
            assert winner.written
    assert [r for r in verify_study(place) if r["problems"]] == []
