"""What each store holds: one declaration that gives layout, validation and documentation.

Owns the names, dims, dtypes and units of every array; ``layout`` and ``validation`` work from it.
It reads and writes nothing; ``store`` does. ``docs/stores.md`` is generated from the specs below.
"""

from __future__ import annotations

from dglzarr.storage.declare import (
    GENE,
    GENE_ID,
    GENE_SYMBOL,
    GENES,
    LABELS,
    PLATFORM,
    SAMPLE,
    SERIES,
    STUDY_COORDS,
    ArraySpec,
    StoreSpec,
    coord,
    index,
    matrix,
)
from dglzarr.storage.upgrades import with_kinds

RAW = StoreSpec(
    "raw",
    1,
    "One source as published: its own scale, its own genes.",
    (
        matrix("expression", "expression as published", "as published"),
        SAMPLE,
        GENE,
        GENE_SYMBOL,
        SERIES,
        PLATFORM,
        *LABELS,
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
        matrix("expression", "expression, missing = NaN", "log2"),
        ArraySpec("n_missing", ("sample",), "int32", "missing genes", None, "region"),
        ArraySpec(
            "detection_rate", ("detection_group", "gene"), "float32",
            "share of the group's training samples in which the gene is detected; NaN where no "
            "unit tells", required=False,
        ),
        ArraySpec(
            "n_detection", ("detection_group",), "int32",
            "training samples of the group whose unit tells what is detected", required=False,
        ),
        ArraySpec(
            "detection_group", ("detection_group",), "str",
            "all, then the values of the label that ingest.detection names",
            written="create", is_coord=True, required=False,
        ),
        *STUDY_COORDS,
    ),
)  # fmt: skip
NORMALIZED = StoreSpec(
    "normalized",
    1,
    "Expression after quantile normalization against a frozen reference.",
    (
        matrix("expression", "quantile-normalized expression, missing = NaN", "log2"),
        ArraySpec(
            "quantile_reference", ("quantile",), "float64",
            "common distribution, ascending: mean of each order statistic over fitted samples",
            "log2", "create",
        ),
        index("quantile", "rank, 0 = lowest", "int32"),
        *STUDY_COORDS,
    ),
)  # fmt: skip
SAMPLES = StoreSpec(
    "samples",
    1,
    "Which samples are near-duplicates, and the per-gene moments of those kept for training.",
    (
        ArraySpec("cluster", ("sample",), "int32", "k-means cluster of the sample"),
        ArraySpec("keep", ("sample",), "bool", "false for a near-duplicate that is left out"),
        ArraySpec(
            "duplicate_of", ("sample",), "str",
            "kept sample it repeats, with rule dgex maybe over a chain of others; '' when kept",
        ),
        ArraySpec(
            "nearest_distance", ("sample",), "float32",
            "distance to the nearest sample under the threshold, maybe not duplicate_of; else NaN",
        ),
        ArraySpec(
            "centroid", ("cluster_index", "gene"), "float32",
            "mean of the cluster's training samples, NaN without any", "log2",
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
        SAMPLE,
        GENE,
        index("cluster_index", "number of the cluster", "int32"),
        index("component", "direction of the basis, by variance", "int32"),
    ),
)  # fmt: skip
LATENT = StoreSpec(
    "latent",
    1,
    "The latent units of every sample, and sums that tell how well test samples are reconstructed.",
    (
        ArraySpec(
            "agreement_total", ("region", "statistic", "gene"), "float64",
            "sums over the region's kept test samples, in z units", None, "region",
        ),
        ArraySpec(
            "latent", ("sample", "latent_unit"), "float32", "activation of the bottleneck unit",
            None, "region",
        ),
        SAMPLE,
        GENE,
        index("latent_unit", "bottleneck unit", "int32"),
        index("region", "region of whole shards", "int32"),
        index(
            "statistic",
            "known samples; absolute error; truth, reconstruction, their squares and product",
        ),
    ),
)  # fmt: skip
RECONSTRUCTION = StoreSpec(
    "reconstruction",
    1,
    "How well the model reconstructs each gene of kept test samples.",
    (
        ArraySpec("mae", ("gene",), "float64", "mean absolute error, NaN without samples", "z"),
        ArraySpec("pcc", ("gene",), "float64", "Pearson r with the truth, NaN where undefined"),
        ArraySpec(
            "null_fraction", ("gene",), "float64",
            "share of wrong-gene correlations above the right one; significant under 0.01",
        ),
        *GENES,
    ),
)  # fmt: skip
CONTRIBUTIONS = StoreSpec(
    "contributions",
    2,
    "DeepLIFT contributions of every sample, aggregated over latent units.",
    (
        ArraySpec(
            "latent_total", ("region", "latent", "gene"), "float64",
            "sum over the region's kept training samples of abs(contribution) to a latent unit; "
            "of the signed one where the aggregation is mean; missing values stand at z = 0",
            None, "region",
        ),
        ArraySpec(
            "gene_total", ("region", "gene"), "float64",
            "sum over the region's kept training samples of contribution, where it is known",
            None, "region",
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
        matrix(
            "contribution", "contribution aggregated over latent units, missing = NaN",
            "latent activation",
        ),
        ArraySpec(
            "deeplift_reference", ("reference", "gene"), "float32",
            "inputs from which differences are explained; contributions are averaged over them",
            "z", "create",
        ),
        ArraySpec(
            "latent_weight", ("latent",), "float64",
            "weight of a latent unit in the aggregation; equal but for variance-weighted",
            None, "create",
        ),
        SAMPLE,
        GENE,
        index("latent", "bottleneck unit", "int32"),
        index("region", "region of whole shards", "int32"),
        index("reference", "number of the reference", "int32"),
    ),
)  # fmt: skip
SCORES = StoreSpec(
    "scores",
    2,
    "One score per gene: DeepLIFT contributions averaged over kept training samples.",
    (
        ArraySpec(
            "score", ("gene",), "float64",
            "abs(mean over kept training samples of contribution)",
        ),
        ArraySpec(
            "latent_score", ("latent", "gene"), "float32",
            "mean over kept training samples of abs(contribution) to a latent unit; of the signed "
            "one where the aggregation is mean",
        ),
        ArraySpec(
            "group_score", ("group", "gene"), "float32",
            "the score over the kept training samples of one group", required=False,
        ),
        ArraySpec(
            "n_grouped", ("group",), "int32", "kept training samples of the group",
            required=False,
        ),
        ArraySpec(
            "group", ("group",), "str", "value of the label that samples are grouped by",
            written="create", is_coord=True, required=False,
        ),
        *GENES,
        index("latent", "bottleneck unit", "int32"),
    ),
)  # fmt: skip
STABILITY = StoreSpec(
    "stability",
    1,
    "Scores and panels of replicates, other seeds and other halves of the samples, compared.",
    (
        ArraySpec("score", ("replicate", "gene"), "float32", "score of the gene in the replicate"),
        ArraySpec("rank", ("replicate", "gene"), "int32", "rank by score, 1 = best"),
        ArraySpec("overlap", ("replicate", "other"), "float64", "share of a panel in the other"),
        ArraySpec("rank_correlation", ("replicate", "other"), "float64", "Spearman's r of scores"),
        ArraySpec("n_panels", ("gene",), "int32", "replicates whose panel holds the gene"),
        *GENES,
        index("replicate", "seed-0...: all samples; half-0-a and half-0-b: complementary halves"),
        index("other", "the same replicates"),
    ),
)  # fmt: skip
KIND = coord("kind", "panel", "mined, selector, published or random")
LANDMARKS = StoreSpec(
    "landmarks",
    3,
    "The mined panel, and the panels it is compared with.",
    (
        ArraySpec("score", ("gene",), "float64", "DeepLIFT score of the gene"),
        ArraySpec("rank", ("gene",), "int32", "the mined panel in order, then the rest by score"),
        ArraySpec("is_landmark", ("gene",), "bool", "whether the gene is in the mined panel"),
        ArraySpec(
            "gain", ("gene",), "float64",
            "share of all genes' squares that the gene took off the ridge error when it joined the "
            "mined panel; NaN off the panel", required=False,
        ),
        ArraySpec(
            "is_forced", ("gene",), "bool", "whether the gene was forced on the panel",
            required=False,
        ),
        ArraySpec("panel_gene", ("panel", "position"), "str", "genes of a panel, best first"),
        ArraySpec("n_missing", ("panel",), "int32", "listed, not measured"),
        *GENES,
        index("panel", "mined, a selector, random-0..., or the name of a published list"),
        KIND,
        coord("selector", "panel", "how its genes were chosen: a selector, or 'published'"),
        index("position", "position in the panel, 0 = first", "int32"),
    ),
    upgrades={2: with_kinds},
)  # fmt: skip
_EVALUATED = ("panel", "predictor", "cohort")
EVALUATION = StoreSpec(
    "evaluation",
    3,
    "How well each panel predicts the genes that it does not measure, by each predictor.",
    (
        ArraySpec(
            "mae", (*_EVALUATED, "gene"), "float32",
            "mean absolute error of a target gene, NaN where it is no common target", "z",
        ),
        ArraySpec(
            "mae_within", (*_EVALUATED, "gene"), "float32",
            "the same after truth and prediction are centred by series", "z",
        ),
        ArraySpec("pcc", (*_EVALUATED, "gene"), "float32", "Pearson r with the truth"),
        ArraySpec(
            "null_fraction", (*_EVALUATED, "gene"), "float32",
            "share of wrong-gene correlations above the right one; NaN for random panels",
        ),
        ArraySpec(
            "sample_error", ("panel", "predictor", "judged"), "float32",
            "mean absolute error of a sample over common targets", "z",
        ),
        ArraySpec("mean_mae", _EVALUATED, "float64", "mean of mae over common targets", "z"),
        ArraySpec(
            "interval_samples", (*_EVALUATED, "bound"), "float64",
            "95 % bootstrap interval of the mean error when samples are drawn again", "z",
        ),
        ArraySpec(
            "interval_series", (*_EVALUATED, "bound"), "float64",
            "the same when whole series are drawn again; NaN with fewer than 3", "z",
        ),
        ArraySpec(
            "share_better", _EVALUATED, "float64",
            "share of targets on which the first panel has a lower error than this one",
        ),
        ArraySpec(
            "t_pvalue", _EVALUATED, "float64", "paired t-test of the first panel and this"
        ),
        ArraySpec(
            "wilcoxon_pvalue", _EVALUATED, "float64", "Wilcoxon's signed rank test of the same"
        ),
        ArraySpec(
            "setting", ("panel", "predictor"), "float64",
            "ridge penalty or number of neighbours, chosen without the test split",
        ),
        ArraySpec("size", ("panel",), "int32", "genes of the panel"),
        ArraySpec("n_samples", ("cohort",), "int32", "samples that the cohort is evaluated on"),
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
        GENE,
        GENE_SYMBOL,
        index("panel", "the panels of landmarks.zarr, and 'mean': predict the training mean"),
        coord("kind", "panel", "that of landmarks.zarr; 'baseline' of the mean"),
        index("predictor", "ridge, knn or dgex"),
        index("cohort", "'test' for held-out samples, or the name of a cohort source"),
        index("judged", "number of the judged sample", "int32"),
        coord("judged_sample", "judged", "its name"),
        coord("judged_series", "judged", "study it belongs to"),
        coord("judged_cohort", "judged", "cohort it belongs to"),
        index("bound", "end of an interval: low or high"),
    ),
    upgrades={2: with_kinds},
)  # fmt: skip
ENRICHMENT = StoreSpec(
    "enrichment",
    2,
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
        index("panel", "the panels of landmarks.zarr"),
        KIND,
        index("term", "identifier of the gene set"),
        coord("term_name", "term", "the term in words"),
    ),
    upgrades={1: with_kinds},
)  # fmt: skip
GROUPS = StoreSpec(
    "groups",
    2,
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
        SAMPLE,
        SERIES,
        coord("is_trained_on", "sample", "whether the model was trained on it", dtype="bool"),
        coord("group", "sample", "value of the sample label that tells the groups"),
        index("representation", "latent, pca, all genes, or the genes of a panel"),
        coord("kind", "representation", "that of the panel, '' where it is none"),
        index("merge", "number of the merge", "int32"),
        index("node", "what a merge joins, how far apart, and the samples below"),
    ),
    upgrades={1: with_kinds},
)  # fmt: skip

CANDIDATES = StoreSpec(
    "candidates",
    1,
    "The panels of all sizes that are compared in one fold.",
    (
        ArraySpec("panel_gene", ("panel", "position"), "str", "genes of a panel in order"),
        ArraySpec("n_missing", ("panel",), "int32", "listed, not measured"),
        *GENES,
        index("panel", "family/size, as in greedy/100 and random-3/100"),
        coord("kind", "panel", "selector, published, random, or subset: random of a list"),
        coord("family", "panel", "selector or list the panel comes from"),
        coord("size", "panel", "genes of the panel", dtype="int32"),
        index("position", "position in the panel, 0 = first", "int32"),
    ),
)
_ROW = ("row", "predictor")
COMPARISON = StoreSpec(
    "comparison",
    2,
    "Panels of several sizes, cross-validated over whole series: every sample is tested once.",
    (
        ArraySpec(
            "sample_error", ("panel", "predictor", "sample"), "float32",
            "mean absolute error of a sample over its fold's common targets, when held out", "z",
        ),
        ArraySpec(
            "mae", ("panel", "predictor", "gene"), "float32",
            "mean absolute error of a gene, mean over the folds in which it is a target", "z",
        ),
        ArraySpec("n_folds", ("gene",), "int32", "folds in which the gene is a common target"),
        ArraySpec("fold_mae", ("panel", "predictor", "fold"), "float64", "mean error by fold", "z"),
        ArraySpec("mean_mae", ("panel", "predictor"), "float64", "mean error of all samples", "z"),
        ArraySpec(
            "mae_within", ("panel", "predictor"), "float64",
            "mean error after centring by series, mean over folds", "z",
        ),
        ArraySpec(
            "share_failed", ("panel", "predictor"), "float64",
            "share of targets that fail the permutation test, mean over folds; NaN where not run",
        ),
        ArraySpec("row_mae", _ROW, "float64", "mean error of the panels of a family and size", "z"),
        ArraySpec(
            "row_interval", (*_ROW, "bound"), "float64",
            "its 95 % bootstrap interval when whole series are drawn again", "z",
        ),
        ArraySpec("row_best", _ROW, "float64", "lowest mean error of a panel of the row", "z"),
        ArraySpec("row_worst", _ROW, "float64", "highest mean error of a panel of the row", "z"),
        ArraySpec(
            "versus_random", _ROW, "float64",
            "mean error less that of random panels of the size", "z"
        ),
        ArraySpec(
            "versus_random_interval", (*_ROW, "bound"), "float64",
            "its 95 % bootstrap interval when whole series are drawn again", "z",
        ),
        ArraySpec(
            "n_random_better", _ROW, "int32",
            "random panels of its size with a lower error, -1: none"
        ),
        ArraySpec(
            "share_better", _ROW, "float64",
            "share of genes with a lower error than with random panels of its size",
        ),
        ArraySpec(
            "t_pvalue", _ROW, "float64", "paired t-test against random panels of its size, by gene"
        ),
        ArraySpec("wilcoxon_pvalue", _ROW, "float64", "Wilcoxon's signed rank test of the same"),
        ArraySpec("n_panels", ("row",), "int32", "panels of the row"),
        index("panel", "family/size, and 'mean/0': predict the training mean"),
        coord("kind", "panel", "that of the fold's panels; 'baseline' of the mean"),
        coord("family", "panel", "selector or list; random panels share theirs"),
        coord("size", "panel", "genes of the panel", dtype="int32"),
        index("predictor", "ridge, knn or dgex"),
        index("row", "family/size"),
        coord("row_kind", "row", "kind of its panels"),
        coord("row_family", "row", "selector or list"),
        coord("row_size", "row", "genes of each panel", dtype="int32"),
        SAMPLE,
        SERIES,
        coord("fold_of", "sample", "fold in which the sample was tested", dtype="int32"),
        GENE,
        GENE_SYMBOL,
        index("fold", "number of the fold", "int32"),
        index("bound", "end of an interval: low or high"),
    ),
    upgrades={1: with_kinds},
)  # fmt: skip

_LANDMARK = index("landmark", "gene of the panel, in its order, as the study calls it")
BUNDLE = StoreSpec(
    "bundle",
    1,
    "A panel to take home: what predicts all other genes from it, with intervals, in one file.",
    (
        _LANDMARK,
        coord("landmark_symbol", "landmark", "its symbol, '' unknown"),
        coord("landmark_id", "landmark", "its gene ID, '' unknown"),
        ArraySpec("landmark_mean", ("landmark",), "float64", "mean over training samples", "log2"),
        ArraySpec("landmark_std", ("landmark",), "float64", "std over training samples", "log2"),
        ArraySpec("landmark_low", ("landmark",), "float32", "lowest in training", "log2"),
        ArraySpec("landmark_high", ("landmark",), "float32", "highest in training", "log2"),
        ArraySpec(
            "landmark_mse", ("landmark",), "float64",
            "mean square error of the gene where the others stand in for it, left-out series", "z",
        ),
        ArraySpec(
            "correlation", ("landmark", "other"), "float32", "of panel genes in training samples"
        ),
        ArraySpec(
            "panel_reference", ("quantile",), "float64",
            "ascending: mean of each order statistic of the panel in training samples", "log2",
        ),
        GENE,
        GENE_SYMBOL,
        GENE_ID,
        ArraySpec("gene_mean", ("gene",), "float64", "mean over training samples", "log2"),
        ArraySpec("gene_std", ("gene",), "float64", "std over training samples", "log2"),
        ArraySpec(
            "coefficient", ("landmark", "gene"), "float32", "of the ridge regression", "z"
        ),
        ArraySpec("intercept", ("gene",), "float32", "of the ridge regression", "z"),
        ArraySpec(
            "half_width", ("scale", "gene"), "float32",
            "half the width of the 95 % interval, calibrated on left-out series", "log2",
        ),
        ArraySpec(
            "mean_half_width", ("gene",), "float32",
            "the same of an interval around the training mean", "log2",
        ),
        ArraySpec(
            "explained", ("scale", "gene"), "float32",
            "1 - mean square error / that of the training mean, left-out series",
        ),
        ArraySpec(
            "factor", ("scale",), "float64", "half the width of intervals in spreads of the gene"
        ),
        ArraySpec("error", ("scale",), "float64", "mean absolute error, left-out series", "z"),
        ArraySpec("novelty_usual", ("scale",), "float64", "median over left-out samples"),
        ArraySpec("novelty_limit", ("scale",), "float64", "99 % of left-out samples are below it"),
        index("other", "gene of the panel again"),
        index("scale", "how measured values are brought to the study's: quantile, shift or given"),
        index("quantile", "rank, 0 = lowest", "int32"),
    ),
)  # fmt: skip
PREDICTION = StoreSpec(
    "prediction",
    2,
    "Genes predicted from a measured panel by a bundle, with their 95 % intervals.",
    (
        matrix("predicted", "predicted expression, NaN where too little was measured", "log2"),
        matrix("lower", "lower end of the 95 % interval", "log2"),
        matrix("upper", "upper end of the 95 % interval", "log2"),
        SAMPLE,
        GENE,
        GENE_SYMBOL,
        GENE_ID,
        ArraySpec(
            "explained", ("gene",), "float32",
            "1 - mean square error / that of the training mean, left-out series",
        ),
        ArraySpec(
            "half_width", ("gene",), "float32", "half the width, with the genes that the file has",
            "log2",
        ),
        ArraySpec(
            "gene_trusted", ("gene",), "bool", "predicted better than by the training mean"
        ),
        ArraySpec(
            "novelty", ("sample",), "float32",
            "over 1: less like training than 99 % of left-out samples",
        ),
        ArraySpec("n_imputed", ("sample",), "int32", "panel genes that others stand in for"),
        ArraySpec(
            "n_out_of_range", ("sample",), "int32", "panel genes beyond their training range"
        ),
        ArraySpec(
            "lies_elsewhere", ("sample",), "bool",
            "values lie elsewhere than training's, or than those of the file's other samples",
        ),
        ArraySpec(
            "sample_trusted", ("sample",), "bool",
            "like training, enough measured, and not elsewhere",
        ),
    ),
)  # fmt: skip

MODEL = StoreSpec("model", 2, "A trained network: a folder of its own, not a Zarr store.", ())
MODEL_FILE, BEGUN_FILE = "model.json", "training.json"

SPECS = {
    spec.name: spec
    for spec in (
        RAW, RAW_LINK, EXPRESSION, NORMALIZED, SAMPLES, LATENT, RECONSTRUCTION, CONTRIBUTIONS,
        SCORES, STABILITY, LANDMARKS,
        EVALUATION, CANDIDATES, COMPARISON, GROUPS, ENRICHMENT, BUNDLE, PREDICTION,
    )
}  # fmt: skip
