"""CUDA operators that the CPU has no kernel for, computed with the CPU's.

By their definition in torch's Normalization.cuh: statistics, sums and results in float32 for half
and single precision.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _kept(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _column(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *([1] * (x.dim() - 2)))


def _like(values: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x).copy_(values)


def batch_norm_elemt(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float
) -> Tensor:
    """γ·(x − μ)·s + β; ``eps`` is in s already."""
    _require(x, mean, invstd)
    scale = invstd if weight is None else invstd * weight.to(invstd.dtype)
    line = (x.to(_kept(x)) - _column(mean, x)) * _column(scale, x)
    return _like(line if bias is None else line + _column(bias.to(line.dtype), x), x)


def batch_norm_backward_reduce(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    input_g: bool,
    weight_g: bool,
    bias_g: bool,
) -> tuple[Tensor | None, ...]:
    """Σ g, Σ g·(x − μ), and the gradients of γ and β."""
    _require(x, mean, invstd)
    dims = [d for d in range(x.dim()) if d != 1]
    grad = grad.to(_kept(x))
    total = grad.sum(dims)
    centred = (grad * (x.to(_kept(x)) - _column(mean, x))).sum(dims)
    return (
        total if input_g else None,
        centred if input_g else None,
        centred * invstd if weight_g else None,
        total.clone() if bias_g else None,
    )


def batch_norm_backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    invstd: Tensor,
    weight: Tensor | None,
    sum_dy: Tensor,
    sum_dy_xmu: Tensor,
    count: Tensor,
) -> Tensor:
    """γ·s·(g − Σ g/n − (x − μ)·s²·Σ g·(x − μ)/n)."""
    _require(x, mean, invstd, sum_dy, sum_dy_xmu)
    if count.dtype != torch.int32:
        raise TypeError(f"batch_norm_backward_elemt: count is {count.dtype}, and must be int32")
    share = 1.0 / count.sum().to(mean.dtype)
    scale = invstd if weight is None else invstd * weight.to(invstd.dtype)
    centred = (x.to(_kept(x)) - _column(mean, x)) * _column(invstd * invstd * sum_dy_xmu * share, x)
    return _like((grad.to(_kept(x)) - _column(sum_dy * share, x) - centred) * _column(scale, x), x)


def _require(x: Tensor, *statistics: Tensor) -> None:
    for one in statistics:
        if one.dtype != _kept(x):
            raise TypeError(f"statistics of {x.dtype} are {_kept(x)} on CUDA, not {one.dtype}")


EMULATED: Mapping[Any, Callable[..., Any]] = {
    aten.batch_norm_elemt.default: batch_norm_elemt,
    aten.batch_norm_backward_reduce.default: batch_norm_backward_reduce,
    aten.batch_norm_backward_elemt.default: batch_norm_backward_elemt,
}
"""By operator."""
