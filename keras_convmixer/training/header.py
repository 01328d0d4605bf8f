"""What a training says of itself before its first step."""

import keras

from keras_convmixer.machine import processor, usable_cores
from keras_convmixer.parts import architecture, parameter_count
from keras_convmixer.training import memory
from keras_convmixer.training.choices import unused

NO_GPU = 'no GPU found: on Linux with an NVIDIA card, pip install "tensorflow[and-cuda]" lets TensorFlow use it'


def header(workdir, recipe, bundle, source, hardware, chosen, start, hosts):
    """Lines that say what trains, on what, for how long and into which folder.

    Args:
        source: what the batches come from, see `training.sources`. hardware: a `dtype_policy.Hardware`.
        chosen: the run's `choices.Choices`.
        start: the `checkpoint.Position` that the training goes on from. hosts: the `Hosts` that train together.

    Raises:
        UserError: a step takes more memory than there is.
    """
    training = recipe.training
    said = {
        "devices": ", ".join(hardware.names) + (f" in each of {hosts.count} processes" if hosts.count > 1 else ""),
        "processor": f"{processor()}, {usable_cores()} cores for this process",
        "precision": chosen.precision,
        "model": _model(bundle, chosen.frozen),
        "images": f"{source.counted()}; {len(source.classes):,} classes",
        "steps": f"{source.steps:,} an epoch, {training.epochs:,} epoch{'s' * (training.epochs != 1)}",
    }
    if why := unused(training, chosen):
        said["features"] = f"computed in every step, training.cached_crops is not used: {why}"
    if hardware.kind == "CPU" and not chosen.frozen:  # of others nothing is known, see `memory`
        needed = memory.run_bytes(recipe, bundle, chosen.precision, hosts.count)
        said["memory"] = f"a step takes about {needed / 1e9:.1f} of {memory.check(needed) / 1e9:.0f} GB"
    lines = [str(workdir), *(f"  {name:<11}{text}" for name, text in said.items())]
    if hardware.has_no_gpu and keras.backend.backend() == "tensorflow":
        lines.insert(2, f"  {'':<11}{NO_GPU}")
    if start.epoch or start.step:
        lines.append(f"{workdir}: going on after {start} of {training.epochs}")
    return "\n".join(lines)


def _model(bundle, frozen):
    sizes, (height, width) = architecture(bundle.model), bundle.preprocessing.input_size
    return (
        f"dim {sizes['dim']}, depth {sizes['depth']}, kernel {sizes['kernel_size']}, patch {sizes['patch_size']}, "
        f"images of {height}×{width}; {parameter_count(bundle.model):,} parameters"
        f"{', of which the head alone is trained' if frozen else ''}"
    )
