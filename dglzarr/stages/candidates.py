"""Line up: the panels of every size that one fold of a comparison judges.

Reads ``normalized.zarr``, ``samples.zarr``, ``scores.zarr`` where a selector needs it, and
published lists; writes ``lineup.zarr``. All panels are chosen on kept training samples alone.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError
from dglzarr.evaluation.cohorts import kept_samples
from dglzarr.evaluation.panels import (
    RANDOM,
    Rules,
    check_list_names,
    find_rules,
    match_lists,
    panel_table,
)
from dglzarr.evaluation.sketch import sketch_samples
from dglzarr.kernels.panels import SELECTORS, select_panel
from dglzarr.storage.files import file_input
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import LINEUP, NORMALIZED, SAMPLES
from dglzarr.storage.store import (
    StoreSummary,
    claim_store,
    create_store,
    finish,
    open_store,
    store_input,
    summarize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.sketch import GeneSketch
    from dglzarr.storage.tasks import Progress


class Entry(NamedTuple):
    """One panel: its label, family, nominal size and genes, as indices."""

    label: str
    family: str
    size: int
    genes: NDArray[np.int64]


def line_up(
    source: str,
    target: str,
    *,
    samples: str,
    scores: str | None = None,
    selectors: Sequence[str] = (),
    sizes: Sequence[int] = (100,),
    n_random: int = 20,
    forced: str | Sequence[str] = (),
    excluded: str | Sequence[str] = (),
    panels: Mapping[str, str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    on_progress: Progress | None = None,
) -> StoreSummary:
    """Write panels of each size: of selectors, random ones, lists and random subsets of lists.

    Parameters
    ----------
    source, samples
        URIs of the normalized and samples stores.
    target
        URI of the lineup store.
    scores
        URI of the scores store; needed by selectors that read DeepLIFT scores.
    selectors
        Names in ``kernels.panels.SELECTORS``.
    sizes
        Genes a panel.
    n_random
        Random panels of each size, and random subsets of each list. A random panel of one size is
        the beginning of that of the next, and the same in every fold but for genes that do not
        vary there.
    forced, excluded
        Genes that every panel must hold, or must not, as in ``select``; lists are taken as they
        are.
    panels
        Name -> file of published lists; each takes part whole, and in random subsets.
    seed
        Of everything that draws.
    overwrite
        Replace a store made from other inputs or parameters.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When a selector is unknown, a size is not smaller than the number of genes, the rules leave
        too few of them, or a list has a name that is taken.
    SourceError
        When under half of a list is measured.
    """
    started = time.monotonic()
    ds, mask = open_store(source, NORMALIZED), open_store(samples, SAMPLES)
    _check(selectors, sizes, ds.sizes["gene"])
    published = dict(panels or {})
    check_list_names(published)
    mean, std = mask["gene_mean"].values, mask["gene_std"].values
    rules = find_rules(ds, std, forced, excluded, sizes=sorted(sizes), place="--sizes")
    files = [file for file in (forced, excluded) if isinstance(file, str)]
    stores = [source, samples, *([scores] if scores else [])]
    claim = claim_store(
        target,
        LINEUP,
        inputs=[*map(store_input, stores), *map(file_input, [*files, *published.values()])],
        parameters={
            "selectors": list(selectors),
            "sizes": sorted(sizes),
            "n_random": n_random,
            "forced": forced if isinstance(forced, str) else list(forced),
            "excluded": excluded if isinstance(excluded, str) else list(excluded),
            "panels": sorted(published),
            "seed": seed,
        },
        overwrite=overwrite,
    )
    if claim.state == "unchanged":
        return summarize(target, claim.state)
    lists = match_lists(ds, published)
    score = read_array(scores, "score") if scores else np.full(ds.sizes["gene"], np.nan)
    chosen = kept_samples(source, samples)
    sketch = sketch_samples(
        source, chosen, mean=mean, std=std, score=score, seed=seed, on_progress=on_progress
    )
    entries = [*_selected(sketch, selectors, sorted(sizes), rules, seed, on_progress)]
    entries += _random(std > 0, sorted(sizes), n_random, rules, seed)
    for number, (name, match) in enumerate(lists.items(), start=1):
        genes = ds.indexes["gene"].get_indexer(pd.Index(match.genes)).astype(np.int64)
        entries += _subsets(name, genes, sorted(sizes), n_random, [seed, number])
    if claim.state == "new":
        coords = {name: ds[name].values for name in ("gene", "gene_id", "gene_symbol")}
        create_store(claim, coords | _labels(entries))
    missing = {name: match.missing for name, match in lists.items()}
    arrays = {
        "panel_gene": panel_table([ds["gene"].values[e.genes] for e in entries]),
        "n_missing": np.array([len(missing.get(e.label.split("/")[0], ())) for e in entries]),
    }
    return finish(target, started=started, arrays=arrays, details={"missing": missing})


def _check(selectors: Sequence[str], sizes: Sequence[int], n_genes: int) -> None:
    if unknown := [name for name in selectors if name not in SELECTORS]:
        raise ConfigError(f"panels: expected names of {', '.join(SELECTORS)}, got {unknown!r}.")
    if wrong := [n for n in sizes if not 0 < n < n_genes]:
        raise ConfigError(
            f"sizes: expected 1 to {n_genes - 1}, fewer than the genes of the study, got {wrong!r}."
        )


def _selected(
    sketch: GeneSketch,
    names: Sequence[str],
    sizes: Sequence[int],
    rules: Rules,
    seed: int,
    on_progress: Progress | None,
) -> Iterator[Entry]:
    """Yield the panels of each selector; a nested one is asked for its largest alone."""
    for done, name in enumerate(names):
        if on_progress is not None:
            on_progress("selecting panels", done, len(names))
        choose = partial(
            select_panel, name, sketch, forced=rules.forced, excluded=rules.excluded, seed=seed
        )
        largest = choose(sizes[-1]) if SELECTORS[name].nested else None
        for size in sizes:
            genes = choose(size) if largest is None else largest[:size]
            yield Entry(f"{name}/{size}", name, size, genes)


def _random(
    varies: NDArray[np.bool_], sizes: Sequence[int], n_random: int, rules: Rules, seed: int
) -> Iterator[Entry]:
    """Yield random panels: the forced genes, then others that vary and are not excluded."""
    is_open = varies.copy()
    is_open[rules.forced + rules.excluded] = False
    for i in range(n_random):
        order = np.random.default_rng([seed, i]).permutation(varies.size)
        order = np.concatenate([np.array(rules.forced, dtype=np.int64), order[is_open[order]]])
        for size in sizes:
            yield Entry(f"{RANDOM}-{i}/{size}", RANDOM, size, order[:size])


def _subsets(
    name: str, genes: NDArray[np.int64], sizes: Sequence[int], n_random: int, seed: Sequence[int]
) -> Iterator[Entry]:
    """Yield a list as a whole, and random subsets of it of every size that is smaller."""
    yield Entry(f"{name}/{genes.size}", name, int(genes.size), genes)
    for i in range(n_random):
        order = np.random.default_rng([*seed, i]).permutation(genes)
        for size in sizes:
            if size < genes.size:
                yield Entry(
                    f"{RANDOM}-{name}-{i}/{size}", f"{RANDOM} of {name}", size, order[:size]
                )


def _labels(entries: Sequence[Entry]) -> dict[str, NDArray[Any]]:
    text = np.dtypes.StringDType()
    return {
        "panel": np.array([e.label for e in entries], dtype=text),
        "family": np.array([e.family for e in entries], dtype=text),
        "size": np.array([e.size for e in entries], dtype=np.int32),
        "position": np.arange(max(e.genes.size for e in entries), dtype=np.int32),
    }
