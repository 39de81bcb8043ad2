"""The second stage: ROIAlign, box head, final classification and boxes."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.ops import (
    MultiScaleRoIAlign,
    batched_nms,
    box_iou,
    clip_boxes_to_image,
    remove_small_boxes,
)

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Detections, Target
from megdet_hvd.image_rows import rows_per_image
from megdet_hvd.model.backbone import LEVELS
from megdet_hvd.model.balance import Drawn, drawn
from megdet_hvd.model.losses import box_losses, class_losses
from megdet_hvd.model.matching import BACKGROUND, match_boxes
from megdet_hvd.model.norm import NormFactory
from megdet_hvd.model.precision import at_least_float32
from megdet_hvd.model.sampling import sample_balanced

POOLED_SIDE = 7
"""ROIAlign gives 7×7 cells a box."""
HEAD_CONVOLUTIONS = 4
"""3×3 convolutions of the ``conv`` head, each ``fpn_channels`` wide."""
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Scale of the encoded x, y, w, h of this stage; torchvision's values."""
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


class RoiHeads(nn.Module):
    """Faster R-CNN's second stage, with torchvision's keys (``roi_heads.*``)."""

    def __init__(self, config: ModelConfig, num_classes: int, norm: NormFactory | None) -> None:
        super().__init__()
        self.config = config.roi
        self.box_roi_pool = MultiScaleRoIAlign(
            featmap_names=list(LEVELS[:4]), output_size=POOLED_SIDE, sampling_ratio=2
        )
        self.box_head = build_box_head(config, norm)
        self.box_predictor = FastRCNNPredictor(config.roi.width, num_classes + 1)
        self.box_coder = BoxCoder(weights=BOX_WEIGHTS)

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
        pooled = self.box_roi_pool(dict(features), boxes, [canvas])
        with rows_per_image([len(own) for own in rois]):
            hidden = self.box_head(pooled)
        logits, deltas = self.box_predictor(hidden)
        return at_least_float32(logits), at_least_float32(deltas)

    def losses(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        targets: Sequence[Target],
        seeds: Sequence[int],
        canvas: tuple[int, int],
    ) -> tuple[Tensor, Tensor, tuple[Drawn, ...]]:
        """Classification and box loss of each picture, (B,) both, and what was drawn for them.

        ``seeds``: each picture's draw key for its sample of boxes. Ground-truth boxes join the
        proposals, as in torchvision.
        """
        samples = [
            self._sample(own, target, seed)
            for own, target, seed in zip(proposals, targets, seeds, strict=True)
        ]
        rois = [roi for roi, _, _ in samples]
        logits, deltas = self(features, rois, canvas)
        none = logits.new_zeros(0, dtype=torch.int64)
        labels = torch.cat([none, *(label for _, label, _ in samples)])
        box_targets = torch.cat([logits.new_zeros(0, 4), *(boxes for _, _, boxes in samples)])
        positives = torch.where(labels > 0)[0]
        own_class = deltas.view(len(labels), logits.shape[1], 4)[positives, labels[positives]]
        counts = [len(roi) for roi in rois]
        positive_counts = [len(boxes) for _, _, boxes in samples]
        return (
            class_losses(logits, labels, counts),
            box_losses(own_class, box_targets, positive_counts, counts),
            drawn(positive_counts, counts),
        )

    def _sample(
        self, proposals: Tensor, target: Target, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One picture's boxes for the loss, positives first; labels; positives' box targets."""
        truth = target.boxes.to(proposals.dtype)
        candidates = torch.cat((proposals, truth))
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
        positives, negatives = sample_balanced(
            labels, self.config.boxes_per_image, self.config.positive_fraction, seed
        )
        both = torch.cat((positives, negatives))
        box_targets = self.box_coder.encode_single(truth[matched[positives]], candidates[positives])
        return candidates[both], labels[both], box_targets

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
        boxes = self.box_coder.decode_single(deltas, proposals).view(-1, classes, 4)
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
