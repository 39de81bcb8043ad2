"""From which level of the pyramid a box is pooled: eq. (1) of FPN (Lin et al., CVPR 2017)."""

import torch
from torch import Tensor
from torchvision.ops import box_area

FIRST_LEVEL, LAST_LEVEL = 2, 5
"""P2…P5; P6 is for anchors alone."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4
"""A box of ImageNet's 224×224 pixels is pooled from P4."""
STRIDES = tuple(1 << level for level in range(FIRST_LEVEL, LAST_LEVEL + 1))
"""Pixels of the canvas that a pixel of each level stands for."""
_EPSILON = 1e-6
"""Of torchvision, so that a side of exactly 224 is P4 in spite of rounding."""


def levels_of(boxes: Tensor) -> Tensor:
    """(n, 4) boxes, pixels of the canvas, to (n,) int64: 0 for P2 … 3 for P5, as torchvision's.

    -1 is none: corners in the wrong order, or not numbers.
    """
    side = torch.sqrt(box_area(boxes))
    level = torch.floor(CANONICAL_LEVEL + torch.log2(side / CANONICAL_SIDE) + _EPSILON)
    level = level.clamp(FIRST_LEVEL, LAST_LEVEL) - FIRST_LEVEL
    return torch.nan_to_num(level, nan=-1.0).to(torch.int64)
