"""`convmixer models`."""

import json

SUMMARY = "list the named models"
EXAMPLE = "--json"


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    from keras_convmixer.variants import VARIANTS, weights_of

    if arguments.json:
        rows = {
            name: {
                "parameters": v.parameters,
                "input_size": list(v.preprocessing.input_size),
                "activation": v.activation,
                "dataset": v.dataset,
                "top1": v.top1,
                "top5": v.top5,
                "weights": weights_of(name),
            }
            for name, v in VARIANTS.items()
        }
        print(json.dumps(rows, indent=2))
        return 0
    head = f"{'name':<27}{'parameters':>11}  {'input':<8} {'activation':<11}{'top-1':>7}{'top-5':>8}"
    print(f"{head}  {'weights':<9} measured on")
    for name, v in VARIANTS.items():
        height, width = v.preprocessing.input_size
        scores = "".join(f"{'' if score is None else format(score, '.2f'):>8}" for score in (v.top1, v.top5))
        row = f"{name:<27}{v.parameters:>11,}  {f'{height}x{width}':<9}{v.activation:<10}{scores}"
        print(f"{row}  {', '.join(weights_of(name)) or 'none':<9} {v.dataset}")
    return 0
