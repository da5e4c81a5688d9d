"""Simulated expression with planted landmark genes.

Owns the planted structure; reads and writes no file and no store.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

KINDS = ("hub", "follower", "decoy", "noise")
PLATFORMS = ("GPL96", "GPL570")
_LOW, _HIGH = 4.0, 15.0
_FOLLOWER_SHARE, _DECOY_SHARE = 0.5, 0.15
_TISSUES = ("liver", "kidney", "colon", "skin")
_SUFFIXES = ("_at", "_at", "_s_at", "_x_at")


@dataclass(frozen=True)
class SimulatedExpression:
    """A simulated compendium and the truth about it.

    Attributes
    ----------
    expression
        (sample, gene), log2-like, between 4 and 15; NaN where missing.
    samples, series, platform, tissue
        One entry a sample.
    genes, gene_symbol
        One entry a gene: probe set label, gene symbol ("" where the probe has none).
    hubs
        Genes that carry the latent programs almost without noise: the planted landmark genes.
    followers
        Noisy, partly non-linear functions of the same programs.
    decoys
        Genes of high variance that share nothing with any other gene.
    noise_genes
        Genes of low variance that share nothing with any other gene.
    duplicates
        (sample, duplicate_of) pairs, exact and near copies alternating.
    """

    expression: NDArray[np.float32]
    samples: list[str]
    genes: list[str]
    gene_symbol: list[str]
    series: list[str]
    platform: list[str]
    tissue: list[str]
    hubs: list[str]
    followers: list[str]
    decoys: list[str]
    noise_genes: list[str]
    duplicates: list[tuple[str, str]]


@dataclass(frozen=True)
class GenePlan:
    """What every gene does, one entry a gene; fixed before any sample is drawn."""

    kind: NDArray[np.intp]
    loading: NDArray[np.float64]  # (program, gene), columns of length 1 or 0
    form: NDArray[np.intp]  # 0 linear, 1 saturating, 2 rectified
    base: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    noise_std: NDArray[np.float64]

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.kind)

    @property
    def genes(self) -> list[str]:
        """Probe set labels."""
        return [f"{200_001 + i}{_SUFFIXES[i % len(_SUFFIXES)]}" for i in range(self.n_genes)]

    @property
    def symbols(self) -> list[str]:
        """Gene symbols, "" where a probe has none."""
        return [_symbol(i, KINDS[kind]) for i, kind in enumerate(self.kind)]

    def labels(self, kind: str) -> list[str]:
        """Return the labels of the genes of one kind."""
        return [g for g, k in zip(self.genes, self.kind, strict=True) if KINDS[k] == kind]


def _symbol(index: int, kind: str) -> str:
    """Return a made-up symbol; some uninformative probes have none, two, or their neighbour's."""
    if kind in ("decoy", "noise") and index % 10 < 3:
        one, other = f"SIM{index + 1}", f"SIM{index}"
        return ("", f"{one} /// {other}", other)[index % 10]
    return f"SIM{index + 1}"


def plan_genes(n_genes: int, n_hubs: int, n_programs: int, seed: int) -> GenePlan:
    """Return the plan of all genes, the kinds in random order."""
    rng = np.random.default_rng([seed, 0])
    n_followers, n_decoys = int(_FOLLOWER_SHARE * n_genes), int(_DECOY_SHARE * n_genes)
    counts = (n_hubs, n_followers, n_decoys, n_genes - n_hubs - n_followers - n_decoys)
    kind = rng.permutation(np.repeat(np.arange(4), counts))
    hub, follower, decoy, noise = (np.flatnonzero(kind == k) for k in range(4))
    loading = np.zeros((n_programs, n_genes))
    second = rng.integers(n_programs, size=n_genes)
    for members, weight in ((hub, 0.4), (follower, 0.5)):
        turn = np.arange(len(members))
        mixed = members[turn % 3 == 2]
        loading[turn % n_programs, members] = 1
        loading[second[mixed], mixed] += weight
    loading /= np.maximum(np.linalg.norm(loading, axis=0), 1e-9)
    loading *= rng.choice([-1, 1], size=n_genes)
    ratio = np.zeros(n_genes)  # noise over signal
    ratio[hub], ratio[follower] = 0.15, rng.uniform(1.4, 2.4, len(follower))
    total_std = rng.uniform(0.6, 1.0, n_genes)
    amplitude = np.where(kind < 2, total_std / np.hypot(1, ratio), 0)
    noise_std = amplitude * ratio
    noise_std[decoy] = rng.uniform(1.4, 2.2, len(decoy))
    noise_std[noise] = rng.uniform(0.1, 0.3, len(noise))
    form = np.where(kind == 1, rng.choice(3, n_genes, p=[0.5, 0.25, 0.25]), 0)
    base = np.where(kind == 2, 9.5, rng.uniform(6.5, 11.5, n_genes))
    return GenePlan(kind, loading, form, base, amplitude, noise_std)


def draw_expression(
    plan: GenePlan, series: NDArray[np.intp], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return (sample, gene) drawn from the plan, with the batch effect of each series."""
    n_series, n_programs = int(series.max()) + 1, len(plan.loading)
    tissue = rng.normal(0, 0.5, (len(_TISSUES), n_programs))
    program = rng.normal(size=(len(series), n_programs)) + tissue[series % len(_TISSUES)]
    signal = program @ plan.loading
    saturating, rectified = plan.form == 1, plan.form == 2
    signal[:, saturating] = np.tanh(2 * signal[:, saturating]) / 0.8
    signal[:, rectified] = 1.6 * np.maximum(signal[:, rectified], 0)
    gene_batch = rng.normal(0, 0.2, (n_series, plan.n_genes))
    noise = rng.normal(size=signal.shape) + gene_batch[series]
    values = plan.base + plan.amplitude * signal + plan.noise_std * noise
    scale, shift = rng.normal(1, 0.03, n_series), rng.normal(0, 0.3, n_series)
    values = values * scale[series, None] + shift[series, None]
    drawn: NDArray[np.float64] = np.clip(values, _LOW, _HIGH)
    return drawn


def _plant_duplicates(
    values: NDArray[np.float64], n_duplicates: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the matrix with copies planted, and their (copy, original) pairs; odd ones are near.

    A near copy lies at distance 0.3 or so, whatever the number of genes.
    """
    pairs = rng.permutation(len(values))[: 2 * n_duplicates].reshape(-1, 2)
    pairs = -np.sort(-pairs, axis=1)
    planted = values.copy()
    planted[pairs[:, 0]] = values[pairs[:, 1]]
    near = pairs[1::2, 0]
    std = 0.3 / np.sqrt(values.shape[1])
    planted[near] = np.clip(planted[near] + rng.normal(0, std, planted[near].shape), _LOW, _HIGH)
    return planted, pairs


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless the value lies between the limits."""
    if not low <= value <= high:
        message = f"{name}: expected {low} to {high}, got {value!r}. Change it or the sizes."
        raise ValueError(message)


def simulate_expression(
    n_samples: int = 1200,
    n_genes: int = 1200,
    *,
    n_hubs: int = 40,
    n_programs: int = 8,
    n_series: int = 16,
    n_duplicates: int = 20,
    missing_fraction: float = 0.0,
    seed: int = 0,
) -> SimulatedExpression:
    """Return a compendium in which the landmark genes are known.

    Latent programs drive `n_hubs` hub genes almost without noise and half of all genes, the
    followers, with much noise. 15 % of the genes are decoys: their variance is the highest and
    they carry nothing, so a ranking by variance finds no hub. The rest is noise of low variance.
    Every series has its own tissue, shift and scale. Hubs differ from followers in how much of
    their variance is shared, not in how much variance they have, so z-scoring hides none of it.

    Parameters
    ----------
    n_samples, n_genes
        Size of the matrix; duplicates are among the samples.
    n_hubs, n_programs
        Planted landmark genes, and the latent programs they read in turn.
    n_series
        Series of equal size, in blocks, on two platforms in turn.
    n_duplicates
        Samples that are an exact or near copy of another, mostly of another series.
    missing_fraction
        Share of the values set to NaN at random.
    seed
        Same arguments, same compendium.

    Raises
    ------
    ValueError
        When a size is out of range.

    Notes
    -----
    Holds about four float64 matrices of the given size.

    Examples
    --------
    >>> simulated = simulate_expression(40, 100, n_hubs=8, n_series=4, n_duplicates=2)
    >>> simulated.expression.shape, len(simulated.hubs), len(simulated.duplicates)
    ((40, 100), 8, 2)
    """
    check_between("n_hubs", n_hubs, 1, n_genes // 4)
    check_between("n_programs", n_programs, 1, n_hubs)
    check_between("n_series", n_series, 1, n_samples)
    check_between("n_duplicates", n_duplicates, 0, n_samples // 2)
    check_between("missing_fraction", missing_fraction, 0, 1)
    plan = plan_genes(n_genes, n_hubs, n_programs, seed)
    rng = np.random.default_rng([seed, 1])
    series = np.arange(n_samples) * n_series // n_samples
    values, pairs = _plant_duplicates(draw_expression(plan, series, rng), n_duplicates, rng)
    values[rng.random(values.shape) < missing_fraction] = np.nan
    samples = [f"GSM{99_000_001 + i}" for i in range(n_samples)]
    return SimulatedExpression(
        expression=values.astype(np.float32),
        samples=samples,
        genes=plan.genes,
        gene_symbol=plan.symbols,
        series=[f"GSE{900_001 + i}" for i in series],
        platform=[PLATFORMS[i % len(PLATFORMS)] for i in series],
        tissue=[_TISSUES[i % len(_TISSUES)] for i in series],
        hubs=plan.labels("hub"),
        followers=plan.labels("follower"),
        decoys=plan.labels("decoy"),
        noise_genes=plan.labels("noise"),
        duplicates=[(samples[copy], samples[original]) for copy, original in pairs],
    )
