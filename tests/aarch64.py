"""The processors of phones, emulated: Python and LiteRT for aarch64 in a folder, run by QEMU.

    python tests/aarch64.py FOLDER
    CONVMIXER_AARCH64=FOLDER pytest -m slow tests/deployment/test_aarch64.py

The first line fills FOLDER (220 MB) with Debian's packages of Python for arm64 and of QEMU, unpacked, and with
ai-edge-litert and NumPy for arm64 in the versions installed here. Nothing is installed, and apt's own lists, cache
and configuration stay as they are: it is run with others, in FOLDER. It needs Debian's apt and dpkg.
"""

import argparse
import functools
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_convmixer.exported import runtimes

# QEMU's name of a processor → implementer and part, by which LiteRT knows it and chooses its kernels.
# There are phones of each kind: with plain NEON; with float16 arithmetic and dot products of int8; with int8 matrix
# products too, for which QEMU 7.2 has none but "max". It computes int8 products wrong with SME (10.0 does not).
PROCESSORS = {"cortex-a53": (0x41, 0xD03), "cortex-a76": (0x41, 0xD0B), "max,sme=off": (0x41, 0xD4D)}

PACKAGES = ("python3:arm64", "libstdc++6:arm64", "qemu-user-static")
WHEELS = ("ai-edge-litert", "numpy")
# Debian 12 has glibc 2.36.
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)))

PROGRAM = """
import platform, runpy, sys
from pathlib import Path
import numpy as np
runtimes, file, images, out = sys.argv[1:]
run = runpy.run_path(runtimes)["open_tflite"](Path(file), 1)
np.save(out, run(np.load(images))["probabilities"])
print(platform.machine())
"""


def prepare(folder):
    """Fills a folder with what `Emulator` needs. CalledProcessError: apt or pip failed, and said why."""
    missing = [command for command in ("apt-get", "dpkg", "dpkg-deb") if not shutil.which(command)]
    if missing:
        raise SystemExit(f"aarch64.py: needs Debian or what descends from it; no {', '.join(missing)} on the PATH")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SystemExit(f"aarch64.py: {folder} is there and not empty: give a new folder")
    root, apt = folder / "root", folder / "apt"
    root.mkdir(parents=True)
    environment = {**os.environ, "APT_CONFIG": str(_apt_configuration(apt))}
    run = functools.partial(subprocess.run, check=True, env=environment, stdout=subprocess.DEVNULL)
    run(["apt-get", "update", "-qq"])
    run(["apt-get", "install", "-qq", "--yes", "--download-only", "--no-install-recommends", *PACKAGES])
    for package in sorted((apt / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", package, root])
    shutil.rmtree(apt)
    for emulator in set((root / "usr" / "bin").glob("qemu-*")) - {_qemu(root)}:
        emulator.unlink()  # of 30 other processors
    version = os.readlink(root / "usr" / "bin" / "python3").removeprefix("python")
    wheels = [f"{name}=={importlib.metadata.version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += [f"--python-version={version}", *(f"--platform={name}" for name in PLATFORMS)]
    run([*pip, "--target", folder / "wheels", *wheels])


def _apt_configuration(apt):
    """Writes a configuration of apt: the machine's sources, but lists and cache of its own, nothing installed."""
    native = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    settings = {"Dir::State": apt, "Dir::State::status": apt / "status", "Dir::Cache": apt}
    lines = [f'{name} "{value}";' for name, value in settings.items()]
    lines += [f'APT::Architectures {{"{native}"; "arm64";}};', 'APT::Sandbox::User "root";']
    (apt / "apt.conf").write_text("\n".join(lines))
    return apt / "apt.conf"


def _qemu(root):
    """The emulator's path, or None. Debian 12 and 13 name it differently."""
    paths = [root / "usr" / "bin" / name for name in ("qemu-aarch64", "qemu-aarch64-static")]
    return next((path for path in paths if path.is_file()), None)


class Emulator:
    """Runs TFLite files on an emulated processor.

    Args:
        folder: what `prepare` filled.

    Raises:
        FileNotFoundError: it did not.
    """

    def __init__(self, folder):
        self._folder = Path(folder).absolute()
        self._root = self._folder / "root"
        if not (_qemu(self._root) and (self._folder / "wheels").is_dir()):
            raise FileNotFoundError(f"{folder} is not filled: python tests/aarch64.py {folder}")

    def probabilities(self, processor, file, images):
        """What a file gives for images.

        Args:
            processor: one of `PROCESSORS`. file: a TFLite file. images: float32 `(n, height, width, 3)` in 0–255.

        Returns:
            float32 `(n, classes)`.

        Raises:
            RuntimeError: the emulated program failed, or XNNPACK, which computes on phones, had no part in it.
        """
        self._describe(processor)
        with tempfile.TemporaryDirectory() as scratch:
            given, taken = Path(scratch, "images.npy"), Path(scratch, "probabilities.npy")
            np.save(given, images)
            command = [_qemu(self._root), "-L", self._root, "-cpu", processor, self._root / "usr/bin/python3"]
            command += ["-c", PROGRAM, runtimes.__file__, file, given, taken]
            environment = {"PYTHONPATH": str(self._folder / "wheels")}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if (done.returncode, done.stdout) != (0, "aarch64\n") or "XNNPACK delegate" not in done.stderr:
                raise RuntimeError(f"{file} on {processor}: code {done.returncode}\n{done.stdout}{done.stderr}")
            return np.load(taken)

    def _describe(self, processor):
        """Has /proc and /sys tell LiteRT of one such processor. Otherwise they are those of the machine itself."""
        implementer, part = PROCESSORS[processor]
        identity = f"CPU implementer\t: {implementer:#x}\nCPU architecture: 8\nCPU part\t: {part:#x}\n"
        texts = {"proc/cpuinfo": f"processor\t: 0\n{identity}"}
        texts |= {f"sys/devices/system/cpu/{name}": "0\n" for name in ("possible", "present")}
        for name, text in texts.items():
            path = self._root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="to fill: a new or an empty one")
    folder = parser.parse_args().folder
    try:
        prepare(folder.absolute())
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"aarch64.py: {error.cmd[0]} failed with code {error.returncode}, see above") from error
    print(f"set CONVMIXER_AARCH64={folder.absolute()}")


if __name__ == "__main__":
    main()
