"""`convmixer evaluate`."""

import sys
from pathlib import Path

from keras_convmixer import files, shipped
from keras_convmixer.cli.quiet import quiet_native_code, quiet_tensorflow
from keras_convmixer.cli.words import CLASSES_HELP, DATA_HELP, EXPORTED_HELP, MODEL_HELP
from keras_convmixer.errors import UserError, visible

SUMMARY = "measure a model on a data set"
EXAMPLE = "runs/d --split test"


def add_arguments(parser):
    parser.add_argument("model", help=f"{MODEL_HELP}, or {EXPORTED_HELP}")
    parser.add_argument("--classes", metavar="FILE", help=CLASSES_HELP)
    parser.add_argument("--data", help=f"{DATA_HELP} (default: what the model was trained on)")
    parser.add_argument(
        "--split",
        help="train, validation, test or all (default: the held-out one; of a folder without splits, what the "
        "model has not learned from; of an exported or .keras file, which does not know that, all)",
    )
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default: 64)")
    parser.add_argument("--flip", action="store_true", help="take the mean over each image and its mirror image")
    parser.add_argument(
        "--allow-corrupt", action="store_true", help="even if over 1 %% of the images are unreadable"
    )
    parser.add_argument(
        "--out",
        help="folder for the figures (default: in the model's folder, but for a shipped one, evaluation/SPLIT, "
        "with --flip evaluation/SPLIT_flip; of other data than it was trained on, evaluation/DATA/SPLIT)",
    )
    parser.add_argument(
        "--per-image", metavar="FILE.csv", help="file for a row an image: path, label, prediction, probability"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    if arguments.per_image is not None:
        files.check_place(arguments.per_image)
    with quiet_tensorflow():
        from keras_convmixer.exported.loaded import load
        from keras_convmixer.inference.evaluation import evaluate, is_own
    with quiet_native_code():
        bundle = load(arguments.model, arguments.classes)
    # A model that comes with the package stays as it was shipped.
    keeps = bundle.path and not shipped.is_within(bundle.path)
    if arguments.out or keeps:
        _check_place(arguments.out, bundle.path)
    evaluation = evaluate(
        bundle,
        arguments.data,
        split=arguments.split,
        batch_size=arguments.batch_size,
        test_time_flip=arguments.flip,
        allow_corrupt=arguments.allow_corrupt,
        verbose=1 if sys.stderr.isatty() and not arguments.json else 0,
    )
    if arguments.out or keeps:
        of_own = is_own(bundle, arguments.data)
        out = files.expanded(arguments.out or _place(bundle.path, evaluation, None if of_own else arguments.data))
        evaluation.save(out)
        print(f"wrote {out}/metrics.json, confusion_matrix.csv, confusion_matrix.png", file=sys.stderr)
    if arguments.per_image is not None:
        evaluation.save_per_image(arguments.per_image)
        print(f"wrote {arguments.per_image}", file=sys.stderr)
    for name, reason in evaluation.skipped:
        print(visible(f"skipped {name}: {reason}"), file=sys.stderr)
    print(evaluation.as_json() if arguments.json else evaluation.as_table())
    return 0


def _place(model, evaluation, data):
    """The folder for figures in a model's own, where neither other data's nor another way's are replaced."""
    name = evaluation.split + ("_flip" if evaluation.test_time_flip else "")
    return model / "evaluation" / (Path(data).resolve().name if data else "") / name


def _check_place(out, model):
    """Raises where the figures cannot be written, or would replace those that a training left."""
    if out and shipped.is_taken(out):
        raise UserError(f"{out} is a model's own folder, whose metrics.json stays: give --out another")
    files.check_folder(out or model / "evaluation")
