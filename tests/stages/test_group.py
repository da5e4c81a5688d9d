"""Group: known groups beside clusters of latent units, components and panels; nothing invented."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dglzarr.errors import ConfigError, SchemaError, StoreError
from dglzarr.kernels.deeplift import forward
from dglzarr.kernels.moments import standardize
from dglzarr.models.files import encoder_layers, load_model
from dglzarr.query import table
from dglzarr.stages.group import GroupOptions, group
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import NORMALIZED, RAW
from dglzarr.storage.store import open_store
from tests.builders import text, times, write_landmarks, write_matrix, write_model, write_samples

N_SAMPLES, N_GENES = 60, 30
LABELS = ["liver", "skin", "lung"]
TISSUE = np.array(LABELS)[np.arange(N_SAMPLES) % 3].tolist()


class Study:
    def __init__(self, folder, tissues=TISSUE):
        rng = np.random.default_rng(1)
        values = rng.normal(8, 1, (N_SAMPLES, N_GENES)).astype(np.float32)
        values[:, :10] += 4 * (np.arange(N_SAMPLES) % 3)[:, None]
        values[5, 20] = np.nan
        self.source = write_matrix(folder / "n.zarr", NORMALIZED, values, tissues=tissues)
        keep = np.ones(N_SAMPLES, dtype=bool)
        keep[7] = False
        self.samples = write_samples(folder / "s.zarr", self.source, keep=keep)
        self.model = write_model(folder / "model", self.source, self.samples)
        genes = [str(g) for g in open_store(self.source)["gene"].values]
        draws = [rng.permutation(genes)[:10].tolist() for _ in range(2)]
        panels = {"mined": genes[:10], "random-0": draws[0], "random-1": draws[1]}
        self.landmarks = write_landmarks(folder / "landmarks.zarr", panels, {"gene": text(genes)})
        self.target = str(folder / "groups.zarr")

    def group(self, *, cohorts=(), overwrite=False, **options):
        given = {"samples": self.samples, "landmarks": self.landmarks, "model": self.model}
        chosen = GroupOptions(**{"label": "tissue", **options})
        run = Run(overwrite=overwrite)
        return group(self.source, self.target, **given, cohorts=cohorts, options=chosen, run=run)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_group__every_representation_of_the_same_samples(study):
    summary = study.group()
    ds = open_store(study.target)
    frame = table(study.target, top=3)
    assert frame.index.tolist() == ["latent", "pca", "all genes"]
    assert frame["ari"].tolist() == ds["ari"].values[:3].tolist()
    names = ["latent", "pca", "all genes", "panel mined", "panel random-0", "panel random-1"]
    assert ds["representation"].values.tolist() == names
    assert ds["kind"].values.tolist() == ["", "", "", "mined", "random", "random"]
    assert ds["group"].values.tolist() == TISSUE
    assert summary.details["groups"] == {"liver": 20, "lung": 20, "skin": 20}
    assert summary.details["n_components"] == 4
    assert 0 < summary.details["n_trained_on"] < N_SAMPLES
    assert (ds["reason"].values == "").all()
    # the planted genes are the mined panel's
    assert float(ds["ari"].sel(representation="panel mined")) == 1.0
    silhouette = dict(zip(names, ds["silhouette"].values.tolist(), strict=True))
    assert silhouette["panel mined"] > silhouette["panel random-0"] > 0


def silhouette(features):
    """The mean silhouette of the three tissues, each of 20 samples, from all distances."""
    sums = np.array([cdist(features, features)[:, np.equal(TISSUE, t)].sum(axis=1) for t in LABELS])
    within = sums.T[np.equal.outer(TISSUE, LABELS)] / 19
    between = np.where(np.equal.outer(LABELS, TISSUE), np.inf, sums).min(axis=0) / 20
    return ((between - within) / np.maximum(within, between)).mean()


def test_group__silhouettes_from_all_distances(study):
    study.group()
    ds, source = open_store(study.target), open_store(study.source)
    saved = load_model(Path(study.model))
    z = standardize(source["expression"].values, saved.gene_mean, saved.gene_std)
    fitted = open_store(study.samples)["keep"].values & (source["split"].values == 0)
    center = z[fitted].mean(axis=0)
    axes = np.linalg.svd(z[fitted] - center, full_matrices=False)[2][:4]
    expected = {
        "latent": forward(encoder_layers(saved), z)[-1][1],
        "pca": (z - center) @ axes.T,
        "all genes": z,
        "panel mined": z[:, :10],
    }
    for name, features in expected.items():
        found = float(ds["silhouette"].sel(representation=name))
        assert found == pytest.approx(silhouette(features), abs=1e-5), name


def test_group__samples_of_a_cohort_by_its_own_gene_names(study, tmp_path):
    rng = np.random.default_rng(2)
    values = rng.normal(8, 1, (6, N_GENES)).astype(np.float32)
    genes = [str(g) for g in open_store(study.source)["gene"].values]
    raw = write_matrix(
        tmp_path / "GSE9.zarr", RAW, values, tissues=["lung", "skin", "", "bone", "lung", "skin"],
        genes=genes[::-1], details={"scale": "log2"}, prefix="c",
    )  # fmt: skip
    summary = study.group(cohorts=[raw], series=["GSE1"])
    assert summary.sizes["sample"] == N_SAMPLES + 5
    ds = open_store(study.target)
    assert ds["group"].values.tolist()[-5:] == ["lung", "skin", "bone", "lung", "skin"]
    assert not ds["is_trained_on"].values[-5:].any()
    assert summary.details["groups"] == {"bone": 1, "liver": 20, "lung": 22, "skin": 22}


def test_group__a_cohort_that_measures_too_few_genes(study, tmp_path):
    genes = [str(g) for g in open_store(study.source)["gene"].values][:5]
    raw = write_matrix(
        tmp_path / "GSE9.zarr", RAW, np.ones((3, 5), dtype=np.float32), genes=genes, prefix="c",
        tissues=["lung", "skin", "bone"], series=["GSE9"] * 3, details={"scale": "log2"},
    )  # fmt: skip
    message = "group.series: expected cohorts that measure 20% of the genes, got 17% of GSE9. Name"
    with pytest.raises(ConfigError, match=message):
        study.group(cohorts=[raw])
    assert study.group(cohorts=[raw], series=["GSE1"]).sizes["sample"] == N_SAMPLES


def test_group__a_sample_of_two_sources(study, tmp_path):
    values = np.ones((3, N_GENES), dtype=np.float32)
    raw = write_matrix(tmp_path / "GSE9.zarr", RAW, values, tissues=["lung", "skin", "lung"])
    with pytest.raises(ConfigError, match=r"expected each labelled sample once, got 's000' of two"):
        study.group(cohorts=[raw])


def test_group__one_group_is_nan_with_a_reason(tmp_path):
    study = Study(tmp_path, tissues=["liver"] * N_SAMPLES)
    study.group()
    ds = open_store(study.target)
    for name in ("ari", "nmi", "silhouette"):
        assert np.isnan(ds[name].values).all()
    assert set(ds["reason"].values.tolist()) == {"all samples are of one group"}


def test_group__samples_without_the_label_are_left_out(tmp_path):
    tissues = [t if i > 9 else "" for i, t in enumerate(TISSUE)]
    study = Study(tmp_path, tissues=tissues)
    assert study.group().sizes["sample"] == N_SAMPLES - 10
    assert open_store(study.target)["sample"].values.tolist()[0] == "s010"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "organ"}, r"group\.label: .* one of \['tissue'\], got 'organ'"),
        ({"series": ["GSE7"]}, r"group\.series: expected series of the study, got \['GSE7'\]"),
    ],
)
def test_group__unknown_label_or_series(study, options, message):
    with pytest.raises(ConfigError, match=message):
        study.group(**options)


def test_group__too_few_samples(tmp_path):
    study = Study(tmp_path, tissues=["a", "b"] + [""] * (N_SAMPLES - 2))
    with pytest.raises(ConfigError, match=r"expected 3 to 4096 samples with a label .* got 2"):
        study.group()


def test_group__linkage_makes_the_tree(study):
    trees = {}
    for linkage in ("ward", "average"):
        study.group(linkage=linkage, overwrite=True)
        trees[linkage] = open_store(study.target)["tree"].sel(representation="pca").values
    assert trees["ward"][-1, 2] > 1.5 * trees["average"][-1, 2], "of sums of squares, not of means"


def test_group__second_call_touches_nothing(study):
    study.group()
    before = times(study.target)
    assert study.group().state == "unchanged"
    assert times(study.target) == before
    with pytest.raises(StoreError, match=r"group\.linkage: 'ward' -> 'average'"):
        study.group(linkage="average")


def test_group__model_of_other_genes(study, tmp_path):
    other = write_matrix(tmp_path / "o.zarr", NORMALIZED, np.ones((16, 5)), tissues=["a"] * 16)
    with pytest.raises(SchemaError, match="expected the 30 genes"):
        group(
            other,
            study.target,
            samples=study.samples,
            landmarks=study.landmarks,
            model=study.model,
            options=GroupOptions(label="tissue"),
        )
