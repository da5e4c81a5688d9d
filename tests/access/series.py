"""Small series of GEO below a folder that a mirror serves."""

import gzip

import numpy as np

from benchmarks.mirror import series_folder
from dglzarr.testing import write_series_matrix

COUNTS = "{}_raw_counts_GRCh38.p13_NCBI.tsv.gz"


def matrix(
    folder, accession, *, platform="GPL96", several=False, n_genes=60, n_samples=8, seed=0,
    organism="Homo sapiens", head="",
):  # fmt: skip
    """A series matrix where GEO has it; returns its path."""
    rng = np.random.default_rng([seed, int(accession[3:])])
    name = f"{accession}-{platform}" if several else accession
    path = folder / series_folder(accession) / f"{name}_series_matrix.txt.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_series_matrix(
        path,
        rng.normal(8, 2, (n_samples, n_genes)),
        samples=[f"GSM{accession[3:]}{n:03d}" for n in range(n_samples)],
        genes=[f"{n}_at" for n in range(n_genes)],
        series=accession,
        platform=platform,
        tissue=["lung", "skin"] * (n_samples // 2),
    )
    if head or organism != "Homo sapiens":
        text = gzip.decompress(path.read_bytes()).decode().replace("Homo sapiens", organism)
        path.write_bytes(gzip.compress((head + text).encode(), mtime=0))
    return path


def empty_matrix(folder, accession, samples, platform="GPL15456"):
    """The series matrix of RNA-seq: labels, and a table without rows."""
    cells = {
        "geo_accession": samples,
        "title": [f"Sample {name}" for name in samples],
        "organism_ch1": ["Homo sapiens"] * len(samples),
        "characteristics_ch1": [f"tissue: blood {n + 1}" for n in range(len(samples))],
        "platform_id": [platform] * len(samples),
    }
    lines = [f'!Series_geo_accession\t"{accession}"', f'!Series_platform_id\t"{platform}"', ""]
    lines += ["\t".join([f"!Sample_{key}", *(f'"{v}"' for v in vs)]) for key, vs in cells.items()]
    lines += ["!series_matrix_table_begin", "\t".join(f'"{v}"' for v in ["ID_REF", *samples])]
    lines += ["!series_matrix_table_end", ""]
    name = accession if platform == "GPL15456" else f"{accession}-{platform}"
    path = folder / series_folder(accession) / f"{name}_series_matrix.txt.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return path


def ncbi_counts(folder, accession, samples, n_genes=60):
    """NCBI's counts and the annotation of their genes, as its page links them."""
    rng = np.random.default_rng(0)
    place = folder / "counts" / accession
    place.mkdir(parents=True)
    ids = [1, 10, *range(100, 98 + n_genes)]
    symbols = ["A1BG", "NAT2", *(f"SIM{n}" for n in ids[2:])]
    counts = rng.poisson(200, (n_genes, len(samples)))
    rows = ["\t".join(["GeneID", *samples])]
    rows += ["\t".join(map(str, [i, *row])) for i, row in zip(ids, counts.tolist(), strict=True)]
    (place / COUNTS.format(accession)).write_bytes(
        gzip.compress(("\n".join(rows) + "\n").encode(), mtime=0)
    )
    names = ["GeneID\tSymbol\tDescription\tSynonyms\tGeneType\tEnsemblGeneID\tStatus"]
    names += [
        f"{i}\t{s}\tgene\t\tprotein-coding\t\tactive" for i, s in zip(ids, symbols, strict=True)
    ]
    (place / "Human.GRCh38.p13.annot.tsv.gz").write_bytes(
        gzip.compress(("\n".join(names) + "\n").encode(), mtime=0)
    )


def platform_table(folder, platform, symbol, n_genes=60):
    """GEO's table of a platform, which calls every probe's gene after it."""
    path = folder / f"geo/platforms/GPLnnn/{platform}/annot/{platform}.annot.gz"
    path.parent.mkdir(parents=True)
    rows = "".join(f"{n}_at\ttitle\t{symbol}{n}\t{n}\n" for n in range(n_genes))
    head = f"^Annotation\n!Annotation_platform = {platform}\n#ID = probe\n!platform_table_begin\n"
    text = f"{head}ID\tGene title\tGene symbol\tGene ID\n{rows}!platform_table_end\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return path
