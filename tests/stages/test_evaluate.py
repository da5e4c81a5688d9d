import copy
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from dglzarr.errors import ConfigError, StoreError
from dglzarr.evaluation.cohorts import HeldOut
from dglzarr.evaluation.measures import evaluate_predictor
from dglzarr.evaluation.predictors import Training, fit_predictors, training_of
from dglzarr.kernels.comparison import bootstrap_interval
from dglzarr.kernels.metrics import mae_within_series, null_fraction
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.stages import evaluate as stage
from dglzarr.stages.evaluate import EvaluateOptions, evaluate
from dglzarr.storage import store
from dglzarr.storage.options import Run
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import NORMALIZED, RAW
from dglzarr.storage.store import is_complete, open_store, store_input
from tests.builders import (
    TEST,
    TRAIN,
    VALIDATION,
    Breaks,
    BrokenError,
    digests,
    no_computing,
    simulate,
    splits,
    text,
    times,
    write_landmarks,
    write_matrix,
    write_samples,
)

N_SAMPLES, N_GENES = 100, 40
GENES = [f"{i:03d}_at" for i in range(N_GENES)]
SYMBOLS = [f"SYM{i}" for i in range(N_GENES)]
SYMBOLS[9] = SYMBOLS[1]  # a second probe of a landmark
SYMBOLS[20] = SYMBOLS[21]  # two probes of a target
SYMBOLS[30] = ""
PANELS = {"mined": [1, 3, 5, 7], "l1000": [3, 8], "random-0": [0, 2, 4, 6]}
SHARED = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
ALPHAS = (0.1, 10.0, 1000.0)
LABELS = {"gene": text(GENES), "gene_symbol": text(SYMBOLS), "gene_id": text([""] * N_GENES)}


class Study:
    """A normalized store, its mask and panels, and the answers by numpy and scikit-learn."""

    def __init__(
        self, folder, values, *, split=None, keep=None, shard=16, panels=PANELS, series=None
    ):
        self.folder, self.values = folder, values
        self.split = splits(len(values)) if split is None else split
        self.keep = np.random.default_rng(3).random(len(values)) < 0.9 if keep is None else keep
        self.source = write_matrix(
            folder / "normalized", NORMALIZED, values,
            split=self.split, shard=shard, genes=GENES, symbols=SYMBOLS, series=series,
        )  # fmt: skip
        self.samples = write_samples(folder / "samples", self.source, keep=self.keep)
        listed = {name: [GENES[i] for i in genes] for name, genes in panels.items()}
        self.landmarks = write_landmarks(folder / "landmarks", listed, LABELS)
        self.target = str(folder / "evaluation")

    def evaluated_at(self, folder):
        other = copy.copy(self)
        other.folder, other.target = folder, str(folder / "evaluation")
        return other

    def evaluate(self, *, overwrite=False, cohorts=(), seed=0, **options):
        return evaluate(
            self.source,
            self.target,
            samples=self.samples,
            landmarks=self.landmarks,
            cohorts=cohorts,
            seed=seed,
            options=EvaluateOptions(**{"alphas": ALPHAS, **options}),
            run=Run(overwrite=overwrite),
        )

    @property
    def z(self):
        kept = self.values[self.keep & (self.split == TRAIN)].astype(np.float64)
        return (self.values - np.nanmean(kept, axis=0)) / np.nanstd(kept, axis=0)

    def rows(self, split):
        return self.keep & (self.split == split)

    def ridge(self, panel, alpha, fit, predict, targets):
        x = np.nan_to_num(self.z)
        model = Ridge(alpha=alpha).fit(x[fit][:, panel], x[fit][:, targets])
        return model.predict(x[predict][:, panel]).reshape(-1, len(targets))


@pytest.fixture(scope="module")
def values():
    return simulate(N_SAMPLES, N_GENES, n_duplicates=0, missing_fraction=0.02).expression


@pytest.fixture(scope="module")
def made(tmp_path_factory, values):
    return Study(tmp_path_factory.mktemp("study"), values)


@pytest.fixture
def study(made, tmp_path):
    return made.evaluated_at(tmp_path)


def test_evaluate__targets_share_no_gene_with_any_panel(study):
    summary = study.evaluate()
    is_target = read_array(study.target, "is_target")
    assert np.flatnonzero(~is_target).tolist() == SHARED
    assert summary.details["n_targets"] == 30
    mae = open_store(study.target)["mae"].values
    assert np.isnan(mae[..., ~is_target]).all()
    assert not np.isnan(mae[..., is_target]).any()


def test_evaluate__is_ridge_of_scikit_learn(study):
    study.evaluate()
    ds = open_store(study.target)
    assert list(ds["panel"].values) == ["mean", *PANELS]
    assert list(ds["cohort"].values) == ["test"]
    assert ds["n_samples"].values.tolist() == [study.rows(TEST).sum()]
    targets = np.flatnonzero(ds["is_target"].values)
    truth = study.z[study.rows(TEST)][:, targets]
    for name, panel in PANELS.items():
        errors = []
        for alpha in ALPHAS:
            tuned = study.ridge(panel, alpha, study.rows(TRAIN), study.rows(VALIDATION), targets)
            known = np.nan_to_num(study.z[study.rows(VALIDATION)][:, targets])
            errors.append(np.abs(tuned - known).sum())
        alpha = ALPHAS[int(np.argmin(errors))]
        found = ds.sel(panel=name, cohort="test", predictor="ridge")
        assert float(found["setting"]) == alpha
        predicted = study.ridge(panel, alpha, study.rows(TRAIN), study.rows(TEST), targets)
        np.testing.assert_allclose(
            found["mae"].values[targets], np.nanmean(np.abs(truth - predicted), axis=0), rtol=1e-4
        )
        for i, target in enumerate(targets):
            known = ~np.isnan(truth[:, i])
            r = np.corrcoef(truth[known, i], predicted[known, i])[0, 1]
            assert float(found["pcc"][target]) == pytest.approx(r, abs=1e-4)
        if name.startswith("random"):
            assert np.isnan(found["null_fraction"].values).all()
        else:
            wanted = null_fraction(truth, predicted)
            np.testing.assert_allclose(found["null_fraction"].values[targets], wanted, atol=1e-6)


def test_evaluate__baseline_is_the_training_mean(study):
    summary = study.evaluate()
    ds = open_store(study.target).sel(panel="mean", cohort="test", predictor="ridge")
    targets = np.flatnonzero(ds["is_target"].values)
    wanted = np.nanmean(np.abs(study.z[study.rows(TEST)]), axis=0)
    np.testing.assert_allclose(ds["mae"].values[targets], wanted[targets], rtol=1e-5)
    assert np.isnan(ds["pcc"].values).all()
    assert np.isnan(float(ds["setting"]))
    assert summary.details["mean_mae"]["mean"] == pytest.approx(wanted[targets].mean(), rel=1e-5)


def test_evaluate__nearest_genes_beside_ridge(study):
    study.evaluate(predictors=("ridge", "knn"), neighbors=(1, 2, 50))
    ds = open_store(study.target).sel(cohort="test")
    assert list(ds["predictor"].values) == ["ridge", "knn"]
    targets = np.flatnonzero(ds["is_target"].values)
    x = np.nan_to_num(study.z)
    truth = study.z[study.rows(TEST)][:, targets]
    for name, panel in PANELS.items():
        fit = x[study.rows(TRAIN)]
        near = NearestNeighbors(n_neighbors=2).fit(fit[:, panel].T)
        near = near.kneighbors(fit[:, targets].T, return_distance=False)
        found = ds.sel(panel=name, predictor="knn")
        tuned = {}
        for k in (1, 2):
            use = np.array(panel)[near[:, :k]]
            predicted = [x[study.rows(s)][:, use].mean(axis=2) for s in (VALIDATION, TEST)]
            error = np.abs(predicted[0] - x[study.rows(VALIDATION)][:, targets]).sum()
            tuned[k] = error, np.nanmean(np.abs(truth - predicted[1]), axis=0)
        best = min(tuned, key=tuned.get)
        assert float(found["setting"]) == best
        np.testing.assert_allclose(found["mae"].values[targets], tuned[best][1], rtol=1e-4)
    both = ds["mae"].sel(panel="mean").values
    np.testing.assert_array_equal(both[0], both[1])


def test_evaluate__summaries_are_those_of_the_genes_and_samples(study):
    study.evaluate()
    ds = open_store(study.target).sel(cohort="test", predictor="ridge")
    known = ds["is_target"].values
    mae = ds["mae"].values[:, known].astype(np.float64)
    np.testing.assert_allclose(ds["mean_mae"].values, mae.mean(axis=1), rtol=1e-6)
    assert ds["size"].values.tolist() == [0, 4, 2, 4]
    errors = ds["sample_error"].values
    assert errors.shape == (4, study.rows(TEST).sum())
    np.testing.assert_allclose(errors.mean(axis=1), mae.mean(axis=1), rtol=0.02)
    interval = ds["interval_samples"].values
    np.testing.assert_array_equal(interval, bootstrap_interval(errors, np.arange(errors.shape[1])))
    assert (interval[:, 0] < errors.mean(axis=1)).all()
    assert (interval[:, 1] > errors.mean(axis=1)).all()
    assert np.isnan(ds["interval_series"].values).all()
    assert str(ds["reason"].values) == "1 series, fewer than 3: no interval over series"
    t = scipy.stats.ttest_rel(mae[1], mae[2]).pvalue
    assert float(ds["t_pvalue"].sel(panel="l1000")) == pytest.approx(t, rel=1e-3)
    better = float(ds["share_better"].sel(panel="l1000"))
    assert better == (mae[1] < mae[2]).mean()
    assert float(ds["share_better"].sel(panel="mined")) == 0


def test_evaluate__error_within_series(tmp_path, values):
    series = np.array([f"GSE{i % 4}" for i in range(N_SAMPLES)])
    study = Study(tmp_path, values, series=series)
    study.evaluate()
    ds = open_store(study.target).sel(panel="mean", cohort="test", predictor="ridge")
    targets = np.flatnonzero(ds["is_target"].values)
    rows = study.rows(TEST)
    wanted = mae_within_series(study.z[rows][:, targets], np.zeros((1, 1)), series[rows])
    np.testing.assert_allclose(ds["mae_within"].values[targets], wanted, rtol=1e-4)
    assert int(ds["n_series"]) == 4
    assert not np.isnan(ds["interval_series"].values).any()
    assert set(ds["judged_series"].values.tolist()) == set(series)


def test_evaluate__the_papers_targets_may_share_a_gene(study):
    study.evaluate(target_rule="feature")
    is_target = read_array(study.target, "is_target")
    assert np.flatnonzero(~is_target).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8]


def test_evaluate__a_gene_constant_in_training_has_no_z_units(tmp_path, values):
    values = values.copy()
    values[splits(N_SAMPLES) != TEST, 15] = 7.0
    study = Study(tmp_path, values)
    summary = study.evaluate()
    mae = open_store(study.target)["mae"].sel(cohort="test")
    assert np.isnan(mae.sel(gene=GENES[15])).all()
    assert summary.details["n_unjudged_targets"] == 1


def test_evaluate__two_samples_are_evaluated_in_part_and_it_says_so(tmp_path, values):
    split = np.zeros(N_SAMPLES, dtype=np.int8)
    split[[4, 9]] = TEST
    study = Study(tmp_path, values, split=split, keep=np.ones(N_SAMPLES, dtype=bool))
    study.evaluate()
    ds = open_store(study.target).sel(cohort="test", predictor="ridge", panel="mined")
    assert str(ds["reason"].values) == "2 samples, fewer than 3: no correlations and no intervals"
    assert np.isnan(ds["pcc"].values).all()
    assert np.isnan(ds["interval_samples"].values).all()
    assert np.isfinite(float(ds["mean_mae"]))


@pytest.mark.parametrize("slice_nbytes", [1, 700, 5000])
def test_evaluate_predictor__slices_do_not_matter(study, slice_nbytes):
    targets = np.arange(10, N_GENES)
    training = Training(study.source, study.samples, study.rows(TRAIN), (study.rows(VALIDATION),))
    options = {"alphas": ALPHAS, "neighbors": (2,)}
    cohort = HeldOut(study.source, study.samples, study.rows(TEST))
    panel = np.array([7, 3, 5])
    fitted = fit_predictors(("ridge", "knn"), panel, targets, training, **options)
    for predictor in fitted.values():
        whole = evaluate_predictor(predictor, cohort, landmarks=panel, targets=targets)
        parts = evaluate_predictor(
            predictor, cohort, landmarks=panel, targets=targets, slice_nbytes=slice_nbytes
        )
        for a, b in zip(whole, parts, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_evaluate__a_gene_no_training_sample_measures(tmp_path, values):
    values = values.copy()
    values[:, 15] = np.nan
    study = Study(tmp_path, values, panels={"mined": [15, 1]})
    study.evaluate()
    mae = open_store(study.target)["mae"].sel(cohort="test", predictor="ridge")
    assert np.isnan(mae.sel(gene=GENES[15])).all()
    assert not np.isnan(mae.sel(gene=GENES[20])).any()


def test_evaluate__missing_truth_does_not_count(tmp_path, values):
    values = values.copy()
    study_rows = np.flatnonzero(splits(N_SAMPLES) == TEST)
    values[study_rows[:-4], 12] = np.nan
    study = Study(tmp_path, values)
    study.evaluate()
    known = study.rows(TEST) & ~np.isnan(values[:, 12])
    found = float(open_store(study.target)["mae"].sel(panel="mean", cohort="test")[0, 12])
    assert found == pytest.approx(np.abs(study.z[known, 12]).mean(), rel=1e-5)


@pytest.mark.parametrize("n_series", [4, 1])
def test_evaluate__without_validation_each_fifth_of_the_series_chooses(tmp_path, values, n_series):
    """Whole series where there are some, and the fit takes all training samples."""
    split = splits(N_SAMPLES, n_validation=0)
    series = [f"GSE{i % n_series}" for i in range(N_SAMPLES)]
    study = Study(tmp_path, values, split=split, series=series)
    study.evaluate(predictors=("ridge", "knn"))
    ds = open_store(study.target)
    targets = np.flatnonzero(ds["is_target"].values)
    train = study.rows(TRAIN)
    parts = training_of(study.source, study.samples, np.where(train, 0, 2)).held
    assert (np.sum(parts, axis=0) == train).all()
    of_part = [{series[i] for i in np.flatnonzero(part)} for part in parts]
    assert len(parts) == (4 if n_series == 4 else 5)
    assert n_series == 1 or all(not a & b for a, b in combinations(of_part, 2))
    for name, panel in PANELS.items():
        errors = np.zeros(len(ALPHAS))
        for part in parts:
            truth = np.nan_to_num(study.z[part][:, targets])
            rest = train & ~part
            errors += [
                np.abs(study.ridge(panel, a, rest, part, targets) - truth).sum() for a in ALPHAS
            ]
        alpha = ALPHAS[int(np.argmin(errors))]
        found = ds.sel(panel=name, cohort="test", predictor="ridge")
        assert float(found["setting"]) == alpha
        predicted = study.ridge(panel, alpha, train, study.rows(TEST), targets)
        wanted = np.nanmean(np.abs(study.z[study.rows(TEST)][:, targets] - predicted), axis=0)
        np.testing.assert_allclose(found["mae"].values[targets], wanted, rtol=1e-4)


# ---------------------------------------------------------------- cohorts


def write_cohort(folder, values, *, name="skin", scale="raw"):
    """Genes by symbol in another order, two rows of one gene, and one row of an unknown gene."""
    order = [25, 22, 3, 1, 8, 5, 7, 12, 12]
    shown = 2.0 ** values[:, order] - 1 if scale == "raw" else values[:, order]
    genes = [f"ENSG{i:011d}.{i % 3}" for i in range(len(order) + 1)]
    symbols = [SYMBOLS[i] for i in order] + ["NOBODY"]
    uri = write_matrix(
        folder / f"{name}.zarr", RAW, np.hstack([shown, shown[:, :1]]).astype(np.float32),
        genes=genes, symbols=symbols, details={"scale": scale},
    )  # fmt: skip
    return uri, order


@pytest.mark.parametrize("scale", ["raw", "log2"])
@pytest.mark.parametrize("cohort_scale", ["train", "cohort"])
def test_evaluate__cohort_by_symbol(study, rng, scale, cohort_scale):
    values = rng.uniform(4, 14, (24, N_GENES)).astype(np.float32)
    cohort, order = write_cohort(study.folder, values, scale=scale)
    study.evaluate(cohorts=[cohort], cohort_scale=cohort_scale)
    ds = open_store(study.target)
    assert list(ds["cohort"].values) == ["test", "skin"]
    aligned = np.full((24, N_GENES), np.nan)
    aligned[:, order] = values[:, order]
    aligned[:, 9] = values[:, 1]  # the second probe of the same gene
    assert ds["n_measured"].values.tolist() == [N_GENES, 9]
    assert ds["n_samples"].values.tolist()[1] == 24
    reference = read_array(study.source, "quantile_reference")
    aligned = apply_quantile(aligned.astype(np.float32), reference).astype(np.float64)
    if cohort_scale == "cohort":
        with pytest.warns(RuntimeWarning):
            mean, std = np.nanmean(aligned, axis=0), np.nanstd(aligned, axis=0)
    else:
        mean, std = read_array(study.samples, "gene_mean"), read_array(study.samples, "gene_std")
    z = (aligned - mean) / std
    measured = [12, 22, 25]
    found = ds.sel(cohort="skin", predictor="ridge")
    assert np.flatnonzero(~np.isnan(found["mae"].sel(panel="mean").values)).tolist() == measured
    np.testing.assert_allclose(
        found["mae"].sel(panel="mean").values[measured],
        np.abs(z[:, measured]).mean(axis=0),
        rtol=1e-3,
    )
    alpha = float(found["setting"].sel(panel="mined"))
    x = np.nan_to_num(study.z)[study.rows(TRAIN)]
    model = Ridge(alpha=alpha).fit(x[:, PANELS["mined"]], x[:, measured])
    predicted = model.predict(np.nan_to_num(z[:, PANELS["mined"]]))
    np.testing.assert_allclose(
        found["mae"].sel(panel="mined").values[measured],
        np.abs(z[:, measured] - predicted).mean(axis=0),
        rtol=1e-3,
    )


def test_evaluate__a_replaced_cohort_is_read_again(study, rng, tmp_path):
    values = rng.uniform(4, 14, (24, N_GENES)).astype(np.float32)
    cohort, _ = write_cohort(study.folder, values)
    study.evaluate(cohorts=[cohort])
    before = open_store(study.target)["mae"].sel(cohort="skin").values
    (tmp_path / "skin.zarr").rename(tmp_path / "old")
    write_cohort(study.folder, values[:, ::-1])
    with pytest.raises(StoreError, match="was made from other inputs"):
        study.evaluate(cohorts=[cohort])
    study.evaluate(cohorts=[cohort], overwrite=True)
    after = open_store(study.target)["mae"].sel(cohort="skin").values
    assert (before[~np.isnan(before)] != after[~np.isnan(before)]).any()


def test_evaluate__cohort_names_must_differ(study, rng):
    values = rng.uniform(4, 14, (24, N_GENES)).astype(np.float32)
    cohort, _ = write_cohort(study.folder, values, name="test")
    with pytest.raises(ConfigError, match=r"none of them 'test'.*Rename the file"):
        study.evaluate(cohorts=[cohort])


# ---------------------------------------------------------------- refusals and reruns


def test_evaluate__no_common_target(tmp_path, values):
    panels = {"mined": list(range(20)), "random-0": list(range(19, N_GENES))}
    study = Study(tmp_path, values, panels=panels)
    with pytest.raises(ConfigError, match=r"but 2 panels cover all 40. Lower select.n_landmarks"):
        study.evaluate()
    assert not is_complete(study.target)


def test_evaluate__nothing_left_to_test_on(tmp_path, values):
    study = Study(tmp_path, values, keep=splits(N_SAMPLES) != TEST)
    with pytest.raises(ConfigError, match=r"to test on, got \d+ and 0 of 100 \(20 are"):
        study.evaluate()
    assert not is_complete(study.target)


def test_evaluate__one_training_sample_is_too_few(tmp_path, values):
    split = np.full(N_SAMPLES, TEST, dtype=np.int8)
    split[5] = TRAIN
    study = Study(tmp_path, values, split=split, keep=np.ones(N_SAMPLES, dtype=bool))
    with pytest.raises(ConfigError, match="2 to fit and 1 to test on, got 1 and 99 of 100"):
        study.evaluate()


def test_evaluate__shard_length_does_not_matter(tmp_path, values):
    found = []
    for length in (16, 48):
        (tmp_path / str(length)).mkdir()
        study = Study(tmp_path / str(length), values, shard=length)
        study.evaluate()
        found.append(open_store(study.target)[["mae", "pcc", "setting"]].load())
    np.testing.assert_allclose(found[0]["mae"], found[1]["mae"], rtol=1e-5)
    np.testing.assert_allclose(found[0]["pcc"], found[1]["pcc"], rtol=1e-4)
    np.testing.assert_array_equal(found[0]["setting"], found[1]["setting"])


def test_evaluate__dropped_samples_take_no_part(tmp_path, values):
    keep = np.random.default_rng(3).random(N_SAMPLES) < 0.9
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    study = Study(tmp_path / "a", values, keep=keep)
    other = Study(tmp_path / "b", np.where(keep[:, None], values, values**2), keep=keep)
    study.evaluate()
    other.evaluate()
    assert digests(study.target) == digests(other.target)


def test_evaluate__fails_half_way_and_goes_on(tmp_path, study, monkeypatch):
    whole = study.evaluated_at(tmp_path / "whole")
    whole.evaluate()
    for module, name, after in ((stage, "_evaluate_panel", 2), (store, "finish", 0)):
        with monkeypatch.context() as broken:
            broken.setattr(module, name, Breaks(getattr(module, name), after))
            with pytest.raises(BrokenError):
                study.evaluate()
        assert not is_complete(study.target)
    with pytest.raises(StoreError, match=r"not complete|no such store"):
        open_store(study.target)
    study.evaluate()
    assert digests(study.target) == digests(whole.target)


def test_evaluate__second_run_touches_nothing(study):
    first = study.evaluate()
    before = times(study.folder)
    with no_computing():
        second = study.evaluate()
    assert (first.state, second.state) == ("new", "unchanged")
    assert times(study.folder) == before


def test_evaluate__removes_networks_that_a_killed_run_left(study):
    study.evaluate()
    networks = study.folder / "evaluation-networks"
    networks.mkdir()
    assert study.evaluate().state == "unchanged"
    assert not networks.exists()


def test_evaluate__other_parameters(study):
    study.evaluate()
    others = {"alphas": (1.0,), "cohort_scale": "cohort", "predictors": ("knn",), "seed": 1}
    for name, value in others.items():
        place = name if name == "seed" else f"evaluate\\.{name}"
        with pytest.raises(StoreError, match=f"other parameters: {place}: .* -> "):
            study.evaluate(**{name: value})
    assert study.evaluate(alphas=(1.0,), overwrite=True).state == "new"
    assert set(read_array(study.target, "setting")[1:, 0]) == {1.0}


def test_evaluate__lineage(study):
    study.evaluate()
    ds = open_store(study.target)
    uris = [i["uri"] for i in ds.attrs["inputs"]]
    assert uris == [study.source, study.samples, study.landmarks]
    assert {"role": "source", **store_input(study.source)} in ds.attrs["inputs"]
    assert ds.attrs["parameters"] == {
        "predictors": ["ridge"],
        "alphas": list(ALPHAS),
        "neighbors": [1, 2, 5, 10, 20, 50],
        "dgex": EvaluateOptions().recorded()["dgex"],
        "target_rule": "gene",
        "cohort_scale": "train",
        "targets": "measured by no panel, sharing no gene with one",
        "seed": 0,
        "scale": "z",
    }


def test_evaluate__published_lists_are_no_input_of_its_own(study):
    study.evaluate()
    assert study.evaluate(panels={"l1000": "nowhere.txt"}).state == "unchanged"


def test_evaluate__kinds_of_panels(study):
    study.evaluate()
    ds = open_store(study.target)
    assert ds["kind"].values.tolist() == ["baseline", "mined", "published", "random"]
