"""The folder of a run: its recipe and what was changed of it, its models."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np

from keras_convmixer import bundles, class_names, files
from keras_convmixer.data import fingerprints
from keras_convmixer.errors import UserError
from keras_convmixer.recipes import Recipe
from keras_convmixer.training import checkpoint
from keras_convmixer.training.run_lock import FOLDER

# What makes no difference to the model, and what may change between two steps: the sizes and kinds of what a
# checkpoint holds may not, nor which batch comes next.
_FREE = {"training.checkpoint_minutes", "training.checkpoints_kept", "training.on_nan"}
_CHANGEABLE = {"data.source", "data.allow_corrupt", "optimizer.schedule", "optimizer.warmup_epochs"}
_CHANGEABLE |= {f"optimizer.{key}" for key in ("learning_rate", "weight_decay", "clip_norm")}
_CHANGEABLE |= {f"training.{key}" for key in ("epochs", "label_smoothing", "early_stopping", "class_weights")}
_CHANGES = "changes.json"
_LINKED = ("preprocessing.json", "classes.txt", "recipe.yaml", fingerprints.FILE)


def resolved(workdir, recipe, changes, hosts, own_batches=False):
    """The recipe that a folder is to be trained by: see `train`. Of several processes it is that of the first.

    Args:
        own_batches: whether the user gives these, of which the recipe then says that it does not know them.
    """

    def own():
        refuse_without_checkpoint(workdir)
        if recipe is None:
            return recipe_of(workdir, changes)
        if changes:
            raise TypeError("changes are for a run's own recipe: give recipe=None, or change the recipe itself")
        given = (recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)).placed()
        if own_batches:
            given = dataclasses.replace(given, data=dataclasses.replace(given.data, source=None))
        refuse_another_recipes(workdir, given)
        return given

    return own() if hosts.count == 1 else Recipe.from_dict(json.loads(hosts.from_first(lambda: own().to_json())))


def recipe_of(workdir, overrides=()):
    """The recipe of a run, with what is to be changed of it.

    Args:
        overrides: see `Recipe.load`.

    Raises:
        UserError: something may not be changed in the middle of a training. FileNotFoundError: there is no run.
    """
    path = workdir / "recipe.yaml"
    if not path.exists():
        raise FileNotFoundError(
            f"{workdir} is not the folder of a run: it has no recipe.yaml; name a recipe (--recipe), or images "
            "(--data)"
        )
    changed = Recipe.load(path, overrides).placed()
    for key in changed.changed_from(Recipe.load(path).placed()):
        if key not in _CHANGEABLE | _FREE:
            raise UserError(
                f"{key} may not change in the middle of a training; take another --workdir for it. "
                f"What may: {', '.join(sorted(_CHANGEABLE | _FREE))}"
            )
    return changed


def start(workdir, model):
    """The `Model` that a run's model is built by: its recipe's, or one that starts from the run's own last epoch.

    That is where the file or folder that it began with has gone: a checkpoint then sets all weights anyway.

    Raises:
        UserError: it has gone before an epoch was done.
    """
    weights = model.weights
    progress = checkpoint.newest_progress(workdir)
    if weights is None or not os.path.isabs(weights) or os.path.exists(weights) or not progress:
        return model
    if not progress.get("history"):
        raise UserError(
            f"{weights}, which {workdir} started from, is not there: put it back, it can go once an epoch is done"
        )
    return dataclasses.replace(model, weights=str(workdir))


def refuse_without_checkpoint(workdir):
    """Raises UserError if a folder holds what a training has learned, and nothing that it could go on from.

    A run that was killed before its first checkpoint may begin again, also where its first model is written.
    """
    if checkpoint.kept(workdir):
        return
    finished = any((workdir / name).exists() for name in ("metrics.json", "history.csv"))
    if finished or ((workdir / "model.keras").exists() and not (workdir / FOLDER).exists()):
        raise UserError(
            f"{workdir} holds a model and no checkpoint to go on from; to begin anew from what it has learned, "
            f"take another --workdir, with a recipe (--recipe) and --set model.weights={workdir}"
        )


def refuse_another_recipes(workdir, recipe):
    """Raises ValueError if a folder is the run of another recipe."""
    own = _own_recipe(workdir, recipe)
    if recipe.changed_from(own).keys() - _FREE:
        raise UserError(
            f"{workdir} is the run of another recipe ({'; '.join(recipe.differences(own)[:4])}); choose another "
            "--workdir. To go on in it with a change, name no recipe, and what changes with --set"
        )


def refuse_other_images(workdir, recipe, source):
    """Raises UserError if a run would go on with other images than those that it learned from.

    Where its data was moved their content is compared, where it was not their names, order and classes.
    """
    if "data.source" not in recipe.changed_from(_own_recipe(workdir, recipe)):
        written = checkpoint.newest_progress(workdir)
        if written.get("images") not in (None, "", source.digest):
            raise UserError(
                f"{recipe.data.source} holds other images or classes than when {workdir} was begun, and its epochs "
                "would be others: put back what was added, removed or renamed; or begin anew, in another "
                f"--workdir, from what it has learned (--set model.weights={workdir})"
            )
        return
    known, now = fingerprints.read(workdir), fingerprints.fingerprints(source.images)
    now = np.unique(now[now != 0])
    names = class_names.read(workdir / "classes.txt") if (workdir / "classes.txt").exists() else source.classes
    same = known is None or (np.isin(now, known).all() and (recipe.model.weights or len(now) == len(known)))
    if not same or tuple(names) != tuple(source.classes):
        raise UserError(
            f"{recipe.data.source} holds other images or classes than those that {workdir} learns from; "
            "give the folder that they were moved to, or take another --workdir"
        )


def begin(workdir, recipe, position):
    """Writes the run's recipe, and what was changed of it, and where, into `changes.json`.

    Raises:
        UserError: more epochs are done than the recipe has.
    """
    if position.epoch > recipe.training.epochs:
        raise UserError(
            f"training.epochs {recipe.training.epochs} is less than the {position.epoch} epochs that are done"
        )
    changes = recipe.changed_from(_own_recipe(workdir, recipe))
    changes = {key: change for key, change in changes.items() if key not in _FREE}
    if changes:
        _record(workdir, {"why": "--set", "after": str(position), "changes": changes})
    files.write_text(workdir / "recipe.yaml", recipe.to_yaml())


def record_rollback(workdir, position, why):
    _record(workdir, {"why": "rollback", "after": str(position), "message": why})


def rollbacks(workdir):
    """How many rollbacks there were since the learning rate was last changed by hand."""
    count = 0
    for entry in _recorded(workdir):
        by_hand = "optimizer.learning_rate" in entry.get("changes", {})
        count = 0 if by_hand else count + (entry["why"] == "rollback")
    return count


def save_model(bundle, workdir, best):
    """Makes a run's folder, and its `best` if this epoch is that, a model folder. Weights are written once."""
    bundles.save(bundle, workdir)
    if best:
        for name in (*_LINKED, "model.keras"):
            if (workdir / name).exists():
                with files.replacing(workdir / "best" / name) as temporary:
                    _link(workdir / name, temporary)


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy(source, target)


def _own_recipe(workdir, otherwise):
    """The recipe of a folder, or where it has none, another."""
    path = workdir / "recipe.yaml"
    return Recipe.load(path).placed() if path.exists() else otherwise


def _recorded(workdir):
    path = Path(workdir) / _CHANGES
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def _record(workdir, entry):
    files.write_text(Path(workdir) / _CHANGES, json.dumps([*_recorded(workdir), entry], indent=2) + "\n")
