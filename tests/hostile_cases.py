"""Hostile cases: a damaged or harmful file of each kind, and the public function that reads it."""

import contextlib
import gzip
import io
import itertools
import json
import os
import pickle
import random
import shutil
import sys
import zipfile
from pathlib import Path
from unittest import mock

import hostile_bytes
from hostile_bytes import Payload, changed, claiming_archive, claiming_weights, encoded, packed, with_member

# How often each kind comes: loading a .keras file takes a hundred times as long as reading a recipe.
SHARES = {"recipe": 40, "archive": 20, "image": 8, "checkpoint": 26, "keras": 3, "run": 3}
IMAGES = 10  # in a case of images, which are predicted together


class Cases:
    """Makes cases and reads them. Good files of every kind are made once, in the folder `room`."""

    def __init__(self, room):
        os.environ["KERAS_CONVMIXER_CACHE"] = str(room / "cache")
        self.room, self.canary = room, room / "CANARY"
        sys.path.insert(0, str(Path(__file__).parent / "weights"))
        import keras
        import numpy as np
        import torch_writer
        from PIL import Image
        from safetensors.numpy import save

        import keras_convmixer
        from keras_convmixer import bundles
        from keras_convmixer.weights.state_dict import state_dict

        rng = np.random.default_rng(0)
        picture = Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8))
        self.images = [encoded(picture, form) for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]
        keras.utils.set_random_seed(0)
        model = self.new_model()
        arrays = {name: np.ascontiguousarray(array) for name, array in state_dict(model).items()}
        content, storages = torch_writer.contents(arrays)
        torch_writer.write_zip(room / "good.pth", content, storages)
        floats = {name: array for name, array in arrays.items() if array.dtype == np.float32}
        content, storages = torch_writer.contents(floats, legacy=True)
        torch_writer.write_legacy(room / "good_legacy.pth", content, storages, 4)
        model.save(room / "good.keras")
        model.save_weights(room / "good.weights.h5")
        plain = keras_convmixer.ConvMixer(
            8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3, classifier_activation=None
        )
        run = bundles.Bundle(plain, keras_convmixer.Preprocessing((8, 8)), ("a", "b", "c"))
        bundles.save(run, room / "good_run", recipe=keras_convmixer.Recipe.load("digits").to_yaml(), metrics={})
        keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x)]).save(room / "lambda.keras")
        self.checkpoints = {
            ".pth": [(room / name).read_bytes() for name in ("good.pth", "good_legacy.pth")],
            ".safetensors": [save(arrays)],
            ".weights.h5": [(room / "good.weights.h5").read_bytes()],
        }
        self.keras_files = [(room / name).read_bytes() for name in ("good.keras", "lambda.keras")]
        self.recipes = [
            keras_convmixer.Recipe.load(name).to_yaml() for name in keras_convmixer.recipes.list_recipes()
        ]
        self.model = model

    def warm_up(self):
        """Reads some whole files of each kind, so that no case is charged with what the first takes."""
        whole = mock.patch.object(hostile_bytes, "damaged", lambda rng, content, others=(): bytes(content))
        for kind, seed in itertools.product(SHARES, range(6)):
            place = self.room / "case" / kind
            shutil.rmtree(self.room / "case", ignore_errors=True)
            place.parent.mkdir()
            with whole, contextlib.suppress(Exception):
                getattr(self, kind)(random.Random(seed), place)()

    @staticmethod
    def new_model():
        import keras_convmixer

        return keras_convmixer.ConvMixer(8, 1, 3, 2, input_shape=(8, 8, 3), num_classes=3)

    # Each of these makes a file or folder in `place` and returns what reads it.

    def recipe(self, rng, place):
        import yaml

        import keras_convmixer

        text = rng.choice(self.recipes)
        match rng.randrange(5):
            case 0:
                content = hostile_bytes.damaged(rng, text.encode(), [one.encode() for one in self.recipes])
            case 1:
                tag = rng.choice(("python/object/apply:os.system", "python/name:os.system", "python/module:os"))
                content = f"seed: !!{tag} ['touch {self.canary}']\n{text}".encode()
            case 2:
                depth = rng.choice((5, 9, 30))
                names = [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(depth)]
                key = rng.choice(("base", "seed", "model", "optimizer", "zzz"))
                inner = rng.choice(("", "  mean:\n", "  arguments:\n", "  name:\n"))
                content = "\n".join([f"{key}:\n{inner}", *(f"    {name}" for name in names)]).encode()
            case _:
                content = yaml.safe_dump(changed(rng, yaml.safe_load(text))).encode("utf-8", "surrogatepass")
        place = place.with_suffix(".yaml")
        place.write_bytes(content)
        return lambda: keras_convmixer.Recipe.load(place)

    def image(self, rng, place):
        from keras_convmixer.inference.prediction import predict

        folder = place / "photos"
        folder.mkdir(parents=True)
        for i in range(IMAGES):
            good = rng.choice(self.images)
            (folder / f"{i}.jpg").write_bytes(hostile_bytes.damaged(rng, good, self.images))
        bundle = self.bundle()

        def read():
            found = predict(bundle, [folder])
            wrong = [one for one in found if one.error is not None and "\n" in one.error]
            if wrong or len(found) != IMAGES:
                raise AssertionError(f"{len(found)} predictions; errors of more than a line: {wrong}")

        return read

    def bundle(self):
        import keras_convmixer

        if not hasattr(self, "_bundle"):
            self._bundle = keras_convmixer.load(self.room / "good_run")
        return self._bundle

    def archive(self, rng, place):
        from keras_convmixer.data.datasets import open_dataset

        place = place.with_suffix(rng.choice((".tar", ".tar.gz", ".zip")))
        names = [f"photos/{kind}/{i}.png" for kind in ("a", "b") for i in range(3)]
        if rng.random() < 0.3:
            odd = ["../x.png", "/etc/x.png", "a\\..\\x.png", "a/" * 300 + "x.png", "x\0.png", "C:x.png"]
            names[rng.randrange(6)] = rng.choice([*odd, "é" * 200 + ".png"])
        if place.suffix != ".zip" and rng.random() < 0.25:
            content = claiming_archive(rng, self.images)
            place.write_bytes(gzip.compress(content, 1) if place.suffix == ".gz" else content)
            return lambda: open_dataset(place).split("train")
        content = packed(rng, place.suffix, {name: rng.choice(self.images) for name in names})
        place.write_bytes(content if rng.random() < 0.1 else hostile_bytes.damaged(rng, content))
        return lambda: [open_dataset(place).split(name) for name in ("train", "validation")]

    def checkpoint(self, rng, place):
        import keras_convmixer

        suffix = rng.choice(list(self.checkpoints))
        good = self.checkpoints[suffix]
        content = rng.choice(good)
        if suffix == ".pth" and rng.random() < 0.2:
            harm = pickle.dumps({"state_dict": Payload(self.canary)}, protocol=2)
            content = with_member(content, "data.pkl", harm) if content[:2] == b"PK" else harm
        elif suffix == ".pth" and content[:2] == b"PK" and rng.random() < 0.6:
            # Inside, past the checksums.
            name = rng.choice(zipfile.ZipFile(io.BytesIO(content)).namelist())
            inner = zipfile.ZipFile(io.BytesIO(content)).read(name)
            content = with_member(content, name, hostile_bytes.damaged(rng, inner))
        elif suffix == ".weights.h5" and rng.random() < 0.3:
            content = claiming_weights(rng, content)
        else:
            content = hostile_bytes.damaged(rng, content, good)
        place = Path(f"{place}{suffix}")
        place.write_bytes(content)
        return lambda: keras_convmixer.weights.load.load_weights(self.model, place)

    def keras(self, rng, place):
        import keras_convmixer

        place = place.with_suffix(".keras")
        place.write_bytes(self._damaged_keras(rng, rng.choice(self.keras_files)))
        return lambda: keras_convmixer.load(place, ["a", "b", "c"])

    def _damaged_keras(self, rng, content):
        name = rng.choice(("config.json", "metadata.json", "model.weights.h5"))
        inner = zipfile.ZipFile(io.BytesIO(content)).read(name)
        match rng.randrange(6):
            case 0:
                return hostile_bytes.damaged(rng, content, self.keras_files)
            case 1 if name.endswith(".h5"):
                return with_member(content, name, claiming_weights(rng, inner))
            case 1:
                return with_member(content, name, rng.choice((b"", b" " * (40 << 20), b"[" * 100_000, b"null")))
            case 2 | 3 if name.endswith(".json"):
                return with_member(content, name, json.dumps(changed(rng, json.loads(inner))).encode())
            case _:
                return with_member(content, name, hostile_bytes.damaged(rng, inner))

    def run(self, rng, place):
        import keras_convmixer

        shutil.copytree(self.room / "good_run", place)
        name = rng.choice(("preprocessing.json", "preprocessing.json", "classes.txt", "recipe.yaml", "model.keras"))
        content = (place / name).read_bytes()
        if name == "model.keras":
            content = self._damaged_keras(rng, content)
        elif name.endswith(".json") and rng.random() < 0.8:
            content = json.dumps(changed(rng, json.loads(content))).encode("utf-8", "surrogatepass")
        else:
            content = hostile_bytes.damaged(rng, content)
        (place / name).write_bytes(content)
        if name == "recipe.yaml":
            return lambda: keras_convmixer.compare([place])
        return lambda: keras_convmixer.load(place)
