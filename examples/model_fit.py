<<<<<<< HEAD
"""A ConvMixer trained with plain model.fit, then taken to a phone: int8 TFLite with class names.

python examples/model_fit.py OUT
"""

import sys

=======
"""Trains a ConvMixer on scikit-learn's digits with plain `model.fit` and writes it as int8 TFLite with class names.

Needs keras_convmixer alone. Takes about a minute and leaves the folder `exported`.
"""

>>>>>>> h_weights
import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_convmixer

digits = load_digits()
<<<<<<< HEAD
images = np.repeat((digits.images[..., None] * 255 / 16).round(), 3, axis=-1).astype("float32")  # RGB in 0–255
model = keras_convmixer.ConvMixer(64, 4, kernel_size=5, patch_size=1, input_shape=(8, 8, 3), num_classes=10)
model.compile(keras.optimizers.AdamW(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
held_out = images[1400:], digits.target[1400:]
model.fit(images[:1400], digits.target[:1400], validation_data=held_out, epochs=5, verbose=2)

names = [str(digit) for digit in range(10)]
report = keras_convmixer.export(model, sys.argv[1], classes=names, data="digits", format="tflite", quantize="int8")
=======
images = np.repeat(digits.images[..., None] * 255 / 16, 3, axis=-1)  # RGB, 0 to 255

model = keras_convmixer.ConvMixer(32, 2, kernel_size=3, patch_size=1, input_shape=(8, 8, 3), num_classes=10)
model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
model.fit(images[:1400], digits.target[:1400], validation_data=(images[1400:], digits.target[1400:]), epochs=4)

classes = [f"digit {name}" for name in digits.target_names]
report = keras_convmixer.export(
    model, "exported", classes=classes, format="tflite", quantize="int8", data="digits", threads=1
)
>>>>>>> h_weights
print(report.as_table())
