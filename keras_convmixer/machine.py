"""The machine at hand: how much of it is ours, and what to call it beside a figure."""

import os
import platform
from importlib import metadata
from pathlib import Path


def usable_cores():
    """How many cores this process may use, which in a container or under `taskset` are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor():
    """The processor's name, and whether it has AVX-512 and AMX, which decide what it is fast at."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    flags = found.get("flags", "").split()
    wide = [name for name, flag in {"AVX-512": "avx512f", "AMX": "amx_tile"}.items() if flag in flags]
    return f"{found.get('model name', platform.machine()).strip()} ({', '.join(wide) or 'no AVX-512'})"


def versions(*packages):
    """Python's version, and those of the packages that are installed, by name."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
