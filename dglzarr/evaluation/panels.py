"""Panels: names, rules, published lists and the table of genes, for one size and for several.

Reads lists of genes and the labels of open stores; writes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dglzarr.errors import ConfigError, SourceError
from dglzarr.kernels.panels import SELECTORS
from dglzarr.sources.identifiers import PanelMatch, find_genes, read_gene_list, read_panel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

MINED = "mined"
BASELINE = "mean"
RANDOM = "random"
RESERVED = (MINED, BASELINE, RANDOM, "", *SELECTORS)
MIN_FOUND = 0.5
N_SHOWN = 10


class Rules(NamedTuple):
    """What holds for every panel that is chosen: features it must hold, and must not."""

    forced: list[int]
    excluded: list[int]


def check_list_names(names: Iterable[str]) -> None:
    """Refuse names of published lists that panels of other kinds have.

    Raises
    ------
    ConfigError
        Naming them.
    """
    if taken := [name for name in names if name in RESERVED or name.startswith(f"{RANDOM}-")]:
        raise ConfigError(
            f"evaluate.panels: expected names other than {MINED!r}, {BASELINE!r}, 'random-...' and "
            f"those of selectors, got {taken!r}. Rename the panel."
        )


def find_rules(
    ds: xr.Dataset,
    std: NDArray[np.float64],
    forced: str | Sequence[str],
    excluded: str | Sequence[str],
    *,
    sizes: Sequence[int],
    place: str,
) -> Rules:
    """Return the rules as indices of features.

    Parameters
    ----------
    ds
        A store with the labels of the genes.
    std
        Deviation of each gene over the samples that panels are chosen on.
    forced, excluded
        Genes, or a file with one a line. A forced gene stands for its first feature, an excluded
        one for all of them.
    sizes, place
        Sizes of the panels, and where they were asked for.

    Raises
    ------
    ConfigError
        When the rules contradict each other or leave too few genes.
    """
    first = _features(ds, forced)
    if unknown := [name for name, features in first.items() if not features]:
        raise ConfigError(
            f"select.forced: expected genes of the study, got {unknown[:5]!r} among {len(first)}. "
            "Correct or remove them, or give ingest.annotation to match by symbol."
        )
    must = list(dict.fromkeys(features[0] for features in first.values()))
    never = sorted({i for features in _features(ds, excluded).values() for i in features})
    if both := [name for name, features in first.items() if features[0] in never]:
        raise ConfigError(f"select.forced: {both[:5]!r} stand in select.excluded too. Drop one.")
    is_open = std > 0
    is_open[must], is_open[never] = True, False
    smallest, largest = max(1, len(must)), min(int(is_open.sum()), is_open.size - 1)
    if wrong := [size for size in sizes if not smallest <= size <= largest]:
        raise ConfigError(
            f"{place}: expected {smallest} to {largest}, got {wrong[0]}: of "
            f"{std.size} genes {len(must)} are forced, {len(never)} excluded and "
            f"{int((~(std > 0)).sum())} do not vary."
        )
    return Rules(must, never)


def _features(ds: xr.Dataset, names: str | Sequence[str]) -> dict[str, list[int]]:
    """Return the features that measure each gene of a list, or of a file."""
    listed = read_gene_list(names) if isinstance(names, str) else list(names)
    return dict(zip(listed, find_genes(listed, **_names(ds)), strict=True))


def match_lists(ds: xr.Dataset, files: Mapping[str, str]) -> dict[str, PanelMatch]:
    """Return the genes of published lists that a store has, and their entries that it has not.

    Raises
    ------
    SourceError
        When a store has under half of a list; names the first that are missing.
    """
    return {name: _match_list(ds, name, path) for name, path in files.items()}


def _match_list(ds: xr.Dataset, name: str, path: str) -> PanelMatch:
    match = read_panel(path, **_names(ds))
    n_listed = len(match.genes) + len(match.missing)
    if len(match.genes) < MIN_FOUND * n_listed:
        shown = ", ".join(match.missing[:N_SHOWN])
        raise SourceError(
            f"evaluate.panels.{name}: expected at least {MIN_FOUND:.0%} of its {n_listed} genes to "
            f"be measured, got {len(match.genes)} ({len(match.genes) / n_listed:.0%}). Missing: "
            f"{shown}... Give a list of this platform."
        )
    return match


def panel_table(panels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return the gene labels of panels as (panel, position), "" behind the end of one."""
    longest = max(len(genes) for genes in panels)
    table = np.full((len(panels), longest), "", dtype=np.dtypes.StringDType())
    for row, genes in zip(table, panels, strict=True):
        row[: len(genes)] = genes
    return table


def _names(ds: xr.Dataset) -> dict[str, list[str]]:
    """Return labels, symbols and ids of the genes, as they are looked up."""
    names = (("genes", "gene"), ("symbols", "gene_symbol"), ("gene_ids", "gene_id"))
    return {key: [str(value) for value in ds[name].values] for key, name in names}
