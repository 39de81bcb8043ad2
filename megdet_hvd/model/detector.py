"""The detector: a batch in; losses of each picture out, or detections."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import clip_boxes_to_image

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Batch, Detections, ImageInfo
from megdet_hvd.draws import draw_key
from megdet_hvd.model.balance import SampleBalance
from megdet_hvd.model.draw_versions import NEWEST_DRAW, draw_of
from megdet_hvd.model.kernels import KernelChoice
from megdet_hvd.model.normalise import normalise
from megdet_hvd.model.proposals import Proposals
from megdet_hvd.model.roi_heads import RoiHeads
from megdet_hvd.model.rpn import RegionProposals, RpnOutputs

LOSSES = ("rpn_class", "rpn_box", "class", "box")
"""The four parts of l(x_i, w), in the order of eq. (1)'s description."""
LARGEST_VECTOR = 16
"""Values of float32 in the CPU's largest vectors (AVX-512)."""


class Detector(nn.Module):
    """Faster R-CNN with a feature pyramid. Its state-dict keys are torchvision's.

    Training: ``detector(batch)`` gives a dict with the keys LOSSES, each (B,): the losses of each
    picture, normalised by counts of that picture alone. They depend neither on the other pictures
    nor on who computes them (BN statistics aside). Gradient averaging over uneven processes is the
    caller's: multiply the sum by ranks / images of the global batch.

    Evaluation: ``detector(batch)`` gives a list of Detections, in pixels of the original pictures.

    B = 0 works in both. In training every layer then runs on empty tensors, and a backward of the
    summed losses gives every trainable parameter a gradient of zeros: a process without pictures
    keeps step with the others.
    """

    def __init__(
        self,
        backbone: BackboneWithFPN,
        rpn: RegionProposals,
        roi_heads: RoiHeads,
        *,
        config: ModelConfig,
        num_classes: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.config = config
        self.num_classes = num_classes
        """Without background: labels are 1…num_classes."""
        self.seed = seed
        """Of the draws of anchors and boxes; may be set at any time."""
        self.draw_version = NEWEST_DRAW
        """How they are drawn, see :mod:`megdet_hvd.model.draw_versions`; may be set at any time."""
        self.choice = KernelChoice(
            "memory_format", setting=config.memory_format, new="channels_last"
        )
        self._reordered_overruns = any(map(_overruns_reordered, backbone.modules()))
        self.sample_balance = SampleBalance()
        """Of the newest forward in training; its pictures in the order of the batch."""

    def forward(self, batch: Batch) -> dict[str, Tensor] | list[Detections]:
        """Losses in training, detections in evaluation. The batch lies on the model's device."""
        if self.training:
            return self._losses(batch)
        with torch.no_grad():
            return self._detections(batch)

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        features, outputs, proposals, canvas = self._propose(batch)
        draw = draw_of(self.draw_version)
        rpn_class, rpn_box, anchors = self.rpn.losses(
            outputs, batch.targets, self._seeds(batch, "anchors"), draw.sampler
        )
        final_class, final_box, boxes = self.roi_heads.losses(
            features, proposals, batch.targets, self._seeds(batch, "rois"), canvas, draw
        )
        self.sample_balance = SampleBalance(anchors, boxes)
        return dict(zip(LOSSES, (rpn_class, rpn_box, final_class, final_box), strict=True))

    def _detections(self, batch: Batch) -> list[Detections]:
        features, _, proposals, canvas = self._propose(batch)
        sizes = [info.size for info in batch.infos]
        boxes = [own.all_valid() for own in proposals]
        found = self.roi_heads.detect(features, boxes, sizes, canvas)
        return [in_original_pixels(one, info) for one, info in zip(found, batch.infos, strict=True)]

    def _propose(
        self, batch: Batch
    ) -> tuple[dict[str, Tensor], RpnOutputs, list[Proposals], tuple[int, int]]:
        """Pyramid, RPN outputs, proposals, and the canvas's height and width."""
        sizes = [info.size for info in batch.infos]
        canvas = (batch.images.shape[-2], batch.images.shape[-1])
        dtype = self.roi_heads.box_predictor.cls_score.weight.dtype
        memory_format = self._memory_format(batch.images.device)
        pixels = normalise(batch.images, sizes, dtype, memory_format)
        features = self.backbone(pixels)
        outputs = self.rpn(features, canvas)
        return features, outputs, self.rpn.propose(outputs, sizes), canvas

    def _memory_format(self, device: torch.device) -> torch.memory_format:
        """In which every activation then lies; weights stay as they are.

        ``auto`` is contiguous on a GPU, where nobody has measured it.
        """
        if self._reordered_overruns and device.type == "cpu":
            return torch.contiguous_format
        automatic = self.choice.setting == "auto" and device.type != "cpu"
        last = self.choice.kernel == "channels_last" and not automatic
        return torch.channels_last if last else torch.contiguous_format

    def _seeds(self, batch: Batch, purpose: str) -> list[int]:
        return [
            draw_key(self.seed, info.epoch, info.source, info.image_id, purpose)
            for info in batch.infos
        ]


def _overruns_reordered(module: nn.Module) -> bool:
    """Whether oneDNN writes beyond its buffer in the backward pass, in channels_last order.

    It does where a kernel of 1×1 with strides has fewer input channels than a vector has values
    (oneDNN's issue 6035): the process ends, or other memory is changed. No ResNet has such.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < LARGEST_VECTOR
    )


def in_original_pixels(found: Detections, info: ImageInfo) -> Detections:
    """Boxes of the resized picture as boxes of the original one, clipped to it."""
    (height, width), (original_height, original_width) = info.size, info.original_size
    scale = torch.tensor(
        [original_width / width, original_height / height] * 2,
        dtype=found.boxes.dtype,
        device=found.boxes.device,
    )
    boxes = clip_boxes_to_image(found.boxes * scale, info.original_size)
    return Detections(boxes.float(), found.scores.float(), found.labels)
