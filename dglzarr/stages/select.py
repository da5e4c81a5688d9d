"""Select: choose the mined panel, and the panels that it will be compared with.

Reads ``scores.zarr``, ``normalized.zarr``, ``samples.zarr`` and published lists, writes
``landmarks.zarr``. A panel is an ordered list of genes; random panels of the same size are the null
that a mined panel has to beat. Selectors are fitted on kept training samples alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationInfo, field_validator

from dglzarr.errors import hint
from dglzarr.evaluation.panels import (
    KINDS,
    MINED,
    Draws,
    Names,
    Panel,
    PanelOptions,
    candidate_panels,
    check_list_names,
    find_rules,
    panel_arrays,
    panel_labels,
    positions,
    read_lists,
    told_penalties,
    undetected,
    unmatched,
    with_penalties,
)
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.panels import SELECTORS
from dglzarr.kernels.penalties import panel_gain
from dglzarr.query import gene_keys
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Run, choice
from dglzarr.storage.schemas import LANDMARKS, SAMPLES, SCORES
from dglzarr.storage.stage import stage
from dglzarr.storage.store import StoreSummary, open_store, write_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.kernels.penalties import Stretch
    from dglzarr.kernels.sketch import GeneSketch
    from dglzarr.storage.claims import Claim

PUBLISHED = "published"


class SelectOptions(PanelOptions):
    """Panels: how the mined one is chosen, and what it is compared with."""

    section = "select"

    selector: str = choice("greedy", "how the mined panel is chosen", paper="top-score")
    selectors: Names = choice(
        ("top-score", "deeplift-greedy", "medoids"),
        "selectors whose panels the mined one is compared with",
    )
    n_landmarks: int = choice(943, "genes in each of these panels", gt=0)
    min_detected: float | None = choice(
        None,
        "leave out genes that are detected in under this share of the training samples of every "
        "group of ingest.detection; not in compare",
        gt=0,
        le=1,
    )

    @field_validator("selector", "selectors")
    @classmethod
    def _are_known(cls, value: str | tuple[str, ...], info: ValidationInfo) -> Any:  # noqa: ANN401
        names = [value] if isinstance(value, str) else value
        if unknown := [name for name in names if name not in SELECTORS]:
            place = f"select.{info.field_name}"
            raise ValueError(
                f"{place}: expected any of {list(SELECTORS)}, got {unknown!r}"
                f"{hint(unknown[0], SELECTORS)}"
            )
        return value


@stage(
    LANDMARKS,
    reads=("source", "normalized", "samples", "expression"),
    files={"panels": "evaluate.panels"},
    records=("seed",),
)
def select(  # noqa: PLR0913  (nine, and the claim)
    claim: Claim,
    source: str,
    target: str,  # noqa: ARG001  (the claim's)
    *,
    normalized: str,
    samples: str,
    expression: str | None = None,
    panels: Mapping[str, str] | None = None,
    seed: int = 0,
    options: SelectOptions = SelectOptions(),
    run: Run = Run(),
) -> StoreSummary:
    """Write the panels and the ranked genes, and summarize them.

    Parameters
    ----------
    source, normalized, samples
        URIs of the scores, normalized and samples stores.
    target
        URI of the landmarks store.
    expression
        URI of the joined store, for ``min_detected``.
    panels
        Name -> file of published lists (probes, symbols, Entrez or Ensembl IDs), taken as they
        are.
    seed
        Of everything drawn.
    options, run
        Its choices, and how it is run. Genes to hold or to leave out are labels, symbols, Entrez
        or Ensembl IDs. A forced gene stands first, by its first feature; an excluded one is kept
        out with all its features.

    Raises
    ------
    ConfigError
        When a forced gene is not measured or is excluded too, too few genes are left to choose
        from, or a panel has a name that is taken.
    SourceError
        When under half of a list is measured.

    Notes
    -----
    The normalized store is read once. Memory: 180 MB of sketch for 22,268 genes, and two or three
    times as much while genes are chosen.
    """
    ds, n = open_store(source, SCORES), options.n_landmarks
    check_list_names(panels or {})
    std = open_store(samples, SAMPLES)["gene_std"].values
    low = _undetected(expression, options.min_detected)
    rules = find_rules(ds, std, options, sizes=[n], place="select.n_landmarks", excluded=low)
    lists = read_lists(ds, panels or {})
    sketch = sketch_training(
        normalized, samples, ds["score"].values, seed=seed, on_progress=run.on_progress
    )
    selectors = list(dict.fromkeys((options.selector, *options.selectors)))
    tell, draws = run.on_progress, Draws(options.n_random, seed)
    rules = with_penalties(
        rules, sketch, options, selectors=selectors, n=n, seed=seed, on_progress=tell
    )
    found = candidate_panels(
        sketch, selectors, [n], rules=rules, lists=lists, draws=draws, on_progress=tell
    )
    chosen = _with_mined(found, options)
    rank = _rank(ds, chosen[0].genes)
    arrays = {
        **_labels(ds, chosen),
        "score": ds["score"].values,
        "rank": rank,
        "is_landmark": rank <= n,
        "is_forced": rank <= len(rules.forced),
        "gain": _gain(sketch, chosen[0].genes, rules.path),
        **panel_arrays(chosen, ds["gene"].values),
    }
    details = {
        "n_landmarks": n,
        **_named(ds, np.flatnonzero(rank <= n)),
        "n_forced": len(rules.forced),
        "n_excluded": len(rules.excluded),
        "n_sketch_rows": len(sketch.rows),
        "penalties": told_penalties(rules),
        "missing": {name: listed.missing for name, listed in lists.items()},
        "dates": {name: listed.dates for name, listed in lists.items() if listed.dates},
        "excluded_missing": unmatched(ds, options.excluded),
    }
    return write_store(claim, arrays, details=details)


def _undetected(expression: str | None, share: float | None) -> list[int]:
    """Return the features that are left out since they are hardly ever detected."""
    if expression is None or share is None:
        return []
    return undetected(expression, share, "select.min_detected")


def _with_mined(found: Iterable[Panel], options: SelectOptions) -> list[Panel]:
    """Return the panels by kind, with that of the chosen selector as the mined one."""
    panels = sorted(found, key=lambda panel: KINDS.index(panel.kind))
    of = {panel.name: panel for panel in panels if panel.kind == "selector"}
    return [
        replace(of[options.selector], name=MINED, kind="mined"),
        *(of[name] for name in dict.fromkeys(options.selectors)),
        *(panel for panel in panels if panel.kind != "selector"),
    ]


def _rank(ds: xr.Dataset, mined: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the rank of each gene: the mined panel in its order, then all others by score."""
    by_score = np.argsort(-ds["score"].values, kind="stable")
    order = np.concatenate([mined, by_score[~np.isin(by_score, mined)]])
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(1, order.size + 1)
    return rank


def _gain(
    sketch: GeneSketch, mined: NDArray[np.int64], path: Sequence[Stretch]
) -> NDArray[np.float64]:
    """Return what each gene of the mined panel added when it joined, NaN for all others."""
    gain = np.full(sketch.score.size, np.nan)
    gain[mined] = panel_gain(sketch, mined, path)
    return gain


def _named(ds: xr.Dataset, chosen: NDArray[np.int64]) -> dict[str, int | None]:
    """Return how many distinct genes the chosen features measure, None where no name is known."""
    is_named = (ds["gene_symbol"].values != "") | (ds["gene_id"].values != "")
    named = chosen[is_named[chosen]]
    n_distinct = len({*gene_keys(ds)[named].tolist()}) if named.size else None
    return {"n_distinct_genes": n_distinct, "n_unnamed": int(chosen.size - named.size)}


def _labels(ds: xr.Dataset, chosen: list[Panel]) -> dict[str, NDArray[Any]]:
    how = [PUBLISHED if panel.kind == PUBLISHED else panel.family for panel in chosen]
    return {
        **{name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")},
        **panel_labels(chosen, [panel.name for panel in chosen]),
        "position": positions(chosen),
        "selector": text_array(how),
    }
