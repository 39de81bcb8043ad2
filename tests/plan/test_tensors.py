"""Tensors counted from the configuration, against the real model's."""

from typing import Any

import pytest

from megdet_hvd.config.schema import ModelConfig, RoiConfig, RpnConfig
from megdet_hvd.plan.tensors import bn_elements, bn_message_bytes, count_tensors

CONV_HEAD = {"roi": RoiConfig(head="conv", norm="same"), "fpn_norm": "same"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"backbone": "resnet18", "norm": "frozen"},
        {"backbone": "resnet101", "fpn_channels": 64},
        {"backbone": "resnet18", "norm": "bn", "rpn": RpnConfig(conv_depth=2), **CONV_HEAD},
        {"backbone": "resnet18", "frozen_stages": 2},
        {"backbone": "resnet18", "norm": "none", "anchor_ratios": (1.0,), **CONV_HEAD},
    ],
    ids=["paper", "frozen", "101", "conv", "stages", "none"],
)
def test_the_real_model_has_as_many(settings: dict[str, Any]) -> None:
    from torch import nn

    from megdet_hvd.model.build import build_detector, local_norm

    config = ModelConfig(**settings)
    real = build_detector(config, 80, local_norm(config), seed=0, pretrained=False)
    found = count_tensors(config, 80)
    trained = sum(p.numel() for p in real.parameters() if p.requires_grad)
    norms = [m.num_features for m in real.modules() if isinstance(m, nn.BatchNorm2d)]
    assert found.trained == trained and found.gradient_bytes == 4 * trained
    assert sorted(layer.channels for layer in found.bn_layers) == sorted(norms)
    convolutions = sum(p.numel() for p in real.parameters() if p.dim() > 1 or p.requires_grad)
    assert found.held == convolutions


def test_the_papers_bn_messages_are_those_that_were_counted() -> None:
    """docs/benchmarks.md: 106 messages and 830 KiB a step."""
    layers = count_tensors(ModelConfig(), 80).bn_layers
    sizes = [size for layer in layers for size in bn_message_bytes(layer)]
    assert len(sizes) == 106 and sum(sizes) // 1024 == 830


def test_activations_are_those_of_resnet_50() -> None:
    """By torch's own shapes, at 64×64 pixels."""
    import torch
    from torch import nn

    from megdet_hvd.model.build import build_detector, local_norm

    config = ModelConfig()
    body = build_detector(config, 80, local_norm(config), seed=0, pretrained=False).backbone.body
    seen: list[int] = []
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda m, i, out: seen.append(out.numel()))
    with torch.no_grad():
        body(torch.zeros(2, 3, 64, 64))
    assert bn_elements(count_tensors(config, 80), 64 * 64, 512) == sum(seen) / 2
