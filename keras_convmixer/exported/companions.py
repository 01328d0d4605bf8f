"""The two files that say how to use an exported model. They lie beside it, and in a TFLite file itself."""

import json

from keras_convmixer import class_names

LABELS, INPUT = "labels.txt", "input.json"


def texts(bundle):
    """File name → text, for a `Bundle`.

    labels.txt  a class a line, in the order of the outputs
    input.json  what to do with an image before the model gets it
    """
    labels = [class_names.display_name(name) for name in bundle.classes]
    return {LABELS: "".join(f"{label}\n" for label in labels), INPUT: _input(bundle.preprocessing)}


def _input(preprocessing):
    height, width = preprocessing.input_size
    values = {
        "how": f"Resize the image ({preprocessing.interpolation}, antialiased) so that a crop of width by height "
        "from its centre covers the fraction crop of its short side. Pass the crop as RGB, 0 to 255. Do not "
        "normalise it: the model does.",
        "width": width,
        "height": height,
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "color_space": "RGB",
        "range": [0, 255],
        "mean": 0,
        "std": 1,
    }
    return json.dumps(values, indent=2) + "\n"
