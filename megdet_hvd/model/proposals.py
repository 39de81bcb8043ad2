"""From the RPN's outputs of one picture to its proposals."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from megdet_hvd.model.box_coding import BoxCoder

SMALLEST_SIDE = 1e-3
"""Proposals with a shorter side, pixels, are dropped; torchvision's value."""


class Proposals(NamedTuple):
    """Of one picture, best first."""

    boxes: Tensor
    """(n, 4), x1 y1 x2 y2."""
    valid: Tensor | None = None
    """(n,) bool; None: all are. The others are too small; to leave them out would be to wait for
    the GPU."""

    def all_valid(self) -> Tensor:
        """The valid ones, (m, 4)."""
        return self.boxes if self.valid is None else self.boxes[self.valid]


def select_proposals(
    anchors: Tensor,
    logits: Tensor,
    deltas: Tensor,
    anchors_per_level: Sequence[int],
    size: tuple[int, int],
    coder: BoxCoder,
    *,
    pre_nms: int,
    post_nms: int,
    nms_iou: float,
) -> Proposals:
    """Proposals of one picture, at most ``post_nms``.

    Args:
        anchors: (A, 4), the levels behind each other.
        logits: (A,) objectness.
        deltas: (A, 4) encoded boxes.
        anchors_per_level: how the A anchors divide over the levels.
        size: height and width of the picture, pixels; boxes are clipped to it.
        coder: decodes deltas.
        pre_nms: boxes kept per level before non-maximum suppression (NMS).
        post_nms: boxes kept per picture after it.
        nms_iou: IoU above which the lower-scored box of a level goes.

    Looks at this picture alone, and gives no gradients, as in torchvision: what the RPN learns,
    it learns from its own losses.
    """
    with torch.no_grad():
        kept, levels, start = [], [], 0
        for level, count in enumerate(anchors_per_level):
            best = logits[start : start + count].topk(min(pre_nms, count)).indices
            kept.append(best + start)
            levels.append(torch.full_like(best, level))
            start += count
        index, level_of = torch.cat(kept), torch.cat(levels)
        scores = logits[index].sigmoid()
        boxes = clip_boxes_to_image(coder.decode(deltas[index], anchors[index]), size)
        large = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(dim=1)
        if boxes.is_cpu:
            boxes, scores, level_of = boxes[large], scores[large], level_of[large]
            best_first: Tensor = batched_nms(boxes, scores, level_of, nms_iou)
            return Proposals(boxes[best_first[:post_nms]])
        # Small ones come last, and so take no other's place.
        scores = scores.masked_fill(~large, -1.0)
        best_first = nms(_apart(boxes, level_of, size), scores, nms_iou)[:post_nms]
        return Proposals(boxes[best_first], large[best_first])


def _apart(boxes: Tensor, level_of: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes of each level moved to where no other level's are: one call does all levels."""
    return boxes + (level_of.to(boxes.dtype) * (max(size) + 1))[:, None]
