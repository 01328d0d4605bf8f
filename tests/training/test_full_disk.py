"""A disk that fills while a training writes to it: a small one in memory, mounted for one process alone."""

import json
import subprocess
import sys

import pytest

from keras_convmixer.training import checkpoint

MOUNT = ["unshare", "--map-root-user", "--mount"]
DETERMINISTIC = """
import sys
import tensorflow as tf
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.experimental.enable_op_determinism()
from keras_convmixer.cli import main
sys.exit(main(sys.argv[1:]))
"""
SCRIPT = """
import json, pathlib, shutil, subprocess, sys
disk, out = map(pathlib.Path, sys.argv[1:3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], check=True)
(disk / "filler").write_bytes(bytes(5_100_000))
done = subprocess.run([*sys.argv[3:], "--workdir", disk / "run"], capture_output=True, text=True)
print(json.dumps({"code": done.returncode, "said": done.stderr.splitlines()}))
shutil.copytree(disk / "run", out / "full")
(disk / "filler").unlink()
subprocess.run([*sys.argv[3:], "--workdir", disk / "run"], check=True, capture_output=True)
shutil.copytree(disk / "run", out / "after")
"""


@pytest.mark.slow
def test_a_full_disk_costs_an_epoch_at_most(tmp_path):
    if subprocess.run([*MOUNT, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here: unshare --map-root-user --mount is not permitted")
    (tmp_path / "disk").mkdir()
    command = [sys.executable, "-c", DETERMINISTIC, "train", "--recipe", "digits", "--set", "training.epochs=5"]
    script = [*MOUNT, sys.executable, "-c", SCRIPT, tmp_path / "disk", tmp_path, *command]
    found = subprocess.run(script, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    first = json.loads(found.stdout.splitlines()[0])

    assert first["code"] == 1
    assert first["said"][-1].startswith("convmixer: ")
    assert "No space left on device" in first["said"][-1]
    assert not any("Traceback" in line for line in first["said"])
    kept = sorted((tmp_path / "full" / "checkpoints").glob("*.safetensors"))
    assert kept
    for path in kept:
        checkpoint.read(path)  # raises where one is damaged
    assert not list((tmp_path / "after").rglob(".writing-*"))

    subprocess.run([*command, "--workdir", tmp_path / "whole"], capture_output=True, check=True)
    last, same = (
        sorted((tmp_path / name / "checkpoints").glob("*.safetensors"))[-1] for name in ("after", "whole")
    )
    ours, theirs = (checkpoint.read(path)[0] for path in (last, same))
    assert last.name == same.name
    assert all((ours[key] == theirs[key]).all() for key in theirs)
