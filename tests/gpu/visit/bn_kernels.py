"""CGBN's arithmetic on the device: its errors to float64 beside torch's BN, and its time."""

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from megdet_hvd.bench.turns import take_turns
from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.statistics import local_moments
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value

TYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
OFFSETS = (0.0, 100.0, 1e4)
"""Of the mean, in standard deviations: 10⁴ is where float32's E[x²] − E[x]² has nothing left."""
SHAPES = ((64, 400, 672), (256, 200, 336), (128, 100, 168), (1024, 50, 84), (2048, 25, 42))
"""Channels, height and width of ResNet-50's layers at 800×1344."""
PASSES = 10
"""Between two waits for the device."""
SMALL_SHAPES = ((8, 20, 28),)


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Worst errors over offsets and memory formats, and forward with backward of five layers."""
    device = torch.device(setting.device)
    moments = [moment_errors(device, offset, last) for offset in OFFSETS for last in (False, True)]
    yield "mean, worst error in σ", max(mean for mean, _ in moments)
    yield "σ², worst relative error", max(variance for _, variance in moments)
    for dtype in TYPES:
        name = str(dtype).removeprefix("torch.")
        found = {"y": [0.0, 0.0], "gradient": [0.0, 0.0]}
        fits = {"y": True, "gradient": True}
        for offset, last in product(OFFSETS, (False, True)):
            if dtype == torch.bfloat16 and offset == max(OFFSETS):
                continue  # it has one value there, 9984
            for what, errors in errors_beside_torch(device, dtype, offset, last).items():
                found[what] = [max(pair) for pair in zip(found[what], errors, strict=True)]
                fits[what] &= no_worse(*errors, dtype, offset)
        for what, (ours, theirs) in found.items():
            yield f"{what} {name}, worst error", ours
            yield f"{what} {name}, torch's worst error", theirs
            yield f"{what} {name}, no worse than torch's", fits[what]
    yield from times(device, SMALL_SHAPES if setting.small else SHAPES, 2 if setting.small else 20)


def no_worse(ours: float, theirs: float, dtype: torch.dtype, offset: float) -> bool:
    """Whether CGBN's error is no larger than torch's, or than what its message can hold.

    That has Σx² about zero in float64: exact for the other types, and for float64 good to ε·μ²/σ².
    """
    floor = 1e-5
    if dtype == torch.float64:
        floor = 1e-12 + 4 * torch.finfo(dtype).eps * offset**2
    return ours <= max(1.01 * theirs, floor)


def moment_errors(device: torch.device, offset: float, last: bool) -> tuple[float, float]:
    """Worst error of a channel's mean, in its σ, and of its variance, relative."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 16, 96, 80, generator=generator, dtype=torch.float64) + offset).float()
    wide = x.double()
    n, first, second = split_moments(local_moments(laid(x.to(device), last)).cpu())
    mean = first / n
    spread = wide.std((0, 2, 3), correction=0)
    variance = second / n - mean * mean
    off = (mean - wide.mean((0, 2, 3))).abs() / spread
    return float(off.max()), float((variance / spread.square() - 1).abs().max())


def split_moments(vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[n, n·m, M2 + n·m²] in its three parts."""
    channels = (len(vector) - 1) // 2
    return vector[0], vector[1 : 1 + channels], vector[1 + channels :]


def laid(x: Tensor, last: bool) -> Tensor:
    """In one of the two memory formats."""
    form = torch.channels_last if last else torch.contiguous_format
    return x.contiguous(memory_format=form)


def errors_beside_torch(
    device: torch.device, dtype: torch.dtype, offset: float, last: bool
) -> dict[str, tuple[float, float]]:
    """Of the output and the input's gradient: CGBN's error and torch's, in the largest value."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, 16, 40, 56)
    x = (torch.randn(shape, generator=generator, dtype=torch.float64) + offset).to(dtype)
    g = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    wide = x.double().clone().requires_grad_()
    right = nn.BatchNorm2d(16).double()(wide)
    right.backward(g.double())
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    errors: list[tuple[float, float]] = []
    for layer in (CrossGPUBatchNorm2d(16), nn.BatchNorm2d(16)):
        layer.to(device, kept)
        own = laid(x.detach().clone().to(device), last).requires_grad_()
        y = layer(own)
        y.backward(g.to(device))
        assert y.dtype == dtype
        assert own.grad is not None and wide.grad is not None
        errors.append((worst(y.detach(), right.detach()), worst(own.grad, wide.grad)))
    ours, theirs = errors
    return {"y": (ours[0], theirs[0]), "gradient": (ours[1], theirs[1])}


def worst(found: Tensor, exact: Tensor) -> float:
    """Largest error, in the largest value."""
    return float((found.cpu().double() - exact).abs().max() / exact.abs().max())


def times(
    device: torch.device, shapes: tuple[tuple[int, int, int], ...], turns: int
) -> Iterator[tuple[str, Value]]:
    """ms of a layer's forward and backward pass, of 2 pictures, beside ``nn.BatchNorm2d``."""
    for dtype in (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        for channels, height, width in shapes:
            sides = {
                "CGBN": CrossGPUBatchNorm2d(channels),
                "nn.BatchNorm2d": nn.BatchNorm2d(channels),
            }
            x = torch.randn(2, channels, height, width, device=device, dtype=dtype)
            steps = {side: pass_of(layer.to(device), x) for side, layer in sides.items()}
            found = {side.name: side.clock for side in take_turns(steps, turns)}
            shape = f"{name} {channels}×{height}×{width}"
            for side, seconds in found.items():
                yield f"{side} {shape}, ms", 1e3 * seconds / PASSES
            ratio = found["CGBN"] / found["nn.BatchNorm2d"]
            yield f"CGBN to nn.BatchNorm2d {shape}, times", ratio


def pass_of(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call takes PASSES of them, and waits for the device."""
    x = x.detach().requires_grad_()
    g = torch.ones_like(x)

    def step() -> None:
        for _ in range(PASSES):
            x.grad = None
            layer(x).backward(g)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    step()
    return step
