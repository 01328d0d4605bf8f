"""How many small faults the tests notice: each is put into a copy of the package, and the tests of its module run.

    pip install -e '.[test,mutation]'
    python tests/mutation.py --percent 5                            # of every module's mutants
    python tests/mutation.py training/ema.py                        # every mutant of a module
    python tests/mutation.py training/ema.py:17 weights/load.py:3   # those of an earlier report again

The faults are mutmut's, and two of ours: a condition negated, a call left out. Annotations, docstrings, decorators,
imports and what is raised or printed are left as they are.
"""

import argparse
import difflib
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "keras_convmixer"

# Which tests, the quick ones first, a fault in a module should fail.
TESTS_OF = {
    "data/evaluation_stream.py": "data/test_unreadable.py::test_evaluation_leaves_out_what_cannot_be_read"
    " data/test_training_stream.py::test_evaluation_shows_every_image_once_in_order_with_its_index",
    "data/stratified_split.py": "data/test_stratified_split.py",
    "data/training_image.py": "data/test_training_stream.py",
    "data/training_stream.py": "data/test_training_stream.py data/test_unreadable.py",
    "deployment/fold.py": "deployment/test_fold.py",
    "inference/evaluation.py": "inference/test_evaluation.py",
    "inference/evaluation_report.py": "inference/test_evaluation.py",
    "inference/meter.py": "inference/test_evaluation.py",
    "training/after_reduction.py": "training/test_after_reduction.py training/test_distribute.py",
    "training/build.py": "training/test_build.py",
    "training/checkpoint.py": "training/test_checkpoint.py",
    "training/compiled.py": "training/test_compiled.py",
    "training/depthwise_gradients.py": "training/test_training_model.py",
    "training/distribute.py": "training/test_distribute.py",
    "training/dropout.py": "training/test_distribute.py::test_one_device_draws_kerass_masks"
    " training/test_distribute.py::test_replicas_average_their_statistics_and_draw_their_own_masks",
    "training/dtype_policy.py": "training/test_dtype_policy.py",
    "training/ema.py": "training/test_validation.py",
    "training/frozen_features.py": "training/test_frozen_features.py",
    "training/fused.py": "training/test_training_model.py",
    "training/memory.py": "training/test_frozen_features.py::test_memory_is_estimated_near_what_was_measured"
    " training/test_frozen_features.py::test_a_step_that_will_not_fit_is_refused_with_a_remedy",
    "training/optimizer.py": "training/test_optimizer.py",
    "training/schedule.py": "training/test_schedule.py",
    "training/sources.py": "training/test_sources.py",
    "training/train.py": "training/test_train.py training/test_frozen_features.py",
    "training/training_model.py": "training/test_training_model.py",
    "training/validation.py": "training/test_validation.py",
    "weights/load.py": "weights/test_state_dict.py weights/test_torch_file.py",
    "weights/pickled.py": "weights/test_torch_file.py",
    "weights/resample.py": "weights/test_state_dict.py weights/test_parity.py",
    "weights/state_dict.py": "weights/test_state_dict.py weights/test_parity.py",
    "weights/torch_file.py": "weights/test_torch_file.py",
}


def mutants(source):
    """The faults that can be put into a source: functions of nothing to (the source with it, the diff) or None."""
    import libcst as cst
    from mutmut.mutation.mutators import mutation_operators

    words = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise)

    def negated(node):
        test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield node.with_changes(test=cst.UnaryOperation(cst.Not(), test))

    def left_out(node):
        if isinstance(node.value, cst.Call):
            yield cst.Pass()

    operators = [*mutation_operators, (cst.If, negated), (cst.Expr, left_out)]
    found = []

    class Faults(cst.CSTVisitor):
        def on_visit(self, node):
            called = node.func.value if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) else None
            if isinstance(node, words) or called == "print":
                return False
            for kind, operator in operators:
                # Of a call of len mutmut leaves the arguments alone too: without them it always fails.
                if isinstance(node, kind) and called not in ("len", "isinstance"):
                    made = list(operator(node))
                    # Of a string's three one is enough: the others change its case.
                    found.extend((node, one) for one in (made[:1] if isinstance(node, cst.SimpleString) else made))
            return True

    module = cst.parse_module(source)
    module.visit(Faults())

    def put_in(node, fault):
        code = module.deep_replace(node, fault).code
        try:
            compile(code, "mutant", "exec")
        except SyntaxError:
            return None
        diff = list(difflib.unified_diff(source.splitlines(), code.splitlines(), lineterm="", n=0))
        return (code, "\n".join(diff[2:])) if diff else None

    return [functools.partial(put_in, *one) for one in found]


def started(path, code, tests):
    """Starts the tests in a child process, on a copy of the package in which a module reads otherwise."""
    folder = Path(tempfile.mkdtemp(prefix="mutant_"))
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / PACKAGE.name / path).write_text(code, encoding="utf-8")
    child = os.fork()
    if child:
        return child, folder
    os.setsid()
    output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.path.insert(0, str(folder))
    # For the tests that start processes of their own, which would else look in the working directory first.
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    import hypothesis
    import pytest

    # Examples drawn anew, or a slow moment of the machine, must decide nothing.
    hypothesis.settings.register_profile("mutation", deadline=None, derandomize=True, database=None)
    options = ["-x", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", f"--basetemp={folder}/temporary"]
    code = pytest.main([*options, *(str(TESTS / test) for test in tests.split())])
    sys.stdout.flush()
    os._exit(code)


def outcomes(work, jobs, limits):
    """Runs (name, path, code, tests, ...) in so many processes; gives each with its outcome and seconds."""
    waiting, running = list(reversed(work)), {}
    while waiting or running:
        while waiting and len(running) < jobs:
            item = waiting.pop()
            child, folder = started(*item[1:4])
            running[child] = item, folder, time.monotonic()
        time.sleep(0.1)
        for child, (item, folder, began) in list(running.items()):
            seconds = time.monotonic() - began
            done, status = os.waitpid(child, os.WNOHANG)
            if not done and seconds < limits.get(item[3], 600):
                continue
            if not done:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
            outcome = "timeout" if not done else "survived" if status == 0 else "killed"
            output = (folder / "output").read_text(errors="replace")
            shutil.rmtree(folder, ignore_errors=True)
            del running[child]
            yield item, outcome, seconds, output


def chosen(asked, percent, seed):
    """The (name, path, code, tests, diff) of the mutants that are asked for, or of a sample of each module's."""
    work = []
    for path in TESTS_OF:
        if asked and all(one.partition(":")[0] != path for one in asked):
            continue
        faults = mutants((PACKAGE / path).read_text(encoding="utf-8"))
        numbers = range(len(faults))
        if asked and path not in asked:
            numbers = [i for i in numbers if f"{path}:{i}" in asked]
        else:
            count = max(5, round(len(faults) * percent / 100))
            numbers = sorted(random.Random(f"{seed}/{path}").sample(numbers, min(len(faults), count)))
        made = [(i, faults[i]()) for i in numbers]
        work += [(f"{path}:{i}", path, one[0], TESTS_OF[path], one[1]) for i, one in made if one]
        print(f"{path}: {len(numbers)} of {len(faults)} mutants")
    return work


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutants", nargs="*", help="modules, or single mutants as a report names them")
    parser.add_argument(
        "--percent", type=float, default=100, help="of each module's mutants, at least 5 (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="at the same time (default: 2)")
    parser.add_argument(
        "--report", type=Path, default="mutants.jsonl", help="a line of JSON for each is added to it"
    )
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    work = chosen(options.mutants, options.percent, options.seed)

    # What takes seconds to import is imported once. Nothing of it runs here: a thread would not outlive a fork.
    import h5py  # noqa: F401
    import hypothesis.extra.numpy  # noqa: F401
    import keras  # noqa: F401
    import keras_cv  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import tensorflow  # noqa: F401

    own = {path: (PACKAGE / path).read_text(encoding="utf-8") for _, path, *_ in work}
    files = {file: ("", path, own[path], file) for _, path, _, tests, _ in work for file in tests.split()}
    took = {}
    for (*_, file), outcome, seconds, output in outcomes(list(files.values()), options.jobs, {}):
        print(f"{file}: {seconds:.0f} s without a fault", flush=True)
        if outcome != "survived":
            sys.exit(f"{output}\n{file} fails without a fault")
        took[file] = seconds
    limits = {tests: 20 + 3 * sum(took[file] for file in tests.split()) for *_, tests, _ in work}

    counts = dict.fromkeys(("killed", "timeout", "survived"), 0)
    with open(options.report, "a", encoding="utf-8") as report:
        for (name, _, _, _, diff), outcome, seconds, output in outcomes(work, options.jobs, limits):
            counts[outcome] += 1
            why = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
            line = {"mutant": name, "outcome": outcome, "seconds": round(seconds, 1), "diff": diff, "why": why[:1]}
            print(json.dumps(line), file=report, flush=True)
            if outcome == "survived":
                print(f"{name} survived\n{diff}", flush=True)
    print(counts)


if __name__ == "__main__":
    main()
