"""Multiply-adds of a detector, counted from its configuration: what a timed step is scaled by.

A profile's step is of one backbone, head and size of picture; another one's time is taken to grow
with the multiply-adds of its convolutions and linear layers. ResNet-101 to ResNet-50 so comes to
1.40, and was measured as 1.37 (0.286 to 0.209 s, facebookresearch/detectron2 MODEL_ZOO.md, Faster
R-CNN FPN 3x).
"""

from dataclasses import dataclass

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.plan.tensors import HEAD_CONVOLUTIONS, POOLED, residual_stages

RPN_STRIDES = (4, 8, 16, 32, 64)
"""Pixels of the picture for one of P2 … P6, a side."""


@dataclass(frozen=True)
class Work:
    """Of one image."""

    forward: float
    """Multiply-adds of a forward pass."""
    backward: float
    """A trained layer's products for the gradients of its input and of its weights: as many each
    as forward. A frozen stage has none."""

    @property
    def step(self) -> float:
        """Of a training step."""
        return self.forward + self.backward


def count_work(model: ModelConfig, pixels: float, num_classes: int, boxes: int) -> Work:
    """Of the detector that ``model`` describes, for an image of ``pixels`` with ``boxes`` boxes."""
    stages = residual_stages(model.backbone)
    each = [
        sum(size * pixels / n.stride**2 for size, n in zip(s.weights, s.norms, strict=True))
        for s in stages
    ]
    rest = _pyramid(model, [stage.channels for stage in stages[1:]], pixels)
    rest += _rpn_head(model, pixels) + boxes * _box_head(model, num_classes)
    return Work(sum(each) + rest, 2 * (sum(each[model.frozen_stages :]) + rest))


def _pyramid(model: ModelConfig, widths: list[int], pixels: float) -> float:
    """A 1×1 and a 3×3 convolution a level."""
    channels = model.fpn_channels
    return sum(
        (width + 9 * channels) * channels * pixels / stride**2
        for width, stride in zip(widths, RPN_STRIDES, strict=False)
    )


def _rpn_head(model: ModelConfig, pixels: float) -> float:
    channels = model.fpn_channels
    position = 9 * channels**2 * model.rpn.conv_depth + 5 * len(model.anchor_ratios) * channels
    return sum(position * pixels / stride**2 for stride in RPN_STRIDES)


def _box_head(model: ModelConfig, num_classes: int) -> float:
    """Of one box: a linear layer with or without another, or convolutions and one; predictors."""
    channels, width, cells = model.fpn_channels, model.roi.width, POOLED**2
    first = channels * cells * width
    convolutions = HEAD_CONVOLUTIONS * 9 * channels**2 * cells
    inner = width**2 if model.roi.head == "mlp" else convolutions
    return first + inner + width * 5 * (num_classes + 1)
