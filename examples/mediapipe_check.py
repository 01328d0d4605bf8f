"""Whether MediaPipe's ImageClassifier, as phone apps use it, says of photographs what `convmixer predict` says.

    convmixer export saved_models/digits --format tflite --quantize int8 --out exported
    python -m pip install mediapipe
    python examples/mediapipe_check.py saved_models/digits exported/model_int8.tflite --photos examples/digits

Each file is compared with `predict` on the model that it was made from and on the file itself. MediaPipe gets the
photographs cropped and resized as `predict` does it, and once more as they are: it stretches them to its own size.
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


def compared(found, predictions):
    """Of how many photographs MediaPipe names the same class first, and by how much a score differs at most."""
    same, difference = 0, 0.0
    for scores, prediction in zip(found, predictions):
        expected = dict(reversed(prediction.classes))
        same += next(iter(scores)) == prediction.classes[0][0]
        difference = max(difference, *(abs(scores[name] - expected[name]) for name in expected))
    return same, difference


def check(model, files, photos):
    """For each file a dictionary: what MediaPipe was compared with → (equal top-1, greatest difference).

    Args:
        model: the model folder that the files were exported from. files: TFLite files. photos: image files.
    """
    bundle = keras_convmixer.load(model)
    top = len(bundle.classes)
    of_model = keras_convmixer.predict(bundle, photos, top=top)
    cropped = [evaluation_image(path.read_bytes(), bundle.preprocessing).numpy().astype("uint8") for path in photos]
    results = {}
    for file in files:
        options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=str(file)))
        with vision.ImageClassifier.create_from_options(options) as classifier:
            found = [classified(classifier, pixels) for pixels in cropped]
            whole = [classified(classifier, np.asarray(Image.open(path).convert("RGB"))) for path in photos]
        results[file] = {
            "predict MODEL": compared(found, of_model),
            "predict FILE": compared(found, keras_convmixer.predict(file, photos, top=top)),
            "predict MODEL, whole photographs": compared(whole, of_model),
        }
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="a run or model folder")
    parser.add_argument("files", nargs="+", help="TFLite files exported from it")
    parser.add_argument("--photos", required=True, help="folder of photographs")
    parser.add_argument("--most", type=int, default=200, help="photographs, at most (default: 200)")
    arguments = parser.parse_args()
    photos = sorted(path for path in Path(arguments.photos).rglob("*") if path.is_file())[: arguments.most]
    print(f"{len(photos)} photographs")
    for file, results in check(arguments.model, arguments.files, photos).items():
        print(file)
        for what, (same, difference) in results.items():
            print(f"  {what:<33} top-1 equal on {same}, scores within {difference:.1e}")


if __name__ == "__main__":
    main()
