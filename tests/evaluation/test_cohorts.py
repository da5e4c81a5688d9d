import numpy as np
import pytest

from dglzarr.evaluation.cohorts import External
from dglzarr.kernels.quantile import apply_quantile
from dglzarr.stages.normalize import NormalizeOptions, normalize
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import EXPRESSION, RAW
from tests.builders import write_matrix, write_samples


@pytest.mark.parametrize("ties", ["midrank", "tie-mean"])
def test_external__equal_values_by_the_rule_of_the_study(tmp_path, ties):
    rng = np.random.default_rng(0)
    values = rng.uniform(4, 14, (60, 12)).astype(np.float32)
    counts = np.where(np.arange(12) < 7, 0.0, rng.uniform(1, 9, (5, 12))).astype(np.float32)
    expression = write_matrix(tmp_path / "expression", EXPRESSION, values)
    source = str(tmp_path / "normalized")
    normalize(expression, source, options=NormalizeOptions(ties=ties))
    samples = write_samples(tmp_path / "samples", source, keep=np.ones(60, dtype=bool))
    cohort = write_matrix(tmp_path / "cohort", RAW, counts, details={"scale": "log2"})
    found = External(cohort, source, samples, "train").columns(np.arange(12))
    reference, mean, std = (
        read_array(source, "quantile_reference"),
        read_array(samples, "gene_mean"),
        read_array(samples, "gene_std"),
    )
    wanted = (apply_quantile(counts, reference, ties=ties) - mean) / std
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    other = {"midrank": "tie-mean", "tie-mean": "midrank"}[ties]
    assert np.abs(found - (apply_quantile(counts, reference, ties=other) - mean) / std).max() > 0.01
