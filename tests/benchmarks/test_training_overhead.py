"""benchmarks/training_overhead.py: both ways train to their end, and a line says how they compare."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_overhead.py"


@pytest.mark.slow
def test_both_ways_are_timed_epoch_by_epoch():
    small = ["--epochs", "2", "--rounds", "1", "--set", "model.dim=8", "--set", "model.depth=1"]
    done = subprocess.run([sys.executable, SCRIPT, *small], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[-3:]
    for line, way in zip(lines, ("fit", "train")):
        assert re.match(rf"{way} +\d+\.\d{{3}} s an epoch  \(median of 2, ", line)
    assert re.fullmatch(r"train takes \d+\.\d{3} times as long", lines[-1])
