"""Moments of a batch that is spread over processes (Algorithm 1 of the paper). No messages here.

The paper all-reduces sums for the mean, then sums of squared deviations for the variance.
We send both at once: each process k adds the vector

    [ n_k,  n_k·m_k,  M2_k + n_k·m_k² ]        (m_k its mean, M2_k its squared deviations)

in float64. From the sums S0, S1, S2 over the group follow n = S0, μ = S1/n and
σ² = S2/n − μ². In float64 the last difference loses nothing that float32 inputs hold, even at
|μ| = 10⁴·σ, which the same formula in float32 would not survive.

The local moments must be as good. A mean rounded to float32 is off by 3·10⁻⁴ of the spread there,
so it serves as a pivot p only: with z = x − p, which floating point computes without error where
x is near p, m_k = p + Σz/n_k and M2_k = Σz² − n_k·(Σz/n_k)². That reads x twice, as torch's own
BN does; z exists one piece at a time, small enough to stay in the processor's cache.
"""

import torch
from torch import Tensor

from megdet_hvd.bn import cuda_kernels
from megdet_hvd.bn.cache_blocks import dims_of, per_channel, pieces

FUSED_VALUES = 1 << 14
"""Values a channel in one piece up to which torch's one-pass kernel will do. There it
adds channels-last float32 up one after another in float32: σ² errs by 6·10⁻⁷ of itself at 4,096
values, by 2·10⁻⁴ at 700,000 (*measured here*). Only inputs of few channels have so many in a piece;
torch's other sums go pairwise."""


def local_moments(x: Tensor) -> Tensor:
    """The vector this process adds: (1 + 2C,) float64, for ``x`` of shape (N, C, …).

    N = 0 gives zeros: a rank without images adds nothing.
    """
    channels = x.shape[1]
    n = x.numel() // channels if channels else 0
    if n == 0:
        return x.new_zeros(1 + 2 * channels, dtype=torch.float64)
    if x.is_cuda:
        return cuda_kernels.local_moments(x)
    kept = torch.float64 if x.dtype == torch.float64 else torch.float32
    pivot = x.mean(dims_of(x), dtype=kept)
    first, second = _moments_about(x, pivot)
    residual = first / n
    mean = pivot.double() + residual
    deviations = (second - first * residual).clamp(min=0)
    count = x.new_full((1,), float(n), dtype=torch.float64)
    return torch.cat([count, n * mean, deviations + n * mean * mean])


def _moments_about(x: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """Σ(x − pivot) and Σ(x − pivot)², (C,) float64 both."""
    column = per_channel(pivot, x)
    first = x.new_zeros(x.shape[1], dtype=torch.float64)
    second = torch.zeros_like(first)
    fused = x.dtype != torch.float64 and not x.is_contiguous()
    for at in pieces(x):
        channels = at[1]
        z = x[at] - column[:, channels]
        count = z.numel() // z.shape[1]
        if fused and count <= FUSED_VALUES:
            # Channels last: torch's one-pass kernel is the quick one.
            mean, variance = torch.batch_norm_update_stats(z, None, None, 0.0)
            total = count * mean.double()
            first[channels] += total
            second[channels] += count * variance.double() + total * mean
        else:
            dims = dims_of(z)
            first[channels] += z.sum(dims)
            second[channels] += z.square_().sum(dims)
    return first, second


def group_moments(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, mean, biased variance) of the group, float64, from the summed vectors.

    Shapes (), (C,), (C,). With n = 0 mean and variance are 0.
    """
    channels = (total.numel() - 1) // 2
    n = total[0].clone()  # it is kept, and would keep the whole vector
    safe = n.clamp(min=1)
    mean = total[1 : 1 + channels] / safe
    variance = (total[1 + channels :] / safe - mean * mean).clamp(min=0)
    return n, mean, variance
