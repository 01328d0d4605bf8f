"""How much of the machine is ours."""

import os


def usable_cores():
    """How many cores this process may use, which in a container or under `taskset` are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
