"""Fetch: a large series matrix from a server here, beside curl, sha256sum and gzip -t."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from common import SIZES, TEXT_SIZES, Bench, Case, Timed, main, run_here, write_text_matrix

from dglzarr.access.fetch import Fetcher
from dglzarr.access.options import FetchOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPEATED = 8
"""Members of the gzip file, all the same: a large file that is quickly made."""

CURL, BASH = str(shutil.which("curl")), str(shutil.which("bash"))
NAME = "GSE1_series_matrix.txt.gz"


def prepare(case: Case) -> None:
    """Write a series matrix as gzip of several members."""
    path = write_text_matrix(case, NAME)
    path.write_bytes(path.read_bytes() * REPEATED)


@contextmanager
def served(case: Case) -> Iterator[str]:
    """Yield the address of the file at a server that is a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("mirror.py")), case.folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline() if server.stdout is not None else ""
        address = f"{line.strip()}/{NAME}"
        subprocess.run([CURL, "-sfo", "/dev/null", address], check=True)  # warm
        try:
            yield address
        finally:
            server.terminate()


def with_dglzarr(case: Case) -> Timed:
    """Time fetching into a cache: written, digest, gzip to its end, end of the table."""
    cache = case.path("cache")
    shutil.rmtree(cache, ignore_errors=True)
    fetcher = Fetcher(FetchOptions(cache=cache))
    with served(case) as address:
        timed = run_here(case, lambda: fetcher.get(address, NAME, is_matrix=True, is_gzip=True))
    shutil.rmtree(cache)
    return timed


def shell(pipe: str) -> Callable[[Case], Timed]:
    """Return an engine that runs a line of bash, in which {} is the address."""

    def run(case: Case) -> Timed:
        with served(case) as address:
            started = time.perf_counter()
            line = f"set -o pipefail; {pipe.format(address)}"
            subprocess.run([BASH, "-c", line], check=True, cwd=case.folder)
            seconds = time.perf_counter() - started
        for left in ("sum", "copy"):
            Path(case.path(left)).unlink(missing_ok=True)
        return Timed(seconds, case.n_samples)

    return run


ENGINES = {
    "dglzarr": with_dglzarr,
    "curl | tee >(sha256sum) | gzip -t": shell("curl -sf {} | tee >(sha256sum >sum) | gzip -t"),
    "curl | tee copy >(sha256sum) | gzip -t": shell(
        "curl -sf {} | tee copy >(sha256sum >sum) | gzip -t"
    ),
    "limit: curl, nothing checked": shell("curl -sfo /dev/null {}"),
}
BENCHES = [Bench("fetch", prepare, ENGINES, packages=["requests"], sizes={**SIZES, **TEXT_SIZES})]

if __name__ == "__main__":
    main(__file__, BENCHES, __doc__)
