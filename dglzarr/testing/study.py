"""The demo study: a simulated compendium as genuine files, with settings and the truth beside it.

Reads its own `truth.json` and nothing else; writes no store.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dglzarr.storage.files import put
from dglzarr.testing.files import (
    text_writer,
    write_annotation,
    write_gct,
    write_gctx,
    write_series_matrix,
)
from dglzarr.testing.simulate import (
    PLATFORMS,
    SimulatedExpression,
    check_between,
    draw_expression,
    plan_genes,
    simulate_expression,
)

_FORMAT = 3
_N_SERIES = 20
_N_GCTX_SERIES = 3
_RAW_SERIES = 1


def write_study(
    folder: str | Path, *, n_samples: int = 1800, n_genes: int = 1200, seed: int = 0
) -> Path:
    """Return the path of the settings file of a complete demo study written below `folder`.

    `data/` gets GEO series matrices of two platforms (one series on the raw scale), one GCTX of
    several series, a GTEx-like GCT of read counts on the same programs, the probe annotation and a
    published-like panel of which half is hubs. `truth.json` tells what was planted and is written
    last: a study that has it, with the same arguments, is left as it is.

    Raises
    ------
    ValueError
        When a size is too small: at least 40 samples and 60 genes.
    """
    check_between("n_samples", n_samples, 2 * _N_SERIES, 10**9)
    check_between("n_genes", n_genes, 60, 10**9)
    folder = Path(folder)
    n_hubs = n_genes // 30
    parameters = {
        "format": _FORMAT,
        "n_samples": n_samples,
        "n_genes": n_genes,
        "n_hubs": n_hubs,
        "seed": seed,
    }
    settings, truth = folder / "study.toml", folder / "truth.json"
    if _is_written(folder, truth, parameters):
        return settings
    truth.unlink(missing_ok=True)
    simulated = simulate_expression(
        n_samples,
        n_genes,
        n_hubs=n_hubs,
        n_programs=min(8, n_hubs),
        n_series=_N_SERIES,
        n_duplicates=n_samples // 60,
        seed=seed,
    )
    data = folder / "data"
    files = [*_write_series(data, simulated, seed), _write_cohort(data, simulated, seed)]
    files.append(write_annotation(data / "annotation.txt", simulated.genes, simulated.gene_symbol))
    files.append(_write_published(data / "published.txt", simulated, seed))
    settings.write_text(
        _SETTINGS.format(seed=seed, n_landmarks=max(2, n_hubs // 3)), encoding="utf-8"
    )
    known = {
        "parameters": parameters,
        "files": {str(p.relative_to(folder)): p.stat().st_size for p in files},
        "hubs": simulated.hubs,
        "followers": simulated.followers,
        "decoys": simulated.decoys,
        "noise_genes": simulated.noise_genes,
        "duplicates": simulated.duplicates,
    }
    put(truth, f"{json.dumps(known, indent=1)}\n".encode())
    return settings


def _is_written(folder: Path, truth: Path, parameters: Mapping[str, int]) -> bool:
    """Return whether `truth` records these parameters and all its files are there."""
    if not truth.exists() or not (folder / "study.toml").exists():
        return False
    known = json.loads(truth.read_text(encoding="utf-8"))
    return known["parameters"] == parameters and all(
        (folder / name).exists() and (folder / name).stat().st_size == size
        for name, size in known["files"].items()
    )


def _platform_genes(simulated: SimulatedExpression, seed: int) -> dict[str, NDArray[np.intp]]:
    """Return the gene indices of each platform, in its order; hubs are on both."""
    rng = np.random.default_rng([seed, 2])
    hubs = set(simulated.hubs)
    others = rng.permutation([i for i, g in enumerate(simulated.genes) if g not in hubs])
    n_extra, n_lacking = len(others) // 30, max(1, len(others) // 100)
    first = np.setdiff1d(np.arange(len(simulated.genes)), others[:n_extra])
    second = np.setdiff1d(np.arange(len(simulated.genes)), others[-n_lacking:])
    return {PLATFORMS[0]: first, PLATFORMS[1]: rng.permutation(second)}


def _write_series(data: Path, simulated: SimulatedExpression, seed: int) -> list[Path]:
    """Return the paths of the series matrices and of the one GCTX holding the last series."""
    columns, accessions = _platform_genes(simulated, seed), sorted(set(simulated.series))
    series = np.array(simulated.series)
    written = []
    for number, accession in enumerate(accessions[:-_N_GCTX_SERIES]):
        rows = np.flatnonzero(series == accession)
        platform = simulated.platform[rows[0]]
        taken = columns[platform]
        path = write_series_matrix(
            data / f"{accession}_series_matrix.txt.gz",
            simulated.expression[np.ix_(rows, taken)],
            samples=[simulated.samples[i] for i in rows],
            genes=[simulated.genes[i] for i in taken],
            series=accession,
            platform=platform,
            scale="raw" if number == _RAW_SERIES else "log2",
            tissue=[simulated.tissue[i] for i in rows],
        )
        written.append(path)
    rows = np.flatnonzero(np.isin(series, accessions[-_N_GCTX_SERIES:]))
    taken = columns[PLATFORMS[0]]
    path = write_gctx(
        data / f"{accessions[-_N_GCTX_SERIES]}_matrix.gctx",
        simulated.expression[np.ix_(rows, taken)],
        samples=[simulated.samples[i] for i in rows],
        genes=[simulated.genes[i] for i in taken],
        gene_symbol=[simulated.gene_symbol[i] for i in taken],
        labels={"tissue": [simulated.tissue[i] for i in rows]},
    )
    return [*written, path]


def _ensembl_id(index: int) -> str:
    return f"ENSG{90_000_000_001 + index}.{1 + index % 9}"


def _write_cohort(data: Path, simulated: SimulatedExpression, seed: int) -> Path:
    """Return the path of read counts of new samples on the same programs, by Ensembl id.

    Probes without a symbol of their own have no row; some rows have no probe, and one is the
    copy on the other sex chromosome that GTEx lists with a repeated symbol and without reads.
    """
    n_hubs = len(simulated.hubs)
    plan = plan_genes(len(simulated.genes), n_hubs, min(8, n_hubs), seed)
    rng = np.random.default_rng([seed, 3])
    n_samples = max(40, len(simulated.samples) // 12)
    log2 = draw_expression(plan, np.zeros(n_samples, np.intp), rng)
    log2 += rng.normal(0, 0.5, plan.n_genes)
    depth = rng.uniform(0.5, 1.5, n_samples)[:, None]
    counts = rng.poisson(np.exp2(log2 - 2) * depth).astype(np.float64)
    own = [i for i, s in enumerate(simulated.gene_symbol) if s == f"SIM{i + 1}"]
    n_extra = 1 + plan.n_genes // 20
    extra = rng.poisson(20, (n_samples, n_extra)).astype(np.float64)
    genes = [_ensembl_id(i) for i in [*own, *range(plan.n_genes, plan.n_genes + n_extra)]]
    symbols = [*(simulated.gene_symbol[i] for i in own), *(f"SIMX{i}" for i in range(n_extra))]
    return write_gct(
        data / "GTEx_simulated_gene_reads.gct.gz",
        np.hstack([counts[:, own], extra, np.zeros((n_samples, 1))]),
        samples=[f"GTEX-SIM{i:04d}-0008-SM-{i:05d}" for i in range(n_samples)],
        genes=[*genes, f"{genes[-1]}_PAR_Y"],
        descriptions=[*symbols, symbols[-1]],
    )


def _write_published(path: Path, simulated: SimulatedExpression, seed: int) -> Path:
    """Return the path of a list (symbol, Ensembl id, probe): half hubs, the rest of other genes."""
    rng = np.random.default_rng([seed, 4])
    n_hubs = len(simulated.hubs)
    hubs = set(simulated.hubs)
    others = [g for g in simulated.genes if g not in hubs]
    chosen = {
        *rng.choice(simulated.hubs, n_hubs - n_hubs // 2, replace=False).tolist(),
        *rng.choice(others, n_hubs // 2, replace=False).tolist(),
    }
    with text_writer(path) as file:
        for i, gene in enumerate(simulated.genes):
            if gene in chosen:
                file.write(f"{simulated.gene_symbol[i]}\t{_ensembl_id(i).split('.')[0]}\t{gene}\n")
    return path


_SETTINGS = """\
# A simulated compendium with planted landmark genes; truth.json tells which they are.
root = "study"
seed = {seed}

[[sources]]
uri = "data/*_series_matrix.txt.gz"
[[sources]]
uri = "data/*.gctx"
[[sources]]
uri = "data/GTEx_simulated_gene_reads.gct.gz"
role = "cohort"

[ingest]
annotation = "data/annotation.txt"
split_by = "series"
test_fraction = 0.35  # five series are held out; under three tell no differences

[dedup]
n_clusters = 20

[train]
epochs = 300
patience = 20
batch_size = 64
hidden = 128
n_latent = 24

[select]
n_landmarks = {n_landmarks}  # a third of the planted genes, so that it matters which

[evaluate]
panels = {{ published = "data/published.txt" }}

[cluster]
kind = "local"
n_workers = 2
"""
