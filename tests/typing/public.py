"""Every public name, used as a user would. Checked by mypy, not run."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import keras_convmixer
from keras_convmixer import visualize


def build() -> keras.Model:
    names: list[str] = keras_convmixer.list_models()
    model = keras_convmixer.ConvMixer(1536, 20, kernel_size=9, patch_size=7, input_shape=(224, 224, 3))
    model = keras_convmixer.create_model(names[0], weights="imagenet", num_classes=10)
    keras_convmixer.features(model)
    return keras_convmixer.fold(model)


def run(workdir: Path, mine: tuple[tf.data.Dataset, tf.data.Dataset]) -> float:
    recipe = keras_convmixer.Recipe.load("digits", {"training": {"epochs": 1}})
    bundle: keras_convmixer.Bundle = keras_convmixer.train(recipe, workdir, devices=["CPU:0"], verbose=0)
    keras_convmixer.train(
        "digits", "runs/digits", data=mine, classes=["a", "b"], callbacks=[keras.callbacks.Callback()]
    )
    evaluation = keras_convmixer.evaluate(bundle, "digits", split="validation", batch_size=8)
    predictions = keras_convmixer.predict(workdir, ["a.png", Path("b.png")], top=3)
    for prediction in predictions:
        name, probability = prediction.classes[0]
        print(prediction.path, name.upper(), probability + 0.5)
    report = keras_convmixer.export(bundle, workdir, format="tflite", quantize="int8", images=10)
    print(report.as_table(), report.size + 1, keras_convmixer.load("saved_models/digits").classes[0].upper())
    preprocessing = keras_convmixer.Preprocessing((32, 32), 1.0, "bilinear")
    print(preprocessing.resize_size[0] + 1, keras_convmixer.__version__.upper())
    rows: str = evaluation.as_csv() + predictions.as_csv()
    print(
        evaluation.as_table(), predictions.as_json(), report.as_json(), rows, len(predictions), predictions[0].path
    )
    evaluation.save("figures")
    evaluation.save_per_image(workdir / "images.csv")
    low, high = evaluation.interval
    print(
        high - low, evaluation.calibration_error + 0.5, evaluation.scores()["a"].f1 + 0.5, evaluation.per_image()[0]
    )
    written = visualize.save_figures(bundle, "figures", [workdir / "a.png"], of_class="a", blocks=[0])
    print(written.as_json(), written.files[0].name, [prediction.error for prediction, _ in written.images])
    return evaluation.top(1) + evaluation.loss


def look(model: keras.Model, image: np.ndarray) -> None:
    shapes = visualize.depthwise_kernels(model, 0).shape + visualize.patch_embeddings(model).shape
    evidence = (
        visualize.class_activation_map(model, image, 3, block=1) + visualize.feature_maps(model, image)[..., 0]
    )
    field = visualize.effective_receptive_field(model, [image])
    print(shapes, evidence, visualize.side_holding(field, 0.5, 7) + visualize.receptive_field(model))
    visualize.plot_class_activation_maps(model, image, class_index=3, blocks=[0]).savefig("map.png")
