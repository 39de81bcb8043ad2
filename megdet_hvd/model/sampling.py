"""Which anchors and boxes enter the loss of one picture.

torchvision draws from the global generator of the process, so its choice depends on which
process has which pictures. Here the seed belongs to the picture (:mod:`megdet_hvd.draws`), and
the choice is the same on any device and with any split. How: :mod:`megdet_hvd.model.draw_versions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

OUT_OF_PLAY = -1
"""Label of a candidate that must not be drawn."""


@dataclass(frozen=True)
class Sample:
    """What was drawn of one picture's candidates, the positives first.

    How much there is to draw depends on labels, and to ask a GPU for it is to wait for it. So a
    sample may have places that nothing was drawn for: ``taken`` says which.
    """

    index: Tensor
    """(k,) int64, the candidates drawn; any candidate in a place that is not taken."""
    positive_places: int
    """Positives lie in the first so many places."""
    taken: Tensor | None = None
    """(k,) bool; None: all places are."""
    positive: Tensor | None = None
    """(positive_places,) bool, those with a positive; None: all of them."""

    @property
    def positives(self) -> Tensor:
        """(positive_places,) int64: the positives drawn."""
        return self.index[: self.positive_places]


@dataclass(frozen=True)
class Samples:
    """Those of B pictures, behind each other."""

    of: Sequence[Sample]

    @property
    def places(self) -> list[int]:
        """(B,) places of each."""
        return [len(sample.index) for sample in self.of]

    @property
    def positive_places(self) -> list[int]:
        """(B,) of them, how many may be positives'."""
        return [sample.positive_places for sample in self.of]

    def positive_rows(self, device: torch.device) -> Tensor:
        """(all positive places,) int64: which of all places they are."""
        starts = accumulate(self.places, initial=0)
        rows = [
            torch.arange(start, start + count, device=device)
            for start, count in zip(starts, self.positive_places, strict=False)
        ]
        return torch.cat([torch.zeros(0, dtype=torch.int64, device=device), *rows])

    @cached_property
    def taken(self) -> Tensor | None:
        """(all places,) bool; None: all are."""
        return _joined([sample.taken for sample in self.of])

    @cached_property
    def positive(self) -> Tensor | None:
        """(all positive places,) bool; None: all are."""
        return _joined([sample.positive for sample in self.of])

    @cached_property
    def counts(self) -> Tensor | None:
        """(B, 2) int64, positives drawn and all drawn, on the device; None: they are the places."""
        if self.taken is None or self.positive is None:
            return None
        return torch.stack(
            [
                part.sum()
                for pair in zip(
                    self.positive.split(self.positive_places),
                    self.taken.split(self.places),
                    strict=True,
                )
                for part in pair
            ]
        ).view(-1, 2)

    @property
    def divisors(self) -> Sequence[int] | Tensor:
        """(B,) how many were drawn of each picture, 1 where none were."""
        if self.counts is None:
            return [max(places, 1) for places in self.places]
        return self.counts[:, 1].clamp(min=1)


def _joined(masks: Sequence[Tensor | None]) -> Tensor | None:
    found = [mask for mask in masks if mask is not None]
    assert len(found) in (0, len(masks)), "pictures of one batch are drawn in one way"
    return torch.cat(found) if found else None


class Sampler(Protocol):
    """A way to draw."""

    def __call__(
        self, labels: Tensor, number: int, positive_fraction: float, seed: int, *, exact: bool
    ) -> Sample:
        """Draw ``number`` of one picture's candidates, at most a share of them positive.

        Args:
            labels: (m,) int64: above 0 positive, 0 negative, OUT_OF_PLAY neither.
            number: how many to draw; fewer where there are fewer.
            positive_fraction: largest share of positives. Negatives fill up the rest.
            seed: a draw key of the picture.
            exact: leave no place that is not taken. On a GPU the host then waits for it.
        """
        ...
