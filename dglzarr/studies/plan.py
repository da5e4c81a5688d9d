"""The order of the stages, written once.

``plan`` turns settings into steps: a stage function and its keywords, nothing but URIs and plain
values. ``mine``, ``grow`` and ``refit`` run steps through ``run``, which the command line leaves as
a plain call and the Prefect flow wraps into a task.
"""

from __future__ import annotations

import errno
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dglzarr.errors import ConfigError, DglzarrError, StoreError
from dglzarr.models.batches import enough_windows
from dglzarr.models.files import load_model
from dglzarr.report.page import write_report
from dglzarr.sources import source_name
from dglzarr.stages.dedup import dedup, dedup_more
from dglzarr.stages.encode import encode, encode_samples
from dglzarr.stages.enrich import enrich
from dglzarr.stages.evaluate import evaluate
from dglzarr.stages.group import group
from dglzarr.stages.ingest import SourceFile, ingest
from dglzarr.stages.normalize import normalize
from dglzarr.stages.score import explain, score
from dglzarr.stages.select import select
from dglzarr.stages.train import train
from dglzarr.storage.store import is_complete, open_store, read_attributes
from dglzarr.storage.study import (
    SEGMENTED,
    WHOLE,
    Study,
    create_study,
    locked,
    open_study,
    planned_study,
    write_manifest,
)
from dglzarr.studies.cluster import client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dglzarr.settings import Settings
    from dglzarr.storage.tasks import Progress

    Run = Callable[["Step"], Any]

StepState = Literal["done", "to do", "other settings"]

OPTIONAL_STAGES = ("group", "enrich")
"""Stages that a study has only where its settings ask for them."""

STAGES = (
    "ingest",
    "normalize",
    "dedup",
    "train",
    "encode",
    "score",
    "select",
    "evaluate",
    "report",
)

_SCORED = ("deeplift_reference", "n_references", "layer", "aggregation", "engine", "seed")
"""How contributions were made: parameters of their store that a grown segment's take over."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Step:
    """One stage call: what it is named, what it does, and what it writes."""

    name: str
    func: Callable[..., Any]
    arguments: Mapping[str, Any]
    writes: str

    def __call__(self, **more: Any) -> Any:  # noqa: ANN401
        """Run the stage.

        Raises
        ------
        DglzarrError
            Whatever the stage raises; an error of the disk names what was to be written.
        """
        try:
            return self.func(**self.arguments, **more)
        except DglzarrError:
            raise
        except OSError as error:
            remedy = (
                "Free space" if error.errno in _FULL else "Check that it can be read and written"
            )
            raise StoreError(
                f"{self.writes}: {error}. {remedy} and run again; finished work is kept."
            ) from error

    @property
    def reports_progress(self) -> bool:
        """Whether the stage takes ``on_progress``."""
        return "on_progress" in inspect.signature(self.func).parameters

    @property
    def state(self) -> StepState:
        """Whether what the step writes stands there, and from these settings."""
        if self.name == "report":
            return "done" if Path(self.writes).exists() else "to do"
        recorded = self._recorded()
        if recorded is None:
            return "to do"
        asked = json.loads(json.dumps(dict(self.arguments), default=str))
        if self.name == "ingest":
            asked["sources"] = sorted(s.raw for s in self.arguments["sources"] if s.role == "train")
        if "panels" in asked:
            asked["panels"] = dict.fromkeys(asked["panels"])
        same = all(asked[k] == recorded[k] for k in recorded if k in asked)
        return "done" if same else "other settings"

    def _recorded(self) -> dict[str, Any] | None:
        """Return the parameters that what stands there was made with, None where it does not."""
        if self.name == "train":
            try:
                saved = load_model(Path(self.writes))
            except StoreError:
                return None
            return {**saved.config, **saved.parameters}
        found = read_attributes(self.writes) or {}
        if not found.get("complete"):
            return None
        recorded: dict[str, Any] = dict(found["parameters"])
        if self.name == "ingest":
            raws = [i["uri"] for i in found["inputs"] if i["uri"].endswith(".zarr")]
            recorded["sources"] = sorted(raws)
        if "panels" in recorded:
            recorded["panels"] = dict.fromkeys(recorded["panels"])
        return recorded


def plan(settings: Settings, *, study: Study | None = None, overwrite: bool = False) -> list[Step]:
    """Return the steps of a study's first segment, in order; grown segments stay as they are.

    Raises
    ------
    ConfigError
        When a source matches no file, two sources have one name, or a named file is absent.
    """
    study = study or planned_study(settings.root)
    grown = _sources_of(study.uris("expression")[1:])
    sources = [s for s in source_files(settings, study) if s.name not in grown]
    _check_files(settings)
    base = Study(study.root, study.segments[:1])
    common: dict[str, Any] = {"overwrite": overwrite}
    seed = settings.seed
    model = study.model(seed)
    normalized, samples = base.uri("normalized"), base.uri("samples")
    options = settings.ingest.model_dump()
    options["shard_length"] = options.pop("shard_samples")
    training = settings.train.model_dump()
    training["windows_in_memory"] = settings.train.windows_in_memory or enough_windows(
        settings.train.batch_size
    )
    cohorts = [s.raw for s in sources if s.role == "cohort"]
    judge = settings.evaluate.model_dump(exclude={"panels"})
    wanted = {"group": bool(settings.group.label), "enrich": bool(settings.enrich.files)}
    optional = {"group": "groups", "enrich": "enrichment"}
    reported = (*REPORTED, *(optional[name] for name in OPTIONAL_STAGES if wanted[name]))
    compared = tuple(n for n in ("comparison", "stability") if is_complete(study.uri(n)))
    stores = {name: study.uris(name) for name in (*reported, *compared)}

    def step(name: str, func: Callable[..., Any], writes: str, **arguments: Any) -> Step:  # noqa: ANN401
        return Step(name, func, arguments, writes)

    steps = [
        step(
            "ingest", ingest, base.uri("expression"), sources=sources,
            target=base.uri("expression"), seed=seed, **options, **common,
        ),
        step(
            "normalize", normalize, normalized, source=base.uri("expression"),
            target=normalized, **settings.normalize.model_dump(), **common,
        ),
        step(
            "dedup", dedup, samples, source=normalized, target=samples, seed=seed,
            **settings.dedup.model_dump(), **common,
        ),
        step(
            "train", train, model, source=normalized, target=model, samples=samples, seed=seed,
            **training, **common,
        ),
        step(
            "encode", encode, base.uri("reconstruction"), source=normalized,
            target=base.uri("reconstruction"), samples=samples, model=model,
            latent=base.uri("latent"), **common,
        ),
        step(
            "score", score, base.uri("scores"), source=normalized, target=base.uri("scores"),
            samples=samples, model=model, contributions=base.uri("contributions"),
            latent=base.uri("latent"), seed=seed, **settings.score.model_dump(), **common,
        ),
        step(
            "select", select, base.uri("landmarks"), source=base.uri("scores"),
            target=base.uri("landmarks"), normalized=normalized, samples=samples,
            panels=settings.evaluate.panels, seed=seed,
            **settings.select.model_dump(), **common,
        ),
        step(
            "evaluate", evaluate, base.uri("evaluation"), source=normalized,
            target=base.uri("evaluation"), samples=samples, landmarks=base.uri("landmarks"),
            cohorts=cohorts, seed=seed, **judge, **common,
        ),
        step(
            "group", group, base.uri("groups"), source=normalized, target=base.uri("groups"),
            samples=samples, landmarks=base.uri("landmarks"), model=model, cohorts=cohorts,
            **settings.group.model_dump(), **common,
        ),
        step(
            "enrich", enrich, base.uri("enrichment"), source=base.uri("landmarks"),
            target=base.uri("enrichment"), **settings.enrich.model_dump(), **common,
        ),
        step(
            "report", write_report, study.report, target=study.report, stores=stores, model=model,
            sources=[s.raw for s in sources], title=settings.title,
        ),
    ]  # fmt: skip
    return [s for s in steps if wanted.get(s.name, True)]


def latent_step(score: Step) -> list[Step]:
    """Return what must be run before a score step alone: the latent units, where they weigh."""
    if score.arguments["aggregation"] != "variance-weighted":
        return []
    names = ("source", "samples", "model", "overwrite")
    target = score.arguments["latent"]
    arguments = {**{name: score.arguments[name] for name in names}, "target": target}
    return [Step("encode", encode_samples, arguments, target)]


def rewrite_report(settings: Settings) -> Any:  # noqa: ANN401
    """Write a study's report with what the study has by now."""
    return plan(settings)[-1]()


REPORTED = (
    "expression", "normalized", "samples", "reconstruction", "contributions", "scores", "landmarks",
    "evaluation",
)  # fmt: skip


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
            if Path(source.uri).is_dir():
                raise ConfigError(
                    f"sources.{i}.uri: expected files, got the folder {source.uri}. "
                    "Add a pattern, such as /*_series_matrix.txt.gz."
                )
            raise ConfigError(f"sources.{i}.uri: no such file: {source.uri}.")
        for path in paths:
            name = source_name(path)
            if name in found:
                is_same = found[name].path == path
                raise ConfigError(
                    f"sources.{i}.uri: {path} is listed twice. Remove one of the two."
                    if is_same
                    else f"sources.{i}.uri: {path} and {found[name].path} are both named {name!r}. "
                    "Rename one of the files."
                )
            sheet = source.sample_sheet
            found[name] = SourceFile(
                path=path,
                raw=study.raw(name),
                role=source.role,
                unit=source.unit,
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
        **{f"select.{name}": path for name, path in settings.select.files.items()},
        **{f"enrich.{name}": path for name, path in settings.enrich.files.items()},
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
    only: Sequence[str] = (*STAGES, *OPTIONAL_STAGES),
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
    steps = [step for step in plan(settings, overwrite=overwrite) if step.name in only]
    if not steps:
        raise ConfigError(f"{only[0]}: expected settings, got none. Add a section [{only[0]}].")
    study = create_study(settings.root)
    if overwrite and len(study.segments) > 1:
        raise StoreError(
            f"{settings.root}: expected a study of one segment to overwrite, got "
            f"{len(study.segments)}: it has grown. Run 'dglzarr refit' instead."
        )
    with locked(settings.root):
        return execute(settings, steps, run or plain_run(on_progress))


def refit(
    settings: Settings, *, run: Run | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Mine a grown study anew, all sources in one new segment; return what each stage returned.

    The manifest is replaced when everything is done. The segments it listed before stay on disk
    for readers that have them open; remove them by hand. Model, scores, panels and evaluation are
    one a study: they are replaced as they are made, before the manifest.

    Raises
    ------
    DglzarrError
        Whatever a stage raises; the segments stay as they were, and the next call goes on.
    """
    with locked(settings.root):
        before = open_study(settings.root)
        study = Study(before.root, (before.next_segment,))
        steps = plan(settings, study=study, overwrite=True)
        done = execute(settings, steps, run or plain_run(on_progress))
        write_manifest(settings.root, study.segments)
    return done


def grow(
    settings: Settings, *, run: Run | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Add the settings' new training sources to a finished study; return what each stage returned.

    New segments are ingested in the study's genes, normalized with its frozen reference, checked
    for duplicates against everything and scored by its model. One new manifest then makes them
    visible, at once and whole; nothing old is touched. Without new sources nothing is done.

    Raises
    ------
    StoreError
        When the study is not finished, or another run is changing it.
    DglzarrError
        Whatever a stage raises; the study stays as it was, and the next call goes on.
    """
    study = open_study(settings.root)
    for name in (*SEGMENTED, *WHOLE):
        open_store(study.uris(name))
    with locked(settings.root):
        study = open_study(settings.root)
        known = _sources_of(study.uris("expression"))
        new = [
            s for s in source_files(settings, study) if s.role == "train" and s.name not in known
        ]
        if not new:
            return {}
        grown = Study(study.root, (*study.segments, study.next_segment))
        steps = _growth(settings, study, grown, new)
        done = execute(settings, steps, run or plain_run(on_progress))
        write_manifest(settings.root, grown.segments)
        as_scored = settings.model_copy(update={"seed": _scored(study)["seed"]})
        done["report"] = rewrite_report(as_scored)
    return done


def _growth(
    settings: Settings, study: Study, grown: Study, sources: Sequence[SourceFile]
) -> list[Step]:
    """Return the steps that write a new segment; an abandoned one that nobody lists is replaced."""
    found = open_store(study.uris("expression")[0]).attrs["parameters"]
    options = (
        "feature_kind", "split_by", "test_fraction", "validation_fraction", "min_coverage", "seed",
    )  # fmt: skip
    is_gene = found["feature_kind"] == "gene"
    frozen = open_store(study.uris("normalized")[0]).attrs["parameters"]
    scored = _scored(study)
    model = study.model(scored["seed"])
    _check_model(model, scored["model_id"])
    new = {name: grown.uri(name) for name in SEGMENTED}
    pairs = zip(study.uris("normalized"), study.uris("samples"), strict=True)
    arguments: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
        "ingest": (
            ingest,
            "expression",
            {
                "sources": sources,
                "like": study.uris("expression"),
                "annotation": settings.ingest.annotation if is_gene else None,
                **{o: found[o] for o in options},
            },
        ),
        "normalize": (
            normalize,
            "normalized",
            {
                "source": new["expression"],
                "reference": study.uris("normalized")[0],
                "method": frozen["method"],
                "ties": frozen["ties"],
            },
        ),
        "dedup": (dedup_more, "samples", {"source": new["normalized"], "known": list(pairs)}),
        "encode": (
            encode_samples,
            "latent",
            {
                "source": new["normalized"],
                "samples": new["samples"],
                "model": model,
            },
        ),
        "score": (
            explain,
            "contributions",
            {
                "source": new["normalized"],
                "samples": new["samples"],
                "model": model,
                "frozen": study.uris("contributions")[0],
                **{name: scored[name] for name in _SCORED},
            },
        ),
    }
    return [
        Step(name, func, {"target": new[writes], "overwrite": True, **more}, new[writes])
        for name, (func, writes, more) in arguments.items()
    ]


def _scored(study: Study) -> dict[str, Any]:
    """Return how a study's samples were scored: the parameters of its contributions."""
    return dict(open_store(study.uris("contributions")[0]).attrs["parameters"])


def _check_model(model: str, scored: str) -> None:
    """Refuse a model other than the one that the study's contributions are of."""
    found = load_model(Path(model)).model_id
    if found != scored:
        raise StoreError(
            f"{model}: expected model {scored}, which scored the study, got {found}. "
            "Run 'dglzarr refit'."
        )


def _sources_of(expression: Sequence[str]) -> set[str]:
    """Return the names of the sources that some expression stores hold."""
    return {str(name) for uri in expression for name in set(open_store(uri)["source"].values)}


def plain_run(on_progress: Progress | None) -> Run:
    """Return what calls a step, and tells its progress where it has any."""
    return lambda step: step(**({"on_progress": on_progress} if step.reports_progress else {}))


def execute(settings: Settings, steps: Sequence[Step], run: Run) -> dict[str, Any]:
    """Run steps in order on the settings' cluster; return what each returned."""
    done: dict[str, Any] = {}
    with client(**settings.cluster.model_dump()):
        for step in steps:
            done[step.name] = run(step)
            if step.name == "ingest":
                _check_panel_size(settings, open_store(step.writes).sizes["gene"])
    return done


def _check_panel_size(settings: Settings, n_genes: int) -> None:
    """Refuse an impossible panel as soon as the number of genes is known."""
    if settings.select.n_landmarks >= n_genes:
        raise ConfigError(
            f"select.n_landmarks: expected 1 to {n_genes - 1}, fewer than the {n_genes} genes of "
            f"the study, got {settings.select.n_landmarks}. Lower it."
        )
