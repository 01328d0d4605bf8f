import json
import subprocess
import sys

import pytest

from keras_convmixer.training import distribute

# Logical devices must be made before TensorFlow starts, hence a process of its own.
SCRIPT = """
import json
import numpy as np, keras, tensorflow as tf
import keras_convmixer
from keras_convmixer.training import distribute
from keras_convmixer.training.optimizer import AdamW
from keras_convmixer.training.training_model import training_model

two, one = distribute.strategy(["CPU:0", "CPU:1"]), distribute.strategy(["CPU:0"])
assert (two.num_replicas_in_sync, one.num_replicas_in_sync) == (2, 1)
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (8, 12, 12, 3)).astype("float32")
labels = np.eye(5, dtype="float32")[rng.integers(0, 5, 8)]
batch = tf.data.Dataset.from_tensors((images, labels))

def plain():
    keras.utils.set_random_seed(0)
    return keras_convmixer.ConvMixer(8, 2, 3, 2, input_shape=(12, 12, 3), num_classes=5, classifier_activation=None)

def step(strategy, frozen, clip=0.05, steps=1):
    with distribute.scope(strategy):
        model = plain()
        for layer in model.layers:
            layer.trainable = not (frozen and isinstance(layer, keras.layers.BatchNormalization))
        model = training_model(model)
        model.compile(
            AdamW(0.1, weight_decay=0.01, epsilon=1e-3, global_clipnorm=clip),
            keras.losses.CategoricalCrossentropy(from_logits=True),
        )
    model.fit(batch.repeat(steps), verbose=0)
    return model

start = plain().get_weights()
single, double, unclipped = (
    step(*arguments).get_weights() for arguments in ((one, True), (two, True), (one, True, None))
)
result = {
    "moved": max(float(np.abs(a - b).max()) for a, b in zip(start, single)),
    "difference": max(float(np.abs(a - b).max()) for a, b in zip(single, double)),
    "clipping": max(float(np.abs(a - b).max()) for a, b in zip(single, unclipped)),
}
model = step(two, False)
norm = model.get_layer("block_0_depthwise_norm")
replicas = lambda: [r.numpy() for r in two.experimental_local_results(norm.moving_mean.value)]
before = replicas()
distribute.average_batch_norm(model, two)
after = replicas()
result["apart"] = float(np.abs(before[0] - before[1]).max())
result["averaged"] = max(float(np.abs(a - (before[0] + before[1]) / 2).max()) for a in after)
print(json.dumps(result))
"""


def test_two_devices_take_the_step_of_one():
    """With BatchNorm frozen and clipping active: the gradient is reduced first, then clipped."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["moved"] > 1e-2
    assert result["clipping"] > 1e-3
    assert result["difference"] < 1e-6
    assert result["apart"] > 1e-3
    assert result["averaged"] < 1e-6


def test_an_unknown_device_is_named():
    with pytest.raises(ValueError, match=r"no device GPU:7 here; there are CPU:0"):
        distribute.strategy(["GPU:7"])
