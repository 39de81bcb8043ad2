"""Pictures of a batch on one canvas, each laid there as it comes: no byte is written twice."""

from collections.abc import Sequence

import torch
from torch import Tensor

from megdet_hvd.data.room import room_for

STRIDE = 32
"""BatchCanvas sides are multiples of this, so that P2…P5 have whole sizes."""


class BatchCanvas:
    """(B, 3, H, W) uint8 in channels_last order, each picture top left, zeros elsewhere.

    H and W are the largest sides, rounded up to multiples of 32; 32 where there is no picture.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        """``sizes``: width and height of the pictures that are to come, pixels."""
        self._pixels = room_for(_shape(sizes))  # (B, H, W, 3)
        self._sizes: list[tuple[int, int]] = []

    def lay(self, picture: Tensor, *, flip: bool = False) -> None:
        """The next picture, (3, h, w) uint8; mirrored left to right where ``flip``."""
        rows = picture.permute(1, 2, 0)
        height, width = rows.shape[:2]
        place = self._pixels[len(self._sizes)]
        place[:height, :width] = rows.flip(1) if flip else rows
        place[:height, width:] = 0
        place[height:] = 0
        self._sizes.append((width, height))

    def finished(self) -> Tensor:
        """What was laid: where pictures stayed away, on a canvas as small as the others need."""
        found = self._pixels
        if (shape := _shape(self._sizes)) != tuple(found.shape):
            count, height, width, _ = shape
            found = found[:count, :height, :width].clone(memory_format=torch.contiguous_format)
        return found.permute(0, 3, 1, 2)


def _shape(sizes: Sequence[tuple[int, int]]) -> tuple[int, int, int, int]:
    width, height = (
        -(-max((size[side] for size in sizes), default=1) // STRIDE) * STRIDE for side in (0, 1)
    )
    return len(sizes), height, width, 3
