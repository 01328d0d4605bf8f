"""Many trainings that differ in a few keys, one after another, each in a process of its own."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
from typing import Annotated, Any

import pydantic
import yaml

from keras_convmixer import files
from keras_convmixer.errors import UserError
from keras_convmixer.experiments.runs import FAILED, Comparison, Run
from keras_convmixer.recipes import Recipe, list_recipes
from keras_convmixer.recipes.recipe import yaml_mapping
from keras_convmixer.recipes.sections import explained, section
from keras_convmixer.training import run_lock

Keys = dict[str, Any]


@section
class Grid:
    """What a sweep trains: every combination of `grid`, or the named `runs`, each with every seed.

    Attributes:
        base: the recipe that all start from, a name or a path relative to the grid's own folder.
        data: what `--data` takes, or None for the recipe's.
        set: key → value for all runs, as {"training.epochs": 8}.
        grid: key → the values to try.
        runs: name → {key: value}, for runs that are no grid, such as "without EMA": {"training.ema": null}.
        seeds: of each. Default: the base's own.
    """

    base: str
    data: str | None = None
    set: Keys = pydantic.Field(default_factory=dict)
    grid: dict[str, list[Any]] = pydantic.Field(default_factory=dict)
    runs: dict[str, Keys] = pydantic.Field(default_factory=dict)
    seeds: list[Annotated[int, pydantic.Field(ge=0)]] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Grid":
        """Reads a grid from YAML. Raises ValueError, in one line, where it is none, and OSError."""
        path = files.expanded(path)
        text = path.read_text(encoding="utf-8", errors="surrogateescape")  # of which YAML then complains
        values = yaml_mapping(text, path, "keys: base, grid or runs, and what else a grid has")
        base = values.get("base")
        if isinstance(base, str) and base not in list_recipes() and (path.parent / base).exists():
            values["base"] = str(path.parent / base)
        try:
            return pydantic.TypeAdapter(cls).validate_python(values)
        except pydantic.ValidationError as error:
            raise UserError(f"{path}: {explained(cls, error)}") from None

    def recipes(self) -> dict[str, Recipe]:
        """Run's name → its recipe, all checked before one of them is trained.

        Raises:
            UserError: a key is unknown, a value is not what it should be, a list is empty, or there is nothing
                that differs.
        """
        empty = [f"grid.{key}" for key, values in self.grid.items() if not values]
        if self.seeds == []:
            empty.append("seeds")
        if empty:
            raise UserError(f"{empty[0]} is an empty list: give the values to try")
        if bool(self.grid) == bool(self.runs):
            raise UserError("give either grid, with the values to try of each key, or runs, with a name for each")
        combinations = self._combinations()
        if any("seed" in values for values in combinations.values()):
            raise UserError("seed is no key to set or to try here: give seeds, the list of those of every run")
        seeds = [Recipe.load(self.base).seed] if self.seeds is None else self.seeds
        found = {}
        for (name, values), seed in itertools.product(combinations.items(), seeds):
            own = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in values.items()]
            source = [] if self.data is None else [f"data.source={yaml.safe_dump(self.data)}"]
            found[f"{name}/seed{seed}"] = Recipe.load(self.base, [*source, *own, f"seed={seed}"]).placed()
        return found

    def _combinations(self):
        named = self.runs.items()
        if self.grid:
            combinations = (dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values()))
            named = ((",".join(f"{k.rpartition('.')[2]}={v}" for k, v in one.items()), one) for one in combinations)
        found = {}
        for name, values in named:
            folder = _file_name(name)
            if folder in found:
                raise UserError(f"two runs would lie in the folder {folder}: give them other names or values")
            found[folder] = self.set | values
        return found


def sweep(grid: Grid | str | os.PathLike, workdir: str | os.PathLike) -> Comparison:
    """Trains what a grid says; called again it goes on: finished runs stay, the others resume.

    Each run is a `convmixer train` in a process of its own, so that one that fails, if only for want of memory,
    leaves the others alone. What it printed is in its `train.log`, why it failed in `failed.txt`. After each run
    the table is written anew. A signal is passed on to the run that trains, which writes a checkpoint first.

    Args:
        grid: a `Grid` or the path of its YAML file.
        workdir: gets a folder for each run, and runs.csv, runs.md and runs.png.

    Raises:
        UserError: the grid is not one, a run in `workdir` was trained by another recipe than the grid has for it
            now, another process trains in `workdir`, or every run failed.
        OSError: a file cannot be read or written.
    """
    grid = grid if isinstance(grid, Grid) else Grid.load(grid)
    workdir, recipes = files.expanded(workdir), grid.recipes()
    with _held(workdir):
        return _swept(recipes, workdir)


@contextlib.contextmanager
def _held(workdir):
    """A context in which no other sweep trains in a folder. Raises UserError where another does."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.locked(workdir / ".lock", wait=False))
        except TimeoutError:
            raise UserError(f"{workdir} is in use: another sweep trains in it; wait for it or end it") from None
        yield


def _swept(recipes, workdir):
    for name, recipe in recipes.items():
        _prepare(recipe, workdir / name)
    for number, (name, recipe) in enumerate(recipes.items(), 1):
        folder = workdir / name
        if (folder / "metrics.json").exists():
            continue
        print(f"[{number}/{len(recipes)}] {name}", file=sys.stderr, flush=True)
        _train(recipe, folder)
        comparison(workdir, recipes).save(workdir)
    found = comparison(workdir, recipes)
    found.save(workdir)
    if not any(run.finished for run in found.runs):
        raise UserError(f"every run failed; the first: {found.runs[0].failed} ({found.runs[0].path}/train.log)")
    return found


def comparison(workdir, names):
    """The runs of a sweep that have begun."""
    return Comparison(
        tuple(Run.read(workdir / name) for name in names if (workdir / name / "recipe.yaml").exists())
    )


def _prepare(recipe, folder):
    """Raises UserError if a run trains now or has another recipe. One that never began may have any."""
    _refuse_in_use(folder)
    if (folder / "metrics.json").exists() or any((folder / run_lock.FOLDER).glob("*.safetensors")):
        own = Recipe.load(folder)
        if recipe.changed_from(own):
            raise UserError(
                f"{folder} was trained by another recipe than the grid has for it now "
                f"({'; '.join(recipe.differences(own)[:4])}): take another --workdir, or remove that folder"
            )
    else:
        (folder / "recipe.yaml").unlink(missing_ok=True)


def _refuse_in_use(folder):
    """Raises UserError if a process trains in a run's folder, as one does that outlived its sweep."""
    if used := run_lock.in_use(folder):
        raise UserError(used)


def _train(recipe, folder):
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / "asked.yaml", recipe.to_yaml())
    words = ["train", "--recipe", str(folder / "asked.yaml"), "--workdir", str(folder)]
    with (folder / "train.log").open("a+b") as log:
        start = log.seek(0, os.SEEK_END)
        code = _ended([sys.executable, "-m", "keras_convmixer", *words], log)
        log.seek(start)
        said = log.read().decode("utf-8", "replace").split("\n")
    if code == 0:
        (folder / FAILED).unlink(missing_ok=True)
        return
    _refuse_in_use(folder)
    reasons = [line.removeprefix("convmixer: ") for line in said if line.startswith("convmixer: ")]
    why = reasons[-1] if reasons else f"stopped by signal {-code}" if code < 0 else f"exit code {code}"
    if not (folder / "recipe.yaml").exists():  # it failed before it was a run
        files.write_text(folder / "recipe.yaml", recipe.to_yaml())
    files.write_text(folder / FAILED, f"{why}\n")
    print(f"  failed: {why}", file=sys.stderr, flush=True)


def _ended(words, log):
    """The exit code of a process. It is waited for whatever happens: a signal to this one it gets too, once."""
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    stopped = None
    while True:
        try:
            code = process.wait()
        except (KeyboardInterrupt, SystemExit) as signalled:  # the latter the command line makes of SIGTERM
            stopped = signalled
            process.send_signal(signal.SIGINT if isinstance(signalled, KeyboardInterrupt) else signal.SIGTERM)
        else:
            if stopped:
                raise stopped
            return code


def _file_name(text):
    """A run's name as a folder's."""
    return re.sub(r"[^\w.,=+-]+", "_", text).strip("._") or "run"
