"""The `cifar10` recipe in PyTorch, with torchvision's augmentation: what it comes to on given images.

    python benchmarks/reference_training.py cifar10.tar.gz                   # as published: 25 epochs of 256/8
    python benchmarks/reference_training.py cifar10.tar.gz --dim 64 --depth 4 --epochs 4 --seed 0 --seed 1
    convmixer train --recipe cifar10 --data cifar10.tar.gz --workdir runs/small \\
        --set model.dim=64 --set model.depth=4 --set training.epochs=4            # the same in keras_convmixer

No line of keras_convmixer takes part in it: model, data, augmentation, optimizer and schedule are PyTorch's or
written here, with the settings of the authors' second repository. Needs torch and torchvision.
"""

import argparse
import io
import statistics
import tarfile
import time

import numpy as np
from torch_convmixer import convmixer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
PEAK, DECAY, EPSILON, BATCH = 0.05, 0.005, 1e-3, 512


def images_of(archive):
    """Of an archive of SPLIT/CLASS/IMAGE: "train" and "test" → pairs of a picture and its class's number."""
    from PIL import Image

    found = {"train": [], "test": []}
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile():
                split, label, _ = member.name.removeprefix("./").split("/")
                found[split].append(
                    (Image.open(io.BytesIO(members.extractfile(member).read())).convert("RGB"), label)
                )
    classes = sorted({label for _, label in found["train"]})
    return {
        split: [(image, classes.index(label)) for image, label in pictures] for split, pictures in found.items()
    }


def accuracy_of(images, seed, arguments):
    """One training, a printed line an epoch. Returns its share of right test images, in 0–1."""
    import torch
    from torch import nn
    from torchvision import transforms as T

    torch.manual_seed(seed)
    normalized = [T.ToTensor(), T.Normalize(MEAN, STD)]
    augmented = T.Compose([T.RandomHorizontalFlip(), T.RandAugment(num_ops=2, magnitude=12), *normalized])

    def loader(split, transform, **options):
        pictures = images[split]

        class Pictures(torch.utils.data.Dataset):
            def __len__(self):
                return len(pictures)

            def __getitem__(self, i):
                image, label = pictures[i]
                return transform(image), label

        return torch.utils.data.DataLoader(Pictures(), BATCH, num_workers=arguments.workers, **options)

    classes = 1 + max(label for _, label in images["train"])
    model = convmixer(arguments.dim, arguments.depth, arguments.kernel_size, arguments.patch_size, classes)
    training, test = loader("train", augmented, shuffle=True), loader("test", T.Compose(normalized))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=DECAY, eps=EPSILON)
    corners = [share * arguments.epochs for share in (0, 2 / 5, 4 / 5, 1)]
    for epoch in range(arguments.epochs):
        start, right = time.perf_counter(), 0
        model.train()
        for step, (x, y) in enumerate(training):
            optimizer.param_groups[0]["lr"] = np.interp(
                epoch + (step + 1) / len(training), corners, (0, PEAK, PEAK / 20, 0)
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=arguments.bfloat16):
                logits = model(x.to(memory_format=torch.channels_last))
                loss = nn.functional.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += int((logits.argmax(1) == y).sum())
        model.eval()
        with torch.no_grad():
            correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in test)
        accuracy, seconds = correct / len(images["test"]), time.perf_counter() - start
        print(
            f"seed {seed}, epoch {epoch + 1} of {arguments.epochs}: {right / len(images['train']):.2%} while "
            f"training; test: {accuracy:.2%}; {seconds:.0f} s",
            flush=True,
        )
    return accuracy


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a .tar.gz of train/CLASS/IMAGE and test/CLASS/IMAGE, of images of one size")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--kernel-size", type=int, default=5)
    parser.add_argument("--patch-size", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--bfloat16", action="store_true", help="autocast")
    parser.add_argument("--workers", type=int, default=2, help="processes that augment")
    arguments = parser.parse_args()
    images = images_of(arguments.data)
    found = [accuracy_of(images, seed, arguments) for seed in arguments.seed or [0]]
    spread = f" ± {statistics.stdev(found):.2%}" if len(found) > 1 else ""
    print(f"test: {statistics.mean(found):.2%}{spread}, {len(found)} trainings")


if __name__ == "__main__":
    main()
