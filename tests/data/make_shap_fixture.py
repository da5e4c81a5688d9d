"""Write shap.json: what shap.DeepExplainer gives for small networks, to compare without it."""

import json
from pathlib import Path

import keras
import numpy as np
import shap

ACTIVATIONS = ["sigmoid", "tanh", "relu", "elu", "softplus"]


def main():
    """Explain one network an activation, of one reference and of three."""
    cases = []
    for seed, activation in enumerate(ACTIVATIONS):
        rng = np.random.default_rng(seed)
        inputs = keras.Input((8,))
        hidden = keras.layers.Dense(5, activation=activation)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3, activation=activation)(hidden))
        weights = [rng.normal(size=w.shape).astype("f4").round(3) for w in model.get_weights()]
        model.set_weights(weights)
        samples = rng.normal(0, 2, (3, 8)).astype("f4").round(3)
        references = rng.normal(size=(3, 8)).astype("f4").round(3)
        for n in (1, 3):
            explainer = shap.DeepExplainer((model.inputs, model.output), references[:n])
            values = explainer.shap_values(samples, check_additivity=False)
            case = {
                "activation": activation,
                "weights": [w.tolist() for w in weights],
                "samples": samples.tolist(),
                "references": references[:n].tolist(),
                "values": np.asarray(values).astype(float).round(7).tolist(),
            }
            cases.append(case)
    versions = {"shap": shap.__version__, "keras": keras.__version__}
    text = json.dumps({"versions": versions, "cases": cases}).replace("], [", "],\n[")
    Path(__file__).with_name("shap.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
