"""What several processes tell each other, and what they refuse. Trainings are in test_several_processes.py."""

import json
import subprocess
import sys

import pytest
from several_processes import environment, in_processes

from keras_convmixer.errors import UserError
from keras_convmixer.training import hosts
from keras_convmixer.training.hosts import ALONE

pytest.importorskip("jax")


def test_alone_nothing_is_asked_of_others():
    assert (ALONE.first, ALONE.count, ALONE.devices) == (True, 1, 1)
    assert ALONE.from_first(lambda: {1, 2}) == {1, 2}  # not through JSON
    assert ALONE.gathered([1, 2]).tolist() == [[1, 2]]
    ALONE.refuse_unequal("images", "a")
    assert hosts.here() == ALONE


def test_tensorflow_does_not_train_on_several():
    with (
        pytest.raises(UserError, match="train on JAX alone, and this is tensorflow: add --backend jax"),
        hosts.joined("127.0.0.1:1234", 2, 0),
    ):
        pass


def test_processes_tell_each_other(tmp_path):
    first, second = in_processes(
        """
import os, signal
import numpy as np
from keras_convmixer.errors import UserError

def raised(function, *arguments):
    try:
        function(*arguments)
    except (UserError, OSError) as error:
        return f"{type(error).__name__}: {error}"

def wrong():
    raise FileNotFoundError("no run there")

def run(joined, folder):
    index = joined.index
    found = {"same": [joined.index, joined.count, joined.devices]}
    found["value"] = joined.from_first(lambda: {"from": index, "text": "größer"})
    found["error"] = raised(joined.from_first, wrong)
    own = [np.arange(6, dtype="float32").reshape(2, 3) + index, np.float64(index) + [0.1], np.zeros((0, 4), bool)]
    arrays = joined.from_first_arrays(lambda: own)
    found["arrays"] = [[str(a.dtype), a.shape, a.tolist()] for a in arrays]
    found["gathered"] = joined.gathered(np.array([index, index + 1])).tolist()
    joined.refuse_unequal("images", ["a", "b"])
    found["unequal"] = raised(joined.refuse_unequal, "images", ["a", "b"][: 1 + index])
    with hosts.SharedInterruption(joined) as interruption:
        interruption.agree()
        before = interruption.asked
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        asked = interruption.asked  # one alone does not stop
        interruption.agree()
        found["asked"] = [before, asked, interruption.asked]
    return found
""",
        2,
        tmp_path,
    )
    assert first.pop("same") == [0, 2, 2]
    assert second.pop("same") == [1, 2, 2]
    assert first.pop("error") == "FileNotFoundError: no run there"
    assert second.pop("error") == "UserError: no run there"
    assert first == second
    assert first["value"] == {"from": 0, "text": "größer"}
    assert first["arrays"] == [
        ["float32", [2, 3], [[0, 1, 2], [3, 4, 5]]],
        ["float64", [1], [0.1]],
        ["bool", [0, 4], []],
    ]
    assert first["gathered"] == [[0, 1], [1, 2]]
    assert (
        first["unequal"] == "UserError: process 1 has images other than those of process 0: they must be the same"
    )
    assert first["asked"] == [False, False, True]


REFUSALS = """
import json, os, sys
from keras_convmixer.errors import UserError
from keras_convmixer.training import hosts

said = []
for settings, arguments in json.loads(sys.argv[1]):
    os.environ |= settings
    try:
        with hosts.joined(*arguments, seconds=0.5):
            said.append("joined")
    except UserError as error:
        said.append(str(error))
    for name in settings:
        del os.environ[name]
print(json.dumps(said))
"""

REFUSED = [
    ({}, ["127.0.0.1:1234", 2, 2], "there is no process 2 of 2: the first is 0, and the last one less than 2"),
    ({}, ["127.0.0.1:1234", 2, -1], "there is no process -1 of 2"),
    ({}, ["127.0.0.1:1234", 0, 0], "the number of processes must be at least 1, not 0"),
    ({}, ["here", 2, 0], "the coordinator must be HOST:PORT, such as 10.0.0.1:1234, not here"),
    (
        {},
        ["127.0.0.1:1", 2, 1],
        "the coordinator 127.0.0.1:1 does not answer within 0.5 s (Connection refused): is",
    ),
    ({}, ["nowhere.invalid:1234", 2, 1], "the coordinator nowhere.invalid:1234 does not answer within 0.5 s ("),
    ({}, [None, 2, 1], "give --coordinator, --num-processes and --process-id, unless this runs where JAX finds"),
    ({"KERAS_DISTRIBUTION_NUM_PROCESSES": "two"}, [], "KERAS_DISTRIBUTION_NUM_PROCESSES and _PROCESS_ID must be"),
    (
        {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": "127.0.0.1:1,127.0.0.1:2",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_DISTRIBUTION_PROCESS_ID": "1",
        },
        [],
        "the coordinator 127.0.0.1:1 does not answer",
    ),
    ({}, [None, 1, 0], "joined"),
]


def test_what_cannot_be_joined_is_said_in_a_line():
    cases = json.dumps([(settings, arguments) for settings, arguments, _ in REFUSED])
    words = [sys.executable, "-c", REFUSALS, cases]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for (_, _, expected), said in zip(REFUSED, json.loads(done.stdout), strict=True):
        assert expected in said
        assert "\n" not in said
