"""The detector, the scope of its BN statistics, and what of it is computed again."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from megdet_hvd.config.named_code import check_name
from megdet_hvd.config.sections.section import (
    CodeName,
    Fraction,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Section,
)


class RpnConfig(Section):
    """The region proposal network (RPN)."""

    conv_depth: Positive = 1
    """Number of 3×3 convolutions before its two outputs."""
    gradient: Literal["auto", "dense", "sampled"] = "auto"
    """Through the head at all anchors, or at the sampled ones alone: equal up to rounding, less
    time and memory. ``auto``: ``sampled``, or what a resumed run began with. With ``conv_depth``
    above 1 always ``dense``."""
    anchors_per_image: Positive = 256
    """Anchors sampled for the loss of one picture."""
    positive_fraction: Fraction = 0.5
    """Largest share of positives among them."""
    foreground_iou: Fraction = 0.7
    """An anchor at or above this IoU with a box is positive."""
    background_iou: Fraction = 0.3
    """An anchor below this IoU with every box is negative."""
    pre_nms_train: Positive = 2000
    """Proposals per level before NMS, in training."""
    pre_nms_test: Positive = 1000
    """The same in evaluation."""
    post_nms_train: Positive = 2000
    """Proposals per picture after NMS, in training."""
    post_nms_test: Positive = 1000
    """The same in evaluation."""
    nms_iou: Fraction = 0.7
    """IoU above which the lower-scored proposal goes."""


class RoiConfig(Section):
    """The second stage: box head and final detections."""

    head: Literal["mlp", "conv"] = "mlp"
    """``mlp``: two fully connected layers. ``conv``: four convolutions and one such layer."""
    width: Positive = 1024
    """Units of the fully connected layers."""
    norm: Literal["none", "same"] = "none"
    """``same``: the backbone's normalisation after each convolution of the ``conv`` head."""
    align: Literal["auto", "torchvision", "sparse"] = "auto"
    """ROIAlign's kernel: torchvision's, or a sparse matrix, equal up to rounding. ``auto``: on a
    CPU ``sparse``, or what a resumed run began with; on a GPU torchvision's, or with
    ``deterministic`` ``sparse``."""
    linear: Literal["auto", "torch", "onednn"] = "auto"
    """Who multiplies in the fully connected layers, on a CPU in float32: torch's choice (MKL), or
    oneDNN, equal up to rounding. ``auto``: ``onednn``, or what a resumed run began with."""
    boxes_per_image: Positive = 512
    """Boxes (RoIs) sampled for the loss of one picture."""
    positive_fraction: Fraction = 0.25
    """Largest share of positives among them."""
    foreground_iou: Fraction = 0.5
    """A proposal at or above this IoU with a box is positive; below it is background."""
    score_threshold: Fraction = 0.05
    """Detections below this score are dropped."""
    nms_iou: Fraction = 0.5
    """IoU above which the lower-scored detection of a class goes."""
    detections_per_image: Positive = 100
    """Detections kept per picture."""


class ModelConfig(Section):
    """Faster R-CNN with a feature pyramid (FPN) and ROIAlign."""

    detector: CodeName | None = None
    """A detector of your own (docs/extending.md), which of this group has ``norm``, ``norm_eps``,
    ``norm_momentum`` and ``init_from``; None: Faster R-CNN."""
    backbone: Literal["resnet18", "resnet50", "resnet101"] = "resnet50"
    """The residual network below the pyramid."""
    backbone_weights: str | None = None
    """None: random weights. A torchvision name (``IMAGENET1K_V1``), or a local file."""
    init_from: str | None = None
    """Fine-tuning: a checkpoint or run folder of ours, or a file of torchvision's. A predictor that
    doesn't fit is new."""
    norm: Literal["cgbn", "frozen", "bn", "none"] = "cgbn"
    """``cgbn``: Cross-GPU BN. ``frozen``: fixed statistics. ``bn``: each process's own."""
    norm_eps: NotNegativeFloat = 1e-5
    """ε of every normalisation layer. torchvision's COCO weights were trained with 0."""
    norm_momentum: Fraction | None = 0.1
    """Weight of the newest batch in the running statistics; None: cumulative mean."""
    frozen_stages: Annotated[int, Field(ge=0, le=5)] = 0
    """Stages kept as loaded: 1 is the stem, 2 adds layer1, … 5 is the whole backbone."""
    fpn_channels: Positive = 256
    """Channels of P2…P6."""
    fpn_norm: Literal["none", "same"] = "none"
    """``same``: the backbone's normalisation after each convolution of the pyramid."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Order of the activations' values, equal up to rounding. ``auto``: on a CPU ``channels_last``,
    or what a resumed run began with; on a GPU ``contiguous``. On a CPU it stays ``contiguous`` in
    any case for a backbone of one's own with strided 1×1 convolutions of fewer than 16 channels:
    oneDNN writes beyond its buffer there."""
    anchor_sizes: Annotated[tuple[PositiveFloat, ...], Field(min_length=5, max_length=5)] = (
        32,
        64,
        128,
        256,
        512,
    )
    """Anchor side on P2…P6, pixels of the resized picture."""
    anchor_ratios: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (0.5, 1.0, 2.0)
    """Height : width of the anchors."""
    rpn: RpnConfig = RpnConfig()
    """First stage."""
    roi: RoiConfig = RoiConfig()
    """Second stage."""

    @field_validator("detector")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        return None if value is None else check_name("model.detector", value)

    @model_validator(mode="after")
    def _iou_order(self) -> "ModelConfig":
        if self.rpn.background_iou > self.rpn.foreground_iou:
            raise ValueError(
                f"rpn.background_iou={self.rpn.background_iou} must not exceed "
                f"rpn.foreground_iou={self.rpn.foreground_iou}"
            )
        return self


class BatchNormConfig(Section):
    """Over which processes BN statistics are shared (§3.3)."""

    scope: Literal["machine", "world", "process"] = "machine"
    """``machine``: the processes of one machine, as in the paper. ``world``: all of them."""
    size: Positive | None = None
    """Images per statistic: divides the scope, or a process's images. None: all of the scope."""
    carrier: Literal["horovod", "mpi", "peer"] = "horovod"
    """Who sums: ``hvd.allreduce``, mpi4py's (CPU tensors, under MPI launchers), or the GPUs of one
    machine by themselves (``peer``: has not run on GPUs yet; docs/method.md)."""
    kernels: Literal["auto", "fused", "torch"] = "auto"
    """On GPUs, a process's own sums: ``fused``, kernels of ours in few launches, or ``torch``'s.
    ``auto``: ``fused`` where a check before training finds them right, else ``torch``."""


class MemoryConfig(Section):
    """Sublinear memory (§3.3; Chen et al. 2016): activations dropped and computed again."""

    checkpoint: Literal["none", "blocks", "stages", "auto"] = "none"
    """What is kept: everything, the borders of ``blocks`` or ``stages``, or as memory allows."""
