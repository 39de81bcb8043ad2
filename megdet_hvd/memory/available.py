"""How much memory a process may still take for activations."""

from pathlib import Path

import psutil
import torch
from torch import nn

MARGIN = 0.15
"""Share left free: allocators leave gaps, kernels and NCCL want scratch memory."""
FUSION_BYTES = 128 * 2**20
"""Horovod's buffer for gradients in flight, at its default size."""


def activation_budget(model: nn.Module, device: torch.device, local_size: int) -> int:
    """Bytes for activations on ``device``; may be negative.

    What is free now (on a CPU: this process's share of it, of ``local_size`` on the machine),
    less gradients and momentum, which are still to come, less Horovod's buffer, less MARGIN.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _ram() // local_size
    coming = 2 * sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return int((free - coming - FUSION_BYTES) * (1 - MARGIN))


def _ram() -> int:
    available = int(psutil.virtual_memory().available)
    group = own_cgroup()
    return available if group is None else min(available, room_in_cgroup(group))


def own_cgroup(membership: Path = Path("/proc/self/cgroup")) -> Path | None:
    """The folder of this process's control group (version 2); None where there is none."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    names = [line.removeprefix("0::") for line in lines if line.startswith("0::")]
    return Path("/sys/fs/cgroup") / names[0].lstrip("/") if names else None


def room_in_cgroup(group: Path) -> int:
    """Bytes that ``group`` and the groups around it may still take (Slurm and containers set it).

    File caches count as taken there and can be had back, so they count as room here.
    """
    room = 2**62
    for folder in (group, *group.parents):
        try:
            limit = (folder / "memory.max").read_text(encoding="utf-8").strip()
            taken = int((folder / "memory.current").read_text(encoding="utf-8"))
            fields = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            continue
        if limit != "max":
            cached = sum(int(f.split()[1]) for f in fields if f.startswith("inactive_file "))
            room = min(room, int(limit) - taken + cached)
    return max(room, 0)
