"""The second stage: ROIAlign, box head, final classification and boxes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, remove_small_boxes

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Detections, Target
from megdet_hvd.image_rows import rows_per_image
from megdet_hvd.model.backbone import LEVELS
from megdet_hvd.model.balance import Drawn, balance_of
from megdet_hvd.model.box_coding import BoxCoder
from megdet_hvd.model.draw_versions import Draw
from megdet_hvd.model.linear import replace_linears
from megdet_hvd.model.losses import box_losses, class_losses
from megdet_hvd.model.matching import BACKGROUND, match_boxes
from megdet_hvd.model.norm import NormFactory
from megdet_hvd.model.precision import at_least_float32
from megdet_hvd.model.proposals import Proposals
from megdet_hvd.model.roi_align import POOLED_SIDE, RoiAlign
from megdet_hvd.model.rpn import encode_positives
from megdet_hvd.model.sampling import OUT_OF_PLAY, Sample, Samples

HEAD_CONVOLUTIONS = 4
"""3×3 convolutions of the ``conv`` head, each ``fpn_channels`` wide."""
CODER = BoxCoder(centre=10.0, sides=5.0)
"""Scales of the encoded boxes of this stage; torchvision's values."""
SMALLEST_SIDE = 1e-2
"""Detections with a shorter side, pixels, are dropped; torchvision's value."""


def build_box_head(config: ModelConfig, norm: NormFactory | None) -> nn.Module:
    """(n, fpn_channels, 7, 7) to (n, roi.width)."""
    channels, width = config.fpn_channels, config.roi.width
    head: nn.Module
    if config.roi.head == "mlp":
        head = TwoMLPHead(channels * POOLED_SIDE**2, width)
    else:
        head = FastRCNNConvFCHead(
            (channels, POOLED_SIDE, POOLED_SIDE),
            [channels] * HEAD_CONVOLUTIONS,
            [width],
            norm_layer=norm,
        )
    return head


class _Drawn(NamedTuple):
    """One picture's boxes for the loss, a row for each place of the sample."""

    sample: Sample
    rois: Tensor
    """(k, 4)."""
    labels: Tensor
    """(k,), 0 for background."""
    box_targets: Tensor
    """(positive places, 4), encoded."""


class RoiHeads(nn.Module):
    """Faster R-CNN's second stage, with torchvision's keys (``roi_heads.*``)."""

    def __init__(self, config: ModelConfig, num_classes: int, norm: NormFactory | None) -> None:
        super().__init__()
        self.config = config.roi
        self.box_roi_pool = RoiAlign(config.roi.align)
        self.box_head = build_box_head(config, norm)
        replace_linears(self.box_head, config.roi.linear)
        self.box_predictor = FastRCNNPredictor(config.roi.width, num_classes + 1)
        self.box_coder = CODER

    def forward(
        self, features: Mapping[str, Tensor], rois: Sequence[Tensor], canvas: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Class logits (n, K + 1) and encoded boxes (n, (K + 1)·4) of all n boxes together.

        Args:
            features: P2…P6, (B, C, H_k, W_k).
            rois: (n_i, 4) boxes of each picture. n may be 0, and B too: every layer runs.
            canvas: its height and width. It alone sets the scale of the levels; torchvision infers
                that from the batch's largest picture, which is another one on another process.
        """
        boxes = list(rois) or [features[LEVELS[0]].new_zeros(0, 4)]
        pooled = self.box_roi_pool(dict(features), boxes, canvas)
        with rows_per_image([len(own) for own in rois]):
            hidden = self.box_head(pooled)
        logits, deltas = self.box_predictor(hidden)
        return at_least_float32(logits), at_least_float32(deltas)

    def losses(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Proposals],
        targets: Sequence[Target],
        seeds: Sequence[int],
        canvas: tuple[int, int],
        draw: Draw,
    ) -> tuple[Tensor, Tensor, tuple[Drawn, ...] | Tensor]:
        """Classification and box loss of each picture, (B,) both, and what was drawn for them.

        ``seeds``: each picture's draw key for its sample of boxes, as ``draw`` has it.
        Ground-truth boxes join the proposals, as in torchvision.
        """
        own = [self._sample(*one, draw) for one in zip(proposals, targets, seeds, strict=True)]
        samples = Samples([one.sample for one in own])
        logits, deltas = self(features, [one.rois for one in own], canvas)
        none = logits.new_zeros(0, dtype=torch.int64)
        labels = torch.cat([none, *(one.labels for one in own)])
        box_targets = torch.cat([logits.new_zeros(0, 4), *(one.box_targets for one in own)])
        positives = samples.positive_rows(labels.device)
        own_class = deltas.view(len(labels), logits.shape[1], 4)[positives, labels[positives]]
        return (
            class_losses(logits, labels, samples),
            box_losses(own_class, box_targets, samples),
            balance_of(samples),
        )

    def _sample(self, proposals: Proposals, target: Target, seed: int, draw: Draw) -> "_Drawn":
        """One picture's boxes for the loss."""
        truth = target.boxes.to(proposals.boxes.dtype)
        proposed = slice(len(truth) if draw.truth_first else 0, None)
        both = (truth, proposals.boxes) if draw.truth_first else (proposals.boxes, truth)
        candidates = torch.cat(both)
        if len(truth) == 0:
            matched = torch.full_like(candidates[:, 0], BACKGROUND, dtype=torch.int64)
            labels = torch.zeros_like(matched)
        else:
            matched = match_boxes(
                box_iou(truth, candidates),
                background=self.config.foreground_iou,
                foreground=self.config.foreground_iou,
                keep_best=False,
            )
            labels = target.labels[matched.clamp(min=0)].masked_fill(matched == BACKGROUND, 0)
        if proposals.valid is not None:
            own = labels[proposed][: len(proposals.valid)]
            own.masked_fill_(~proposals.valid, OUT_OF_PLAY)
        sample = draw.sampler(
            labels,
            self.config.boxes_per_image,
            self.config.positive_fraction if len(truth) else 0.0,
            seed,
            exact=candidates.is_cpu or self._normalises_over_boxes(),
        )
        own_labels = labels[sample.index]
        return _Drawn(
            sample,
            candidates[sample.index],
            own_labels if sample.taken is None else own_labels.clamp(min=0),
            encode_positives(self.box_coder, truth, matched, candidates, sample),
        )

    def _normalises_over_boxes(self) -> bool:
        """Whether BN layers of the head would take places without a box into their statistics."""
        kinds = nn.modules.batchnorm._BatchNorm
        return any(isinstance(layer, kinds) for layer in self.box_head.modules())

    def detect(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        sizes: Sequence[tuple[int, int]],
        canvas: tuple[int, int],
    ) -> list[Detections]:
        """Final boxes of each picture, in pixels of the canvas, clipped to its size."""
        logits, deltas = self(features, proposals, canvas)
        counts = [len(own) for own in proposals]
        scores = torch.split(F.softmax(logits, dim=-1), counts)
        return [
            self._detect_one(own, own_scores, own_deltas, size)
            for own, own_scores, own_deltas, size in zip(
                proposals, scores, torch.split(deltas, counts), sizes, strict=True
            )
        ]

    def _detect_one(
        self, proposals: Tensor, scores: Tensor, deltas: Tensor, size: tuple[int, int]
    ) -> Detections:
        classes = scores.shape[1]
        boxes = self.box_coder.decode(deltas, proposals).view(-1, classes, 4)
        boxes = clip_boxes_to_image(boxes, size)[:, 1:].reshape(-1, 4)
        labels = torch.arange(1, classes, device=scores.device).repeat(len(proposals))
        flat = scores[:, 1:].reshape(-1)
        likely = torch.where(flat > self.config.score_threshold)[0]
        boxes, flat, labels = boxes[likely], flat[likely], labels[likely]
        large = remove_small_boxes(boxes, SMALLEST_SIDE)
        boxes, flat, labels = boxes[large], flat[large], labels[large]
        kept = batched_nms(boxes, flat, labels, self.config.nms_iou)
        kept = kept[: self.config.detections_per_image]
        return Detections(boxes[kept], flat[kept], labels[kept])
