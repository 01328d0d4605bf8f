"""Makes a folder of saved_models/ from a finished run: exports, figures on all test images, a curve and a card.

python saved_models/ship.py runs/cifar10 convmixer_256_8_ks5_p2 --of cifar10 --data cifar10_jpeg.tar.gz
"""

import argparse
import csv
import dataclasses
import datetime
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import yaml
from matplotlib.figure import Figure

import keras_convmixer
from keras_convmixer import files
from keras_convmixer.exported.loaded import load
from keras_convmixer.parts import parameter_count
from keras_convmixer.recipes import Recipe

HERE = Path(__file__).parent
COPIED = ("model.keras", "preprocessing.json", "classes.txt", "history.csv", "training_images.npy")
# what was changed of the recipe in the middle of a run
CHANGES = "changes.json"
FILES = {"none": "model.tflite", "int8": "model_int8.tflite"}

# What a run cannot know: what its images are, whose, and what a model of them is no use for.
DATA = {
    "cifar10": """\
CIFAR-10 (Krizhevsky, 2009, "Learning Multiple Layers of Features from Tiny Images"): 50,000 colour photographs of
32×32 pixels to learn from and 10,000 to test on, 10 classes of equal size. Here they were re-encoded as JPEG, which
costs a little accuracy against the original pixels. The data set's authors state no licence; its images were
collected from the web.

It knows these ten classes and names one of them for whatever it sees. It has seen small pictures with the thing in
the middle; of a photograph it sees no more than the middle square, at 32×32. It was tested on images like those it
learned from, and on nothing else: neither on other cameras nor for fairness among what the pictures show.
""",
    "digits": """\
Handwritten digits that scikit-learn carries (UCI, "Optical Recognition of Handwritten Digits", CC BY 4.0): 1,438 of
the 1,797 images of 8×8 pixels to learn from, 359 held out, which were also looked at while the recipe was chosen.

It knows dark grounds with a light digit in the middle, 8 pixels high, and nothing else: it is for trying things
out.
""",
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="what the model is to be called")
    parser.add_argument("--first", type=Path, help="folder of the run from whose weights it started")
    parser.add_argument("--of", choices=DATA, required=True, help="what it learned from")
    parser.add_argument("--data", required=True, help="where that lies here, as for convmixer evaluate")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".writing-") as temporary:
        folder = Path(temporary) / arguments.name
        folder.mkdir()
        write(arguments.run, arguments.first, folder, arguments.of, arguments.data)
        shutil.rmtree(HERE / arguments.name, ignore_errors=True)
        folder.rename(HERE / arguments.name)
    write_sums()


def write(run, first, folder, of, data):
    for name in COPIED:
        shutil.copy(run / name, folder)
    if (run / CHANGES).exists():
        shutil.copy(run / CHANGES, folder)
    # Where files lay on one machine is of no use on another.
    elsewhere = {"data": {"source": of}}
    if first:
        (folder / "first_recipe.yaml").write_text(Recipe.load(first / "recipe.yaml", elsewhere).to_yaml())
        shutil.copy(first / "history.csv", folder / "first_history.csv")
        elsewhere |= {"model": {"weights": "runs/first"}}
    (folder / "recipe.yaml").write_text(Recipe.load(run / "recipe.yaml", elsewhere).to_yaml())
    evaluation = keras_convmixer.evaluate(folder, data=data)
    mirrored = keras_convmixer.evaluate(folder, data=data, test_time_flip=True)
    forms = {}
    for quantize, name in FILES.items():
        with tempfile.TemporaryDirectory() as exported:
            keras_convmixer.export(
                folder,
                exported,
                format="tflite",
                quantize=quantize,
                data=data,
                author="keras_convmixer",
                license="MIT",
            )
            shutil.copy(Path(exported) / name, folder)
            for beside in ("labels.txt", "input.json"):
                shutil.copy(Path(exported) / beside, folder)
            # As the model in this folder, so that the images that it has learned from are left out.
            form = dataclasses.replace(load(Path(exported) / name), path=folder)
            forms[name] = keras_convmixer.evaluate(form, data=data).top(1)
    trained = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    trained["data"]["source"] = of
    trained["parameters"] = parameter_count(keras_convmixer.load(folder).model)
    # Of the data stays what the run says: the evaluation knows where it lies here, and not what was learned from.
    figures = evaluation.summary() | {"data": trained["data"]}
    metrics = trained | figures | {"test_time_flip_top1": mirrored.top(1), "tflite_top1": forms}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    histories = [read(folder / name) for name in ("first_history.csv", "history.csv") if (folder / name).exists()]
    draw([row for history in histories for row in history], folder / "training_curve.png")
    (folder / "README.md").write_text(card(folder, of, metrics, histories, evaluation), encoding="utf-8")


def read(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def draw(history, path):
    epochs = range(1, len(history) + 1)
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, key, words, factor in (
        (figure.add_subplot(1, 2, 1), "accuracy", "top-1, %", 100),
        (figure.add_subplot(1, 2, 2), "loss", "loss, nats", 1),
    ):
        for which, label in ((key, "training, augmented"), (f"val_{key}", "held out")):
            axes.plot(epochs, [factor * float(row[which]) for row in history], label=label)
        axes.set(xlabel="epoch", ylabel=words)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def changed(changes):
    """What was changed in the middle of a run, each in a few words."""
    for change in changes:
        for key, (before, after) in change["changes"].items():
            yield f"`{key}` was {before} and became {after} after {change['after']}"


def card(folder, of, metrics, histories, evaluation):
    low, high = metrics["top1_interval"]
    *_, last = histories
    seconds = sum(float(row["seconds"]) for history in histories for row in history)
    speed = statistics.median(float(row["images_per_second"]) for row in last)
    retrain = f"convmixer train --recipe saved_models/{folder.name}/recipe.yaml --data DATA --workdir runs/again"
    how, epochs = "trained with `recipe.yaml` from random weights", f"{len(last)} epochs"
    if len(histories) == 2:
        retrain = f"{retrain.replace('recipe.', 'first_recipe.').replace('again', 'first')}\n    {retrain}"
        how = "trained with `first_recipe.yaml` from random weights, then with `recipe.yaml` from where that ended"
        planned = yaml.safe_load((folder / "first_recipe.yaml").read_text(encoding="utf-8"))["training"]["epochs"]
        epochs = f"{len(histories[0])} of {planned} epochs, then {len(last)} epochs"
    if (folder / CHANGES).exists():
        epochs += f" ({'; '.join(changed(json.loads((folder / CHANGES).read_text(encoding='utf-8'))))})"
    sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("model.keras", *FILES.values())}
    top1 = {"model.keras": metrics["top1"]} | metrics["tflite_top1"]
    rows = [f"| `{name}` | {sizes[name]:.2f} MB | {100 * top1[name]:.2f} % |" for name in sizes]
    classes = evaluation.classes
    confusion = [
        f"| {name} | {' | '.join(str(count) for count in row)} |"
        for name, row in zip(classes, evaluation.confusion.tolist())
    ]
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    weights = files.sha256(folder / "model.keras")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    flipped = 100 * metrics["test_time_flip_top1"]
    mirrors = recipe["augmentation"]["flip"] != 0
    mean_of_two = f" The mean over each image and its mirror image: {flipped:.2f} %." if mirrors else ""
    named = folder.name in keras_convmixer.list_models()
    made = f'create_model("{folder.name}", weights="cifar10")' if named else f'load("{folder.name}").model'
    return f"""\
# {folder.name}

A ConvMixer with {metrics["parameters"]:,} parameters, {how}.

    convmixer predict {folder.name} photo.jpg

    model = keras_convmixer.{made}

{DATA[of]}
## How good it is

On the {metrics["images"]:,} images of the split "{metrics["split"]}": top-1 **{100 * metrics["top1"]:.2f} %**
(95 % interval {100 * low:.2f} to {100 * high:.2f}), loss {metrics["loss"]:.4f}, expected calibration error
{100 * metrics["calibration_error"]:.2f} %.{mean_of_two}
One training, seed {recipe["seed"]}: another seed's would differ.

| file | size | top-1 |
|---|---|---|
{chr(10).join(rows)}

The TFLite files take RGB in 0–255 (int8's as uint8) and give probabilities; `input.json` says what they ask of
an image, `labels.txt` what the outputs are.

Counts, a row for each true class, a column for each predicted one:

| | {" | ".join(classes)} |
|---|{"---|" * len(classes)}
{chr(10).join(confusion)}

## How it was trained

{epochs}, {seconds / 60:.1f} minutes in all, {speed:,.0f} images/s in the median epoch, on
{metrics["processor"]}, {metrics["precision"]}; {versions}.

![top-1 and loss by epoch](training_curve.png)

    {retrain}

## What it is

Made {datetime.date.today()} at commit {commit[:12]}; SHA-256 of `model.keras`:
`{weights}`.
Licence: MIT, as the code.
"""


def write_sums():
    shipped = sorted(str(path.relative_to(HERE)) for path in HERE.glob("[!._]*/*"))
    lines = [f"{files.sha256(HERE / name)}  {name}\n" for name in shipped]
    temporary = HERE / ".SHA256SUMS"
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, HERE / "SHA256SUMS")


if __name__ == "__main__":
    main()
