"""`convmixer visualize`."""

from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, MODEL_HELP
from keras_convmixer.errors import UserError

SUMMARY = "draw a model's kernels and receptive field, and what it sees in photographs"
EXAMPLE = "runs/d photo.jpg more/*.png --out figures"


def add_arguments(parser):
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    images = parser.add_argument(
        "images",
        nargs="+",
        default=[],
        help="if any: image files, folders, patterns, http(s) addresses, or - for an image on stdin",
    )
    images.required = False  # With "*" argparse would take none where an option stands before them.
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="new or empty folder for the figures, PNG files"
    )
    parser.add_argument(
        "--class",
        dest="of_class",
        metavar="NAME_OR_INDEX",
        help="of the class activation maps (default: the likeliest for each image)",
    )
    parser.add_argument(
        "--blocks",
        metavar="N,N,...",
        help="to show, numbered from 0 (default: the first, the last and two between them)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON: the files, and each image's class")


@quiet_native_code()
def run(arguments):
    blocks = None if arguments.blocks is None else _numbers(arguments.blocks)
    with quiet_tensorflow():
        from keras_convmixer.visualize import save_figures
    written = save_figures(
        arguments.model,
        arguments.out,
        arguments.images,
        classes=arguments.classes,
        of_class=arguments.of_class,
        blocks=blocks,
    )
    print(written.as_json() if arguments.json else written.as_table())
    return 1 if any(prediction.error for prediction, _ in written.images) else 0


def _numbers(text):
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--blocks {text}: expected numbers with commas between them, such as 0,3") from None
