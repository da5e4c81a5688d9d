"""How much of a panel of the highest scores is chance: other seeds, and other samples.

Owns which replicates there are and in which order they are made; ``stages.stability`` compares
them. Of a replicate the model and the scores stay, its contributions are removed.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.errors import ConfigError, StoreError
from dglzarr.stages.stability import compare_replicates, halve
from dglzarr.storage.store import open_store, store_input
from dglzarr.storage.study import Study, locked, open_study
from dglzarr.studies.plan import Step, execute, latent_step, plain_run, plan, rewrite_report

if TYPE_CHECKING:
    from dglzarr.settings import Settings
    from dglzarr.storage.store import StoreSummary
    from dglzarr.storage.tasks import Progress
    from dglzarr.studies.plan import Run


def stability(
    settings: Settings,
    *,
    n_seeds: int = 5,
    n_halves: int = 1,
    overwrite: bool = False,
    run: Run | None = None,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Train and score a finished study anew with other seeds and halves; summarize how they agree.

    Parameters
    ----------
    settings
        The study. It must be scored with these settings; its own seed is the first replicate.
    n_seeds
        Networks in all, of the seeds that follow the study's own.
    n_halves
        Random splits of the training samples into two halves, each trained and scored alone.
    overwrite
        Replace replicates that were made with other settings.
    run, on_progress
        As for ``pipeline.mine``.

    Raises
    ------
    ConfigError
        When there are fewer than two replicates.
    StoreError
        When the study's model or scores were made with other settings.
    DglzarrError
        Whatever a stage raises; finished replicates are kept, and the next call goes on.
    """
    if n_seeds < 1 or n_halves < 0 or n_seeds + 2 * n_halves < 2:
        raise ConfigError(
            f"stability: expected at least two replicates, got {n_seeds} seeds and {n_halves} "
            "splits into halves. Raise --seeds or --halves."
        )
    study = open_study(settings.root)
    first = Study(study.root, study.segments[:1])
    steps = {step.name: step for step in plan(settings, overwrite=overwrite)}
    open_store(first.uri("scores"))
    for step in (steps["train"], steps["score"]):
        if (state := step.state) != "done":
            raise StoreError(
                f"{step.writes}: expected it made with these settings, got {state!r}. "
                "Run 'dglzarr mine' with them first."
            )
    # Replicates of other data stand elsewhere, so that none of them is taken for one of these.
    place = f"{study.root}/stability/{store_input(first.uri('samples'))['store_id'][:8]}"
    replicates = {f"seed-{settings.seed}": first.uri("scores")}
    run = run or plain_run(on_progress)
    with locked(settings.root):
        for i in range(1, n_seeds):
            seed = settings.seed + i
            name, model = f"seed-{seed}", study.model(seed)
            replicates[name] = _replicate(
                settings, steps, f"{place}/{name}", run, seed=seed, model=model
            )
        for i in range(n_halves):
            for part in ("a", "b"):
                name = f"half-{i}-{part}"
                half = {"part": part, "seed": settings.seed + i}
                replicates[name] = _replicate(
                    settings, steps, f"{place}/{name}", run, seed=settings.seed, half=half
                )
        arguments = {
            "target": study.uri("stability"),
            "replicates": replicates,
            "n_landmarks": settings.select.n_landmarks,
            "overwrite": True,
        }
        found: StoreSummary = Step(
            "stability", compare_replicates, arguments, study.uri("stability")
        )()
        if Path(study.report).exists():
            rewrite_report(settings)
    return found


def _replicate(
    settings: Settings,
    steps: dict[str, Step],
    place: str,
    run: Run,
    *,
    seed: int,
    model: str | None = None,
    half: dict[str, Any] | None = None,
) -> str:
    """Return the URI of a replicate's scores, made where they are not there yet."""
    train, score = steps["train"], steps["score"]
    source, samples = train.arguments["source"], train.arguments["samples"]
    contributions, latent, scores = (
        f"{place}/{name}.zarr" for name in ("contributions", "latent", "scores")
    )
    overwrite = {"overwrite": train.arguments["overwrite"]}
    todo = []
    if half is not None:
        whole, samples = samples, f"{place}/samples.zarr"
        todo.append(
            Step(
                "halve",
                halve,
                {"source": whole, "normalized": source, "target": samples, **half, **overwrite},
                samples,
            )
        )
    model = model or f"{place}/model"
    common = {"samples": samples, "seed": seed}
    training = _changed(train, model, target=model, **common)
    places = {"target": scores, "contributions": contributions, "latent": latent}
    scoring = _changed(score, scores, model=model, **places, **common)
    if any(step.state != "done" for step in (training, scoring)):
        execute(settings, [*todo, training, *latent_step(scoring), scoring], run)
    for uri in (contributions, latent):  # also those that a killed run left
        shutil.rmtree(uri, ignore_errors=True)
    return scores


def _changed(step: Step, writes: str, **arguments: Any) -> Step:  # noqa: ANN401
    """Return a step that does the same elsewhere."""
    return replace(step, writes=writes, arguments={**step.arguments, **arguments})
