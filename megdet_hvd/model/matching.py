"""Which ground-truth box an anchor or a proposal belongs to."""

import torch
from torch import Tensor

BACKGROUND = -1
IGNORED = -2


def match_boxes(iou: Tensor, *, background: float, foreground: float, keep_best: bool) -> Tensor:
    """Index of the matched ground-truth box per candidate, or BACKGROUND or IGNORED.

    Args:
        iou: (n, m) overlap of n > 0 ground-truth boxes with m candidates.
        background: below this IoU with every box a candidate is background.
        foreground: at or above it, it belongs to the box it overlaps most; in between, ignored.
        keep_best: also take, for each box, the candidates that overlap it most (ties included),
            however little; each goes to the box that *it* overlaps most.

    The rule is torchvision's, with one difference: a box that no candidate overlaps at all claims
    none. (torchvision makes every candidate positive there, since all tie at zero.)
    """
    if iou.shape[1] == 0:
        return torch.zeros(0, dtype=torch.int64, device=iou.device)
    best_iou, best = iou.max(dim=0)
    matched = best.masked_fill(best_iou < foreground, IGNORED)
    matched = matched.masked_fill(best_iou < background, BACKGROUND)
    if keep_best:
        highest = iou.max(dim=1, keepdim=True).values
        claimed = ((iou == highest) & (highest > 0)).any(dim=0)
        matched = torch.where(claimed, best, matched)
    return matched
