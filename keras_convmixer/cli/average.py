"""`convmixer average`."""

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_tensorflow
from keras_convmixer.cli.words import DATA_HELP

SUMMARY = "average models' weights, and measure BatchNorm's statistics anew"
EXAMPLE = "runs/mine/checkpoints/*.safetensors --out averaged"


def add_arguments(parser):
    parser.add_argument(
        "models", nargs="+", help="run or model folders, or checkpoints (RUN/checkpoints/*.safetensors)"
    )
    parser.add_argument("--out", required=True, help="model folder to write")
    parser.add_argument("--data", help=f"the training images: {DATA_HELP} (default: the first model's recipe's)")
    parser.add_argument(
        "--images",
        type=int,
        default=4096,
        help="training images to measure the statistics on (default: 4096); 0 averages the statistics too",
    )


def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer.training.averaging import average
    average(arguments.models, files.expanded(arguments.out), data=arguments.data, images=arguments.images)
    count = len(arguments.models)
    what = f"the average of {count} models" if count > 1 else "the model"
    print(f"wrote {arguments.out}: {what}{', BatchNorm measured anew' if arguments.images else ''}")
    return 0
