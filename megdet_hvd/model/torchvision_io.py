"""Detectors to torchvision, and the settings of its own, for equal boxes and scores.

The keys are equal anyway; what must be carried over besides them is what no key says: ε of the
normalisation (torchvision's COCO weights of ``fasterrcnn_resnet50_fpn`` run with ε = 0), where
statistics are frozen, thresholds, anchors, and the shape of the heads.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.errors import UserError
from megdet_hvd.model.backbone import LEVELS, add_pyramid, build_body
from megdet_hvd.model.build import local_norm
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.fit import COUNTER, align_counters
from megdet_hvd.model.initialise import modern_names
from megdet_hvd.model.norm import frozen_copy
from megdet_hvd.model.roi_align import POOLED_SIDE, SAMPLES
from megdet_hvd.model.roi_heads import build_box_head
from megdet_hvd.model.rpn import build_anchors


def to_torchvision(detector: Detector, *, min_size: int = 800, max_size: int = 1333) -> FasterRCNN:
    """The model of torchvision itself with this detector's weights, on the CPU, in evaluation mode.

    CGBN becomes plain BN, which is the same in evaluation.

    Args:
        detector: stays as it is.
        min_size: shorter side to which torchvision's model resizes its pictures, pixels.
        max_size: longer side at most. Its resize is not ours (Pillow's), so boxes agree exactly
            on pictures that need none, and closely on others.
    """
    config = detector.config
    norm = local_norm(config)
    same = None if config.norm == "none" else norm
    with torch.random.fork_rng(devices=[]):
        model = FasterRCNN(
            add_pyramid(
                build_body(config, norm),
                config.fpn_channels,
                same if config.fpn_norm == "same" else None,
            ),
            min_size=min_size,
            max_size=max_size,
            rpn_anchor_generator=build_anchors(config),
            rpn_head=RPNHead(
                config.fpn_channels, len(config.anchor_ratios), conv_depth=config.rpn.conv_depth
            ),
            rpn_pre_nms_top_n_train=config.rpn.pre_nms_train,
            rpn_pre_nms_top_n_test=config.rpn.pre_nms_test,
            rpn_post_nms_top_n_train=config.rpn.post_nms_train,
            rpn_post_nms_top_n_test=config.rpn.post_nms_test,
            rpn_nms_thresh=config.rpn.nms_iou,
            rpn_fg_iou_thresh=config.rpn.foreground_iou,
            rpn_bg_iou_thresh=config.rpn.background_iou,
            rpn_batch_size_per_image=config.rpn.anchors_per_image,
            rpn_positive_fraction=config.rpn.positive_fraction,
            box_roi_pool=MultiScaleRoIAlign(
                featmap_names=list(LEVELS[:4]), output_size=POOLED_SIDE, sampling_ratio=SAMPLES
            ),
            box_head=build_box_head(config, same if config.roi.norm == "same" else None),
            box_predictor=FastRCNNPredictor(config.roi.width, detector.num_classes + 1),
            box_score_thresh=config.roi.score_threshold,
            box_nms_thresh=config.roi.nms_iou,
            box_detections_per_img=config.roi.detections_per_image,
            box_fg_iou_thresh=config.roi.foreground_iou,
            box_bg_iou_thresh=config.roi.foreground_iou,
            box_batch_size_per_image=config.roi.boxes_per_image,
            box_positive_fraction=config.roi.positive_fraction,
        )
    _freeze_alike(detector, model)
    model.to(next(detector.parameters()).dtype)
    model.load_state_dict(align_counters(detector.state_dict(), model))
    return model.eval()


def _freeze_alike(detector: Detector, model: FasterRCNN) -> None:
    """Frozen statistics in ``model`` wherever ``detector`` has them, and its ε."""
    frozen = {n: m for n, m in detector.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    trained = {n: p.requires_grad for n, p in detector.named_parameters()}
    for name, module in list(model.named_modules()):
        if name in frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, frozen_copy(module))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained[name])


def config_of(
    state: Mapping[str, Tensor], *, norm_eps: float, base: ModelConfig | None = None
) -> ModelConfig:
    """The model settings that a torchvision Faster R-CNN's weights show.

    Args:
        state: its state dict, old names or new.
        norm_eps: which no weights show: 0 for torchvision's ``FasterRCNN_ResNet50_FPN_Weights``,
            1e-5 for its V2 weights and for models trained with torchvision's defaults.
        base: the settings that don't show (anchors, thresholds, sample counts).

    Raises:
        UserError: not a Faster R-CNN on a ResNet-18, 50 or 101 with a pyramid.
    """
    base = base or ModelConfig()
    state = modern_names(state)
    _classes(state)
    conv_head = "roi_heads.box_head.fc6.weight" not in state
    width = state["roi_heads.box_predictor.cls_score.weight"].shape[1]
    depth = len([k for k in state if k.startswith("rpn.head.conv.") and k.endswith(".weight")])
    return base.model_copy(
        update={
            "backbone": _backbone(state),
            "backbone_weights": None,
            "init_from": None,
            "norm": "bn" if f"backbone.body.bn1.{COUNTER}" in state else "frozen",
            "norm_eps": norm_eps,
            "frozen_stages": 0,
            "fpn_channels": state["rpn.head.cls_logits.weight"].shape[1],
            "fpn_norm": _same("backbone.fpn.inner_blocks.0.1.running_mean" in state),
            "rpn": base.rpn.model_copy(update={"conv_depth": depth}),
            "roi": base.roi.model_copy(
                update={
                    "head": "conv" if conv_head else "mlp",
                    "width": width,
                    "norm": _same("roi_heads.box_head.0.1.running_mean" in state),
                }
            ),
        }
    )


def _same(present: bool) -> str:
    return "same" if present else "none"


def _classes(state: Mapping[str, Tensor]) -> int:
    """Classes without background, from the predictor's rows."""
    needed = ("roi_heads.box_predictor.cls_score.weight", "rpn.head.cls_logits.weight")
    for name in needed:
        if name not in state:
            raise UserError(
                f"the weights hold no {name}: they are not a torchvision Faster R-CNN's; give "
                "those of fasterrcnn_resnet50_fpn, its v2, or a model built alike"
            )
    return state[needed[0]].shape[0] - 1


def _backbone(state: Mapping[str, Tensor]) -> str:
    blocks = len([k for k in state if k.startswith("backbone.body.layer") and ".conv1.w" in k])
    bottleneck = "backbone.body.layer1.0.conv3.weight" in state
    found = {(8, False): "resnet18", (16, True): "resnet50", (33, True): "resnet101"}
    if (blocks, bottleneck) not in found:
        raise UserError(
            f"the weights' backbone has {blocks} residual blocks, "
            f"{'with' if bottleneck else 'without'} bottlenecks; known are resnet18 (8, without), "
            "resnet50 (16, with) and resnet101 (33, with)"
        )
    return found[blocks, bottleneck]
