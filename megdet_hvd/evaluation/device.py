"""Which device and which precision the settings ``device`` and ``precision`` mean here."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from megdet_hvd.errors import UserError

_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Args:
        name: the setting. ``auto`` is CUDA where there is a usable GPU, else the CPU.
        local_rank: which of the machine's GPUs ``auto`` and ``cuda`` mean.

    Raises:
        UserError: CUDA is asked for and there is none, or not one for each local process.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"device={name}: expected auto, cpu, cuda or cuda:0, cuda:1, …") from None
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise UserError(
            f"device={name}: torch finds no usable CUDA GPU; pass device=cpu, and "
            "python -m megdet_hvd.doctor says why"
        )
    number = local_rank if device.index is None else device.index
    if number >= torch.cuda.device_count():
        raise UserError(
            f"device={name}: GPU {number} is needed and this machine shows "
            f"{torch.cuda.device_count()}; start at most one process per GPU, or pass device=cpu"
        )
    return torch.device("cuda", number)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass; ``auto``: bfloat16 on GPUs that have it, else none."""
    if precision == "auto":
        native = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
        precision = "bfloat16" if native else "float32"
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])
