"""What the weights are for: a model that knows some digits learns the others from a few images."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import keras_convmixer
from keras_convmixer import Recipe
from keras_convmixer.cli import main

SIZES = ["model.dim=32", "model.depth=3", "model.kernel_size=5", "model.patch_size=1"]
IMAGES = ["model.input_size=[8, 8]", "model.crop=1.0", "model.interpolation=bilinear", "augmentation.flip=0"]


def write(folder, classes, training):
    """Digits as `split/class/image`, `training` of each class for training and the others for validation."""
    digits = load_digits()
    for name in classes:
        for i, pixels in enumerate(digits.images[digits.target == name]):
            path = folder / ("train" if i < training else "val") / str(name) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.uint8(np.round(pixels * 255 / 16))).save(path)


def top1(workdir):
    return json.loads((workdir / "metrics.json").read_text())["top1"]


@pytest.mark.slow
def test_a_converted_model_learns_from_a_few_images_what_random_weights_do_not(tmp_path, capsys):
    write(tmp_path / "known", range(5), training=120)
    write(tmp_path / "new", range(5, 10), training=8)
    settings = [*IMAGES, "augmentation.crop_scale=[0.8, 1.0]", "augmentation.color_jitter=0"]
    recipe = ["model.variant=null", *SIZES, *settings, "training.epochs=8", f"data.source={tmp_path / 'known'}"]
    keras_convmixer.train(Recipe.load("digits", recipe), tmp_path / "run", verbose=0)

    # Out to timm's layout and back in, as a checkpoint that somebody was given.
    checkpoint, start = tmp_path / "known.safetensors", tmp_path / "start"
    assert main(["convert", str(tmp_path / "run"), "--out", str(checkpoint)]) == 0
    words = ["--activation", "gelu", "--classes", str(tmp_path / "run" / "classes.txt"), "--input-size", "8", "8"]
    words += ["--mean", "0.5", "0.5", "0.5", "--std", "0.5", "0.5", "0.5"]
    assert main(["convert", str(checkpoint), "--out", str(start), *words]) == 0

    # Random weights need a backbone that learns as fast as the head: the comparison is at its fairest to them.
    recipe = ["model.variant=null", *settings, f"data.source={tmp_path / 'new'}", "training.epochs=6"]
    recipe += ["training.batch_size=8", "optimizer.learning_rate=0.02", "optimizer.backbone_multiplier=1"]
    random = [*SIZES, "model.mean=[0.5, 0.5, 0.5]", "model.std=[0.5, 0.5, 0.5]", "model.weights=null"]
    for workdir, weights in (("tuned", [f"model.weights={start}"]), ("random", random)):
        keras_convmixer.train(Recipe.load("finetune", [*recipe, *weights]), tmp_path / workdir, verbose=0)
    assert top1(tmp_path / "tuned") > top1(tmp_path / "random") + 0.1
