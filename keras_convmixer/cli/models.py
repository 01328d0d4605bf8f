"""`convmixer models`."""

import json

SUMMARY = "list the named models"
EXAMPLE = "--json"


def add_arguments(parser):
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments):
    from keras_convmixer import shipped
    from keras_convmixer.variants import VARIANTS

    trained = {name: _trained(shipped.folder(name)) for name in shipped.names()}
    if arguments.json:
        rows = {name: _variant(name) | {"trained": None} for name in VARIANTS}
        unpublished = dict.fromkeys(("activation", "top1", "top5")) | {"weights": []}
        for name, row in trained.items():
            rows[name] = unpublished | row | rows.get(name, {}) | {"trained": row["trained"]}
        print(json.dumps(rows, indent=2))
        return 0
    head = f"{'name':<27}{'parameters':>11}  {'input':<8} "
    print("variants, top-1 and top-5 as published:")
    print(f"{head}{'activation':<11}{'top-1':>7}{'top-5':>8}  {'weights':<9} measured on")
    for name in VARIANTS:
        row = _variant(name)
        scores = "".join(f"{'' if row[key] is None else format(row[key], '.2f'):>8}" for key in ("top1", "top5"))
        weights = ", ".join(row["weights"]) or "none"
        print(f"{_shown(name, row)}{row['activation']:<10}{scores}  {weights:<9} {row['dataset']}")
    if trained:
        print("\ntrained, with the package, top-1 as measured on images held out:")
        print(f"{head}{'top-1':>8}{'images':>8}  data")
    for name, row in trained.items():
        found = row["trained"]
        print(f"{_shown(name, row)}{found['top1']:>8.2f}{found['images']:>8,}  {row['dataset']}")
    return 0


def _variant(name):
    """What is known of a variant. Scores are published ones, in percent."""
    from keras_convmixer.variants import get_variant, weights_of

    v = get_variant(name)
    return {
        "parameters": v.parameters,
        "input_size": list(v.preprocessing.input_size),
        "activation": v.activation,
        "dataset": v.dataset,
        "top1": v.top1,
        "top5": v.top5,
        "weights": weights_of(name),
    }


def _trained(folder):
    """What is known of a trained model. Its `top1` is in percent, of so many held-out `images`."""
    from keras_convmixer.preprocessing import Preprocessing
    from keras_convmixer.recipes import Recipe

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return {
        "parameters": metrics["parameters"],
        "input_size": list(Preprocessing.read(folder / "preprocessing.json").input_size),
        "dataset": Recipe.load(folder / "recipe.yaml").data.source,
        "trained": {"top1": round(100 * metrics["top1"], 3), "images": metrics["images"]},
    }


def _shown(name, row):
    height, width = row["input_size"]
    return f"{name:<27}{row['parameters']:>11,}  {f'{height}x{width}':<9}"
