"""A detector from its configuration."""

import torch

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.errors import UserError
from megdet_hvd.model.backbone import add_pyramid, build_body, freeze_stages
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.norm import NormFactory, batch_norm, frozen_norm, no_norm
from megdet_hvd.model.pretrained import load_backbone_weights
from megdet_hvd.model.roi_heads import RoiHeads
from megdet_hvd.model.rpn import RegionProposals


def build_detector(
    config: ModelConfig,
    num_classes: int,
    norm_layer: NormFactory,
    *,
    seed: int,
    pretrained: bool = True,
) -> Detector:
    """A detector on the CPU, in training mode.

    Args:
        config: the model's settings. ``backbone_weights`` are loaded here; ``init_from`` is not:
            see :mod:`megdet_hvd.model.initialise`.
        num_classes: classes without background.
        norm_layer: makes the normalisation layers from a number of channels. For every ``norm``
            but ``cgbn``, :func:`local_norm` gives it.
        seed: of the random weights, and of the draws in training. Equal seeds give equal bits;
            the global generator is neither read nor moved.
        pretrained: load ``backbone_weights``. False where a checkpoint follows, so that resuming,
            evaluating and predicting need neither the file nor a network.

    Raises:
        UserError: backbone weights that can't be had or don't fit; anchors without area.
    """
    if num_classes < 1:
        raise UserError(
            f"num_classes={num_classes}: a detector needs at least one class besides background; "
            "look at the categories of the annotation file"
        )
    if config.norm in ("bn", "cgbn") and config.norm_eps == 0:
        raise UserError(
            f"model.norm_eps=0 with model.norm={config.norm}: trained normalisation divides by "
            "sqrt(variance + norm_eps), which must not be zero; set model.norm_eps=1e-5, or "
            "model.norm=frozen to keep weights that were trained with 0"
        )
    same = None if config.norm == "none" else norm_layer
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = build_body(config, norm_layer)
        backbone = add_pyramid(
            body, config.fpn_channels, same if config.fpn_norm == "same" else None
        )
        rpn = RegionProposals(config)
        roi_heads = RoiHeads(config, num_classes, same if config.roi.norm == "same" else None)
    if pretrained and config.backbone_weights is not None:
        load_backbone_weights(backbone.body, config)
    freeze_stages(backbone.body, config.frozen_stages)
    return Detector(backbone, rpn, roi_heads, config=config, num_classes=num_classes, seed=seed)


def local_norm(config: ModelConfig) -> NormFactory:
    """The factory for a norm that needs no other process.

    ``cgbn`` gives plain BN, which is what CGBN is on one process, and in evaluation everywhere:
    so a checkpoint trained with CGBN runs without Horovod.
    """
    if config.norm == "frozen":
        return frozen_norm(config.norm_eps)
    if config.norm == "none":
        return no_norm()
    return batch_norm(config.norm_eps, config.norm_momentum)
