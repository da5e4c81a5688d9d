"""What the columns and rows of a table hold, told by their names: one list for all readers.

Whatever parses as a number is not yet expression: p-values, gene lengths, positions, Entrez ids
and counters of reads are told by these names, left out and counted. Reads no file.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from dglzarr.errors import SourceError
from dglzarr.sources.base import LeftOut, first_repeat
from dglzarr.sources.identifiers import GENE_ID_COLUMNS, SYMBOL_COLUMNS, find_column, plain


def _by_name(listed: Mapping[str, str]) -> dict[str, str]:
    """Return the reason of each name from the names of each reason."""
    return {name: reason for reason, names in listed.items() for name in names.split()}


RESERVED_COLUMNS = _by_name(
    {
        "p-values and detection calls": """
            pvalue pval pvalues fdr qvalue qval padj adjpval adjpvalue abscall detection""",
        "statistics of beads": """
            narrays nbeads avgnbeads arraystdev arraystderr beadstdev beadstderr""",
        "lengths of genes": """
            length len genelength transcriptlength exonlength efflength effectivelength width
            bplength lengthbp lengthkb genelengthbp genelengthkb transcriptlengthbp meanlength
            medianlength transcriptlengthincludingutrsandcds
            genesize exonsize totalexonlength mergedexonlength""",
        "positions on the genome": """
            chr chrom chromosome chromosomename chromosomescaffoldname seqname seqnames start end
            stop genestart geneend genestartbp geneendbp startposition endposition txstart txend
            cdsstart cdsend transcriptionstartsitetss tss strand band cytoband karyotypeband
            maplocation chromosomelocation genomiclocation position locus coordinates reference
            rangestart rangeend rangestrand rangegb startbp endbp chromstart chromend chrstart
            chrend pos""",
        "results of a test": """
            logfc log2fc log2foldchange foldchange basemean lfcse stat aveexpr logcpm""",
        "numbers of rows": "unnamed0 index rank sno slno srno",
        "other identifiers": """
            transcriptid transcriptids transcript accession accnum gbacc genbank genbankaccession
            gblist gi refseq refseqid refseqtranscriptid refseqmrna unigene unigeneid uniprot
            uniprotid swissprot hgncid probeid idref probesetid probe probeset reporterid spotid
            ilmnid ilmngene arrayaddressid orf clone cloneid tssid nearestrefid""",
        "annotation": """
            biotype genebiotype genetype transcripttype transcriptbiotype description
            genedescription genetitle genetitles definition species organism speciesscientificname
            source category class classcode gccontent gc percentagegccontent genegccontent
            targetdescription sequencetype sequence representativepublicid genechiparray
            annotationdate sequencesource mrnaassignment geneassignment ontologycomponent
            ontologyprocess ontologyfunction genefamily""",
        "identifiers of genes": " ".join((*GENE_ID_COLUMNS, *SYMBOL_COLUMNS)),
    }
)
"""Why a column of this name is no sample; in lower case, letters and digits only."""

RESERVED_ENDS = {
    "p-values and detection calls": r"detection|detection[ ._-]*(p|call|score)|fdr|abs[ ._-]*call|"
    r"(detection|det|adj)?[ ._-]*p[ ._-]*val(ue)?s?([ ._-]*\(.*\))?|p[ ._-]*adj|q[ ._-]*val(ue)?",
    "statistics of beads": r"(avg[ ._-]*)?n?beads|narrays|(array|bead)[ ._-]*std(ev|err)"
    r"|(min|max)[ ._-]*signal",
    "results of a test": r"log2?[ ._-]*(fc|fold[ ._-]*change)|.*[ ._(-](?-i:vs|Vs|versus)[ ._-].*",
    "methylation": r"avg[ ._-]*beta|(un)?methylated[ ._-]*signal",
}
"""Why a column of a sample whose name ends so is not its expression."""

_ROWS = {
    "sums over genes": r"(?i:(?:grand|overall)?[ ._-]*(?:totals?|sums?))",
    "summaries of genes": r"(?i:(?:grand[ ._-]*)?mean|average|median|st\.?dev\.?)|SD|S\.D\.",
    "counters of reads": r"__\w+|N_(?:unmapped|multimapping|noFeature|ambiguous)|unmapped|\*"
    r"|(?:Una|A)ssigned(?:_\w+)?|no_feature|ambiguous|too_low_aQual|(?:not_aligned|alignment_not_unique)",
}
"""Why a row of this id is no gene."""

_NO_GENE = re.compile("|".join(f"({ids})" for ids in _ROWS.values()))
_FACTS = frozenset(
    (
        *("age", "sex", "gender", "batch", "batchno", "time", "status", "class", "group", "label"),
        *("cluster", "condition", "response", "rin", "passage", "stage", "grade", "bmi", "pmi"),
        *("librarysize", "libsize", "totalcounts", "totalreads", "mappedreads", "ngenes", "tmb"),
        *("numgenes", "ncounts", "ngene", "numi", "ncountrna", "nfeaturerna", "percentmt"),
        *("percentmito", "pctmito", "os", "ostime", "osstatus", "osmonths", "pfs", "dfs"),
        *("survival", "survivaltime", "daystodeath", "vitalstatus", "ageatdiagnosis"),
        *("day", "days", "week", "hour", "hours", "timepoint", "dose", "concentration", "lane"),
        *("treatment", "replicate", "donor", "patient", "subject", "plate", "weight", "height"),
        *("sizefactor", "sizefactors", "normfactor", "normfactors", "genesdetected"),
        *("depth", "readdepth", "sequencingdepth", "totalmappedreads", "uniquelymappedreads"),
    )
)
"""Names of what is known of samples, in lower case, letters and digits only."""

_UNIT = re.compile(
    r"[ ._]*[(\[ ._](%|[munp]?M|[umk]?g|mg/kg|h|hrs?|hours?|days?|weeks?|months?|yrs?|years?|min"
    r"|reads|counts)[)\]]?$",
    re.IGNORECASE,
)
_MEASURES = frozenset(
    (
        *("tpm", "fpkm", "rpkm", "cpm", "count", "counts", "rawcount", "expectedcount", "isopct"),
        *("estcounts", "numreads", "readcount", "reads", "coverage", "cov"),
        *("fpkmconflo", "fpkmconfhi", "fpkmstatus", "raw", "norm", "normalized", "normalised"),
        *("log", "vst", "rlog", "rma", "abundance", "length"),
    )
)
_HEADER_WORDS = frozenset(
    (
        *("id", "ids", "idref", "ref", "name", "names", "row", "rows", "rownames", "index", "x"),
        *("target", "locus", "hugo", "hgnc", "tracking", "accession", "reporter", "identifier"),
    )
)
_HEADER_STEMS = (
    *("gene", "probe", "symbol", "entrez"),
    *("ensembl", "feature", "transcript", "unnamed"),
)
ROW_NUMBERS = ("", "x", "unnamed0", "1", "v1", "row", "rows", "rowname", "rownames", "index")
"""First columns that may hold the numbers of rows: R's and pandas' names of them."""

_ID_COLUMNS = frozenset(
    (
        *GENE_ID_COLUMNS,
        *SYMBOL_COLUMNS,
        *("id", "ids", "name", "names", "feature", "featureid", "genes", "probes"),
    )
)
_SUMMARY = re.compile(
    r"mean|average|avg|median|min|max|minimum|maximum|sd|stdev|stddev|sem|cv|total|sum"
    r"|row[ ._-]?(mean|sum)s?"
    r"|(mean|average|avg|median)[ ._-]+(?!signal|intensity|raw|beta|eminence|raphe|nerve).+"
    r"|.+[ ._-](mean|average|avg|median)",
    re.IGNORECASE,
)
_OF_SAMPLES = "summaries of samples"
_MEAN_OF = re.compile(
    r"(.+?)[ ._-]*(mean|average|avg|median|signal|expression|expr|value)", re.IGNORECASE
)
_SPREAD_OF = re.compile(
    r"(.+?)[ ._-]+(sd|std|stdev|std[ ._-]?dev|stderr|std[ ._-]?err|sem?|cv|var|variance)",
    re.IGNORECASE,
)
_PARTS = (
    re.compile(r"(.+?)[ ._:(-]+([A-Za-z]+)2?\)?"),
    re.compile(r"([A-Za-z]+)2?[ ._:(-]+(.+?)\)?"),
)
"""A sample's name with a measure behind it, and one with a measure before it."""

_DIGITS = re.compile(r"\d+")
_FRACTION = re.compile(r"[+-]?\d*\.\d*[1-9]\d*([eE][+-]?\d+)?")
_INTEGER = re.compile(r"[+-]?\d+")
_DECIMAL = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
_END = {
    reason: re.compile(rf"(.*[ ._-])?({ends})([ ._-]*\d+)?", re.IGNORECASE)
    for reason, ends in RESERVED_ENDS.items()
}
_REMEDY = "Where the columns are samples as they are, state value_columns = ['*']."


class Columns(NamedTuple):
    """Which columns of a table hold what: places of gene symbols and samples, what is left out."""

    symbols: int | None
    samples: tuple[int, ...]
    left_out: tuple[LeftOut, ...]


def sort_columns(
    name: str, columns: Sequence[str], chosen: Sequence[str] = (), *, n_lead: int = 1
) -> Columns:
    """Return what the columns of a table hold, by their names.

    Parameters
    ----------
    name
        File, and line of the header, that an error names.
    columns
        The header; its first ``n_lead`` names are those of ids and annotation.
    chosen
        Patterns of the columns that are samples, whatever their names say.

    Raises
    ------
    SourceError
        If a pattern fits no column.

    Examples
    --------
    >>> sort_columns("a.txt, line 1", ["ID", "S1", "S1 Detection Pval", "Symbol"]).samples
    (1,)
    """
    symbols = find_symbols(columns)
    places = [place for place in range(n_lead, len(columns)) if place != symbols]
    if chosen:
        for pattern in chosen:
            if not any(fnmatchcase(columns[place], pattern) for place in places):
                shown = ", ".join(repr(columns[place]) for place in places[:5])
                raise SourceError(
                    f"{name}: expected columns like {pattern!r} as value_columns say, got {shown}. "
                    "Correct the pattern."
                )
        reasons = {p: "not among value_columns" for p in places if not _is_any(columns[p], chosen)}
    else:
        reasons = {p: why for p in places if (why := reserved_column(columns[p]))}
        spreads = _spreads(columns, [p for p in places if p not in reasons])
        reasons |= dict.fromkeys(spreads, "spreads of samples")
        summaries = [p for p in places if p not in reasons and _SUMMARY.fullmatch(columns[p])]
        if len(reasons) + len(summaries) < len(places):  # or they are all that there is
            reasons |= dict.fromkeys(summaries, _OF_SAMPLES)
    left_out = LeftOut.group("columns", ((why, columns[place]) for place, why in reasons.items()))
    return Columns(symbols, tuple(place for place in places if place not in reasons), left_out)


def _spreads(columns: Sequence[str], places: Sequence[int]) -> list[int]:
    """Return which columns tell the spread of a sample whose mean is another column.

    Examples
    --------
    >>> _spreads(["id", "S1_mean", "S1_sd", "a_sd"], [1, 2, 3])
    [2]
    """
    names = {columns[place] for place in places}
    means = {found[1] for name in names if (found := _MEAN_OF.fullmatch(name))}
    of = ((place, _SPREAD_OF.fullmatch(columns[place])) for place in places)
    return [
        place
        for place, found in of
        if found and (found[1] in means or (found[1] in names and found[2][:1] in "sS"))
    ]


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def find_ids(columns: Sequence[str]) -> int | None:
    """Return where ids of genes may stand if the first column counts rows, None without.

    Examples
    --------
    >>> find_ids(["", "gene_id", "S1"]), find_ids(["", "S1"]), find_ids(["gene", "symbol", "S1"])
    (1, None, None)
    """
    others = ("identifiers of genes", "other identifiers")
    names = (plain(name) for name in columns)
    found = (
        p for p, n in enumerate(names) if n in _ID_COLUMNS or RESERVED_COLUMNS.get(n) in others
    )
    return next(found, None) or None


def counts_rows(column: str, ids: Sequence[str], *, has_ids: bool = False) -> bool:
    """Return whether a first column, by its name and cells, holds the numbers of rows.

    Where another column ``has_ids`` these may have any name; and, under a name of row numbers, be
    of rows that were chosen or sorted: each once, the largest below ten times their number.

    Examples
    --------
    >>> counts_rows("", ["1", "2"]), counts_rows("Unnamed: 0", ["0"]), counts_rows("", ["2", "1"])
    (True, True, False)
    >>> counts_rows("", ["5", "2"], has_ids=True), counts_rows("", ["7157", "780"], has_ids=True)
    (True, False)
    """
    is_named = plain(column) in ROW_NUMBERS
    if not ids or not (is_named or has_ids):
        return False
    if is_named and has_ids and all(map(_INTEGER.fullmatch, ids)):
        numbers = {int(cell) for cell in ids}
        return len(numbers) == len(ids) and min(numbers) >= 0 and max(numbers) < 10 * len(ids)
    if ids[0] not in ("0", "1"):
        return False
    first = int(ids[0])
    return all(cell == str(row) for row, cell in enumerate(ids, start=first))


def is_alone(columns: Sequence[str]) -> bool:
    """Return whether the first name is unlike all others, numbers in them aside.

    Examples
    --------
    >>> is_alone(["S1", "S2"]), is_alone(["gene", "S1", "S2"])
    (False, True)
    """
    stem, *others = (_DIGITS.sub("#", column) for column in columns)
    return stem not in others


def find_symbols(columns: Sequence[str]) -> int | None:
    """Return the place of the column of gene symbols behind the first one, or None.

    Examples
    --------
    >>> find_symbols(["gene_id", "gene_name", "S1"]), find_symbols(["Gene Symbol", "S1"])
    (1, None)
    """
    names = [plain(column) for column in columns]
    if names[:2] == ["name", "description"]:
        return 1
    return find_column(names, SYMBOL_COLUMNS, skip=0)


def reserved_column(name: str) -> str:
    """Return why a column of this name is no sample, "" where it may be one.

    Examples
    --------
    >>> reserved_column("GSM1.Detection Pval"), reserved_column("Entrez_Gene_Id")
    ('p-values and detection calls', 'identifiers of genes')
    >>> reserved_column("GSM1.AVG_Signal")
    ''
    """
    found = RESERVED_COLUMNS.get(plain(name), "")
    return found or next((why for why, end in _END.items() if end.fullmatch(name)), "")


def reserved_row(name: str) -> str:
    """Return why a row of this id is no gene, "" where it may be one.

    Examples
    --------
    >>> reserved_row("__no_feature"), reserved_row("Library_Size"), reserved_row("TP53")
    ('counters of reads', 'facts about samples', '')
    """
    if found := _NO_GENE.fullmatch(name):
        return next(why for why, part in zip(_ROWS, found.groups(), strict=True) if part)
    return "facts about samples" if plain(_UNIT.sub("", name)) in _FACTS else ""


def check_header(name: str, columns: Sequence[str], samples: Sequence[str]) -> None:
    """Refuse a first row of values, and a header that is one sample's results.

    Parameters
    ----------
    name
        File, and line of the header, that an error names.
    columns, samples
        The header, and those of its names that are samples.

    Raises
    ------
    SourceError
        Saying which.
    """
    is_data = samples and columns[0] and not is_header(columns[0])
    if any(map(_DECIMAL.fullmatch, samples)) or (is_data and all(map(_is_value, samples))):
        if len(columns) == 2:
            raise SourceError(
                f"{name}: expected a header of sample ids, got the values of one sample, as "
                "htseq-count writes them. Join those of all samples into a table of genes, under a "
                "header."
            )
        raise SourceError(
            f"{name}: expected a header of sample ids, got numbers. Add a header. {_REMEDY}"
        )
    if len(samples) > 1 and all(plain(sample) in _MEASURES for sample in samples):
        raise SourceError(
            f"{name}: expected one column a sample, got {', '.join(map(repr, samples[:5]))} of one "
            f"sample. Join one of them of all samples into a table of genes. {_REMEDY}"
        )
    _refuse_measures(name, samples)


def names_cells(names: Sequence[str], cells: Sequence[str]) -> bool:
    """Return whether a line of comment is the header of the row below it.

    Examples
    --------
    >>> names_cells(["gene", "S1"], ["TP53", "7.5"]), names_cells(["by", "me"], ["gene", "S1"])
    (True, False)
    """
    is_number = re.compile(f"{_INTEGER.pattern}|{_DECIMAL.pattern}").fullmatch
    has_numbers = [any(map(is_number, row[1:])) for row in (names, cells)]
    return len(names) == len(cells) and has_numbers == [False, True] and not is_header(cells[0])


def check_first_column(name: str, columns: Sequence[str], ids: Sequence[str]) -> None:
    """Refuse a table without a column of ids, whose first sample would be taken for them.

    Its first column holds numbers, and they have fractions, or it is called as the others are.

    Parameters
    ----------
    name
        File, and line, that an error names.
    columns
        The header.
    ids
        Some of the cells of the first column.

    Raises
    ------
    SourceError
        Naming the first of them.
    """
    n_fractions = sum(_FRACTION.fullmatch(cell) is not None for cell in ids)
    are_numbers = n_fractions > 0 or all(map(_INTEGER.fullmatch, ids))
    stem, *others = (_DIGITS.sub("#", column) for column in columns)
    is_like = "#" in stem and plain(stem) not in ("v", "x", "column") and {*others} == {stem}
    if 2 * n_fractions > len(ids) or (ids and are_numbers and is_like):
        raise SourceError(
            f"{name}: expected ids of genes in the first column, got numbers such as {ids[0]!r} "
            f"under {columns[0]!r}. Write the names of the rows too. {_REMEDY}"
        )


def _refuse_measures(name: str, samples: Sequence[str]) -> None:
    """Refuse several measures of each sample, such as S1_count and S1_TPM, or S1 and log2_S1."""
    names = set(samples)
    for stem, measure in ((1, 2), (2, 1)):
        found: dict[str, list[str]] = {}
        for sample in samples:
            parts = _PARTS[stem - 1].fullmatch(sample)
            if parts and (word := plain(parts[measure])) in _MEASURES:
                is_bare = parts[stem] in names and word != "norm"  # or it is of normal tissue
                found.setdefault(parts[stem], [parts[stem]] * is_bare).append(sample)
        several = [those for those in found.values() if len(those) > 1]
        if several and 2 * sum(map(len, several)) > len(samples):
            shown, last = ", ".join(map(repr, several[0])), several[0][-1]
            parts = _PARTS[stem - 1].fullmatch(last)
            assert parts is not None
            start, end = parts.span(stem)
            pattern = f"{last[:start]}*{last[end:]}"
            raise SourceError(
                f"{name}: expected one column a sample, got {shown} of one. Choose one of them, as "
                f"in value_columns = [{pattern!r}]."
            )


def check_unique(path: Path, kind: str, ids: Sequence[str]) -> None:
    """Refuse an empty table, empty ids and repeated ids.

    Raises
    ------
    SourceError
        Naming the first.
    """
    if not ids:
        raise SourceError(f"{path.name}: expected at least one {kind}, got none.")
    for name in ids if kind == "gene" else ():
        if why := reserved_row(name):
            raise SourceError(
                f"{path.name}: expected a gene, got {name!r}, one of the {why}. Take it out of the "
                "file."
            )
    if "" in ids:
        raise SourceError(f"{path.name}: expected a {kind} id, got ''.")
    if (repeated := first_repeat(ids)) is not None:
        raise SourceError(f"{path.name}: expected each {kind} once, got {repeated!r} again.")


def is_header(cell: str) -> bool:
    """Return whether a cell says what a column of ids holds."""
    words = re.split(r"[^a-z0-9]+", cell.lower())
    named = [word for word in words if word in _HEADER_WORDS or word.startswith(_HEADER_STEMS)]
    return bool(named) and (words[0] == "unnamed" or all(word.isalpha() for word in named))


def _is_value(cell: str) -> bool:
    return _INTEGER.fullmatch(cell) is not None or cell in ("NA", "NaN", "nan", "null", "NULL")
