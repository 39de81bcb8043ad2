"""CGBN beside plain BN: milliseconds of forward and backward for the shapes of ResNet-50.

Of one process, without messages. :func:`measure` runs on a CPU too, for a rehearsal; what it says
there of CGBN on GPUs is nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.carriers import SingleProcessCarrier
from megdet_hvd.bn.fused_kernels import FusedKernels


@dataclass(frozen=True)
class BnShape:
    """An input of BN layers."""

    channels: int
    stride: int
    """Pixels of the picture to one of it, along a side."""
    layers: int
    """Of ResNet-50 that have it."""


RESNET50 = (
    BnShape(64, 2, 1),
    BnShape(64, 4, 6),
    BnShape(256, 4, 4),
    BnShape(128, 4, 1),
    BnShape(128, 8, 7),
    BnShape(512, 8, 5),
    BnShape(256, 8, 1),
    BnShape(256, 16, 11),
    BnShape(1024, 16, 7),
    BnShape(512, 16, 1),
    BnShape(512, 32, 5),
    BnShape(2048, 32, 4),
)
"""torchvision's, whose blocks halve the resolution in their second convolution: 53 layers."""


@dataclass(frozen=True)
class BnTime:
    """Milliseconds of one layer, forward and backward."""

    shape: BnShape
    plain: float
    """nn.BatchNorm2d."""
    cgbn: float
    """CGBN on torch's kernels."""
    fused: float | None
    """On kernels of our own."""


def measure(
    device: torch.device,
    dtype: torch.dtype,
    form: torch.memory_format,
    fused: FusedKernels | None,
    *,
    images: int = 2,
    canvas: tuple[int, int] = (800, 1344),
    shapes: Sequence[BnShape] = RESNET50,
    repeats: int = 20,
) -> list[BnTime]:
    """A line for each shape; the sides take turns, and of three turns the least counts."""
    found = []
    for shape in shapes:
        height, width = (-(-side // shape.stride) for side in canvas)
        x = torch.randn(images, shape.channels, height, width, device=device)
        x = x.to(dtype).contiguous(memory_format=form).requires_grad_()
        slopes = torch.randn_like(x)
        kept = torch.float64 if dtype == torch.float64 else torch.float32
        layers: list[nn.Module] = [nn.BatchNorm2d(shape.channels), _cgbn(shape, None)]
        if fused is not None:
            layers.append(_cgbn(shape, fused))
        works = [_work(layer.to(device, kept), x, slopes) for layer in layers]
        turns = [[_ms(work, device, repeats) for work in works] for _ in range(3)]
        plain, cgbn, *own = map(min, zip(*turns, strict=True))
        found.append(BnTime(shape, plain, cgbn, own[0] if own else None))
    return found


def whole(times: Sequence[BnTime]) -> tuple[float, float, float | None]:
    """All layers of the network together: plain BN, CGBN on torch's kernels, on ours; ms."""
    plain = sum(one.shape.layers * one.plain for one in times)
    cgbn = sum(one.shape.layers * one.cgbn for one in times)
    fused = [one.shape.layers * one.fused for one in times if one.fused is not None]
    return plain, cgbn, sum(fused) if len(fused) == len(times) else None


def table(times: Sequence[BnTime]) -> str:
    """For a report; a line a shape, and one for all layers."""
    head = "| channels | stride | layers | plain BN, ms | CGBN, ms | fused, ms |"
    lines = [head, "|---" * 6 + "|"]
    for one in times:
        shape, fused = one.shape, "" if one.fused is None else f"{one.fused:.3f}"
        lines.append(
            f"| {shape.channels} | {shape.stride} | {shape.layers} | {one.plain:.3f} | "
            f"{one.cgbn:.3f} | {fused} |"
        )
    plain, cgbn, own = whole(times)
    last = "" if own is None else f"{own:.2f}"
    layers = sum(one.shape.layers for one in times)
    lines.append(f"| all | | {layers} | {plain:.2f} | {cgbn:.2f} | {last} |")
    return "\n".join(lines)


def _cgbn(shape: BnShape, fused: FusedKernels | None) -> CrossGPUBatchNorm2d:
    layer = CrossGPUBatchNorm2d(shape.channels)
    layer.carrier = SingleProcessCarrier()
    layer.fused = fused
    return layer


def _work(layer: nn.Module, x: torch.Tensor, slopes: torch.Tensor) -> Callable[[], None]:
    def once() -> None:
        x.grad = None
        layer(x).backward(slopes)

    return once


def _ms(work: Callable[[], None], device: torch.device, repeats: int) -> float:
    work()
    if device.type != "cuda":
        began = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - began) / repeats * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        work()
    end.record()
    torch.cuda.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / repeats
