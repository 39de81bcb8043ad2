"""A CUDA driver without a GPU: its functions, and kernels of ours, compiled for the CPU.

What runs is the project's own calls of the driver, and the very source of its kernels, a thread for
each of theirs. Timing, caches and the GPU's memory model are not emulated.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from megdet_hvd.cuda.driver import CudaDriver

HERE = Path(__file__).resolve().parent
_OPTIONS = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread")


def compiler() -> str:
    """g++; without one the test is skipped, and says what was not checked."""
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        pytest.skip("no C++ compiler: CUDA's driver calls and kernels were not run on the CPU")
    return found


def emulated_driver() -> CudaDriver:
    """A driver with two GPUs; memory and kernels are of number 0."""
    source = (HERE / "emulated_driver.cpp").read_text(encoding="utf-8")
    return CudaDriver(ctypes.CDLL(str(built(source))))


def emulated_cubin(source: str, *kernels: str) -> bytes:
    """What the emulated driver loads in place of machine code of the GPU's."""
    offered = "".join(f"EMULATED({name})\n" for name in kernels)
    whole = f'#include "{HERE / "emulated_kernel.h"}"\n{source}\n{offered}'
    return bytes(built(whole)) + b"\0"


def built(source: str) -> Path:
    """Compiled once a user and source: beside others that do the same."""
    folder = Path(tempfile.gettempdir()) / f"megdet-emulated-cuda-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.getuid(), folder
    parts = (source, (HERE / "emulated_kernel.h").read_text(encoding="utf-8"), *_OPTIONS)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    library = folder / f"{digest}.so"
    if not library.exists():
        own = folder / f"{digest}.{os.getpid()}"
        done = subprocess.run(
            [compiler(), *_OPTIONS, "-x", "c++", "-", "-o", str(own)],
            input=source,
            text=True,
            encoding="utf-8",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        own.replace(library)
    return library
