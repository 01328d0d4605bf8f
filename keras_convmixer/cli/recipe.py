"""`convmixer recipe`."""

import argparse

from keras_convmixer.cli.words import SET_HELP

SUMMARY = "show a recipe with every key at its value, or explain the keys"
EXAMPLE = "show cifar10 --set training.epochs=5"

_EXAMPLES = """\
  convmixer recipe keys training
  convmixer recipe keys optimizer.layer_decay
"""


def add_arguments(parser):
    parser.epilog += f"\n{_EXAMPLES}"
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = _action(actions, "show", "print a whole recipe, every default written out", EXAMPLE, _show)
    show.add_argument(
        "recipe", metavar="RECIPE", help="digits, cifar10, imagenet, finetune, a YAML file or a run's folder"
    )
    show.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    show.add_argument("--json", action="store_true", help="print JSON")
    keys = _action(actions, "keys", "explain the keys: type and range, default, meaning", "keys training", _keys)
    keys.add_argument("name", nargs="?", metavar="SECTION", help="a section, or one key (default: all)")
    form = keys.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown")


def run(arguments):
    return arguments.action(arguments)


def _action(actions, name, summary, example, action):
    parser = actions.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  convmixer recipe {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(action=action)
    return parser


def _show(arguments):
    from keras_convmixer.recipes import Recipe

    recipe = Recipe.load(arguments.recipe, arguments.set)
    print((recipe.to_json() if arguments.json else recipe.to_yaml()).rstrip("\n"))
    return 0


def _keys(arguments):
    from keras_convmixer.recipes.reference import reference

    found = reference(arguments.name)
    chosen = found.as_json if arguments.json else found.as_markdown if arguments.markdown else found.as_table
    print(chosen().rstrip("\n"))
    return 0
