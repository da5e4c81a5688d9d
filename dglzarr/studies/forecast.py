"""What a study will take: disk, memory and time of each step, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from dglzarr.evaluation.sketch import SKETCH_ROWS
from dglzarr.sources.identifiers import read_gene_list
from dglzarr.sources.peek import peek_size
from dglzarr.storage.declare import SHARD_SAMPLES, shard_samples
from dglzarr.storage.study import planned_study
from dglzarr.studies.plan import Step, StepState, plan, source_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.settings import Settings
    from dglzarr.stages.ingest import SourceFile

# Measured on two cores with two workers: docs/reproduce.md; its tests compare.
_SECONDS_PER_CELL = {"ingest": 6e-8, "normalize": 1.2e-8, "dedup": 1.4e-8, "evaluate": 5e-9}
_SECONDS_PER_LINKED_CELL = 1.2e-8
_SECONDS_PER_SKETCH_BYTE = 1e-10
_FLOPS = 1.5e11
_SHAP_TIMES = 50.0  # as long as the closed form takes
_SCORE_FLOPS = 2.5e11  # between cores with AVX2 and with AVX-512
_IMPORTS_NBYTES = 4e8
_KERAS_NBYTES = 9e8
_METADATA_NBYTES = 1e4
_REPORT_NBYTES = 1.2e6  # with the figures
_N_COMPONENTS = 128
_N_TERMS = 2000


@dataclass(frozen=True)
class Estimate:
    """One line of a dry run."""

    name: str
    writes: str
    state: StepState
    reads: str
    nbytes: float
    memory_nbytes: float
    seconds: float


def estimate(settings: Settings) -> list[Estimate]:
    """Return the disk, memory and time each step of a study will need; nothing is written.

    Sizes come from the heads of the source files, times from costs measured on two cores: within
    a factor of 2.5 there, no promise elsewhere. Memory is that of the largest process. While it
    runs, training needs seven times the disk of the model for its checkpoints.

    Raises
    ------
    ConfigError
        When a source matches no file.
    """
    steps = plan(settings)
    sources = source_files(settings, planned_study(settings.root))
    sizes = {source.raw: peek_size(source.path) for source in sources}
    train = [sizes[source.raw] for source in sources if source.role == "train"]
    n_genes = min(genes for _, genes in train)
    if settings.ingest.probes is not None:
        n_genes = len(read_gene_list(settings.ingest.probes))
    n_samples = sum(samples for samples, _ in train)
    n_raw = {raw: float(samples * genes) for raw, (samples, genes) in sizes.items()}
    linked = sum(n_raw[source.raw] for source in sources if _is_linked(source))
    copied = sum(n_raw.values()) - linked
    cells, shard = float(n_samples * n_genes), 4.0 * n_genes * shard_samples(n_samples)
    layers = settings.train
    weights = 2 * (n_genes * layers.hidden + layers.hidden * layers.n_latent)
    chosen = 1 + len(settings.select.selectors)
    panels = chosen + settings.select.n_random + len(settings.evaluate.panels)
    n_landmarks = settings.select.n_landmarks
    components = min(_N_COMPONENTS, n_samples)
    sketch = 4.0 * n_genes * min(SKETCH_ROWS, n_samples)
    sums = 8.0 * n_landmarks * n_genes
    latent_nbytes = 8.0 * n_genes * layers.n_latent
    whole = [n_raw[s.raw] for s in sources if _is_held_whole(s, sizes[s.raw][0])]
    region = _IMPORTS_NBYTES + 3 * shard
    judging = panels * (2.0 * cells * n_landmarks + 30.0 * n_landmarks**3) / _FLOPS
    values = {
        "ingest": (
            4.0 * (copied + cells) + len(sources) * _METADATA_NBYTES,
            max(region, _IMPORTS_NBYTES + 8 * max(whole, default=0)),
        ),
        "normalize": (4.0 * cells, region),
        "dedup": (
            4.0 * (n_genes * (settings.dedup.n_clusters + components) + n_samples * components),
            region,
        ),
        "train": (
            4.0 * weights,
            _KERAS_NBYTES + 16.0 * weights + _fed_nbytes(steps, cells, n_genes),
        ),
        "encode": (
            4.0 * n_samples * layers.n_latent + 60.0 * n_genes,
            _KERAS_NBYTES + shard,
        ),
        "score": (
            4.0 * cells + latent_nbytes * (n_samples // shard_samples(n_samples) + 1),
            _IMPORTS_NBYTES + shard + 2 * latent_nbytes + 2**27,
        ),
        "select": (75.0 * n_genes + 8.0 * panels * n_landmarks, _IMPORTS_NBYTES + 4 * sketch),
        "evaluate": (12.0 * panels * n_genes, region + 4 * sums),
        "group": (32.0 * n_samples * (panels + 3), region + 4.0 * n_genes * _N_COMPONENTS * 16),
        "enrich": (200.0 * panels * _N_TERMS, _IMPORTS_NBYTES),
        "report": (_REPORT_NBYTES, _IMPORTS_NBYTES),
    }
    seconds = {name: cost * cells for name, cost in _SECONDS_PER_CELL.items()}
    seconds["ingest"] = _SECONDS_PER_CELL["ingest"] * copied + _SECONDS_PER_LINKED_CELL * linked
    seconds["train"] = 10 + 6.0 * weights * n_samples * layers.epochs / _FLOPS
    seconds["encode"] = (4.0 * weights * n_samples + 4096.0 * n_genes**2) / _FLOPS
    seconds["score"] = _scoring_seconds(settings, cells)
    seconds["evaluate"] += judging
    if "dgex" in settings.evaluate.predictors:
        steps_of_weights = _dgex_weights(settings, n_genes) * settings.evaluate.dgex.epochs
        seconds["evaluate"] += panels * 6.0 * steps_of_weights * n_samples / _FLOPS
    seconds["select"] = 5 + chosen * n_landmarks * sketch * _SECONDS_PER_SKETCH_BYTE
    named = max(1, 1 + len(settings.evaluate.panels))
    cohorts = 1 + sum(source.role == "cohort" for source in sources)
    seconds["evaluate"] += cohorts * (panels * 3e-5 * n_genes + named * 4e-9 * n_genes**2)
    states = _states(steps)
    return [
        Estimate(
            step.name,
            step.writes,
            states[step.name],
            _reads(step),
            values[step.name][0] + _METADATA_NBYTES,
            values[step.name][1],
            seconds.get(step.name, 5),
        )
        for step in steps
    ]


def _fed_nbytes(steps: list[Step], cells: float, n_genes: int) -> float:
    """Return the memory that training samples take, held or streamed."""
    (training,) = (step.arguments for step in steps if step.name == "train")
    n_rows: int = training["window"] * training["windows_in_memory"]
    return min(4.0 * cells, max(2.0**30, 5.0 * n_genes * n_rows))


def _scoring_seconds(settings: Settings, cells: float) -> float:
    """Return the time of scoring: a product a sample and reference."""
    asked, layers = settings.score, settings.train
    n_references = asked.n_references if asked.deeplift_reference == "samples" else 1
    products = 2.0 * cells * layers.hidden * layers.n_latent * n_references
    return products / _SCORE_FLOPS * (_SHAP_TIMES if asked.engine == "shap" else 1)


def _is_linked(source: SourceFile) -> bool:
    """Return whether a source is joined from its own file, as a GCTX in log2 is."""
    is_log2 = source.unit in (None, "log2")
    return source.role == "train" and is_log2 and h5py.is_hdf5(source.path)


def _is_held_whole(source: SourceFile, n_samples: int) -> bool:
    """Return whether all values of a source are in memory at once; the others come by regions."""
    return n_samples <= SHARD_SAMPLES and not h5py.is_hdf5(source.path)


def _dgex_weights(settings: Settings, n_genes: int) -> int:
    """Return the number of weights of a panel's D-GEX network, without biases."""
    hidden, n_layers = settings.evaluate.dgex.hidden, settings.evaluate.dgex.n_layers
    return hidden * (settings.select.n_landmarks + n_genes + (n_layers - 1) * hidden)


def _states(steps: Sequence[Step]) -> dict[str, StepState]:
    """Return the state of each step; after one that is not done, none is."""
    states: dict[str, StepState] = {}
    for step in steps:
        changed = any(state != "done" for state in states.values())
        states[step.name] = "to do" if changed and step.state == "done" else step.state
    return states


def _reads(step: Step) -> str:
    """Return what a step reads, in a few words."""
    if step.name == "ingest":
        return f"{len(step.arguments['sources'])} files"
    if step.name == "report":
        return "all stores"
    names = ("source", "samples", "model", "landmarks")
    return " ".join(Path(step.arguments[n]).name for n in names if n in step.arguments)
