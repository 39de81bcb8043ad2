"""What the machine offers: compilers, MPI, CUDA, the site's PyTorch. Asks; changes nothing."""

import json
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from install.packages import base_python
from install.problem import SetupProblem


@dataclass(frozen=True)
class SiteTorch:
    """The PyTorch that the user's Python has."""

    version: str
    """Such as ``2.11.0+cu130``."""
    cuda: str
    """Its CUDA line; empty for a build without CUDA."""


def output_of(*command: str | Path) -> str:
    """A command's output, or nothing where it fails."""
    try:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def nvcc_release(text: str) -> str:
    """``12.4`` from what ``nvcc --version`` prints; empty where it is not there."""
    found = re.search(r"release (\d+\.\d+)", text)
    return found[1] if found else ""


def open_mpi_version(text: str) -> str:
    """``openmpi-4.1.8`` or ``mpich-…`` from what ``mpirun --version`` prints."""
    if found := re.search(r"\(Open MPI\) ([\w.]+)", text):
        return f"openmpi-{found[1]}"
    if found := re.search(r"Version:\s*([\w.]+)", text):
        return f"mpich-{found[1]}"
    if found := re.search(r"Intel\(R\) MPI Library.*Version ([\w.]+)", text):
        return f"intelmpi-{found[1]}"
    return ""


def site_mpi() -> tuple[str, Path]:
    """The site's MPI: its name with version, and its mpicc.

    Raises:
        SetupProblem: there is none on PATH, or it is one that horovodrun cannot drive.
    """
    mpicc, mpirun = shutil.which("mpicc"), shutil.which("mpirun")
    if mpicc is None or mpirun is None:
        raise SetupProblem(
            "MEGDET_MPI=site, but mpicc and mpirun are not both on PATH: load the site's MPI "
            "module, or leave the setting out to take Open MPI from the package index"
        )
    name = open_mpi_version(output_of(mpirun, "--version"))
    return name or "mpi-unknown", Path(os.path.realpath(mpicc))


def site_torch() -> SiteTorch:
    """The PyTorch of the user's Python.

    Raises:
        SetupProblem: it has none.
    """
    code = (
        "import json, torch, torchvision;"
        "print(json.dumps([torch.__version__, torch.version.cuda or '']))"
    )
    text = output_of(base_python(), "-c", code)
    try:
        version, cuda = json.loads(text.splitlines()[-1])
    except (IndexError, ValueError):
        raise SetupProblem(
            f"MEGDET_TORCH=site, but {base_python()} cannot import torch and torchvision: load "
            "the site's module, name another Python (PYTHON=…), or leave the setting out"
        ) from None
    return SiteTorch(version, cuda)


def require_compilers(environ: Mapping[str, str]) -> None:
    """A C++ compiler, make and Python's headers.

    Raises:
        SetupProblem: one is missing; the text names the package that brings it.
    """
    missing = []
    if not any(shutil.which(word) for word in (environ.get("CXX", ""), "c++", "g++") if word):
        missing.append(
            "a C++ compiler (Debian: apt-get install g++; on a cluster: module load gcc)"
        )
    if shutil.which("make") is None:
        missing.append("make (Debian: apt-get install make)")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.is_file():
        missing.append(
            f"Python's headers, {header} (Debian: apt-get install python3-dev; or name a Python "
            "that has them: make setup PYTHON=/path/to/python3)"
        )
    if missing:
        raise SetupProblem("Building Horovod needs\n    " + "\n    ".join(missing))


def toolkit_home(dry_run: str) -> Path | None:
    """The toolkit's folder from what ``nvcc --dryrun`` prints; None: not said."""
    found = re.search(r"^#\$ _HERE_=(.+)$", dry_run, re.MULTILINE)
    return Path(found[1].strip()).parent if found else None


def _home_of(nvcc: str) -> Path:
    """Asked, since the nvcc on PATH may be a script that starts the real one elsewhere."""
    command = [nvcc, "--dryrun", "-E", "-x", "cu", os.devnull]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        done = subprocess.CompletedProcess(command, 1, "", "")
    return toolkit_home(done.stderr + done.stdout) or Path(os.path.realpath(nvcc)).parent.parent


def cuda_toolkit(environ: Mapping[str, str], wanted: str) -> tuple[Path, str] | None:
    """The machine's CUDA toolkit of the wanted major version, with its release; None: none.

    HOROVOD_CUDA_HOME, CUDA_HOME and the nvcc on PATH are looked at, in this order.

    Raises:
        SetupProblem: HOROVOD_CUDA_HOME names a toolkit of another major version.
    """
    major = wanted.split(".")[0]
    on_path = shutil.which("nvcc")
    places = [
        (name, environ[name]) for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME") if environ.get(name)
    ]
    if on_path is not None:
        places.append(("PATH", str(_home_of(on_path))))
    for name, text in places:
        home = Path(text)
        release = nvcc_release(output_of(home / "bin" / "nvcc", "--version"))
        if release.split(".")[0] == major:
            return home, release
        if name == "HOROVOD_CUDA_HOME":
            raise SetupProblem(
                f"HOROVOD_CUDA_HOME={home} holds "
                f"{'CUDA ' + release if release else 'no bin/nvcc that runs'}, but this torch "
                f"was built with CUDA {wanted}: name a CUDA {major} toolkit or unset it"
            )
    return None
