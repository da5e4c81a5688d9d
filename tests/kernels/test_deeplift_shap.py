"""DeepLIFT equals shap.DeepExplainer on a Keras network of dense sigmoid layers."""

import json
from pathlib import Path

import numpy as np
import pytest

from dglzarr.kernels.deeplift import deeplift_contributions

FROZEN = json.loads((Path(__file__).parents[1] / "data" / "shap.json").read_text())["cases"]


@pytest.mark.parametrize(
    "case", FROZEN, ids=[f"{c['activation']}-{len(c['references'])}" for c in FROZEN]
)
def test_deeplift_contributions__equals_shap_frozen(case):
    first, bias, second, bias_2 = (np.array(w, np.float32) for w in case["weights"])
    layers = [(first, bias, case["activation"]), (second, bias_2, case["activation"])]
    samples, references = (np.array(case[n], np.float32) for n in ("samples", "references"))
    result = deeplift_contributions(layers, samples, references)
    expected = np.array(case["values"])
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(result, expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_references", [1, 5], ids=["one reference", "five references"])
def test_deeplift_contributions__equals_shap_deep_explainer(n_references):
    import keras
    import shap

    assert keras.backend.backend() == "tensorflow"  # the product's, and what shap explains
    keras.utils.set_random_seed(0)
    inputs = keras.Input((30,))
    hidden = keras.layers.Dense(12, activation="sigmoid")(inputs)
    latent = keras.layers.Dense(4, activation="sigmoid")(keras.layers.Dropout(0.1)(hidden))
    model = keras.Model(inputs, latent)
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 2, (6, 30)).astype(np.float32)
    references = rng.normal(size=(n_references, 30)).astype(np.float32)
    expected = shap.DeepExplainer((model.inputs, model.output), references).shap_values(
        samples, check_additivity=False
    )
    layers = [
        (*dense.get_weights(), "sigmoid")
        for dense in model.layers
        if isinstance(dense, keras.layers.Dense)
    ]
    result = deeplift_contributions(layers, samples, references)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(result, expected, atol=1e-5)
