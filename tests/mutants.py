"""Seeds one fault at a time into a copy of the package; each must turn a test red.

``make mutants`` runs it. The working tree is never touched. Every fault is a change of code that
would give wrong numbers or lose data in silence.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PROCESSES = 2
LIMIT_SECONDS = 200
PASSED, FAILED, TIMED_OUT = 0, 1, 124


@dataclass(frozen=True)
class Mutant:
    """One fault: ``old`` occurs once in ``path`` and becomes ``new``; ``tests`` must notice."""

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


def _kernel(module: str, name: str, old: str, new: str) -> Mutant:
    tests = (f"tests/kernels/test_{module}.py",)
    return Mutant(f"{module}: {name}", f"dglzarr/kernels/{module}.py", old, new, tests)


def _store(
    name: str, old: str, new: str, *tests: str, module: str = "store", file: str = "store"
) -> Mutant:
    nodes = tuple(f"tests/storage/test_{file}.py::test_{test}" for test in tests)
    return Mutant(f"store: {name}", f"dglzarr/storage/{module}.py", old, new, nodes)


MUTANTS = (
    _kernel(
        "quantile", "ties take their lowest rank",
        "shared = _at_percentile(quantiles, (first + last) / 2, exact.size)",
        "shared = _at_percentile(quantiles, first * 1.0, exact.size)",
    ),
    _kernel(
        "quantile", "a merge forgets the samples of one side",
        "QuantilePartial(a.total + b.total, a.n_samples + b.n_samples)",
        "QuantilePartial(a.total + b.total, a.n_samples)",
    ),
    _kernel(
        "quantile", "missing values become zeros",
        "normalized[order[n_valid:]] = np.nan", "normalized[order[n_valid:]] = 0",
    ),
    _kernel(
        "moments", "a merge forgets the gap between the means",
        "a.m2 + b.m2 + delta**2 * a.count * share", "a.m2 + b.m2",
    ),
    _kernel("moments", "a gene without spread is divided by 0", "std > 0", "std >= 0"),
    _kernel(
        "moments", "a compiled loop lets missing values through",
        "np.float32(0.0) if np.isnan(z) else z", "z",
    ),
    Mutant(
        "batches: memory is read to before its rows are taken", "dglzarr/models/batches.py",
        "                self._standardize.take(memory, slots, out)\n"
        "                free.extend(slots.tolist())\n"
        "                read_what_fits()  # while the batch is used\n",
        "                free.extend(slots.tolist())\n"
        "                read_what_fits()\n"
        "                self._standardize.take(memory, slots, out)\n",
        ("tests/models/test_batches.py",),
    ),
    Mutant(
        "batches: large ones draw on no more windows", "dglzarr/models/options.py",
        "max(256, 2 * self.batch_size)", "256", ("tests/models/test_batches.py",),
    ),
    Mutant(
        "shards: a read that was cut short counts as whole", "dglzarr/storage/shards.py",
        "os.preadv(file, rows, offset, flags) == n_rows * self.nbytes",
        "os.preadv(file, rows, offset, flags) >= 0", ("tests/storage/test_shards.py",),
    ),
    Mutant(
        "shards: a compiled read that was cut short counts as whole", "dglzarr/storage/shards.py",
        "if n_read != n_rows * nbytes:", "if n_read < 0:", ("tests/storage/test_shards.py",),
    ),
    _kernel(
        "clustering", "points of no training sample are fitted on",
        "fitted = points[is_fitted]", "fitted = points[is_fitted | True]",
    ),
    _kernel(
        "clustering", "threads sum in any order",
        "with threadpool_limits(1), warnings", "with threadpool_limits(None), warnings",
    ),
    _kernel(
        "gene_kmeans", "earlier batches do not count",
        "weighted / np.maximum(total, 1)[:, None]", "weighted / np.maximum(counts, 1)[:, None]",
    ),
    _kernel(
        "duplicates", "the threshold counts as near",
        "distances < threshold", "distances <= threshold",
    ),
    _kernel(
        "duplicates", "a dropped sample drops others",
        "kept = near[keep[near]]", "kept = near",
    ),
    _kernel(
        "deeplift", "the reference is taken for zero",
        "phi *= (samples - reference)[:, None, :]", "phi *= samples[:, None, :]",
    ),
    _kernel(
        "deeplift", "the reference is taken for zero in sums",
        "[reference[:, genes] for reference", "[0 * reference[:, genes] for reference",
    ),
    _kernel(
        "deeplift", "every sample counts",
        "np.flatnonzero(counted).tolist()", "range(len(counted))",
    ),
    _kernel(
        "agreement", "a missing value counts as a sample",
        "is_known = ~np.isnan(t)", "is_known = ~np.isnan(p)",
    ),
    _kernel(
        "deeplift", "small differences use the derivative",
        "difference >= xp.finfo(dtype).smallest_normal", "difference >= 1e-3",
    ),
    _kernel(
        "greedy", "what is explained is not taken off",
        "self._norms -= one**2", "self._norms -= 0",
    ),
    _kernel(
        "greedy", "a forced gene explains nothing",
        "state.add(forced)", "state.add(forced[:0])",
    ),
    _kernel(
        "sketch", "samples enter with one sign",
        "signs[row] * block[sample]", "block[sample]",
    ),
    _kernel(
        "panels", "excluded genes are chosen",
        "allowed[never] = allowed[first] = False", "allowed[first] = False",
    ),
    _kernel(
        "medoids", "a shared absence makes partners",
        "(trial[seeds, None] == trial) & (trial >= 0)", "trial[seeds, None] == trial",
    ),
    _kernel(
        "metrics", "a gene is among its own wrong genes",
        "correlation[is_here, own[is_here] - genes.start] = np.nan", "pass",
    ),
    _kernel(
        "linear", "landmarks are not centred",
        "xtx = partial.xtx - np.outer(partial.x_sum, x_mean)", "xtx = partial.xtx",
    ),
    _store(
        "one array of a region is enough",
        "if not all(is_whole(object_of(array", "if not any(is_whole(object_of(array",
        "missing_regions__object_of_any_array",
    ),
    _store(
        "a region may start anywhere",
        "if region != expected:", "if region.index != expected.index:",
        "write_region__misaligned_is_refused",
    ),
    _store(
        "a shard of missing values is not written",
        '{"write_empty_chunks": True}', '{"write_empty_chunks": False}',
        "write_region__shard_without_values_is_written",
    ),
    _store(
        "the matrix before the partial results",
        "key=lambda a: a.is_matrix", "key=lambda a: not a.is_matrix",
        "write_region__partial_results_before_the_matrix",
    ),
    _store(
        "readers take unfinished stores",
        'if found.get("complete") is not True:', 'if found.get("complete") is None:',
        "open_store__incomplete_is_refused",
        file="open",
    ),
    _store(
        "a store is finished without its regions",
        "if spec.region_arrays and (missing", "if not spec.region_arrays and (missing",
        "finish__missing_regions_are_refused",
    ),
    _store(
        "one changed parameter goes unnoticed",
        "        if before.get(key) != now.get(key)",
        "        if before.get(key) != now.get(key) and len(now) > 2",
        "claim__other_parameters_are_refused",
        module="claims",
        file="claims",
    ),
    _store(
        "rows come back in storage order",
        "else found[inverse]", "else found[np.sort(inverse)]",
        "rows_take__any_order_with_repeats_as_numpy",
        module="rows",
        file="open",
    ),
)  # fmt: skip


def main() -> int:
    """Return 0 when the tests pass without a fault and every fault turns one red, else 1."""
    started = time.monotonic()
    tests = tuple(sorted({test for mutant in MUTANTS for test in mutant.tests}))
    with ThreadPoolExecutor(PROCESSES) as pool:
        unchanged = pool.submit(_run, tests, None)
        results = list(pool.map(lambda mutant: _run(mutant.tests, mutant), MUTANTS))
    rows = [("no fault", unchanged.result(), PASSED)]
    rows += [(m.name, status, FAILED) for m, status in zip(MUTANTS, results, strict=True)]
    for name, (status, seconds), expected in rows:
        verdict = "as expected" if status == expected else "NOT AS EXPECTED"
        colour = {PASSED: "green", FAILED: "red"}.get(status, f"status {status}")
        _say(f"{name:<56} {colour:<10} {seconds:5.1f} s  {verdict}")
    n_red = sum(status == FAILED for status, _ in results)
    _say(f"{n_red} of {len(MUTANTS)} faults noticed in {time.monotonic() - started:.0f} s")
    return int(any(status != expected for _, (status, _), expected in rows))


def _run(tests: tuple[str, ...], mutant: Mutant | None) -> tuple[int, float]:
    """Return the exit status of the tests on a copy with the fault, and the seconds they took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dglzarr-mutant-") as folder:
        root = Path(folder)
        for name in ("dglzarr", "tests"):
            shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPO / "pyproject.toml", root)
        if mutant is not None:
            (root / mutant.path).write_text(mutated(mutant), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not slow and not data"]
        command += ["--import-mode=importlib", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "CI": "true", "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        try:
            status = subprocess.run(
                command,
                cwd=root,
                env=environment,
                capture_output=True,
                timeout=LIMIT_SECONDS,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            status = TIMED_OUT
    return status, time.monotonic() - started


def mutated(mutant: Mutant) -> str:
    """Return the text of the module with the fault.

    Raises
    ------
    ValueError
        When the text to be changed does not occur exactly once.
    """
    text = (REPO / mutant.path).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.path}: expected {mutant.old!r} once, got it {text.count(mutant.old)} times. "
            f"Mend the fault {mutant.name!r}."
        )
    return text.replace(mutant.old, mutant.new)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
