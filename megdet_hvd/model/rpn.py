"""The region proposal network: feature pyramid to proposals, and its two losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import box_iou

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Target
from megdet_hvd.errors import UserError
from megdet_hvd.model.balance import Drawn, balance_of
from megdet_hvd.model.box_coding import BoxCoder
from megdet_hvd.model.kernels import KernelChoice
from megdet_hvd.model.losses import box_losses, objectness_losses
from megdet_hvd.model.matching import IGNORED, match_boxes
from megdet_hvd.model.precision import at_least_float32
from megdet_hvd.model.proposals import Proposals, select_proposals
from megdet_hvd.model.rpn_sampled import outputs_of_anchors
from megdet_hvd.model.sampling import OUT_OF_PLAY, Sample, Sampler, Samples


@dataclass(frozen=True)
class RpnOutputs:
    """What the RPN says about B pictures. A counts the anchors of all levels."""

    anchors: Tensor
    """(A, 4), the same for every picture of the canvas."""
    anchors_per_level: tuple[int, ...]
    """How the A anchors divide over P2…P6."""
    logits: Tensor
    """(B, A) objectness."""
    deltas: Tensor
    """(B, A, 4) boxes encoded against the anchors."""
    levels: tuple[Tensor, ...]
    """The pyramid that they are of."""


def build_anchors(config: ModelConfig) -> AnchorGenerator:
    """The anchors of torchvision: one size a level, all ratios."""
    sizes = tuple((float(size),) for size in config.anchor_sizes)
    generator = AnchorGenerator(sizes, (tuple(config.anchor_ratios),) * len(sizes))
    for size, cells in zip(config.anchor_sizes, generator.cell_anchors, strict=True):
        if bool((cells[:, 2:] <= cells[:, :2]).any()):
            raise UserError(
                f"model.anchor_sizes: {size} with model.anchor_ratios={config.anchor_ratios} "
                "gives an anchor without area, since corners are rounded to whole pixels; "
                "use larger sizes"
            )
    return generator


class RegionProposals(nn.Module):
    """Faster R-CNN's first stage, with torchvision's keys (``rpn.head.*``)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.rpn
        deep = config.rpn.conv_depth > 1  # an anchor then sees more than 3×3 pixels
        setting = "dense" if deep else config.rpn.gradient
        self.choice = KernelChoice("rpn_gradient", setting=setting, new="sampled")
        self.anchor_generator = build_anchors(config)
        self.head = RPNHead(
            config.fpn_channels, len(config.anchor_ratios), conv_depth=config.rpn.conv_depth
        )
        self.box_coder = BoxCoder(centre=1.0, sides=1.0)

    def forward(self, features: Mapping[str, Tensor], canvas: tuple[int, int]) -> RpnOutputs:
        """Objectness and boxes of every anchor.

        Args:
            features: P2…P6, (B, C, H_k, W_k).
            canvas: its height and width, pixels. The anchor grid covers all of it, padding too.
        """
        levels = list(features.values())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._sampled):
            # One call a level, so that a level's activations can be dropped and recomputed alone.
            logits, deltas = zip(*(self._head(level) for level in levels), strict=True)
        ratios = logits[0].shape[1]
        anchors = self._anchors([tuple(level.shape[-2:]) for level in levels], canvas, logits[0])
        return RpnOutputs(
            anchors=torch.cat(anchors),
            anchors_per_level=tuple(len(a) for a in anchors),
            logits=at_least_float32(
                torch.cat([_anchors_last(x, ratios, 1).squeeze(2) for x in logits], dim=1)
            ),
            deltas=at_least_float32(
                torch.cat([_anchors_last(x, ratios, 4) for x in deltas], dim=1)
            ),
            levels=tuple(levels),
        )

    @property
    def _sampled(self) -> bool:
        """Whether gradients go through the head at the sampled anchors alone."""
        return self.choice.kernel == "sampled"

    def _head(self, level: Tensor) -> tuple[Tensor, Tensor]:
        logits, deltas = self.head([level])
        return logits[0], deltas[0]

    def _anchors(
        self, grids: Sequence[tuple[int, ...]], canvas: tuple[int, int], like: Tensor
    ) -> list[Tensor]:
        # In float32 even under mixed precision: bfloat16 has no odd numbers above 256.
        dtype = at_least_float32(like[:0]).dtype
        strides = [
            [side // cells for side, cells in zip(canvas, grid, strict=True)] for grid in grids
        ]
        self.anchor_generator.set_cell_anchors(dtype, like.device)
        anchors: list[Tensor] = self.anchor_generator.grid_anchors(grids, strides)
        return anchors

    def propose(self, outputs: RpnOutputs, sizes: Sequence[tuple[int, int]]) -> list[Proposals]:
        """Of each picture, clipped to its ``sizes`` (height, width)."""
        config = self.config
        return [
            select_proposals(
                outputs.anchors,
                outputs.logits[i].detach(),
                outputs.deltas[i].detach(),
                outputs.anchors_per_level,
                size,
                self.box_coder,
                pre_nms=config.pre_nms_train if self.training else config.pre_nms_test,
                post_nms=config.post_nms_train if self.training else config.post_nms_test,
                nms_iou=config.nms_iou,
            )
            for i, size in enumerate(sizes)
        ]

    def losses(
        self,
        outputs: RpnOutputs,
        targets: Sequence[Target],
        seeds: Sequence[int],
        sampler: Sampler,
    ) -> tuple[Tensor, Tensor, tuple[Drawn, ...] | Tensor]:
        """Classification and box loss of each picture, (B,) both, and what was drawn for them.

        ``seeds``: each picture's draw key for its sample of anchors, which ``sampler`` draws.
        """
        anchors, config = outputs.anchors, self.config
        drawn, chosen, truth, chosen_positives, box_targets = [], [], [], [], []
        for i, (target, seed) in enumerate(zip(targets, seeds, strict=True)):
            boxes = target.boxes.to(anchors.dtype)
            labels, matched = self._label(anchors, boxes)
            fraction = config.positive_fraction if len(boxes) else 0.0
            exact = anchors.is_cpu
            sample = sampler(labels, config.anchors_per_image, fraction, seed, exact=exact)
            drawn.append(sample)
            chosen.append(sample.index + i * len(anchors))
            truth.append(labels[sample.index])
            chosen_positives.append(sample.positives + i * len(anchors))
            box_targets.append(encode_positives(self.box_coder, boxes, matched, anchors, sample))
        samples = Samples(drawn)
        empty = anchors.new_zeros(0, dtype=torch.int64)
        every, every_positive = torch.cat([empty, *chosen]), torch.cat([empty, *chosen_positives])
        if self._sampled:
            logits, deltas = outputs_of_anchors(
                self.head, outputs.levels, every // len(anchors), every % len(anchors)
            )
            logits, deltas = at_least_float32(logits), at_least_float32(deltas)
            deltas = deltas[samples.positive_rows(deltas.device)]
        else:
            logits = outputs.logits.flatten()[every]
            deltas = outputs.deltas.flatten(0, 1)[every_positive]
        return (
            objectness_losses(logits, torch.cat([empty, *truth]).to(logits.dtype), samples),
            box_losses(deltas, torch.cat([anchors[:0], *box_targets]), samples),
            balance_of(samples),
        )

    def _label(self, anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Of every anchor: 1 object, 0 background or OUT_OF_PLAY; and the index of its box."""
        if len(boxes) == 0:
            nothing = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
            return nothing, nothing
        matched = match_boxes(
            box_iou(boxes, anchors),
            background=self.config.background_iou,
            foreground=self.config.foreground_iou,
            keep_best=True,
        )
        labels = (matched >= 0).to(torch.int64).masked_fill(matched == IGNORED, OUT_OF_PLAY)
        return labels, matched


def encode_positives(
    coder: BoxCoder, boxes: Tensor, matched: Tensor, candidates: Tensor, sample: Sample
) -> Tensor:
    """(positive places, 4): the box of each positive drawn, against itself; 0 where none was.

    ``boxes`` (n, 4) are the picture's, ``matched`` (m,) says which of them each of ``candidates``
    (m, 4) belongs to.
    """
    positives = sample.positives
    if sample.positive is None:
        return coder.encode(boxes[matched[positives]], candidates[positives])
    if not sample.positive_places:
        return candidates[:0]
    own = boxes[matched[positives].clamp(min=0)]
    return torch.where(sample.positive[:, None], coder.encode(own, candidates[positives]), 0)


def _anchors_last(level: Tensor, ratios: int, values: int) -> Tensor:
    """(B, ratios·values, H, W) to (B, H·W·ratios, values), the order of the anchors."""
    batch, _, height, width = level.shape
    level = level.reshape(batch, ratios, values, height, width).permute(0, 3, 4, 1, 2)
    return level.reshape(batch, height * width * ratios, values)
