"""How much of a panel of the highest scores is chance: other seeds, and other samples.

Owns which replicates there are and in which order they are made; the stage ``stability`` compares
them. Of a replicate the model and the scores stay; the values of its contributions are removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dglzarr.errors import StoreError
from dglzarr.stages.stability import halve, stability
from dglzarr.storage.files import place_of, remove
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import open_store, store_input
from dglzarr.storage.study import locked, open_study
from dglzarr.studies.plan import Plan, Step, call, rewrite_report, run_steps

_REMOVED = ("contributions", "latent")
"""Stores of a replicate of which labels are kept, and what they were made from, but no values."""

if TYPE_CHECKING:
    from dglzarr.settings import Settings
    from dglzarr.storage.store import StoreSummary
    from dglzarr.studies.plan import Execute


def replicate(settings: Settings, *, run: Run = Run(), execute: Execute = call) -> StoreSummary:
    """Train and score a finished study anew with other seeds and halves; summarize how they agree.

    Parameters
    ----------
    settings
        The study, and under ``[stability]`` which replicates. It must be scored with these
        settings; its own seed is the first replicate, others follow it. Each half of a random
        split of the training samples is trained and scored alone.
    run, execute
        As for ``plan.mine``.

    Raises
    ------
    StoreError
        When the study's model or scores were made with other settings.
    DglzarrError
        Whatever a stage raises; finished replicates are kept, and the next call goes on.
    """
    study = open_study(settings.root)
    plan = Plan.of(settings)
    open_store(plan.uri("scores"))
    standings = plan.standings()
    for name in ("train", "explain", "score"):
        if standings[name].state != "done":
            raise StoreError(
                f"{plan[name].writes}: expected it made with these settings, got "
                f"{standings[name].state!r}. Run 'dglzarr mine' with them first."
            )
    # Replicates of other data stand elsewhere, so that none of them is taken for one of these.
    place = f"{study.root}/stability/{store_input(plan.uri('samples'))['store_id'][:8]}"
    scores = {f"seed-{settings.seed}": plan.uri("scores")}
    with locked(settings.root):
        for name, variant, before in _replicates(plan, place):
            _make(settings, variant, before, run, execute)
            scores[name] = variant.uri("scores")
        found = stability(
            list(scores.values()),
            study.uri("stability"),
            replicates=list(scores),
            n_landmarks=settings.select.n_landmarks,
            run=Run(overwrite=True),
        )
        if place_of(study.report).exists():
            rewrite_report(settings)
    return found


def _replicates(plan: Plan, place: str) -> list[tuple[str, Plan, list[Step]]]:
    """Return each replicate's name, its plan, and what is to be made before."""
    asked, seed = plan.settings.stability, plan.seed
    data = {name: plan.uri(name) for name in ("normalized", "samples")}
    found: list[tuple[str, Plan, list[Step]]] = []
    for other in range(seed + 1, seed + asked.n_seeds):
        name = f"seed-{other}"
        places = {**data, "model": plan.study.model(other)}
        found.append((name, plan.variant(root=f"{place}/{name}", seed=other, places=places), []))
    for i in range(asked.n_halves):
        for part in ("a", "b"):
            name = f"half-{i}-{part}"
            root = f"{place}/{name}"
            samples = f"{root}/samples.zarr"
            arguments = {
                "source": data["samples"],
                "target": samples,
                "normalized": data["normalized"],
                "half": part,
                "seed": seed + i,
            }
            places = {**data, "samples": samples, "model": f"{root}/model"}
            variant = plan.variant(root=root, places=places)
            found.append((name, variant, [Step("halve", halve, arguments, samples)]))
    return found


def _make(
    settings: Settings, replicate: Plan, before: list[Step], run: Run, execute: Execute
) -> None:
    """Train and score one replicate, where its scores are not there yet."""
    steps = [*before, *replicate.scoring()]
    if not all(_is_made(step) for step in steps):
        run_steps(settings, steps, run, execute)
    for name in _REMOVED:  # also what a killed run left
        for array in SPECS[name].region_arrays:
            remove(place_of(replicate.uri(name), array.name, "c"))


def _is_made(step: Step) -> bool:
    """Return whether a step of a replicate is done; what was removed after it counts as there."""
    if not place_of(step.writes).exists():
        return False
    (claim,) = step.claims()
    is_removed = Path(step.writes).name.removesuffix(".zarr") in _REMOVED
    return claim.state == "unchanged" or (is_removed and claim.state == "resumed")
