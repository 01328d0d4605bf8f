"""`convmixer data`."""

import sys
from pathlib import Path

from keras_convmixer.cli.quiet import quiet_tensorflow
from keras_convmixer.cli.words import DATA_HELP, RECIPE_HELP, SET_HELP, recipe_or_default

SUMMARY = "show what is in a data set and what a recipe makes of it"
EXAMPLE = "photos/ --recipe finetune --out look"


def add_arguments(parser):
    parser.add_argument("source", metavar="PATH", help=DATA_HELP)
    parser.add_argument(
        "--recipe", help=f"whose training input to show: {RECIPE_HELP} (default: finetune; of the digits, digits)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    parser.add_argument(
        "--out", metavar="DIR", help="folder for contact_sheet.png, of augmented images, and data.json"
    )
    parser.add_argument("--no-timing", action="store_true", help="leave out how fast the training input is")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    with quiet_tensorflow():
        from keras_convmixer import files
        from keras_convmixer.data import datasets, survey
        from keras_convmixer.recipes import Recipe
        from keras_convmixer.training.build import preprocessing
    recipe = Recipe.load(recipe_or_default(arguments.recipe, arguments.source), arguments.set)
    dataset = datasets.open_dataset(
        arguments.source,
        validation_fraction=recipe.data.validation_fraction,
        seed=recipe.seed,
        allow_corrupt=True,  # what cannot be read is among what is asked for
    )
    size = preprocessing(recipe.model)
    found = survey.survey(dataset, size, recipe.augmentation, timing=not arguments.no_timing)
    if arguments.out:
        out = Path(arguments.out)
        files.write_text(out / "data.json", found.as_json() + "\n")
        sheet = out / "contact_sheet.png"
        survey.write_contact_sheet(sheet, dataset.training(), size, recipe.augmentation, recipe.seed)
        print(f"wrote {out}/data.json, contact_sheet.png", file=sys.stderr)
    print(found.as_json() if arguments.json else found.as_table())
    return 0
