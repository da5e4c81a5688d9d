"""Settings drafted from a folder: what each file is, which of them train, what could be set.

Reads files; writes nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dglzarr.errors import ConfigError, SourceError, one_line
from dglzarr.models.options import GENES_A_UNIT, NetworkOptions
from dglzarr.settings import describe_settings
from dglzarr.sources import read_source, source_name
from dglzarr.sources.identifiers import clean_id, read_annotation_table, read_panel
from dglzarr.sources.persons import iter_persons
from dglzarr.sources.scaled import find_scale
from dglzarr.sources.table import read_sample_sheet
from dglzarr.sources.text import TextStream
from dglzarr.studies.fetch import Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from dglzarr.kernels.scale import Unit
    from dglzarr.sources import Source
    from dglzarr.storage.options import Progress

_SMALL_NBYTES = 2**24
"""Sample sheets, annotation tables and lists are no larger."""

_FEWEST_GENES, _FEWEST_LISTED = 20, 3
_PANEL_SIZE, _GENES_A_LANDMARK = 943, 10
_MOST_KINDS, _N_SHOWN = 20, 6
_MOST_COLUMNS = 12
"""A list of genes has no more columns: a wider table is a matrix."""

_FEWEST_SERIES, _FEWEST_PERSONS = 3, 5
_SHARED = 0.9
_SHOWN_SETTINGS = (
    "ingest.feature_kind", "ingest.split_by", "ingest.test_fraction", "dedup.threshold",
    "train.epochs", "train.n_latent", "select.selector", "cluster.kind", "cluster.n_workers",
)  # fmt: skip


class _Names:
    """Names as numbers, so that the genes of many files fit in memory."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def numbers(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Return the sorted numbers of some names, "" left out."""
        found = [self._number.setdefault(name, len(self._number)) for name in names if name]
        return np.unique(np.array(found, np.int64))


@dataclass(eq=False)
class _Found:
    """What is known of an expression file."""

    path: Path
    format: str
    samples: list[str]
    genes: list[str]
    symbols: list[str]
    numbers: NDArray[np.int64]
    platforms: list[str]
    series: set[str]
    scale: str
    unit: str
    labels: dict[str, set[str]]
    persons: set[str]
    sheet: Path | None = None
    notes: list[str] = field(default_factory=list)
    accession: str = ""


@dataclass
class _Folder:
    """What a folder holds: expression, matrices unfit for a study, files that are no matrix."""

    base: Path
    sources: list[_Found] = field(default_factory=list)
    unfit: dict[Path, str] = field(default_factory=dict)
    refused: dict[Path, str] = field(default_factory=dict)
    tables: list[Path] = field(default_factory=list)
    accessions: dict[Path, str] = field(default_factory=dict)
    platforms: Sequence[str] = ()

    def name(self, path: Path) -> str:
        """Return a path as the settings file says it, the accession of a fetched one."""
        return self.accessions.get(path) or os.path.relpath(path, self.base)


def draft_settings(
    folder: str | Path | None,
    *,
    base: str | Path = ".",
    fetched: Mapping[str, Sequence[Found]] | None = None,
    platforms: Sequence[str] = (),
    on_progress: Progress | None = None,
) -> str:
    """Return commented settings for the expression files under a folder, as TOML.

    Every file is read once and told what it is taken for. Files that have genes in common train
    the study, those that give most values, samples times genes. Others in which half of these genes
    are found become cohorts, and what is neither is named with the reason.

    Parameters
    ----------
    folder
        Where the files are, in folders too. Hidden files and studies are left out. None for none.
    base
        Folder of the settings file, which its paths are relative to.
    fetched
        Files by accession that take part, too.
    platforms
        By which these were chosen.
    on_progress
        Called with (what, done, total).

    Raises
    ------
    ConfigError
        When there is no such folder, or no file of it is expression.
    """
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"{folder}: expected a folder with expression files, got none.")
    files = [Found(str(path)) for path in (_files(Path(folder)) if folder is not None else ())]
    given = [(name, file) for name, those in (fetched or {}).items() for file in those]
    accessions = {Path(file.path): name for name, file in given}
    found = _Folder(Path(base), accessions=accessions, platforms=platforms)
    names = _Names()
    paths = [*files, *(file for _, file in given)]
    with tempfile.TemporaryDirectory() as scratch:
        for done, file in enumerate(paths):
            if on_progress is not None:
                on_progress("looking at files", done, len(paths))
            _look(found, names, file, scratch)
    if not found.sources:
        told = next(iter((found.unfit | found.refused).values()), "it holds no file")
        raise ConfigError(
            f"{folder or '--geo'}: expected expression files, got none that can be read of "
            f"{len(paths)} "
            f"(the first: {told})"
        )
    _match_sheets(found)
    return _write(found, names)


def _look(found: _Folder, names: _Names, file: Found, scratch: str) -> None:
    """Note what a file is taken for."""
    path = Path(file.path)
    if len(str(path).splitlines()) > 1:
        found.unfit[path] = "expected a name of one line. Rename it."
        return
    sheet, annotation = file.options.get("sample_sheet"), file.options.get("annotation")
    try:
        source = read_source(path, sample_sheet=sheet, annotation=annotation, scratch=scratch)
    except SourceError as error:
        found.refused[path] = str(error)
        return
    try:
        one = _describe(source, names, unit=file.options.get("unit"))
    except SourceError as error:
        found.unfit[path] = str(error)
        return
    one.accession = found.accessions.get(path, "")
    found.sources.append(one)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder in order, without hidden ones, stores and studies."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and not name.endswith(".zarr")
            and not (here / name / "study.json").exists()
        )
        yield from (here / name for name in sorted(files) if not name.startswith("."))


def _describe(source: Source, names: _Names, *, unit: Unit | None = None) -> _Found:
    """Return what an expression file holds.

    Raises
    ------
    SourceError
        When it is unfit for a study.
    """
    path = source.path
    if len(source.genes) < _FEWEST_GENES:
        raise SourceError(
            f"{path.name}: expected at least {_FEWEST_GENES} genes, got {len(source.genes)}."
        )
    scaled = find_scale(source, unit)
    return _Found(
        path,
        source.format,
        source.samples,
        source.genes,
        source.gene_symbol or [],
        names.numbers(map(clean_id, source.genes)),
        sorted(set(source.platform) - {""}),
        set(source.sample_series or [source.series]),
        scaled.scale,
        scaled.unit or "",
        _kinds(source.labels),
        _persons(source.labels),
        notes=[*map(str, source.left_out), *source.notes, *scaled.notes],
    )


def _kinds(labels: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return the values of each label that tells kinds of samples apart, here or among files."""
    kinds = {name: set(values) - {""} for name, values in labels.items()}
    return {
        name: those
        for name, those in kinds.items()
        if 0 < len(those) <= min(_MOST_KINDS, len(labels[name]) // 2)
        and not all(map(_is_number, those))
    }


def _persons(labels: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the labels that name enough persons to split by."""
    found = iter_persons(labels, [""] * max(map(len, labels.values()), default=0))
    return {name for name, whom in found if len(set(whom) - {""}) >= _FEWEST_PERSONS}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _match_sheets(found: _Folder) -> None:
    """Give each file without labels the sheet of its folder that covers its samples."""
    sheets = [path for path in found.refused if path.stat().st_size <= _SMALL_NBYTES]
    for source in found.sources:
        if source.format in ("series-matrix", "soft"):
            continue
        stem = source_name(source.path)
        near = [path for path in sheets if path.parent == source.path.parent]
        for path in sorted(near, key=lambda path: (not path.name.startswith(stem), path.name)):
            try:
                labels = read_sample_sheet(path, source.samples)
            except (SourceError, StopIteration):
                continue
            source.sheet = path
            source.labels |= _kinds(labels)
            source.persons |= _persons(labels)
            series = next((labels[n] for n in ("series_id", "series", "gse") if n in labels), None)
            source.series = set(series or source.series)
            break
    for source in found.sources:
        if source.sheet is not None:
            found.refused.pop(source.sheet, None)


# ---------------------------------------------------------------- who trains


def _training(sources: Sequence[_Found]) -> tuple[list[_Found], NDArray[np.int64]]:
    """Return the files that train, those with most values in common, and the genes they share.

    A file begins with its genes; every other file that measures nine tenths of them takes part.
    """
    best: tuple[list[_Found], NDArray[np.int64]] = ([], np.empty(0, np.int64))
    tried: set[bytes] = set()
    for first in sources:
        if (key := first.numbers.tobytes()) in tried:
            continue
        tried.add(key)
        members, common = _with_genes(sources, first.numbers)
        if _n_values(members, common) > _n_values(*best):
            best = members, common
    return best


def _with_genes(
    sources: Sequence[_Found], wanted: NDArray[np.int64]
) -> tuple[list[_Found], NDArray[np.int64]]:
    """Return the files that measure nine tenths of some genes, and the genes they share."""
    members: list[_Found] = []
    common = wanted
    for source in sources:
        both = np.intersect1d(common, source.numbers, assume_unique=True)
        if len(both) >= _SHARED * len(wanted):
            members, common = [*members, source], both
    return members, common


def _n_values(members: Sequence[_Found], common: NDArray[np.int64]) -> int:
    return sum(len(one.samples) for one in members) * len(common)


def _without_repeats(members: Sequence[_Found]) -> tuple[list[_Found], dict[Path, Path]]:
    """Return files without those that repeat samples of a larger one, and of which."""
    owner: dict[str, Path] = {}
    kept, repeats = [], {}
    for one in sorted(members, key=lambda one: (-len(one.samples), one.sheet is None)):
        first = next((owner[sample] for sample in one.samples if sample in owner), None)
        if first is not None:
            repeats[one.path] = first
            continue
        kept.append(one)
        owner |= dict.fromkeys(one.samples, one.path)
    return [one for one in members if one in kept], repeats


def _annotation(found: _Folder, genes: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Return the table that names most genes, at least half, and the symbols by it."""
    best: tuple[int, Path | None, list[str]] = (len(genes) // 2, None, [])
    for path in found.refused:
        if path.stat().st_size > _SMALL_NBYTES:
            continue
        try:
            table = read_annotation_table(path)
        except SourceError:
            continue
        found.tables.append(path)
        symbols = [table.symbol_of(gene) for gene in genes]
        n_named = sum(map(bool, symbols))
        if n_named > best[0]:
            best = (n_named, path, symbols)
    return best[1], best[2]


def _is_cohort(
    source: _Found, genes: NDArray[np.int64], known: NDArray[np.int64], names: _Names
) -> bool:
    """Return whether at least half of a study's genes can be found in another file."""
    if 2 * len(np.intersect1d(genes, source.numbers)) >= len(genes):
        return True
    own = names.numbers(s.upper() for s in source.symbols or source.genes)
    return len(known) > 0 and 2 * len(np.intersect1d(known, own)) >= len(known)


def _lists(found: _Folder, genes: Sequence[str], symbols: Sequence[str]) -> dict[Path, int]:
    """Return the files that list genes of the study, and how many."""
    lists: dict[Path, int] = {}
    for path in found.refused:
        if path in found.tables or ".gmt" in path.suffixes:
            continue
        try:
            if not _is_narrow(path):
                continue
            match = read_panel(path, genes=genes, symbols=symbols or None)
        except SourceError:
            continue
        if len(match.genes) >= max(_FEWEST_LISTED, len(match.missing)):
            lists[path] = len(match.genes)
    return lists


def _is_narrow(path: Path) -> bool:
    """Return whether a small text has as few columns as a list of genes."""
    if path.stat().st_size > _SMALL_NBYTES:
        return False
    with TextStream(path) as stream:
        head = stream.peek() or ""
    return 1 + max(head.count("\t"), head.count(",")) <= _MOST_COLUMNS


# ---------------------------------------------------------------- writing


def _write(found: _Folder, names: _Names) -> str:
    """Return the settings file."""
    training, common = _training(found.sources)
    training, repeats = _without_repeats(training)
    genes = training[0].genes
    annotation, symbols = _annotation(found, genes)
    own = [symbol for one in training for symbol in one.symbols]
    known = names.numbers(symbol.upper() for symbol in symbols or own)
    others = [s for s in found.sources if s not in training and s.path not in repeats]
    cohorts = [one for one in others if _is_cohort(one, common, known, names)]
    lists = _lists(found, genes, symbols)
    series = set().union(*(one.series for one in training))
    n_samples = sum(len(one.samples) for one in training)
    lines = [
        f"# {n_samples} samples of {len(series)} series train this, over {len(common)} genes.",
        "# A line that begins with # sets nothing. docs/settings.md tells of every setting.",
        "",
        'root = "study"  # folder of the results',
        'title = "Landmark genes"  # heading of the report',
        "",
        "# ---- Files that train the study.",
        *_sources(found, training, "train"),
    ]
    if cohorts:
        lines += ["# ---- Files of other genes, on which panels are judged too."]
        lines += _sources(found, cohorts, "cohort")
    for path, first in repeats.items():
        name, of = found.name(path), found.name(first)
        lines.append(one_line(f"# Left out: {name}: repeats samples of {of}."))
    for one in others:
        if one not in cohorts:
            what = f"{len(one.samples)} samples, {len(one.genes)} genes such as {one.genes[0]!r}"
            name = found.name(one.path)
            lines.append(one_line(f"# Left out: {name} ({what}): its genes are others."))
    used = {annotation, *found.tables, *lists}
    not_taken = found.unfit | {p: m for p, m in found.refused.items() if p not in used}
    lines += _not_taken(found, not_taken)
    lines += ["", *_sections(found, training, common, annotation, lists)]
    return "\n".join(lines) + "\n"


def _not_taken(found: _Folder, refused: Mapping[Path, str]) -> list[str]:
    """Return a line for each reason why files are no expression."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, message in refused.items():
        if ".gmt" not in path.suffixes:
            groups[one_line(message.removeprefix(path.name).lstrip(":, "))].append(path)
    lines = []
    for reason, paths in groups.items():
        others = f" and {len(paths) - 1} like it" if len(paths) > 1 else ""
        lines.append(one_line(f"# Not taken: {found.name(paths[0])}{others}: {reason}"))
    return lines


def _sources(found: _Folder, sources: Sequence[_Found], role: str) -> list[str]:
    """Return the entries of some files; those that one pattern tells are one."""
    lines = _fetched_sources(found, [one for one in sources if one.accession], role)
    groups: dict[tuple[str, str], list[_Found]] = defaultdict(list)
    for one in sources:
        if not one.accession:
            groups[_pattern(found, one), _sheet_pattern(found, one)].append(one)
    for (pattern, sheet), members in groups.items():
        place = members[0].path.parent
        matched = {p for p in place.glob(Path(pattern).name) if not p.name.startswith(".")}
        is_exact = len(members) > 1 and matched == {one.path for one in members}
        entries = (
            [(pattern, sheet, members)]
            if is_exact
            else [
                (found.name(one.path), found.name(one.sheet) if one.sheet else "", [one])
                for one in members
            ]
        )
        for uri, own_sheet, those in entries:
            lines += ["[[sources]]", f"uri = {_text(uri)}"]
            lines += [f"role = {_text(role)}"] if role != "train" else []
            lines += [f"sample_sheet = {_text(own_sheet)}"] if own_sheet else []
            lines += [f"#   {told}" for one in those for told in _told(one)]
            lines.append("")
    return lines


def _fetched_sources(found: _Folder, sources: Sequence[_Found], role: str) -> list[str]:
    """Return the entry of accessions, one for all."""
    if not sources:
        return []
    names = list(dict.fromkeys(one.accession for one in sources))
    lines = ["[[sources]]", f"geo = {json.dumps(names)}"]
    lines += [f"platform = {json.dumps(list(found.platforms))}"] if found.platforms else []
    lines += ["platform_table = true  # GEO's table of it names the genes"]
    lines += [f"role = {_text(role)}"] if role != "train" else []
    return [*lines, *(f"#   {told}" for one in sources for told in _told(one)), ""]


def _pattern(found: _Folder, one: _Found) -> str:
    """Return the pattern of files named as one is."""
    name = found.name(one.path)
    stem = source_name(one.path)
    folder, _, file = name.rpartition("/")
    pattern = f"*{file.removeprefix(stem)}" if file.startswith(stem) else file
    return f"{folder}/{pattern}" if folder else pattern


def _sheet_pattern(found: _Folder, one: _Found) -> str:
    """Return where the sheets of files named as one is stand, "" where it has none."""
    if one.sheet is None:
        return ""
    return found.name(one.sheet).replace(source_name(one.path), "{stem}")


def _told(one: _Found) -> list[str]:
    """Return what a file holds, and what should be known of it."""
    platforms = f", {', '.join(one.platforms)}" if one.platforms else ""
    series = f", {len(one.series)} series" if len(one.series) > 1 else ""
    by_kinds = sorted(one.labels.items(), key=lambda label: len(label[1]) == 1)
    labels = [f"{n} ({f'{len(k)} kinds' if len(k) > 1 else min(k)[:40]})" for n, k in by_kinds]
    more = f" and {len(labels) - _N_SHOWN} more" if len(labels) > _N_SHOWN else ""
    shown = f"; labels: {', '.join(labels[:_N_SHOWN])}{more}" if labels else ""
    unit = one.unit or "not logarithms: log2 is taken"
    head = f"{one.path.name}: {one.format}, {len(one.samples)} samples x {len(one.genes)} genes"
    return [one_line(f"{head}{platforms}{series}, {unit}{shown}"), *map(one_line, one.notes)]


def _sections(
    found: _Folder,
    training: Sequence[_Found],
    common: NDArray[np.int64],
    annotation: Path | None,
    lists: Mapping[Path, int],
) -> list[str]:
    """Return what is set beside the sources, and what could be."""
    chosen: dict[str, tuple[str, str]] = {}
    offered: list[tuple[str, str, str]] = []
    for path in found.tables:
        if path == annotation:
            chosen["ingest.annotation"] = (_text(found.name(path)), "names the genes")
        else:
            offered.append(("ingest.annotation", _text(found.name(path)), "another such table"))
    n_series = len(set().union(*(one.series for one in training)))
    if n_series < _FEWEST_SERIES:
        why = f"{n_series} series cannot be held out whole: what is found may hold for these alone"
        persons = set.intersection(*(one.persons for one in training))
        by = min(persons, default="sample")
        chosen["ingest.split_by"] = (_text(by), why)
    chosen |= _sizes(len(common))
    panels = []
    for path, n in lists.items():
        name = found.name(path)
        if 2 * n >= len(common):
            offered.append(("ingest.probes", _text(name), f"lists {n} of the genes"))
        else:
            panels.append(f"{_key(source_name(path))} = {_text(name)}")
    if panels:
        text = f"{{ {', '.join(panels)} }}"
        offered.append(("evaluate.panels", text, "published lists to compare with"))
    for path in found.refused:
        if ".gmt" in path.suffixes:
            why = "gene sets to test the panel for"
            offered.append(("enrich.gene_sets", _text(found.name(path)), why))
    label = _most_common_label(training)
    if label is not None:
        offered.append(("group.label", _text(label), "kinds that a panel should keep apart"))
        offered.append(("score.group_by", _text(label), "scores for each of its values too"))
    return _as_lines(chosen, offered)


def _sizes(n_genes: int) -> dict[str, tuple[str, str]]:
    """Return how many genes a panel has and, where there are few, how wide the latent layer is."""
    n_landmarks = min(_PANEL_SIZE, max(1, n_genes // _GENES_A_LANDMARK))
    found = {"select.n_landmarks": (str(n_landmarks), "genes of the panel")}
    n_latent = max(1, n_genes // GENES_A_UNIT)
    if n_latent < NetworkOptions().n_latent:
        why = "width of the latent layer; one as wide as the genes only copies them"
        found["train.n_latent"] = (str(n_latent), why)
    return found


def _most_common_label(sources: Sequence[_Found]) -> str | None:
    """Return the label of several kinds that most samples have."""
    n_samples: Counter[str] = Counter()
    for one in sources:
        n_samples.update(dict.fromkeys(one.labels, len(one.samples)))
    kinds = {n: set().union(*(one.labels.get(n, ()) for one in sources)) for n in n_samples}
    return next((n for n, _ in n_samples.most_common() if len(kinds[n]) > 1), None)


def _as_lines(
    chosen: Mapping[str, tuple[str, str]], offered: Sequence[tuple[str, str, str]]
) -> list[str]:
    """Return the sections, with what is not chosen as comments."""
    rows = {row.key: row for row in describe_settings()}
    lines = [("", key, *told) for key, told in chosen.items()]
    lines += [("#", *told) for told in offered]
    shown = {key for _, key, _, _ in lines}
    lines += [
        ("#", key, rows[key].default, rows[key].meaning)
        for key in _SHOWN_SETTINGS
        if key not in shown
    ]
    sections: dict[str, list[str]] = defaultdict(list)
    for mark, key, value, why in lines:
        section, _, name = key.partition(".")
        sections[section].append(f"{mark}{name} = {value}  # {why}")
    order = list(dict.fromkeys(key.partition(".")[0] for key in rows))
    written = (
        "\n".join([f"[{name}]", *sections[name], ""]) for name in sorted(sections, key=order.index)
    )
    return "\n".join(written).rstrip().split("\n")


def _text(value: str) -> str:
    """Return text as TOML writes it: JSON's escapes are among TOML's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    is_bare = name.replace("_", "").replace("-", "").isalnum() and name.isascii()
    return name if is_bare else _text(name)
