"""The four parts of l(x_i, w) of eq. (1), one value per picture.

Each picture's losses are normalised by counts of that picture alone, so they don't depend on
which others share its batch; for one picture alone they are torchvision's. (torchvision divides by
the counts of all pictures of the process instead, so that its loss depends on the split.)

Everywhere, values of several pictures lie behind each other, and ``samples`` says which belong
to each, and which count. A picture with none gets zero, still connected to the graph. No pictures:
shape (0,), connected too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from megdet_hvd.model.sampling import Samples

SMOOTH_L1_BETA = 1 / 9
"""Where the box loss turns from square to linear; torchvision's value."""


def objectness_losses(logits: Tensor, targets: Tensor, samples: Samples) -> Tensor:
    """RPN classification: mean binary cross-entropy of each picture's sampled anchors, (B,).

    ``logits`` and ``targets`` (1 object, 0 background) have a value for each place of ``samples``.
    """
    values = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return _means_over(values, samples.places, samples.taken, samples.divisors)


def class_losses(logits: Tensor, labels: Tensor, samples: Samples) -> Tensor:
    """Final classification: mean cross-entropy of each picture's sampled boxes (RoIs), (B,).

    ``logits`` (n, K + 1) and ``labels`` (n,), 0 for background, have a row for each place of
    ``samples``.
    """
    values = F.cross_entropy(logits, labels, reduction="none")
    return _means_over(values, samples.places, samples.taken, samples.divisors)


def box_losses(deltas: Tensor, targets: Tensor, samples: Samples) -> Tensor:
    """Box regression of either stage: smooth L1 summed over positives / all sampled, (B,).

    ``deltas`` and ``targets``, encoded boxes, have a row for each positive place of ``samples``.
    """
    values = F.smooth_l1_loss(deltas, targets, beta=SMOOTH_L1_BETA, reduction="none").sum(dim=1)
    return _means_over(values, samples.positive_places, samples.positive, samples.divisors)


def _means_over(
    values: Tensor, lengths: Sequence[int], counted: Tensor | None, divisors: Sequence[int] | Tensor
) -> Tensor:
    """Sums over parts of ``lengths``, each by its divisor; of what is ``counted`` only."""
    if not lengths:
        return values
    if counted is not None:
        values = torch.where(counted, values, 0)
    parts = [part.sum() for part in torch.split(values, list(lengths))]
    if isinstance(divisors, Tensor):
        return torch.stack(parts) / divisors
    return torch.stack([part / n for part, n in zip(parts, divisors, strict=True)])
