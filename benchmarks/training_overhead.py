"""What a run costs beside its training: `keras_convmixer.train` against Keras's bare `fit`.

    python benchmarks/training_overhead.py                                # digits, whose steps are short
    python benchmarks/training_overhead.py --recipe cifar10 --data PATH_OR_TFDS_NAME --epochs 2 --rounds 2

Both train the same model, compiled alike, on the same batches, and measure it on the held-out images after every
epoch. `train` also writes checkpoints, the model, its history and TensorBoard's logs, draws its progress line,
watches the loss and waits for signals. They take turns, each time in a process of its own. An epoch is from its
beginning to the next one's; the first of a run, in which everything is compiled, does not count.
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time

WAYS = ("fit", "train")


def measured(way, arguments, connection):
    """A process: seconds of each epoch but the first."""
    import keras

    class Clock(keras.callbacks.Callback):
        began = []

        def on_epoch_begin(self, epoch, logs=None):
            self.began.append(time.perf_counter())

        def on_train_end(self, logs=None):
            self.began.append(time.perf_counter())

    recipe, clock = _recipe(arguments), Clock()
    if way == "fit":
        _fit(recipe, clock)
    else:
        import keras_convmixer

        with tempfile.TemporaryDirectory() as workdir:
            keras_convmixer.train(recipe, workdir, callbacks=[clock], verbose=1)
    connection.send([after - before for before, after in zip(clock.began[1:], clock.began[2:])])


def _recipe(arguments):
    from keras_convmixer import Recipe

    changes = [f"training.epochs={arguments.epochs + 1}", *arguments.set]
    return Recipe.load(arguments.recipe, changes + ([f"data.source={arguments.data}"] if arguments.data else []))


def _fit(recipe, clock):
    import keras
    import tensorflow as tf

    from keras_convmixer.data.evaluation_stream import evaluation_batches
    from keras_convmixer.training.allocator import keep_freed_memory
    from keras_convmixer.training.build import build
    from keras_convmixer.training.compiled import compiled
    from keras_convmixer.training.sources import RecipeData

    keep_freed_memory()
    keras.utils.set_random_seed(recipe.seed)
    source = RecipeData(recipe)
    bundle = build(recipe.model, source.classes, source.sample)
    trained = compiled(recipe, bundle.model, source.steps)
    held_out = source.dataset.held_out()
    labels = tf.one_hot(held_out.labels, len(source.classes))
    batches = evaluation_batches(held_out, bundle.preprocessing, recipe.training.batch_size)
    trained.fit(
        source.batches(bundle.preprocessing, first_epoch=0),
        epochs=recipe.training.epochs,
        steps_per_epoch=source.steps,
        validation_data=batches.map(lambda pixels, indices: (pixels, tf.gather(labels, indices))),
        callbacks=[clock],
        shuffle=False,
        verbose=1,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--data", help="what convmixer train --data takes; default: the recipe's")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--epochs", type=int, default=10, help="that count, of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    arguments = parser.parse_args()
    if arguments.epochs * arguments.rounds < 2:
        parser.error("one epoch has no quartiles: give --epochs or --rounds 2 or more")

    from keras_convmixer.machine import processor, versions

    spawn = multiprocessing.get_context("spawn")
    seconds = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, found in seconds.items():
            here, there = spawn.Pipe()
            process = spawn.Process(target=measured, args=(way, arguments, there))
            process.start()
            there.close()
            found += here.recv()
            process.join()
    made_with = ", ".join(f"{name} {version}" for name, version in versions("tensorflow", "keras").items())
    print(f"{processor()}; {made_with}")
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    for way, found in seconds.items():
        low, _, high = statistics.quantiles(found, n=4)
        print(
            f"{way:<6} {medians[way]:8.3f} s an epoch  (median of {len(found)}, quartiles {low:.3f} to {high:.3f})"
        )
    print(f"train takes {medians['train'] / medians['fit']:.3f} times as long")


if __name__ == "__main__":
    main()
