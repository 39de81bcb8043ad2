"""Whether CGBN's own kernels compute on a GPU what torch's do: asked once, before a run uses them.

That they are right is for the tests. This is to find a GPU, a driver or a compiler that they go
wrong with.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor

from megdet_hvd.bn.cache_blocks import dims_of, per_channel
from megdet_hvd.bn.cuda_kernels import kept_type
from megdet_hvd.bn.fused_kernels import FusedKernels, Moving
from megdet_hvd.bn.later_updates import RunningStatistics

SHAPES = ((4, 24, 96, 128), (3, 5, 7, 9), (2, 6, 1, 1), (2, 136, 20, 34))
"""In pieces and whole; the widest loads and single values; full and half-full blocks."""
EPS = 1e-5
SUMS_LIMIT, STORED_LIMIT = 1e-9, 5e-7
"""Of what is computed in float64, and of what is stored in float32: of the spread, or of the sum of
what was added up without its signs."""


def difference(kernels: FusedKernels, dtypes: Sequence[torch.dtype]) -> str | None:
    """What differs first, on random values; None: nothing. Waits for the GPU.

    Args:
        kernels: for inputs of ``dtypes`` at least.
        dtypes: to look at.
    """
    forms = (torch.contiguous_format, torch.channels_last)
    for dtype, shape, form in product(dtypes, SHAPES, forms):
        x, g = (
            _values(shape, dtype, kernels.device, seed).contiguous(memory_format=form)
            for seed in (1, 2)
        )
        for what, error, limit in _errors(kernels, x * 3 + 5, g):
            if not error <= limit:
                layout = "channels last" if form is torch.channels_last else "contiguous"
                return (
                    f"{what} of {dtype} values of shape {tuple(shape)}, {layout}, differ by "
                    f"{error:.1e} from torch's in float64, which is more than {limit:.0e}"
                )
    return None


def _values(shape: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator).to(dtype).to(device)


def _errors(kernels: FusedKernels, x: Tensor, g: Tensor) -> Iterator[tuple[str, float, float]]:
    """By name, with what is allowed, in the order in which one thing leads to the other."""
    channels, dims = x.shape[1], dims_of(x)
    kept = kept_type(x)
    n = x.numel() // channels
    wide = x.double()
    mean = wide.mean(dims)
    variance = (wide - per_channel(mean, x)).square().mean(dims)
    unbiased = variance * n / (n - 1)
    spread = (variance + EPS).sqrt()

    batches = torch.full((), 3, device=x.device)
    before = spread.to(kept, copy=True)
    running = RunningStatistics(mean.new_zeros(channels, dtype=kept), before, batches)
    found = kernels.statistics(kernels.local_moments(x), x, EPS, Moving(running, 0.5))
    yield "counts", float((found.n - n).abs() + (batches - 4).abs()), 0
    yield "means", _worst(found.mean - mean, spread), SUMS_LIMIT
    yield "variances", _worst(found.variance - variance, spread.square()), SUMS_LIMIT
    size = spread + mean.abs()
    yield "rounded means", _worst(found.rounded - mean, size), STORED_LIMIT
    yield "inverse deviations", _worst(found.inverse * spread - 1, spread / spread), STORED_LIMIT
    yield "running means", _worst(running.mean - mean / 2, size), STORED_LIMIT
    moved = (spread + unbiased) / 2
    yield "running variances", _worst(running.variance - moved, moved), STORED_LIMIT

    ours = kernels.backward_sums(g, x, found.rounded, found.inverse, found.inverse)
    assert ours.weight is not None and ours.bias is not None
    slopes = g.double()
    centred = slopes * (wide - per_channel(found.rounded, x))
    sizes, sums = (
        torch.stack([one.sum(dims) for one in both])
        for both in ((slopes.abs(), centred.abs()), (slopes, centred))
    )
    yield "gradient sums", _worst(ours.vector - sums.flatten(), sizes.flatten()), SUMS_LIMIT
    yield "gradients of β", _worst(ours.bias - sums[0], sizes[0]), STORED_LIMIT
    scaled = sums[1] * found.inverse
    yield "gradients of γ", _worst(ours.weight - scaled, sizes[1] * found.inverse), STORED_LIMIT


def _worst(error: Tensor, size: Tensor) -> float:
    """Largest of ``error`` by ``size``; NaN if there is one."""
    return float((error.double() / size.double()).abs().max())
