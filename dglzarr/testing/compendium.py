"""A compendium of any size as one GCTX file, written block by block, with the truth beside it.

Owns the planted pairs of near-identical samples; reads its own files only and writes no store.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from dglzarr.kernels.quantile import (
    apply_quantile,
    finish_quantile,
    merge_quantile,
    sum_sorted,
)
from dglzarr.storage.files import put, sweep_place, whole
from dglzarr.testing.simulate import check_between

PairKind = Literal["exact", "near", "apart"]
Progress = Callable[[int, int], None]

_FORMAT = 1
_BLOCK, _ROWS = 256, 8
_N_WORKERS = 2
_LOW, _HIGH = 4.0, 15.0
_N_PROGRAMS, _N_BATCHES = 47, 16
_SERIES_SIZE = (5, 295)
_N_PILOT_BLOCKS = 4
_TOLERANCE = 0.002
_KINDS: tuple[PairKind, ...] = ("near", "exact", "apart")
_DISTANCE: dict[PairKind, tuple[float, float]] = {"near": (0.91, 0.98), "apart": (1.02, 1.09)}
_TISSUES = (
    "adipose", "bladder", "blood", "bone marrow", "brain", "breast", "cervix", "colon",
    "esophagus", "heart", "kidney", "liver", "lung", "lymph node", "muscle", "nerve",
    "ovary", "pancreas", "prostate", "skin", "spleen", "stomach", "testis", "thyroid",
)  # fmt: skip


@dataclass(frozen=True)
class PlantedPair:
    """A sample that was copied from an earlier one.

    Attributes
    ----------
    copy, original
        Sample ids.
    kind
        "exact" for the same bits, "near" for 0.90 to 0.99 and "apart" for 1.01 to 1.10 of the
        threshold 1.0 after quantile normalization.
    raw_distance
        Euclidean distance over all genes as written.
    distance
        The same after quantile normalization, foreseen from some samples of the file; exact to
        about 0.5 %.
    """

    copy: str
    original: str
    kind: PairKind
    raw_distance: float
    distance: float


@dataclass(frozen=True)
class _Plan:
    """What is fixed before a sample is drawn; factors are a constant, programs and batches."""

    seed: int
    series: NDArray[np.intp]  # (sample,)
    tissue: NDArray[np.intp]  # (series,)
    loading: NDArray[np.float32]  # (factor, gene)
    noise_std: NDArray[np.float32]  # (gene,)
    tissue_mean: NDArray[np.float32]  # (tissue, program)
    batch: NDArray[np.float32]  # (series, batch)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and genes."""
        return len(self.series), len(self.noise_std)

    @property
    def n_blocks(self) -> int:
        """Number of blocks of samples."""
        return -(-len(self.series) // _BLOCK)


def write_compendium(
    path: str | Path,
    *,
    n_samples: int,
    n_genes: int = 22268,
    n_series: int | None = None,
    n_duplicates: int | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Path:
    """Return the path of a simulated compendium, a GCTX 1.0 file of any size.

    Values are log2-like, 4 to 15, skewed as on Affymetrix arrays. Programs shared by all samples,
    a tissue a series, a batch effect a series and noise add up; every sample has its own shift,
    scale and bend. `<stem>.truth.json` names the planted pairs (see `PlantedPair`), a third each
    near, exact and apart, anywhere in the file. It is written last: a file that has it, with the
    same arguments, is left as it is; an interrupted one has another name.

    Parameters
    ----------
    path
        File to write, named ``*.gctx``.
    n_samples, n_genes
        Size of the matrix; copies are among the samples.
    n_series
        Number of series, each a run of samples; without it they have 5 to 300 samples.
    n_duplicates
        Number of planted pairs, no sample in two; one for every 50 samples without it.
    seed
        Same arguments, same values. Samples that are no copies do not change when the compendium
        becomes longer.
    on_progress
        Called with the number of samples written and their total.

    Raises
    ------
    ValueError
        If the name does not end .gctx or a size is out of range.

    Notes
    -----
    Holds a few blocks of 256 samples, whatever the size.
    """
    path = Path(path)
    if path.suffix != ".gctx":
        raise ValueError(f"path: expected a name ending '.gctx', got {path.name!r}. Rename it.")
    n_duplicates = n_samples // 50 if n_duplicates is None else n_duplicates
    check_between("n_samples", n_samples, 2, 10**9)
    check_between("n_genes", n_genes, 200, 10**6)
    check_between("n_series", 1 if n_series is None else n_series, 1, n_samples)
    check_between("n_duplicates", n_duplicates, 0, n_samples // 2)
    parameters = {
        "format": _FORMAT,
        "n_samples": n_samples,
        "n_genes": n_genes,
        "n_series": n_series,
        "n_duplicates": n_duplicates,
        "seed": seed,
    }
    truth = path.with_suffix(".truth.json")
    if _is_written(path, truth, parameters):
        return path
    truth.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = _plan(n_samples, n_genes, n_series, seed)
    sweep_place(path)
    # blocks are drawn side by side, each on one thread
    with whole(path) as partial, threadpool_limits(1):
        pairs = _write_gctx(partial, plan, _plan_pairs(plan, n_duplicates), on_progress)
    _write_truth(truth, {"parameters": parameters, "nbytes": path.stat().st_size}, pairs)
    return path


def _is_written(path: Path, truth: Path, parameters: dict[str, int | None]) -> bool:
    """Return whether the truth records these parameters and the file's size."""
    if not truth.exists() or not path.exists():
        return False
    known = json.loads(truth.read_text(encoding="utf-8"))
    return bool(known["parameters"] == parameters and known["nbytes"] == path.stat().st_size)


def _write_truth(truth: Path, known: dict[str, object], pairs: list[PlantedPair]) -> None:
    """Write the truth, a pair a line, visible when whole."""
    lines = ",\n".join(json.dumps(asdict(pair)) for pair in pairs)
    put(truth, f'{json.dumps(known)[:-1]}, "pairs": [\n{lines}\n]}}\n'.encode())


def _plan(n_samples: int, n_genes: int, n_series: int | None, seed: int) -> _Plan:
    """Return the series, genes and effects of a compendium."""
    series = _series(n_samples, n_series, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    base = 10 * np.tanh((rng.gamma(1.6, 1.35, n_genes) + 0.3) / 10)
    spread = rng.uniform(0.3, 1, n_genes) * np.clip(base / 4, 0.25, 1)
    program = rng.normal(0, 0.6 / np.sqrt(_N_PROGRAMS), (_N_PROGRAMS, n_genes)) * spread
    batch = rng.normal(0, 0.25 / np.sqrt(_N_BATCHES), (_N_BATCHES, n_genes))
    tissue_mean = rng.normal(0, 1, (len(_TISSUES), _N_PROGRAMS))
    per_series = np.random.default_rng([seed, 2]).normal(size=(series[-1] + 1, _N_BATCHES + 1))
    return _Plan(
        seed=seed,
        series=series,
        tissue=(np.abs(per_series[:, 0]) * 1e6).astype(np.intp) % len(_TISSUES),
        loading=np.vstack([base, program, batch]).astype(np.float32),
        noise_std=(0.35 * spread).astype(np.float32),
        tissue_mean=tissue_mean.astype(np.float32),
        batch=per_series[:, 1:].astype(np.float32),
    )


def _series(n_samples: int, n_series: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the series of every sample (sample,), ascending; none has under 5 by default."""
    if n_series is not None:
        starts = rng.choice(n_samples - 1, n_series - 1, replace=False) + 1
    else:
        low, high = _SERIES_SIZE
        sizes = rng.lognormal(np.log(30), 1, n_samples // low + 1).clip(low, high).astype(np.intp)
        starts = np.cumsum(sizes)
        starts = starts[starts <= n_samples - low]
    is_first = np.zeros(n_samples, dtype=np.intp)
    is_first[starts] = 1
    return np.cumsum(is_first)


def _draw_block(plan: _Plan, block: int) -> NDArray[np.float32]:
    """Return the values (sample, gene) of one block, copies not yet planted."""
    rng = np.random.default_rng([plan.seed, 3, block])
    series = plan.series[block * _BLOCK : (block + 1) * _BLOCK]
    # Whole blocks are multiplied also at the end, so that the last samples have the same bits.
    factors = np.zeros((_BLOCK, len(plan.loading)), dtype=np.float32)
    program = rng.standard_normal((_BLOCK, _N_PROGRAMS), dtype=np.float32)
    shift, scale, bend = rng.standard_normal((3, _BLOCK, 1), dtype=np.float32)
    n = len(series)
    factors[:n, 0] = 1
    factors[:n, 1 : _N_PROGRAMS + 1] = program[:n] + plan.tissue_mean[plan.tissue[series]]
    factors[:n, _N_PROGRAMS + 1 :] = plan.batch[series]
    values: NDArray[np.float32] = factors @ plan.loading
    noise = np.empty((_ROWS, plan.shape[1]), dtype=np.float32)
    for start in range(0, n, _ROWS):
        rows = slice(start, start + _ROWS)
        part = values[rows]
        rng.standard_normal(out=noise, dtype=np.float32)
        noise *= plan.noise_std
        part += noise
        part += 0.1 * shift[rows]
        np.abs(part, out=part)
        np.multiply(part, np.float32(0.002) * bend[rows], out=noise)
        noise += 1 + np.float32(0.03) * scale[rows]
        part *= noise
        part += np.float32(_LOW)
        np.minimum(part, np.float32(_HIGH), out=part)
    return values[:n]


def _draw_blocks(plan: _Plan) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the first sample and the values of each block in turn, a few drawn ahead."""
    ahead: deque[Future[NDArray[np.float32]]] = deque()
    with ThreadPoolExecutor(_N_WORKERS) as pool:
        for block in range(plan.n_blocks + _N_WORKERS):
            if block < plan.n_blocks:
                ahead.append(pool.submit(_draw_block, plan, block))
            if block >= _N_WORKERS:
                yield (block - _N_WORKERS) * _BLOCK, ahead.popleft().result()


def _plan_pairs(plan: _Plan, n_duplicates: int) -> dict[int, tuple[int, PairKind]]:
    """Return the original and the kind of every copy, by sample; no sample is in two pairs."""
    rng = np.random.default_rng([plan.seed, 4])
    pairs = rng.choice(len(plan.series), (n_duplicates, 2), replace=False)
    pairs.sort(axis=1)
    return {
        int(copy): (int(original), _KINDS[i % len(_KINDS)])
        for i, (original, copy) in enumerate(pairs)
    }


def _pilot_reference(plan: _Plan) -> NDArray[np.float64]:
    """Return the quantile reference of some blocks, spread over the compendium."""
    blocks = np.unique(np.linspace(0, plan.n_blocks - 1, _N_PILOT_BLOCKS).astype(np.intp))
    partials = (sum_sorted(_draw_block(plan, int(block))) for block in blocks)
    return finish_quantile(reduce(merge_quantile, partials))


def _near_copy(
    original: NDArray[np.float32],
    reference: NDArray[np.float64],
    target: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], float]:
    """Return a noisy copy (gene,) and its distance after quantile normalization.

    Noise keeps to the middle of the distribution, where the reference is known best.
    """
    is_tail = np.abs(original - np.median(original)) > 1.5 * np.std(original)
    normalized = apply_quantile(original[None], reference).astype(np.float64)
    for step in range(200):
        if step % 10 == 0:
            noise = rng.standard_normal(original.size, dtype=np.float32)
            noise[is_tail] = 0
            amount = target / float(np.linalg.norm(noise))
        copy = np.clip(original + np.float32(amount) * noise, _LOW, _HIGH)
        distance = float(np.linalg.norm(apply_quantile(copy[None], reference) - normalized))
        if abs(distance - target) < _TOLERANCE:
            return copy, distance
        amount *= target / max(distance, target / 2)
    raise ValueError(
        f"n_genes: expected enough for a copy at distance {target:.3f}, got {original.size}. "
        "Take more."
    )


def _plant(
    block: NDArray[np.float32],
    start: int,
    written: h5py.Dataset,
    origins: dict[int, tuple[int, PairKind]],
    reference: NDArray[np.float64],
    seed: int,
) -> Iterator[PlantedPair]:
    """Put the copies into a block (sample, gene) and yield what was planted."""
    for copy in range(start, start + len(block)):
        if copy not in origins:
            continue
        original, kind = origins[copy]
        source = block[original - start] if original >= start else written[original]
        block[copy - start], distance = source, 0.0
        if kind != "exact":
            rng = np.random.default_rng([seed, 5, copy])
            target = rng.uniform(*_DISTANCE[kind])
            block[copy - start], distance = _near_copy(source, reference, target, rng)
        raw = float(np.linalg.norm(block[copy - start].astype(np.float64) - source))
        yield PlantedPair(_sample_id(copy), _sample_id(original), kind, raw, distance)


def _sample_id(sample: int) -> str:
    return f"GSM{1_000_001 + sample}"


def _write_gctx(
    path: Path,
    plan: _Plan,
    origins: dict[int, tuple[int, PairKind]],
    on_progress: Progress | None,
) -> list[PlantedPair]:
    """Write the file and return what was planted in it."""
    n_samples, n_genes = plan.shape
    columns = {
        "COL/id": [_sample_id(i) for i in range(n_samples)],
        "COL/series_id": [f"GSE{10_001 + i}" for i in plan.series],
        "COL/tissue": [_TISSUES[i] for i in plan.tissue[plan.series]],
        "ROW/id": [f"{200_001 + i}_at" for i in range(n_genes)],
    }
    reference = _pilot_reference(plan) if origins else np.empty(0)
    pairs: list[PlantedPair] = []
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        for name, values in columns.items():
            file[f"0/META/{name}"] = np.array([v.encode() for v in values], "S")
        matrix = file.create_dataset("0/DATA/0/matrix", shape=plan.shape, dtype="f4")
        for start, block in _draw_blocks(plan):
            pairs.extend(_plant(block, start, matrix, origins, reference, plan.seed))
            matrix[start : start + len(block)] = block
            if on_progress is not None:
                on_progress(start + len(block), n_samples)
    return pairs
