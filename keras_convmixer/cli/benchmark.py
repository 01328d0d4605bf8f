"""`convmixer benchmark`."""

import sys

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, DATA_HELP

SUMMARY = "measure every form of a model: images/s, size, memory, agreement"
EXAMPLE = "convmixer_768_32 --peers --out benchmark"


def add_arguments(parser):
    parser.add_argument(
        "models",
        nargs="*",
        default="convmixer_256_8_ks5_p2",
        metavar="MODEL",
        help="a run or model folder, a .keras file, or a variant's name for random weights (default: %(default)s)",
    )
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also the stock TFLite conversion and, where installed, ONNX Runtime, OpenVINO and timm",
    )
    parser.add_argument("--data", help=f"images: {DATA_HELP} (default: the model's own, or noise)")
    parser.add_argument("--images", type=int, default=64, help="images to compare the forms on (default: 64)")
    parser.add_argument("--rounds", type=int, default=10, help="how often each is timed (default: 10)")
    parser.add_argument(
        "--seconds", type=int, default=60, help="for each form; a slower one gets fewer rounds (default: 60)"
    )
    parser.add_argument("--threads", type=int, help="for each runtime (default: one for each processor)")
    parser.add_argument("--out", help="folder for benchmark.csv, benchmark.json and benchmark.png")
    parser.add_argument("--json", action="store_true", help="print JSON")


@quiet_native_code()
def run(arguments):
    if arguments.out:
        files.check_folder(arguments.out)
    with quiet_tensorflow():
        from keras_convmixer.benchmark.measure import benchmark
    result = benchmark(
        arguments.models,
        classes=arguments.classes,
        peers=arguments.peers,
        data=arguments.data,
        images=arguments.images,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        threads=arguments.threads,
    )
    print(result.as_json() if arguments.json else result.as_table(), flush=True)
    if arguments.out:
        out = files.expanded(arguments.out)
        result.save(out)
        print(f"wrote {out}/benchmark.csv, benchmark.json, benchmark.png", file=sys.stderr)
    return 0
