"""The machine that a measurement ran on, in one line."""

import os
import platform
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Cores this process may use, threads it uses, processor, GPU, torch."""
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return (
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} threads, "
        f"{processor()}{gpu}, torch {torch.__version__}; load {os.getloadavg()[0]:.1f}"
    )


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
