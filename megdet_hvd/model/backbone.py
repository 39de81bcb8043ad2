"""ResNet with a feature pyramid: pictures to P2…P6.

Built from torchvision's parts, so that the keys (``backbone.body.*``, ``backbone.fpn.*``) are
those of torchvision's detectors.
"""

from torch import nn
from torchvision.models import resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.model.norm import NormFactory, freeze_norms, frozen_copy

RESNETS = {
    "resnet18": resnet.resnet18,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
}
STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
"""What each stage adds to the frozen part: stage 1 is the stem, stage 5 the whole network."""
LEVELS = ("0", "1", "2", "3", "pool")
"""torchvision's names of P2…P6; P6 is P5 with every second pixel."""


def build_body(config: ModelConfig, norm_layer: NormFactory) -> resnet.ResNet:
    """The residual network with random weights, its classifier still on."""
    return RESNETS[config.backbone](weights=None, norm_layer=norm_layer)


def add_pyramid(
    body: resnet.ResNet, fpn_channels: int, fpn_norm: NormFactory | None
) -> BackboneWithFPN:
    """Feature pyramid over the four stages of ``body``; its classifier is dropped.

    (B, 3, H, W) gives a dict of (B, fpn_channels, H/2^k, W/2^k), k = 2…6, where H and W are
    multiples of 32. With ``fpn_norm`` the pyramid's convolutions have no bias, as in torchvision.
    """
    stage1_channels = body.inplanes // 8
    return BackboneWithFPN(
        body,
        return_layers={f"layer{k + 1}": LEVELS[k] for k in range(4)},
        in_channels_list=[stage1_channels * 2**k for k in range(4)],
        out_channels=fpn_channels,
        norm_layer=fpn_norm,
    )


def freeze_stages(body: nn.Module, frozen_stages: int) -> None:
    """Fix the first ``frozen_stages`` stages: no gradients, and BN statistics that stay.

    Call it before or after weights are loaded; loading fills frozen layers too.
    """
    for stage in STAGES[:frozen_stages]:
        for name in stage:
            part = getattr(body, name)
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                setattr(body, name, frozen_copy(part))
            else:
                freeze_norms(part)
                part.requires_grad_(False)
