"""Multiply-adds counted from the configuration, against the real model's and what was published."""

from typing import Any

import pytest

from megdet_hvd.config.schema import ModelConfig, RoiConfig, RpnConfig
from megdet_hvd.plan.question import mean_pixels, padded_pixels
from megdet_hvd.plan.work import Work, count_work

SIDE = 64
BOXES = 3


def counted_by_torch(config: ModelConfig) -> dict[str, float]:
    """Of each convolution and linear layer, as it runs: outputs × inputs of one × uses."""
    import torch
    from torch import nn

    from megdet_hvd.model.build import build_detector, local_norm

    detector = build_detector(config, 80, local_norm(config), seed=0, pretrained=False).eval()
    found: dict[str, float] = {}

    def count(name: str) -> Any:
        def hook(module: nn.Module, _: Any, out: torch.Tensor) -> None:
            weight = module.weight
            assert isinstance(weight, torch.Tensor)
            each = weight.numel() / weight.shape[0]
            found[name] = found.get(name, 0.0) + out.numel() * each

        return hook

    for name, module in detector.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count(name))
    with torch.no_grad():
        levels = list(detector.backbone(torch.zeros(1, 3, SIDE, SIDE)).values())
        detector.rpn.head(levels)
        pooled = torch.zeros(BOXES, config.fpn_channels, 7, 7)
        detector.roi_heads.box_predictor(detector.roi_heads.box_head(pooled))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"backbone": "resnet18", "frozen_stages": 2, "norm": "frozen", "fpn_channels": 64},
        {
            "backbone": "resnet18",
            "norm": "bn",
            "rpn": RpnConfig(conv_depth=2),
            "roi": RoiConfig(head="conv", norm="same", width=96),
            "anchor_ratios": (1.0,),
        },
    ],
    ids=["paper", "slim", "conv"],
)
def test_the_real_model_does_as_many(settings: dict[str, Any]) -> None:
    config = ModelConfig(**settings)
    real = counted_by_torch(config)
    found = count_work(config, SIDE**2, 80, BOXES)
    assert found.forward == pytest.approx(sum(real.values()), rel=1e-3)  # P6 rounds up
    heads = sum(count for name, count in real.items() if name.startswith("roi_heads"))
    assert found.forward - count_work(config, SIDE**2, 80, 0).forward == pytest.approx(heads)
    stages = ("backbone.body.conv1", "backbone.body.layer1")[: config.frozen_stages]
    trained = sum(k for name, k in real.items() if not name.startswith(stages))
    assert found.backward == pytest.approx(2 * trained, rel=1e-3)
    assert found.step == found.forward + found.backward


def test_a_deeper_backbone_takes_as_much_longer_as_was_published() -> None:
    """0.286 to 0.209 s, facebookresearch/detectron2 MODEL_ZOO.md, Faster R-CNN FPN 3x."""

    def of(backbone: str) -> Work:
        model = ModelConfig.model_validate({"backbone": backbone, "frozen_stages": 2})
        return count_work(model, mean_pixels((800,), 1333), 80, 512)

    ratio = of("resnet101").step / of("resnet50").step
    assert ratio == pytest.approx(0.286 / 0.209, rel=0.03)
    assert of("resnet18").step < 0.8 * of("resnet50").step


def test_pictures_of_a_pass_are_padded_to_the_largest() -> None:
    """Two draws of 300 and 600: three times in four the larger is among them."""
    small, large = 300 * 400, 600 * 800
    assert mean_pixels((600, 300), 1333) == (small + large) / 2
    assert padded_pixels((600, 300), 1333, 1) == (small + large) / 2
    assert padded_pixels((600, 300), 1333, 2) == small / 4 + large * 3 / 4
    assert padded_pixels((600, 300), 1333, 200) == pytest.approx(large)
    assert padded_pixels((800,), 1333, 2) == mean_pixels((800,), 1333)
    every = [max(a, b) for a in (640, 720, 800) for b in (640, 720, 800)]
    assert padded_pixels((640, 720, 800), 1333, 2) == pytest.approx(
        sum(side * side * 4 / 3 for side in every) / 9
    )
