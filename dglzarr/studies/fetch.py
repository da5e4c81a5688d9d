"""What the settings name by accession or address: fetched, recorded, and found again offline.

``sources.lock`` stands beside the settings; files are in the cache that studies share.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dglzarr.access.address import address_name, fetch_address, public_address
from dglzarr.access.fetch import ChangedUpstreamError, Fetcher
from dglzarr.access.geo import ACCESSION, fetch_series, fetch_tables
from dglzarr.access.gtex import fetch_gtex, gtex_source, unit_of
from dglzarr.access.http import AgainError, RefusedError
from dglzarr.access.lock import Entry, read_lock, record
from dglzarr.errors import ConfigError, DglzarrError, SourceError
from dglzarr.settings import build_settings
from dglzarr.storage.files import file_sha256, tag, told, whole
from dglzarr.studies.part import fetch_part
from dglzarr.studies.sheet import compare_counts, series_sheet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from dglzarr.settings import Settings, SourceSettings
    from dglzarr.storage.options import Progress

logger = logging.getLogger(__name__)

State = Literal["fetched", "kept", "changed", "refused"]

_MADE = "made:"
"""Begins the address of a file that was made from fetched ones."""
_SPECIES = {"_GRCh": "Homo sapiens", "_GRCm": "Mus musculus"}
"""Whose counts a table of NCBI's holds, by the release of the genome in its name."""


@dataclass(frozen=True)
class Wanted:
    """One thing to fetch.

    Attributes
    ----------
    place
        Where the settings name it, as in ``sources.0.geo``.
    source
        What the lock calls it, as in ``geo:GSE10072``.
    name
        What people call it.
    settings
        The entry that names it.
    """

    place: str
    source: str
    name: str
    settings: SourceSettings


@dataclass(frozen=True)
class Outcome:
    """What became of one thing that was to be fetched; ``told`` why not, or what it took."""

    name: str
    state: State
    n_files: int = 0
    nbytes: int = 0
    told: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it needs somebody to do something."""
        return self.state in ("changed", "refused")


@dataclass(frozen=True)
class Found:
    """A fetched file to ingest, and what is known of it."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)


OnFetched = Callable[[Wanted, Sequence[Found]], None]
"""Called with what has been fetched, and the files to ingest of it."""


# ---------------------------------------------------------------- what is wanted


def wanted(settings: Settings) -> list[Wanted]:
    """Return what the settings name by accession or address, in their order.

    Raises
    ------
    ConfigError
        When an accession, a file of them or an address is none, or one is named twice.
    """
    found: dict[str, Wanted] = {}
    for number, source in enumerate(settings.sources):
        for one in _wanted_of(f"sources.{number}", source):
            if one.source in found:
                raise ConfigError(
                    f"{one.place}: {one.name} is named twice, also by {found[one.source].place}. "
                    "Remove one of the two."
                )
            found[one.source] = one
    return list(found.values())


def _wanted_of(place: str, source: SourceSettings) -> Iterator[Wanted]:
    for accession in _accessions(f"{place}.geo", source.accessions):
        table = "table" if source.platform_table else ""
        parts = [f"geo:{accession}", "+".join(sorted(source.platforms)), table]
        yield Wanted(f"{place}.geo", "/".join(filter(None, parts)), accession, source)
    if source.gtex is not None:
        key = gtex_source(source.gtex, source.gtex_values, source.tissue)
        yield Wanted(f"{place}.gtex", key, key.replace("gtex:", "GTEx "), source)
    if source.uri is not None and is_remote(source):
        try:
            address_name(public_address(source.uri))
        except RefusedError as error:
            raise ConfigError(f"{place}.uri: {error}.") from error
        key = f"uri:{source.uri}"
        key = f"{key}#{_chosen(place, source)}" if source.by_ranges else key
        yield Wanted(f"{place}.uri", key, source.uri, source)


def _chosen(place: str, source: SourceSettings) -> str:
    """Return what stands for a choice of samples: another one is fetched anew."""
    listed = ""
    if source.only_samples:
        with told(source.only_samples, "read", remedy=f"Correct {place}.only_samples."):
            listed = file_sha256(source.only_samples)
    chosen = (source.only_series or (), source.only_matching, source.max_single_cell, listed)
    return tag(repr(chosen).encode())[:12]


def _accessions(place: str, given: Sequence[str]) -> Iterator[str]:
    for one in given:
        if ACCESSION.fullmatch(one):
            yield one.upper()
            continue
        try:
            lines = Path(one).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{place}: expected an accession such as GSE10072 or a file of them, got "
                f"{Path(one).name!r}, which is no such file. Correct it."
            ) from error
        yield from _listed(one, lines)


def _listed(path: str, lines: Sequence[str]) -> Iterator[str]:
    """Yield the accessions of a file: the first word of each line, a header and # left out."""
    n_found, is_begun = 0, False
    for number, line in enumerate(lines, start=1):
        word = line.replace(",", "\t").split("#")[0].split("\t")[0].strip().strip('"')
        if ACCESSION.fullmatch(word):
            n_found += 1
            yield word.upper()
        elif word and (is_begun or re.match(r"G\D*\d", word, re.IGNORECASE)):
            raise ConfigError(
                f"{path}, line {number}: expected an accession such as GSE10072, got {word!r}. "
                "Correct the line."
            )
        is_begun = is_begun or bool(word)
    is_new_table = bool(lines) and lines[0].startswith("accession\t")
    if not n_found and not is_new_table:
        raise ConfigError(f"{path}: expected accessions such as GSE10072, got none.")


# ---------------------------------------------------------------- found again, offline


def fetched_files(settings: Settings, place: str, *, without: Collection[str] = ()) -> list[Found]:
    """Return the files that one entry of the settings stands for; nothing is fetched.

    Parameters
    ----------
    settings
        The study.
    place
        The entry, as in ``sources.0``.
    without
        Sources that are left out, as the lock calls them.

    Raises
    ------
    ConfigError
        When something was not fetched yet, or is not in the cache any more.
    """
    lock = _by_source(settings)
    cache = Fetcher(settings.fetch).cache
    found = []
    for one in _wanted_of(place, settings.sources[int(place.rpartition(".")[2])]):
        if one.source in without:
            continue
        entries = lock.get(one.source, [])
        paths = {e: cache.find(e.sha256, e.name, e.size) for e in entries}
        if not entries or None in paths.values():
            where = "fetched yet" if not entries else f"in the cache {cache.root} any more"
            raise ConfigError(
                f"{one.place}: {one.name} is not {where}. Run 'dglzarr fetch' with these settings."
            )
        found += _to_ingest(one, {entry: str(path) for entry, path in paths.items()})
    return found


def is_remote(source: SourceSettings) -> bool:
    """Return whether an entry of the settings names something to fetch."""
    return source.uri is None or ("://" in source.uri and not source.uri.startswith("file:"))


def _by_source(settings: Settings) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in read_lock(Path(settings.fetch.lock)):
        found.setdefault(entry.source, []).append(entry)
    return found


def _to_ingest(one: Wanted, paths: dict[Entry, str]) -> list[Found]:
    """Return the files that hold values, with the sheet and names that came with them."""
    of: dict[str, list[str]] = {}
    for entry, path in paths.items():
        of.setdefault(entry.kind, []).append(path)
    more: dict[str, Any] = {}
    if "samples" in of and one.settings.sample_sheet is None:
        more["sample_sheet"] = of["samples"][0]
    if "annotation" in of and one.settings.annotation is None:
        more["annotation"] = of["annotation"][0]
    if one.settings.unit is None and "counts" in of:
        more["unit"] = "counts"
    if one.settings.unit is None and one.settings.gtex is not None:
        more["unit"] = unit_of(one.settings.gtex, one.settings.gtex_values)
    tables = {entry.platform: path for entry, path in paths.items() if entry.kind == "platform"}
    named = {
        path: {"annotation": tables[entry.platform]}
        for entry, path in paths.items()
        if entry.kind == "matrix" and entry.platform in tables
    }
    values = of.get("counts") or of.get("matrix") or of.get("part") or of["data"]
    beside = of.get("matrix", []) if "labels" in of else []  # of other platforms than the counts
    return [Found(path, more | named.get(path, {})) for path in sorted(values)] + [
        Found(path, named.get(path, {})) for path in sorted(beside)
    ]


# ---------------------------------------------------------------- fetching


def fetch_accessions(
    accessions: Sequence[str],
    platforms: Sequence[str],
    *,
    base: Path,
    on_progress: Progress | None = None,
) -> tuple[dict[str, list[Found]], list[str]]:
    """Return files of accessions for settings that are to be written, and what was refused.

    Parameters
    ----------
    accessions, platforms
        As ``geo`` and ``platform`` of the settings; without accessions nothing is done.
    base
        Where the settings will be: ``sources.lock`` is written there.
    on_progress
        Called with (what, kilobytes done, kilobytes in all).

    Raises
    ------
    ConfigError
        As `fetch`.
    """
    if not accessions:
        return {}, []
    named = [a if ACCESSION.fullmatch(a) else str(Path(a).absolute()) for a in accessions]
    source = {"geo": named, "platform": list(platforms), "platform_table": True}
    content = {"root": "study", "sources": [source]}
    settings = build_settings(content, name="--geo", folder=base.resolve())
    outcomes = fetch(settings, on_progress=on_progress)
    lock, cache = _by_source(settings), Fetcher(settings.fetch).cache
    found = {}
    for one, outcome in zip(wanted(settings), outcomes, strict=True):
        if not outcome.is_wrong:
            paths = {e: str(cache.place(e.sha256, e.name)) for e in lock[one.source]}
            found[one.name] = _to_ingest(one, paths)
    return found, [outcome.told for outcome in outcomes if outcome.is_wrong]


def get_missing(
    settings: Settings,
    *,
    without: Collection[str] = (),
    on_progress: Progress | None = None,
    on_fetched: OnFetched | None = None,
) -> None:
    """Fetch what the settings name and is not there yet; without such, nothing is asked.

    Parameters
    ----------
    settings
        The study.
    without, on_progress, on_fetched
        As for `fetch`.

    Raises
    ------
    ConfigError
        When what is named cannot be, or the lock is not as it was written.
    SourceError
        When something cannot be had: all of it, one after the other.
    """
    refused = refused_sources(
        settings, without=without, on_progress=on_progress, on_fetched=on_fetched
    )
    wrong = list(refused.values())
    if wrong:
        more = f" And {len(wrong) - 1} more: see 'dglzarr fetch'." if len(wrong) > 1 else ""
        raise SourceError(f"{wrong[0]}{more}")


def refused_sources(
    settings: Settings,
    *,
    without: Collection[str] = (),
    on_progress: Progress | None = None,
    on_fetched: OnFetched | None = None,
) -> dict[str, str]:
    """Fetch what the settings name and is not there yet; return what cannot be had, and why.

    The arguments are those of `get_missing`.

    Returns
    -------
    dict
        By source, as the lock calls it: a line that names it.

    Raises
    ------
    ConfigError
        As `fetch`.
    """
    outcomes = fetch(
        settings, without=without, on_progress=on_progress, on_fetched=on_fetched, is_hashed=False
    )
    named = zip(_todo(settings, without), outcomes, strict=True)
    return {one.source: outcome.told for one, outcome in named if outcome.is_wrong}


def _todo(settings: Settings, without: Collection[str]) -> list[Wanted]:
    return [one for one in wanted(settings) if one.source not in without]


def fetch(
    settings: Settings,
    *,
    update: bool = False,
    check: bool = False,
    without: Collection[str] = (),
    on_progress: Progress | None = None,
    on_fetched: OnFetched | None = None,
    is_hashed: bool = True,
) -> list[Outcome]:
    """Fetch what the settings name by accession or address; return what became of each.

    What is recorded and in the cache is kept, without asking anybody. What cannot be had is told,
    and the rest goes on; each source is recorded when it is whole.

    Parameters
    ----------
    settings
        The study.
    update
        Take what has changed upstream.
    check
        Ask whether anything has changed upstream, and take nothing.
    without
        Sources that are not asked for, as the lock calls them.
    on_progress
        Called with (what, kilobytes done, kilobytes in all).
    on_fetched
        Called with what has been fetched and recorded, and its files, while the rest is fetched.
    is_hashed
        Whether files in the cache are compared with their digests, not only their sizes.

    Raises
    ------
    ConfigError
        When what is named cannot be, or the lock is not as it was written.
    """
    todo = _todo(settings, without)
    if not todo:
        return []
    lock = _by_source(settings)
    known = [entry for entries in lock.values() for entry in entries]
    locked = {e.address: e for e in known if e.kind != "part"}
    parts = {e.address: e for e in known if e.kind == "part"}
    work = _Work(
        Fetcher(settings.fetch, locked=locked, parts=parts, on_progress=on_progress),
        lock,
        update,
        check,
        is_hashed,
    )
    found: dict[str, Outcome] = {}
    path = Path(settings.fetch.lock)
    pool = ThreadPoolExecutor(settings.fetch.at_once)
    try:
        asked = {pool.submit(work.outcome, one): one for one in todo}
        for done in as_completed(asked):
            one = asked[done]
            found[one.source], entries = done.result()
            if entries is not None:
                with told(str(path), remedy="Choose a writable place as fetch.lock."):
                    record(path, one.source, entries)
                lock[one.source] = entries
                if on_fetched is not None:
                    on_fetched(one, _to_ingest(one, work.paths(entries)))
    except BaseException:
        work.fetcher.client.stop()
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()
    return _one_species([(one, found[one.source]) for one in todo], lock)


@dataclass
class _Work:
    """What is done with each source; called by several threads."""

    fetcher: Fetcher
    lock: dict[str, list[Entry]]
    update: bool
    check: bool
    is_hashed: bool
    notes: dict[str, str] = field(default_factory=dict)

    def outcome(self, one: Wanted) -> tuple[Outcome, list[Entry] | None]:
        """Return what became of a source, and what to record of it, None for nothing new."""
        try:
            with told(one.name, "fetched"):
                return self._get(one)
        except ChangedUpstreamError as error:
            return Outcome(one.name, "changed", told=f"{one.name}: {error}."), None
        except RefusedError as error:
            return Outcome(one.name, "refused", told=f"{one.name}: {error}."), None
        except DglzarrError as error:
            text = str(error)
            text = text if text.startswith(one.name) else f"{one.name}: {text}"
            return Outcome(one.name, "refused", told=text), None

    def paths(self, entries: Sequence[Entry]) -> dict[Entry, str]:
        """Return where recorded files are in the cache."""
        return {e: str(self.fetcher.cache.place(e.sha256, e.name)) for e in entries}

    def _get(self, one: Wanted) -> tuple[Outcome, list[Entry] | None]:
        known = self.lock.get(one.source, [])
        if known and (self.check or self.update):
            changes = self._changes(known)
            if changes and self.check:
                raise ChangedUpstreamError(
                    f"expected {changes[0]}. Take what is new with 'dglzarr fetch --update'"
                )
            if changes or (self.update and not all(map(self._is_here, known))):
                for entry in known:
                    self.fetcher.locked.pop(entry.address, None)
                    self.fetcher.parts.pop(entry.address, None)
                known = []
        if known and all(map(self._is_here, known)):
            return _outcome(one, "kept", known), None
        if known:
            self._again(one, known)
            return _outcome(one, "fetched", known), None
        if self.check:
            raise RefusedError("is not fetched yet. Run 'dglzarr fetch' without --check")
        entries = self._fetch(one)
        outcome = _outcome(one, "fetched", entries)
        return replace(outcome, told=self.notes.get(one.source, "")), entries

    def _fetch(self, one: Wanted) -> list[Entry]:
        """Return the files of a source that the lock does not know."""
        asked = one.settings
        if one.source.startswith("geo:"):
            entries = fetch_series(self.fetcher, one.name, platforms=asked.platforms)
            if counts := [entry for entry in entries if entry.kind == "counts"]:
                entries.append(self._make_sheet(one.name, entries))
                self._compare(one, *self.paths([*counts, entries[-1]]).values())
            if asked.platform_table:
                entries += self._tables(one, entries)
        elif asked.gtex is not None:
            entries = fetch_gtex(self.fetcher, asked.gtex, asked.gtex_values, asked.tissue)
        elif asked.by_ranges:
            entries = [self._part(one)]
        else:
            entries = fetch_address(self.fetcher, str(asked.uri))
        return [replace(entry, source=one.source) for entry in entries]

    def _compare(self, one: Wanted, counts: str, sheet: str) -> None:
        """Note samples without counts; refuse counts of other samples."""
        self.notes[one.source] = compare_counts(Path(counts), Path(sheet).read_bytes())
        if self.notes[one.source]:
            logger.info("%s: %s", one.name, self.notes[one.source])

    def _tables(self, one: Wanted, entries: Sequence[Entry]) -> list[Entry]:
        """Return GEO's tables of a series' platforms; note platforms without."""
        tables, without = fetch_tables(self.fetcher, entries)
        if without:
            told = f"GEO has no table of {' and '.join(without)}: name one as annotation"
            self.notes[one.source] = "; ".join(filter(None, [self.notes.get(one.source), told]))
        return tables

    def _part(self, one: Wanted) -> Entry:
        """Return some samples of a remote file, as a file in the cache; note what it took."""
        uri, reading = str(one.settings.uri), one.settings.reading()
        entry, self.notes[one.source] = fetch_part(self.fetcher, one.source, uri, reading)
        return entry

    def _again(self, one: Wanted, known: Sequence[Entry]) -> None:
        """Fetch recorded files that are lost; they must be as they were."""
        for entry in known:
            if entry.kind == "part":
                self._part(one)
                self._check_again(entry)
            elif not self._is_here(entry) and not entry.address.startswith(_MADE):
                is_gzip = entry.name.endswith(".gz")
                is_matrix = entry.kind in ("matrix", "labels")
                self.fetcher.get(entry.address, entry.name, is_matrix=is_matrix, is_gzip=is_gzip)
        for entry in known:
            if entry.address.startswith(_MADE) and not self._is_here(entry):
                self._make_sheet(entry.address.removeprefix(_MADE), known)
                self._check_again(entry)

    def _check_again(self, entry: Entry) -> None:
        """Refuse a file that was made again and is another."""
        if not self._is_here(entry):
            raise ChangedUpstreamError(
                f"expected {entry.name} as it was made before, got another, since it is "
                "made otherwise now. Take it with 'dglzarr fetch --update'"
            )

    def _is_here(self, entry: Entry) -> bool:
        """Return whether a file is in the cache and as it was; remove one that is not."""
        path = self.fetcher.cache.find(entry.sha256, entry.name, entry.size)
        if path is None or (self.is_hashed and file_sha256(str(path)) != entry.sha256):
            with suppress(OSError):
                self.fetcher.cache.place(entry.sha256, entry.name).unlink(missing_ok=True)
            return False
        return True

    def _changes(self, known: Sequence[Entry]) -> list[str]:
        """Return what has changed upstream, in words."""
        found = []
        for entry in known:
            if entry.address.startswith(_MADE):
                continue
            now = self._ask(entry)
            size = "" if entry.kind == "part" else str(entry.size)
            before = (entry.etag, entry.modified, size)
            if any(a and b and a != b for a, b in zip(before, now, strict=True)):
                found.append(
                    f"{entry.name} as of {entry.fetched} ({entry.size} bytes), got another "
                    f"({now[2]} bytes, of {now[1] or 'unknown time'})"
                )
        return found

    def _ask(self, entry: Entry) -> tuple[str, str, str]:
        """Return tag, time of change and length that a server now says of a file."""

        def ask() -> tuple[str, str, str]:
            with self.fetcher.client.open(entry.address) as response:
                if response.status_code != 200:
                    raise AgainError(f"expected status 200, got {response.status_code}")
                said = response.headers
                names = ("ETag", "Last-Modified", "Content-Length")
                return said.get(names[0], ""), said.get(names[1], ""), said.get(names[2], "")

        return self.fetcher.client.patiently(ask)

    def _make_sheet(self, accession: str, entries: Sequence[Entry]) -> Entry:
        """Return the sheet of a series' samples, made from the heads of its matrices."""
        cache = self.fetcher.cache
        is_told = any(e.kind == "labels" for e in entries)
        kind = "labels" if is_told else "matrix"  # as older locks call them
        matrices = [cache.place(e.sha256, e.name) for e in entries if e.kind == kind]
        content = series_sheet(matrices)
        name, sha256 = f"{accession}_samples.tsv", tag(content)
        with whole(cache.place(sha256, name)) as partial:
            partial.write_bytes(content)
        source = entries[0].source
        return Entry(source, "samples", f"{_MADE}{accession}", name, len(content), sha256)


def _outcome(one: Wanted, state: State, entries: Sequence[Entry]) -> Outcome:
    return Outcome(one.name, state, len(entries), sum(entry.size for entry in entries))


def _one_species(
    outcomes: Sequence[tuple[Wanted, Outcome]], lock: dict[str, list[Entry]]
) -> list[Outcome]:
    """Return the outcomes; a series of another species than most, or of several, is refused."""
    of = {one.source: _species(one, lock.get(one.source, [])) for one, _ in outcomes}
    counted = Counter(name for names in of.values() for name in names if "," not in name)
    common = counted.most_common(1)[0][0] if counted else ""
    found = []
    for one, outcome in outcomes:
        text = "" if outcome.is_wrong else _other_species(of[one.source], common)
        refused = Outcome(one.name, "refused", told=f"{one.name}: {text}")
        found.append(refused if text else outcome)
    return found


def _species(one: Wanted, entries: Sequence[Entry]) -> set[str]:
    """Return the species of a source's values, several of one file as one, joined by commas.

    Of samples that are chosen of such a file nothing is known. A matrix beside counts describes
    more samples than have counts, which are of one species.
    """
    counts = [entry for entry in entries if entry.kind == "counts"]
    is_told = any(entry.kind == "labels" for entry in entries)
    beside = "labels" if is_told else "matrix"  # as older locks call them
    found = {e.organism for e in entries if e.organism and not (counts and e.kind == beside)}
    found |= {name for e in counts for key, name in _SPECIES.items() if key in e.name}
    if one.settings.only_matching or one.settings.only_samples:
        return {name for name in found if "," not in name}
    return found


def _other_species(of: Collection[str], common: str) -> str:
    """Return why a source of some species is refused; "" where it is not."""
    mixed = sorted(name for name in of if "," in name)
    if mixed:
        got = mixed[0].replace(",", " and ")
        return (
            f"expected samples of one species, got {got}. Choose at its source by only_samples, "
            "only_matching (of a title or characteristic) or platform, or remove it."
        )
    others = " and ".join(sorted(set(of) - {common}))
    if not others:
        return ""
    return (
        f"expected {common} as of the other series, got {others}. Remove it, or make it a study of "
        "its own."
    )
