"""The head trained on kept features is the head trained under a frozen backbone."""

import csv
import json
import re
import shutil
import sys
import warnings

import keras
import numpy as np
import pytest
from page_of import Page
from PIL import Image
from sklearn.datasets import load_digits

import keras_convmixer
from keras_convmixer.training import dtype_policy, memory
from keras_convmixer.training.choices import Choices, choices


def history(run):
    """The figures of every epoch, but for the time that it took."""
    rows = csv.DictReader((run / "history.csv").open())
    return [{k: float(v) for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model that knows the digits a little."""
    folder = tmp_path_factory.mktemp("start")
    settings = {"model": {"dim": 16, "depth": 2}, "training": {"epochs": 2}, "augmentation": {"crop_scale": None}}
    keras_convmixer.train(keras_convmixer.Recipe.load("digits", settings), folder, verbose=0)
    return folder


@pytest.fixture
def frozen(start, small_recipe):
    """A recipe that starts from that model with a new head's settings, and freezes the rest."""
    settings = [f"model.weights={start}", "model.dim=null", "model.depth=null", "training.freeze_backbone=true"]
    settings += ["training.epochs=3", "augmentation.crop_scale=[0.5, 1.0]", "augmentation.flip=0.5"]
    return lambda *overrides: small_recipe(*settings, *overrides)


def test_with_as_many_crops_as_epochs_it_is_the_training_under_a_frozen_backbone(frozen, start, tmp_path):
    anew = keras_convmixer.train(frozen(), tmp_path / "anew", verbose=0)
    kept = keras_convmixer.train(frozen("training.cached_crops=3"), tmp_path / "kept", verbose=0)
    for run in (kept, anew):  # of the model that is saved it is no matter that it was frozen
        assert len(run.model.trainable_variables) == len(keras_convmixer.load(start).model.trainable_variables)
    for ours, theirs in zip(kept.model.get_weights(), anew.model.get_weights()):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    for a, b in zip(history(tmp_path / "kept"), history(tmp_path / "anew"), strict=True):
        assert a == pytest.approx(b, abs=1e-3)
    assert json.loads((tmp_path / "kept" / "metrics.json").read_text())["frozen"] is True
    top1 = keras_convmixer.evaluate(tmp_path / "kept").top(1)
    assert top1 == pytest.approx(history(tmp_path / "kept")[-1]["val_accuracy"], abs=0.003)
    page = Page((tmp_path / "kept" / "report.html").read_text(encoding="utf-8"))
    mistakes = re.findall(r"(\d) → \d [\d.]+% sure; digits/(\d+)", page.text)
    assert len(mistakes) == sum("taken for" in one["alt"] for one in page.named("img")) > 0
    assert [int(true) for true, _ in mistakes] == [load_digits().target[int(i)] for _, i in mistakes]


def test_another_activation_has_features_of_its_own(frozen, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVMIXER_CACHE", str(tmp_path / "cache"))
    for activation in ("gelu", "relu"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the weights are of a model with GELU
            settings = ("training.cached_crops=1", "training.epochs=1", f"model.activation={activation}")
            keras_convmixer.train(frozen(*settings), tmp_path / activation, verbose=0)
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 2


def test_muon_trains_a_head_alone(frozen, tmp_path):
    recipe = frozen("training.cached_crops=1", "training.epochs=1", "optimizer.name=muon")
    assert keras_convmixer.train(recipe, tmp_path, verbose=0).path == tmp_path


@pytest.mark.slow
def test_fewer_crops_come_again_in_another_order_and_are_computed_once(frozen, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVMIXER_CACHE", str(tmp_path / "cache"))
    recipe = frozen("training.cached_crops=1", "training.epochs=4", "optimizer.learning_rate=0.05")
    keras_convmixer.train(recipe, tmp_path / "run", verbose=0)
    (kept,) = (tmp_path / "cache" / "features").iterdir()
    made = kept.stat().st_mtime_ns
    losses = [row["loss"] for row in history(tmp_path / "run")]
    assert losses == sorted(losses, reverse=True)
    again = keras_convmixer.train(recipe, tmp_path / "again", verbose=0)
    assert kept.stat().st_mtime_ns == made
    assert again.classes == keras_convmixer.load(tmp_path / "run").classes
    keras_convmixer.train(frozen("training.cached_crops=1", "seed=1"), tmp_path / "seed", verbose=0)
    assert len(list((tmp_path / "cache" / "features").iterdir())) == 2


def test_mixed_images_have_no_features_of_their_own(frozen, tmp_path):
    with pytest.raises(ValueError, match=r"set augmentation.mixup and cutmix to 0"):
        keras_convmixer.train(frozen("training.cached_crops=2", "augmentation.mixup=0.5"), tmp_path, verbose=0)


@pytest.mark.parametrize(
    "sizes, input_size, batch, precision, rematerialize, measured",
    [
        # docs/training_speed.md, and fine-tuning of ConvMixer-768/32 at 224×224
        ({"dim": 256, "depth": 8, "patch_size": 2}, (32, 32), 512, "float32", False, 11.0),
        ({"dim": 256, "depth": 8, "patch_size": 2}, (32, 32), 512, "float32", True, 6.3),
        ({"dim": 256, "depth": 8, "patch_size": 2}, (32, 32), 512, "mixed_bfloat16", False, 6.0),
        ({"dim": 768, "depth": 32, "patch_size": 7}, (224, 224), 16, "float32", False, 17.3),
        ({"dim": 768, "depth": 32, "patch_size": 7}, (224, 224), 8, "float32", True, 5.7),
    ],
)
def test_memory_is_estimated_near_what_was_measured(sizes, input_size, batch, precision, rematerialize, measured):
    found = memory.step_bytes(sizes, input_size, batch, precision, rematerialize) / 1e9
    assert found == pytest.approx(measured, rel=0.25)


def test_a_step_that_will_not_fit_is_refused_with_a_remedy():
    assert memory.check(1e9, available=2e9) == 2e9
    assert 1e6 < memory.check(0) < 1e15  # what this machine has
    with pytest.raises(ValueError, match=r"about 17 GB and there are 8 GB: .*training.cached_crops"):
        memory.check(17e9, available=8e9)


def test_images_that_cannot_be_read_are_counted_with_kept_features_too(start, small_recipe, tmp_path):
    for name, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("L", (8, 8), shade + i).save(tmp_path / "photos" / name / f"{i}.png")
    data = tmp_path / "data"
    for split in ("train", "val"):
        shutil.copytree(tmp_path / "photos", data / split)
    (data / "val" / "dark" / "broken.png").write_text("no image")
    settings = [f"data.source={data}", "data.allow_corrupt=true", f"model.weights={start}", "model.dim=null"]
    settings += ["model.depth=null", "training.batch_size=4", "training.freeze_backbone=true", "training.epochs=1"]
    recipe = small_recipe(*settings, "training.cached_crops=1")
    for run in ("first", "from the cache"):
        keras_convmixer.train(recipe, tmp_path / run, verbose=0)
        metrics = json.loads((tmp_path / run / "metrics.json").read_text())
        assert (metrics["images"], metrics["skipped"]) == (16, 1)


class Stop(keras.callbacks.Callback):
    """Ends a training before its first step, or after it."""

    def __init__(self, after=False):
        super().__init__()
        self.after = after

    def on_train_begin(self, logs=None):
        if not self.after:
            raise InterruptedError

    def on_train_batch_end(self, batch, logs=None):
        raise InterruptedError


def test_what_the_hardware_decided_stays_where_a_run_goes_on_elsewhere(frozen, tmp_path, monkeypatch, capsys):
    settings = ["training.freeze_backbone=auto", "training.cached_crops=1", "training.checkpoint_minutes=0"]
    for hardware in (dtype_policy.Hardware("CPU"), dtype_policy.Hardware("GPU", (8, 0))):
        monkeypatch.setattr(dtype_policy, "hardware", lambda devices, hardware=hardware: hardware)
        with pytest.raises(InterruptedError):
            keras_convmixer.train(
                frozen(*settings, "training.precision=mixed"), tmp_path, callbacks=[Stop(after=True)], verbose=2
            )
        said = capsys.readouterr().err
        assert "the head alone is trained" in said
        assert "precision  float32\n" in said
    assert "going on after step 1 of epoch 1" in said
    training = keras_convmixer.Recipe.load(tmp_path).training
    with pytest.raises(ValueError, match=r"computed once \(training.cached_crops\), which takes one device of one"):
        choices(tmp_path, training, hardware, may_cache=False)


@pytest.mark.parametrize(
    "freezes, devices, why",
    [
        ("false", None, "the whole model is trained"),
        ("true", ["CPU:0", "CPU:1"], "it takes one device and the recipe's own data"),
    ],
)
def test_where_features_are_not_kept_the_header_says_so(
    small_recipe, tmp_path, capsys, monkeypatch, freezes, devices, why
):
    if devices:  # TensorFlow has started with one
        monkeypatch.setattr(
            sys.modules["keras_convmixer.training.train"],
            "choices",
            lambda *_: Choices("float32", frozen=True, cached=False),
        )
    recipe = small_recipe(
        f"training.freeze_backbone={freezes}", "training.cached_crops=2", "augmentation.mixup=0.5"
    )
    with pytest.raises(InterruptedError):
        keras_convmixer.train(recipe, tmp_path, callbacks=[Stop()], verbose=2)
    assert (
        f"features   computed in every step, training.cached_crops is not used: {why}\n" in capsys.readouterr().err
    )
