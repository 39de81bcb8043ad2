"""Which device and which precision the settings ``device`` and ``precision`` mean here."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from megdet_hvd.cluster.gpus import choose_gpu, given_gpus
from megdet_hvd.errors import UserError
from megdet_hvd.job.visible import shown_gpus

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Args:
        name: the setting. ``auto`` is CUDA where there is a usable GPU, else the CPU.
        local_rank: this process among those of its machine; says which GPU ``auto`` and
            ``cuda`` mean, see :mod:`megdet_hvd.cluster.gpus`.
        local_size: processes on this machine.

    Raises:
        UserError: CUDA is asked for, or the job was given GPUs, and torch finds none, or not one
            for each local process.
    """
    if name == "cpu":
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device={name}: expected auto, cpu, cuda or cuda:0, cuda:1, …") from None
    if device.type != "cuda":
        return device
    shown = shown_gpus()
    if shown == 0:
        return _without_gpu(name, choose_gpu(os.environ, local_rank, local_size, 0).reason)
    if ":" not in name:
        index = choose_gpu(os.environ, local_rank, local_size, shown).index
        assert index is not None, "torch shows one at least"
        return torch.device("cuda", index)
    if device.index >= shown:
        raise UserError(
            f"device={name}: GPU {device.index} is needed and this machine shows {shown}; take "
            "one of them, or pass device=cpu"
        )
    return device


def _without_gpu(name: str, reason: str) -> torch.device:
    if name != "auto":
        raise UserError(
            f"device={name}: torch finds no usable CUDA GPU ({reason}); pass device=cpu, and "
            "python -m megdet_hvd.doctor says why"
        )
    if given_gpus(os.environ):
        raise UserError(
            f"device=auto: no GPU to train on: {reason}. python -m megdet_hvd.doctor, on that "
            "machine, says whether its driver and cards fit the wheels; device=cpu computes on "
            "the CPU all the same"
        )
    return torch.device("cpu")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass; ``auto``: bfloat16 on GPUs that have it, else none."""
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        precision = "bfloat16" if native else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])
