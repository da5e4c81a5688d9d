"""What each id of a list is, what it became and why: probes, symbols, their history, ids, dates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from dglzarr.errors import SourceError
from dglzarr.query.genes import NEAR
from dglzarr.sources.aliases import NameTable, lookup_key, read_names
from dglzarr.sources.dates import excel_dates, genes_of_date
from dglzarr.sources.identifiers import (
    Annotation,
    clean_id,
    has_name,
    read_annotation_table,
    read_columns,
    split_pair,
    strip_version,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dglzarr.query.genes import GeneNames

UNKNOWN, SEVERAL, NAMELESS = "not known", "several", "no symbol"
_N_FEATURES = 5


@dataclass
class Traced:
    """One id: what it is, the symbol and gene id it became, the study's features, and why."""

    id: str
    what: str = UNKNOWN
    symbol: str = ""
    gene_id: str = ""
    features: str = ""
    why: str = ""
    also: list[str] = field(default_factory=list)
    """Other names under which the study may measure it."""


class Names:
    """All names that are known: of annotation tables, a table of aliases, and a study.

    Parameters
    ----------
    annotations
        What probes measure, by the name of its table.
    table
        Approved symbols, former ones, aliases and ids.
    study
        The names of a study's genes.
    """

    def __init__(
        self,
        annotations: dict[str, Annotation] | None = None,
        table: NameTable | None = None,
        study: GeneNames | None = None,
    ) -> None:
        self.annotations, self.study = annotations or {}, study
        self.table = table or NameTable({}, {})
        self.symbols = dict(self.table.symbols)
        self.ids: dict[str, tuple[str, str]] = {}
        self.id_of: dict[str, str] = {}
        for name, annotation in self.annotations.items():
            for probe, symbol in annotation.symbol.items():
                gene_id = annotation.gene_id.get(probe, "")
                self._add(symbol, gene_id, name)
        if study is not None:
            for symbol in filter(has_name, study.symbols):
                self.symbols.setdefault(lookup_key(symbol), symbol)
        self._others: dict[str, list[str]] = {}
        for key, symbols in self.table.others.items():
            for symbol, kind in symbols.items():
                self._others.setdefault(lookup_key(symbol), []).append(key)
                if kind == "id" and (key.isdecimal() or key.startswith("ENS")):
                    self.id_of.setdefault(lookup_key(symbol), key)
        self._alike: dict[str, list[str]] = {}

    def _add(self, symbol: str, gene_id: str, name: str) -> None:
        if symbol:
            key = lookup_key(symbol)
            self.symbols.setdefault(key, symbol)
            if gene_id:
                self.ids.setdefault(lookup_key(gene_id), (symbol, name))
                self.id_of.setdefault(key, gene_id)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known but how ids look."""
        return not (self.annotations or self.table.symbols or self.study)

    def knows(self, name: str) -> bool:
        """Return whether a name is that of a probe, a symbol, an alias or an id."""
        return self.trace(name, with_near=False).what != UNKNOWN

    def trace(self, name: str, *, with_near: bool = True) -> Traced:
        """Return what a name is, what it became, and why."""
        found = Traced(name)
        self._recognise(found, name.strip())
        if found.what == UNKNOWN and (pair := split_pair(name)):
            self._recognise(found, pair[1])
            found.why = _joined(f"{pair[1]} of the pair counts", found.why)
            if found.symbol and lookup_key(pair[0]) != lookup_key(found.symbol):
                found.also.append(pair[0])
        if found.symbol and not found.gene_id:
            found.gene_id = self.id_of.get(lookup_key(found.symbol), "")
        if found.what == UNKNOWN and with_near:
            found.why = _joined(found.why, self._near(name))
        if self.study is not None:
            self._measured(found)
        return found

    def _recognise(self, found: Traced, name: str) -> None:
        """Take the first of probe, date, symbol, id and other name that a name is."""
        if self._as_probe(found, name) or self._as_date(found, name):
            return
        key, note = lookup_key(name), _tidied(name)
        if key in self.symbols:
            found.what, found.symbol = "symbol", self.symbols[key]
            is_other = found.symbol != name and found.symbol.upper() == name.upper()
            found.why = f"written {found.symbol}" if is_other else ""
            self._now(found)
        elif key in self.ids:
            found.what, found.gene_id = _kind_of_id(key), clean_id(strip_version(name))
            found.symbol, place = self.ids[key]
            found.why = _joined(note, f"id of {found.symbol} in {place}")
            self._now(found)
        elif key in self.table.others:
            self._as_other(found, name, note)
        elif self.study is not None and (label := self._study_label(name)):
            found.what, found.why = "feature", f"feature {label} of the study, without a symbol"

    def _as_probe(self, found: Traced, name: str) -> bool:
        """Take a name for a probe of an annotation table, where it is one."""
        for place, annotation in self.annotations.items():
            label = name if name in annotation.symbol else strip_version(name)
            of = (annotation.symbol, annotation.gene_id)
            if not any(one in table for one in (name, label) for table in of):
                continue
            found.symbol, found.gene_id = annotation.symbol_of(name), annotation.gene_id_of(name)
            found.what = _kind_of_label(name, found.gene_id)
            note = _tidied(name)
            if name in annotation.dates:
                date = annotation.dates[name]
                found.why = f"{place} has the date {date!r} for its symbol"
                self._stand_for(found, date)
            elif found.symbol:
                found.why = _joined(note, f"{found.symbol} in {place}")
                self._now(found)
            else:
                found.what, found.why = NAMELESS, f"{place} has no symbol for it"
            return True
        return False

    def _as_date(self, found: Traced, name: str) -> bool:
        """Take a name for a date that a spreadsheet made of a symbol, where it is one."""
        if not excel_dates([name]):
            return False
        found.what, found.why = "date", "a date, as spreadsheets make them of symbols"
        self._stand_for(found, name)
        return True

    def _stand_for(self, found: Traced, date: str) -> None:
        """Take the gene that a date stands for; of several none."""
        genes = genes_of_date(date)
        if len(genes) == 1:
            found.symbol = genes[0].now
            found.also.append(genes[0].before)
            found.why += f"; once {genes[0].before}"
            return
        if len(genes) > 1:
            found.what = SEVERAL
        found.why += f"; {' or '.join(gene.now for gene in genes) or 'of no known gene'}"

    def _as_other(self, found: Traced, name: str, note: str) -> None:
        """Take a name for a former symbol, an alias or an id of a table."""
        of = self.table.others[lookup_key(name)]
        kinds = set(of.values())
        if "former symbol" in kinds:  # an alias of another gene is the weaker claim
            of = {symbol: kind for symbol, kind in of.items() if kind == "former symbol"}
        symbols, kind = list(of), next(iter(of.values()))
        kind = _kind_of_id(lookup_key(name)) if kind == "id" else kind
        found.why = _joined(note, f"{kind} of {' and of '.join(symbols)}")
        found.also.append(name)
        if len(symbols) > 1:
            found.what = SEVERAL
            return
        found.what, found.symbol = kind, symbols[0]
        if kind.endswith(" id"):
            found.gene_id = clean_id(strip_version(name))

    def _now(self, found: Traced) -> None:
        """Replace a symbol that the table knows as a former one alone."""
        key = lookup_key(found.symbol)
        of = {} if key in self.table.symbols else self.table.others.get(key, {})
        now = [symbol for symbol, kind in of.items() if kind == "former symbol"]
        now = now or list(of)
        if not now:
            return
        kind = of[now[0]]
        found.why = _joined(found.why, f"{found.symbol} is a {kind} of {' and of '.join(now)}")
        found.why = found.why.replace("is a alias", "is an alias")
        found.also.append(found.symbol)
        if found.what == "symbol":
            found.what = kind
        if len(now) == 1:
            found.symbol = now[0]
        else:
            found.what, found.symbol = SEVERAL, ""

    def _measured(self, found: Traced) -> None:
        """Say which features of the study measure it."""
        others = self._others.get(lookup_key(found.symbol), []) if found.symbol else []
        names = [found.id, found.symbol, *found.also, found.gene_id, *others]
        for name in filter(None, dict.fromkeys(names)):
            if labels := self._study_labels(name):
                more = f" and {len(labels) - _N_FEATURES} more" * (len(labels) > _N_FEATURES)
                found.features = ", ".join(labels[:_N_FEATURES]) + more
                return
        if found.what not in (UNKNOWN, SEVERAL):
            found.why = _joined(found.why, "not measured by the study")

    def _study_labels(self, name: str) -> list[str]:
        assert self.study is not None
        return [self.study.labels[place] for place in self.study.places(name)]

    def _study_label(self, name: str) -> str:
        return next(iter(self._study_labels(name)), "")

    def _near(self, name: str) -> str:
        """Return the names most like one that is not known: of those a letter or two away."""
        key = lookup_key(name.strip())
        if not has_name(name) or _kind_of_id(key) != "id":
            return ""
        if not self._alike:
            for known in dict.fromkeys(self._all()):
                for part in _deletions(lookup_key(known)):
                    self._alike.setdefault(part, []).append(known)
        found = {name for part in _deletions(key) for name in self._alike.get(part, ())}
        near = sorted(
            found, key=lambda one: (-SequenceMatcher(None, key, one.upper()).ratio(), one)
        )
        return f"did you mean {' or '.join(near[:NEAR])}?" if near else ""

    def _all(self) -> Iterator[str]:
        yield from self.symbols.values()
        yield from (key for key, of in self.table.others.items() if "id" not in of.values())
        for annotation in self.annotations.values():
            yield from annotation.symbol
        if self.study is not None:
            yield from self.study.labels


def read_known(
    annotations: Iterable[str], aliases: str = "", study: GeneNames | None = None
) -> Names:
    """Return the names of annotation tables, of a table of aliases, and of a study.

    Raises
    ------
    SourceError
        When a file is not such a table.
    """
    tables = {Path(path).name: read_annotation_table(path) for path in dict.fromkeys(annotations)}
    return Names(tables, read_names(aliases) if aliases else None, study)


def trace_list(path: str | Path, known: Names) -> tuple[pd.DataFrame, str]:
    """Return what each id of a file is and became, a row each in its order; and a line that counts.

    Of a file with several columns the one of which most is known is read.

    Raises
    ------
    SourceError
        When the file is missing or names nothing.
    """
    columns, _ = read_columns(path)
    if not any(columns):
        raise SourceError(f"{Path(path).name}: expected at least one id, got none.")
    place, names = 0, columns[0]
    if len(columns) > 1:
        counts = [sum(map(known.knows, column)) for column in columns]
        place = counts.index(max(counts))
        names = columns[place]
    traced = [known.trace(name) for name in names]
    fields = ["id", "what", "symbol", "gene_id", "features", "why"]
    if known.study is None:
        fields.remove("features")
    frame = pd.DataFrame({name: [getattr(one, name) for one in traced] for name in fields})
    return frame, _counted(Path(path).name, frame, place if len(columns) > 1 else None)


def _counted(name: str, frame: pd.DataFrame, column: int | None) -> str:
    """Return how many ids are what, in words."""
    counts = Counter(frame["what"])
    parts = [f"{what} {n}" for what, n in counts.most_common()]
    where = f", column {column + 1}" if column is not None else ""
    line = f"{name}{where}, {len(frame)} ids: {', '.join(parts)}."
    if "features" in frame:
        line += f" The study measures {int((frame['features'] != '').sum())} of them."
    return line


def _kind_of_id(key: str) -> str:
    """Return what an id looks like."""
    return "Entrez id" if key.isdecimal() else "Ensembl id" if key.startswith("ENS") else "id"


def _kind_of_label(label: str, gene_id: str) -> str:
    """Return what a row of an annotation table is called by."""
    kind = _kind_of_id(lookup_key(label))
    is_gene = lookup_key(label) == lookup_key(gene_id) or gene_id.upper().startswith("ENS")
    return kind if kind == "Ensembl id" or (kind == "Entrez id" and is_gene) else "probe"


def _deletions(key: str) -> set[str]:
    """Return a name, and it without each of its letters: names that share one are alike."""
    return {key, *(key[:place] + key[place + 1 :] for place in range(len(key)))}


def _tidied(name: str) -> str:
    """Return what was left out of an id before it was looked up."""
    if name[:3].upper() == "ENS" and (bare := strip_version(name.upper())) != name.upper():
        return f"{bare} without its version"
    if name[:1].isdigit() and (whole := clean_id(name)) != name:
        if not whole:
            return "a number that lost digits of an id, as Excel shows it"
        return f"{whole}, which a table of numbers made {name}"
    return ""


def _joined(*parts: str) -> str:
    return "; ".join(filter(None, parts))
