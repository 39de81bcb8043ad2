"""ResNet with a feature pyramid: pictures to P2…P6.

Built from torchvision's parts, so that the keys (``backbone.body.*``, ``backbone.fpn.*``) are
those of torchvision's detectors.
"""

from torch import Tensor, nn
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
RESIDUAL_STAGES = ("layer1", "layer2", "layer3", "layer4")
"""torchvision's names of the stages that give C2…C5."""
LEVELS = ("0", "1", "2", "3", "pool")
"""torchvision's names of P2…P6; P6 is P5 with every second pixel."""


class Body(nn.ModuleDict):
    """The children of a residual network up to its last stage; torchvision's keys.

    (B, 3, H, W) to {"0": C2, … "3": C5}. It stands where BackboneWithFPN has torchvision's
    IntermediateLayerGetter and computes the same; here the stem is a method, so that it can be
    recomputed as a whole.
    """

    def __init__(self, resnet_body: resnet.ResNet) -> None:
        classifier = ("avgpool", "fc")
        super().__init__({n: m for n, m in resnet_body.named_children() if n not in classifier})

    def stem(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 64, H/4, W/4)."""
        x: Tensor = self["maxpool"](self["relu"](self["bn1"](self["conv1"](images))))
        return x

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The four levels; the keys are the first four of LEVELS."""
        x = self.stem(images)
        levels = {}
        for stage, level in zip(RESIDUAL_STAGES, LEVELS, strict=False):
            levels[level] = x = self[stage](x)
        return levels


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
    backbone = BackboneWithFPN(
        body,
        return_layers=dict(zip(RESIDUAL_STAGES, LEVELS, strict=False)),
        in_channels_list=[stage1_channels * 2**k for k in range(4)],
        out_channels=fpn_channels,
        norm_layer=fpn_norm,
    )
    backbone.body = Body(body)
    return backbone


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
