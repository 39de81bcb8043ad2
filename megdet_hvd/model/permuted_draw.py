"""Draw version 1: a permutation by the CPU's generator. For runs that began with it.

On a GPU the host waits for the numbers of positives and negatives, and the permutation of some
hundred thousand anchors takes it 3 ms a picture.
"""

import torch
from torch import Tensor

from megdet_hvd.model.sampling import Sample


def sample_by_permutation(
    labels: Tensor, number: int, positive_fraction: float, seed: int, *, exact: bool = True
) -> Sample:
    """As :class:`megdet_hvd.model.sampling.Sampler`; ``exact`` always, rising order each."""
    generator = torch.Generator().manual_seed(seed)
    positives = torch.where(labels > 0)[0]
    negatives = torch.where(labels == 0)[0]
    positive_count = min(int(number * positive_fraction), positives.numel())
    drawn_positives = _draw(positives, positive_count, generator)
    drawn_negatives = _draw(negatives, number - positive_count, generator)
    return Sample(torch.cat((drawn_positives, drawn_negatives)), positive_count)


def _draw(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = torch.randperm(candidates.numel(), generator=generator)[:count].sort().values
    return candidates[chosen.to(candidates.device)]
