"""What is wrong with settings, told before any work or as soon as labels of sources are read.

Reads labels of stores and, for a dry run, source files where that is cheap; writes nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dglzarr.errors import ConfigError, SourceError, hint
from dglzarr.evaluation.panels import (
    BASELINE,
    Draws,
    Panel,
    candidate_panels,
    check_list_names,
    find_rules,
    read_lists,
    undetected,
    with_penalties,
)
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.panels import SELECTORS
from dglzarr.kernels.sketch import GeneSketch
from dglzarr.models import check_installed
from dglzarr.query import gene_keys
from dglzarr.sources import read_source
from dglzarr.sources.identifiers import name_genes, read_annotation_table, read_gene_list
from dglzarr.sources.peek import is_lazy
from dglzarr.sources.turned import is_accession
from dglzarr.stages.evaluate import common_targets, fit_and_test
from dglzarr.stages.group import find_labelled
from dglzarr.stages.ingest import raw_labels
from dglzarr.stages.score import check_group_by
from dglzarr.storage.cluster_options import LAUNCHED
from dglzarr.storage.declare import text_array
from dglzarr.storage.files import place_of
from dglzarr.storage.launch import check_launch
from dglzarr.storage.rows import read_array
from dglzarr.storage.store import is_complete, open_labels

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.settings import Settings
    from dglzarr.stages.evaluate import TargetRule
    from dglzarr.stages.ingest import SourceFile
    from dglzarr.storage.options import Progress

CHEAP_NBYTES = 2**24
"""A text file of at most so many bytes is read whole for a dry run."""
_NOTHING = Panel(BASELINE, "baseline", BASELINE, np.empty(0, dtype=np.int64))
logger = logging.getLogger(__name__)


def check_extras(settings: Settings, writes: Mapping[str, str]) -> None:
    """Refuse steps to do whose packages are not installed here.

    Parameters
    ----------
    settings
        The study.
    writes
        What each step that is asked for writes, by name.

    Raises
    ------
    ConfigError
        Naming the package, and the extra that brings it.
    """
    todo = {name for name, uri in writes.items() if not _is_made(uri)}
    if "train" in todo:
        check_installed("keras", "numba", extra="train")
    if "evaluate" in todo and "dgex" in settings.evaluate.predictors:
        check_installed("keras", "numba", extra="train")
    asked = settings.score
    if "explain" in todo and asked.engine == "shap":
        if asked.device == "gpu":
            raise ConfigError(
                "score.device: expected 'auto' or 'cpu' for engine 'shap', got 'gpu'."
            )
        check_installed("keras", "numba", extra="train")
        check_installed("shap", extra="oracle")
    if "explain" in todo and asked.device == "gpu" and not settings.cluster.is_elsewhere:
        check_installed("cupy", extra="gpu")
    if todo and settings.cluster.kind in LAUNCHED:
        check_launch(settings.cluster)


def _is_made(uri: str) -> bool:
    return is_complete(uri) or place_of(uri, "model.json").is_file()


def check_absolute(settings: Settings) -> None:
    """Refuse relative paths: another process takes them from another folder.

    Raises
    ------
    ConfigError
        Naming the first.
    """
    paths = {"root": settings.root}
    for i, source in enumerate(settings.sources):
        paths |= {f"sources.{i}.{name}": path for name, path in source.files().items()}
    for name, path in {**paths, **settings.named_files()}.items():
        if "://" not in path and not Path(path).is_absolute():
            raise ConfigError(
                f"{name}: expected an absolute path, since workers take a relative one from "
                f"folders of their own, got {path!r}. Write it in full."
            )


def check_zones(schedules: Iterable[Any]) -> None:
    """Refuse an active schedule by a cron without a time zone, which Prefect takes as UTC.

    Raises
    ------
    ConfigError
        Naming the cron.
    """
    for timed in (one.schedule for one in schedules if one.active):
        if getattr(timed, "cron", None) and not timed.timezone:
            raise ConfigError(
                f"schedules: expected a time zone with cron '{timed.cron}', got none. Write "
                "timezone: beside it in prefect.yaml, as Europe/Berlin, and run prefect deploy."
            )


def _blank(std: NDArray[np.float64]) -> GeneSketch:
    """Return a sketch of no samples, by which panels are drawn at random."""
    return GeneSketch(np.zeros((1, std.size), np.float32), std, std, 1)


def check_labels(settings: Settings, train: Sequence[xr.Dataset], cohorts: Sequence[Any]) -> None:
    """Refuse labels that no sample of some sources has.

    Parameters
    ----------
    settings
        The study.
    train, cohorts
        Labels of the raw stores that are joined, and of those that are not.

    Raises
    ------
    ConfigError
        Naming the labels there are.
    """
    check_group_by(train, settings.score.group_by)
    check_split_by(train, settings.ingest.split_by)
    for name in ("center_by", "detection"):
        if by := getattr(settings.ingest, name):
            _check_label(train, f"ingest.{name}", by, ["series", "platform", "source"])
    check_cohorts(train, cohorts)
    if settings.group.label:
        find_labelled([*train, *cohorts], settings.group.label, settings.group.series)


def check_cohorts(train: Sequence[xr.Dataset], cohorts: Sequence[xr.Dataset]) -> None:
    """Refuse a cohort with samples of the study: by them no panel can be judged."""
    known = {str(sample) for ds in train for sample in ds["sample"].values}
    for ds in cohorts:
        both = [s for s in map(str, ds["sample"].values) if s in known and is_accession(s)]
        if both:
            raise ConfigError(
                f"sources: expected a cohort of other samples, got {len(both)} that are trained on "
                f"or held out too, such as {both[0]!r}. Take that source out, or out of the others."
            )


def check_split_by(train: Sequence[xr.Dataset], split_by: str) -> None:
    """Refuse a label to split by that no sample has.

    Raises
    ------
    ConfigError
        Naming the labels there are.
    """
    _check_label(train, "ingest.split_by", split_by, ["series", "sample"])


def _check_label(train: Sequence[xr.Dataset], place: str, by: str, columns: list[str]) -> None:
    known = [*columns, *sorted({str(n) for ds in train for n in ds["label"].values})]
    if by not in known:
        raise ConfigError(
            f"{place}: expected one of {', '.join(known)}, got {by!r}{hint(by, known)}."
        )


def check_genes(settings: Settings, genes: xr.Dataset, *, selects: bool = True) -> None:
    """Refuse panels that the genes of a study cannot make.

    Parameters
    ----------
    settings
        The study.
    genes
        Label, symbol and ID of each gene.
    selects
        Whether panels are selected, and evaluated together, of which the random ones are drawn.

    Raises
    ------
    ConfigError
        When a panel is too large, a forced gene is not measured, or the random and published
        panels leave no gene to predict.
    SourceError
        When under half of a published list is measured.
    """
    n_genes = genes.sizes["gene"]
    if n_genes < 2:
        raise ConfigError(
            f"sources: expected 2 genes or more in common, got {n_genes}. Name files that measure "
            "more, or give ingest.annotation to join them by symbol."
        )
    if settings.select.n_landmarks >= n_genes:
        raise ConfigError(
            f"select.n_landmarks: expected 1 to {n_genes - 1}, fewer than the {n_genes} genes of "
            f"the study, got {settings.select.n_landmarks}. Lower it."
        )
    varies = np.ones(n_genes)  # which genes vary is known later
    rules = find_rules(
        genes,
        varies,
        settings.select,
        sizes=[settings.select.n_landmarks],
        place="select.n_landmarks",
    )
    check_list_names(settings.evaluate.panels)
    lists = read_lists(genes, settings.evaluate.panels)
    if not selects:
        return
    size, draws = [settings.select.n_landmarks], Draws(settings.select.n_random, settings.seed)
    known = candidate_panels(_blank(varies), [], size, rules=rules, lists=lists, draws=draws)
    common_targets(genes, [_NOTHING, *known], settings.evaluate.target_rule)


def check_panels(
    select: Mapping[str, Any], rule: TargetRule | None, *, on_progress: Progress | None = None
) -> None:
    """Refuse panels that leave no gene or sample to be judged on, before a network is trained.

    Random and published panels are known once it is known which genes vary. Where those of
    selectors could cover what is left, they are chosen now, but for selectors by score, of which a
    warning tells.

    Parameters
    ----------
    select
        Arguments of the stage that selects panels; the normalized and samples stores stand.
    rule
        What counts as measured; None where panels are not evaluated.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When too few samples are kept, too few genes vary for a panel, or all panels together leave
        no gene to predict.
    """
    options, normalized, seed = select["options"], select["normalized"], select["seed"]
    ds, n = open_labels(normalized), options.n_landmarks
    if rule is not None:
        fit_and_test(ds["split"].values, read_array(select["samples"], "keep"))
    std = read_array(select["samples"], "gene_std")
    low: list[int] = []
    if options.min_detected is not None:
        low = undetected(select["expression"], options.min_detected, "select.min_detected")
    rules = find_rules(ds, std, options, sizes=[n], place="select.n_landmarks", excluded=low)
    if rule is None:
        return
    names = dict.fromkeys((options.selector, *options.selectors))
    known = [name for name in names if not SELECTORS[name].uses_score]
    lists, draws = read_lists(ds, select["panels"]), Draws(options.n_random, seed)
    drawn = candidate_panels(_blank(std), [], [n], rules=rules, lists=lists, draws=draws)
    chosen = [_NOTHING, *drawn]
    if _n_left(ds, chosen, rule) > n * len(names):
        return
    sketch = sketch_training(
        normalized, select["samples"], np.full(std.size, np.nan), seed=seed, on_progress=on_progress
    )
    rules = with_penalties(rules, sketch, options, selectors=known, n=n, seed=seed)
    chosen += candidate_panels(sketch, known, [n], rules=rules, lists={}, draws=Draws(0, seed))
    left, by_score = _n_left(ds, chosen, rule), [name for name in names if name not in known]
    if left <= n * len(by_score):
        logger.warning(
            "select: %d genes are left to predict before panels are chosen by score (%s), which "
            "may cover them all; then nothing can be evaluated. Lower select.n_landmarks or "
            "select.n_random",
            left,
            ", ".join(by_score),
        )


def _n_left(ds: xr.Dataset, panels: Sequence[Panel], rule: TargetRule) -> int:
    """Return how many different genes no panel measures, at least one."""
    is_target = common_targets(ds, panels, rule)
    keys = gene_keys(ds) if rule == "gene" else ds["gene"].values
    return len(set(keys[is_target].tolist()))


def check_sources(settings: Settings, sources: Sequence[SourceFile], *, is_read: bool) -> None:
    """Refuse settings that sources contradict, as far as that is cheap to tell.

    Parameters
    ----------
    settings
        The study.
    sources
        The files and their raw stores.
    is_read
        Whether the raw stores hold what the files do; otherwise files are read, of text up to
        `CHEAP_NBYTES`, and nothing is checked where one is larger.

    Raises
    ------
    ConfigError, SourceError
        As `check_labels` and `check_genes`.
    """
    opened = {}
    for source in sources:
        found = open_labels(source.raw) if is_read else _head(source)
        if found is None:
            return
        opened[source.raw] = found
    train = [opened[s.raw] for s in sources if s.options.role == "train"]
    cohorts = [opened[s.raw] for s in sources if s.options.role == "cohort"]
    check_labels(settings, train, cohorts)
    if (genes := _joint_genes(settings, train)) is not None:
        check_genes(settings, genes)


def _head(source: SourceFile) -> xr.Dataset | None:
    """Return the labels of a file, None where reading it takes long."""
    path = Path(source.path)
    if path.stat().st_size > CHEAP_NBYTES and not is_lazy(path):
        return None
    asked = source.options
    try:
        table = read_source(
            path,
            sample_sheet=asked.sample_sheet,
            sample_column=asked.join_column,
            reading=asked.reading(),
        )
    except SourceError:
        return None  # which ingest tells of
    labels = raw_labels(table)
    matrix = labels.pop("sample_label")
    dims = {name: name if name in ("gene", "sample", "label") else "sample" for name in labels}
    dims["gene_symbol"] = "gene"
    return xr.Dataset(
        {
            **{name: (dims[name], values) for name, values in labels.items()},
            "sample_label": (("sample", "label"), matrix),
        }
    )


def _joint_genes(settings: Settings, train: Sequence[xr.Dataset]) -> xr.Dataset | None:
    """Return the genes that sources have in common, None where they are known once joined."""
    asked = settings.ingest
    if asked.feature_kind != "probe":
        return None
    labels = [[str(gene) for gene in ds["gene"].values] for ds in train]
    listed: Collection[str] = set(labels[0]).intersection(*labels[1:])
    if asked.probes is not None:
        listed = read_gene_list(asked.probes)
    elif len(listed) < max(map(len, labels)) / 2:
        return None  # which join tells of
    genes = sorted(listed)
    annotation = read_annotation_table(asked.annotation) if asked.annotation else None
    own = (
        ([str(g) for g in ds["gene"].values], [str(s) for s in ds["gene_symbol"].values])
        for ds in train
    )
    symbols, ids = name_genes(genes, asked.feature_kind, annotation, own)
    columns = {"gene": genes, "gene_symbol": symbols, "gene_id": ids}
    return xr.Dataset({n: ("gene", text_array(v)) for n, v in columns.items()})
