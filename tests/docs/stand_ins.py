"""What test_commands_in_docs.py puts in the place of what a reader brings, and what it leaves out, as data.

Lines are those of `code_blocks.steps`: single spaces, no comments.
"""

import shutil
import tarfile

import numpy as np
from code_blocks import ROOT
from PIL import Image

_TINY = "--set model.dim=8 --set model.depth=1 --set training.epochs=1"
_SHIPPED = "saved_models/convmixer_192_8_ks7_p4"

# (on a page, what is run instead): smaller, without a download, and within this machine.
INSTEAD = (
    ("--recipe digits", f"--recipe digits {_TINY}"),
    (
        "--recipe finetune",
        f"--recipe finetune --set model.weights={_SHIPPED} --set training.epochs=1 --set training.cached_crops=1",
    ),
    (
        "--recipe cifar10 --data cifar10",
        f"--recipe cifar10 --data cifar10.tar.gz {_TINY} --set training.batch_size=8",
    ),
    (
        "--recipe imagenet --data imagenet2012",
        f"--recipe imagenet --data cifar10.tar.gz {_TINY} --set model.variant=convmixer_tiny"
        " --set training.batch_size=8 --set augmentation.mix_group=4",
    ),
    ("https://…", "ADDRESS"),  # of the server on this machine
    ("convmixer demo", "convmixer demo --port 0"),
    ("python -m http.server", "python -m http.server 0 --bind 127.0.0.1"),
    ("tensorboard", "tensorboard --port 0"),
    ("benchmark convmixer_768_32", "benchmark convmixer_tiny --images 8 --rounds 1 --seconds 1"),
    ("architectures.py", f"architectures.py --only convmixer_fast --rounds 1 {_TINY}"),
    ("--out runs/architectures", "--out runs/architectures --recipe digits"),
    # Without PyTorch.
    ("training_speed.py --peers", "training_speed.py convmixer_tiny --batch-size 8 --blocks 1 --steps 1"),
    ("input_throughput.py", "input_throughput.py --recipe finetune --blocks 1 --batches 2"),
    (
        "training_overhead.py",
        "training_overhead.py --epochs 2 --rounds 1 --set model.dim=8 --set model.depth=1",
    ),
    ("relu.pth.tar", "relu.pth.tar --activation relu"),  # a small one that PyTorch wrote, of no known variant
    ("--cases 20000", "--cases 20"),
    # in Python
    ('weights="imagenet"', "weights=None"),
    ('{"training": {"epochs": 12}}', '{"training": {"epochs": 1}, "model": {"dim": 8, "depth": 1}}'),
    (
        '{"data": {"source": "photos"}, "training": {"epochs": 20}}',
        '{"data": {"source": "photos"}, "training": {"epochs": 1}, "model": {"weights": "' + _SHIPPED + '"}}',
    ),
    (
        "dataset: tf.data.Dataset  # of such dictionaries",
        "dataset = tf.data.Dataset.from_tensor_slices({'images': tf.zeros((64, 32, 32, 3)),"
        " 'labels': tf.one_hot(tf.range(64) % 10, 10), 'seeds': tf.zeros((64, 2), tf.int32)})",
    ),
    (".batch(64).map(many)", ".batch(64).map(many)\nnext(iter(dataset))"),
)

_FULL_SIZE = (
    "python",
    "from keras_convmixer import create_model\n"
    "from keras_convmixer.weights.state_dict import save_torch\n"
    "save_torch(create_model('convmixer_768_32', num_classes=10), 'full_size.safetensors')",
)
# How a reader came to what a page takes as made before: steps as `code_blocks.steps` has them.
MADE_BY = {
    name: [("shell", f"convmixer train --recipe finetune --data photos/ --workdir {name}{more}")]
    for name, more in (("runs/mine", ""), ("runs/a", ""), ("runs/b", " --set optimizer.learning_rate=0.001"))
} | {
    "sweeps/kernels": [("shell", "convmixer sweep grid.yaml --workdir sweeps/kernels")],
    "small.safetensors": [("shell", "convmixer convert convmixer_256_8_ks5_p2 --out small.safetensors")],
    "full_size.safetensors": [_FULL_SIZE],
    "full_size": [
        _FULL_SIZE,
        ("shell", "convmixer convert full_size.safetensors --classes names.txt --out full_size"),
    ],
}
# For each page: a path on it, and what of the above stands there.
BROUGHT = {
    "README.md": {"runs/a": "runs/a", "runs/b": "runs/b"},
    "docs/training.md": {"runs/a": "runs/a", "runs/b": "runs/b", "sweeps/kernels": "sweeps/kernels"},
    "docs/weights.md": {"runs/mine": "full_size", "mine.safetensors": "small.safetensors"},
    "docs/other_packages.md": {"runs/mine": "full_size", "mine.safetensors": "full_size.safetensors"},
} | {
    f"docs/{page}.md": {"runs/mine": "runs/mine"}
    for page in ("browser", "deployment", "many_images", "platforms", "visualize")
}

# Lines, and lines of Python that a block has, which are not run, and why.
NOT_RUN = (
    {
        "python -m venv .venv": "as make does it",
        "python3 -m venv .venv": "as make does it",
        "py -m venv .venv": "Windows",
        "python -m ruff check .": "make lint does it",
        "python -m ruff format --check .": "make lint does it",
        "lint-imports": "make lint does it",
        "mypy": "make lint does it",
        "python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder": "runs these tests",
        "python -m build": "a package of its own; the workflow of a release runs it",
        "python tests/aarch64.py FOLDER": "200 MB of downloads",
        "CONVMIXER_AARCH64=FOLDER pytest -m slow tests/deployment/test_aarch64.py": "is a test itself",
        "python examples/ray_predict.py exported/model.tflite photos/ predictions/ --workers 4": "ray is no test's",
        "DATA=/images WORKDIR=/runs/imagenet sbatch examples/slurm.sbatch": "SLURM; tests/cli/test_launch.py",
        "import wandb": "an account, and a package that no extra has",
        "import mlflow": "a package that no extra has",
    }
    | dict.fromkeys(
        [
            f"convmixer sweep benchmarks/ablations/{name}.yaml --workdir sweeps/{name}"
            for name in ("patch_size", "kernel_size", "depth_and_width", "activation", "augmentation")
        ],
        "a night; tests/benchmarks/test_ablations.py reads the grids",
    )
    | dict.fromkeys(
        [
            "convmixer train --backend jax --coordinator 10.0.0.1:1234 --num-processes 2 --process-id 0"
            " --recipe cifar10 --data photos/ --workdir runs/mine",
            "convmixer train --backend jax --coordinator auto"
            " --recipe imagenet --set augmentation.mix_group=80 --data /mnt/images --workdir runs/imagenet",
        ],
        "several machines; tests/training/test_several_processes.py has processes instead",
    )
)
# Scripts of which only that they have the line's options is looked at, and why.
OPTIONS_ONLY = {
    "python benchmarks/gpu.py --out gpu --quick": "needs a GPU; tests/benchmarks/test_gpu.py",
    "python benchmarks/gpu.py --out gpu": "needs a GPU; tests/benchmarks/test_gpu.py",
    "python benchmarks/all.py --out speed.md": "an hour; tests/benchmarks/test_all_speeds.py",
    "python tests/mutation.py --percent 5": "a day",
}

_GRID = f"""\
base: finetune
data: photos
set: {{model.weights: {_SHIPPED}, training.epochs: 1, training.cached_crops: 1}}
grid:
  optimizer.learning_rate: [0.002, 0.001]
"""
_RECIPE = "{base: cifar10, training: {batch_size: 8}}"


def bring(folder):
    """Puts into a folder what readers have before they begin: photographs, names, files of weights, grids."""
    rng = np.random.default_rng(0)
    for place, count in {"photos": 24, "new_photos": 4, "other": 4}.items():
        for label, colour in {"cat": 40, "dog": 120, "goldfish": 200}.items():
            for i in range(count):
                _photograph(folder / place / label / f"{i}.jpg", colour, rng)
    for path in ("photo.jpg", "photo.png", "more/1.png", "more/2.png", "archive/2024/1.jpg", "archive/2.jpg"):
        _photograph(folder / path, 120, rng)
    for split in ("train", "test"):
        for label in range(10):
            for i in range(3):
                _photograph(folder / "cifar10" / split / f"class{label}" / f"{i}.jpg", 20 * label, rng, (32, 32))
    with tarfile.open(folder / "cifar10.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar10", ".")
    (folder / "names.txt").write_text("".join(f"class{i}\n" for i in range(10)), encoding="utf-8")
    (folder / "grid.yaml").write_text(_GRID, encoding="utf-8")
    (folder / "mine.yaml").write_text(_RECIPE, encoding="utf-8")
    for name in ("saved_models", "examples"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("benchmarks", "tests"):
        (folder / name).symlink_to(ROOT / name)
    weights = ROOT / "tests" / "oracles" / "weights"
    shutil.copy(weights / "original_sequential.pth.tar", folder / "convmixer_768_32_ks7_p7_relu.pth.tar")


def _photograph(path, colour, rng, size=(48, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(rng.normal(colour, 30, (size[1], size[0], 3)), 0, 255)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
