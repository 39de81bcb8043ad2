"""CGBN's arithmetic on CUDA, in few launches: 14 a layer forward and 5 backward. No messages here.

Small kernels cost a GPU's host a few µs each, and a layer's statistics are all small. So what can
be is put together in one operator: sums and results lie side by side in one vector, results are
rounded as they are stored, and torch's fused kernels do what goes over all values. The numbers are
those of :mod:`megdet_hvd.bn.statistics` and :mod:`megdet_hvd.bn.kernels`, with two differences:

- the pivot is each channel's first value, which needs no pass of its own. It lies within the spread
  of the values (at most √n·σ from their mean, if all others are equal), and that is all that
  z = x − p needs. Sums over z are torch's, Welford's in float32, and what follows is in float64.
- the mean that is subtracted is μ rounded to the kept type, as in torch's own BN.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from megdet_hvd.bn.cache_blocks import per_channel

Z_ELEMENTS = 1 << 26
"""Most elements of z at a time, 256 MB of float32: images go in groups."""


class CudaNormaliser(NamedTuple):
    """One call's statistics, made ready. float32, or float64 for a float64 input."""

    mean: Tensor
    """(C,)."""
    inverse: Tensor
    """(C,), 1/√(σ² + ε)."""


def kept_type(x: Tensor) -> torch.dtype:
    """Of statistics of ``x``."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def local_moments(x: Tensor) -> Tensor:
    """[n, n·m, M2 + n·m²] as :func:`megdet_hvd.bn.statistics.local_moments`; ``x`` has values."""
    channels = x.shape[1]
    n = x.numel() // channels
    pivot = x[0].reshape(channels, -1)[:, 0].to(kept_type(x))
    residual, variance = _moments_about(x, pivot)
    vector = x.new_full((1 + 2 * channels,), float(n), dtype=torch.float64)
    first, second = vector[1 : 1 + channels], vector[1 + channels :]
    first.mul_(pivot).add_(residual, alpha=n)  # n·p + Σz = n·m
    second.mul_(variance).addcmul_(first, first, value=1 / n)
    return vector


def _moments_about(x: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of x − pivot, (C,) each."""
    column = per_channel(pivot, x)
    parts = x.split(max(1, Z_ELEMENTS // x[0].numel()))
    found = [torch.batch_norm_update_stats(z - column, None, None, 0.0) for z in parts]
    if len(found) == 1:
        mean, variance = found[0]
        return mean, variance
    # Σ wᵢ·(vᵢ + mᵢ²) − m², with the parts' shares wᵢ: z's means are small, nothing is lost.
    mean = pivot.new_zeros(pivot.shape, dtype=torch.float64)
    second = torch.zeros_like(mean)
    for part, (own_mean, own_variance) in zip(parts, found, strict=True):
        wide, share = own_mean.double(), len(part) / len(x)
        mean.add_(wide, alpha=share)
        second.add_(own_variance, alpha=share).addcmul_(wide, wide, value=share)
    return mean, second.addcmul_(mean, mean, value=-1)


def group_moments(total: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n, mean, biased variance) of the group, float64, and the mean of the kept type.

    Shapes (), (C,), (C,), (C,). ``total`` is what the group's vectors add up to, ``x`` this
    process's input. With n = 0 mean and variance are 0.
    """
    n = total[0]
    # A process that has values itself knows that the group has.
    mean, second = total[1:].div(n if x.numel() else n.clamp(min=1)).chunk(2)
    variance = torch.addcmul(second, mean, mean, value=-1).clamp_(min=0)
    return n, mean, variance, mean.to(kept_type(x))


def prepare(x: Tensor, rounded: Tensor, variance: Tensor, eps: float) -> CudaNormaliser:
    """For an input like ``x``, from the mean of the kept type and the float64 variance."""
    inverse = torch.empty_like(rounded)
    torch.rsqrt(variance + eps, out=inverse)
    return CudaNormaliser(rounded, inverse)


def normalise(
    x: Tensor, norm: CudaNormaliser, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """γ·(x − μ)/√(σ² + ε) + β, in the dtype and memory format of ``x``."""
    if not x.numel():
        return torch.empty_like(x)
    # ε is in the inverse already; torch's kernel takes one and leaves it aside.
    return torch.batch_norm_elemt(x, weight, bias, norm.mean, norm.inverse, 0.0)


class BackwardSums(NamedTuple):
    """This process's own."""

    vector: Tensor
    """[Σ g, Σ g·(x − μ)], (2C,) float64: what the group adds up."""
    weight: Tensor | None
    """(C,) gradient of γ."""
    bias: Tensor | None
    """(C,) gradient of β."""


def backward_sums(
    grad_y: Tensor, x: Tensor, norm: CudaNormaliser, weight: Tensor | None
) -> BackwardSums:
    """All of one pass over ``grad_y`` and ``x``; zeros where there are no values."""
    channels = x.shape[1]
    if not x.numel():
        none = x.new_zeros(2 * channels, dtype=torch.float64)
        if weight is None:
            return BackwardSums(none, None, None)
        grad_bias, grad_weight = none.to(weight.dtype).chunk(2)
        return BackwardSums(none, grad_weight, grad_bias)
    affine = weight is not None
    sum_g, centred, grad_weight, grad_bias = torch.batch_norm_backward_reduce(
        grad_y, x, norm.mean, norm.inverse, weight, True, affine, affine
    )
    vector = torch.cat([sum_g, centred]).double()
    if weight is None:
        return BackwardSums(vector, None, None)
    return BackwardSums(vector, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype))


def input_gradient(
    grad_y: Tensor, x: Tensor, norm: CudaNormaliser, weight: Tensor | None, total: Tensor, n: Tensor
) -> Tensor:
    """γ·s·(g − [Σ g + (x − μ)·s²·Σ g·(x − μ)]/n), with ``total`` of the whole group."""
    if not x.numel():
        return torch.empty_like(x)
    # The kernel divides by a count of 32 bits; what it is given is divided by n already.
    means = x.new_empty(len(total), dtype=norm.mean.dtype)
    torch.div(total, n, out=means)
    sum_g, centred = means.chunk(2)
    return torch.batch_norm_backward_elemt(
        grad_y, x, norm.mean, norm.inverse, weight, sum_g, centred, _one(x)
    )


_ones: dict[torch.device, Tensor] = {}


def _one(x: Tensor) -> Tensor:
    """[1] int32 on the device of ``x``, made once."""
    if x.device not in _ones:
        _ones[x.device] = x.new_ones(1, dtype=torch.int32)
    return _ones[x.device]
