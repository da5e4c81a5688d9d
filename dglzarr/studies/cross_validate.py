"""Cross-validation of panels of several sizes over whole series.

Each fold is a study of its own under ``ROOT/folds/K``: its own split, normalization, duplicates,
AutoEncoder, scores, panels and evaluation, made by the stages of any study from the raw stores that
all folds share. ``ROOT/comparison.zarr`` holds what they find together.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from dglzarr.stages.compare import compare
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Run
from dglzarr.storage.study import FIRST_SEGMENTS, Study, create_study, locked
from dglzarr.studies.plan import Plan, on_cluster, rewrite_report

if TYPE_CHECKING:
    from dglzarr.settings import Settings
    from dglzarr.storage.options import Progress
    from dglzarr.storage.store import StoreSummary
    from dglzarr.studies.plan import Step


def cross_validate(settings: Settings, *, run: Run = Run()) -> StoreSummary:
    """Run all folds and return the summary of ``comparison.zarr``; finished work is kept.

    A report of the study that exists is written anew, with the comparison in it.

    Parameters
    ----------
    settings
        The study; ``[compare]`` says what is compared. Its published panels take part, whole and
        in random subsets, beside ``select.n_random`` random panels of each size. Its sources of
        role ``cohort`` do not. What it forces into panels, or excludes, holds for those of every
        size.
    run
        Whether stores made otherwise are replaced, and who is told of the progress.

    Raises
    ------
    ConfigError
        When there are more folds than series.
    DglzarrError
        Whatever a stage raises; the next call goes on where this one stopped.
    """
    n_folds, root = settings.compare.n_folds, settings.root
    with locked(root, is_new=True), ExitStack() as stack:
        study = Plan.of(settings, study=Study(root, FIRST_SEGMENTS))
        folds = [fold_plan(study, k) for k in range(n_folds)]
        steps = [step for fold in folds for step in fold_steps(fold)]
        stack.enter_context(on_cluster(settings, steps))
        create_study(root)
        for k, fold in enumerate(folds):
            create_study(fold.study.root)
            told = _named(run.on_progress, f"fold {k + 1} of {n_folds}")
            for step in fold_steps(fold):
                step(replace(run, on_progress=told))
        summary = compare(
            [fold.uri("evaluation") for fold in folds],
            comparison_uri(root),
            candidates=[fold.uri("candidates") for fold in folds],
            seed=settings.seed,
            run=run,
        )
        if place_of(study.study.report).exists():
            rewrite_report(settings)
    return summary


def fold_plan(plan: Plan, k: int) -> Plan:
    """Return the plan of one fold: of all folds but its series a study is made, to be judged on."""
    settings = plan.settings
    root = f"{settings.root}/folds/{k}"
    asked = settings.compare
    if not asked.selectors:
        chosen = (settings.select.selector, *settings.select.selectors)
        asked = asked.model_copy(update={"selectors": tuple(dict.fromkeys(chosen))})
    judged = settings.evaluate.model_copy(update={"predictors": asked.predictors})
    fold = plan.variant(
        root=root,
        fold=(k, asked.n_folds),
        places={"landmarks": f"{root}/candidates.zarr", "candidates": f"{root}/candidates.zarr"},
        compare=asked,
        evaluate=judged,
    )
    return replace(fold, sources=tuple(s for s in plan.sources if s.options.role == "train"))


def fold_steps(fold: Plan) -> list[Step]:
    """Return the steps of a fold, in order.

    The network is trained and scored only where a selector reads its scores.
    """
    network = fold.scoring() if fold.compares_by_scores else []
    first = [fold[name] for name in ("ingest", "join", "normalize", "dedup")]
    return [*first, *network, fold["candidates"], fold["evaluate"]]


def comparison_uri(root: str) -> str:
    """Return the URI of a study's comparison store."""
    return Study(root, FIRST_SEGMENTS).uri("comparison")


def _named(on_progress: Progress | None, fold: str) -> Progress | None:
    if on_progress is None:
        return None
    return lambda what, done, total: on_progress(f"{fold}: {what}", done, total)
