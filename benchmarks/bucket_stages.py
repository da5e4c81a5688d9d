"""Each stage with its root in a bucket, beside a plain get/put loop of the same objects.

    python benchmarks/bucket_stages.py --samples 600 --genes 1500

Simulates a study, mines it on the disk and on an S3 server of this machine (moto's, in a process of
its own), and prints a JSON line a stage: requests to the server, seconds in the bucket and on disk,
and of obstore getting each object that the stage reads and putting each that it writes, one after
the other (``objects``, a request each). ``ratio`` is
the loop's seconds over the stage's: 1 is as fast as the loop, which computes nothing;
``without_computing`` takes the seconds on the disk off the stage's first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.store import from_url

sys.path.insert(0, str(Path(__file__).parents[1]))

from dglzarr.settings import Settings, load_settings
from dglzarr.storage.buckets import split
from dglzarr.storage.files import open_filesystem
from dglzarr.studies.plan import Plan, Step, mine
from dglzarr.testing.study import write_study
from tests import bucket

if TYPE_CHECKING:
    from dglzarr.storage.options import Run

ROOT = f"s3://{bucket.BUCKET}/study"
OPTIONS = ('cluster={kind = "none"}', "select.n_random=3", "train.epochs=3")


def mined(settings: Settings, log: Path) -> dict[str, tuple[float, Counter[str]]]:
    """Mine a study; return seconds of each step, and the requests that the server has logged."""
    found = {}

    def timed(step: Step, run: Run) -> Any:  # noqa: ANN401
        before, start = requests(log), time.perf_counter()
        made = step(run)
        found[step.name] = time.perf_counter() - start, requests(log) - before
        return made

    mine(settings, execute=timed)
    return found


def requests(log: Path) -> Counter[str]:
    """Return how many requests of each kind a server has logged; a GET of a folder is a LIST."""
    asked = re.findall(r'"(GET|PUT|HEAD|DELETE|POST) (\S+)', log.read_text("utf-8"))
    return Counter("LIST" if "list-type" in path else verb for verb, path in asked)


def looped(store: Any, step: Step) -> tuple[float, int, int]:  # noqa: ANN401
    """Return seconds, number and bytes of the objects of a step, got and put one by one."""
    reads = [uri for uri in step.reads() if uri.startswith(ROOT)]
    got, put = (objects(uris) for uris in (reads, [step.writes]))
    contents = {name: bytes(obstore.get(store, name).bytes()) for name in put}
    start = time.perf_counter()
    for name in got:
        obstore.get(store, name).bytes()
    for name, content in contents.items():
        obstore.put(store, f"loop/{name}", content)
    seconds = time.perf_counter() - start
    return seconds, len(got) + len(put), sum(got.values()) + sum(put.values())


def objects(uris: list[str]) -> dict[str, int]:
    """Return the objects of some stores with their bytes."""
    found = {}
    for uri in uris:
        filesystem, key = open_filesystem(uri)
        found |= {name: one["size"] for name, one in filesystem.find(key, detail=True).items()}
        if filesystem.isfile(key):
            found[key] = filesystem.info(key)["size"]
    return found


def main() -> None:
    """Print a line a stage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--genes", type=int, default=1500)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, bucket.server(Path(folder)) as endpoint:
        os.environ |= bucket.environment(endpoint)
        toml = write_study(f"{folder}/files", n_samples=asked.samples, n_genes=asked.genes)
        log = Path(folder, "server.log")
        disk = mined(load_settings(toml, (*OPTIONS, f'root="{folder}/disk"')), log)
        settings = load_settings(toml, (*OPTIONS, f'root="{ROOT}"'))
        there = mined(settings, log)
        store = from_url(split(ROOT)[0], client_options={"allow_http": True})
        for step in Plan.of(settings):
            if step.name not in there:
                continue
            seconds, n, nbytes = looped(store, step)
            (in_bucket, asked_for), (on_disk, _) = there[step.name], disk[step.name]
            more = in_bucket - on_disk
            line = {
                "stage": step.name,
                "objects": n,
                "MB": round(nbytes / 1e6, 2),
                "requests": dict(asked_for),
                "bucket_s": round(in_bucket, 2),
                "disk_s": round(on_disk, 2),
                "loop_s": round(seconds, 2),
                "ratio": round(seconds / in_bucket, 2),
                "without_computing": round(seconds / more, 2) if more > 0 else None,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
