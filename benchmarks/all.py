"""The speeds that the docs state for a CPU, measured on this machine and written into one page.

    python benchmarks/all.py --out speed.md
    python benchmarks/all.py --out speed.md --photos photos/ --cifar10 cifar10.tar.gz
    python benchmarks/all.py --out speed.md --only inference --only training

The benchmarks run one after another, each in a process of its own; the machine should be otherwise idle. The page
names the hardware and the versions, and has each command with what it printed; it is written anew after each. Peers
are measured where they are installed: torch and timm, ONNX Runtime (the extra `onnx`), OpenVINO (`openvino`). One
that fails stands there with the end of what it said, the others go on, and the exit code is 1. GPUs have `gpu.py`.
"""

import argparse
import datetime
import shlex
import subprocess
import sys
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.benchmark.forms import PACKAGES
from keras_convmixer.machine import processor, usable_cores, versions

ROOT = Path(__file__).resolve().parents[1]
# What a command asks for, and the option that gives it.
DATA = {"PHOTOS": "photos", "CIFAR10": "cifar10"}
BENCHMARKS = {
    "training": "python benchmarks/training_speed.py --peers",
    "inference": "convmixer benchmark convmixer_768_32 --peers",
    "small_inference": "convmixer benchmark convmixer_256_8_ks5_p2 --peers",
    "input": "python benchmarks/input_throughput.py --data PHOTOS",
    "input_memory": "python benchmarks/input_throughput.py --data PHOTOS --memory",
    "training_input": "python benchmarks/training_input.py --recipe cifar10 --data CIFAR10",
    "training_overhead": "python benchmarks/training_overhead.py",
}
_PROGRAMS = {"python": [sys.executable], "convmixer": [sys.executable, "-m", "keras_convmixer"]}
_LAST_LINES = 5


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the Markdown file to write")
    parser.add_argument("--photos", help="a folder or an archive of photographs, for the benchmarks of their input")
    parser.add_argument("--cifar10", help="CIFAR-10, as for convmixer train --data, for that of a training's input")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be given several times")
    arguments = parser.parse_args(arguments)
    data = {word: getattr(arguments, option) for word, option in DATA.items()}
    lacking = {name: [word for word in _words(name) if word in data and not data[word]] for name in BENCHMARKS}
    for name in arguments.only or ():
        if lacking[name]:
            parser.error(f"{name} needs --{DATA[lacking[name][0]]}")
    chosen = arguments.only or [name for name in BENCHMARKS if not lacking[name]]
    page, failed = [_machine()], False
    for name in chosen:
        print(name, flush=True)
        section, code = _measured(name, data)
        page.append(section)
        failed = failed or code != 0
        files.write_text(arguments.out, "\n\n".join(page) + "\n")
    return 1 if failed else 0


def _words(name):
    return shlex.split(BENCHMARKS[name])


def _machine():
    found = ", ".join(f"{name} {version}" for name, version in versions(*PACKAGES).items())
    return f"# Speed\n\n{processor()}, {usable_cores()} cores; {found}; {datetime.date.today().isoformat()}."


def _from_anywhere(data):
    """A path that holds in the repository too, where the commands run. A data set's name stays."""
    return str(Path(data).absolute()) if Path(data).exists() else data


def _measured(name, data):
    """A benchmark's part of the page, and its exit code."""
    program, *words = _words(name)
    words = [_from_anywhere(data[word]) if word in data else word for word in words]
    done = subprocess.run([*_PROGRAMS[program], *words], cwd=ROOT, capture_output=True, text=True)
    failed, said = [], done.stdout
    if done.returncode:
        failed = [f"**It failed**, with exit code {done.returncode}. The end of what it said:"]
        said = "\n".join(done.stderr.splitlines()[-_LAST_LINES:])
        print(said, file=sys.stderr)
    block = f"```\n{said.strip()}\n```"
    return "\n\n".join([f"## {name}", f"    {BENCHMARKS[name]}", *failed, block]), done.returncode


if __name__ == "__main__":
    sys.exit(main())
