"""What several subcommands say of the same argument."""

DATA_HELP = (
    "a TFDS name (cifar10, imagenet2012, ...), a folder split/class/image or class/image, an archive (.tar, "
    ".tar.gz, .zip) of either, or digits"
)
MODEL_HELP = "a run or model folder, the name of a published model, or a .keras file"
CLASSES_HELP = "file of class names, one a line, in the order of the outputs; a .keras file needs it"
SET_HELP = "override a key of the recipe"
