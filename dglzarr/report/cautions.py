"""What whoever acts on a study should know first: each caution, and what to do about it.

Reads Datasets of finished stores and the learning curve; fits nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.evaluation.panels import is_control, is_unnamed
from dglzarr.kernels.comparison import MIN_GROUPS
from dglzarr.kernels.split import SPLITS
from dglzarr.models.options import GENES_A_UNIT
from dglzarr.report.panels import CHANCE, as_shown, cohorts, texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import xarray as xr

    from dglzarr.models.files import History
    from dglzarr.report.panels import PanelRow

N_SHOWN = 5


class Caution(NamedTuple):
    """What is weak in a study, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


def cautions(
    opened: Mapping[str, xr.Dataset], rows: Sequence[PanelRow], history: History | None = None
) -> list[Caution]:
    """Return the cautions of a study, those about its data first.

    Parameters
    ----------
    opened
        The stores expression, samples, landmarks and evaluation; scores and reconstruction where
        there are any.
    rows
        Those of `dglzarr.report.panels.panel_rows`.
    history
        The learning curve of the network.
    """
    return [
        *_of_samples(opened, history),
        *_of_training(history),
        *_of_width(opened),
        *_of_network(opened),
        *_of_mean(opened["evaluation"], rows),
        *_of_chance(opened["evaluation"], rows),
        *_of_probes(opened["landmarks"]),
    ]


def nothing_against(opened: Mapping[str, xr.Dataset], rows: Sequence[PanelRow]) -> str:
    """Return what was checked of a study without cautions, and shown: nothing else.

    Parameters
    ----------
    opened, rows
        As for `cautions`.
    """
    told = ["enough series and samples", "validation samples", *_shown_of_network(opened)]
    chance = next(
        (row for row in _held_out(opened["evaluation"], rows) if row.panel == CHANCE), None
    )
    if chance is not None and chance.word == "worse":
        told.append("a panel better than chance")
    return (
        "None of what is checked stands against this study: "
        f"{', '.join(told)}, and no control probes or genes without names on the panel."
    )


def _shown_of_network(opened: Mapping[str, xr.Dataset]) -> Iterator[str]:
    """Yield what the network is shown to be better than, by intervals."""
    rivals = _rivals(opened)
    mean, components = rivals.get("mean"), rivals.get("components")
    if not mean or mean["high"] is None or not _is_lower(mean):
        return
    told = "a network that rebuilds held-out samples better than the mean of each gene"
    if not components or components["high"] is None:
        yield told
    elif _is_lower(components):
        yield f"{told} and than {components['n']} principal components"
    else:
        yield f"{told}, though not told apart from {components['n']} principal components"


def _rivals(opened: Mapping[str, xr.Dataset]) -> Mapping[str, Any]:
    """Return what the network stands beside; nothing in a study of before, or without one."""
    if "reconstruction" not in opened:
        return {}
    return (opened["reconstruction"].attrs.get("details") or {}).get("rivals") or {}


def _of_samples(opened: Mapping[str, xr.Dataset], history: History | None) -> Iterator[Caution]:
    n_series = len(set(texts(opened["expression"], "series")))
    evaluation = opened["evaluation"]
    held_out = evaluation.isel(cohort=texts(evaluation, "cohort").index(cohorts(evaluation)[0]))
    n_tested = int(held_out["n_series"])
    if n_series < MIN_GROUPS:
        yield Caution(
            f"The study is of {n_series} series: what holds in it may not hold in another.",
            f"Add series; {MIN_GROUPS} are the fewest that tell differences.",
        )
    elif n_tested < MIN_GROUPS:
        yield Caution(
            f"The held-out samples are of {n_tested} series: no panel can be told to be better or "
            "worse.",
            "Raise ingest.test_fraction, set another seed, or run 'dglzarr compare', which holds "
            "out every series once.",
        )
    n_kept = _n_kept(opened, "train")
    n_landmarks = int(opened["landmarks"]["is_landmark"].values.sum())
    if n_kept < n_landmarks:
        yield Caution(
            f"{_count(n_kept, 'training sample', 'training samples')} for a panel of "
            f"{n_landmarks:,} genes: fewer samples than genes choose nearly at random.",
            "Lower select.n_landmarks, or add samples.",
        )
    if not _n_kept(opened, "validation"):
        is_judged = history is not None and not np.isnan(history.val_loss).all()
        how = "chosen on training samples held back" if is_judged else "that of the last epoch"
        yield Caution(
            f"There are no validation samples: the network kept is {how}, and penalties were "
            "chosen on training series left out in turn.",
            "Raise ingest.validation_fraction, or add series.",
        )


def _of_training(history: History | None) -> Iterator[Caution]:
    if history is None or np.isnan(history.val_loss).all():
        return
    n_epochs = history.last_epoch
    if not history.best_epoch:
        yield Caution(
            "Training made the network no better than the components it begins with: it is those, "
            "and its scores tell which genes they are made of.",
            "Nothing is wrong with them; more samples may let it learn more.",
        )
    elif history.best_epoch == n_epochs:
        yield Caution(
            f"Training still improved when it stopped, in epoch {n_epochs}.",
            "Raise train.epochs.",
        )


def _of_width(opened: Mapping[str, xr.Dataset]) -> Iterator[Caution]:
    if "scores" not in opened:
        return
    n_units, n_genes = (opened["scores"].sizes[dim] for dim in ("latent", "gene"))
    if n_units >= n_genes:
        yield Caution(
            f"The latent layer has {n_units:,} units for {n_genes:,} genes: it squeezes nothing, "
            "and the network may copy what it reads, so that its scores, and how well it rebuilds "
            "genes, say nothing.",
            f"Set train.n_latent lower, as to {max(1, n_genes // GENES_A_UNIT):,}; the greedy "
            "panel does not depend on the network.",
        )


def _of_network(opened: Mapping[str, xr.Dataset]) -> Iterator[Caution]:
    rivals = _rivals(opened)
    mean, components = rivals.get("mean"), rivals.get("components")
    if mean and not _is_lower(mean):
        yield Caution(
            f"The network rebuilds held-out samples no better than the mean of each gene does: "
            f"mean absolute error {mean['network']:.4f} beside {mean['mae']:.4f}.",
            "Do not read its scores. Raise train.epochs or train.n_latent, or add samples; the "
            "greedy panel does not depend on the network.",
        )
    if components and _is_lower({**components, **_turned(components)}):
        yield Caution(
            f"The network rebuilds held-out samples worse than {components['n']} principal "
            f"components do: mean absolute error {components['network']:.4f} beside "
            f"{components['mae']:.4f}.",
            "Its scores may tell less than a linear method would. Raise train.epochs, or leave "
            "train.start at its default where it was set; the greedy panel does not depend on the "
            "network.",
        )


def _is_lower(found: Mapping[str, Any]) -> bool:
    """Return whether the network's error is lower: by its interval, where there is one."""
    end = found["high"] if found["high"] is not None else found["difference"]
    return end is not None and end < 0


def _turned(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return a difference the other way round."""
    low, difference = found["low"], found["difference"]
    return {
        "high": None if low is None else -low,
        "difference": None if difference is None else -difference,
    }


def _of_mean(evaluation: xr.Dataset, rows: Sequence[PanelRow]) -> Iterator[Caution]:
    here = _held_out(evaluation, rows)
    mean = next((row for row in here if row.kind == "baseline"), None)
    mined = next((row.mean_mae for row in here if row.kind == "mined"), np.nan)
    if mean is None or not np.isfinite([mean.mean_mae, mined]).all() or mean.word == "worse":
        return
    if np.isnan(mean.versus_low) and as_shown(mean.mean_mae) > as_shown(mined):
        return  # too few series to tell, which another caution says, and nothing against it
    yield Caution(
        "The mined panel is not shown to predict the other genes better than the mean of each "
        f"does: mean absolute error {mined:.4f} beside {mean.mean_mae:.4f}.",
        "Do not predict by it. Raise select.n_landmarks, or add samples that vary as yours will.",
    )


def _held_out(evaluation: xr.Dataset, rows: Sequence[PanelRow]) -> list[PanelRow]:
    """Return the rows of the held-out samples and the first predictor."""
    first = cohorts(evaluation)[0], texts(evaluation, "predictor")[0]
    return [row for row in rows if (row.cohort, row.predictor) == first]


def _of_chance(evaluation: xr.Dataset, rows: Sequence[PanelRow]) -> Iterator[Caution]:
    here = _held_out(evaluation, rows)
    chance = next((row for row in here if row.panel == CHANCE), None)
    mined = next((row.mean_mae for row in here if row.kind == "mined"), np.nan)
    random = [row.mean_mae for row in here if row.kind == "random" and np.isfinite(row.mean_mae)]
    if chance is None or not random or not np.isfinite(mined) or chance.word == "worse":
        return
    n_below = sum(as_shown(error) < as_shown(mined) for error in random)
    if np.isnan(chance.versus_low) and not n_below:
        return  # too few series to tell, which another caution says, and nothing against it
    of_all = _count(len(random), "random panel", "random panels")
    why = (
        f"{n_below} of {of_all} have a lower error"
        if n_below
        else f"none of {of_all} has a lower error, but {_undecided(chance)}"
    )
    yield Caution(
        f"The mined panel is not shown to be better than chance: {why}.",
        "Use it only beside a random panel. Compare sizes with 'dglzarr compare', lower "
        "select.n_landmarks, or add series.",
    )


def _undecided(row: PanelRow) -> str:
    """Return which of the two tests, over series and over target genes, does not tell a row."""
    if row.versus_low <= 0 <= row.versus_high:
        return "series differ too much to tell"
    return f"target genes differ too much to tell (p = {row.versus_pvalue:.2g})"


def _of_probes(landmarks: xr.Dataset) -> Iterator[Caution]:
    inside = landmarks["is_landmark"].values
    labels = [label for label, is_in in zip(texts(landmarks, "gene"), inside, strict=True) if is_in]
    controls = [label for label in labels if is_control(label)]
    unnamed = is_unnamed(landmarks)[inside]
    if controls:
        yield Caution(
            f"{_count(len(controls), 'control probe', 'control probes')} on the panel "
            f"({', '.join(controls[:N_SHOWN])}{', ...' if len(controls) > N_SHOWN else ''}): they "
            "measure the assay, not the samples.",
            "Set select.exclude_controls = true.",
        )
    if is_unnamed(landmarks).all():
        yield Caution(
            "No gene has a symbol, so that no list and no cohort of another platform can be "
            "matched by it.",
            "Give ingest.annotation.",
        )
    elif unnamed.any():
        yield Caution(
            f"{int(unnamed.sum()):,} of {unnamed.size:,} genes of the panel have no symbol.",
            "Give a newer ingest.annotation, or set select.exclude_unnamed = true.",
        )


def _n_kept(opened: Mapping[str, xr.Dataset], part: str) -> int:
    of_part = opened["expression"]["split"].values == SPLITS.index(part)
    return int((of_part & opened["samples"]["keep"].values).sum())


def _count(n: int, one: str, many: str) -> str:
    return f"{n:,} {one if n == 1 else many}"
