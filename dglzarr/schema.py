"""What each store holds: one declaration that gives layout, validation and documentation.

Owns the names, dims, dtypes and units of every array; ``layout`` and ``validation`` work from it.
It reads and writes nothing; ``store`` does. ``docs/stores.md`` is generated from the specs below.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from dglzarr.kernels.split import SPLITS

if TYPE_CHECKING:
    from collections.abc import Mapping


Written = Literal["create", "region", "finish"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    ``written`` says when: with the labels (``create``), by region tasks (``region``), or with the
    merged result (``finish``). An array named like its only dim is that dim's index.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    description: str
    units: str | None = None
    written: Written = "finish"
    is_coord: bool = False
    required: bool = True
    attrs: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_matrix(self) -> bool:
        """Whether the array is a big sample by gene matrix, and so sharded."""
        return self.dims == ("sample", "gene") and self.written == "region"


@dataclass(frozen=True)
class StoreSpec:
    """One store: its schema name, version and arrays."""

    name: str
    version: int
    description: str
    arrays: tuple[ArraySpec, ...]

    def __getitem__(self, name: str) -> ArraySpec:
        """Return the array of that name."""
        return next(a for a in self.arrays if a.name == name)

    @property
    def region_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays that region tasks write."""
        return tuple(a for a in self.arrays if a.written == "region")


def _index(
    dim: str, description: str, dtype: str = "str", written: Written = "create"
) -> ArraySpec:
    return ArraySpec(dim, (dim,), dtype, description, written=written, is_coord=True)


def _coord(name: str, dim: str, description: str, dtype: str = "str", **attrs: object) -> ArraySpec:
    return ArraySpec(name, (dim,), dtype, description, written="create", is_coord=True, attrs=attrs)


_SAMPLE = _index("sample", "accession or name of the profile")
_GENE = _index("gene", "measured feature: a probe set, or a gene ID")
_GENE_SYMBOL = _coord("gene_symbol", "gene", "symbol of the gene the feature measures, '' unknown")
_GENE_ID = _coord("gene_id", "gene", "ID of the gene the feature measures, '' unknown")
_SERIES = _coord("series", "sample", "study the profile belongs to, GSE...")
_PLATFORM = _coord("platform", "sample", "GPL..., '' unknown")
_SPLIT = _coord(
    "split",
    "sample",
    "use of the sample, fixed at ingest by a pure function of a label and the seed",
    dtype="int8",
    flag_values=[0, 1, 2],
    flag_meanings=" ".join(SPLITS),
)
_LABELS = (
    _index("label", "name of a sample label: a sample sheet column or GEO characteristic"),
    ArraySpec(
        "sample_label", ("sample", "label"), "str", "value of the label, '' absent",
        written="create", is_coord=True,
    ),
)  # fmt: skip
_STUDY_COORDS = (
    _SAMPLE,
    _GENE,
    _GENE_ID,
    _GENE_SYMBOL,
    _coord("source", "sample", "name of the source the profile was read from"),
    _SERIES,
    _PLATFORM,
    _SPLIT,
    *_LABELS,
)


def _matrix(name: str, description: str, units: str) -> ArraySpec:
    return ArraySpec(name, ("sample", "gene"), "float32", description, units, "region")


RAW = StoreSpec(
    "raw",
    1,
    "One source as published: its own scale, its own genes.",
    (
        _matrix("expression", "expression as published", "as published"),
        _SAMPLE,
        _GENE,
        _GENE_SYMBOL,
        _SERIES,
        _PLATFORM,
        *_LABELS,
    ),
)
RAW_LINK = StoreSpec(
    "raw-link",
    1,
    "Labels of one large source whose values are read from its own file when it is joined.",
    tuple(array for array in RAW.arrays if not array.is_matrix),
)
EXPRESSION = StoreSpec(
    "expression",
    1,
    "Training sources joined on their common genes, in log2.",
    (
        _matrix("expression", "expression, missing = NaN", "log2"),
        ArraySpec("n_missing", ("sample",), "int32", "missing genes", None, "region"),
        *_STUDY_COORDS,
    ),
)
NORMALIZED = StoreSpec(
    "normalized",
    1,
    "Expression after quantile normalization against a frozen reference.",
    (
        _matrix("expression", "quantile-normalized expression, missing = NaN", "log2"),
        ArraySpec(
            "quantile_reference", ("quantile",), "float64",
            "common distribution, ascending: mean of each order statistic over fitted samples",
            "log2", "create",
        ),
        _index("quantile", "rank, 0 = lowest", "int32"),
        *_STUDY_COORDS,
    ),
)  # fmt: skip
SAMPLES = StoreSpec(
    "samples",
    1,
    "Which samples are near-duplicates, and the per-gene moments of those kept for training.",
    (
        ArraySpec("cluster", ("sample",), "int32", "k-means cluster of the sample"),
        ArraySpec("keep", ("sample",), "bool", "false for a near-duplicate of a kept sample"),
        ArraySpec("duplicate_of", ("sample",), "str", "kept sample it repeats, '' when kept"),
        ArraySpec(
            "nearest_distance", ("sample",), "float32",
            "distance to the closest sample under the threshold, NaN when there is none",
        ),
        ArraySpec(
            "centroid", ("cluster_index", "gene"), "float32",
            "mean of the cluster's training samples", "log2",
        ),
        ArraySpec(
            "gene_center", ("gene",), "float64",
            "mean over training samples; stands for a missing value in distances", "log2",
        ),
        ArraySpec(
            "basis", ("component", "gene"), "float32",
            "orthonormal directions; distances between projections never exceed those of samples",
        ),
        ArraySpec(
            "projection", ("sample", "component"), "float32",
            "centred sample on the basis", "log2",
        ),
        ArraySpec("gene_mean", ("gene",), "float64", "mean over kept training samples", "log2"),
        ArraySpec("gene_std", ("gene",), "float64", "std over kept training samples", "log2"),
        _SAMPLE,
        _GENE,
        _index("cluster_index", "number of the cluster", "int32"),
        _index("component", "direction of the basis, by variance", "int32"),
    ),
)  # fmt: skip
CONTRIBUTIONS = StoreSpec(
    "contributions",
    1,
    "DeepLIFT contributions of every sample, reduced over latent units.",
    (
        ArraySpec(
            "latent_total", ("region", "latent", "gene"), "float64",
            "sum over the region's kept training samples of abs(contribution)", None, "region",
        ),
        ArraySpec(
            "n_scored", ("region",), "int64",
            "kept training samples in the region", None, "region",
        ),
        ArraySpec(
            "delta_error", ("sample",), "float32",
            "largest gap between summed contributions and the change of a latent unit",
            None, "region",
        ),
        _matrix("contribution", "sum over latent units of abs(contribution)", "latent activation"),
        _SAMPLE,
        _GENE,
        _index("latent", "bottleneck unit", "int32"),
        _index("region", "region of whole shards", "int32"),
    ),
)  # fmt: skip
SCORES = StoreSpec(
    "scores",
    1,
    "One score per gene: DeepLIFT contributions averaged over kept training samples.",
    (
        ArraySpec(
            "score", ("gene",), "float64", "mean over samples and latent units of abs(contribution)"
        ),
        ArraySpec("latent_score", ("latent", "gene"), "float32", "the same for each latent unit"),
        _GENE,
        _GENE_ID,
        _GENE_SYMBOL,
        _index("latent", "bottleneck unit", "int32"),
    ),
)  # fmt: skip
LANDMARKS = StoreSpec(
    "landmarks",
    2,
    "The mined panel, and the panels it is compared with.",
    (
        ArraySpec("score", ("gene",), "float64", "DeepLIFT score of the gene"),
        ArraySpec("rank", ("gene",), "int32", "the mined panel in order, then the rest by score"),
        ArraySpec("is_landmark", ("gene",), "bool", "whether the gene is in the mined panel"),
        ArraySpec("panel_gene", ("panel", "position"), "str", "genes of a panel, best first"),
        ArraySpec("n_missing", ("panel",), "int32", "listed, not measured"),
        _GENE,
        _GENE_ID,
        _GENE_SYMBOL,
        _index("panel", "mined, a selector, random-0..., or the name of a published list"),
        _coord("selector", "panel", "how its genes were chosen: a selector, or 'published'"),
        _index("position", "position in the panel, 0 = first", "int32"),
    ),
)  # fmt: skip
_JUDGED = ("panel", "predictor", "cohort")
EVALUATION = StoreSpec(
    "evaluation",
    2,
    "How well each panel predicts the genes that it does not measure, by each predictor.",
    (
        ArraySpec(
            "mae", (*_JUDGED, "gene"), "float32",
            "mean absolute error of a target gene, NaN where it is no common target", "z",
        ),
        ArraySpec(
            "mae_within", (*_JUDGED, "gene"), "float32",
            "the same after truth and prediction are centred by series", "z",
        ),
        ArraySpec("pcc", (*_JUDGED, "gene"), "float32", "Pearson r with the truth"),
        ArraySpec(
            "null_fraction", (*_JUDGED, "gene"), "float32",
            "share of wrong-gene correlations above the right one; NaN for random panels",
        ),
        ArraySpec(
            "sample_error", ("panel", "predictor", "judged"), "float32",
            "mean absolute error of a sample over common targets", "z",
        ),
        ArraySpec("mean_mae", _JUDGED, "float64", "mean of mae over common targets", "z"),
        ArraySpec(
            "interval_samples", (*_JUDGED, "bound"), "float64",
            "95 % bootstrap interval of the mean error when samples are drawn again", "z",
        ),
        ArraySpec(
            "interval_series", (*_JUDGED, "bound"), "float64",
            "the same when whole series are drawn again; NaN with fewer than 3", "z",
        ),
        ArraySpec(
            "share_better", _JUDGED, "float64",
            "share of targets on which the first panel has a lower error than this one",
        ),
        ArraySpec(
            "t_pvalue", _JUDGED, "float64", "paired t-test of the first panel and this"
        ),
        ArraySpec("wilcoxon_pvalue", _JUDGED, "float64", "Wilcoxon's signed rank test of the same"),
        ArraySpec(
            "setting", ("panel", "predictor"), "float64",
            "ridge penalty or number of neighbours, chosen without the test split",
        ),
        ArraySpec("size", ("panel",), "int32", "genes of the panel"),
        ArraySpec("n_samples", ("cohort",), "int32", "samples the cohort is judged on"),
        ArraySpec("n_series", ("cohort",), "int32", "series they come from"),
        ArraySpec("n_measured", ("cohort",), "int32", "study genes that the cohort measures"),
        ArraySpec(
            "n_landmarks_measured", ("panel", "cohort"), "int32",
            "landmarks that the cohort measures; the others stand at the training mean",
        ),
        ArraySpec(
            "reason", ("cohort",), "str", "why measures are missing, '' where none is"
        ),
        ArraySpec("is_target", ("gene",), "bool", "common targets: measured by no panel"),
        _GENE,
        _GENE_SYMBOL,
        _index("panel", "the panels of landmarks.zarr, and 'mean': predict the training mean"),
        _index("predictor", "ridge or knn"),
        _index("cohort", "'test' for held-out samples, or the name of a cohort source"),
        _index("judged", "number of the judged sample", "int32"),
        _coord("judged_sample", "judged", "its name"),
        _coord("judged_series", "judged", "study it belongs to"),
        _coord("judged_cohort", "judged", "cohort it belongs to"),
        _index("bound", "end of an interval: low or high"),
    ),
)  # fmt: skip
ENRICHMENT = StoreSpec(
    "enrichment",
    1,
    "Gene sets that a panel holds more of than a random draw from the measured genes.",
    (
        ArraySpec("n_genes", ("term",), "int32", "measured genes in the term"),
        ArraySpec("n_query", ("panel",), "int32", "genes of the panel that have any term"),
        ArraySpec("n_hits", ("panel", "term"), "int32", "genes of the panel in the term"),
        ArraySpec(
            "p_value", ("panel", "term"), "float64",
            "one-sided hypergeometric p, NaN for a term that is not tested",
        ),
        ArraySpec(
            "p_adjusted", ("panel", "term"), "float64", "Benjamini-Hochberg over tested terms"
        ),
        ArraySpec(
            "q_value", ("panel", "term"), "float64",
            "Storey's q, NaN for all terms where it cannot be estimated",
        ),
        ArraySpec("hits", ("panel", "term"), "str", "genes of the panel in the term, joined by /"),
        _index("panel", "the panels of landmarks.zarr"),
        _index("term", "identifier of the gene set"),
        _coord("term_name", "term", "the term in words"),
    ),
)  # fmt: skip
GROUPS = StoreSpec(
    "groups",
    1,
    "Whether samples of known groups stay together in latent units, components and panels.",
    (
        ArraySpec(
            "tree", ("representation", "merge", "node"), "float64",
            "hierarchical clustering as scipy's linkage",
        ),
        ArraySpec(
            "cluster", ("representation", "sample"), "int32",
            "the tree cut into as many clusters as there are groups",
        ),
        ArraySpec("ari", ("representation",), "float64", "adjusted Rand index with the groups"),
        ArraySpec("nmi", ("representation",), "float64", "normalized mutual information"),
        ArraySpec("silhouette", ("representation",), "float64", "mean silhouette of the groups"),
        ArraySpec("reason", ("representation",), "str", "why a measure is NaN, '' where none is"),
        _SAMPLE,
        _SERIES,
        _coord("is_trained_on", "sample", "whether the model was trained on it", dtype="bool"),
        _coord("group", "sample", "value of the sample label that tells the groups"),
        _index("representation", "latent, pca, all genes, or the genes of a panel"),
        _index("merge", "number of the merge", "int32"),
        _index("node", "what a merge joins, how far apart, and the samples below"),
    ),
)  # fmt: skip

SPECS = {
    spec.name: spec
    for spec in (
        RAW, RAW_LINK, EXPRESSION, NORMALIZED, SAMPLES, CONTRIBUTIONS, SCORES, LANDMARKS,
        EVALUATION, GROUPS, ENRICHMENT,
    )
}  # fmt: skip
