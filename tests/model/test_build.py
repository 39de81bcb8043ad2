"""Random weights by seed, frozen stages, and bad settings."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.errors import UserError
from megdet_hvd.model.build import build_detector
from tests.model.samples import backward, build, random_batch, slim


def test_equal_seeds_give_equal_bits_whatever_the_global_generator() -> None:
    torch.manual_seed(1)
    first = build(slim()).state_dict()
    torch.manual_seed(2)
    torch.rand(7)
    state = torch.get_rng_state()
    second = build(slim()).state_dict()
    assert torch.equal(torch.get_rng_state(), state), "the global generator was moved"
    other = build(slim(), seed=1).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert not torch.equal(first["rpn.head.cls_logits.weight"], other["rpn.head.cls_logits.weight"])


def test_weights_begin_as_torchvisions() -> None:
    """The same seed gives torchvision's own model bit for bit."""
    ours = build(ModelConfig(backbone="resnet18", norm="bn"), seed=5).state_dict()
    torch.manual_seed(5)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    theirs = FasterRCNN(backbone, num_classes=4).state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("stages", range(6))
def test_frozen_stages(stages: int) -> None:
    names = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    frozen = {f"backbone.body.{n}" for stage in names[:stages] for n in stage}
    detector = build(slim(frozen_stages=stages))
    plain = build(slim()).state_dict()

    def is_frozen(name: str) -> bool:
        return any(name.startswith(f"{part}.") for part in frozen)

    state = detector.state_dict()
    assert set(plain) - set(state) == {
        k for k in plain if is_frozen(k) and k.endswith("num_batches_tracked")
    }
    assert all(torch.equal(plain[name], value) for name, value in state.items())
    for name, parameter in detector.named_parameters():
        assert parameter.requires_grad != is_frozen(name), name
    for name, module in detector.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not is_frozen(f"{name}.")
        if isinstance(module, FrozenBatchNorm2d):
            assert is_frozen(f"{name}.")


def test_training_leaves_frozen_stages_alone() -> None:
    detector = build(slim(frozen_stages=2))
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.01)
    backward(detector(random_batch([(96, 96), (128, 96)])))
    optimizer.step()
    after = detector.state_dict()
    kept = ("backbone.body.conv1.", "backbone.body.bn1.", "backbone.body.layer1.")
    for name, value in after.items():
        if name.startswith("backbone.body.") and name.endswith(("weight", "running_mean")):
            assert torch.equal(value, before[name]) == name.startswith(kept), name


def test_every_norm_layer_comes_from_the_factory() -> None:
    class Marked(nn.BatchNorm2d):
        """Stands in for CGBN."""

    settings = slim(norm="cgbn", fpn_norm="same", roi={"head": "conv", "norm": "same"})
    detector = build_detector(settings, 3, Marked, seed=0)
    layers = [m for m in detector.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    # 20 in ResNet-18, 2 x 4 in the pyramid, 4 in the head.
    assert len(layers) == 32
    assert all(type(layer) is Marked for layer in layers)


def test_without_norm_the_pyramid_and_head_keep_their_bias() -> None:
    detector = build(slim(norm="none", fpn_norm="same", roi={"head": "conv", "norm": "same"}))
    names = dict(detector.named_parameters())
    assert "backbone.fpn.inner_blocks.0.0.bias" in names
    assert "roi_heads.box_head.0.0.bias" in names


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="num_classes=0"):
        build(slim(), classes=0)
    with pytest.raises(UserError, match=r"norm_eps=0 with model\.norm=cgbn"):
        build(slim(norm="cgbn", norm_eps=0.0))
    tiny = slim().model_copy(update={"anchor_sizes": (0.5, 8, 16, 32, 64)})
    with pytest.raises(UserError, match=r"anchor_sizes: 0\.5 .*without area"):
        build(tiny)
