"""What a panel is, and how panels are chosen: by selectors, at random, or as published.

Reads lists of genes and the labels of open stores; writes nothing. The stages that write panels
declare their choices here where they share them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import AfterValidator, Field

from dglzarr.errors import ConfigError, SourceError, hint
from dglzarr.kernels.panels import CONSTANT, RIDGE, SELECTORS, allowed_genes, select_panel
from dglzarr.kernels.penalties import Stretch, choose_path
from dglzarr.sources.dates import excel_dates, told_dates
from dglzarr.sources.identifiers import find_genes, read_gene_list, read_panel
from dglzarr.storage.declare import text_array
from dglzarr.storage.options import Options, choice
from dglzarr.storage.store import open_labels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.kernels.sketch import GeneSketch
    from dglzarr.storage.options import Progress

    Index = NDArray[np.int64]

Kind = Literal["baseline", "mined", "selector", "published", "random", "subset"]
"""Predict the training mean; the mined panel; one of another selector, for comparison; a published
list; genes drawn at random from all that may be chosen, or from a published list."""

KINDS: tuple[Kind, ...] = ("baseline", "mined", "selector", "published", "random", "subset")

Names = Annotated[tuple[str, ...], Field(strict=False)]
Sizes = Annotated[
    tuple[int, ...], Field(strict=False), AfterValidator(lambda sizes: tuple(sorted(sizes)))
]

MINED = "mined"
BASELINE = "mean"
RANDOM = "random"
RESERVED = (MINED, BASELINE, RANDOM, "", *SELECTORS)
MIN_FOUND = 0.5
_CONTROL = re.compile(
    r"(AFFX[-_]|ERCC[-_]?\d|\(\+\)|\(-\)|(GE_)?BrightCorner|DarkCorner|NegativeControl|"
    r"NC\d+_|ETG\d+_|DCP_\d+_|RNA\d_E1A|SpikeIn|hsa_negative|negative_control|neg_control|"
    r"permuted_negative|ILMN_Controls?|cy3_hyb|low_stringency_hyb|phage_lambda|"
    r"(POS|NEG)_[A-Z]\b|LIGATION_(POS|NEG)|POS_\d+$|(NEGATIVE|POSITIVE) ?CONTROL)",
    re.IGNORECASE,
)
"""Affymetrix, ERCC spikes, Agilent, Illumina's named controls and NanoString's.

Illumina's and CodeLink's controls that are numbered as probes are cannot be told by their labels.
"""
N_SHOWN = 10


class PanelOptions(Options):
    """What holds for every panel that is chosen."""

    section = "select"

    n_random: int = choice(20, "random panels that the chosen ones have to beat", gt=0)
    forced: Names | str = choice(
        (), "genes that every chosen panel holds, first: names, or a file of them", is_path=True
    )
    excluded: Names | str = choice(
        (), "genes that no chosen panel holds: names, or a file of them", is_path=True
    )
    exclude_controls: bool = choice(
        False, "choose no control probe (AFFX-..., ERCC-...), unless it is forced"
    )
    exclude_unnamed: bool = choice(
        False, "choose no feature without a symbol and a gene ID, unless it is forced"
    )
    penalty: Annotated[float, Field(gt=0)] | Literal["chosen"] = choice(
        "chosen",
        "of the greedy selectors, in numbers of samples: one for all sizes, or chosen on inner "
        "folds of the training series, growing with the panel",
    )

    def recorded(self) -> dict[str, Any]:
        """Return the values that belong to the lineage; what is left in is left out of it.

        So is the penalty that was the only one before it could be chosen, and one that no selector
        has.
        """
        unset = [n for n in ("exclude_controls", "exclude_unnamed") if not getattr(self, n)]
        named = {getattr(self, "selector", None), *getattr(self, "selectors", ())} - {None}
        is_used = any(SELECTORS[name].is_greedy for name in named if name in SELECTORS)
        if self.penalty == RIDGE or not is_used:
            unset.append("penalty")
        return {name: v for name, v in super().recorded().items() if name not in unset}


class ListOptions(Options):
    """Published lists of genes that the mined panel is compared with."""

    section = "evaluate"

    panels: dict[str, str] = choice({}, "published panels: name, and file of genes", is_path=True)


class SizeOptions(Options):
    """Which panels are compared by cross-validation."""

    section = "compare"

    selectors: Names = choice((), "selectors that are compared; none: those of [select]")
    sizes: Sizes = choice((50, 100, 200, 470, 943), "genes in a panel")


@dataclass(frozen=True, eq=False)
class Panel:
    """Genes that stand for all.

    Attributes
    ----------
    name
        Unlike that of any other panel of its size.
    kind
        What sort of panel it is.
    family
        The selector or list that it comes from.
    genes
        Features of the study, as indices, in order.
    n_missing
        Genes of a published list that the study does not measure.
    """

    name: str
    kind: Kind
    family: str
    genes: Index
    n_missing: int = 0

    @property
    def size(self) -> int:
        """How many genes it holds."""
        return int(self.genes.size)

    @property
    def is_drawn(self) -> bool:
        """Whether chance alone chose its genes."""
        return self.kind in ("random", "subset")


class Rules(NamedTuple):
    """What holds for every panel that is chosen: features it must hold, and must not.

    ``path`` is how the penalty of greedy selectors grows along a panel.
    """

    forced: list[int]
    excluded: list[int]
    path: Sequence[Stretch] = CONSTANT


class PublishedList(NamedTuple):
    """The genes of a published list, as indices, and its entries that are not measured.

    ``dates`` holds its entries that a spreadsheet made dates of, and the feature found for each.
    """

    genes: Index
    missing: list[str]
    dates: dict[str, str]


class Draws(NamedTuple):
    """How random panels are drawn: how many, from which seed, and whether for every fold.

    For the folds of a comparison they are drawn from all genes, so that a panel is the same in
    every fold but for genes that do not vary there, and one size begins the next; and random
    subsets of each published list are drawn as well.
    """

    n: int
    seed: int
    across_folds: bool = False


# ---------------------------------------------------------------- what is asked for


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


def undetected(expression: str, share: float, place: str) -> list[int]:
    """Return the features that are detected in under a share of the samples of every group.

    One of which no unit tells whether it is detected is none of them.

    Parameters
    ----------
    expression
        URI of a joined store.
    share
        Of the training samples of the group in which the gene is detected most.
    place
        Where it was asked for.

    Raises
    ------
    ConfigError
        When the store has no detection rates.
    """
    ds = open_labels(expression)
    if "detection_rate" not in ds:
        raise ConfigError(
            f"{place}: expected a study that was joined with ingest.detection, got one without. "
            "Set it to a label such as tissue, and mine the study anew."
        )
    rate = ds["detection_rate"].values
    best = np.where(np.isnan(rate), -1.0, rate).max(axis=0)
    return np.flatnonzero((best >= 0) & (best < share)).tolist()


def find_rules(
    ds: xr.Dataset,
    std: NDArray[np.float64],
    options: PanelOptions,
    *,
    sizes: Sequence[int],
    place: str,
    excluded: Sequence[int] = (),
) -> Rules:
    """Return the rules as indices of features.

    Parameters
    ----------
    ds
        A store with the labels of the genes.
    std
        Deviation of each gene over the samples that panels are chosen on.
    options
        Genes, or a file with one a line. A forced gene stands for its first feature, an excluded
        one for all of them.
    sizes, place
        Sizes of the panels, and where they were asked for.
    excluded
        Further features that are left out, unless they are forced.

    Raises
    ------
    ConfigError
        When the rules contradict each other or leave too few genes.
    """
    first = _features(ds, options.forced)
    if unknown := [name for name, features in first.items() if not features]:
        raise ConfigError(
            f"select.forced: expected genes of the study, got {unknown[:5]!r} among {len(first)}"
            f"{_gene_hint(ds, unknown)}. "
            "Correct or remove them, or give ingest.annotation to match by symbol."
        )
    must = list(dict.fromkeys(features[0] for features in first.values()))
    never = sorted({i for features in _features(ds, options.excluded).values() for i in features})
    if both := [name for name, features in first.items() if features[0] in never]:
        raise ConfigError(f"select.forced: {both[:5]!r} stand in select.excluded too. Drop one.")
    never = sorted({*never, *({*_left_out(ds, options), *excluded} - set(must))})
    is_open = std > 0
    is_open[must], is_open[never] = True, False
    smallest, largest = max(1, len(must)), min(int(is_open.sum()), is_open.size - 1)
    what = (
        f"of {std.size} genes {len(must)} are forced, {len(never)} excluded and "
        f"{int((~(std > 0)).sum())} do not vary"
    )
    if largest < smallest:
        raise ConfigError(f"{place}: expected genes to choose from, got none: {what}.")
    if wrong := [size for size in sizes if not smallest <= size <= largest]:
        raise ConfigError(f"{place}: expected {smallest} to {largest}, got {wrong[0]}: {what}.")
    return Rules(must, never)


def with_penalties(
    rules: Rules,
    sketch: GeneSketch,
    options: PanelOptions,
    *,
    selectors: Sequence[str],
    n: int,
    seed: int,
    on_progress: Progress | None = None,
) -> Rules:
    """Return the rules with the penalties of greedy panels of up to n genes.

    They are chosen on inner folds once, for all greedy selectors: by the errors of all genes alike.
    """
    if not any(SELECTORS[name].is_greedy for name in selectors):
        return rules
    if not isinstance(options.penalty, str):
        return rules._replace(path=(Stretch(1, options.penalty),))
    path = choose_path(
        sketch,
        n,
        forced=np.array(rules.forced, dtype=np.int64),
        allowed=allowed_genes("greedy", sketch, rules.forced, rules.excluded),
        default=RIDGE,
        seed=seed,
        on_progress=on_progress,
    )
    return rules._replace(path=tuple(path))


def told_penalties(rules: Rules) -> list[list[float]]:
    """Return how the penalty grows, as a store keeps it: none where no selector has one."""
    return [] if rules.path is CONSTANT else [list(stretch) for stretch in rules.path]


def _gene_hint(ds: xr.Dataset, names: Sequence[str]) -> str:
    """Return what dates among names may stand for, else the gene that is most like the first."""
    if dates := excel_dates(names):
        return f" ({told_dates(dates)})"
    return hint(names[0], (str(value) for of in ("gene", "gene_symbol") for value in ds[of].values))


def _left_out(ds: xr.Dataset, options: PanelOptions) -> set[int]:
    """Return the features that are left out for what they are."""
    found = np.zeros(ds.sizes["gene"], dtype=bool)
    if options.exclude_controls:
        found |= np.array([is_control(str(gene)) for gene in ds["gene"].values], dtype=bool)
    if options.exclude_unnamed:
        found |= is_unnamed(ds)
    return {int(i) for i in np.flatnonzero(found)}


def is_control(label: str) -> bool:
    """Return whether a feature measures the assay, by what manufacturers call such features.

    Examples
    --------
    >>> [is_control(label) for label in ("AFFX-BioB-5_at", "ERCC-00002", "1007_s_at")]
    [True, True, False]
    >>> [is_control(label) for label in ("POS_A(128)", "cy3_hyb:1", "THRB", "NEGR1")]
    [True, True, False, False]
    """
    return _CONTROL.match(label) is not None


def is_unnamed(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Return which features have neither a symbol nor a gene ID."""
    return np.asarray((ds["gene_symbol"].values == "") & (ds["gene_id"].values == ""))


def _features(ds: xr.Dataset, names: str | Sequence[str]) -> dict[str, list[int]]:
    """Return the features that measure each gene of a list, or of a file."""
    listed = read_gene_list(names) if isinstance(names, str) else list(names)
    if not listed:
        return {}
    return dict(zip(listed, find_genes(listed, **feature_names(ds)), strict=True))


def read_lists(ds: xr.Dataset, files: Mapping[str, str]) -> dict[str, PublishedList]:
    """Return the published lists of files by name, as features of a store.

    Raises
    ------
    SourceError
        When a store has under half of a list; names the first that are missing.
    """
    return {name: _read_list(ds, name, path) for name, path in files.items()}


def _read_list(ds: xr.Dataset, name: str, path: str) -> PublishedList:
    match = read_panel(path, **feature_names(ds))
    n_listed = len(match.genes) + len(match.missing)
    if len(match.genes) < MIN_FOUND * n_listed:
        shown = ", ".join(match.missing[:N_SHOWN])
        dates = f" Dates among them: {told_dates(list(match.dates))}." if match.dates else ""
        raise SourceError(
            f"evaluate.panels.{name}: expected at least {MIN_FOUND:.0%} of its {n_listed} genes to "
            f"be measured, got {len(match.genes)} ({len(match.genes) / n_listed:.0%}). Missing: "
            f"{shown}...{dates} Give a list of this platform."
        )
    genes = ds.indexes["gene"].get_indexer(pd.Index(match.genes))
    return PublishedList(genes.astype(np.int64), list(match.missing), match.dates)


def unmatched(ds: xr.Dataset, names: str | Sequence[str]) -> list[str]:
    """Return the names of a list of genes, or of a file, that no feature has."""
    return [name for name, features in _features(ds, names).items() if not features]


def excluded_lines(place: str, names: Sequence[str]) -> list[str]:
    """Return a line that tells which genes were to be left out and are not there anyway.

    Examples
    --------
    >>> excluded_lines("--exclude", ["TP54"])
    ['--exclude: 1 of its names no feature has: TP54']
    >>> excluded_lines("--exclude", [])
    []
    """
    if not names:
        return []
    more = f" and {len(names) - N_SHOWN} more" if len(names) > N_SHOWN else ""
    dates = f" ({told_dates(found)})" if (found := excel_dates(names)) else ""
    shown = ", ".join(names[:N_SHOWN])
    return [f"{place}: {len(names)} of its names no feature has: {shown}{more}{dates}"]


def listed_line(
    name: str, n_found: int, missing: Sequence[str], dates: Mapping[str, str] | None = None
) -> str:
    """Return how many entries of a list were found, and which were not; "" where all were.

    Parameters
    ----------
    name
        Of the list.
    n_found
        Genes of it that are measured.
    missing
        Its entries that are not.
    dates
        Those that a spreadsheet made dates of, and the feature found for each, "" for none.

    Examples
    --------
    >>> listed_line("l1000", 978, ["A", "B"])
    'l1000: 2 of 980 entries were not found: A, B'
    >>> listed_line("mine", 1, ["1-Mar"], {"1-Mar": ""}).partition(". ")[2]
    "1 is a date, as spreadsheets make them of names: '1-Mar' is MARCHF1 or MTARC1; those of one \
gene alone were read as it"
    """
    if not missing and not dates:
        return ""
    more = f" and {len(missing) - N_SHOWN} more" if len(missing) > N_SHOWN else ""
    n = n_found + len(missing)
    line = f"{name}: {len(missing)} of {n} entries were not found"
    line += f": {', '.join(missing[:N_SHOWN])}{more}" if missing else ""
    if dates:
        what = "is a date" if len(dates) == 1 else "are dates"
        line += f". {len(dates)} {what}, as spreadsheets make them of names: "
        line += f"{told_dates(list(dates))}; those of one gene alone were read as it"
    return line


def feature_names(ds: xr.Dataset) -> dict[str, list[str]]:
    """Return labels, symbols and ids of the genes, as they are looked up."""
    names = (("genes", "gene"), ("symbols", "gene_symbol"), ("gene_ids", "gene_id"))
    return {key: [str(value) for value in ds[name].values] for key, name in names}


# ---------------------------------------------------------------- the panels


def candidate_panels(
    sketch: GeneSketch,
    selectors: Sequence[str],
    sizes: Sequence[int],
    *,
    rules: Rules,
    lists: Mapping[str, PublishedList],
    draws: Draws,
    on_progress: Progress | None = None,
) -> Iterator[Panel]:
    """Yield the panels of selectors, then random ones, then published lists and their subsets.

    Parameters
    ----------
    sketch
        Of the samples that panels are chosen on.
    selectors
        Names in ``kernels.panels.SELECTORS``.
    sizes
        Genes in a panel, ascending; a list has its own size.
    rules
        What holds for all panels but those of lists.
    lists
        Published lists by name.
    draws
        How random panels are drawn.
    on_progress
        Called with (what, done, total).
    """

    def choose(name: str, n: int, seed: int | Sequence[int]) -> Index:
        return select_panel(name, sketch, n, **rules._asdict(), seed=seed)

    for done, name in enumerate(selectors):
        if on_progress is not None:
            on_progress("selecting panels", done, len(selectors))
        largest = choose(name, sizes[-1], draws.seed)
        for size in sizes:
            is_begin = SELECTORS[name].nested or size == sizes[-1]
            genes = largest[:size] if is_begin else choose(name, size, draws.seed)
            yield Panel(name, "selector", name, genes)
    for i in range(draws.n):
        seed = [draws.seed, i]
        if draws.across_folds:
            drawn = _drawn_from_all(sketch, rules, seed)
        else:
            drawn = choose(RANDOM, sizes[-1], seed)
        for size in sizes:
            yield Panel(f"{RANDOM}-{i}", "random", RANDOM, drawn[:size])
    for number, (name, listed) in enumerate(lists.items(), start=1):
        yield Panel(name, "published", name, listed.genes, len(listed.missing))
        if draws.across_folds:
            yield from _subsets(name, listed.genes, sizes, draws, number)


def _drawn_from_all(sketch: GeneSketch, rules: Rules, seed: Sequence[int]) -> Index:
    """Return the forced genes, then all others that vary and are not excluded, in random order."""
    is_open = sketch.varies
    is_open[rules.forced + rules.excluded] = False
    order = np.random.default_rng(seed).permutation(is_open.size)
    return np.concatenate([np.array(rules.forced, dtype=np.int64), order[is_open[order]]])


def _subsets(
    name: str, genes: Index, sizes: Sequence[int], draws: Draws, number: int
) -> Iterator[Panel]:
    """Yield random subsets of a list, of every size that is smaller."""
    for i in range(draws.n):
        order = np.random.default_rng([draws.seed, number, i]).permutation(genes)
        for size in (size for size in sizes if size < genes.size):
            yield Panel(f"{RANDOM}-{name}-{i}", "subset", f"{RANDOM} of {name}", order[:size])


# ---------------------------------------------------------------- as they stand in stores


def panel_labels(panels: Sequence[Panel], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return what panels are called, and their kinds."""
    kinds = [panel.kind for panel in panels]
    return {"panel": text_array(names), "kind": text_array(kinds)}


def positions(panels: Sequence[Panel]) -> NDArray[np.int32]:
    """Return the positions in the longest of some panels."""
    return np.arange(max(panel.size for panel in panels), dtype=np.int32)


def panel_arrays(panels: Sequence[Panel], gene: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the genes of panels as (panel, position), "" behind the end of one, and misses."""
    table = np.full((len(panels), positions(panels).size), "", dtype=np.dtypes.StringDType())
    for row, panel in zip(table, panels, strict=True):
        row[: panel.size] = gene[panel.genes]
    return {
        "panel_gene": table,
        "n_missing": np.array([panel.n_missing for panel in panels]),
    }


def stored_panels(chosen: xr.Dataset, genes: pd.Index) -> list[Panel]:
    """Return the panels of an open store of landmarks or candidates, their genes as indices."""
    family = chosen["family" if "family" in chosen else "selector"].values
    columns = (chosen["panel"].values, chosen["kind"].values, family, chosen["panel_gene"].values)
    return [
        Panel(str(name), kind, str(of), genes.get_indexer(row[row != ""]).astype(np.int64))
        for name, kind, of, row in zip(*columns, strict=True)
    ]
