"""Whether MediaPipe's ImageClassifier, as phone apps use it, says of photographs what `convmixer predict` says.

    convmixer export saved_models/digits --format tflite --quantize int8 --out exported
    python -m pip install mediapipe
    python examples/mediapipe_check.py saved_models/digits exported/model_int8.tflite --photos examples/digits

Each photograph is classified twice: cropped and resized as `predict` does it, where the scores must be the same,
and left to MediaPipe, which stretches the whole photograph to the model's size.
"""

import argparse
from pathlib import Path

import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from PIL import Image

import keras_convmixer
from keras_convmixer.data.decode import evaluation_image


def classified(classifier, pixels):
    """Class name → score, best first, of uint8 pixels `(height, width, 3)`."""
    image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(pixels))
    found = {}
    for category in classifier.classify(image).classifications[0].categories:
        found.setdefault(category.category_name, category.score)  # ImageNet has two cranes
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="what was exported: a run or model folder")
    parser.add_argument("files", nargs="+", help="TFLite files made from it")
    parser.add_argument("--photos", required=True, help="folder of photographs")
    parser.add_argument("--most", type=int, default=200, help="photographs, at most (default: 200)")
    arguments = parser.parse_args()
    bundle = keras_convmixer.load(arguments.model)
    photos = sorted(path for path in Path(arguments.photos).rglob("*") if path.is_file())[: arguments.most]
    predictions = keras_convmixer.predict(bundle, photos, top=len(bundle.classes))
    for file in arguments.files:
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=file))
        same, same_left, most = 0, 0, 0.0
        with vision.ImageClassifier.create_from_options(options) as classifier:
            for prediction in predictions:
                content = prediction.path.read_bytes()
                got = classified(
                    classifier, evaluation_image(content, bundle.preprocessing).numpy().astype("uint8")
                )
                expected = dict(reversed(prediction.classes))
                same += next(iter(got)) == prediction.classes[0][0]
                most = max(most, *(abs(got[name] - expected[name]) for name in expected))
                left = classified(classifier, np.asarray(Image.open(prediction.path).convert("RGB")))
                same_left += next(iter(left)) == prediction.classes[0][0]
        print(
            f"{file}: {len(predictions)} photographs, top-1 equal on {same}, scores within {most:.1e}; "
            f"whole photographs left to MediaPipe: top-1 equal on {same_left}"
        )


if __name__ == "__main__":
    main()
