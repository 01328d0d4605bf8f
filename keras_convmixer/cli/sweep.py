"""`convmixer sweep`."""

SUMMARY = "train many models that differ in a few keys, and compare them"
EXAMPLE = "grid.yaml --workdir sweeps/kernels"

_GRID = """
a grid:
  base: cifar10                       # a recipe
  data: photos/                       # what --data takes; default: the recipe's
  set: {training.epochs: 8}           # for all runs
  grid:                               # every combination of these
    model.patch_size: [1, 2, 4]
    model.kernel_size: [3, 5, 7]
  seeds: [0, 1]                       # of each

Instead of grid, runs names them:  runs: {as it is: {}, without EMA: {training.ema: null}}
"""


def add_arguments(parser):
    parser.epilog += f"\n{_GRID}"
    parser.add_argument("grid", help="YAML file; see below")
    parser.add_argument("--workdir", required=True, help="folder for the runs; the same command goes on in it")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    from keras_convmixer.experiments.sweep import sweep

    found = sweep(arguments.grid, arguments.workdir)
    print(found.as_json() if arguments.json else found.as_table())
    return 1 if any(run.failed for run in found.runs) else 0
