"""Loss scaling, with our optimizer and with one of Keras's; on several devices in test_distribute.py."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_convmixer
from keras_convmixer.training.after_reduction import AfterReduction
from keras_convmixer.training.optimizer import AdamW
from keras_convmixer.training.training_model import training_model


class SGD(AfterReduction, keras.optimizers.SGD):
    pass


def gradient(precision, loss_scaling, batch_size=640):
    """A depth-2 model's gradient of images in so large a batch, by name: what SGD's step moves, over its rate."""
    keras.utils.set_random_seed(0)
    plain = keras_convmixer.ConvMixer(
        64, 2, 5, 1, input_shape=(32, 32, 3), num_classes=10, classifier_activation=None
    )
    model = training_model(plain, precision)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(0, 255, (4, 32, 32, 3)), np.eye(10)[rng.integers(0, 10, 4)]
    cross_entropy, rate = keras.losses.CategoricalCrossentropy(from_logits=True), 1e4
    model.compile(
        SGD(rate, loss_scaling=loss_scaling),
        lambda y, logits: cross_entropy(y, logits) * len(images) / batch_size,
        auto_scale_loss=False,
    )
    before = [v.numpy() for v in model.trainable_variables]
    model.train_on_batch(images, labels)
    return {v.path: (b - v.numpy()) / rate for v, b in zip(model.trainable_variables, before)}


def test_loss_scaling_keeps_float16_gradients():
    expected = gradient("float32", False)
    for scaling in (True, False):
        found = gradient("mixed_float16", scaling)
        errors = [
            np.linalg.norm(found[path] - expected[path]) / np.linalg.norm(expected[path])
            for path in expected
            if path.endswith("/kernel") and not path.startswith("head")
        ]
        assert len(errors) == 5
        # Processors round the sums of float16 convolutions differently: 0.004 on one, 0.04 on another.
        assert max(errors) < 0.1 if scaling else min(errors) > 0.2


@pytest.fixture(params=[AdamW, SGD])
def optimizer(request):
    momentum = {"momentum": 0.9} if request.param is SGD else {}
    return request.param(0.1, loss_scaling=True, global_clipnorm=1.0, **momentum)


def test_a_step_that_is_not_finite_changes_nothing_but_the_scale(optimizer):
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    weights = layer.trainable_variables
    optimizer.build(weights)
    scale = 2.0**15
    good = [keras.ops.ones(w.shape) * scale for w in weights]
    optimizer.apply(good, weights)

    def state():
        others = [v for v in optimizer.variables if v.name not in ("loss_scale", "good_steps")]
        return [keras.ops.convert_to_numpy(v).copy() for v in [*weights, *others]]

    before = state()
    assert optimizer.loss_scale == scale
    for bad in (np.inf, np.nan):
        optimizer.apply([good[0], good[1] * bad], weights)
        for a, b in zip(before, state(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert optimizer.loss_scale == scale / 4
    optimizer.apply(good, weights)
    assert int(optimizer.iterations) == 2
    assert all(np.any(a != b) for a, b in zip(before[:2], state()))


def test_the_scale_doubles_after_2000_good_steps_on_end():
    weight = keras.Variable(np.ones(1))
    optimizer = SGD(0.0, loss_scaling=True)
    optimizer.build([weight])
    step = tf.function(lambda gradient: optimizer.apply([gradient], [weight]))
    scales = []
    for number in range(4200):
        step(tf.constant([np.inf if number == 1000 else 1.0]))
        scales.append(float(optimizer.loss_scale))
    changes = {i: scales[i] for i in range(1, len(scales)) if scales[i] != scales[i - 1]}
    assert changes == {1000: 2.0**14, 3000: 2.0**15}


def dense():
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    return layer.trainable_variables


def test_the_loss_is_scaled_by_what_the_gradient_is_divided_by(optimizer):
    weights = dense()
    optimizer.build(weights)
    for _ in range(2):
        assert float(optimizer.scale_loss(keras.ops.ones(()))) == float(optimizer.loss_scale)
        optimizer.apply([keras.ops.full(w.shape, np.inf) for w in weights], weights)
    assert optimizer.loss_scale == 2.0**13


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_weight_without_a_gradient_stays(optimizer):
    kernel, bias = dense()
    before = kernel.numpy()
    optimizer.build([kernel, bias])
    optimizer.apply([keras.ops.ones((3, 2)) * 2.0**15, None], [kernel, bias])
    assert np.all(kernel.numpy() != before)
    np.testing.assert_array_equal(bias, np.zeros(2))


def test_without_it_there_is_no_cost():
    model = training_model(keras_convmixer.create_model("convmixer_tiny"))
    plain, scaled = AdamW(0.1), AdamW(0.1, loss_scaling=True)
    for optimizer in (plain, scaled):
        optimizer.build(model.trainable_variables)
    assert len(scaled.variables) - len(plain.variables) == 2
    loss = keras.ops.ones(())
    assert plain.scale_loss(loss) is loss
    assert scaled.scale_loss(loss) == 2.0**15


JAX = """
import jax, keras, numpy as np
from keras_convmixer.training.optimizer import AdamW

layer = keras.layers.Dense(2, use_bias=False)
layer.build((None, 3))
optimizer = AdamW(0.1, loss_scaling=True, global_clipnorm=1.0)
optimizer.build(layer.trainable_variables)
step = jax.jit(optimizer.stateless_apply)
state = [v.value for v in optimizer.variables], [v.value for v in layer.trainable_variables]
for size in (1e4, np.inf, 1e4):
    weights, variables = step(state[0], [jax.numpy.full((3, 2), size)], state[1])
    named = {v.name: value for v, value in zip(optimizer.variables, variables)}
    print(int(named["iteration"]), float(named["loss_scale"]), bool((weights[0] == state[1][0]).all()))
    state = variables, weights
"""


def test_on_jax(monkeypatch):
    pytest.importorskip("jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    done = subprocess.run([sys.executable, "-c", JAX], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["1 32768.0 False", "1 16384.0 True", "2 16384.0 False"]
