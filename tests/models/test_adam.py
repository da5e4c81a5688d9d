"""Adam in one operation: the steps of keras' own and of the formula in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.slow

SHAPES = (5, 4), (4,)
KNOWN = ("beta_1", "beta_2", "epsilon")
OTHERS = ("name", "learning_rate", "ema_momentum")  # the last has no effect without use_ema


@pytest.fixture(scope="module")
def keras():
    import keras

    return keras


def moved(keras, optimizer, starts, gradients, *, compiled=None):
    """Weights and moments after steps along some gradients."""
    weights = [keras.Variable(start) for start in starts]
    optimizer.build(weights)

    def apply(*grads):
        optimizer.apply(list(grads), weights)

    if compiled is not None:
        import tensorflow as tf

        apply = tf.function(apply, jit_compile=compiled)
    for grads in gradients:
        apply(*(keras.ops.convert_to_tensor(grad) for grad in grads))
    return [np.asarray(v) for v in (*weights, *optimizer.variables)]


def drawn(seed, n_steps, scale=1.0):
    """Weights of zero, whose values are then their moves, and gradients for some steps."""
    rng = np.random.default_rng(seed)
    gradients = [
        [(scale * rng.normal(size=shape)).astype(np.float32) for shape in SHAPES]
        for _ in range(n_steps)
    ]
    return [np.zeros(shape, np.float32) for shape in SHAPES], gradients


@given(
    seed=st.integers(0, 2**32 - 1),
    n_steps=st.integers(1, 6),
    scale=st.sampled_from([1e-8, 1e-3, 1.0, 1e3]),
    rate=st.sampled_from([1e-4, 1e-3, 0.3]),
)
def test_adam__moves_as_keras_does(seed, n_steps, scale, rate):
    import keras

    from dglzarr.models.adam import Adam

    starts, gradients = drawn(seed, n_steps, scale)
    ours = moved(keras, Adam(rate), starts, gradients)
    theirs = moved(keras, keras.optimizers.Adam(rate), starts, gradients)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("compiled", [None, False, True], ids=["eager", "graph", "compiled"])
def test_adam__formula_in_float64(keras, compiled):
    from dglzarr.models.adam import Adam

    starts, gradients = drawn(0, 40)
    optimizer = Adam(0.01)
    found = moved(keras, optimizer, starts, gradients, compiled=compiled)
    for which, start in enumerate(starts):
        weight = start.astype(np.float64)
        m, v = np.zeros_like(weight), np.zeros_like(weight)
        for t, grads in enumerate(gradients, start=1):
            grad = grads[which].astype(np.float64)
            m = 0.9 * m + 0.1 * grad
            v = 0.999 * v + 0.001 * grad**2
            rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
            weight -= rate * m / (np.sqrt(v) + 1e-7)
        np.testing.assert_allclose(found[which], weight, rtol=1e-4, atol=1e-5)
    assert int(np.asarray(optimizer.iterations)) == 40


def test_adam__is_one_operation_a_weight(keras):
    import tensorflow as tf

    from dglzarr.models.adam import Adam

    weights = [keras.Variable(np.zeros(shape, np.float32)) for shape in SHAPES]
    optimizer = Adam(0.01)
    optimizer.build(weights)
    like = [tf.TensorSpec(shape, tf.float32) for shape in SHAPES]
    graph = tf.function(lambda *g: optimizer.apply(list(g), weights)).get_concrete_function(*like)
    operations = [operation.type for operation in graph.graph.get_operations()]
    assert operations.count("ResourceApplyAdam") == len(SHAPES)


@pytest.mark.parametrize(("backend", "amsgrad"), [("another", False), ("tensorflow", True)])
def test_adam__is_keras_own_where_there_is_no_operation(keras, monkeypatch, backend, amsgrad):
    from dglzarr.models.adam import Adam

    starts, gradients = drawn(1, 3)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    ours = moved(keras, Adam(0.01, amsgrad=amsgrad), starts, gradients)
    theirs = moved(keras, keras.optimizers.Adam(0.01, amsgrad=amsgrad), starts, gradients)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_adam__settings_are_those_that_are_recorded():
    from dglzarr.models.adam import Adam
    from dglzarr.stages.train import FIXED

    settings = Adam(0.01).get_config()
    assert Adam.from_config(settings).get_config() == settings
    named = [f"{name} {settings[name]:g}".replace("e-0", "e-") for name in KNOWN]
    assert FIXED["optimizer"] == ", ".join(["adam in one operation", *named])
    assert not any(value for name, value in settings.items() if name not in {*KNOWN, *OTHERS})
