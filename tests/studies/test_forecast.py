"""Forecasts: what a run takes, by the kind of its sources and by what is trained."""

import numpy as np
import pytest

from dglzarr.settings import build_settings
from dglzarr.studies.forecast import estimate
from dglzarr.testing import write_gctx

N_GENES = 12
MEASURED = [  # docs/reproduce.md: two cores, two workers, 22,268 genes, a GCTX where not told
    ("ingest join", 16_384, 7.1),
    ("ingest join", 65_536, 10.8),
    ("text: ingest join", 2_048, 2.5),
    ("normalize", 16_384, 3.4),
    ("normalize", 65_536, 16.7),
    ("dedup", 16_384, 4.3),
    ("dedup", 65_536, 19.3),
    ("train", 65_536, 100 * 34.0),  # 100 epochs
    ("encode reconstruct", 65_536, 27.5),
    ("explain score", 16_384, 113.3),
    ("select", 16_384, 22.0),  # greedy alone, 943 genes
    ("evaluate", 16_384, 110.0),  # ridge, 21 panels
]


def write_source(folder, n_samples, *, is_gctx):
    """One source of zeros, as text or as GCTX."""
    samples, genes = ([f"{c}{i}" for i in range(n)] for c, n in (("s", n_samples), ("g", N_GENES)))
    if is_gctx:
        return write_gctx(
            folder / "GSE1.gctx",
            np.zeros((n_samples, N_GENES), np.float32),
            samples=samples,
            genes=genes,
        )
    rows = ["\t".join([gene, *["0"] * n_samples]) for gene in genes]
    path = folder / "GSE1_expr.tsv"
    path.write_text("\n".join(["\t".join(["ID_REF", *samples]), *rows]) + "\n")
    return path


def forecast(folder, source, **content):
    """The estimates of a study of one source, by step."""
    content = {"select": {"n_landmarks": 3, "n_random": 2, "selectors": ["medoids"]}, **content}
    content |= {"root": "study", "sources": [source]}
    settings = build_settings(content, name="test", folder=folder)
    return {line.name: line for line in estimate(settings)}


@pytest.mark.parametrize(
    ("n_samples", "is_gctx", "is_whole"),
    [(2000, False, True), (2200, False, False), (2000, True, False)],
)
def test_estimate__only_text_of_one_shard_is_whole_in_memory(
    tmp_path, n_samples, is_gctx, is_whole
):
    found = forecast(tmp_path, {"uri": write_source(tmp_path, n_samples, is_gctx=is_gctx).name})
    by_region = found["normalize"].memory_nbytes
    if is_whole:
        assert found["ingest"].memory_nbytes - 4e8 == 8 * n_samples * N_GENES
    else:
        assert found["ingest"].memory_nbytes == by_region


@pytest.mark.parametrize(
    ("more", "copies"), [({}, 1), ({"unit": "tpm"}, 1), ({"unit": "intensity"}, 2)]
)
def test_estimate__a_gctx_in_log2_is_not_copied(tmp_path, more, copies):
    path = write_source(tmp_path, 2000, is_gctx=True)
    found = forecast(tmp_path, {"uri": path.name, **more})
    cells_nbytes = 4 * 2000 * N_GENES
    nbytes = found["ingest"].nbytes + found["join"].nbytes
    assert nbytes == pytest.approx(copies * cells_nbytes, abs=0.5 * cells_nbytes)
    seconds = found["ingest"].seconds + found["join"].seconds
    assert seconds > found["normalize"].seconds * (0.2 if copies == 1 else 4)


def test_estimate__networks_of_every_panel(tmp_path):
    """Hand-worked: 4 panels, 6 operations a weight, sample and epoch, 1.5e11 a second."""
    source = {"uri": write_source(tmp_path, 2000, is_gctx=True).name}
    dgex = {"hidden": 7, "n_layers": 2, "epochs": 5}
    without = forecast(tmp_path, source)["evaluate"].seconds
    found = forecast(tmp_path, source, evaluate={"predictors": ["ridge", "dgex"], "dgex": dgex})
    n_weights = 3 * 7 + 7 * 7 + 7 * N_GENES
    expected = 4 * 6 * n_weights * 2000 * 5 / 1.5e11
    assert found["evaluate"].seconds - without == pytest.approx(expected)


def test_estimate__scoring_by_references_and_engine(tmp_path):
    source = {"uri": write_source(tmp_path, 2000, is_gctx=True).name}
    plain = forecast(tmp_path, source)["explain"].seconds
    for score, times in (
        ({"n_references": 7}, 1),
        ({"n_references": 7, "deeplift_reference": "samples"}, 7),
        ({"engine": "shap"}, 50),
    ):
        assert forecast(tmp_path, source, score=score)["explain"].seconds / plain == pytest.approx(
            times
        )


@pytest.mark.parametrize(
    ("train", "n_rows"),
    [({"batch_size": 1200}, 24_000), ({"windows_in_memory": 3000, "window": 9}, 27_000)],
)
def test_estimate__training_holds_what_a_stream_does(tmp_path, monkeypatch, train, n_rows):
    """Beyond 1 GiB, a quarter more than the windows; never more than there are samples."""
    source = {"uri": write_source(tmp_path, 20, is_gctx=True).name}
    found = {}
    for n_samples in (100, 25_000, 50_000):
        monkeypatch.setattr("dglzarr.studies.scale.peek_size", lambda *_, n=n_samples: (n, 22_268))
        for name, settings in (("default", {}), ("asked", train)):
            memory = forecast(tmp_path, source, train=settings)["train"].memory_nbytes
            found[name, n_samples] = memory
    assert found["default", 100] == found["asked", 100]
    sample = 4 * 22_268
    assert found["default", 50_000] - found["default", 100] == 2**30 - 100 * sample
    for n_samples in (25_000, 50_000):
        held = found["asked", n_samples] - found["asked", 100] + 100 * sample
        assert held == sample * min(1.25 * n_rows, n_samples)


@pytest.mark.parametrize(("what", "n_samples", "seconds"), MEASURED)
def test_estimate__times_as_measured(tmp_path, monkeypatch, what, n_samples, seconds):
    kind, _, stage = what.rpartition(": ")
    path = write_source(tmp_path, 20, is_gctx=kind != "text")
    monkeypatch.setattr("dglzarr.studies.scale.peek_size", lambda *_: (n_samples, 22_268))
    monkeypatch.setattr("dglzarr.studies.forecast.check_sources", lambda *_, **__: None)
    select = {"n_landmarks": 943, "n_random": 20, "selectors": []}
    found = forecast(tmp_path, {"uri": path.name}, select=select)
    expected = sum(found[name].seconds for name in stage.split())
    assert 1 / 2.5 < expected / seconds < 2.5
