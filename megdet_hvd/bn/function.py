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

from megdet_hvd.bn import cuda_kernels
from megdet_hvd.bn.carriers import Carrier
from megdet_hvd.bn.fused_kernels import FusedKernels, Moving
from megdet_hvd.bn.kernels import Normaliser, backward_sums, input_gradient, normalise, prepare
from megdet_hvd.bn.statistics import group_moments, local_moments
from megdet_hvd.bn.tape import Statistics

_NO_GRADIENTS = (None,) * 7
"""Of what is no tensor."""


class GroupNormalise(torch.autograd.Function):
    """BN in training mode over a group.

    Returns (y, n, mean, biased variance, rounded mean, inverse deviation); the last two are None
    on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        carrier: Carrier,
        name: str,
        call: int,
        known: Statistics | None,
        fused: FusedKernels | None,
        moving: Moving | None,
    ) -> tuple[Tensor | None, ...]:
        """One collective, ``NAME.forward.CALL``; none where the statistics are ``known``.

        ``fused`` are kernels for inputs like ``x``, if there are any; these move ``moving``.
        """
        ctx.set_materialize_grads(False)  # zeros for what has no gradient would be made each time
        ready: cuda_kernels.CudaNormaliser | None = None
        if known is not None:
            n, mean, variance = known.n, known.mean, known.variance
            if known.rounded is not None and known.inverse is not None:
                ready = cuda_kernels.CudaNormaliser(known.rounded, known.inverse)
        else:
            own = local_moments(x) if fused is None else fused.local_moments(x)
            total = carrier.sum(own, f"{name}.forward.{call}")
            if fused is not None:
                n, mean, variance, *made = fused.statistics(total, x, eps, moving)
                ready = cuda_kernels.CudaNormaliser(*made)
            elif x.is_cuda:
                n, mean, variance, rounded = cuda_kernels.group_moments(total, x)
                ready = cuda_kernels.prepare(x, rounded, variance, eps)
            else:
                n, mean, variance = group_moments(total)
        # With two values of its own a process need not ask, and on a GPU not wait.
        if x.numel() <= x.shape[1] and n == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got 1 over the group's "
                f"{carrier.size} processes (this one's input has size {list(x.shape)})"
            )
        ctx.carrier, ctx.message, ctx.fused = carrier, f"{name}.backward.{call}", fused
        if ready is not None:
            ctx.save_for_backward(x, weight, n, *ready)
            ctx.mark_non_differentiable(n, mean, variance, *ready)
            return cuda_kernels.normalise(x, ready, weight, bias), n, mean, variance, *ready
        norm = prepare(x, mean, variance, eps)
        y = normalise(x, norm, weight, bias)
        ctx.save_for_backward(x, weight, n, norm.mean, norm.low, norm.variance, norm.inverse)
        ctx.eps, ctx.careful = eps, norm.careful
        ctx.mark_non_differentiable(n, mean, variance)
        return y, n, mean, variance, None, None

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """One collective, ``NAME.backward.CALL``, whether or not this rank has images."""
        x, weight, n, *kept = ctx.saved_tensors
        if grad_y is None:
            grad_y = torch.zeros_like(x)
        if x.is_cuda:
            ready = cuda_kernels.CudaNormaliser(*kept)
            if ctx.fused is None:
                own = cuda_kernels.backward_sums(grad_y, x, ready, weight)
            else:
                own = ctx.fused.backward_sums(grad_y, x, *ready, weight)
            total = ctx.carrier.sum(own.vector, ctx.message)
            grad_x = cuda_kernels.input_gradient(grad_y, x, ready, weight, total, n)
            return grad_x, own.weight, own.bias, *_NO_GRADIENTS
        mean, low, variance, inverse = kept
        norm = Normaliser(mean, low, variance, inverse, ctx.eps, ctx.careful)
        sums = backward_sums(grad_y, x, norm)
        total = ctx.carrier.sum(sums.clone(), ctx.message)  # sums stay this process's own
        grad_x = input_gradient(grad_y, x, norm, weight, total, n)
        grad_weight = grad_bias = None
        if weight is not None:
            grad_bias, grad_weight = sums.to(weight.dtype).chunk(2)
        return grad_x, grad_weight, grad_bias, *_NO_GRADIENTS
