"""Moments of a batch that is spread over processes (Algorithm 1 of the paper). No messages here.

The paper all-reduces sums for the mean, then sums of squared deviations for the variance.
We send both at once: each process k adds the vector

    [ n_k,  n_k·m_k,  M2_k + n_k·m_k² ]        (m_k its mean, M2_k its squared deviations)

in float64. From the sums S0, S1, S2 over the group follow n = S0, μ = S1/n and
σ² = S2/n − μ². In float64 the last difference loses nothing that float32 inputs hold, even at
|μ| = 10⁴·σ, which the same formula in float32 would not survive.
"""

import torch
from torch import Tensor


def local_moments(x: Tensor) -> Tensor:
    """The vector this process adds: (1 + 2C,) float64, for ``x`` of shape (N, C, …).

    N = 0 gives zeros: a rank without images adds nothing.
    """
    channels = x.shape[1]
    n = x.numel() // channels if channels else 0
    if n == 0:
        return x.new_zeros(1 + 2 * channels, dtype=torch.float64)
    dims = [d for d in range(x.dim()) if d != 1]
    if x.dtype == torch.float64:
        variance, mean = torch.var_mean(x, dims, correction=0)
    else:
        # torch's own kernel: one pass, sums kept wider than float32.
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
    mean, variance = mean.double(), variance.double()
    count = torch.full((1,), float(n), dtype=torch.float64, device=x.device)
    return torch.cat([count, n * mean, n * (variance + mean * mean)])


def group_moments(total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, mean, biased variance) of the group, float64, from the summed vectors.

    Shapes (), (C,), (C,). With n = 0 mean and variance are 0.
    """
    channels = (total.numel() - 1) // 2
    n = total[0]
    safe = n.clamp(min=1)
    mean = total[1 : 1 + channels] / safe
    variance = (total[1 + channels :] / safe - mean * mean).clamp(min=0)
    return n, mean, variance
