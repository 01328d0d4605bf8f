"""`convmixer predict`."""

from keras_convmixer.cli.start import quiet_tensorflow

SUMMARY = "classify images"
EXAMPLE = "runs/d photo.jpg more/*.png --top 3"


def add_arguments(parser):
    parser.add_argument("model", help="a run or model folder, or the name of a published model")
    parser.add_argument("images", nargs="+", help="image files, folders or patterns")
    parser.add_argument("--top", type=int, default=5, help="classes to name for each image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer.inference import prediction
    predictions = prediction.predict(arguments.model, arguments.images, top=arguments.top)
    print(prediction.as_json(predictions) if arguments.json else prediction.as_table(predictions))
    return 1 if any(prediction.error for prediction in predictions) else 0
