"""The settings for the paper's own data, on simulated files of the same kinds and names."""

import csv
from pathlib import Path

import numpy as np
import pytest

from dglzarr import quantile_normalize
from dglzarr.settings import load_settings
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import STEPS, Plan, mine
from dglzarr.testing import write_gctx, write_series_matrix
from tests.builders import simulate

SETTINGS = Path(__file__).parents[1] / "deploy" / "settings" / "kong2021.toml"
N_SAMPLES, N_GENES, N_GTEX = 120, 60, 24
SMALL = (
    'cluster.kind="none"', "dedup.n_clusters=4", "train.hidden=12", "train.n_latent=4",
    "train.epochs=2", "select.n_landmarks=12", "select.n_random=2", "enrich.min_size=2",
    "evaluate.dgex.hidden=8", "evaluate.dgex.epochs=2",
)  # fmt: skip


def ensembl(i):
    return f"ENSG{i:011d}"


def write_data(folder):
    """The paper's files, small; some probes have no gene, some genes two probes."""
    rng = np.random.default_rng(0)
    simulated = simulate(N_SAMPLES + N_GTEX + 20, N_GENES)
    values = quantile_normalize(simulated.expression.astype(np.float32))
    genes, samples = simulated.genes, simulated.samples
    measured = [i // 2 if i < 20 else i for i in range(N_GENES - 4)]
    write_gctx(
        folder / "bgedv2_QNORM.gctx", values[:N_SAMPLES], samples=samples[:N_SAMPLES], genes=genes
    )
    rpkm = np.exp2(values[N_SAMPLES : N_SAMPLES + N_GTEX] - 3)
    own = sorted(set(measured))
    columns = [rpkm[:, measured.index(g)] for g in own]
    extra = rng.gamma(1.0, 2.0, (N_GTEX, 9))
    write_gctx(
        folder / "GTEx_RNASeq_RPKM_n2921x55993.gctx",
        np.column_stack([*columns, extra]).astype(np.float32),
        samples=[f"GTEX-{i}" for i in range(N_GTEX)],
        genes=[f"{ensembl(g)}.{1 + g % 7}" for g in [*own, *range(900, 909)]],
    )
    lines = {}
    for i, gene in enumerate(measured):
        lines.setdefault(gene, []).append(genes[i])
    rows = [(f"SYM{g}", ensembl(g), ",".join(probes)) for g, probes in lines.items()]
    for name, part in (("map_lm.txt", rows[:8]), ("map_tg.txt", rows[8:])):
        (folder / name).write_text("".join("\t".join(row) + "\n" for row in part))
    probes = [(p, symbol, gene) for symbol, gene, joined in rows for p in joined.split(",")]
    with (folder / "probes.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("ID", "Symbol", "Ensembl"), *probes])
    lung = range(N_SAMPLES + N_GTEX, N_SAMPLES + N_GTEX + 20)
    for name, part in (("GSE4573", lung[:12]), ("GSE10072", lung[12:])):
        write_series_matrix(
            folder / f"{name}_series_matrix.txt.gz", values[part], genes=genes, series=name,
            samples=[samples[i] for i in part], platform="GPL96",
        )  # fmt: skip
    classes = ["sample\tclass", *(f"{samples[i]}\t{['Normal', 'ADC', 'SCC'][i % 3]}" for i in lung)]
    (folder / "lung.tsv").write_text("\n".join(classes) + "\n")
    sets = [[f"SYM{g}" for g in rng.choice(own, 6, replace=False)] for _ in range(5)]
    text = "".join("\t".join([f"TERM{i}", "na", *s]) + "\n" for i, s in enumerate(sets))
    (folder / "c5.mf.symbols.gmt").write_text(text)


def test_kong2021__states_what_the_paper_states(tmp_path):
    write_data(tmp_path)
    settings = load_settings(SETTINGS, folder=tmp_path)
    assert [step.name for step in Plan.of(settings)] == list(STEPS)
    assert settings.normalize.method == "none"
    assert (settings.select.selector, settings.select.selectors) == ("top-score", ())
    ingest, train = settings.ingest, settings.train
    assert (ingest.split_by, ingest.test_fraction) == ("sample", 0.1)
    assert (train.hidden, train.n_latent, train.dropout, train.l2) == (500, 100, 0.1, 1e-6)
    assert train.batch_size == 256
    enough = train.recorded()["windows_in_memory"] >= 2 * train.batch_size
    assert enough, "as the test of mixing has it"
    assert (train.activation, train.epochs, settings.select.n_landmarks) == ("sigmoid", 100, 943)
    dgex = settings.evaluate.dgex
    assert settings.evaluate.predictors == ("ridge", "dgex")
    assert (dgex.hidden, dgex.n_layers, dgex.dropout, dgex.batch_size) == (9000, 1, 0.25, 200)
    assert (dgex.optimizer, dgex.learning_rate, dgex.epochs) == ("momentum", None, 200)
    assert dgex.patience == dgex.epochs
    units = {Path(s.uri).name: (s.role, s.unit) for s in settings.sources}
    assert units["bgedv2_QNORM.gctx"] == ("train", "log2")
    assert units["GTEx_RNASeq_RPKM_n2921x55993.gctx"] == ("cohort", "rpkm")


@pytest.mark.slow
def test_kong2021__runs_on_files_of_the_same_kinds(tmp_path):
    write_data(tmp_path)
    settings = load_settings(SETTINGS, SMALL, folder=tmp_path)
    mine(settings)
    study = open_study(settings.root)
    expression, normalized = (
        open_store(study.uri("expression")),
        open_store(study.uri("normalized")),
    )
    np.testing.assert_array_equal(normalized["expression"].values, expression["expression"].values)
    gtex = open_store(study.raw("GTEx_RNASeq_RPKM_n2921x55993"))
    assert gtex.attrs["details"]["unit"] == "rpkm"
    evaluation = open_store(study.uri("evaluation"))
    cohorts = dict(
        zip(
            evaluation["cohort"].values.tolist(),
            evaluation["n_measured"].values.tolist(),
            strict=True,
        )
    )
    # by Ensembl id without version: every probe that has a gene
    assert cohorts["GTEx_RNASeq_RPKM_n2921x55993"] == N_GENES - 4
    mae = evaluation["mae"].sel(cohort="GTEx_RNASeq_RPKM_n2921x55993", panel="mined")
    for predictor in ("ridge", "dgex"):
        assert np.isfinite(mae.sel(predictor=predictor).values).any()
    groups = open_store(study.uri("groups"))
    assert groups.attrs["details"]["groups"].keys() == {"ADC", "Normal", "SCC"}
    assert groups.sizes["sample"] == 20
    assert not groups["is_trained_on"].values.any()
    enrichment = open_store(study.uri("enrichment"))
    assert enrichment.attrs["details"]["matched_by"] == "gene_symbol"
    names = {path.name for path in Path(settings.root, "figures").glob("*.png")}
    assert {"figure-2b-groups.png", "figure-3-panels.png", "figure-4-1-cohort.png"} <= names
