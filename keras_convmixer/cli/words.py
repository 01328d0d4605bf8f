"""What several subcommands say of the same argument."""

DATA_HELP = (
    "a TFDS name (cifar10, imagenet2012, ...), a folder split/class/image or class/image, an archive (.tar, "
    ".tar.gz, .zip) of either, or digits"
)
SET_HELP = "override a key of the recipe"
CLASSES_HELP = "file of class names, one a line, for a .keras file"
MODEL_HELP = "a run or model folder, the name of a published model, or a .keras file with --classes"
