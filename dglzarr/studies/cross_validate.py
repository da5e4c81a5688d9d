"""Compare panels of several sizes by cross-validation over whole series.

Each fold is a study of its own under ``ROOT/folds/K``: its own split, normalization, duplicates,
AutoEncoder, scores, panels and evaluation, made by the stages of any study from the raw stores that
all folds share. ``ROOT/comparison.zarr`` holds what they find together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dglzarr.errors import ConfigError
from dglzarr.evaluation.predictors import PredictorName
from dglzarr.kernels.panels import SELECTORS
from dglzarr.stages.candidates import line_up
from dglzarr.stages.compare import pool
from dglzarr.stages.evaluate import evaluate
from dglzarr.storage.study import FIRST_SEGMENTS, Study, create_study, locked
from dglzarr.studies.cluster import client
from dglzarr.studies.plan import Step, latent_step, plan, rewrite_report, source_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dglzarr.settings import Settings
    from dglzarr.storage.store import StoreSummary
    from dglzarr.storage.tasks import Progress

SIZES = (50, 100, 200, 470, 943)


@dataclass(frozen=True)
class Contest:
    """What is compared: selectors, panel sizes, predictors, and in how many folds.

    Without selectors they are those of the settings, the mined panel's first.
    """

    selectors: Sequence[str] = ()
    sizes: Sequence[int] = SIZES
    predictors: Sequence[str] = ("ridge",)
    n_folds: int = 5


def compare(
    settings: Settings,
    contest: Contest | None = None,
    *,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Run all folds and return the summary of ``comparison.zarr``; finished work is kept.

    A report of the study that exists is written anew, with the comparison in it.

    Parameters
    ----------
    settings
        The study; its published panels take part, whole and in random subsets, beside
        ``select.n_random`` random panels of each size. Its sources of role ``cohort`` do not.
        What it forces into panels, or excludes, holds for those of every size.
    contest
        What is compared.
    overwrite
        Replace stores that were made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When a selector or a predictor is unknown or none is left, a size is no size of a panel,
        anything is named twice, or there are fewer than two folds or more than series.
    DglzarrError
        Whatever a stage raises; the next call goes on where this one stopped.
    """
    contest = contest or Contest()
    if not contest.selectors:
        chosen = (settings.select.selector, *settings.select.selectors)
        contest = replace(contest, selectors=tuple(dict.fromkeys(chosen)))
    _check(contest)
    create_study(settings.root)
    steps = [fold_steps(settings, contest, k, overwrite=overwrite) for k in range(contest.n_folds)]
    with locked(settings.root), client(**settings.cluster.model_dump()):
        for k, fold in enumerate(steps):
            create_study(_root(settings, k))
            for step in fold:
                step(on_progress=_named(on_progress, f"fold {k + 1} of {contest.n_folds}"))
        summary = pool(
            [fold[-1].writes for fold in steps],
            comparison_uri(settings.root),
            lineups=[fold[-2].writes for fold in steps],
            seed=settings.seed,
            overwrite=overwrite,
        )
        if Path(Study(settings.root, FIRST_SEGMENTS).report).exists():
            rewrite_report(settings)
    return summary


def fold_steps(
    settings: Settings, contest: Contest, k: int, *, overwrite: bool = False
) -> list[Step]:
    """Return the steps of one fold: those of a study, with panels of all sizes at its end.

    The network is trained and scored only where a selector reads its scores.
    """
    root = _root(settings, k)
    study = Study(root, FIRST_SEGMENTS)
    planned = {
        step.name: step
        for step in plan(
            settings.model_copy(update={"root": root}), study=study, overwrite=overwrite
        )
    }
    sources = source_files(settings, Study(settings.root, FIRST_SEGMENTS))
    fold = {"sources": [s for s in sources if s.role == "train"], "fold": (k, contest.n_folds)}
    ingest = planned["ingest"]
    uses_score = any(SELECTORS[name].uses_score for name in contest.selectors)
    score = planned["score"]
    network = [planned["train"], *latent_step(score), score] if uses_score else []
    common: dict[str, Any] = {
        "source": study.uri("normalized"),
        "samples": study.uri("samples"),
        "seed": settings.seed,
        "overwrite": overwrite,
    }
    lineup, evaluation = f"{root}/lineup.zarr", study.uri("evaluation")
    choices = settings.evaluate.model_dump(exclude={"panels", "predictors"})
    return [
        replace(ingest, arguments={**ingest.arguments, **fold}),
        planned["normalize"],
        planned["dedup"],
        *network,
        Step(
            "line up",
            line_up,
            {
                **common,
                "target": lineup,
                "scores": study.uri("scores") if uses_score else None,
                "selectors": contest.selectors,
                "sizes": contest.sizes,
                **settings.select.model_dump(include={"n_random", "forced", "excluded"}),
                "panels": settings.evaluate.panels,
            },
            lineup,
        ),
        Step(
            "evaluate",
            evaluate,
            {
                **common,
                **choices,
                "target": evaluation,
                "landmarks": lineup,
                "predictors": contest.predictors,
            },
            evaluation,
        ),
    ]


def comparison_uri(root: str) -> str:
    """Return the URI of a study's comparison store."""
    return Study(root, FIRST_SEGMENTS).uri("comparison")


def _root(settings: Settings, k: int) -> str:
    return f"{settings.root}/folds/{k}"


def _named(on_progress: Progress | None, fold: str) -> Progress | None:
    if on_progress is None:
        return None
    return lambda what, done, total: on_progress(f"{fold}: {what}", done, total)


def _check(contest: Contest) -> None:
    """Refuse what can be refused before any work."""
    if contest.n_folds < 2:
        raise ConfigError(f"--folds: expected 2 or more, got {contest.n_folds}.")
    if not contest.sizes or min(contest.sizes) < 1:
        raise ConfigError(f"--sizes: expected numbers of genes, got {list(contest.sizes)!r}.")
    known = {"--panels": SELECTORS, "--predictors": get_args(PredictorName)}
    for place, names in (("--panels", contest.selectors), ("--predictors", contest.predictors)):
        if unknown := [name for name in names if name not in known[place]]:
            raise ConfigError(
                f"{place}: expected names of {', '.join(known[place])}, got {unknown!r}."
            )
        _check_once(place, names)
    _check_once("--sizes", contest.sizes)


def _check_once(place: str, values: Sequence[object]) -> None:
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{place}: expected each once and at least one, got {list(values)!r}.")
