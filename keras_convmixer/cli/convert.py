"""`convmixer convert`."""

import dataclasses

from keras_convmixer import files
from keras_convmixer.cli.quiet import quiet_tensorflow
from keras_convmixer.errors import UserError

SUMMARY = "turn a PyTorch checkpoint into a Keras model, or a Keras model into timm's layout"
EXAMPLE = "convmixer_768_32_ks7_p7_relu.pth.tar --out model.keras"
DEFAULT = "a Keras model's own, or the variant's"


def add_arguments(parser):
    parser.add_argument(
        "source",
        help="a .pth, .pth.tar or .safetensors file or address; or a .keras file, a model folder, or the name of a "
        "trained model that comes with the package",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="a .keras file, a folder for every other command, or (of a Keras model) a .safetensors file for timm",
    )
    parser.add_argument("--activation", help=f"gelu, relu, ...: checkpoints do not show it (default: {DEFAULT})")
    parser.add_argument(
        "--input-size",
        type=int,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        help=f"of its images (default: {DEFAULT})",
    )
    for name in ("mean", "std"):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="X",
            help=f"{name} of its images' channels, scaled to 0-1 (default: {DEFAULT})",
        )
    parser.add_argument("--ema", action="store_true", help="take the checkpoint's averaged weights")
    parser.add_argument(
        "--classes", help="file of class names, one a line, for a folder (default: its own, or ImageNet's)"
    )


def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer import bundles, shipped, variants
        from keras_convmixer.weights.load import load_model
        from keras_convmixer.weights.state_dict import save_torch
    arguments.source = shipped.located(arguments.source) or arguments.source
    source, out = files.expanded(arguments.source), files.expanded(arguments.out)
    bundles.check_new(out)
    if bundles.is_of_folder(out):
        raise UserError(f"{out.parent} is a model folder, whose other files would not be the new model's")
    given = {name: getattr(arguments, name) for name in ("activation", "mean", "std") if getattr(arguments, name)}
    if arguments.input_size:
        given["image_size"] = tuple(arguments.input_size)
    if out.suffix == ".safetensors":
        options = {"ema": arguments.ema, "classes": arguments.classes, "input-size": arguments.input_size} | given
        for option in (name for name, value in options.items() if value):
            raise UserError(f"--{option} is not for {out.name}: what timm reads holds weights alone, as they are")
        is_file = source.suffix == ".keras"
        save_torch(load_model(source) if is_file else bundles.load(arguments.source).model, out)
    elif out.suffix == ".keras":
        if arguments.classes:
            raise UserError(f"--classes is for a folder: {out.name} holds no class names")
        model = variants.convert_checkpoint(arguments.source, ema=arguments.ema, **given)
        with files.replacing(out) as temporary:
            model.save(temporary)
    elif out.suffix:
        raise UserError(f"{out}: give --out a .keras file, a .safetensors file or a folder")
    else:
        bundles.save(_bundle(source, arguments, given), out)
        if source.is_dir():
            _keep_origin(source, out)
    print(f"wrote {out}")
    return 0


def _keep_origin(source, out):
    """What a model folder knows of its training goes with its weights: the recipe, and the images it has seen."""
    from keras_convmixer.data import fingerprints

    recipe, known = source / "recipe.yaml", fingerprints.read(source)
    if recipe.is_file():
        files.write_text(out / recipe.name, recipe.read_text(encoding="utf-8"))
    if known is not None:
        fingerprints.write(out, known)


def _bundle(source, arguments, given):
    """What a model folder is to hold."""
    from keras_convmixer import bundles, variants

    is_keras = source.suffix == ".keras" or source.is_dir()
    own = bundles.load(source, arguments.classes) if is_keras else None
    if own and not given and not arguments.ema:
        return own
    model = variants.convert_checkpoint(arguments.source, ema=arguments.ema, classifier_activation=None, **given)
    made = bundles.load(model, own.classes if own else arguments.classes)
    if not own:
        return made
    kept = {name: getattr(own.preprocessing, name) for name in ("crop", "interpolation")}
    return dataclasses.replace(made, preprocessing=dataclasses.replace(made.preprocessing, **kept))
