"""What the stores hold that come of the model: latent units, reconstruction, scores, replicates."""

from dglzarr.specs import GENE, GENE_ID, GENE_SYMBOL, SAMPLE, ArraySpec, StoreSpec, index, matrix

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
        GENE,
        GENE_ID,
        GENE_SYMBOL,
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
        GENE,
        GENE_ID,
        GENE_SYMBOL,
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
        GENE,
        GENE_ID,
        GENE_SYMBOL,
        index("replicate", "seed-0...: all samples; half-0-a and half-0-b: complementary halves"),
        index("other", "the same replicates"),
    ),
)  # fmt: skip
