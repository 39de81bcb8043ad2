"""The detector cut into segments: what is dropped and computed again as one piece.

Of a segment only its inputs are kept. Small segments (``blocks``) keep more of them; large ones
(``stages``) hold more at a time while one is computed again. Both compute the forward pass once
more, so they cost the same time; which of the two needs less memory depends on the network.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

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


def segments(detector: nn.Module, mode: Mode) -> list[Segment]:
    """The pieces that train, from the picture on; none with mode ``none``.

    Stem · each residual block, or each residual stage · the pyramid as a whole · the RPN head on
    each level (which keeps nothing with ``model.rpn.gradient=sampled``) · ROIAlign with the second
    stage. Of a detector of the user's own: what its
    ``recompute_parts`` gives, else the residual blocks, or stages, of torchvision that it has.
    """
    if mode == "none":
        return []
    found = _all(detector, mode) if isinstance(detector, Detector) else _of_own(detector, mode)
    return [segment for segment in found if segment.trains]


def _of_own(detector: nn.Module, mode: Mode) -> Iterator[Segment]:
    parts = getattr(detector, "recompute_parts", None)
    if parts is not None:
        yield from map(_whole, parts(mode))
        return
    for module in detector.modules():
        inside = list(module) if isinstance(module, nn.Sequential) else []
        stage = bool(inside) and all(map(_is_block, inside))
        if stage if mode == "stages" else _is_block(module):
            yield _whole(module)


def _is_block(module: nn.Module) -> bool:
    return isinstance(module, BasicBlock | Bottleneck)


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
