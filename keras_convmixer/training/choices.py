"""What a recipe leaves to the hardware: chosen at a run's beginning, and kept wherever it goes on."""

import dataclasses

from keras_convmixer.errors import UserError
from keras_convmixer.training import checkpoint, dtype_policy


@dataclasses.dataclass(frozen=True)
class Choices:
    """How a run trains.

    Attributes:
        precision: a dtype policy.
        frozen: whether the head alone is trained.
        cached: whether it is on features that are computed once, see `frozen_features`.
    """

    precision: str
    frozen: bool
    cached: bool


def choices(workdir, training, hardware, may_cache):
    """The `Choices` of a run: those that its newest checkpoint was written by, or for this hardware.

    Args:
        training: the recipe's. hardware: a `dtype_policy.Hardware`.
        may_cache: whether features can be kept: on one device of one process, and of the recipe's own data.

    Raises:
        UserError: the run trains on features that are kept, and they cannot be here.
    """
    before = checkpoint.newest_progress(workdir).get("choices")
    if not before:  # a new run
        frozen = hardware.kind == "CPU" if training.freeze_backbone == "auto" else training.freeze_backbone
        cached = bool(frozen and training.cached_crops and may_cache)
        return Choices(dtype_policy.said(training.precision, hardware), frozen, cached)
    kept = Choices(**before)
    if kept.cached and not may_cache:
        raise UserError(
            f"{workdir} trains on features that were computed once (training.cached_crops), which takes one device "
            "of one process: go on with one (--devices)"
        )
    dtype_policy.said(kept.precision, hardware)
    return kept


def unused(training, chosen):
    """Why `training.cached_crops` is not obeyed, in words; None where it is, or says nothing."""
    if not training.cached_crops or chosen.cached:
        return None
    return "it takes one device and the recipe's own data" if chosen.frozen else "the whole model is trained"
