"""Tensor sizes of a detector, counted from its configuration: no torch, and nothing guessed.

The sums follow torchvision's ResNet, FeaturePyramidNetwork, RPNHead, TwoMLPHead or
FastRCNNConvFCHead, and FastRCNNPredictor, as megdet_hvd/model puts them together; a test counts the
real model's.
"""

import math
from dataclasses import dataclass

from megdet_hvd.config.schema import ModelConfig

_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
POOLED = 7
HEAD_CONVOLUTIONS = 4
_STAGES = 5


@dataclass(frozen=True)
class BnLayer:
    """A layer that takes batch statistics."""

    channels: int
    stride: float
    """Pixels of the canvas for one of its pixels, a side; 0: it works on boxes, not on pixels."""

    def elements(self, pixels: float, boxes: int) -> float:
        """Values that it normalises for an image of ``pixels`` with ``boxes`` sampled boxes."""
        if not self.stride:
            return self.channels * boxes * POOLED**2
        return self.channels * pixels / self.stride**2


@dataclass(frozen=True)
class Tensors:
    """What a model sends, and holds."""

    trained: int
    """Parameters with a gradient."""
    held: int
    """All parameters, those of frozen convolutions too."""
    bn_layers: tuple[BnLayer, ...]
    """Those that take statistics in training: none with frozen BN."""

    @property
    def gradient_bytes(self) -> int:
        """In float32."""
        return 4 * self.trained


def count_tensors(model: ModelConfig, num_classes: int) -> Tensors:
    """Of the detector that ``model`` describes, for ``num_classes`` classes without background."""
    norm = model.norm
    affine = 2 if norm in ("bn", "cgbn") else 0
    takes = norm in ("bn", "cgbn")
    stages = residual_stages(model.backbone)
    trained = held = 0
    layers: list[BnLayer] = []
    for number, stage in enumerate(stages, 1):
        size = sum(stage.weights)
        if number > model.frozen_stages:
            size += affine * sum(layer.channels for layer in stage.norms)
            trained += size
            layers += stage.norms if takes else ()
        held += size
    for size, norms in (_pyramid(model, stages, affine), _heads(model, num_classes, affine)):
        held += size
        trained += size
        layers += norms if takes else ()
    return Tensors(trained, held, tuple(layers))


@dataclass(frozen=True)
class ResidualStage:
    """The stem, or a stage of residual blocks."""

    weights: tuple[int, ...]
    """Of each convolution."""
    norms: tuple[BnLayer, ...]
    """Behind each of them, in the same order."""
    channels: int
    """That leave it."""


def residual_stages(backbone: str) -> list[ResidualStage]:
    """The stem and four residual stages."""
    bottleneck = backbone != "resnet18"
    expansion = 4 if bottleneck else 1
    stages = [ResidualStage((3 * 64 * 49,), (BnLayer(64, 2),), 64)]
    before = 64
    for number, blocks in enumerate(_BLOCKS[backbone]):
        width, stride = 64 * 2**number, 4 * 2**number
        out = width * expansion
        weights: list[int] = []
        norms: list[BnLayer] = []
        for block in range(blocks):
            halves = block == 0 and number > 0
            first = stride / 2 if halves else stride  # a bottleneck's 3×3 convolution strides
            if bottleneck:
                weights += [before * width, width * width * 9, width * out]
                norms += [BnLayer(width, first), BnLayer(width, stride), BnLayer(out, stride)]
            else:
                weights += [before * width * 9, width * width * 9]
                norms += [BnLayer(width, stride), BnLayer(width, stride)]
            if block == 0 and (halves or before != out):
                weights.append(before * out)
                norms.append(BnLayer(out, stride))
            before = out
        stages.append(ResidualStage(tuple(weights), tuple(norms), out))
    assert len(stages) == _STAGES
    return stages


def _pyramid(
    model: ModelConfig, stages: list[ResidualStage], affine: int
) -> tuple[int, tuple[BnLayer, ...]]:
    """A 1×1 and a 3×3 convolution a level; with a norm they have no bias."""
    channels = model.fpn_channels
    normed = model.fpn_norm == "same" and model.norm != "none"
    each = (affine if normed else 1) * channels
    size, norms = 0, []
    for number, stage in enumerate(stages[1:]):
        size += stage.channels * channels + channels * channels * 9 + 2 * each
        norms += [BnLayer(channels, 4 * 2**number)] * 2
    return size, tuple(norms) if normed else ()


def _heads(model: ModelConfig, num_classes: int, affine: int) -> tuple[int, tuple[BnLayer, ...]]:
    """RPN head, box head and predictor."""
    channels, width = model.fpn_channels, model.roi.width
    anchors = len(model.anchor_ratios)
    convolution = channels * channels * 9
    size = model.rpn.conv_depth * (convolution + channels) + 5 * anchors * (channels + 1)
    pooled = channels * POOLED**2
    norms: tuple[BnLayer, ...] = ()
    if model.roi.head == "mlp":
        size += pooled * width + width + width * width + width
    else:
        normed = model.roi.norm == "same" and model.norm != "none"
        each = (affine if normed else 1) * channels
        size += HEAD_CONVOLUTIONS * (convolution + each) + pooled * width + width
        norms = (BnLayer(channels, 0),) * (HEAD_CONVOLUTIONS if normed else 0)
    size += (width + 1) * (num_classes + 1) * 5
    return size, norms


MASK_HEAD = 4 * (256 * 256 * 9 + 256) + (256 * 256 * 4 + 256) + (256 * 81 + 81)
"""Parameters that Mask R-CNN has beyond Faster R-CNN: four convolutions, one transposed, one 1×1
(torchvision's MaskRCNNHeads and MaskRCNNPredictor, 80 classes). For published runs."""


def bn_message_bytes(layer: BnLayer) -> tuple[int, int]:
    """Forward: count, mean and squares in doubles, 2C + 1. Backward: two sums, 2C."""
    return 8 * (2 * layer.channels + 1), 8 * 2 * layer.channels


def bn_elements(tensors: Tensors, pixels: float, boxes: int) -> float:
    """Values that all BN layers normalise for one image."""
    return math.fsum(layer.elements(pixels, boxes) for layer in tensors.bn_layers)
