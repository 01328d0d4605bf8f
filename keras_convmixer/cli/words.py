"""What several subcommands say of the same argument."""

import sys

DATA_HELP = (
    "a TFDS name (cifar10, imagenet2012, ...), a folder split/class/image or class/image, an archive (.tar, "
    ".tar.gz, .zip) of either, or digits"
)
MODEL_HELP = (
    "a run or model folder, the name of a trained model (digits, ...) or of one with published weights, or a "
    ".keras file"
)
EXPORTED_HELP = "what export wrote: a .tflite or .onnx file, a SavedModel's or OpenVINO's folder"
CLASSES_HELP = "file of class names, one a line, in the order of the outputs; a .keras file needs it"
RECIPE_HELP = "digits, cifar10, imagenet, finetune, a YAML file or a run's folder"
SET_HELP = "override a key of the recipe"


def recipe_or_default(recipe, source):
    """The recipe that was given; without one that for the data, and a line on stderr that says which."""
    if recipe:
        return recipe
    from keras_convmixer.recipes import default_recipe

    recipe = default_recipe(source)
    if recipe != source:
        print(f"convmixer: no --recipe was given: taking {recipe}", file=sys.stderr)
    return recipe
