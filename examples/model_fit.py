"""A ConvMixer trained with plain model.fit, then taken to a phone: int8 TFLite with class names.

python examples/model_fit.py OUT
"""

import sys

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_convmixer

digits = load_digits()
images = np.repeat((digits.images[..., None] * 255 / 16).round(), 3, axis=-1).astype("float32")  # RGB in 0–255
model = keras_convmixer.ConvMixer(64, 4, kernel_size=5, patch_size=1, input_shape=(8, 8, 3), num_classes=10)
model.compile(keras.optimizers.AdamW(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
held_out = images[1400:], digits.target[1400:]
model.fit(images[:1400], digits.target[:1400], validation_data=held_out, epochs=5, verbose=2)

names = [str(digit) for digit in range(10)]
report = keras_convmixer.export(model, sys.argv[1], classes=names, data="digits", format="tflite", quantize="int8")
print(report.as_table())
