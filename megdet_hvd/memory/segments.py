"""The detector cut into segments: what is dropped and computed again as one piece.

Of a segment only its inputs are kept. Small segments (``blocks``) keep more of them; large ones
(``stages``) hold more at a time while one is computed again. Both compute the forward pass once
more, so they cost the same time; which of the two needs less memory depends on the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from megdet_hvd.model.backbone import RESIDUAL_STAGES
from megdet_hvd.model.detector import Detector

Mode = Literal["none", "blocks", "stages"]
MODES: tuple[Mode, ...] = ("none", "blocks", "stages")


@dataclass(frozen=True)
class Segment:
    """One piece: a method of a module, recomputed each time it is called."""

    owner: nn.Module
    """The module."""
    method: str
    """Its method; ``forward`` where the module as a whole is the piece."""
    parts: tuple[nn.Module, ...]
    """The modules it runs."""

    @property
    def trains(self) -> bool:
        """Whether any of its parameters does; a frozen piece keeps no activations anyway."""
        return any(p.requires_grad for part in self.parts for p in part.parameters())


def segments(detector: Detector, mode: Mode) -> list[Segment]:
    """The pieces that train, from the picture on; none with mode ``none``.

    Stem · each residual block, or each residual stage · the pyramid as a whole · the RPN head on
    each level · ROIAlign with the second stage.
    """
    if mode == "none":
        return []
    return [segment for segment in _all(detector, mode) if segment.trains]


def _all(detector: Detector, mode: Mode) -> Iterator[Segment]:
    body = detector.backbone.body
    yield Segment(body, "stem", (body["conv1"], body["bn1"]))
    for name in RESIDUAL_STAGES:
        for piece in body[name] if mode == "blocks" else (body[name],):
            yield _whole(piece)
    # As one piece: torch stops computing again at the last tensor it needs, which is the input of
    # the 3×3 convolution on P2, the largest, so that this one is never repeated.
    yield _whole(detector.backbone.fpn)
    yield _whole(detector.rpn.head)
    yield _whole(detector.roi_heads)


def _whole(module: nn.Module) -> Segment:
    return Segment(module, "forward", (module,))
