"""Trains a ConvMixer on scikit-learn's digits with plain `model.fit` and writes it as int8 TFLite with class names.

Needs keras_convmixer alone. Takes about a minute and leaves the folder `exported`.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_convmixer

digits = load_digits()
images = np.repeat(digits.images[..., None] * 255 / 16, 3, axis=-1)  # RGB, 0 to 255

model = keras_convmixer.ConvMixer(32, 2, kernel_size=3, patch_size=1, input_shape=(8, 8, 3), num_classes=10)
model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
model.fit(images[:1400], digits.target[:1400], validation_data=(images[1400:], digits.target[1400:]), epochs=4)

classes = [f"digit {name}" for name in digits.target_names]
report = keras_convmixer.export(
    model, "exported", classes=classes, format="tflite", quantize="int8", data="digits", threads=1
)
print(report.as_table())
