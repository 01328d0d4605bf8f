"""`convmixer train` on several processes: what it refuses, how it starts them and what it says when one ends.

The processes are stand-ins here; those that train are in tests/training/test_several_processes.py.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from keras_convmixer import Recipe
from keras_convmixer.cli import launch, main, train

EXAMPLES = Path(__file__).parents[2] / "examples"
TRAIN = ["train", "--recipe", "digits", "--workdir"]


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--processes", "2"], "several processes train on JAX alone: add --backend jax"),
        (
            ["--backend", "tensorflow", "--processes", "2"],
            "several processes train on JAX alone: add --backend jax",
        ),
        (["--processes", "0"], "--processes must be at least 1, not 0"),
        (
            ["--processes", "2", "--process-id", "1"],
            "--processes starts all of them: leave --coordinator, --num-pro",
        ),
        (
            ["--num-processes", "2", "--process-id", "1"],
            "train on JAX alone, and this is tensorflow: add --backend",
        ),
        (
            ["--coordinator", "auto"],
            "train on JAX alone, and this is tensorflow: add --backend jax, or set KERAS_B",
        ),
        (["--backend", "jax"], "Keras has started with another backend than jax: take a new process"),
    ],
)
def test_what_cannot_be_is_one_line(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert main([*TRAIN, str(tmp_path / "run"), *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("convmixer: ")
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_without_jax_the_message_is_the_pip_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    assert main([*TRAIN, str(tmp_path), "--backend", "jax"]) == 1
    assert 'needs jax: python -m pip install "keras_convmixer[jax]"' in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch, "_names", lambda folder: ["null", "nvidia0", "nvidia1", "nvidiactl", "nvidia2"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert main([*TRAIN, str(tmp_path), "--backend", "jax", "--processes", "3"]) == 1
    assert "--processes 3 needs as many GPUs, one each, and there are 2" in capsys.readouterr().err


@pytest.fixture
def launched(tmp_path, monkeypatch, capfd):
    """Starts two processes, each the same shell script with $I for its number; gives exit code and output."""

    def start(script):
        stand_in = tmp_path / "python"
        stand_in.write_text(f"#!/bin/bash\nI=${{@: -1}}; I=${{I#--process-id=}}\n{script}\n")
        stand_in.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stand_in))
        monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.5)
        words = ["--backend", "jax", "--set", "training.epochs=3", "--set", "seed=1", "--processes", "2"]
        code = main([*TRAIN, str(tmp_path / "run"), *words])
        return code, *capfd.readouterr()

    return start


def test_each_process_gets_the_command_and_its_number(launched, tmp_path):
    code, out, err = launched('echo "$I: $*"')
    assert (code, err) == (0, "")
    first, second = out.splitlines()[0], (tmp_path / "run" / "logs" / "process-1.txt").read_text()
    for said, number in ((first, 0), (second, 1)):
        words = said.split()
        assert words[:4] == [f"{number}:", "-m", "keras_convmixer", "train"]
        options = ["--recipe=digits", f"--workdir={tmp_path}/run", "--set=training.epochs=3", "--set=seed=1"]
        assert set(options) | {"--backend=jax", "--num-processes=2", f"--process-id={number}"} <= set(words)
        assert not any(word.startswith("--processes") for word in words)
    addresses = {word for said in (first, second) for word in said.split() if word.startswith("--coordinator")}
    assert len(addresses) == 1


def test_one_that_fails_ends_the_other_and_is_named(launched, tmp_path):
    began = time.monotonic()
    code, _, err = launched('if [ $I = 1 ]; then echo "convmixer: the disk is full"; exit 3; fi; exec sleep 60')
    assert time.monotonic() - began < 30
    assert code == 3
    log = tmp_path / "run" / "logs" / "process-1.txt"
    assert err == (
        f"convmixer: process 1 ended with exit code 3 (the disk is full; see {log}), and so the others were ended; "
        "the same command goes on from the last checkpoint\n"
    )


def test_one_that_is_killed_is_the_cause_and_not_those_that_lost_it(launched):
    code, _, err = launched("if [ $I = 0 ]; then kill -SEGV $$; fi; sleep 0.2; exit 75")
    assert code == 128 + signal.SIGSEGV
    assert err.startswith("convmixer: process 0 was ended by SIGSEGV, and so the others were ended")
    code, _, err = launched("if [ $I = 1 ]; then kill -KILL $$; fi; exec sleep 60")
    assert code == 128 + signal.SIGKILL
    assert err.startswith("convmixer: process 1 was ended by SIGKILL")


def test_what_process_0_has_said_is_not_said_again(launched):
    code, _, err = launched("echo convmixer: no such recipe >&2; exit 1")
    assert (code, err) == (1, "convmixer: no such recipe\n")


def test_a_signal_goes_to_all_once(launched, tmp_path):
    def stop():
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    code, _, err = launched(
        f"trap 'echo stopped-$I >> {tmp_path}/stopped; exit 143' TERM; touch {tmp_path}/ready-$I\n"
        "while true; do sleep 0.05; done"
    )
    thread.join()
    assert (code, err) == (143, "")
    assert sorted((tmp_path / "stopped").read_text().split()) == ["stopped-0", "stopped-1"]


def _options(words):
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser.parse_args(words[words.index("train") + 1 :])


def _check(arguments, processes):
    recipe = Recipe.load(arguments.recipe, arguments.set)
    assert arguments.backend == "jax"
    share, rest = divmod(recipe.training.batch_size, processes)
    assert rest == 0
    assert share % recipe.augmentation.mix_group == 0


def test_the_slurm_example_is_bash_and_a_command_of_ours(monkeypatch):
    path = EXAMPLES / "slurm.sbatch"
    subprocess.run(["bash", "-n", path], check=True)
    text = path.read_text()
    settings = dict(
        line.split()[1].removeprefix("--").split("=")
        for line in text.splitlines()
        if "#SBATCH" in line and "=" in line.split()[1]
    )
    assert int(settings["ntasks-per-node"]) == int(settings["gpus-per-node"])
    command = text[text.index("convmixer train") :].replace("\\\n", " ").replace("${RECIPE:-imagenet}", "imagenet")
    arguments = _options(shlex.split(command))
    assert arguments.coordinator == "auto"
    _check(arguments, int(settings["nodes"]) * int(settings["ntasks-per-node"]))


def test_the_jobset_example_names_pods_as_jobset_does():
    jobset = yaml.safe_load((EXAMPLES / "jobset.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (group,) = jobset["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (group["replicas"], job["completionMode"], job["backoffLimit"]) == (1, "Indexed", 0)
    assert job["parallelism"] == job["completions"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    name = jobset["metadata"]["name"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    port = container["ports"][0]["containerPort"]
    assert values == {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"{name}-{group['name']}-0-0.{name}:{port}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": str(job["parallelism"]),
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    script = container["command"][-1]
    assert '--process-id "$JOB_COMPLETION_INDEX"' in script
    _check(_options(shlex.split(script.replace("$JOB_COMPLETION_INDEX", "1"))), job["parallelism"])
