"""A tensor in pieces that fit the processor's cache, so that a temporary costs no memory pass."""

from collections.abc import Iterator

import torch
from torch import Tensor

CPU_ELEMENTS = 1 << 18
"""1 MB of float32, about a core's second-level cache."""

Piece = tuple[slice, slice, slice]
"""Images, channels, rows: an index of a tensor (N, C, H, …), and of (C,) by its second part."""

_ALL = slice(None)


def pieces(x: Tensor) -> Iterator[Piece]:
    """Indices that cover ``x`` (N, C, H, …), each of one run of memory where that can be.

    Several images together, or of one image some channels, or, channels last, some rows.
    """
    most = CPU_ELEMENTS
    image = x[0].numel() if len(x) else 0
    if image == 0:
        return
    if image <= most or x.dim() < 3:
        for images in _slices(len(x), max(1, most // image)):
            yield images, _ALL, _ALL
        return
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    length = x.shape[2] if last else x.shape[1]
    for one in _slices(len(x), 1):
        for part in _slices(length, max(1, length * most // image)):
            yield (one, _ALL, part) if last else (one, part, _ALL)


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(at, min(at + step, length)) for at in range(0, length, step))


def dims_of(x: Tensor) -> list[int]:
    """All dimensions but the channels'."""
    return [d for d in range(x.dim()) if d != 1]


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, …), to be combined with ``x``."""
    return values.view(1, -1, *([1] * (x.dim() - 2)))
