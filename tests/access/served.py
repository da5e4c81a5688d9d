"""What the tests of fetching share: settings, a command, a server where the lock says, a cache."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from benchmarks.mirror import series_folder
from dglzarr.access.lock import read_lock
from dglzarr.settings import load_settings

PROGRAM = Path(sys.executable).with_name("dglzarr")


def write(place, accessions, extra="", *, fast=True):
    speed = "requests_per_second = 10.0\nfirst_wait = 0.05\ntime_out = 1.0\nattempts = 3\n"
    text = f'root = "study"\n[[sources]]\ngeo = {json.dumps(accessions)}\n{extra}\n'
    text += f"[fetch]\n{speed if fast else ''}"
    (place / "study.toml").write_text(text, encoding="utf-8")
    return load_settings(place / "study.toml")


def path_of(accession):
    return f"/{series_folder(accession)}/{accession}_series_matrix.txt.gz"


def in_cache(place):
    return sorted(p.name for p in (place / "cache" / "files").rglob("*") if p.is_file())


def address_of(place):
    entry = read_lock(place / "sources.lock")[0]
    return int(re.search(r":(\d+)/", entry.address)[1])


def at(place, port, call):
    """Call with the server at the port that the lock records."""
    from benchmarks.mirror import Mirror

    with Mirror(place / "served", port=port) as mirror:
        thread = threading.Thread(target=mirror.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        (outcome,) = call(load_settings(place / "study.toml"))
        mirror.shutdown()
        thread.join()
    return outcome


def run(place, mirror, *words, **options):
    environment = {**os.environ, **mirror.environment(), "DGLZARR_CACHE": str(place / "cache")}
    return subprocess.Popen(
        [PROGRAM, *words], cwd=place, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def part(place):
    return sum(p.stat().st_size for p in (place / "cache").rglob("data"))
