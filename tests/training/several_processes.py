"""Runs a piece of Python in several processes of one training, on JAX."""

import json
import os
import socket
import subprocess
import sys

PRELUDE = """
import json, sys
from keras_convmixer.training import hosts

index, count, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

def main():
    with hosts.joined(f"127.0.0.1:{port}", count, index) as joined:
        result = run(joined, folder)
    print(json.dumps(result))
"""


def environment():
    return os.environ | {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "-1"}


def in_processes(script, count, folder):
    """What a script's `run(hosts, folder)` returned in each process, read as JSON."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", f"{PRELUDE}{script}\nmain()"]
    running = [
        subprocess.Popen(
            [*words, str(i), str(count), str(port), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for i in range(count)
    ]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, err) in zip(running, said):
        assert process.returncode == 0, err[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in said]
