"""Small files of every format that is read, and what happens to files on their way to a reader.

Owns the bytes: a file is drawn, then mutated, by a seeded `random.Random`. Knows no reader.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

Mutation = "Callable[[Random, bytes], bytes]"
WIDE = 130
"""Sample columns that are parsed as one long column."""

ODD_CELLS = [
    *("", " ", '"', '""', "'", "NA", "null", "NaN", "nan", "-", "--", "---", ".", "+", "#N/A", "#"),
    *("inf", "-Inf", "Infinity", "1e400", "-1e39", "3.5e38", "1e-400", "-0", "+7", "1.", ".5"),
    *("1,5", "1.234,5", "1_000", "0x1f", "1e5", "1E+2", "1d3", "1 2", " 3", "4 ", "5%", "$6"),
    *("TRUE", "False", "2021-01-01", "1-Mar", "n/a", "None", "GSM1", "GSM1.Detection Pval"),
    *("9" * 400, "9" * 5000, "0." + "1" * 400, "\u0661\u0662", "\uff11", "\u221212", "\u2013"),
    *("a\u2028b", "a\x85b", "a\x0bb", "a\x0cb", "a\x1cb", "\u00a0", "\ufeff", "\u202e", "\ud7ff"),
    *("x" * 200, "!", "^", "=", "!x = y", "../../x", "~x", "\\N", "a\tb", "a,b", "a;b", "\x00"),
    *("ENSG00000000003.14", "ENSG00000182378.8_PAR_Y", "__no_feature", "N_unmapped", "Symbol"),
    *(
        "1.#QNAN",
        "1.#INF",
        "-nan",
        "NAN",
        "1e",
        "e5",
        "--5",
        "+-5",
        "1.2.3",
        "18446744073709551616",
    ),
]
GENES = [
    *("TP53", "MYC", "KRAS", "EGFR", "ACTB", "DDR1 /// MIR4640", "SEPT2", "1-Mar", "---", ""),
    *("ENSG00000141510.11", "7157.0", "a gene with a title", "HLA-DRA", "C1orf112", "BRCA1"),
]


# ---------------------------------------------------------------- whole files


def sizes(rng: Random) -> tuple[list[str], list[str]]:
    """Return samples and genes of one file."""
    n_samples = WIDE if rng.random() < 0.05 else rng.randint(1, 5)
    n_genes = rng.randint(1, 4 if n_samples == WIDE else 9)
    samples = [f"GSM{i + 1}" for i in range(n_samples)]
    return samples, [f"{i + 1000}_at" for i in range(n_genes)]


def _numbers(rng: Random, n: int) -> list[str]:
    form = rng.choice(["%.5f", "%.7g", "%.3e", "%d", "%.17g"])
    top = rng.choice([14, 14, 14, 60000])
    numbers = [form % rng.uniform(2 if top == 14 else 0, top) for _ in range(n)]
    if rng.random() < 0.2:
        numbers[rng.randrange(n)] = rng.choice(["", "NA", "null", "NaN", "0", "-1.5"])
    return numbers


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def series_matrix(rng: Random) -> bytes:
    """Return a GEO series matrix."""
    samples, genes = sizes(rng)

    def row(name: str, cells: list[str]) -> str:
        return "\t".join([name, *(f'"{cell}"' for cell in cells)])

    return _lines(
        '!Series_title\t"A title, with commas"',
        '!Series_geo_accession\t"GSE1"',
        '!Series_platform_id\t"GPL96"',
        "",
        row("!Sample_title", [f"profile {s}" for s in samples]),
        row("!Sample_characteristics_ch1", [f"tissue: {rng.choice('ab')}" for _ in samples]),
        row("!Sample_platform_id", ["GPL96"] * len(samples)),
        "!series_matrix_table_begin",
        "\t".join(f'"{name}"' for name in ("ID_REF", *samples)),
        *("\t".join([f'"{gene}"', *_numbers(rng, len(samples))]) for gene in genes),
        "!series_matrix_table_end",
    )


def soft_family(rng: Random) -> bytes:
    """Return a GEO SOFT file of one or several samples."""
    samples, genes = sizes(rng)
    lines = ["^SERIES = GSE1", "!Series_geo_accession = GSE1", "^PLATFORM = GPL96"]
    lines += ["!platform_table_begin", "ID\tGene Symbol", *(f"{g}\tTP53" for g in genes)]
    lines += ["!platform_table_end"]
    lines = lines if rng.random() < 0.7 else []
    for sample in samples[:4]:
        lines += [f"^SAMPLE = {sample}", f"!Sample_title = profile {sample}"]
        lines += ["!Sample_platform_id = GPL96", "!Sample_characteristics_ch1 = tissue: a"]
        lines += ["#ID_REF = ", "#VALUE = log2 signal", "!sample_table_begin"]
        lines += ["ID_REF\tVALUE\tDETECTION P-VALUE"]
        numbers = _numbers(rng, len(genes))
        lines += [f"{gene}\t{number}\t0.01" for gene, number in zip(genes, numbers, strict=True)]
        lines += ["!sample_table_end"]
    return _lines(*lines)


def data_set(rng: Random) -> bytes:
    """Return a GEO data set (GDS)."""
    samples, genes = sizes(rng)
    tail = ["Gene title"] if rng.random() < 0.3 else []
    rows = [
        "\t".join([gene, rng.choice(GENES), *_numbers(rng, len(samples)), *tail]) for gene in genes
    ]
    return _lines(
        *("^DATABASE = Geo", "^DATASET = GDS1", "!dataset_platform = GPL96"),
        *("^SUBSET = GDS1_1", "!subset_dataset_id = GDS1", "!subset_description = tumour"),
        *(f"!subset_sample_id = {','.join(samples[:2])}", "!subset_type = disease state"),
        *("^DATASET = GDS1", "#ID_REF = id", "!dataset_table_begin"),
        "\t".join(["ID_REF", "IDENTIFIER", *samples, *tail]),
        *rows,
        "!dataset_table_end",
    )


def gct_1_2(rng: Random) -> bytes:
    """Return a GCT 1.2 file."""
    samples, genes = sizes(rng)
    rows = ["\t".join([g, rng.choice(GENES), *_numbers(rng, len(samples))]) for g in genes]
    head = ["#1.2", f"{len(genes)}\t{len(samples)}", "\t".join(["Name", "Description", *samples])]
    return _lines(*head, *rows)


def gct_1_3(rng: Random) -> bytes:
    """Return a GCT 1.3 file."""
    samples, genes = sizes(rng)
    n_row, n_column = rng.randint(0, 2), rng.randint(0, 2)
    lead = ["pr_gene_symbol", "is_lm"][:n_row]
    head = ["#1.3", "\t".join(map(str, (len(genes), len(samples), n_row, n_column)))]
    head += ["\t".join(["id", *lead, *samples])]
    for name in ("cell", "dose")[:n_column]:
        head += ["\t".join([name, *["na"] * n_row, *(rng.choice("ab") for _ in samples)])]
    rows = [
        "\t".join([g, *[rng.choice(GENES) for _ in lead], *_numbers(rng, len(samples))])
        for g in genes
    ]
    return _lines(*head, *rows)


def table(rng: Random) -> bytes:
    """Return an expression table, TSV or CSV."""
    samples, genes = sizes(rng)
    mark = rng.choice("\t\t,")
    is_named, is_quoted = rng.random() < 0.5, rng.random() < 0.3
    names = ["gene_id", *(["Symbol"] if is_named else []), *samples]
    if rng.random() < 0.15:
        names = names[1:]  # as R writes row names
    wrap = '"{}"'.format if is_quoted else str
    symbols = [name.replace(",", " ") for name in GENES]
    rows = [
        mark.join(
            [
                wrap(gene),
                *([wrap(rng.choice(symbols))] if is_named else []),
                *_numbers(rng, len(samples)),
            ]
        )
        for gene in genes
    ]
    return _lines(*["# a comment"] * rng.randint(0, 1), mark.join(map(wrap, names)), *rows)


def turned_table(rng: Random) -> bytes:
    """Return a table with samples in rows, as DepMap has them."""
    samples, _ = sizes(rng)
    mark = rng.choice("\t,")
    genes = [f"{rng.choice(['GENE', 'ORF'])}{i} ({1000 + i})" for i in range(rng.choice([3, 24]))]
    rows = [mark.join([s, rng.choice("ab"), *_numbers(rng, len(genes))]) for s in samples[:5]]
    return _lines(mark.join(["ModelID", "tissue", *genes]), *rows)


def compendium(rng: Random) -> bytes:
    """Return a table as recount3, refine.bio and Xena write them: numbers alone behind the ids."""
    samples, _ = sizes(rng)
    genes = [f"ENSG{i:011}{rng.choice(['', '.3'])}" for i in range(rng.randint(1, 6))]
    lead = rng.choice([[], [], ["##annotation=G026", "##date.generated=2020-09-22"]])
    corner = rng.choice(["gene_id", "Gene", "sample"])
    rows = ["\t".join([gene, *_numbers(rng, len(samples))]) for gene in genes]
    return _lines(*lead, "\t".join([corner, *samples]), *rows)


def gene_values(rng: Random) -> bytes:
    """Return a list of genes and a value of each."""
    mark = rng.choice("\t,")
    head = rng.choice([[], [f"gene{mark}cost"], ["# a comment"]])
    rows = [f"{i + 1000}_at{mark}{rng.choice(['1', '2.5', 'yes', 'no'])}" for i in range(5)]
    return _lines(*head, *rows)


def gene_names(rng: Random) -> bytes:
    """Return a table of symbols and other names, HGNC's or NCBI's."""
    is_hgnc = rng.random() < 0.5
    head = ["hgnc_id", "symbol", "alias_symbol", "prev_symbol", "entrez_id", "ensembl_gene_id"]
    head = head if is_hgnc else ["#tax_id", "GeneID", "Symbol", "Synonyms", "dbXrefs"]
    rows = []
    for i in range(rng.randint(1, 6)):
        symbol = rng.choice(["TP53", "MYC", "KRAS", f"GENE{i}"])
        others = rng.choice(["", f"A{i}", f"A{i}|B{i}", '"C1|C2"', "-", "MYC|p53"])
        if is_hgnc:
            rows.append([f"HGNC:{i}", symbol, others, f"OLD{i}", str(7000 + i), f"ENSG{i:011}"])
        else:
            rows.append(["9606", str(i), symbol, others, f"HGNC:HGNC:{i}|Ensembl:ENSG{i:011}"])
    return _lines(*("\t".join(row) for row in [head, *rows]))


def sample_sheet(rng: Random) -> bytes:
    """Return a table of samples GSM1 to GSM4."""
    mark = rng.choice("\t,;")
    names = ["n", "sample", "series_id", "tissue", "note"]
    notes = ["", "fine", '"a ""quoted"" word"', f'"with{mark}mark"', '"two\nlines"', '5" arm']
    rows = [
        [str(i), f"GSM{i}", f"GSE{i % 2}", rng.choice(("a", "b", "")), rng.choice(notes)]
        for i in range(1, 7)
    ]
    rng.shuffle(rows)
    return _lines(*(mark.join(row) for row in [names, *rows]))


def annotation(rng: Random) -> bytes:
    """Return a table of probes and symbols, or a GEO platform file."""
    mark = rng.choice("\t\t,")
    header = rng.choice(
        [["ID", "Gene Symbol", "ENTREZ_GENE_ID"], ["probe", "gene"], ["ID", "x", "Entrez ID"]]
    )
    symbols = [name.replace(",", " ") for name in GENES]
    rows = [
        [f"{i}_at", *(rng.choice([*symbols, str(i), f"{i}.0", '"q"']) for _ in header[1:])]
        for i in range(rng.randint(1, 9))
    ]
    lines = [mark.join(row) for row in [header, *rows]]
    if rng.random() < 0.3:
        lines = ["^PLATFORM = GPL1", "!Platform_title = x", "#ID = probe", "!platform_table_begin"]
        lines += ["\t".join(row) for row in [header, *rows]] + ["!platform_table_end", "!x = y"]
    elif rng.random() < 0.3:
        header = ["ID", "gene_assignment"]
        rows = [[f"{i}_at", "NM_1 // TP53 // tumor protein // 17p13 // 7157"] for i in range(4)]
        lines = ["\t".join(row) for row in [header, *rows]]
    return _lines(*lines)


def gene_list(rng: Random) -> bytes:
    """Return a list of probes."""
    head = rng.choice([[], ["probe"], ["x"], ["# a comment"]])
    return _lines(*head, *(f"{i + 1000}_at" for i in range(rng.randint(1, 9))))


def panel(rng: Random) -> bytes:
    """Return a published panel."""
    mark = rng.choice("\t,")
    head = rng.choice([[], [["Gene Symbol", "Entrez ID"]], [["", "x"]]])
    rows = [[rng.choice(GENES), str(rng.randint(1, 9999))] for _ in range(rng.randint(1, 9))]
    return _lines(*(mark.join(row) for row in [*head, ["1000_at", "1"], *rows]))


def gene_sets(rng: Random) -> bytes:
    """Return a GMT file."""
    return _lines(
        *(
            "\t".join([f"GO_SET_{i}", rng.choice(["na", "", "https://x", "words"]), *rng.sample(
                ["TP53", "MYC", "KRAS", "EGFR", "ACTB"], rng.randint(1, 5))])
            for i in range(rng.randint(1, 6))
        )
    )  # fmt: skip


def ontology(rng: Random) -> bytes:
    """Return an OBO file of terms GO:1 to GO:6."""
    lines = ["format-version: 1.2", "ontology: go", ""]
    for i in range(1, 7):
        lines += ["[Term]", f"id: GO:{i}", f"name: term {i}", "namespace: molecular_function"]
        lines += [f"is_a: GO:{rng.randint(1, 6)} ! a parent"] * rng.randint(0, 1)
        lines += [f"relationship: part_of GO:{rng.randint(1, 6)} ! x"] * rng.randint(0, 1)
        lines += [f"alt_id: GO:{i + 10}"] * rng.randint(0, 1)
        lines += ["is_obsolete: true"] * (rng.random() < 0.1)
        lines += [""]
    return _lines(*lines, "[Typedef]", "id: part_of", "name: part of")


def associations(rng: Random) -> bytes:
    """Return a GAF file that annotates genes with GO:1 to GO:6."""
    lines = ["!gaf-version: 2.2"]
    for _ in range(rng.randint(1, 8)):
        cells = ["UniProtKB", "P1", rng.choice(["TP53", "MYC"]), rng.choice(["", "NOT|enables"])]
        cells += [f"GO:{rng.randint(1, 18)}", *[rng.choice(["", "x", "F"]) for _ in range(12)]]
        lines.append("\t".join(cells))
    return _lines(*lines)


def settings(rng: Random) -> bytes:
    """Return a settings file."""
    lines = ['root = "study"', f"seed = {rng.randint(0, 9)}", 'title = "a study"']
    sections = {
        "ingest": ['split_by = "sample"', "shard_samples = 32", 'feature_kind = "probe"'],
        "normalize": ['ties = "midrank"'],
        "dedup": ["n_clusters = 4", "threshold = 1.5"],
        "train": ["hidden = 208", "epochs = 2", "learning_rate = 1e-3"],
        "select": ["n_landmarks = 5", 'selector = "greedy"', 'forced = ["TP53"]'],
        "evaluate": ['panels = {kong = "drawn.txt"}'],
        "cluster": ['kind = "none"', 'memory_limit = "4GiB"'],
    }
    for name in rng.sample(sorted(sections), rng.randint(1, 5)):
        lines += [f"[{name}]", *rng.sample(sections[name], 1)]
    return _lines(*lines, "[[sources]]", 'uri = "drawn*"', 'role = "train"')


# ---------------------------------------------------------------- mutations


def _on_lines(change: Callable[[Random, list[bytes]], None]) -> Callable[[Random, bytes], bytes]:
    def mutate(rng: Random, raw: bytes) -> bytes:
        lines = raw.split(b"\n")
        change(rng, lines)
        return b"\n".join(lines)

    return mutate


def _swap(rng: Random, items: list[bytes]) -> None:
    a, b = rng.randrange(len(items)), rng.randrange(len(items))
    items[a], items[b] = items[b], items[a]


def _drop(rng: Random, items: list[bytes]) -> None:
    del items[rng.randrange(len(items))]


def _repeat(rng: Random, items: list[bytes]) -> None:
    at = rng.randrange(len(items))
    items[at:at] = [items[at]] * rng.choice([1, 1, 1, 50])


def _odd(rng: Random, items: list[bytes]) -> None:
    cell = rng.choice(ODD_CELLS)
    encoding = rng.choice(["utf-8", "utf-8", "utf-8", "cp1252", "utf-16-le"])
    items[rng.randrange(len(items))] = cell.encode(encoding, "replace")


def _quote(rng: Random, items: list[bytes]) -> None:
    at = rng.randrange(len(items))
    form = rng.choice([b'"%s"', b'"%s', b'%s"', b'"%s""', b"'%s'", b'"a\t%s"', b'"a\n%s"', b" %s "])
    items[at] = form % items[at]


def _blank(rng: Random, items: list[bytes]) -> None:
    items.insert(rng.randrange(len(items) + 1), rng.choice([b"", b"", b" ", b"#x", b"!x", b"x"]))


def _on_cells(change: Callable[[Random, list[bytes]], None]) -> Callable[[Random, bytes], bytes]:
    def on_line(rng: Random, lines: list[bytes]) -> None:
        at = rng.randrange(len(lines))
        mark = next((m for m in (b"\t", b",", b" = ", b": ", b";") if m in lines[at]), b"\t")
        cells = lines[at].split(mark)
        change(rng, cells)
        lines[at] = mark.join(cells)

    return _on_lines(on_line)


def _column(rng: Random, lines: list[bytes]) -> None:
    """Swap, drop or repeat the cells of a whole column."""
    change = rng.choice([_swap, _drop, _repeat])
    state = rng.getstate()
    for at, line in enumerate(lines):
        cells = line.split(b"\t")
        if len(cells) > 2:
            rng.setstate(state)
            change(rng, cells)
            lines[at] = b"\t".join(cells)


def _flip(rng: Random, raw: bytes) -> bytes:
    data = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.randrange(len(raw))]


def _splice(rng: Random, raw: bytes) -> bytes:
    a, b = sorted((rng.randrange(len(raw)), rng.randrange(len(raw))))
    piece = rng.choice([b"", bytes(b - a), raw[a:b] * 2, rng.randbytes(min(b - a, 40)), b"\0"])
    return raw[:a] + piece + raw[b if rng.random() < 0.5 else a :]


def _ends(rng: Random, raw: bytes) -> bytes:
    ways = [b"\r\n", b"\r", b"\r\r\n", b"\n\n", b"\n\r", b" \n", b"\t\n", b"\x0c\n", b",\n"]
    end = rng.choice([*ways, "\u2028".encode(), b"\x85"])
    if rng.random() < 0.5:
        return raw.replace(b"\n", end)
    at = raw.find(b"\n", rng.randrange(len(raw)))
    return raw[:at] + end + raw[at + 1 :]


def _encode(rng: Random, raw: bytes) -> bytes:
    """Mark the bytes as Unicode, or write the text in another encoding."""
    if rng.random() < 0.5:
        marks = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf" * 2, b"\0", b"\n \n"]
        return rng.choice(marks) + raw
    encodings = ["utf-16", "utf-16-le", "utf-32", "utf-7", "cp037", "utf-8-sig"]
    return raw.decode("latin-1").encode(rng.choice(encodings), "replace")


def _translate(rng: Random, raw: bytes) -> bytes:
    old, new = rng.choice(
        [
            (b"\t", b","),
            (b"\t", b";"),
            (b",", b"\t"),
            (b"\t", b" "),
            (b".", b","),
            (b'"', b"'"),
            (b'"', b""),
            (b"\t", b" \t "),
            (b"_at", b""),
            (b"GSM", b""),
            (b"e", b"\xc3\xa9"),
        ]
    )
    return raw.replace(old, new)


def pack(rng: Random, raw: bytes) -> bytes:
    """Return bytes packed, in ways of which some are no single whole gzip member."""
    whole = gzip.compress(raw, 1, mtime=0)
    at = rng.randrange(len(raw) + 1)
    members = gzip.compress(raw[:at], 1, mtime=0) + gzip.compress(raw[at:], 1, mtime=0)
    ways: list[Callable[[], bytes]] = [
        *(lambda: whole, lambda: whole, lambda: members),
        *(lambda: members + gzip.compress(b""), lambda: gzip.compress(b"") + members),
        *(lambda: whole[: rng.randrange(len(whole))], lambda: _flip(rng, whole)),
        *(lambda: members[: rng.randrange(len(members))], lambda: whole + bytes(512)),
        *(lambda: whole + rng.randbytes(9), lambda: whole + raw, lambda: gzip.compress(whole)),
        *(lambda: bz2.compress(raw), lambda: lzma.compress(raw), lambda: _zipped(raw)),
        *(lambda: whole[:-8] + rng.randbytes(8), lambda: whole[:-4] + b"\xff" * 4),
    ]
    return rng.choice(ways)()


def _zipped(raw: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", raw)
    return file.getvalue()


OF_TEXT = [
    *(_on_lines(change) for change in (_swap, _drop, _repeat, _odd, _blank, _column)),
    *(_on_cells(change) for change in (_swap, _drop, _repeat, _odd, _odd, _odd, _quote, _quote)),
    *(_on_cells(_blank), _flip, _cut, _splice, _ends, _encode, _translate),
]
OF_BYTES = [_flip, _flip, _flip, _cut, _splice]


def mutate(rng: Random, raw: bytes, *, is_text: bool = True) -> bytes:
    """Return a file after one to three mutations, some packed; a binary one also as it was made."""
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3] if is_text else [0, 0, 1, 1, 2, 3])):
        if raw:
            raw = rng.choice(OF_TEXT if is_text else OF_BYTES)(rng, raw)
    return pack(rng, raw) if rng.random() < (0.2 if is_text else 0.02) else raw
