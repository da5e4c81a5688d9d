"""A real SLURM on this machine: Debian's munged, slurmctld and slurmd, in a folder of their own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo", "squeue", "scancel")

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmdPort={d_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=2
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=short Nodes=node Default=YES MaxTime=60 State=UP
PartitionName=closed Nodes=node MaxTime=60 State=DOWN
"""


def absent() -> list[str]:
    """Return the programs that are not installed here."""
    return [name for name in PROGRAMS if not _path(name)]


@contextmanager
def slurm(folder: Path):
    """Yield the environment in which SLURM's commands reach one that runs here, as root."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    ports = [_free_port(), _free_port()]
    conf = folder / "slurm.conf"
    conf.write_text(
        CONF.format(host=socket.gethostname(), folder=folder, ctld_port=ports[0], d_port=ports[1]),
        encoding="utf-8",
    )
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    commands = [
        [
            *("munged", "-F", "-f", f"--key-file={key}", f"--socket={folder}/munge.sock"),
            *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log"),
            f"--seed-file={folder}/munge.seed",
        ],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-N", "node"],
    ]
    started = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("ab") as out:
                started.append(
                    subprocess.Popen(
                        [_path(command[0]), *command[1:]],
                        stdout=out, stderr=out, env=environment, start_new_session=True,
                    )
                )  # fmt: skip
            if command[0] == "munged":
                _wait(lambda: (folder / "munge.sock").exists(), folder)
        _wait(lambda: "idle" in _sinfo(environment), folder)
        yield environment
    finally:
        subprocess.run(
            [_path("scancel"), "--user=root", "--signal=KILL"],
            env=environment, check=False, capture_output=True, timeout=30,
        )  # fmt: skip
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
        for process in reversed(started):
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _path(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin") or ""


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def _sinfo(environment) -> str:
    asked = subprocess.run(
        [_path("sinfo"), "--noheader", "--partition=short", "--format=%T"],
        capture_output=True, text=True, env=environment, check=False, timeout=30,
    )  # fmt: skip
    return asked.stdout


def _wait(holds, folder: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            logs = [p.read_text(errors="replace")[-1500:] for p in sorted(folder.glob("*.log"))]
            raise AssertionError("SLURM does not start:\n" + "\n".join(logs))
        time.sleep(0.2)
