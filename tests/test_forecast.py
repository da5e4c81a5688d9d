"""Forecasts: what a run takes, by the kind of its sources and by what is trained."""

import numpy as np
import pytest

from dglzarr.config import build_settings
from dglzarr.forecast import estimate
from dglzarr.testing import write_gctx

N_GENES = 12


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


@pytest.mark.parametrize(("more", "copies"), [({}, 1), ({"unit": "log2"}, 1), ({"unit": "tpm"}, 2)])
def test_estimate__a_gctx_in_log2_is_not_copied(tmp_path, more, copies):
    path = write_source(tmp_path, 2000, is_gctx=True)
    found = forecast(tmp_path, {"uri": path.name, **more})
    cells_nbytes = 4 * 2000 * N_GENES
    assert found["ingest"].nbytes == pytest.approx(copies * cells_nbytes, abs=0.3 * cells_nbytes)
    assert found["ingest"].seconds > found["normalize"].seconds * (0.2 if copies == 1 else 9)


def test_estimate__networks_of_every_panel(tmp_path):
    """Hand-worked: 4 panels, 6 operations a weight, sample and epoch, 4e10 a second."""
    source = {"uri": write_source(tmp_path, 2000, is_gctx=True).name}
    dgex = {"hidden": 7, "n_layers": 2, "epochs": 5}
    without = forecast(tmp_path, source)["evaluate"].seconds
    found = forecast(tmp_path, source, evaluate={"predictors": ["ridge", "dgex"], "dgex": dgex})
    n_weights = 3 * 7 + 7 * 7 + 7 * N_GENES
    assert found["evaluate"].seconds - without == pytest.approx(4 * 6 * n_weights * 2000 * 5 / 4e10)
