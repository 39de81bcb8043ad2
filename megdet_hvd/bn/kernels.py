"""On the CPU: normalisation with given statistics, and its gradient's parts. No messages here.

torch's own kernels do the work. They collapse (x − μ)·s + β into x·s + (β − μ·s), which is
quick and, where |μ| is large against the spread, inexact: float32 then loses |μ|/σ·6·10⁻⁸. From
COLLAPSE_LIMIT on, and for half precision, x is centred first, piece by piece in cache, with a mean
kept as a high and a low part. On CUDA: :mod:`megdet_hvd.bn.cuda_kernels`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from megdet_hvd.bn.cache_blocks import per_channel, pieces

COLLAPSE_LIMIT = 64.0
"""|μ|/√(σ² + ε) up to which the collapsed form errs by less than 10⁻⁵ of the largest output."""


@dataclass(frozen=True)
class Normaliser:
    """One call's statistics, made ready. float32, or float64 for a float64 input."""

    mean: Tensor
    """(C,) high part of μ."""
    low: Tensor
    """(C,) float64, μ less its high part."""
    variance: Tensor
    """(C,) biased."""
    inverse: Tensor
    """(C,) float64, 1/√(σ² + ε)."""
    eps: float
    careful: bool
    """Whether x must be centred before it is scaled."""


def prepare(x: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Normaliser:
    """From float64 statistics, for an input like ``x``."""
    kept = torch.float64 if x.dtype == torch.float64 else torch.float32
    high = mean.to(kept)
    inverse = torch.rsqrt(variance + eps)
    careful = x.dtype.itemsize < 4 or (
        kept == torch.float32 and bool((mean.abs() * inverse > COLLAPSE_LIMIT).any())
    )
    return Normaliser(high, mean - high.double(), variance.to(kept), inverse, eps, careful)


def normalise(x: Tensor, norm: Normaliser, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """γ·(x − μ)/√(σ² + ε) + β, in the dtype and memory format of ``x``."""
    if not x.numel():
        return torch.empty_like(x)
    if not norm.careful:
        return F.batch_norm(x, norm.mean, norm.variance, weight, bias, False, 0.0, norm.eps)
    scale = norm.inverse if weight is None else norm.inverse * weight.double()
    shift = -norm.low * scale
    if bias is not None:
        shift = shift + bias.double()
    return _affine(x, norm.mean, scale, shift)


def backward_sums(grad_y: Tensor, x: Tensor, norm: Normaliser) -> Tensor:
    """[Σ g, Σ g·x̂] over this process's values: (2C,) float64."""
    channels = x.shape[1]
    if not x.numel():
        return x.new_zeros(2 * channels, dtype=torch.float64)
    _, sum_gx, sum_g = torch.ops.aten.native_batch_norm_backward(
        grad_y, x, None, norm.mean, norm.variance, None, None, False, norm.eps,
        [False, True, True],
    )  # fmt: skip
    sum_gx = sum_gx.double()
    sum_g = sum_g.double()
    return torch.cat([sum_g, sum_gx - norm.low * norm.inverse * sum_g])


def input_gradient(
    grad_y: Tensor,
    x: Tensor,
    norm: Normaliser,
    weight: Tensor | None,
    total: Tensor,
    n: Tensor,
) -> Tensor:
    """γ/√(σ² + ε)·(g − [Σ g + x̂·Σ g·x̂]/n), with ``total`` = [Σ g, Σ g·x̂] over the group."""
    if not x.numel():
        return torch.empty_like(x)
    sum_g, sum_gx = total.chunk(2)
    inverse, kept = norm.inverse, norm.mean.dtype
    scale = inverse if weight is None else inverse * weight.double()
    slope = -scale * inverse * sum_gx / n
    offset = -scale * sum_g / n - slope * norm.low
    if norm.careful:
        return _affine(x, norm.mean, slope, offset, grad_y, scale)
    grad_x = torch.empty_like(x)
    column = per_channel(scale.to(kept), x)
    slope, offset = (slope / inverse).to(kept), offset.to(kept)
    for at in pieces(x):
        c = at[1]
        line = F.batch_norm(
            x[at],
            norm.mean[c],
            norm.variance[c],
            slope[c],
            offset[c],
            False,
            0.0,
            norm.eps,
        )
        torch.addcmul(line, grad_y[at], column[:, c], out=grad_x[at])
    return grad_x


def _affine(
    x: Tensor,
    mean: Tensor,
    slope: Tensor,
    offset: Tensor,
    other: Tensor | None = None,
    other_slope: Tensor | None = None,
) -> Tensor:
    """slope·(x − mean) + offset [+ other_slope·other], rounded once; (C,) each."""
    kept = mean.dtype
    mean, slope, offset = (per_channel(v.to(kept), x) for v in (mean, slope, offset))
    if other_slope is not None:
        other_slope = per_channel(other_slope.to(kept), x)
    out = torch.empty_like(x)
    for at in pieces(x):
        c = at[1]
        line = torch.addcmul(offset[:, c], x[at] - mean[:, c], slope[:, c])
        if other is not None and other_slope is not None:
            line.addcmul_(other[at].to(kept), other_slope[:, c])
        out[at] = line
    return out
