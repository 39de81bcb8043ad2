"""What the RPN says about a few anchors, computed from the pixels that they see.

The RPN's losses look at some hundred anchors of a picture; with respect to its outputs for all
others, 100 to 1000 times as many, their gradient is zero. So gradients go through the head at the
sampled anchors alone, as a matrix product over their 3×3 pixels, and proposals, which pass no
gradient on, come from a forward pass that keeps nothing. The backward pass of the convolution would
multiply all those zeros: twice the forward pass of the detector's costliest layer.

Outputs and gradients are those of the whole head up to the order of sums.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from megdet_hvd.model.roi_gather import gather_cells

_NEAR = (-1, 0, 1)


def outputs_of_anchors(
    head: RPNHead, levels: Sequence[Tensor], pictures: Tensor, anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """Objectness (k,) and encoded boxes (k, 4) of k anchors, with gradients.

    Args:
        head: with a single 3×3 convolution.
        levels: P2…P6, (B, C, H_k, W_k).
        pictures: (k,) int64, which picture each anchor is looked at in.
        anchors: (k,) int64 below A, in the order of all anchors: level by level, row by row,
            column by column, ratio by ratio.
    """
    (convolution, *_), *deeper = head.conv
    assert not deeper, "an anchor of a deeper head sees more"
    ratios = head.cls_logits.out_channels
    rows, inside = _seen(levels, pictures, anchors, ratios)
    pixels = gather_cells(levels, rows, inside)
    pixels = pixels.view(len(anchors), len(_NEAR) ** 2 * pixels.shape[1])
    # Of views, autocast keeps no cast; of parameters, some versions of torch would hand out here
    # those that were made, without gradients, for the proposals.
    hidden = F.relu(F.linear(pixels, _pixels_last(convolution.weight), convolution.bias.view(-1)))
    ratio = anchors % ratios  # every level has a multiple of them
    logits = torch.gather(_pointwise(head.cls_logits, hidden), 1, ratio[:, None])
    deltas = _pointwise(head.bbox_pred, hidden).view(len(anchors), ratios, 4)
    return logits[:, 0], torch.gather(deltas, 1, ratio[:, None, None].expand(-1, 1, 4))[:, 0]


def _seen(
    levels: Sequence[Tensor], pictures: Tensor, anchors: Tensor, ratios: int
) -> tuple[Tensor, Tensor]:
    """Rows of the table of all pixels that each anchor sees, and 0 where there is none, else 1.

    (k·9, 1) both.
    """
    pixel, height, width, first = (torch.zeros_like(anchors) for _ in range(4))
    start, row = 0, 0
    for level in levels:
        images, _, rows, columns = level.shape
        count = rows * columns * ratios
        here = (anchors >= start) & (anchors < start + count)
        pixel = torch.where(here, (anchors - start) // ratios, pixel)
        height, width = height.masked_fill(here, rows), width.masked_fill(here, columns)
        first = first.masked_fill(here, row)
        start, row = start + count, row + images * rows * columns
    near = torch.arange(_NEAR[0], _NEAR[-1] + 1, device=anchors.device)
    y = (pixel // width)[:, None, None] + near[:, None]
    x = (pixel % width)[:, None, None] + near
    inside = (y >= 0) & (y < height[:, None, None]) & (x >= 0) & (x < width[:, None, None])
    at = (first + pictures * height * width)[:, None, None] + y * width[:, None, None] + x
    at = torch.where(inside, at, 0)
    return at.view(-1, 1).to(torch.int32), inside.view(-1, 1).to(torch.float32)


def _pixels_last(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) to (out, 9·in)."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def _pointwise(layer: nn.Conv2d, hidden: Tensor) -> Tensor:
    """A 1×1 convolution of single pixels."""
    assert layer.bias is not None, "torchvision's head has one"
    return F.linear(hidden, layer.weight.flatten(1), layer.bias.view(-1))
