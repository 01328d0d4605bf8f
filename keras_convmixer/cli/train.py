"""`convmixer train`."""

import contextlib
import json
import sys
from pathlib import Path

from keras_convmixer.cli import launch
from keras_convmixer.cli.quiet import quiet_tensorflow
from keras_convmixer.cli.words import DATA_HELP, RECIPE_HELP, SET_HELP, recipe_or_default

SUMMARY = "train a model, or go on with an interrupted training"
EXAMPLE = "--recipe digits --workdir runs/d"


def add_arguments(parser):
    parser.add_argument(
        "--recipe", help=f"{RECIPE_HELP} (default: the run's own; of a new one with --data, finetune)"
    )
    parser.add_argument("--data", help=f"{DATA_HELP} (default: the recipe's)")
    parser.add_argument("--workdir", required=True, help="folder of the run; alone, it goes on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=SET_HELP)
    parser.add_argument(
        "--on-nan", choices=("stop", "rollback"), help="a loss that is not finite: as training.on_nan of the recipe"
    )
    parser.add_argument("--devices", metavar="NAMES", help="such as GPU:0,GPU:1 (default: every GPU)")
    launch.add_arguments(parser)


def run(arguments):
    if arguments.processes is not None:
        return launch.launch(arguments)
    launch.choose_backend(arguments.backend)
    with quiet_tensorflow():
        from keras_convmixer.pages.run_page import NAME as REPORT
        from keras_convmixer.recipes import Recipe
        from keras_convmixer.training.train import train

        several = launch.asked_for(arguments)
    overrides = list(arguments.set)
    if arguments.data:
        overrides.append(f"data.source={json.dumps(str(arguments.data))}")
    if arguments.on_nan:
        overrides.append(f"training.on_nan={arguments.on_nan}")
    goes_on = not arguments.data or (Path(arguments.workdir) / "recipe.yaml").exists()
    if goes_on and not arguments.recipe:
        recipe, changes = None, overrides
    else:
        recipe, changes = Recipe.load(recipe_or_default(arguments.recipe, arguments.data), overrides), ()
    devices = arguments.devices.split(",") if arguments.devices else None
    try:
        # A bar that is rewritten in place is for a terminal; a log gets a line an epoch.
        verbose = 1 if sys.stderr.isatty() else 2
        with launch.one_of_several(arguments) if several else contextlib.nullcontext() as hosts:
            bundle = train(recipe, arguments.workdir, changes=changes, devices=devices, verbose=verbose)
    except KeyboardInterrupt:
        print(f"convmixer: interrupted; the same command goes on in {arguments.workdir}", file=sys.stderr)
        return 130
    if hosts and not hosts.first:
        return 0
    if (bundle.path / REPORT).exists():
        print(f"wrote {bundle.path}/{REPORT}", file=sys.stderr)
    metrics = json.loads((bundle.path / "metrics.json").read_text(encoding="utf-8"))
    top5 = f", top-5 {metrics['top5']:.2%}" if len(bundle.classes) > 5 else ""
    print(f"{bundle.path}: top-1 {metrics['top1']:.2%}{top5} on {metrics['images']} images ({metrics['split']})")
    return 0
