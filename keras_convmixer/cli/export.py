"""`convmixer export`."""

from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, DATA_HELP, MODEL_HELP

SUMMARY = "write a SavedModel, TFLite, ONNX or OpenVINO file or a web page, and compare it with the model"
EXAMPLE = "runs/d --format tflite --quantize int8 --out exported"


def add_arguments(parser):
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    parser.add_argument(
        "--format",
        choices=("saved_model", "tflite", "onnx", "openvino", "web"),
        default="saved_model",
        help="onnx and openvino need the extra of that name; web is TFLite in a page that classifies in a browser "
        "(default: saved_model)",
    )
    parser.add_argument(
        "--quantize",
        choices=("none", "float16", "dynamic", "int8"),
        default="none",
        help="TFLite's numbers: dynamic has int8 weights, int8 is integers throughout; onnx and openvino know int8 "
        "too (default: none, float32)",
    )
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument(
        "--data",
        help=f"images to compare and calibrate with: {DATA_HELP}; or photographs without classes (default: the "
        "model's own)",
    )
    parser.add_argument("--no-compare", action="store_true", help="do not compare: int8 alone then needs images")
    parser.add_argument(
        "--input-type", choices=("uint8", "float32"), help="of an int8 file's images (default: uint8)"
    )
    parser.add_argument("--no-split", action="store_true", help="keep depthwise kernels whole in a TFLite file")
    parser.add_argument("--logits", action="store_true", help="also give the logits in a TFLite file")
    parser.add_argument("--features", action="store_true", help="also give the last block's feature map")
    for name in ("author", "license"):
        parser.add_argument(f"--{name}", default="not stated", help="of the model, for a TFLite file's metadata")
    parser.add_argument("--json", action="store_true", help="print JSON")


@quiet_native_code()
def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer.deployment.export import export
    report = export(
        arguments.model,
        arguments.out,
        classes=arguments.classes,
        format=arguments.format,
        quantize=arguments.quantize,
        data=arguments.data,
        compare=not arguments.no_compare,
        input_type=arguments.input_type,
        logits=arguments.logits,
        features=arguments.features,
        split=not arguments.no_split,
        author=arguments.author,
        license=arguments.license,
    )
    print(report.as_json() if arguments.json else report.as_table())
    if arguments.format == "web" and not arguments.json:
        print(f"{'page':<16} {arguments.out}/index.html, for any web server; or: convmixer demo {arguments.out}")
    return 0
