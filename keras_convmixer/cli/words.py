"""What several subcommands say of the same argument."""

DATA_HELP = (
    "a TFDS name (cifar10, imagenet2012, ...), a folder split/class/image or class/image, an archive (.tar, "
    ".tar.gz, .zip) of either, or digits"
)
SET_HELP = "override a key of the recipe"
