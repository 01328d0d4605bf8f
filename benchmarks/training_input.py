"""How much the input costs a training: images/s of a recipe fed by its stream, against fed from memory.

    python benchmarks/training_input.py --recipe cifar10 --data PATH_OR_TFDS_NAME

Both train the same model with the same batch size, in blocks that alternate. Of each block the first step, in which
the stream starts up, is not counted; the figures are medians over the steps.
"""

import argparse
import dataclasses
import statistics
import time

import keras
import numpy as np

from keras_convmixer import Recipe
from keras_convmixer.data import datasets
from keras_convmixer.data.training_stream import training_batches
from keras_convmixer.training.allocator import keep_freed_memory
from keras_convmixer.training.build import build
from keras_convmixer.training.compiled import compiled


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", default="cifar10")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()

    keep_freed_memory()
    recipe = Recipe.load(arguments.recipe, arguments.set)
    images = datasets.open_dataset(arguments.data).training()
    bundle = build(dataclasses.replace(recipe.model, weights=None), images.classes)
    batch_size = recipe.training.batch_size
    model = compiled(recipe, bundle.model, steps=len(images) // batch_size)

    def stream():
        return iter(
            training_batches(
                images, bundle.preprocessing, recipe.augmentation, batch_size=batch_size, seed=0, epochs=1000
            )
        )

    batch = next(stream())
    seconds = {"memory": [], "stream": []}
    for _ in range(arguments.blocks):
        for source, times in seconds.items():
            batches = stream() if source == "stream" else None
            for step in range(arguments.steps + 1):
                start = time.perf_counter()
                model.train_on_batch(*(next(batches) if batches else batch))
                if step:
                    times.append(time.perf_counter() - start)
    rates = {source: batch_size / statistics.median(times) for source, times in seconds.items()}
    for source, times in seconds.items():
        spread = np.subtract(*np.percentile(times, [75, 25]))
        steps = f"median of {len(times)} steps, quartiles {spread:.2f} s apart"
        print(f"{source:<9} {rates[source]:8.1f} images/s  ({steps})")
    print(f"ratio     {rates['stream'] / rates['memory']:8.3f}  keras {keras.__version__}, batch {batch_size}")


if __name__ == "__main__":
    main()
