"""Images/s and memory of ConvMixers on a GPU: training and inference on JAX and TensorFlow, beside timm.

    python benchmarks/gpu.py --out gpu                                # everything: many hours
    python benchmarks/gpu.py --out gpu --quick                        # one model, one precision, one round
    python benchmarks/gpu.py --out gpu --quick --device cpu --tiny    # no measurement: shows that it runs

Every configuration runs in a process of its own, anew in each round, so that none has another's memory or backend
and what slows the machine for a while slows all of them. Where memory runs out, the batch is halved. What fails has
a row that says why. gpu.json and gpu.md are written after every measurement; docs/gpu.md explains the tables.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from keras_convmixer import files
from keras_convmixer.errors import one_line, visible
from keras_convmixer.machine import versions
from keras_convmixer.variants import VARIANTS

# Images in a training step; an inference takes four times as many.
BATCH_SIZES = {
    "convmixer_1536_20": 64,
    "convmixer_768_32": 64,
    "convmixer_1024_20_ks9_p14": 128,
    "convmixer_256_8_ks5_p2": 512,
}
CHOICES = {
    "models": list(VARIANTS),
    "backends": ["jax", "tensorflow", "timm"],
    "tasks": ["train", "inference", "depthwise"],
    "precisions": ["float32", "mixed_float16", "mixed_bfloat16"],
    "layouts": ["channels_last", "channels_first"],
}
DEFAULTS = CHOICES | {"models": list(BATCH_SIZES), "steps": 20, "rounds": 3}
QUICK = {"models": ["convmixer_1536_20"], "precisions": ["mixed_bfloat16"], "rounds": 1}
TINY = {"batch_size": 2, "steps": 2, "rounds": 1}
NEEDS = {"jax": ["jax"], "tensorflow": ["tensorflow"], "timm": ["timm", "torch"]}
PACKAGES = ("keras-convmixer", "keras", "jax", "tensorflow", "torch", "timm")
# As JAX and TensorFlow, PyTorch, CUDA's libraries, and TensorFlow when it copies, say it.
OUT_OF_MEMORY = re.compile(
    "resource_?exhausted|out ?of ?memory|_ALLOC_FAILED|Dst tensor is not initialized", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What is measured.

    Attributes:
        task: "train", "inference" or "depthwise", one layer of the model alone.
        form: "plain" or "folded" model; of the layer, the "whole" kernel or the "sum" of smaller ones.
        compiled: by XLA, or for timm by torch.compile.
    """

    model: str
    task: str
    form: str
    backend: str
    precision: str
    layout: str
    compiled: bool

    def __str__(self):
        compiled = "compiled" if self.compiled else "not compiled"
        return " ".join((*dataclasses.astuple(self)[:-1], compiled))


@dataclasses.dataclass
class Row:
    """A configuration with what each round gave, at the batch size that fitted, up to one that failed."""

    configuration: Configuration
    batch_size: int
    rounds: list[dict] = dataclasses.field(default_factory=list)
    error: str | None = None

    def seconds(self, name):
        """Median over the rounds."""
        return statistics.median(measured["seconds"][name] for measured in self.rounds)

    def summary(self):
        found = dataclasses.asdict(self.configuration) | {"batch_size": self.batch_size, "error": self.error}
        if not self.rounds:
            return found
        found["peak_memory"] = self.rounds[0]["peak_memory"]
        found["seconds"] = {name: self.seconds(name) for name in self.rounds[0]["seconds"]}
        if "step" in found["seconds"]:
            found["images_per_second"] = self.batch_size / found["seconds"]["step"]
        return found | {"rounds": self.rounds}


def main(words=None):
    arguments = parsed(words)
    rows = [Row(one, batch_size(one, arguments)) for one in configurations(arguments)]
    count = len(rows) * arguments.rounds
    for number, row in enumerate(rows * arguments.rounds, start=1):
        if row.error:  # in an earlier round
            continue
        measure(row, arguments)
        write(arguments.out, rows, arguments.tiny)
        said = row.error or ", ".join(
            f"{name} {1000 * row.seconds(name):.3g} ms" for name in row.rounds[0]["seconds"]
        )
        print(f"[{number}/{count}] {row.configuration}: {visible(said)}", file=sys.stderr, flush=True)
    print(as_markdown(rows, arguments.tiny))
    if not any(row.rounds for row in rows):
        sys.exit("gpu.py: nothing could be measured; the rows above say why")


def parsed(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where gpu.json and gpu.md go")
    for name, choices in CHOICES.items():
        default = {"models": f" (default: {', '.join(BATCH_SIZES)})"}.get(name, "")
        told = f"of {', '.join(choices)}{default}"
        parser.add_argument(f"--{name}", nargs="+", choices=choices, metavar=name.upper()[:-1], help=told)
    parser.add_argument("--batch-size", type=_positive, help="default: by model; inference takes four times that")
    parser.add_argument("--steps", type=_positive, help=f"timed in each round (default: {DEFAULTS['steps']})")
    parser.add_argument("--rounds", type=_positive, help=f"default: {DEFAULTS['rounds']}")
    parser.add_argument("--timeout", type=_positive, default=1800, help="seconds for a process (default: 1800)")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--quick", action="store_true", help="one model, one precision, one round, unless given")
    parser.add_argument("--tiny", action="store_true", help="models of no use and two steps, to try the script out")
    arguments = parser.parse_args(words)

    installed = [backend for backend, needs in NEEDS.items() if all(map(importlib.util.find_spec, needs))]
    for backend in arguments.backends or ():
        if backend not in installed:
            parser.error(f"{backend} is not installed: pip install {' '.join(NEEDS[backend])}")
    try:
        Path(arguments.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out: {one_line(error)}")
    defaults = DEFAULTS | {"backends": installed}
    defaults |= (QUICK if arguments.quick else {}) | (TINY if arguments.tiny else {})
    for name, value in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if (arguments.backends, arguments.tasks) == (["timm"], ["depthwise"]):
        parser.error("the depthwise layer alone is measured on jax and tensorflow, not on timm")
    return arguments


def _positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def configurations(arguments):
    """Those that are asked for and that there are: JAX always compiles, timm has no folded model."""
    names = ("models", "tasks", "precisions", "layouts", "backends")
    found = []
    for model, task, precision, layout, backend in itertools.product(*(getattr(arguments, name) for name in names)):
        forms = ["plain", "folded"] if task == "inference" and backend != "timm" else ["plain"]
        if task == "depthwise":
            forms = ["whole", "sum"] if VARIANTS[model].kernel_size > 7 else ["whole"]
            forms = forms if backend != "timm" else []
        for form, compiled in itertools.product(forms, [True] if backend == "jax" else [True, False]):
            found.append(Configuration(model, task, form, backend, precision, layout, compiled))
    return found


def batch_size(configuration, arguments):
    size = arguments.batch_size or BATCH_SIZES.get(configuration.model, 64)
    return size if arguments.batch_size or configuration.task != "inference" else 4 * size


def measure(row, arguments):
    """Adds a round to a row, or its error. In the first round the batch is halved until it fits."""
    while True:
        sent = setting(row, arguments)
        answer = run(sent, arguments.timeout)
        if "error" not in answer:
            row.rounds.append(answer | {name: sent[name] for name in ("map_bytes", "copied_bytes")})
            return
        if row.rounds or not answer["out_of_memory"] or row.batch_size == 1:
            row.error = answer["error"]
            return
        row.batch_size //= 2


def setting(row, arguments):
    """What the worker gets."""
    variant = VARIANTS[row.configuration.model]
    sizes = variant.arguments() | {"input_size": variant.preprocessing.input_size[0]}
    if arguments.tiny:
        sizes |= {"dim": 8, "depth": 2, "input_size": 4 * variant.patch_size}
    width = 4 if row.configuration.precision == "float32" else 2
    return (
        dataclasses.asdict(row.configuration)
        | sizes
        | {
            "recipe": "cifar10" if variant.dataset == "CIFAR-10" else "imagenet",
            "batch_size": row.batch_size,
            "steps": arguments.steps,
            "device": arguments.device,
            "map_bytes": row.batch_size * (sizes["input_size"] // variant.patch_size) ** 2 * sizes["dim"] * width,
            "copied_bytes": 2**16 if arguments.tiny else 2**28,  # more than a GPU's cache holds
        }
    )


def run(sent, timeout):
    """What gpu_worker.py measured; or "error", and whether that is "out_of_memory"."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"}
    environment["KERAS_BACKEND"] = "tensorflow" if sent["backend"] == "timm" else sent["backend"]
    if sent["device"] == "cpu":
        environment |= {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    else:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")  # JAX would leave a quarter unused
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        words = [sys.executable, Path(__file__).with_name("gpu_worker.py"), json.dumps(sent), result]
        captured = {"capture_output": True, "text": True, "errors": "replace"}
        try:
            done = subprocess.run(words, env=environment, timeout=timeout, **captured)
        except subprocess.TimeoutExpired:
            return {"error": f"took longer than {timeout} s", "out_of_memory": False}
        if not result.exists():
            text = done.stderr.strip()[-2000:]
            last = text.rpartition("\n")[2]
            return {
                "error": f"ended with status {done.returncode}: {last}",
                "out_of_memory": bool(OUT_OF_MEMORY.search(text)),
            }
        answer = json.loads(result.read_text(encoding="utf-8"))
    if "error" in answer:
        answer["out_of_memory"] = bool(OUT_OF_MEMORY.search(answer["error"] + answer["text"]))
    return answer


def write(folder, rows, tiny):
    found = {"machine": machine(rows), "tiny": tiny, "rows": [row.summary() for row in rows]}
    files.write_text(Path(folder) / "gpu.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    files.write_text(Path(folder) / "gpu.md", as_markdown(rows, tiny))


def machine(rows):
    devices = {measured["device"] for row in rows for measured in row.rounds}
    return {"device": ", ".join(sorted(devices)) or "none"} | versions(*PACKAGES)


MODELS = ("model", "task", "form", "backend", "precision", "layout", "compiled", "batch")
SPEEDS = ("images/s", "rounds", "peak memory, GiB")
DEPTHWISE = ("forward, ms", "of the roof", "backward, ms", "of the roof", "copy, GB/s")


def as_markdown(rows, tiny=False):
    """The machine, the table of the models and that of their depthwise layers."""
    lines = [", ".join(f"{name} {value}" for name, value in machine(rows).items())]
    lines += ["", "Tiny models: no measurements."] if tiny else []
    for columns, values, tasks in (
        (SPEEDS, _speeds, ("train", "inference")),
        (DEPTHWISE, _depthwise, ("depthwise",)),
    ):
        chosen = [row for row in rows if row.configuration.task in tasks and (row.rounds or row.error)]
        if not chosen:
            continue
        header = [*MODELS, *columns, "failed"]
        lines += ["", _line(header), _line(["---"] * len(header))]
        for row in chosen:
            *names, compiled = dataclasses.astuple(row.configuration)
            measured = values(row) if row.rounds else [""] * len(columns)
            lines.append(_line([*names, "yes" if compiled else "no", row.batch_size, *measured, row.error or ""]))
    return "\n".join(lines) + "\n"


def _line(cells):
    return f"| {' | '.join(visible(str(cell).replace('|', '/')) for cell in cells)} |"


def _speeds(row):
    peak = row.rounds[0]["peak_memory"]
    speed = f"{row.batch_size / row.seconds('step'):.1f}"
    return [speed, len(row.rounds), "" if peak is None else f"{peak / 2**30:.2f}"]


def _depthwise(row):
    """Beside the times, how near they are to the least that memory allows."""
    bandwidth = 2 * row.rounds[0]["copied_bytes"] / row.seconds("copy")
    cells = []
    # Forward reads a map and writes one; backward reads the map and its gradient and writes one.
    for name, maps in (("forward", 2), ("backward", 3)):
        share = maps * row.rounds[0]["map_bytes"] / bandwidth / row.seconds(name)
        cells += [f"{1000 * row.seconds(name):.3f}", f"{share:.0%}"]
    return [*cells, f"{bandwidth / 1e9:.0f}"]


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("gpu.py: interrupted; what was measured is written")
