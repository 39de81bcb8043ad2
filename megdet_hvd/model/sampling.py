"""Which anchors and boxes enter the loss of one picture.

torchvision draws from the global generator of the process, so its choice depends on which
process has which pictures. Here the seed belongs to the picture (:mod:`megdet_hvd.draws`), and
the generator is the CPU's, so the choice is the same on any device and with any split.
"""

import torch
from torch import Tensor

OUT_OF_PLAY = -1
"""Label of a candidate that must not be drawn."""


def sample_balanced(
    labels: Tensor, number: int, positive_fraction: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Draw ``number`` of one picture's candidates, at most a share of them positive.

    Args:
        labels: (m,) int64: above 0 positive, 0 negative, OUT_OF_PLAY neither.
        number: how many to draw; fewer where there are fewer.
        positive_fraction: largest share of positives. Negatives fill up the rest.
        seed: a draw key of the picture.

    Returns:
        Indices of the positives and of the negatives drawn, each in rising order.
    """
    generator = torch.Generator().manual_seed(seed)
    positives = torch.where(labels > 0)[0]
    negatives = torch.where(labels == 0)[0]
    positive_count = min(int(number * positive_fraction), positives.numel())
    drawn_positives = _draw(positives, positive_count, generator)
    drawn_negatives = _draw(negatives, number - positive_count, generator)
    return drawn_positives, drawn_negatives


def _draw(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(candidates.numel(), generator=generator)[:count].sort().values
    return candidates[chosen.to(candidates.device)]
