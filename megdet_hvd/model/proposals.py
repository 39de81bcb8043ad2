"""From the RPN's outputs of one picture to its proposals."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

SMALLEST_SIDE = 1e-3
"""Proposals with a shorter side, pixels, are dropped; torchvision's value."""


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
) -> Tensor:
    """(n, 4) proposals of one picture, best first, n at most ``post_nms``.

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
        boxes: Tensor = coder.decode_single(deltas[index], anchors[index])
        boxes = clip_boxes_to_image(boxes, size)
        large = remove_small_boxes(boxes, SMALLEST_SIDE)
        boxes, scores, level_of = boxes[large], scores[large], level_of[large]
        best_first: Tensor = batched_nms(boxes, scores, level_of, nms_iou)
        return boxes[best_first[:post_nms]]
