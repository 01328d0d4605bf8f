"""Damaged and hostile files, many of them, against everything that reads a file.

    python tests/fuzz.py                          # 20,000 cases, seed 0
    python tests/fuzz.py --cases 500 --seed 7
    python tests/fuzz.py --kinds archive recipe

Each case is a good file that was damaged, or one made to do harm: pickles, Keras layers and YAML tags that run
a command if they are obeyed. It is read by the package's public functions, in a worker process. A finding is any
exception but those that the command line turns into a line (UserError, OSError, ImportError), a case of more
than 5 s of computing or 2 GB, a worker that died, and a command that was run. Findings are saved with what made
them. The exit code is 1 if there are any.
"""

import argparse
import contextlib
import gzip
import io
import itertools
import json
import multiprocessing
import os
import pickle
import random
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from unittest import mock

import psutil
from tqdm import tqdm

SECONDS, BYTES = 5.0, 2e9
# How often each kind comes: loading a .keras file takes a hundred times as long as reading a recipe.
SHARES = {"recipe": 40, "archive": 20, "image": 8, "checkpoint": 26, "keras": 3, "run": 3}
IMAGES = 10  # in a case of images, which are predicted together
CANARY = "CANARY"


class Payload:
    """What a pickle, obeyed, would call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def damaged(rng, content, others=()):
    """Bytes with a few faults."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not content:
            return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
        at, size = rng.randrange(len(content)), rng.choice((1, 2, 4, 8, 64, 1000))
        match rng.randrange(8):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del content[at:]
            case 3:
                del content[at : at + size]
            case 4:
                content[at:at] = content[max(0, at - size) : at] * rng.choice((1, 2, 50))
            case 5:
                content[at : at + 8] = rng.choice(
                    (b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\0\0\0\x80" * 2)
                )
            case 6:
                content[at:at] = bytes(rng.randrange(256) for _ in range(size))
            case 7 if others:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                content[at : at + size] = other[start : start + size]
    return bytes(content)


def value(rng, depth=0):
    """A plain value as JSON and YAML have them, or nearly."""
    odd = [None, True, False, 0, -1, 1, 0.5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "null", "\x1b[2J"]
    odd += [
        "a\nb",
        "\u2028",
        "é" * 50,
        10**400,
        [1] * 1000,
        "../../etc/passwd",
        224,
        [8, 8],
        "1e-3",
        "9" * 5000,
        10**9,
        [3 * 10**4] * 2,
    ]
    if depth > 3 or rng.random() < 0.7:
        return rng.choice(odd)
    items = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return items if rng.random() < 0.5 else {str(rng.choice(odd))[:50]: item for item in items}


def changed(rng, plain):
    """A plain value with one part of it another, gone, or new."""
    if isinstance(plain, dict) and plain and rng.random() < 0.85:
        key = rng.choice(list(plain))
        plain = dict(plain)
        match rng.randrange(6):
            case 0:
                del plain[key]
            case 1:
                plain[str(value(rng))[:40]] = plain[key]
            case _:
                plain[key] = changed(rng, plain[key])
        return plain
    if isinstance(plain, list) and plain and rng.random() < 0.7:
        at = rng.randrange(len(plain))
        return [*plain[:at], changed(rng, plain[at]), *plain[at + rng.randrange(2) :]]
    return value(rng)


class Cases:
    """Makes cases and reads them. Good files of every kind are made once, in the folder `room`."""

    def __init__(self, room):
        os.environ["KERAS_CONVMIXER_CACHE"] = str(room / "cache")
        self.room, self.canary = room, room / CANARY
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
        self.images = [_encoded(picture, form) for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]
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
        whole = mock.patch.dict(globals(), damaged=lambda rng, content, others=(): bytes(content))
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
                content = damaged(rng, text.encode(), [one.encode() for one in self.recipes])
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
            (folder / f"{i}.jpg").write_bytes(damaged(rng, good, self.images))
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
            content = _claims(rng, self.images)
            place.write_bytes(gzip.compress(content, 1) if place.suffix == ".gz" else content)
            return lambda: open_dataset(place).split("train")
        content = _packed(rng, place.suffix, {name: rng.choice(self.images) for name in names})
        place.write_bytes(content if rng.random() < 0.1 else damaged(rng, content))
        return lambda: [open_dataset(place).split(name) for name in ("train", "validation")]

    def checkpoint(self, rng, place):
        import keras_convmixer

        suffix = rng.choice(list(self.checkpoints))
        good = self.checkpoints[suffix]
        content = rng.choice(good)
        if suffix == ".pth" and rng.random() < 0.2:
            harm = pickle.dumps({"state_dict": Payload(self.canary)}, protocol=2)
            content = _with_member(content, "data.pkl", harm) if content[:2] == b"PK" else harm
        elif suffix == ".pth" and content[:2] == b"PK" and rng.random() < 0.6:
            # Inside, past the checksums.
            name = rng.choice(zipfile.ZipFile(io.BytesIO(content)).namelist())
            inner = zipfile.ZipFile(io.BytesIO(content)).read(name)
            content = _with_member(content, name, damaged(rng, inner))
        elif suffix == ".weights.h5" and rng.random() < 0.3:
            content = _claiming_weights(rng, content)
        else:
            content = damaged(rng, content, good)
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
                return damaged(rng, content, self.keras_files)
            case 1 if name.endswith(".h5"):
                return _with_member(content, name, _claiming_weights(rng, inner))
            case 1:
                return _with_member(content, name, rng.choice((b"", b" " * (40 << 20), b"[" * 100_000, b"null")))
            case 2 | 3 if name.endswith(".json"):
                return _with_member(content, name, json.dumps(changed(rng, json.loads(inner))).encode())
            case _:
                return _with_member(content, name, damaged(rng, inner))

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
            content = damaged(rng, content)
        (place / name).write_bytes(content)
        if name == "recipe.yaml":
            return lambda: keras_convmixer.compare([place])
        return lambda: keras_convmixer.load(place)


def _encoded(picture, form):
    out = io.BytesIO()
    picture.save(out, form)
    return out.getvalue()


def _packed(rng, suffix, members):
    out = io.BytesIO()
    if suffix == ".zip":
        method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
        with zipfile.ZipFile(out, "w", method) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return out.getvalue()
    with tarfile.open(fileobj=out, mode="w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if rng.random() < 0.03:
                links = tarfile.SYMTYPE, tarfile.LNKTYPE
                info.type = rng.choice((*links, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"S", b"x"))
            file.addfile(info, io.BytesIO(content))
    tar = out.getvalue() if rng.random() < 0.5 else damaged(rng, out.getvalue())
    return gzip.compress(tar, 1) if suffix == ".gz" else tar


def _claims(rng, images):
    """A tar of members and headers of members whose sizes, kinds and contents are anything, checksums right."""
    kinds = [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME]
    kinds += [tarfile.GNUTYPE_LONGLINK, tarfile.GNUTYPE_SPARSE, tarfile.SOLARIS_XHDTYPE, tarfile.REGTYPE]
    keys = ("path", "size", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major", "x" * 300, "hdrcharset")
    names = ("a/1.png", "b/2.png", "note.txt", "a/" * 90 + "1.png", "b")
    parts = []
    for _ in range(rng.choice((1, 3, 10, 300))):
        info = tarfile.TarInfo(rng.choice(names))
        records = b"".join(_record(rng.choice(keys), str(value(rng))[:400]) for _ in range(rng.randrange(4)))
        content = rng.choice(
            (b"", rng.choice(images), records, records, b"1" * rng.choice((99, 1 << 20)), b"n" * 5000)
        )
        info.type, info.size = rng.choice(kinds), len(content)
        if rng.random() < 0.1:
            info.size = rng.choice((-512, -1024, -1, 0, 1 << 20, 3 << 30, 1 << 60, len(content) + 512))
        parts += [info.tobuf(tarfile.GNU_FORMAT), content, bytes(-len(content) % 512)]
    return b"".join(parts) + bytes(rng.choice((0, 1024, 10_240)))


def _record(key, text):
    """A line of a pax header, after its own length."""
    line = f" {key}={text}\n".encode("utf-8", "surrogatepass")
    length = len(line) + len(str(len(line) + 4))
    return str(length).encode() + line


def _claiming_weights(rng, content):
    """An HDF5 file of weights in which one array is another, of which next to nothing is there."""
    import h5py

    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        names = []
        opened.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        if not names:
            return content
        name = rng.choice(names)
        shape = rng.choice(((), (1,), (10**9,), (2, 2), (10**5, 10**4), opened[name].shape, (1 << 40,)))
        del opened[name]
        match rng.randrange(3):
            case 0:
                opened[name] = h5py.ExternalLink("/etc/passwd", "/")
            case 1:
                opened[name] = h5py.SoftLink("/")
            case _:
                chunks = tuple(min(side, 1 << 12) for side in shape) or None
                kind = rng.choice(("float32", "float64", "int8", "S9"))
                opened.create_dataset(name, shape, kind, chunks=chunks, compression="gzip" if shape else None)
    return file.getvalue()


def _with_member(content, name, inner):
    """A zip archive with one member replaced, and its checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as after:
        for member in before.infolist():
            found = member.filename == name or member.filename.endswith(f"/{name}")
            kind = zipfile.ZIP_DEFLATED if found and len(inner) > 1 << 20 else zipfile.ZIP_STORED
            after.writestr(member.filename, inner if found else before.read(member), kind)
    return out.getvalue()


def work(pipe, room):
    """A worker: gets (seed, kind), answers with the outcome, "accepted", "refused" or what was wrong."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.dup2(quiet, 1)
    import warnings

    warnings.simplefilter("ignore")
    from keras_convmixer.errors import UserError

    room = Path(room)
    cases = Cases(room)
    cases.warm_up()
    pipe.send(None)
    while True:
        seed, kind = pipe.recv()
        place = room / "case" / f"{kind}"
        shutil.rmtree(room / "case", ignore_errors=True)
        shutil.rmtree(room / "cache", ignore_errors=True)
        place.parent.mkdir()
        read = getattr(cases, kind)(random.Random(f"{seed}/{kind}"), place)
        began = time.monotonic()
        pipe.send("made")
        try:
            read()
            outcome = "accepted"
        except (UserError, OSError, ImportError) as error:
            good = "\n" not in str(error) and len(str(error)) < 3000
            outcome = "refused" if good else f"more than a line: {str(error)[:5000]}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
        left = list((room / "cache").rglob(".writing-*"))
        if left and outcome in ("accepted", "refused"):
            outcome = f"left behind: {left[0].name}"
        if cases.canary.exists():
            cases.canary.unlink()
            outcome = "A COMMAND WAS RUN"
        pipe.send((outcome, time.monotonic() - began))


class Worker:
    """A process that reads cases, watched from here."""

    def __init__(self):
        self.room = Path(tempfile.mkdtemp(prefix="fuzz"))
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, str(self.room)), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()
        self.base = psutil.Process(self.process.pid).memory_info().rss

    def outcome(self, seed, kind):
        """(outcome, seconds that it computed, bytes above what it began with)."""
        self.pipe.send((seed, kind))
        try:
            self.pipe.recv()
            began, computed, peak = time.monotonic(), self.computed(), 0
            while not self.pipe.poll(0.02):
                seconds = time.monotonic() - began
                # On a busy machine most of the time is others'.
                computing = min(seconds, self.computed() - computed)
                peak = max(peak, psutil.Process(self.process.pid).memory_info().rss - self.base)
                if peak > BYTES or computing > SECONDS or seconds > 6 * SECONDS:
                    return ("too slow" if peak <= BYTES else "too much memory"), seconds, peak
            outcome, seconds = self.pipe.recv()
            peak = max(peak, psutil.Process(self.process.pid).memory_info().rss - self.base)
            return outcome, min(seconds, self.computed() - computed), peak
        except (EOFError, ConnectionError, psutil.Error):
            self.process.join()
            return f"the worker died: {self.process.exitcode}", 0.0, 0

    def computed(self):
        """Seconds of processor time that the worker has used."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def stop(self):
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.room, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of all (default: 0)")
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES), help="only these kinds")
    parser.add_argument("--out", type=Path, default=Path("fuzz_findings"), help="where findings are saved")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kinds = rng.choices(arguments.kinds, [SHARES[kind] for kind in arguments.kinds], k=arguments.cases)
    columns = ("cases", "accepted", "refused", "findings", "slowest", "memory")
    table = {kind: dict.fromkeys(columns, 0) for kind in arguments.kinds}
    worker = Worker()
    with contextlib.suppress(KeyboardInterrupt):  # the table of what was done so far is shown all the same
        for number, kind in enumerate(tqdm(kinds, unit="case")):
            seed = f"{arguments.seed}/{number}"
            outcome, seconds, memory = worker.outcome(seed, kind)
            row = table[kind]
            row["cases"] += 1
            row["slowest"], row["memory"] = max(row["slowest"], seconds), max(row["memory"], memory)
            if outcome in ("accepted", "refused") and seconds <= SECONDS:
                row[outcome] += 1
                continue
            row["findings"] += 1
            kept = arguments.out / f"{number}_{kind}"
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError):
                shutil.copytree(worker.room / "case", kept, symlinks=True)
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "finding.txt").write_text(f"seed {seed}, {seconds:.1f} s\n{outcome}\n")
            tqdm.write(f"{kept}: {outcome.splitlines()[0][:200]}")
            if not worker.process.is_alive() or outcome.startswith("too "):
                worker.stop()
                worker = Worker()
    worker.stop()
    print(f"{'kind':<12}" + "".join(f"{name:>12}" for name in (*columns[:4], "slowest, s", "memory, MB")))
    for kind, row in table.items():
        counts = "".join(f"{row[name]:>12}" for name in columns[:4])
        print(f"{kind:<12}{counts}{row['slowest']:>12.2f}{row['memory'] / 1e6:>12.0f}")
    return 1 if any(row["findings"] for row in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
