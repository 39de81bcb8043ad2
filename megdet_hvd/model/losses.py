"""The four parts of l(x_i, w) of eq. (1), one value per picture.

Each picture's losses are normalised by counts of that picture alone, so they don't depend on
which others share its batch; for one picture alone they are torchvision's. (torchvision divides by
the counts of all pictures of the process instead, so that its loss depends on the split.)

Everywhere, values of several pictures lie behind each other, and ``counts`` says how many belong
to each. A picture with none gets zero, still connected to the graph. No pictures: shape (0,),
connected too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMOOTH_L1_BETA = 1 / 9
"""Where the box loss turns from square to linear; torchvision's value."""


def objectness_losses(logits: Tensor, targets: Tensor, counts: Sequence[int]) -> Tensor:
    """RPN classification: mean binary cross-entropy of each picture's sampled anchors, (B,).

    ``logits`` and ``targets`` (1 object, 0 background) are (sum of counts,).
    """
    values = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _sums_over(values, counts, counts)


def class_losses(logits: Tensor, labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Final classification: mean cross-entropy of each picture's sampled boxes (RoIs), (B,).

    ``logits`` is (sum of counts, K + 1), ``labels`` (sum of counts,) with 0 for background.
    """
    values = F.cross_entropy(logits, labels, reduction="none")
    return _sums_over(values, counts, counts)


def box_losses(
    deltas: Tensor, targets: Tensor, positive_counts: Sequence[int], counts: Sequence[int]
) -> Tensor:
    """Box regression of either stage: smooth L1 summed over positives / all sampled, (B,).

    ``deltas`` and ``targets`` are (sum of positive_counts, 4), encoded boxes.
    """
    values = F.smooth_l1_loss(deltas, targets, beta=SMOOTH_L1_BETA, reduction="none").sum(dim=1)
    return _sums_over(values, positive_counts, counts)


def _sums_over(values: Tensor, lengths: Sequence[int], divisors: Sequence[int]) -> Tensor:
    if not lengths:
        return values
    parts = torch.split(values, list(lengths))
    return torch.stack([part.sum() / max(n, 1) for part, n in zip(parts, divisors, strict=True)])
