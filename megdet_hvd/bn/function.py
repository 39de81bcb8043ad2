"""Normalisation with the statistics of a group, and its gradient.

Forward, with μ and σ² of the whole group:  y = γ·x̂ + β,  x̂ = (x − μ)/√(σ² + ε).

Backward, with n the group's count and sums over the whole group:

    ∂L/∂x = γ/√(σ² + ε) · ( ∂L/∂y − [ Σ ∂L/∂y + x̂·Σ (∂L/∂y·x̂) ] / n )

The two sums are this process's own bias and weight gradient before they are added up, so one
collective of 2C numbers serves; the weight and bias gradients themselves stay each process's
own share, which DistributedOptimizer then averages like any other gradient.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megdet_hvd.bn.carriers import Carrier
from megdet_hvd.bn.statistics import group_moments, local_moments
from megdet_hvd.bn.tape import Statistics


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) float64 to (1, C, 1, …): in float64 for a float64 ``x``, in float32 otherwise."""
    kept = values if x.dtype == torch.float64 else values.float()
    return kept.view(1, -1, *([1] * (x.dim() - 2)))


class GroupNormalise(torch.autograd.Function):
    """BN in training mode over a group. Returns (y, n, mean, biased variance)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        carrier: Carrier,
        name: str,
        known: Statistics | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One collective, named ``NAME.forward``; none where the statistics are ``known``."""
        if known is None:
            total = carrier.sum(local_moments(x), f"{name}.forward")
            n, mean, variance = group_moments(total)
        else:
            n, mean, variance = known
        if n == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got 1 over the group's "
                f"{carrier.size} processes (this one's input has size {list(x.shape)})"
            )
        keep = torch.float64 if x.dtype == torch.float64 else torch.float32
        mean_kept, variance_kept = mean.to(keep), variance.to(keep)
        if x.numel():
            y = torch.nn.functional.batch_norm(
                x, mean_kept, variance_kept, weight, bias, False, 0.0, eps
            )
        else:
            y = torch.empty_like(x)
        ctx.save_for_backward(x, weight, mean_kept, variance_kept, n)
        ctx.eps, ctx.carrier, ctx.name = eps, carrier, name
        ctx.mark_non_differentiable(n, mean, variance)
        return y, n, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """One collective, named ``NAME.backward``, whether or not this rank has images."""
        x, weight, mean, variance, n = ctx.saved_tensors
        channels = x.shape[1]
        if x.numel():
            # torch's kernel for fixed statistics gives γ·g/√(σ²+ε), Σ g·x̂ and Σ g in one go.
            grad_x, sum_gx, sum_g = torch.ops.aten.native_batch_norm_backward(
                grad_y, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
            )
            sums = torch.cat([sum_g.double(), sum_gx.double()])
        else:
            grad_x = torch.empty_like(x)
            sums = torch.zeros(2 * channels, dtype=torch.float64, device=x.device)
        total = ctx.carrier.sum(sums, f"{ctx.name}.backward")
        if x.numel():
            inverse = torch.rsqrt(variance.double() + ctx.eps)
            scale = inverse if weight is None else inverse * weight.double()
            slope = -scale * inverse * total[channels:] / n
            offset = -scale * total[:channels] / n - slope * mean.double()
            slope, offset = _per_channel(slope, x), _per_channel(offset, x)
            if x.dtype == slope.dtype:
                grad_x.addcmul_(x, slope).add_(offset)
            else:
                grad_x = (grad_x.float() + x.float() * slope + offset).to(x.dtype)
        grad_weight = grad_bias = None
        if weight is not None:
            grad_bias, grad_weight = sums.to(weight.dtype).split(channels)
        return grad_x, grad_weight, grad_bias, None, None, None, None
