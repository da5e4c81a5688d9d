"""Readers of gene sets: GMT, and the Gene Ontology as OBO with a GAF of annotations.

Returns named sets of genes as the files name them; matching them to a study is a stage's work.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dglzarr.errors import SourceError
from dglzarr.sources.text import TextStream

Namespace = Literal["molecular_function", "biological_process", "cellular_component"]
PROPAGATED = ("is_a", "part_of")
"""Relations over which an annotation holds for the parent too, as in GO's annotation packages."""


@dataclass(frozen=True)
class Terms:
    """Named sets of genes.

    Attributes
    ----------
    ids, names, genes
        Identifier, words and genes of each term.
    notes
        What was left out, and how often.
    """

    ids: list[str]
    names: list[str]
    genes: list[frozenset[str]]
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Stanza:
    """One `[Term]` of an OBO file."""

    id: str = ""
    name: str = ""
    namespace: str = ""
    is_obsolete: bool = False
    parents: list[str] = field(default_factory=list)
    other_ids: list[str] = field(default_factory=list)


def read_gmt(path: str | Path) -> Terms:
    """Return the gene sets of a GMT file: a line has a term, a description and its genes.

    The description is the term's name, unless it is empty, `na` or an address.

    Raises
    ------
    SourceError
        If the file is missing or no text, a line has no gene, or a term comes twice.
    """
    line_of: dict[str, int] = {}
    names, genes = [], []
    with TextStream(Path(path)) as stream:
        for line, text in _lines(stream):
            term, *rest = (cell.strip() for cell in text.split("\t"))
            members = frozenset(filter(None, rest[1:]))
            if not members:
                raise stream.error(
                    "expected a term, a description and genes, tab-separated, got no genes for "
                    f"{term[:60]!r}. Remove the line.",
                    line=line,
                )
            if term in line_of:
                raise stream.error(
                    f"expected each term once, got {term!r} of line {line_of[term]} again. "
                    "Rename or remove one.",
                    line=line,
                )
            line_of[term] = line
            names.append(_readable(term, rest[0]))
            genes.append(members)
    return Terms(list(line_of), names, genes)


def read_ontology(
    ontology: str | Path,
    associations: str | Path,
    *,
    namespace: Namespace = "molecular_function",
) -> Terms:
    """Return the annotated terms of one namespace of the Gene Ontology, with all their genes.

    A gene of a term is a gene of its ancestors over `is_a` and `part_of`. Annotations with NOT do
    not count; those to an alternative id count for the term; those to obsolete or unknown terms
    are left out and counted in the notes. Genes are the symbols of the GAF.

    Parameters
    ----------
    ontology
        OBO file.
    associations
        GAF 2.x file.
    namespace
        Whose terms are returned.

    Raises
    ------
    SourceError
        If a file is missing or not of its format, or no annotation names a term of the ontology.
    """
    stanzas = {stanza.id: stanza for stanza in _read_obo(Path(ontology))}
    current = {id_: stanza for id_, stanza in stanzas.items() if not stanza.is_obsolete}
    term_of = {other: id_ for id_, s in current.items() for other in s.other_ids} | {
        id_: id_ for id_ in current
    }
    genes_of: dict[str, set[str]] = {}
    notes: Counter[str] = Counter()
    ancestors: dict[str, frozenset[str]] = {}
    for gene, found, is_negated in _read_gaf(Path(associations)):
        if is_negated:
            notes["annotations with NOT"] += 1
        elif found not in term_of:
            kind = "obsolete" if found in stanzas else "unknown"
            notes[f"annotations to {kind} terms"] += 1
        else:
            for term in _with_ancestors(term_of[found], current, ancestors):
                genes_of.setdefault(term, set()).add(gene)
    if not genes_of:
        raise SourceError(
            f"{Path(associations).name}: expected annotations to terms of {Path(ontology).name}, "
            "got none. Give files of the same ontology."
        )
    chosen = sorted(term for term in genes_of if current[term].namespace == namespace)
    if not chosen:
        raise SourceError(
            f"{Path(ontology).name}: expected annotated terms of namespace {namespace!r}, got none."
        )
    return Terms(
        chosen, [current[t].name for t in chosen], [frozenset(genes_of[t]) for t in chosen], notes
    )


def _lines(stream: TextStream) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines that are not blank."""
    while (text := stream.readline()) is not None:
        if text.strip():
            yield stream.line - 1, text


def _readable(term: str, description: str) -> str:
    """Return a term in words."""
    if description and description.lower() != "na" and "://" not in description:
        return description
    words = term.removeprefix("GO_").removeprefix("GOMF_").replace("_", " ")
    return words.lower() if words.isupper() else words


def _read_obo(path: Path) -> Iterator[_Stanza]:
    """Yield the `[Term]` stanzas of an OBO file."""
    stanza: _Stanza | None = None
    n_terms = 0
    with TextStream(path) as stream:
        for line, text in _lines(stream):
            if text.startswith("["):
                if stanza is not None:
                    yield stanza
                stanza = _Stanza() if text.strip() == "[Term]" else None
                n_terms += stanza is not None
            elif stanza is not None:
                tag, colon, value = text.partition(":")
                if not colon:
                    raise stream.error(
                        f"expected 'tag: value', got {text[:60]!r}. Give an OBO file.", line=line
                    )
                _add(stanza, tag.strip(), value.partition(" ! ")[0].strip())
        if stanza is not None:
            yield stanza
        if not n_terms:
            raise SourceError(f"{path.name}: expected an OBO file with [Term] stanzas, got none.")


def _add(stanza: _Stanza, tag: str, value: str) -> None:
    """Take one line of a stanza into account."""
    relation, _, parent = value.partition(" ")
    if tag in ("id", "name", "namespace"):
        setattr(stanza, tag, value)
    elif tag == "is_obsolete":
        stanza.is_obsolete = value == "true"
    elif tag == "alt_id":
        stanza.other_ids.append(value)
    elif tag == "is_a":
        stanza.parents.append(relation)
    elif tag == "relationship" and relation in PROPAGATED:
        stanza.parents.extend(parent.split()[:1])


def _read_gaf(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield (symbol, term, whether it is negated) of the annotations of a GAF file."""
    n_rows = 0
    with TextStream(path) as stream:
        for line, text in _lines(stream):
            if text.startswith("!"):
                continue
            cells = text.split("\t")
            if len(cells) < 15 or not cells[2].strip():
                raise stream.error(
                    f"expected the 15 or 17 columns of a GAF, a symbol in the third, got "
                    f"{len(cells)} columns. Give a GAF 2.x file.",
                    line=line,
                )
            n_rows += 1
            yield cells[2].strip(), cells[4].strip(), "NOT" in cells[3].upper().split("|")
        if not n_rows:
            raise SourceError(f"{path.name}: expected a GAF with annotations, got none.")


def _with_ancestors(
    term: str, stanzas: Mapping[str, _Stanza], known: dict[str, frozenset[str]]
) -> Iterable[str]:
    """Return a term and all its ancestors; those found are kept in `known`."""
    if term not in known:
        found: set[str] = set()
        todo: Sequence[str] = [term]
        while todo:
            found.update(todo)
            above = {p for t in todo for p in stanzas[t].parents if p in stanzas}
            todo = [t for t in above if t not in found]
        known[term] = frozenset(found)
    return known[term]
