"""Boxes of a batch to their features: ROIAlign on the level that fits each box.

Two kernels compute the same up to rounding. ``sparse`` (:mod:`megdet_hvd.model.roi_weights`) uses
all threads of a CPU, and repeats its bits whatever their number; on a GPU too, without a compiler.
``torchvision`` is torchvision's; a GPU has a quick one, whose gradient is not repeatable.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from megdet_hvd.model.backbone import LEVELS
from megdet_hvd.model.kernels import KernelChoice
from megdet_hvd.model.roi_gather import gather_cells
from megdet_hvd.model.roi_levels import FIRST_LEVEL, LAST_LEVEL, STRIDES, levels_of
from megdet_hvd.model.roi_weights import cell_weights

POOLED_SIDE = 7
"""ROIAlign gives 7×7 cells a box."""
SAMPLES = 2
"""Along each side of a cell."""
_POOLED_LEVELS = LEVELS[: LAST_LEVEL - FIRST_LEVEL + 1]
_NOWHERE = -1e6
"""A coordinate so far outside that ROIAlign sees only zeros."""


class RoiAlign(nn.Module):
    """(n_i, 4) boxes of each picture to (n, C, 7, 7). Nothing to learn, no state.

    Args:
        kernel: the setting ``model.roi.align``.
    """

    def __init__(self, kernel: Literal["auto", "torchvision", "sparse"]) -> None:
        super().__init__()
        self.choice = KernelChoice("roi_align", setting=kernel, new="sparse")

    def kernel_on(self, device: torch.device) -> str:
        """The kernel that is used there.

        ``auto`` is torchvision's on a GPU, unless repeatable bits are asked for, which it has only
        where Triton and a compiler are.
        """
        if self.choice.setting != "auto" or device.type == "cpu":
            return self.choice.kernel
        return "sparse" if torch.are_deterministic_algorithms_enabled() else "torchvision"

    def forward(
        self, features: dict[str, Tensor], boxes: Sequence[Tensor], canvas: tuple[int, int]
    ) -> Tensor:
        """All boxes together, picture by picture; the memory format may be channels last.

        Args:
            features: P2…P6, (B, C, H_k, W_k).
            boxes: one tensor a picture, pixels of the canvas; a single empty one where B is 0.
            canvas: its height and width.
        """
        levels = [features[name] for name in _POOLED_LEVELS]
        device = levels[0].device
        if self.kernel_on(device) == "sparse":
            return sparse_roi_align(levels, boxes)
        if device.type == "cpu":  # where the boxes of each level are known, and less is computed
            theirs = MultiScaleRoIAlign(list(_POOLED_LEVELS), POOLED_SIDE, SAMPLES)
            pooled: Tensor = theirs(features, list(boxes), [canvas])
            return pooled
        return torchvision_roi_align(levels, boxes)


def sparse_roi_align(levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """(n, C, 7, 7) from P2…P5 as a sparse matrix product; its gradient is one, too."""
    every, pictures = torch.cat(list(boxes)), _pictures(boxes)
    shapes = [(level.shape[2], level.shape[3]) for level in levels]
    cells = cell_weights(every, pictures, shapes, len(levels[0]), side=POOLED_SIDE, samples=SAMPLES)
    summed = gather_cells(levels, cells.rows, cells.weights)
    pooled = summed.view(len(every), POOLED_SIDE, POOLED_SIDE, summed.shape[1])
    return pooled.permute(0, 3, 1, 2).to(levels[0].dtype)


def torchvision_roi_align(levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
    """(n, C, 7, 7) from P2…P5 by torchvision's kernel, without waiting for the device.

    MultiScaleRoIAlign asks the device which boxes are of each level. Here every level gets all of
    them, and those of other levels lie far outside, where the kernel reads nothing and gives zero.
    """
    every, level_of = torch.cat(list(boxes)), levels_of(torch.cat(list(boxes)))
    pictures = _pictures(boxes)[:, None].to(every.dtype)
    parts = []
    for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        own = every.masked_fill((level_of != number)[:, None], _NOWHERE)
        rois = torch.cat((pictures, own), 1)
        parts.append(roi_align(level, rois, POOLED_SIDE, 1 / stride, SAMPLES))
    return torch.stack(parts).sum(0)


def _pictures(boxes: Sequence[Tensor]) -> Tensor:
    """(n,) int32: which picture each box belongs to."""
    return torch.cat(
        [
            torch.full((len(own),), number, dtype=torch.int32, device=own.device)
            for number, own in enumerate(boxes)
        ]
    )
