"""DeepLIFT: published vectors, a loop over samples, exact slopes, completeness."""

from decimal import Decimal, localcontext
from typing import get_args

import array_api_strict
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit

from dglzarr.kernels import deeplift
from dglzarr.kernels.deeplift import (
    ACTIVATIONS,
    AGGREGATIONS,
    Activation,
    aggregate_contributions,
    deeplift_contributions,
    forward,
    rescale_slope,
)


def test_activations__are_those_that_may_be_named():
    assert set(ACTIVATIONS) == set(get_args(Activation))


def network(seed=0, sizes=(12, 7, 4), activations=("sigmoid", "sigmoid"), dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [
        (rng.normal(size=(a, b)).astype(dtype), rng.normal(size=b).astype(dtype), activation)
        for a, b, activation in zip(sizes, sizes[1:], activations, strict=False)
    ]


def draw(seed=1, n_samples=5, n_genes=12, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_samples, n_genes)).astype(dtype), rng.normal(size=n_genes).astype(
        dtype
    )


def exact_slope(a, b, activation):
    """The difference quotient with 60 digits."""
    with localcontext() as context:
        context.prec = 60
        x, y = Decimal(a), Decimal(b)
        value = {
            "linear": lambda v: v,
            "relu": lambda v: max(v, Decimal(0)),
            "elu": lambda v: v if v > 0 else v.exp() - 1,
            "softplus": lambda v: (1 + v.exp()).ln(),
            "sigmoid": lambda v: 1 / (1 + (-v).exp()),
            "tanh": lambda v: 1 - 2 / ((2 * v).exp() + 1),
        }[activation]
        return float((value(x) - value(y)) / (x - y))


def naive_contributions(layers, sample, reference):
    """One sample: the difference quotient of every unit, chained from the inputs to the outputs."""
    total = np.eye(sample.size)
    post, post_reference = sample, reference
    for kernel, bias, activation in layers:
        pre, pre_reference = post @ kernel + bias, post_reference @ kernel + bias
        post = forward([(np.eye(pre.size), np.zeros(pre.size), activation)], pre[None])[0][1][0]
        post_reference = forward(
            [(np.eye(pre.size), np.zeros(pre.size), activation)], pre_reference[None]
        )[0][1][0]
        total = total @ kernel * ((post - post_reference) / (pre - pre_reference))
    return (sample - reference)[:, None] * total


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("linear", [-1.5, 0.0, 2.0]),
        ("relu", [0.0, 0.0, 2.0]),
        ("elu", [np.exp(-1.5) - 1, 0.0, 2.0]),
        ("softplus", np.log(1 + np.exp([-1.5, 0.0, 2.0]))),
        ("sigmoid", expit([-1.5, 0.0, 2.0])),
        ("tanh", np.tanh([-1.5, 0.0, 2.0])),
    ],
)
def test_forward__activations(activation, expected):
    layers = [(np.eye(3), np.array([0.0, 1.0, 0.0]), activation)]
    [(pre, post)] = forward(layers, np.array([[-1.5, -1.0, 2.0]]))
    np.testing.assert_array_equal(pre, [[-1.5, 0, 2]])
    np.testing.assert_allclose(post[0], expected, rtol=1e-15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward__extreme_inputs_stay_finite(activation):
    layers = [(np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32), activation)]
    post = forward(layers, np.array([[-1e4, 1e4]], dtype=np.float32))[0][1]
    assert post.dtype == np.float32
    assert np.isfinite(post).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rescale_slope__exact_at_every_scale(activation, dtype):
    rng = np.random.default_rng(0)
    a = rng.normal(0, 12, 400).astype(dtype)
    step = (rng.choice([-1, 1], 400) * 10.0 ** rng.uniform(-9, 1.5, 400)).astype(dtype)
    b = a + step
    is_different = a != b
    a, b = a[is_different], b[is_different]
    result = rescale_slope(a, b, activation)
    assert result.dtype == dtype
    expected = [exact_slope(float(x), float(y), activation) for x, y in zip(a, b, strict=True)]
    rtol = 4e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=np.finfo(dtype).tiny * 1e3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_rescale_slope__tends_to_the_derivative(activation):
    z = np.array([-30.0, -5.0, -0.3, 0.4, 5.0, 30.0])
    at = rescale_slope(z, z, activation)
    near = rescale_slope(z, z * (1 + 1e-15), activation)
    expected = [exact_slope(v - 1e-9, v + 1e-9, activation) for v in z]
    np.testing.assert_allclose(at, expected, rtol=1e-6)
    np.testing.assert_allclose(near, at, rtol=1e-12)


@pytest.mark.parametrize("activation", ["linear", "elu", "softplus", "sigmoid", "tanh"])
@pytest.mark.parametrize("b", [1e-45, 1.3e-43, 1e-39, 1.2e-38, 1e-30])
def test_rescale_slope__differences_at_the_edge_of_float32(activation, b):
    slope = rescale_slope(np.float32(0), np.float32(b), activation)
    expected = {"softplus": 0.5, "sigmoid": 0.25}.get(activation, 1.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@example(a=0.0, b=1.2751816025355835e-43)
@given(a=st.floats(-1e4, 1e4, width=32), b=st.floats(-1e4, 1e4, width=32))
def test_rescale_slope__symmetric_and_between_the_extreme_slopes(activation, a, b):
    slope = float(rescale_slope(np.float32(a), np.float32(b), activation))
    assert slope == float(rescale_slope(np.float32(b), np.float32(a), activation))
    steepest = 0.25 if activation == "sigmoid" else 1.0
    assert 0 <= slope <= steepest * (1 + 1e-6)


@pytest.mark.parametrize(
    ("a", "b", "slope"), [(0, 0, 0.0), (2, 2, 1.0), (-1, -1, 0.0), (3, -1, 0.75), (0, -1, 0.0)]
)
def test_rescale_slope__relu_piecewise(a, b, slope):
    assert rescale_slope(a, b, "relu") == slope


def test_rescale_slope__unknown_activation_refused():
    with pytest.raises(ValueError, match=r"activation: expected one of \['elu', .*, got 'gelu'"):
        rescale_slope(0.0, 1.0, "gelu")


def multipliers(layers, samples, reference):
    """Contributions for each unit of difference from the reference (sample, latent, gene)."""
    found = deeplift_contributions(layers, samples, reference).transpose(0, 2, 1)
    return found / (samples - reference)[:, np.newaxis]


def test_multipliers__deeplift_test_activation():
    first = np.array([[1.0, -1], [2, -2], [3, -3], [4, -4]])
    samples = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2]])
    layers = [(first, np.array([-1.0, 1.0]), "relu")]
    result = multipliers(layers, samples, np.zeros(4))
    w = np.array([1.0, 2, 3, 4])
    np.testing.assert_allclose(result[:, 0], [0.9 * w, 0.95 * w], atol=1e-5)
    np.testing.assert_allclose(result[:, 1], [-0.1 * w, -0.05 * w], atol=1e-5)


def test_multipliers__deeplift_test_dense():
    first = np.array([[1.0, -1], [2, -2], [3, -3], [4, -4]])
    layers = [(first, np.array([-1.0, 1.0]), "linear")]
    samples = np.array([[1.0, 1, 1, 1], [2, 2, 2, 2]])
    np.testing.assert_array_equal(forward(layers, samples)[0][1], [[9, -9], [19, -19]])
    result = multipliers(layers, samples, np.zeros(4))
    np.testing.assert_array_equal(result, [first.T, first.T])


def test_deeplift_contributions__captum_relu_example():
    layers = [
        (np.eye(2), np.array([0.0, -1.5]), "relu"),
        (np.array([[2.0], [2.0]]), np.zeros(1), "linear"),
    ]
    result = deeplift_contributions(layers, [[1.0, 2.0]], [0.0, 0.0])
    np.testing.assert_allclose(result[0, :, 0], [2, 1])
    at, at_reference = (forward(layers, np.array([x])) for x in ([1.0, 2.0], [0.0, 0.0]))
    np.testing.assert_allclose(
        multipliers(layers, np.array([[1.0, 2.0]]), np.zeros(2)), [[[2, 0.5]]]
    )
    assert at[-1][1] - at_reference[-1][1] == result.sum() == 3


def test_deeplift_contributions__linear_network_equals_finite_differences():
    layers = network(activations=("linear", "linear"))
    samples, reference = draw()
    result = deeplift_contributions(layers, samples, reference)
    output = forward(layers, samples)[-1][1]
    for gene in range(12):
        changed = samples.copy()
        changed[:, gene] = reference[gene]
        expected = output - forward(layers, changed)[-1][1]
        np.testing.assert_allclose(result[:, gene], expected, atol=1e-12)


def test_deeplift_contributions__linear_model_mean_of_references():
    coef = np.random.default_rng(0).normal(size=(6, 1))
    background = np.random.default_rng(1).normal(size=(9, 6))
    samples = np.random.default_rng(2).normal(size=(3, 6))
    result = deeplift_contributions([(coef, np.ones(1), "linear")], samples, background)
    expected = (samples - background.mean(axis=0)) * coef.T
    np.testing.assert_allclose(result[:, :, 0], expected, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(12, 4), (12, 7, 4), (12, 7, 5, 4)], ids=["1", "2", "3 layers"])
def test_deeplift_contributions__naive_loop(activation, sizes):
    layers = network(sizes=sizes, activations=("sigmoid",) * (len(sizes) - 2) + (activation,))
    samples, reference = draw()
    result = deeplift_contributions(layers, samples, reference)
    expected = [naive_contributions(layers, sample, reference) for sample in samples]
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)


def test_deeplift_contributions__pre_activation_makes_the_last_layer_linear():
    layers = network()
    samples, reference = draw()
    linear = [layers[0], (*layers[1][:2], "linear")]
    result = deeplift_contributions(layers, samples, reference, layer="pre-activation")
    np.testing.assert_array_equal(result, deeplift_contributions(linear, samples, reference))
    assert not np.allclose(result, deeplift_contributions(layers, samples, reference))
    assert layers[1][2] == "sigmoid"


@given(
    seed=st.integers(0, 10_000),
    activations=st.lists(st.sampled_from(list(ACTIVATIONS)), min_size=1, max_size=3),
    scale=st.sampled_from([0.1, 1.0, 8.0]),
)
def test_deeplift_contributions__sum_to_the_change_of_the_output(seed, activations, scale):
    layers = network(seed, sizes=(6, 5, 4, 3)[: len(activations) + 1], activations=activations)
    samples, reference = draw(seed, n_genes=6)
    samples *= scale
    result = deeplift_contributions(layers, samples, reference)
    outputs = forward(layers, np.vstack([samples, reference]))[-1][1]
    np.testing.assert_allclose(
        result.sum(axis=1), outputs[:-1] - outputs[-1], rtol=1e-9, atol=1e-10
    )


def test_deeplift_contributions__zero_at_the_reference():
    samples, _ = draw(n_samples=1)
    assert not deeplift_contributions(network(), samples, samples[0]).any()


def test_deeplift_contributions__tends_to_the_gradient():
    layers = network()
    samples, reference = draw()
    near = reference + 1e-7 * samples
    result = deeplift_contributions(layers, near, reference) / (near - reference)[:, :, None]
    step = 1e-5 * np.eye(12)
    ends = [forward(layers, reference + sign * step)[-1][1] for sign in (1, -1)]
    np.testing.assert_allclose(result[0], (ends[0] - ends[1]) / 2e-5, rtol=1e-5, atol=1e-8)


def test_deeplift_contributions__gene_order_and_scale_do_not_matter():
    layers = network()
    samples, reference = draw()
    result = deeplift_contributions(layers, samples, reference)
    order = np.random.default_rng(3).permutation(12)
    permuted = [(layers[0][0][order], *layers[0][1:]), layers[1]]
    np.testing.assert_allclose(
        deeplift_contributions(permuted, samples[:, order], reference[order]), result[:, order]
    )
    scaled = [(layers[0][0] * 4, *layers[0][1:]), layers[1]]
    np.testing.assert_allclose(
        deeplift_contributions(scaled, samples / 4, reference / 4), result, rtol=1e-12
    )


def test_deeplift_contributions__float32_stays_float32():
    samples, reference = draw(dtype=np.float32)
    result = deeplift_contributions(network(dtype=np.float32), samples, reference)
    assert result.dtype == np.float32
    exact = deeplift_contributions(
        [(k.astype(np.float64), b, a) for k, b, a in network(dtype=np.float32)], samples, reference
    )
    assert exact.dtype == np.float64
    np.testing.assert_allclose(result, exact, atol=1e-5)


def aggregated(phi, aggregation, weight):
    """numpy's own aggregation of (sample, gene, latent) over latent units."""
    return {
        "mean-abs": np.abs(phi).mean(axis=2),
        "mean": phi.mean(axis=2),
        "max": np.abs(phi).max(axis=2),
        "variance-weighted": np.abs(phi) @ weight,
    }[aggregation]


@pytest.mark.parametrize("layer", ["latent", "pre-activation"])
@pytest.mark.parametrize("n_references", [1, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("block", [1, 5, 512])
def test_aggregate_contributions__equals_the_aggregated_contributions(
    monkeypatch, layer, n_references, aggregation, block
):
    monkeypatch.setattr("dglzarr.kernels.deeplift._BLOCK_GENES", block)
    layers = network()
    samples, _ = draw(n_samples=41)
    reference = draw(seed=9, n_samples=n_references)[0]
    weight = np.array([0.4, 0.3, 0.2, 0.1])
    counts = np.random.default_rng(1).random(41) < 0.7
    phi = deeplift_contributions(layers, samples, reference, layer=layer)
    result = aggregate_contributions(
        layers, samples, reference, layer=layer, aggregation=aggregation, counts=counts,
        latent_weight=weight if aggregation == "variance-weighted" else None,
    )  # fmt: skip
    expected = aggregated(phi, aggregation, weight)
    by_unit = phi if aggregation == "mean" else np.abs(phi)
    np.testing.assert_allclose(result.contribution, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        result.gene_total, expected[counts].sum(axis=0), rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(
        result.latent_total, by_unit[counts].sum(axis=0).T, rtol=1e-12, atol=1e-12
    )
    assert result.contribution.dtype == result.delta_error.dtype == np.float32
    assert result.latent_total.dtype == result.gene_total.dtype == np.float64
    assert result.delta_error.shape == (41,)
    assert result.delta_error.max() < 1e-12


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n_references", [1, 3])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregate_contributions__same_by_another_library(activation, n_references, aggregation):
    """The strict library knows the array API standard alone, and refuses numpy's arrays as a GPU's
    library does."""
    layers = network(sizes=(12, 7, 5, 4), activations=(activation, "sigmoid", activation))
    samples, references = draw(n_samples=37)[0], draw(seed=9, n_samples=n_references)[0]
    common = {
        "aggregation": aggregation,
        "latent_weight": [0.4, 0.3, 0.2, 0.1] if aggregation == "variance-weighted" else None,
        "counts": np.random.default_rng(1).random(37) < 0.7,
    }
    expected = aggregate_contributions(layers, samples, references, **common)
    result = aggregate_contributions(layers, samples, references, **common, xp=array_api_strict)
    for name in ("contribution", "gene_total", "latent_total", "delta_error"):
        ours, theirs = getattr(result, name), getattr(expected, name)
        assert type(ours) is np.ndarray
        assert ours.flags.writeable
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-12)


def test_aggregate_contributions__many_references(monkeypatch):
    rng = np.random.default_rng(0)
    layers, samples, references = network(), rng.normal(size=(33, 12)), rng.normal(size=(50, 12))
    expected = np.abs(deeplift_contributions(layers, samples, references))
    most = []
    explain = deeplift._explain

    def counted(kernel, backs, *differences):
        most.append(len(backs) * len(backs[0]))
        return explain(kernel, backs, *differences)

    monkeypatch.setattr(deeplift, "_explain", counted)
    found = aggregate_contributions(layers, samples, references)
    np.testing.assert_allclose(found.contribution, expected.mean(axis=2), rtol=1e-5)
    np.testing.assert_allclose(found.latent_total, expected.sum(axis=0).T, rtol=1e-5)
    assert max(most) == 150


def test_aggregate_contributions__by_hand():
    layers = [(np.array([[2.0, 1.0], [-1.0, 3.0]]), np.zeros(2), "linear")]
    common = layers, [[3.0, 2.0]], [0.0, 0.0]  # contributions 6, 3 and -2, 6
    found = {a: aggregate_contributions(*common, aggregation=a) for a in AGGREGATIONS[:3]}
    assert found["mean-abs"].contribution.tolist() == [[4.5, 4.0]]
    assert found["mean"].contribution.tolist() == [[4.5, 2.0]]
    assert found["max"].contribution.tolist() == [[6.0, 6.0]]
    assert found["mean"].latent_total.tolist() == [[6.0, -2.0], [3.0, 6.0]]
    weighted = aggregate_contributions(
        *common, aggregation="variance-weighted", latent_weight=[0.75, 0.25]
    )
    assert weighted.contribution.tolist() == [[5.25, 3.0]]


@given(n_samples=st.integers(1, 40), start=st.integers(0, 39))
def test_aggregate_contributions__a_sample_does_not_depend_on_the_others(n_samples, start):
    layers = network(dtype=np.float32)
    samples, reference = draw(n_samples=40, dtype=np.float32)
    whole = aggregate_contributions(layers, samples, reference).contribution
    rows = slice(start, start + n_samples)
    part = aggregate_contributions(layers, samples[rows], reference).contribution
    np.testing.assert_allclose(part, whole[rows], rtol=1e-5, atol=1e-7)


def test_aggregate_contributions__float32_error_is_reported():
    samples, reference = draw(dtype=np.float32)
    result = aggregate_contributions(network(dtype=np.float32), samples, reference)
    assert 0 < result.delta_error.max() < 1e-5


def test_aggregate_contributions__delta_error_is_the_largest_gap(monkeypatch):
    samples, reference = draw(n_samples=2)
    layers = network(activations=("linear", "linear"))
    explain = deeplift._explain

    def wrong(*parts):
        phi = explain(*parts)
        phi[1, 2, 3] -= 0.5
        return phi

    monkeypatch.setattr(deeplift, "_explain", wrong)
    result = aggregate_contributions(layers, samples, reference)
    np.testing.assert_allclose(result.delta_error, [0, 0.5], atol=1e-6)


def test_aggregate_contributions__no_samples():
    result = aggregate_contributions(network(), np.empty((0, 12)), np.zeros(12))
    assert result.contribution.shape == (0, 12)
    assert not result.latent_total.any()
    assert not result.gene_total.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation": "sum"}, r"aggregation: expected one of .*, got 'sum'"),
        ({"aggregation": "variance-weighted"}, "latent_weight: expected for 'variance-weighted'"),
        ({"latent_weight": np.ones(4)}, "latent_weight: expected for 'variance-weighted' alone"),
        (
            {"aggregation": "variance-weighted", "latent_weight": np.ones(3)},
            r"latent_weight: expected \(4,\), got \(3,\)",
        ),
    ],
)
def test_aggregate_contributions__refused(options, message):
    with pytest.raises(ValueError, match=message):
        aggregate_contributions(GOOD, np.ones((2, 12)), np.ones(12), **options)


GOOD = network()


@pytest.mark.parametrize(
    ("layers", "samples", "reference", "message"),
    [
        ([], np.ones((2, 12)), np.ones(12), "layers: expected at least one layer"),
        (GOOD, np.ones(12), np.ones(12), r"samples: expected \(sample, gene\), got shape \(12,\)"),
        (GOOD, np.ones((2, 11)), np.ones(11), r"layer 0: expected kernel \(11, out\)"),
        (GOOD[:1] * 2, np.ones((2, 12)), np.ones(12), r"layer 1: expected kernel \(7, out\)"),
        ([(np.ones(12), np.ones(1), "relu")], np.ones((2, 12)), np.ones(12), "layer 0: expected"),
        (
            [(np.ones((12, 2)), np.ones(3), "relu")],
            np.ones((2, 12)),
            np.ones(12),
            r"bias \(out,\), got \(\(12, 2\), \(3,\)\)",
        ),
        (
            [(np.ones((12, 2)), np.ones(2), "gelu")],
            np.ones((2, 12)),
            np.ones(12),
            "activation: expected one of .* got 'gelu'",
        ),
        (GOOD, np.ones((2, 12)), np.ones(11), r"deeplift reference: expected \(12,\) or \(k, 12\)"),
        (GOOD, np.ones((2, 12)), np.ones((0, 12)), r"deeplift reference: .* got \(0, 12\)"),
        (GOOD, np.ones((2, 12)), np.ones((1, 1, 12)), r"deeplift reference: .* got \(1, 1, 12\)"),
    ],
)
def test_deeplift_contributions__refused(layers, samples, reference, message):
    with pytest.raises(ValueError, match=message):
        deeplift_contributions(layers, samples, reference)


def test_deeplift_contributions__unknown_layer_refused():
    with pytest.raises(ValueError, match="layer: expected 'latent' or 'pre-activation', got 'out'"):
        deeplift_contributions(GOOD, np.ones((2, 12)), np.ones(12), layer="out")
