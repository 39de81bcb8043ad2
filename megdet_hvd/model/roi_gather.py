"""Weighted sums of the pyramid's pixels, and their gradient: ROIAlign's sparse matrix product.

Forward, each cell adds up its rows of a table with all pixels of all levels. Backward, the matrix
is transposed by a stable sort of its entries, and each pixel adds up the cells that it is in. Both
add one after another in a fixed order, whatever the number of threads, so bits are repeatable.
torchvision's kernel takes one channel after another, backward on one thread of a CPU, and adds
atomically on a GPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from megdet_hvd.model.precision import at_least_float32


class _GatherCells(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weights: Tensor, *levels: Tensor) -> Tensor:
        table = _table(levels)
        weights = weights.to(table.dtype)
        ctx.save_for_backward(rows, weights)
        ctx.levels = [torch.empty_like(level, device="meta") for level in levels]
        return _sums(rows, table, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, weights = ctx.saved_tensors
        pixels = sum(level.numel() // level.shape[1] for level in ctx.levels)
        entries, order = torch.sort(rows.flatten(), stable=True)
        every = torch.arange(pixels, dtype=entries.dtype, device=entries.device)
        table = _sums(
            order // rows.shape[1],
            grads[0].to(weights.dtype),
            weights.flatten()[order],
            torch.searchsorted(entries, every),
        )
        return None, None, *_levels(table, ctx.levels, ctx.needs_input_grad[2:])


def gather_cells(levels: Sequence[Tensor], rows: Tensor, weights: Tensor) -> Tensor:
    """(cells, C): for each cell the sum of ``weights`` times the pixels in ``rows``.

    Args:
        levels: (B, C, H_k, W_k) each, in any memory format; gradients come in the same. The table's
            rows are their pixels, level by level, picture by picture, row by row.
        rows: (cells, taps) int32. Whatever is summed for no pixel, or no cell, is zero.
        weights: (cells, taps); no gradient goes to them.

    Sums are in float32 where the levels are float16 or bfloat16, as torchvision's are, else in
    their own type; so is what is returned.
    """
    cells: Tensor = _GatherCells.apply(rows, weights, *levels)
    return cells


def _table(levels: Sequence[Tensor]) -> Tensor:
    """(R, C) pixels of all levels."""
    pixels = [level.numel() // level.shape[1] for level in levels]
    kind = at_least_float32(levels[0][:0]).dtype
    table = levels[0].new_empty(sum(pixels), levels[0].shape[1], dtype=kind)
    for part, level in zip(table.split(pixels), levels, strict=True):
        pixels_last = level.permute(0, 2, 3, 1)
        part.view(pixels_last.shape).copy_(pixels_last)
    return table


def _levels(table: Tensor, like: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """The levels that a table's rows are of, with the types and memory formats of ``like``."""
    found: list[Tensor | None] = []
    parts = table.split([level.numel() // level.shape[1] for level in like])
    for part, level, wanted in zip(parts, like, needed, strict=True):
        images, channels, height, width = level.shape
        own = torch.empty_like(level, device=table.device) if wanted else None
        if own is not None:
            own.copy_(part.view(images, height, width, channels).permute(0, 3, 1, 2))
        found.append(own)
    return found


def _sums(rows: Tensor, table: Tensor, weights: Tensor, starts: Tensor | None = None) -> Tensor:
    """Weighted sums of rows of ``table``: of each line of ``rows``, or from each of ``starts``."""
    bags = len(rows) if starts is None else len(starts)
    if rows.numel() == 0 or bags == 0:
        return table.new_zeros(bags, table.shape[1])
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)
