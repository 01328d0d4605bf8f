"""One training on several processes, each with its own devices, on JAX's distributed runtime.

Each process reads its own share of every batch, computes its share of the step and holds the whole model; BatchNorm
and the gradient are those of the whole batch. Process 0 alone reads and writes the run's folder, and tells the
others what is in it: they need not see the same file system, and none can take a stale file for the newest.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import signal
import socket
import sys
import time

import keras
import numpy as np

from keras_convmixer.errors import UserError, first_line, one_line
from keras_convmixer.training.interruption import Interruption

JOIN_SECONDS = 300
# JAX's own 100 would leave the others on a GPU waiting for a lost process for as long. What is computed does not
# delay heartbeats, which have a thread of their own.
_HEARTBEAT_SECONDS = 30
_LEAVE_SECONDS = 5
_PIECE = 2**26  # bytes that are sent at a time
# What JAX's libraries say, each in its own words and as various exceptions, where the other end is gone.
_OF_LOSS = re.compile(r"gloo|nccl|coordination service|heartbeat|connection (closed|reset)|socket closed", re.I)
_SETTINGS = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")  # Keras's, each after KERAS_DISTRIBUTION_

LOST = (
    "another process of this training has failed, ended or cannot be reached: its own output says why; "
    "the same command goes on from the last checkpoint"
)


class LostError(UserError):
    """Another process of the training is gone."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a training, as one of them sees them. Every method is to be called by all, in one order.

    Attributes:
        index: this process's number, from 0. count: how many there are.
    """

    index: int = 0
    count: int = 1

    @property
    def first(self):
        """Whether this is the process that reads and writes the run's folder."""
        return self.index == 0

    @property
    def devices(self):
        """Over how many devices a batch is shared out between the processes."""
        if self.count == 1:
            return 1
        import jax

        return jax.device_count()

    def scope(self):
        """A context in which what is built and trained is one model of all processes."""
        if self.count == 1:
            return contextlib.nullcontext()
        # The batches come in shares already: Keras's own sharing has every process read all of them.
        return keras.distribution.DataParallel(auto_shard_dataset=False).scope()

    def gathered(self, values):
        """An array of each process, all of one shape, as one array `(count, ...)`. Of 64-bit numbers 32 remain."""
        if self.count == 1:
            return np.asarray(values)[None]
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(np.asarray(values))

    def wait(self):
        """Returns once every process has come here."""
        self.gathered(np.zeros((), np.int8))

    def from_first(self, function):
        """What a function gives, which only process 0 calls. It must be such as JSON can hold.

        Raises:
            UserError: the function raised it, or OSError, which process 0 itself raises.
        """
        if self.count == 1:
            return function()
        said, failure = {}, None
        if self.first:
            try:
                said = {"value": function()}
            except (UserError, OSError) as error:
                said, failure = {"error": one_line(error)}, error
        said = json.loads(self._bytes_from_first(json.dumps(said).encode()))
        if failure:
            raise failure
        if "error" in said:
            raise UserError(said["error"])
        return said["value"]

    def arrays_from_first(self, arrays):
        """Process 0's dictionary of named arrays, on all. What the others give is not looked at."""
        if self.count == 1:
            return arrays
        kinds = self.from_first(lambda: {name: (str(a.dtype), a.shape) for name, a in arrays.items()})
        return {
            name: np.frombuffer(
                self._bytes_from_first(arrays[name].tobytes() if self.first else b""), np.dtype(dtype)
            ).reshape(shape)
            for name, (dtype, shape) in kinds.items()
        }

    def from_first_arrays(self, function):
        """As `from_first`, of a function that gives a list of arrays."""
        made = []
        self.from_first(lambda: made.extend(function()))
        return list(self.arrays_from_first({str(i): array for i, array in enumerate(made)}).values())

    def refuse_unequal(self, name, *values):
        """Raises UserError on all where some process has other values than process 0."""
        digest = hashlib.blake2b(repr(values).encode("utf-8", "surrogateescape"), digest_size=16).digest()
        found = self.gathered(np.frombuffer(digest, np.uint8))
        unlike = [i for i in range(self.count) if not np.array_equal(found[i], found[0])]
        if unlike:
            raise UserError(f"process {unlike[0]} has {name} other than those of process 0: they must be the same")

    def _bytes_from_first(self, content):
        from jax.experimental.multihost_utils import broadcast_one_to_all

        size = np.frombuffer(len(content).to_bytes(8, "little"), np.uint8)
        size = int.from_bytes(broadcast_one_to_all(size).tobytes(), "little")
        own = np.frombuffer(content, np.uint8) if self.first else np.zeros(size, np.uint8)
        return b"".join(broadcast_one_to_all(own[i : i + _PIECE]).tobytes() for i in range(0, size, _PIECE))


ALONE = Hosts()


class SharedInterruption(Interruption):
    """An `Interruption` that all processes obey after the same step, whichever of them was told to stop."""

    def __init__(self, hosts):
        super().__init__()
        self._hosts, self._agreed = hosts, False

    @property
    def asked(self):
        return self._agreed

    def agree(self):
        number = int(self._hosts.gathered(np.int32(self._number or 0)).max())
        if number and self._number is None:
            print(f"{signal.Signals(number).name} in another process: ending with it", file=sys.stderr, flush=True)
        if number:
            self._number, self._agreed = number, True

    def stoppable(self, model):
        """The model itself: measuring it, the processes agree on nothing before they are done."""
        return model

    def _end(self):
        if self._agreed:
            leave()
        super()._end()


def here():
    """The `Hosts` of this process: of one, unless Keras runs on JAX and JAX's distributed runtime was started."""
    if keras.backend.backend() != "jax":
        return ALONE
    import jax

    return Hosts(jax.process_index(), jax.process_count())


def in_environment():
    """Whether Keras's environment variables say that this is one process of several."""
    return any(f"KERAS_DISTRIBUTION_{name}" in os.environ for name in _SETTINGS)


@contextlib.contextmanager
def joined(coordinator=None, count=None, index=None, *, seconds=None):
    """A context in which this process is one of several. It gives their `Hosts`.

    To be entered before JAX computes anything. What is None is taken from KERAS_DISTRIBUTION_JOB_ADDRESSES,
    _NUM_PROCESSES and _PROCESS_ID, and else found by JAX itself on SLURM, Open MPI, Kubernetes and TPUs.

    Args:
        coordinator: host:port of process 0. count: how many there are. index: which one this is, from 0.
        seconds: how long to wait for the others. Default: `JOIN_SECONDS`.

    Raises:
        UserError: these cannot be, or Keras's backend is not JAX, or process 0 does not answer.
        LostError: another process has ended while this one still trained.
    """
    coordinator, count, index = _checked(coordinator, count, index)
    seconds = JOIN_SECONDS if seconds is None else seconds
    if count == 1:
        yield ALONE
        return
    if coordinator and index:
        _reach(coordinator, seconds)
    _start(coordinator, count, index, seconds)
    try:
        yield here()
    except Exception as error:
        if isinstance(error, (UserError, OSError)) or not _OF_LOSS.search(str(error)):
            raise
        raise LostError(LOST) from error
    leave()


def leave():
    """Ends this process's part once all processes have come here."""
    import jax

    here().wait()
    jax.distributed.shutdown()


def _checked(coordinator, count, index):
    if keras.backend.backend() != "jax":
        raise UserError(
            f"several processes train on JAX alone, and this is {keras.backend.backend()}: add --backend jax, "
            "or set KERAS_BACKEND=jax"
        )
    given = (os.environ.get(f"KERAS_DISTRIBUTION_{name}") for name in _SETTINGS)
    addresses, processes, number = given
    try:
        coordinator = coordinator or (addresses.partition(",")[0] if addresses else None)
        count = count if count is not None else processes and int(processes)
        index = index if index is not None else number and int(number)
    except ValueError as error:
        raise UserError(f"KERAS_DISTRIBUTION_NUM_PROCESSES and _PROCESS_ID must be numbers: {error}") from None
    if count is not None and count < 1:
        raise UserError(f"the number of processes must be at least 1, not {count}")
    if index is not None and (index < 0 or (count is not None and index >= count)):
        raise UserError(
            f"there is no process {index} of {count}: the first is 0, and the last one less than {count}"
        )
    if coordinator and not re.fullmatch(r".+:\d{1,5}", coordinator):
        raise UserError(f"the coordinator must be HOST:PORT, such as 10.0.0.1:1234, not {coordinator}")
    return coordinator, count, index


def _reach(coordinator, seconds):
    """Waits for process 0. JAX itself would end the process where it does not come."""
    host, _, port = coordinator.rpartition(":")
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            if time.monotonic() >= deadline:
                raise UserError(
                    f"the coordinator {coordinator} does not answer within {seconds} s ({one_line(error)}): "
                    "is process 0 running there, and may this machine connect to that port?"
                ) from None
        time.sleep(0.2)


def _start(coordinator, count, index, seconds):
    import jax

    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself, which `SharedInterruption` obeys.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=seconds,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes cannot be joined ({first_line(error)}): give --coordinator, --num-processes and "
            "--process-id, unless this runs where JAX finds them by itself"
        ) from None
