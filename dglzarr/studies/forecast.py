"""What a study will take: disk, memory and time of each step, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dglzarr.sources.peek import peek_cost
from dglzarr.studies.early import check_extras, check_sources
from dglzarr.studies.plan import Plan
from dglzarr.studies.scale import N_COMPONENTS, Scale, memory_of

if TYPE_CHECKING:
    from dglzarr.settings import Settings
    from dglzarr.studies.plan import Step, StepState

# Measured on two cores with two workers: docs/reproduce.md; its tests compare.
_SECONDS_PER_CELL = {"normalize": 1.2e-8, "dedup": 1.4e-8, "evaluate": 5e-9}
_SECONDS_PER_COPIED_CELL = 4e-8
_SECONDS_PER_JOINED_CELL = 2e-8
_SECONDS_PER_LINKED_CELL = 1.2e-8
_SECONDS_PER_SKETCH_BYTE = 1e-10
_FLOPS = 1.5e11
_SHAP_TIMES = 50.0  # as long as the closed form takes
_SCORE_FLOPS = 2.5e11  # between cores with AVX2 and with AVX-512
_METADATA_NBYTES = 1e4
_REPORT_NBYTES, _REPORT_NBYTES_PER_GENE = 2.2e6, 600.0  # with figures and report_data
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
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def estimate(settings: Settings) -> list[Estimate]:
    """Return the disk, memory and time each step of a study will need; nothing is written.

    Sizes come from the heads of the source files, times from costs measured on two cores: within
    a factor of 2.5 there, no promise elsewhere. Memory is that of the largest process. While it
    runs, training needs seven times the disk of the model for its checkpoints.

    Raises
    ------
    ConfigError
        When a source matches no file, or a setting is wrong as far as is cheap to tell.
    """
    plan = Plan.of(settings)
    scale = Scale.of(plan.settings, plan.sources)
    disk, memory, seconds = _disk(scale), memory_of(scale), _seconds(scale)
    standings = plan.standings()
    todo = {step.name: step.writes for step in plan if standings[step.name].state != "done"}
    check_extras(settings, dict.fromkeys(todo, ""))
    check_sources(settings, plan.sources, is_read=standings["ingest"].state == "done")
    return [
        Estimate(
            step.name,
            step.writes,
            standings[step.name].state,
            _reads(step),
            disk[step.name] + _METADATA_NBYTES,
            memory[step.name],
            seconds.get(step.name, 5),
            standings[step.name].reasons,
            _told_costs(scale) if step.name in ("ingest", "join") and step.name in todo else (),
        )
        for step in plan
    ]


def _told_costs(scale: Scale) -> tuple[str, ...]:
    """Return which sources are packed so that reading them by regions takes long, and how long."""
    told = {s.name: peek_cost(s.path, s.options.reading(), scale.shard) for s in scale.sources}
    return tuple(f"{name}: {cost}" for name, cost in told.items() if cost)


def _disk(scale: Scale) -> dict[str, float]:
    """Return the bytes that each step writes."""
    settings, n_genes, n_samples = scale.settings, scale.n_genes, scale.n_samples
    components = min(N_COMPONENTS, n_samples)
    n_regions = n_samples // scale.shard + 1
    return {
        "ingest": 4.0 * scale.copied + len(scale.sources) * _METADATA_NBYTES,
        "join": 4.0 * scale.cells,
        "normalize": 4.0 * scale.cells,
        "dedup": 4.0
        * (n_genes * (settings.dedup.n_clusters + components) + n_samples * components),
        "train": 4.0 * scale.weights,
        "encode": 4.0 * n_samples * settings.train.n_latent + 40.0 * n_genes,
        "reconstruct": 20.0 * n_genes,
        "explain": 4.0 * scale.cells + scale.latent_nbytes * n_regions,
        "score": scale.latent_nbytes / 2,
        "select": 75.0 * n_genes + 8.0 * scale.n_panels * settings.select.n_landmarks,
        "evaluate": 12.0 * scale.n_panels * n_genes + 2 * _METADATA_NBYTES,  # it has most arrays
        "group": 32.0 * n_samples * (scale.n_panels + 3),
        "enrich": 200.0 * scale.n_panels * _N_TERMS,
        "report": _REPORT_NBYTES + _REPORT_NBYTES_PER_GENE * n_genes,
    }


def _seconds(scale: Scale) -> dict[str, float]:
    """Return the time of each step that takes more than a few seconds."""
    settings, cells, n_genes = scale.settings, scale.cells, scale.n_genes
    seconds = {name: cost * cells for name, cost in _SECONDS_PER_CELL.items()}
    seconds["ingest"] = _SECONDS_PER_COPIED_CELL * scale.copied
    joined = min(cells, scale.linked)
    seconds["join"] = _SECONDS_PER_LINKED_CELL * joined + _SECONDS_PER_JOINED_CELL * (
        cells - joined
    )
    steps = scale.n_samples * settings.train.epochs
    seconds["train"] = 10 + 6.0 * scale.weights * steps / _FLOPS
    seconds["encode"] = 4.0 * scale.weights * scale.n_samples / _FLOPS
    seconds["reconstruct"] = 4096.0 * n_genes**2 / _FLOPS
    seconds["explain"] = _scoring_seconds(settings, cells)
    n_landmarks = settings.select.n_landmarks
    chosen = scale.n_chosen * n_landmarks * scale.sketch_nbytes
    seconds["select"] = 5 + chosen * _SECONDS_PER_SKETCH_BYTE
    seconds["evaluate"] += _evaluating_seconds(scale)
    return seconds


def _evaluating_seconds(scale: Scale) -> float:
    """Return the time of fitting and evaluating panels, that of reading aside."""
    settings, n_genes, n_panels = scale.settings, scale.n_genes, scale.n_panels
    n_landmarks = settings.select.n_landmarks
    fits = n_panels * (2.0 * scale.cells * n_landmarks + 30.0 * n_landmarks**3) / _FLOPS
    if "dgex" in settings.evaluate.predictors:
        passes = _dgex_weights(settings, n_genes) * settings.evaluate.dgex.epochs
        fits += n_panels * 6.0 * passes * scale.n_samples / _FLOPS
    named = max(1, 1 + len(settings.evaluate.panels))
    cohorts = 1 + sum(source.options.role == "cohort" for source in scale.sources)
    return fits + cohorts * (n_panels * 3e-5 * n_genes + named * 4e-9 * n_genes**2)


def _scoring_seconds(settings: Settings, cells: float) -> float:
    """Return the time of scoring: a product a sample and reference."""
    asked, layers = settings.score, settings.train
    n_references = asked.n_references if asked.deeplift_reference == "samples" else 1
    products = 2.0 * cells * layers.hidden * layers.n_latent * n_references
    return products / _SCORE_FLOPS * (_SHAP_TIMES if asked.engine == "shap" else 1)


def _dgex_weights(settings: Settings, n_genes: int) -> int:
    """Return the number of weights of a panel's D-GEX network, without biases."""
    hidden, n_layers = settings.evaluate.dgex.hidden, settings.evaluate.dgex.n_layers
    return hidden * (settings.select.n_landmarks + n_genes + (n_layers - 1) * hidden)


def _reads(step: Step) -> str:
    """Return what a step reads, in a few words."""
    if step.name in ("ingest", "join"):
        return f"{len(step.arguments.get('sources', step.arguments.get('source', ())))} sources"
    if step.name == "report":
        return "all stores"
    names = ("source", "normalized", "samples", "latent", "model", "landmarks")
    cohorts = len(step.arguments.get("cohorts", ()))
    read = [Path(step.arguments[n]).name for n in names if step.arguments.get(n)]
    return " ".join([*read, *([f"{cohorts} cohorts"] if cohorts else [])])
