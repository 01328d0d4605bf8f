"""Kills a training at random times, and compares what it ends in with one that was left alone.

    python tests/kill_training.py                     # the digits, 20 kills
    python tests/kill_training.py --kills 5 --seed 7
    python tests/kill_training.py --recipe cifar10 --data photos/ --set model.dim=16 training.epochs=2 --seconds 60

Each kill is a SIGKILL of the whole process, at a time drawn anew, from its first new checkpoint on; then the same
command goes on. At the end weights must be equal to the bit, the figures of `history.csv` to rounding, and nothing
half-written may be left. The exit code is 1 where they are not. Runs on a CPU repeat only with a single thread
between operations and TensorFlow's deterministic operations, which is how the training runs here.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

SETTINGS = ("model.dim=16", "model.depth=2", "training.epochs=40", "training.batch_size=64", "training.ema=0.99")
SETTINGS += ("model.stochastic_depth=0.2", "model.dropout=0.1", "augmentation.mixup=0.5")
INTERVAL = "training.checkpoint_minutes=0.01"
_MAIN = """
import sys
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.experimental.enable_op_determinism()
from keras_convmixer.cli import main
sys.exit(main())
"""
# These are of the clock, not of the training.
TIMES = ("seconds", "images_per_second")


def training(arguments, folder):
    """The process of a training, which has begun."""
    words = ["train", "--recipe", arguments.recipe, "--workdir", str(folder)]
    words += ["--data", arguments.data] if arguments.data else []
    words += [word for setting in (*arguments.set, INTERVAL) for word in ("--set", setting)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    log = (folder.parent / f"{folder.name}.log").open("ab")
    return subprocess.Popen([sys.executable, "-c", _MAIN, *words], stdout=log, stderr=log, env=environment)


def killed(process, folder, delay):
    """Kills a training so many seconds after it has got further than it was. Returns whether it was still there."""
    before, deadline = checkpoints(folder), time.monotonic() + 600
    while checkpoints(folder) == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("*.safetensors"))


def history(folder):
    with (folder / "history.csv").open() as file:
        return [{k: float(v) for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]


def compared(whole, parts):
    """What differs between two runs, a line each."""
    import keras

    a, b = (keras.models.load_model(folder / "model.keras").get_weights() for folder in (whole, parts))
    unlike = sum(not np.array_equal(x, y) for x, y in zip(a, b))
    found = [f"{unlike} of {len(a)} weights differ"] if unlike else []
    rows, others = history(whole), history(parts)
    off = max(abs(one[k] - other[k]) / (abs(one[k]) or 1) for one, other in zip(rows, others) for k in one)
    if len(rows) != len(others) or off > 1e-6:
        found.append(f"{len(rows)} and {len(others)} rows of history, which differ by up to {off:.1e}")
    left = [*parts.rglob(".writing-*"), *parts.rglob("*.damaged")]
    print(f"history: {len(others)} rows, at most {off:.1e} apart; {len(left)} files half-written or damaged")
    return found + [f"{path} is left" for path in left]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--data", help="images to train on, instead of the recipe's own")
    parser.add_argument("--set", nargs="*", default=SETTINGS)
    parser.add_argument("--seconds", type=float, default=1.5, help="at most, from the first new checkpoint on")
    arguments = parser.parse_args()
    rng, folder = random.Random(arguments.seed), Path(tempfile.mkdtemp(prefix="kill-"))
    whole, parts = folder / "whole", folder / "parts"
    if training(arguments, whole).wait():
        sys.exit(f"the training itself fails: see {folder}/whole.log")
    kills, where = 0, []
    for _ in tqdm(range(arguments.kills), "kills"):
        process = training(arguments, parts)
        if not killed(process, parts, rng.uniform(0, arguments.seconds)):
            break
        kills += 1
        where += checkpoints(parts)[-1:]
    if training(arguments, parts).wait():
        sys.exit(f"a training that was killed does not go on: see {folder}/parts.log")
    within = sum("-000000-steps" not in name for name in where)
    print(f"{kills} kills, {within} of them with a checkpoint within an epoch as the newest")
    found = compared(whole, parts)
    print("\n".join(found) or "weights equal to the bit", f"({folder})")
    sys.exit(1 if found or kills < arguments.kills else 0)


if __name__ == "__main__":
    main()
