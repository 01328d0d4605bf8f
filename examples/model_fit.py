"""Trains a ConvMixer on scikit-learn's digits with plain `model.fit` and writes it as int8 TFLite with class names.

Needs keras_convmixer alone. Takes about a minute and leaves the folder `exported`.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_convmixer

keras.utils.set_random_seed(0)
digits = load_digits()
images = np.repeat(digits.images[..., None] * 255 / 16, 3, axis=-1)  # RGB, 0 to 255

model = keras_convmixer.ConvMixer(32, 2, kernel_size=3, patch_size=2, input_shape=(8, 8, 3), num_classes=10)
rate = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=8 * 22)
model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(images[:1400], digits.target[:1400], batch_size=64, epochs=8)
print("accuracy:", model.evaluate(images[1400:], digits.target[1400:])[1])

names = [f"digit {i}" for i in range(10)]
report = keras_convmixer.export(model, "exported", classes=names, data="digits", format="tflite", quantize="int8")
print(report.as_table())
