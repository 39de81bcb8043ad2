"""The machine that is visited."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator

import torch
import torchvision

from install.machine import output_of, require_compilers
from install.problem import SetupProblem
from megdet_hvd.bench.machine import describe_machine
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value

_ASKED = "name,driver_version,memory.total,clocks.max.sm,clocks.max.memory,power.limit"


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Versions, and what Horovod's build will find."""
    device = torch.device(setting.device)
    yield "machine", describe_machine(device)
    yield "Python", platform.python_version()
    yield "torch", torch.__version__
    yield "torchvision", torchvision.__version__
    yield "CUDA", str(torch.version.cuda)
    yield "kernel", platform.release()
    yield "C library", " ".join(platform.libc_ver())
    if setting.device == "cuda":
        asked = output_of("nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader")
        yield "nvidia-smi", asked
        yield "GPUs", torch.cuda.device_count()
        yield "memory, GiB", torch.cuda.mem_get_info()[1] / 2**30
        yield "NCCL", ".".join(map(str, torch.cuda.nccl.version()))
        yield "cuDNN", torch.backends.cudnn.version() or 0
        yield "convolutions in TF32", torch.backends.cudnn.allow_tf32
    yield "cores", len(os.sched_getaffinity(0))
    for program in ("nvcc", "gcc", "g++", "make", "cmake", "ninja", "mpirun", "ncu"):
        yield program, _release(program)
    try:
        require_compilers(os.environ)
        yield "Horovod can be built", True
    except SetupProblem as problem:
        print(problem, file=sys.stderr)
        yield "Horovod can be built", False


def _release(program: str) -> str:
    if shutil.which(program) is None:
        return "none"
    lines = [line for line in output_of(program, "--version").splitlines() if "release" in line]
    lines += output_of(program, "--version").splitlines()
    return lines[0].strip() if lines else "says nothing"
