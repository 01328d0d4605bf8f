"""The machine at hand: how much of it is ours, and what to call it beside a figure."""

import os
import platform
from pathlib import Path


def usable_cores():
    """How many cores this process may use, which in a container or under `taskset` are not all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor():
    """The processor's name, and whether it has AVX-512 and AMX, which decide what it is fast at."""
    found = _cpuinfo()
    if not found:
        return platform.processor() or platform.machine()
    wide = [name for name, flag in {"AVX-512": "avx512f", "AMX": "amx_tile"}.items() if flag in cpu_flags()]
    return f"{found.get('model name', platform.machine()).strip()} ({', '.join(wide) or 'no AVX-512'})"


def cpu_flags():
    """What the processor can do, as Linux names it; of other systems nothing is known."""
    return frozenset(_cpuinfo().get("flags", "").split())


def cpu_vendor():
    """Whose the processor is, as Linux names it ("GenuineIntel", "AuthenticAMD"); "" on other systems."""
    return _cpuinfo().get("vendor_id", "").strip()


def _cpuinfo():
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)


def versions(*packages):
    """Python's version, and those of the packages that are installed, by name."""
    from importlib import metadata  # a fifth of the time that --help takes, which needs no versions

    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
