"""The order of the stages, written once.

``plan`` turns settings into steps: a stage function and its keywords, nothing but URIs and plain
values. ``mine`` runs them through ``run``, which the command line leaves as a plain call and the
Prefect flow wraps into a task.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.cluster import client
from dglzarr.errors import ConfigError
from dglzarr.genes import read_gene_list
from dglzarr.query import table
from dglzarr.report.page import write_report
from dglzarr.schema import shard_samples
from dglzarr.sources import source_name
from dglzarr.sources.peek import peek_size
from dglzarr.stages.dedup import dedup
from dglzarr.stages.evaluate import evaluate
from dglzarr.stages.ingest import SourceFile, ingest
from dglzarr.stages.normalize import normalize
from dglzarr.stages.score import score
from dglzarr.stages.select import select
from dglzarr.store import StoreSummary, is_complete, open_store
from dglzarr.study import Study, create_study, open_study, planned_study

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dglzarr.config import Settings
    from dglzarr.store import Progress

    Run = Callable[["Step"], Any]

STAGES = ("ingest", "normalize", "dedup", "train", "score", "select", "evaluate", "report")


@dataclass(frozen=True)
class Step:
    """One stage call: what it is named, what it does, and what it writes."""

    name: str
    func: Callable[..., Any]
    arguments: Mapping[str, Any]
    writes: str

    def __call__(self, **more: Any) -> Any:  # noqa: ANN401
        """Run the stage."""
        return self.func(**self.arguments, **more)

    @property
    def reports_progress(self) -> bool:
        """Whether the stage takes ``on_progress``."""
        return self.name not in ("select", "report")

    @property
    def is_done(self) -> bool:
        """Whether what the step writes stands there complete."""
        if self.name == "train":
            return (Path(self.writes) / "model.json").exists()
        return is_complete(self.writes) if self.name != "report" else Path(self.writes).exists()


def plan(settings: Settings, *, overwrite: bool = False) -> list[Step]:
    """Return the steps of a study, in order.

    Raises
    ------
    ConfigError
        When a source matches no file, two sources have one name, or a named file is absent.
    """
    study = planned_study(settings.root)
    sources = source_files(settings, study)
    _check_files(settings)
    common: dict[str, Any] = {"overwrite": overwrite}
    seed = settings.seed
    model = study.model(seed)
    normalized, samples = study.uri("normalized"), study.uri("samples")
    options = settings.ingest.model_dump()
    options["shard_length"] = options.pop("shard_samples")
    cohorts = [s.raw for s in sources if s.role == "cohort"]
    judge = settings.evaluate.model_dump(exclude={"panels"})
    stores = {name: study.uris(name) for name in REPORTED}

    def step(name: str, func: Callable[..., Any], writes: str, **arguments: Any) -> Step:  # noqa: ANN401
        return Step(name, func, arguments, writes)

    return [
        step(
            "ingest", ingest, study.uri("expression"), sources=sources,
            target=study.uri("expression"), seed=seed, **options, **common,
        ),
        step(
            "normalize", normalize, normalized, source=study.uri("expression"),
            target=normalized, **settings.normalize.model_dump(), **common,
        ),
        step(
            "dedup", dedup, samples, source=normalized, target=samples, seed=seed,
            **settings.dedup.model_dump(), **common,
        ),
        step(
            "train", _train, model, source=normalized, target=model, samples=samples, seed=seed,
            **settings.train.model_dump(), **common,
        ),
        step(
            "score", score, study.uri("scores"), source=normalized, target=study.uri("scores"),
            samples=samples, model=model, contributions=study.uri("contributions"),
            **settings.score.model_dump(), **common,
        ),
        step(
            "select", select, study.uri("landmarks"), source=study.uri("scores"),
            target=study.uri("landmarks"), panels=settings.evaluate.panels, seed=seed,
            **settings.select.model_dump(), **common,
        ),
        step(
            "evaluate", evaluate, study.uri("evaluation"), source=normalized,
            target=study.uri("evaluation"), samples=samples, landmarks=study.uri("landmarks"),
            cohorts=cohorts, **judge, **common,
        ),
        step(
            "report", write_report, study.report, target=study.report, stores=stores, model=model,
            sources=[s.raw for s in sources], title=settings.title,
        ),
    ]  # fmt: skip


REPORTED = (
    "expression", "normalized", "samples", "contributions", "scores", "landmarks", "evaluation",
)  # fmt: skip


def _train(**arguments: Any) -> StoreSummary:  # noqa: ANN401
    """Train; keras is imported only when this step runs, and TensorFlow told to be quiet."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from dglzarr.stages.train import train  # noqa: PLC0415  (loads keras)

    return train(**arguments)


def source_files(settings: Settings, study: Study) -> list[SourceFile]:
    """Return the files that the settings' patterns stand for, sorted within each pattern.

    Raises
    ------
    ConfigError
        When a pattern matches no file, or two files would have one raw store.
    """
    found: dict[str, SourceFile] = {}
    for i, source in enumerate(settings.sources):
        paths = sorted(str(p) for p in _matching(source.uri))
        if not paths:
            raise ConfigError(f"sources.{i}.uri: no such file: {source.uri}.")
        for path in paths:
            name = source_name(path)
            if name in found:
                raise ConfigError(
                    f"sources.{i}.uri: {path} and {found[name].path} are both named {name!r}. "
                    "Rename one of the files."
                )
            sheet = source.sample_sheet
            found[name] = SourceFile(
                path=path,
                raw=study.raw(name),
                role=source.role,
                sample_sheet=sheet.replace("{stem}", name) if sheet else None,
                sample_column=source.join_column,
            )
    return list(found.values())


def _check_files(settings: Settings) -> None:
    """Refuse settings that name a file which is not there, before any work."""
    named = {
        "ingest.probes": settings.ingest.probes,
        "ingest.annotation": settings.ingest.annotation,
        **{f"evaluate.panels.{name}": path for name, path in settings.evaluate.panels.items()},
    }
    for name, path in named.items():
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"{name}: no such file: {path}.")


def _matching(pattern: str) -> list[Path]:
    """Return the files that a pattern, or a plain path, stands for."""
    path = Path(pattern)
    if path.is_file():
        return [path]
    return [p for p in path.parent.glob(path.name) if p.is_file()]


def mine(
    settings: Settings,
    *,
    run: Run | None = None,
    only: Sequence[str] = STAGES,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Run the stages of a study in order; return what each returned, by stage.

    Parameters
    ----------
    settings
        The study.
    run
        Executes one step; the default calls it. A flow passes one that makes it a task.
    only
        Stages to run; the others must have been run before.
    overwrite
        Replace stores that were made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    DglzarrError
        Whatever a stage raises; nothing that it left looks complete.
    """

    def call(step: Step) -> Any:  # noqa: ANN401
        return step(**({"on_progress": on_progress} if step.reports_progress else {}))

    execute = run or call
    steps = [step for step in plan(settings, overwrite=overwrite) if step.name in only]
    study = create_study(settings.root)
    done: dict[str, Any] = {}
    with client(**settings.cluster.model_dump()):
        for step in steps:
            done[step.name] = execute(step)
            if step.name == "ingest":
                _check_panel_size(settings, open_store(study.uri("expression")).sizes["gene"])
    return done


def _check_panel_size(settings: Settings, n_genes: int) -> None:
    """Refuse an impossible panel as soon as the number of genes is known."""
    if settings.select.n_landmarks >= n_genes:
        raise ConfigError(
            f"select.n_landmarks: expected 1 to {n_genes - 1}, fewer than the {n_genes} genes of "
            f"the study, got {settings.select.n_landmarks}. Lower it."
        )


# ---------------------------------------------------------------- what came out


def top_landmarks(settings: Settings, n: int = 50) -> list[dict[str, Any]]:
    """Return the best-scored genes, one mapping a gene."""
    study = open_study(settings.root)
    frame = table(study.uri("landmarks"), top=n).sort_values("rank").reset_index()
    rows = frame[["rank", "gene", "gene_symbol", "score"]].to_dict("records")
    return [{str(k): v for k, v in row.items()} for row in rows]


def source_lines(settings: Settings) -> list[str]:
    """Return what was decided about each source, a line each."""
    study = open_study(settings.root)
    lines = ["Sources:"]
    for source in source_files(settings, study):
        raw = open_store(source.raw)
        details = raw.attrs["details"]
        found = details["quantiles"]
        scale = "raw -> log2(x + 1)" if details["scale"] == "raw" else "log2 already"
        negative = (
            f", {details['n_negative']} negative values set to 0" if details["n_negative"] else ""
        )
        lines.append(
            f"  {source_name(source.path)}: {raw.sizes['sample']} samples, {raw.sizes['gene']} "
            f"features, median {found['median']:.4g}, 99 % {found['q99']:.4g}: {scale}{negative}"
            + (" (cohort)" if source.role == "cohort" else "")
        )
    joined = open_store(study.uri("expression"))
    details, split = joined.attrs["details"], joined.attrs["details"]["split_counts"]
    shown = ", ".join(f"{n} {name}" for name, n in split.items())
    lines.append(
        f"Joined: {joined.sizes['sample']} samples ({shown}) x {joined.sizes['gene']} features, "
        f"{details['n_missing']} values missing"
    )
    return lines


def headline(settings: Settings, *, truth: str | Path | None = None) -> list[str]:
    """Return what a run found: sources, the panel, its accuracy beside others, the report.

    ``truth`` may name the file that tells which genes a simulated study planted.
    """
    study = open_study(settings.root)
    landmarks = open_store(study.uri("landmarks"))
    error = {
        str(p): float(e)
        for p, e in open_store(study.uri("evaluation")).attrs["details"]["mean_mae"].items()
    }
    random = sorted(e for p, e in error.items() if p.startswith("random-"))
    best = ", ".join(g["gene_symbol"] or g["gene"] for g in top_landmarks(settings, 10))
    details = landmarks.attrs["details"]
    size, distinct = details["n_landmarks"], details["n_distinct_genes"]
    lines = [
        *source_lines(settings),
        f"Panel: {size} features, {distinct} distinct genes. First: {best}",
        "Mean absolute error on held-out samples (z units, lower is better):",
    ]
    lines += [f"  {p:<12} {e:.4f}" for p, e in error.items() if not p.startswith("random-")]
    if random:
        beaten = sum(e > error["mined"] for e in random)
        mean = sum(random) / len(random)
        lines.append(
            f"  {len(random)} random    {mean:.4f} ({random[0]:.4f} to {random[-1]:.4f}); "
            f"the mined panel is better than {beaten} of them"
        )
    if truth is not None and Path(truth).is_file():
        hubs = set(json.loads(Path(truth).read_text(encoding="utf-8"))["hubs"])
        chosen = {str(g) for g in landmarks["gene"].values[landmarks["is_landmark"].values]}
        lines.append(f"Planted hub genes found: {len(hubs & chosen)} of {len(hubs)}")
    return [*lines, f"Report: {study.report}"]


# ---------------------------------------------------------------- what it will take

_SECONDS_PER_CELL = {  # measured on two cores, see docs/reproduce.md
    "ingest": 5e-7,
    "normalize": 5e-8,
    "dedup": 2.5e-7,
    "evaluate": 5e-9,
}
_FLOPS = 4e10
_IMPORTS_NBYTES = 4e8
_KERAS_NBYTES = 9e8


@dataclass(frozen=True)
class Estimate:
    """One line of a dry run."""

    name: str
    writes: str
    is_done: bool
    nbytes: float
    memory_nbytes: float
    seconds: float


def estimate(settings: Settings) -> list[Estimate]:
    """Return the disk, memory and time each step of a study will need; nothing is written.

    Sizes come from the heads of the source files, times from costs measured on two cores: orders
    of magnitude, not promises. Memory is that of the largest process.

    Raises
    ------
    ConfigError
        When a source matches no file.
    """
    sources = source_files(settings, planned_study(settings.root))
    sizes = {source.raw: peek_size(source.path) for source in sources}
    train = [sizes[source.raw] for source in sources if source.role == "train"]
    n_genes = min(genes for _, genes in train)
    if settings.ingest.probes is not None:
        n_genes = len(read_gene_list(settings.ingest.probes))
    n_samples = sum(samples for samples, _ in train)
    raw_cells = float(sum(samples * genes for samples, genes in sizes.values()))
    cells, shard = float(n_samples * n_genes), 4.0 * n_genes * shard_samples(n_samples)
    layers = settings.train
    weights = 2 * (n_genes * layers.hidden + layers.hidden * layers.n_latent)
    panels = 1 + settings.select.n_random + len(settings.evaluate.panels)
    n_landmarks = settings.select.n_landmarks
    sums = 8.0 * n_landmarks * n_genes
    latent_nbytes = 8.0 * n_genes * layers.n_latent
    largest = 4.0 * max(samples * genes for samples, genes in sizes.values())
    region = _IMPORTS_NBYTES + 3 * shard
    judging = panels * (2.0 * cells * n_landmarks + 30.0 * n_landmarks**3) / _FLOPS
    values = {
        "ingest": (3.6 * (raw_cells + cells), _IMPORTS_NBYTES + max(2 * largest, 3 * shard)),
        "normalize": (4.0 * cells, region),
        "dedup": (4.0 * n_genes * settings.dedup.n_clusters, region),
        "train": (28.0 * weights, _KERAS_NBYTES + 16.0 * weights + min(4.0 * cells, 2**30)),
        "score": (
            4.0 * cells + latent_nbytes * (n_samples // shard_samples(n_samples) + 1),
            region + 2 * latent_nbytes + 2**27,
        ),
        "select": (1e6, _IMPORTS_NBYTES),
        "evaluate": (12.0 * panels * n_genes, region + 4 * sums),
        "report": (5e6, _IMPORTS_NBYTES),
    }
    seconds = {name: cost * cells for name, cost in _SECONDS_PER_CELL.items()}
    seconds["ingest"] = _SECONDS_PER_CELL["ingest"] * raw_cells
    seconds["train"] = 10 + 6.0 * weights * n_samples * layers.epochs / _FLOPS
    seconds["score"] = 2.0 * n_genes * layers.hidden * layers.n_latent * n_samples / _FLOPS
    seconds["evaluate"] += judging
    return [
        Estimate(
            step.name, step.writes, step.is_done, *values[step.name], seconds.get(step.name, 5)
        )
        for step in plan(settings)
    ]
