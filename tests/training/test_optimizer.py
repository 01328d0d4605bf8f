import contextlib
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file
from timm_layout import arrays_of, copy_into, layer_names

import keras_convmixer
from keras_convmixer.training.optimizer import AdamW, rate_multipliers
from keras_convmixer.training.schedule import OneCycle


@pytest.fixture
def float64():
    """Everything in double precision, for comparison to the last digits."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(before)


def test_twenty_steps_equal_pytorch(oracles, float64):
    """Our optimizer, schedule, loss and clipping against torch.optim.AdamW in float64, step by step."""
    folder = oracles / "training"
    about = json.loads((folder / "README.json").read_text())
    reference, batches = load_file(folder / "after_20_steps.safetensors"), np.load(folder / "batches.npz")
    sizes = {name: about["model"][name] for name in ("dim", "depth", "kernel_size", "patch_size", "num_classes")}
    model = keras_convmixer.ConvMixer(
        **sizes,
        input_shape=(16, 16, 3),
        include_preprocessing=False,
        classifier_activation=None,
        activation=exact_gelu,
    )
    copy_into(model, load_file(folder / "initial.safetensors"))
    model.compile(
        AdamW(
            OneCycle(about["peak_lr"], about["epochs"], about["steps_per_epoch"]),
            weight_decay=0.02,
            epsilon=1e-3,
            global_clipnorm=0.5,
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )

    losses, rates = [], []
    variances = UnbiasedVariances(model, pixels=8 * 8)  # images of 16×16 in patches of 2
    for images, targets in zip(batches["images_nhwc"], batches["targets"]):
        rates.append(float(model.optimizer.learning_rate))
        with variances.following(len(images)):
            losses.append(float(model.train_on_batch(images, targets)))
    np.testing.assert_allclose(rates, batches["lr"], rtol=1e-12)
    np.testing.assert_allclose(losses, batches["loss"], rtol=1e-8)

    ours = arrays_of(model, about["model"]["depth"])
    for key, value in (ours | variances.values).items():
        np.testing.assert_allclose(value, reference[key], rtol=1e-8, atol=1e-8 * abs(reference[key]).max())
    for key, value in variances.values.items():
        assert np.all(ours[key] < value)


def exact_gelu(x):
    """TensorFlow's own rounds the root of 2 to float32 even for float64 numbers."""
    return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))


class UnbiasedVariances:
    """BatchNorm's running variances as PyTorch would keep them, from the batch variances that Keras used.

    Keras averages the biased variance (divided by n), PyTorch the unbiased one (divided by n - 1).
    """

    def __init__(self, model, pixels):
        self.pixels = pixels
        norms = {layer: keys[3][0] for layer, keys in layer_names(depth=3).items() if layer.endswith("_norm")}
        self.variables = {key: model.get_layer(layer).moving_variance for layer, key in norms.items()}
        self.values = {key: variable.numpy() for key, variable in self.variables.items()}

    @contextlib.contextmanager
    def following(self, batch_size):
        before = {key: variable.numpy() for key, variable in self.variables.items()}
        yield
        n = batch_size * self.pixels
        for key, variable in self.variables.items():
            batch = (variable.numpy() - 0.9 * before[key]) / 0.1
            self.values[key] = 0.9 * self.values[key] + 0.1 * batch * n / (n - 1)


def test_kerass_adamw_follows_tensorflow_addons_once_its_decay_is_converted(oracles):
    """tfa subtracts weight_decay * w each step; Keras learning_rate * weight_decay * w."""
    reference = json.loads((oracles / "tfa" / "tfa_0.23.json").read_text())
    scale, target = np.array(reference["scale"], np.float32), np.array(reference["target"], np.float32)
    for case in reference["adamw"]:
        w = keras.Variable(np.array(reference["initial"], np.float32))
        optimizer = keras.optimizers.AdamW(case["lr"], weight_decay=case["wd"] / case["lr"], epsilon=case["eps"])
        for expected in case["steps"]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(scale * (w.value - target) ** 2)
            optimizer.apply([tape.gradient(loss, w.value)], [w])
            np.testing.assert_allclose(w.numpy(), expected, atol=1e-5)


def test_gelu_equals_tensorflow_addons(oracles):
    reference = json.loads((oracles / "tfa" / "tfa_0.23.json").read_text())["gelu"]
    x = np.array(reference["x"], np.float32)
    np.testing.assert_allclose(keras.activations.gelu(x), reference["exact"], atol=1e-5)
    np.testing.assert_allclose(keras.activations.gelu(x, approximate=True), reference["approximate"], atol=1e-5)


def test_stochastic_depth_differs_from_tensorflow_addons_by_its_scaling(oracles):
    """tfa scales the branch by the survival probability at inference; Dropout scales by its inverse in training."""
    reference = json.loads((oracles / "tfa" / "tfa_0.23.json").read_text())["stochastic_depth"]
    p = reference["survival_probability"]
    drop = keras.layers.Dropout(1 - p, noise_shape=(None, 1, 1, 1), seed=0)
    branch = np.ones((1000, 1, 1, 2), np.float32)
    dropped = drop(branch, training=True).numpy()
    assert set(np.unique(dropped.round(5))) <= {0.0, round(1 / p, 5)}
    assert np.all(dropped[..., 0] == dropped[..., 1])
    assert abs(dropped.mean() - 1) < 0.05
    np.testing.assert_array_equal(drop(branch, training=False), branch)


def test_decays_kernels_only_unless_told_otherwise():
    for decay_1d in (False, True):
        layer = keras.layers.Dense(2, bias_initializer="ones")
        layer.build((None, 3))
        kernel, bias = layer.get_weights()
        optimizer = AdamW(0.5, weight_decay=0.1, decay_1d=decay_1d)
        optimizer.apply([tf.zeros((3, 2)), tf.zeros(2)], layer.trainable_variables)
        np.testing.assert_allclose(layer.kernel, 0.95 * kernel, rtol=1e-6)
        np.testing.assert_allclose(layer.bias, (0.95 if decay_1d else 1) * bias, rtol=1e-6)


def test_multiplies_the_rate_of_named_layers():
    model = keras.Sequential([keras.layers.Dense(2, name="body"), keras.layers.Dense(2, name="head")])
    model.build((None, 2))
    before = model.get_weights()
    optimizer = AdamW(0.1, weight_decay=0, multipliers={"body": 0.0})
    optimizer.apply([tf.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    after = model.get_weights()
    np.testing.assert_array_equal(after[0], before[0])
    np.testing.assert_allclose(after[2], before[2] - 0.1, rtol=1e-5, atol=1e-6)


def test_a_variable_of_no_layer_is_optimized_too():
    variable = keras.Variable([1.0, 1.0], name="scale")
    optimizer = AdamW(0.1, weight_decay=0, multipliers={"body": 0.0})
    optimizer.apply([keras.ops.ones(2)], [variable])
    np.testing.assert_allclose(variable.numpy(), 0.9, rtol=1e-6)


def test_layer_decay_counts_from_the_head():
    model = keras_convmixer.create_model("convmixer_tiny", dropout=0.1, stochastic_depth=0.1)
    rates = rate_multipliers(model, backbone_multiplier=0.5, layer_decay=0.8)
    by_layer = {layer.name: rates.get(layer.name, 1.0) for layer in model.layers if layer.weights}
    expected = {"patch_embedding": 0.8**3, "block_0": 0.8**2, "block_1": 0.8}
    for name, rate in by_layer.items():
        (place,) = [place for place in [*expected, "head"] if name.startswith(place)]
        assert rate == pytest.approx(0.5 * expected[place] if place in expected else 1)


def test_a_head_alone_has_the_rate_itself():
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="head")])
    assert rate_multipliers(head, backbone_multiplier=0.5, layer_decay=0.8) == {}


def test_serialises():
    optimizer = AdamW(
        OneCycle(0.1, 5, 10), weight_decay=0.2, decay_1d=True, multipliers={"a": 0.5}, global_clipnorm=1.0
    )
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert copy.get_config() == optimizer.get_config()
