"""Images/s of a recipe's whole training input: decode, crop, flip, RandAugment, MixUp or CutMix, erasing.

    python benchmarks/input_throughput.py --data PHOTOS            # ours, and timm's where it is installed
    python benchmarks/input_throughput.py --data PHOTOS --memory   # ours: resident memory over 20,000 images

PHOTOS is a folder or an archive of images. The two are measured in blocks that alternate, each after a pause in
which the other's queue fills up and its workers fall idle; of each block the first batches, which may stem from a
full queue, are not counted. The figures are medians over the blocks.

timm's is its full training transform (`create_transform` with rand-m9-mstd0.5-inc1, random interpolation, flip,
random erasing per pixel) under a DataLoader with a worker for each core, and its `Mixup` on each batch.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import statistics
import time

from keras_convmixer.machine import usable_cores

BATCH = 64
SIZE = 224


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder or an archive of images")
    parser.add_argument("--recipe", default="imagenet", help="whose augmentation ours does (default: imagenet)")
    parser.add_argument("--blocks", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument("--batches", type=int, default=20, help="counted in a block (default: 20)")
    parser.add_argument("--memory", action="store_true", help="measure how resident memory grows, not the speed")
    arguments = parser.parse_args()

    files = listing(arguments.data)
    if len(files[1]) < BATCH:
        parser.error(f"{arguments.data} has {len(files[1])} images, fewer than a batch of {BATCH}")
    if arguments.memory:
        memory(ours(files, arguments.recipe))
        return
    # timm's workers are forked, which is safe only before TensorFlow has started its threads.
    streams = {"timm": timms(*files)} if importlib.util.find_spec("timm") else {}
    streams["ours"] = ours(files, arguments.recipe)
    rates = {name: [] for name in streams}
    for _ in range(arguments.blocks):
        for name, stream in streams.items():
            time.sleep(2)
            rates[name].append(images_per_second(stream, arguments.batches))
    for name, values in rates.items():
        print(f"{name:<5} {statistics.median(values):7.1f} images/s  ({', '.join(f'{v:.1f}' for v in values)})")
    if "timm" in rates:
        print(f"ratio {statistics.median(rates['ours']) / statistics.median(rates['timm']):7.2f}")
    versions = ("tensorflow", "keras", "timm", "torch") if "timm" in rates else ("tensorflow", "keras")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions)
    print(f"{usable_cores()} cores, {versions}, batch {BATCH}, {SIZE}×{SIZE}")


def listing(path):
    """The folder and the names of the image files in it."""
    from keras_convmixer.data import archive
    from keras_convmixer.data.image_folder import read_folder

    found = read_folder(archive.unpack(path) if os.path.isfile(path) else path)
    return found.root, [file.name for members in found.splits.values() for file, _ in members]


def ours(files, recipe):
    """Endless batches of this package's training input."""
    from keras_convmixer import Preprocessing, Recipe
    from keras_convmixer.data.encoded_images import from_files
    from keras_convmixer.data.training_stream import training_batches

    root, names = files
    classes = [str(label) for label in range(1000)]
    labels = [i % len(classes) for i in range(len(names))]
    return iter(
        training_batches(
            from_files(classes, labels, names, root),
            Preprocessing((SIZE, SIZE)),
            Recipe.load(recipe).augmentation,
            batch_size=BATCH,
            seed=0,
            epochs=10**6,
            label_smoothing=0.1,
        )
    )


def timms(root, names):
    """Endless batches of timm's training input."""
    declare_torchvisions_operators()
    import torch
    from PIL import Image, ImageOps
    from timm.data import Mixup, auto_augment, create_transform

    # At magnitude 10 timm asks to keep no bit, which newer versions of Pillow refuse.
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: ImageOps.posterize(
        image, max(bits, 1)
    )
    transform = create_transform(
        (3, SIZE, SIZE),
        is_training=True,
        scale=(0.08, 1.0),
        hflip=0.5,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="random",
        re_prob=0.25,
        re_mode="pixel",
    )
    mixup = Mixup(mixup_alpha=0.5, cutmix_alpha=0.5, label_smoothing=0.1, num_classes=1000)

    class Photos(torch.utils.data.Dataset):
        def __len__(self):
            return len(names)

        def __getitem__(self, index):
            with Image.open(root / names[index]) as image:
                return transform(image.convert("RGB")), index % 1000

    photos = Photos()
    loader = torch.utils.data.DataLoader(
        photos,
        batch_size=BATCH,
        sampler=torch.utils.data.RandomSampler(photos, replacement=True, num_samples=10**7),
        num_workers=usable_cores(),
        multiprocessing_context="fork",
    )
    return (mixup(images, labels) for images, labels in started(iter(loader)))


def started(batches):
    """The same batches, once the first has been made."""
    next(batches)
    return batches


def declare_torchvisions_operators():
    """Lets torchvision be imported where its compiled part does not fit torch's build.

    timm imports torchvision and uses its Python part alone, which then asks for operators that nobody has declared.
    They are declared here and never called.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        declare_torchvisions_operators.keep = library  # what is declared lasts as long as this object


def images_per_second(stream, batches, uncounted=8):
    for _ in range(uncounted):
        next(stream)
    start = time.perf_counter()
    for _ in range(batches):
        next(stream)
    return BATCH * batches / (time.perf_counter() - start)


def memory(stream, first=2_000, last=20_000):
    """Prints the resident memory at two points of a stream."""
    seen, at = 0, {}
    for point in (first, last):
        while seen < point:
            next(stream)
            seen += BATCH
        at[point] = resident()
        print(f"after {point:>6,} images: {at[point]:8.1f} MB resident", flush=True)
    print(f"growth: {at[last] - at[first]:.1f} MB")


def resident():
    import psutil

    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
