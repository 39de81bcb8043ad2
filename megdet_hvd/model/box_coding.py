"""Boxes as offsets from other boxes, and back: what the box branches learn.

Of a box with centre c and sides s, against one with centre c₀ and sides s₀ (Girshick et al. 2014,
appendix C):  t = w·(c − c₀)/s₀,  u = v·log(s/s₀).  torchvision's coder, value for value; but its
constants are numbers, where torchvision copies them to the device each time and waits for that.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = math.log(1000 / 16)
"""Most that u/v may be when it is decoded; torchvision's value."""


@dataclass(frozen=True)
class BoxCoder:
    """Encodes and decodes with the scales of one stage."""

    centre: float
    """w, of the offsets of centres."""
    sides: float
    """v, of the logarithms of sides."""

    def encode(self, boxes: Tensor, against: Tensor) -> Tensor:
        """(n, 4) offsets of ``boxes`` from ``against``, (n, 4) each, x1 y1 x2 y2."""
        centre, sides = _centre_and_sides(boxes)
        from_centre, from_sides = _centre_and_sides(against)
        offsets = self.centre * (centre - from_centre) / from_sides
        return torch.cat((offsets, self.sides * torch.log(sides / from_sides)), dim=1)

    def decode(self, offsets: Tensor, against: Tensor) -> Tensor:
        """Boxes (n, 4·K) from ``offsets`` (n, 4·K): K boxes for each of ``against`` (n, 4)."""
        from_centre, from_sides = (
            part[:, None] for part in _centre_and_sides(against.to(offsets.dtype))
        )
        own = offsets.unflatten(1, (-1, 4))
        centre = own[..., :2] / self.centre * from_sides + from_centre
        sides = torch.exp((own[..., 2:] / self.sides).clamp(max=LARGEST)) * from_sides
        half = 0.5 * sides
        return torch.cat((centre - half, centre + half), dim=2).flatten(1)


def _centre_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 2) each, x and y."""
    corner, opposite = boxes[:, :2], boxes[:, 2:]
    sides = opposite - corner
    return corner + 0.5 * sides, sides
