"""How a study grows: new sources become new segments, and one new manifest makes them visible.

Nothing is fitted: genes, reference, clusters, model and references of the first segment are frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dglzarr.errors import StoreError
from dglzarr.models.files import load_model
from dglzarr.report.text import growth_lines
from dglzarr.stages.dedup import DedupOptions, dedup_more
from dglzarr.stages.encode import encode
from dglzarr.stages.explain import ExplainOptions, explain
from dglzarr.stages.ingest import ingest_all, try_ingest
from dglzarr.stages.join import JoinOptions, join, refused_by
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Run
from dglzarr.storage.store import made_from, open_store, recorded_parameters
from dglzarr.storage.study import SEGMENTED, WHOLE, Study, locked, open_study, write_manifest
from dglzarr.storage.together import check_together
from dglzarr.studies.fetch import refused_sources
from dglzarr.studies.plan import (
    Plan,
    Step,
    call,
    report_standing,
    rewrite_report,
    run_steps,
    source_files,
    sources_of,
)
from dglzarr.studies.refusals import is_too_many, refusal_lines, settle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dglzarr.settings import Settings
    from dglzarr.stages.ingest import SourceFile
    from dglzarr.studies.plan import Execute


def grow(settings: Settings, *, run: Run = Run(), execute: Execute = call) -> dict[str, Any]:
    """Add the settings' new training sources to a finished study; return what each step returned.

    New segments are ingested in the study's genes, normalized with its frozen reference, checked
    for duplicates against everything and scored by its model. One new manifest then makes them
    visible, at once and whole; nothing old is touched. Without new sources nothing is done.

    Sources that cannot be had, read or joined are left out and told (`grown_lines`), where they are
    no more than ``fetch.max_refused`` of all.

    Raises
    ------
    SourceError
        When more are refused.
    StoreError
        When the study is not finished, or another run is changing it.
    DglzarrError
        Whatever a stage raises; the study stays as it was, and the next call goes on.
    """
    study = open_study(settings.root)
    refused = refused_sources(settings, on_progress=run.on_progress)
    for name in (*SEGMENTED, *WHOLE):
        open_store(study.uris(name))
    _check_stores(study)
    with locked(settings.root):
        study = open_study(settings.root)
        known = sources_of(study.uris("expression"))
        files = source_files(settings, study, without=refused)
        new = [s for s in files if s.options.role == "train" and s.name not in known]
        new = _without_refused(settings, study, new, refused, len(files), run, execute)
        if not new:
            return _late_report(settings, study)
        grown = Study(study.root, (*study.segments, study.next_segment))
        steps = _growth(settings, study, grown, new)
        # an abandoned segment that nobody lists is replaced
        done = run_steps(settings, steps, Run(True, run.on_progress), execute)
        write_manifest(study, grown.segments)
        done["report"] = rewrite_report(settings, seed=_seed(study))
    return done


def grown_lines(settings: Settings, done: Mapping[str, Any]) -> list[str]:
    """Return what growing added, and what was left out and why, in words."""
    added = growth_lines(settings.root) if done else ["Nothing to add: no new files."]
    return [*added, *refusal_lines(settings.root)]


def _without_refused(
    settings: Settings,
    study: Study,
    new: list[SourceFile],
    refused: dict[str, str],
    n_taken: int,
    run: Run,
    execute: Execute,
) -> list[SourceFile]:
    """Return the new sources that can be read and joined, where few enough cannot.

    A single one that would be too many is not tried first: its step tells of it.
    """
    n_sources, share = n_taken + len(refused), settings.fetch.max_refused
    settle(settings.root, refused, n_sources, share)
    if not new or (len(new) == 1 and is_too_many(len(refused) + 1, n_sources, share)):
        return new
    trying = {"sources": tuple(new)}
    step = Step("read", try_ingest, trying, f"{study.root}/raw")
    unread: dict[str, str] = run_steps(settings, [step], run, execute)["read"]
    raws = [source.raw for source in new if source.name not in unread]
    like = study.uris("expression")
    options = _join_options(settings, recorded_parameters(like[0]))
    refused = {**refused, **unread, **refused_by(like, raws, options)}
    settle(settings.root, refused, n_sources, share)
    return [source for source in new if source.name not in refused]


def _late_report(settings: Settings, study: Study) -> dict[str, Any]:
    """Write the report of a study whose growth was killed before it; return what was done."""
    step = Plan.of(settings).variant(seed=_seed(study))["report"]
    is_late = len(study.segments) > 1 and report_standing(step).state == "to do"
    return {"report": step()} if is_late else {}


def _growth(
    settings: Settings, study: Study, grown: Study, sources: Sequence[SourceFile]
) -> list[Step]:
    """Return the steps that write a new segment, with the choices of the first."""
    model = study.model(_seed(study))
    _check_model(model, study)
    first = {name: study.uris(name)[0] for name in SEGMENTED}
    made = {name: recorded_parameters(uri) for name, uri in first.items()}
    new = {name: grown.uri(name) for name in SEGMENTED}
    data = {"source": new["normalized"], "samples": new["samples"], "model": model}
    joining = {
        "source": [source.raw for source in sources],
        "like": study.uris("expression"),
        "seed": made["expression"]["seed"],
        "options": _join_options(settings, made["expression"]),
    }
    normalizing = {
        "source": new["expression"],
        "reference": first["normalized"],
        "options": NormalizeOptions.recorded_in(made["normalized"]),
    }
    deduplicating = {
        "source": new["normalized"],
        "known": list(zip(study.uris("normalized"), study.uris("samples"), strict=True)),
        "seed": made["samples"]["seed"],
        "options": DedupOptions.recorded_in(made["samples"]),
    }
    explaining = {
        **data,
        "frozen": first["contributions"],
        "seed": _seed(study),
        "options": ExplainOptions.recorded_in(made["contributions"]),
    }
    calls: list[tuple[str, Any, str, dict[str, Any]]] = [
        ("join", join, "expression", joining),
        ("normalize", normalize, "normalized", normalizing),
        ("dedup", dedup_more, "samples", deduplicating),
        ("encode", encode, "latent", data),
        ("explain", explain, "contributions", explaining),
    ]
    return [
        Step("ingest", ingest_all, {"sources": tuple(sources)}, f"{study.root}/raw"),
        *(
            Step(name, func, {"target": new[writes], **arguments}, new[writes])
            for name, func, writes, arguments in calls
        ),
    ]


def _join_options(settings: Settings, found: Mapping[str, Any]) -> JoinOptions:
    """Return the choices of a study's join; the annotation may have grown with the sources."""
    chosen = JoinOptions.recorded_in(found)
    named = settings.ingest.annotation if chosen.feature_kind == "gene" else None
    return chosen.model_copy(update={"annotation": named, "shard_samples": None})


def _seed(study: Study) -> int:
    """Return the seed of the model that scored a study."""
    return int(recorded_parameters(study.uris("contributions")[0])["seed"])


def _check_stores(study: Study) -> None:
    """Refuse stores that are not of the study, and say of a model of other scores what to do."""
    names = {name: study.uris(name) for name in (*SEGMENTED, *WHOLE)}
    check_together(study.root, [*names["normalized"], *names["samples"], *names["scores"]])
    _check_model(study.model(_seed(study)), study)
    check_together(study.root, [uri for uris in names.values() for uri in uris])


def _check_model(model: str, study: Study) -> None:
    """Refuse a model other than the one that the study's contributions are of."""
    scored = made_from(study.uris("contributions")[0], "model")
    found = load_model(place_of(model)).model_id
    if found != scored:
        raise StoreError(
            f"{model}: expected model {scored}, which scored the study, got {found}. "
            "Run 'dglzarr refit'."
        )
