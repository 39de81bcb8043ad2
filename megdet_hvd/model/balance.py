"""How many of the anchors and boxes drawn for the loss are objects, picture by picture.

The third complaint about small batches in MegDet's introduction: positives and negatives are
unbalanced, more so in one picture than in another, and few pictures do not even that out. The
share of positives in each picture, and its spread over the batch, show by how much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from megdet_hvd.model.sampling import Samples


class Drawn(NamedTuple):
    """What one stage drew for the loss of one picture."""

    positives: int
    """Anchors or boxes on an object."""
    all: int
    """With those on the background; 0 where there was nothing to draw from."""

    @property
    def foreground(self) -> float:
        """Share of positives, 0…1; 0 where nothing was drawn."""
        return self.positives / self.all if self.all else 0.0


@dataclass(frozen=True)
class SampleBalance:
    """Both stages, one entry per picture; empty for a batch without pictures.

    Where the counts are a GPU's they are (B, 2) int64, positives and all: to look at them is to
    wait for it.
    """

    rpn: tuple[Drawn, ...] | Tensor = ()
    """Anchors of the first stage."""
    box: tuple[Drawn, ...] | Tensor = ()
    """Boxes (RoIs) of the second."""


def balance_of(samples: Samples) -> tuple[Drawn, ...] | Tensor:
    """One stage's entries, from what it drew."""
    if samples.counts is not None:
        return samples.counts
    return drawn(samples.positive_places, samples.places)


def drawn(positives: Sequence[int], all_drawn: Sequence[int]) -> tuple[Drawn, ...]:
    """One entry for each picture, from the counts of all of them."""
    return tuple(Drawn(p, n) for p, n in zip(positives, all_drawn, strict=True))


def foreground_shares(stage: tuple[Drawn, ...] | Tensor) -> Sequence[float | Tensor]:
    """Share of positives in each picture; () float64 each where the counts are a GPU's."""
    if isinstance(stage, Tensor):
        return (stage[:, 0].double() / stage[:, 1].clamp(min=1)).unbind()
    return [one.foreground for one in stage]
