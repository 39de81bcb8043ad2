"""CGBN's own kernels for CUDA: their tests, and all layers of ResNet-50 beside plain BN."""

from collections.abc import Iterator
from typing import Any

import torch

from megdet_hvd.bn.fused_kernels import load
from tests.gpu import bn_times
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.pytests import counts
from tests.gpu.visit.record import Value

TESTS = "tests/gpu/test_fused_cuda.py"


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """ms of all 53 layers together, forward and backward, of 2 pictures."""
    device = torch.device(setting.device)
    small: dict[str, Any] = {"canvas": (64, 96), "repeats": 1} if setting.small else {}
    for dtype in (torch.bfloat16, torch.float32):
        for form in (torch.contiguous_format, torch.channels_last):
            kernels = load(device, [dtype]) if device.type == "cuda" else None
            found = bn_times.measure(device, dtype, form, kernels, **small)
            print(bn_times.table(found), flush=True)
            name = f"{dtype} {form}".replace("torch.", "")
            plain, cgbn, fused = bn_times.whole(found)
            yield f"{name}, plain BN, ms", plain
            yield f"{name}, CGBN on torch's kernels, ms", cgbn
            if fused is not None:
                yield f"{name}, CGBN on its own, ms", fused
                yield f"{name}, its own to torch's, times", fused / cgbn
                yield f"{name}, its own to plain BN, times", fused / plain
    yield from counts(setting, [TESTS])
