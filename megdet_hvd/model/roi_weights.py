"""ROIAlign as a sparse matrix: which pixels of the pyramid make up each cell of a box.

ROIAlign (He et al., ICCV 2017) cuts a box into side×side cells and takes, in each, the mean of
samples×samples bilinear interpolations. All of that is linear in the features, so with the pixels
of all levels and pictures as rows of one table (R, C), a cell is a sum of (2·samples)² weighted
rows; and since samples and interpolation are products of one along y and one along x, so are the
weights: 4 along each axis with 2 samples, 16 a cell.

Values are torchvision's up to the order of sums. Where two samples meet the same pixel, it comes
twice; the number of weights is the same for every cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megdet_hvd.model.roi_levels import STRIDES, levels_of


@dataclass(frozen=True)
class CellWeights:
    """The matrix, in rows of equal length."""

    rows: Tensor
    """(n·side², taps²) int32, rows of the table."""
    weights: Tensor
    """(n·side², taps²) in the type of the boxes."""


def cell_weights(
    boxes: Tensor,
    pictures: Tensor,
    shapes: Sequence[tuple[int, int]],
    images: int,
    *,
    side: int,
    samples: int,
    aligned: bool = False,
) -> CellWeights:
    """The matrix of n boxes; its cells lie box by box, row by row.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, pixels of the canvas. Parts outside of it see zeros beyond one
            pixel of the level; a box without a level (:func:`levels_of`) is zero altogether.
        pictures: (n,) int32, which picture of the batch each box belongs to.
        shapes: height and width of each level, P2 first.
        images: pictures in the batch.
        side: cells along each side of a box.
        samples: interpolations along each side of a cell.
        aligned: shift by half a pixel, as Detectron2 does, and leave boxes smaller than a pixel
            of the level as they are; otherwise, as torchvision's detectors, such boxes grow to it.

    No value is read back from the device: on a GPU the host waits for nothing.
    """
    levels = levels_of(boxes)
    zero = torch.zeros_like(levels, dtype=torch.int32)
    height, width, first = zero, zero, zero
    scale = torch.zeros_like(boxes[:, 0])
    start = 0
    for level, (stride, (rows, columns)) in enumerate(zip(STRIDES, shapes, strict=True)):
        here = levels == level
        scale = scale.masked_fill(here, 1 / stride)
        height, width = height.masked_fill(here, rows), width.masked_fill(here, columns)
        first = first.masked_fill(here, start)
        start += images * rows * columns
    corners = boxes * scale[:, None] - (0.5 if aligned else 0.0)
    low, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    size = size if aligned else size.clamp(min=1)
    x, along_x = _axis(low[:, 0], size[:, 0], width, side, samples)
    y, along_y = _axis(low[:, 1], size[:, 1], height, side, samples)
    along_y = (along_y / samples**2).masked_fill((levels < 0)[:, None, None], 0)
    row = (first + pictures * height * width)[:, None, None] + y * width[:, None, None]
    taps = (2 * samples) ** 2
    return CellWeights(
        (row[:, :, None, :, None] + x[:, None, :, None, :]).reshape(-1, taps),
        (along_y[:, :, None, :, None] * along_x[:, None, :, None, :]).reshape(-1, taps),
    )


def _axis(
    low: Tensor, size: Tensor, limit: Tensor, side: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Pixels and weights along one axis, (n, side, 2·samples) both, in pixels of the level."""
    number = torch.arange(side * samples, device=low.device)
    cell, sample = number // samples, number % samples
    length = (size / side)[:, None]
    at = low[:, None] + cell * length + (sample + 0.5) * length / samples
    outside = (at < -1) | (at > limit[:, None])
    at = at.clamp(min=0)
    last = (limit - 1).clamp(min=0)[:, None]
    pixel = torch.minimum(at.to(torch.int32).clamp(min=0), last)
    beyond = torch.where(pixel < last, at - pixel, 0)
    pixels = torch.stack((pixel, torch.minimum(pixel + 1, last)), -1)
    weights = torch.stack((1 - beyond, beyond), -1).masked_fill(outside[..., None], 0)
    return pixels.view(-1, side, 2 * samples), weights.view(-1, side, 2 * samples)
