"""`convmixer predict`."""

import json

from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, EXPORTED_HELP, MODEL_HELP

SUMMARY = "classify images"
EXAMPLE = "runs/d photo.jpg more/*.png --top 3"


def add_arguments(parser):
    parser.add_argument("model", help=f"{MODEL_HELP}, or {EXPORTED_HELP}")
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    parser.add_argument(
        "images", nargs="+", help="image files, folders, patterns, http(s) addresses, or - for an image on stdin"
    )
    parser.add_argument("--top", type=int, default=5, help="classes to name for each image (default: 5)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="write a .csv, .parquet or .jsonl file, of any number of images; stopped, the same command goes on",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


@quiet_native_code()
def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer.inference.prediction import predict
        from keras_convmixer.inference.prediction_file import write_predictions
    if arguments.out:
        words = {"classes": arguments.classes, "top": arguments.top}
        written = write_predictions(arguments.out, arguments.model, arguments.images, **words)
        unreadable = f", {written.unreadable:,} could not be read" if written.unreadable else ""
        said = f"wrote {arguments.out}: {written.images:,} images{unreadable}"
        print(json.dumps(written._asdict()) if arguments.json else said)
        return 1 if written.unreadable else 0
    predictions = predict(arguments.model, arguments.images, classes=arguments.classes, top=arguments.top)
    print(predictions.as_json() if arguments.json else predictions.as_table())
    return 1 if any(prediction.error for prediction in predictions) else 0
