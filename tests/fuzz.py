"""Damaged and hostile files, many of them, against everything that reads a file.

    python tests/fuzz.py                          # 20,000 cases, seed 0
    python tests/fuzz.py --cases 500 --seed 7
    python tests/fuzz.py --kinds archive recipe

Each case is a good file that was damaged, or one made to do harm: pickles, Keras layers and YAML tags that run
a command if they are obeyed. It is read by the package's public functions, in a worker process. A finding is any
exception but those that the command line turns into a line (UserError, OSError, ImportError), a case of more
than 5 s of computing or 2 GB, a worker that died, and a command that was run. Findings are saved with what made
them. The exit code is 1 if there are any.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil
from hostile_cases import SHARES, Cases
from tqdm import tqdm

SECONDS, BYTES = 5.0, 2e9


def work(pipe, room):
    """A worker: gets (seed, kind), answers with the outcome, "accepted", "refused" or what was wrong."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)
    os.dup2(quiet, 1)
    import warnings

    warnings.simplefilter("ignore")
    from keras_convmixer.errors import UserError

    room = Path(room)
    cases = Cases(room)
    cases.warm_up()
    pipe.send(None)
    while True:
        seed, kind = pipe.recv()
        place = room / "case" / f"{kind}"
        shutil.rmtree(room / "case", ignore_errors=True)
        shutil.rmtree(room / "cache", ignore_errors=True)
        place.parent.mkdir()
        read = getattr(cases, kind)(random.Random(f"{seed}/{kind}"), place)
        began = time.monotonic()
        pipe.send("made")
        try:
            read()
            outcome = "accepted"
        except (UserError, OSError, ImportError) as error:
            good = "\n" not in str(error) and len(str(error)) < 3000
            outcome = "refused" if good else f"more than a line: {str(error)[:5000]}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-6)}"
        left = list((room / "cache").rglob(".writing-*"))
        if left and outcome in ("accepted", "refused"):
            outcome = f"left behind: {left[0].name}"
        if cases.canary.exists():
            cases.canary.unlink()
            outcome = "A COMMAND WAS RUN"
        pipe.send((outcome, time.monotonic() - began))


class Worker:
    """A process that reads cases, watched from here."""

    def __init__(self):
        self.room = Path(tempfile.mkdtemp(prefix="fuzz"))
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, str(self.room)), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()
        self.base = psutil.Process(self.process.pid).memory_info().rss

    def outcome(self, seed, kind):
        """(outcome, seconds that it computed, bytes above what it began with)."""
        self.pipe.send((seed, kind))
        try:
            self.pipe.recv()
            began, computed, peak = time.monotonic(), self.computed(), 0
            used, moved = computed, began
            while not self.pipe.poll(0.02):
                # On a busy machine most of the time is others': only computing counts, and waiting without any.
                before, used, now = used, self.computed(), time.monotonic()
                moved = now if used > before else moved
                peak = max(peak, psutil.Process(self.process.pid).memory_info().rss - self.base)
                if peak > BYTES or min(used - computed, now - began) > SECONDS or now - moved > 2 * SECONDS:
                    return ("too slow" if peak <= BYTES else "too much memory"), now - began, peak
            outcome, seconds = self.pipe.recv()
            peak = max(peak, psutil.Process(self.process.pid).memory_info().rss - self.base)
            return outcome, min(seconds, self.computed() - computed), peak
        except (EOFError, ConnectionError, psutil.Error):
            self.process.join()
            return f"the worker died: {self.process.exitcode}", 0.0, 0

    def computed(self):
        """Seconds of processor time that the worker has used."""
        return sum(psutil.Process(self.process.pid).cpu_times()[:2])

    def stop(self):
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.room, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of all (default: 0)")
    parser.add_argument("--kinds", nargs="+", choices=SHARES, default=list(SHARES), help="only these kinds")
    parser.add_argument("--out", type=Path, default=Path("fuzz_findings"), help="where findings are saved")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kinds = rng.choices(arguments.kinds, [SHARES[kind] for kind in arguments.kinds], k=arguments.cases)
    columns = ("cases", "accepted", "refused", "findings", "slowest", "memory")
    table = {kind: dict.fromkeys(columns, 0) for kind in arguments.kinds}
    worker = Worker()
    with contextlib.suppress(KeyboardInterrupt):  # the table of what was done so far is shown all the same
        for number, kind in enumerate(tqdm(kinds, unit="case")):
            seed = f"{arguments.seed}/{number}"
            outcome, seconds, memory = worker.outcome(seed, kind)
            row = table[kind]
            row["cases"] += 1
            row["slowest"], row["memory"] = max(row["slowest"], seconds), max(row["memory"], memory)
            if outcome in ("accepted", "refused") and seconds <= SECONDS:
                row[outcome] += 1
                continue
            row["findings"] += 1
            kept = arguments.out / f"{number}_{kind}"
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(OSError):
                shutil.copytree(worker.room / "case", kept, symlinks=True)
            kept.mkdir(parents=True, exist_ok=True)
            (kept / "finding.txt").write_text(f"seed {seed}, {seconds:.1f} s\n{outcome}\n")
            tqdm.write(f"{kept}: {outcome.splitlines()[0][:200]}")
            if not worker.process.is_alive() or outcome.startswith("too "):
                worker.stop()
                worker = Worker()
    worker.stop()
    print(f"{'kind':<12}" + "".join(f"{name:>12}" for name in (*columns[:4], "slowest, s", "memory, MB")))
    for kind, row in table.items():
        counts = "".join(f"{row[name]:>12}" for name in columns[:4])
        print(f"{kind:<12}{counts}{row['slowest']:>12.2f}{row['memory'] / 1e6:>12.0f}")
    return 1 if any(row["findings"] for row in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
