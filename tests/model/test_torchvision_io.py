"""Equal boxes and scores in torchvision's model and ours, both ways, on photographs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FasterRCNN,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.config.schema import Config, ModelConfig, RpnConfig
from megdet_hvd.data.batch import Detections, Target
from megdet_hvd.errors import UserError
from megdet_hvd.evaluation.trained import Trained
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.norm import freeze_norms
from megdet_hvd.model.torchvision_io import config_of, to_torchvision
from tests.model.samples import as_torchvision, build, make_lively, on_canvas, real_pictures, slim

SIZES = ((96, 128), (128, 96), (96, 96))
"""Shorter side 96 everywhere: torchvision's resize to 96 leaves them as they are."""


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    return real_pictures(SIZES)


def assert_equal(ours: list[Detections], theirs: list[dict[str, Tensor]], many: int = 20) -> None:
    """The same detections in the same order, and enough of them to mean something."""
    assert len(ours) == len(theirs)
    for own, other in zip(ours, theirs, strict=True):
        assert len(own.labels) >= many
        assert own.labels.tolist() == other["labels"].tolist()
        assert len(set(own.labels.tolist())) > 1
        torch.testing.assert_close(own.scores, other["scores"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own.boxes, other["boxes"], rtol=1e-5, atol=1e-3)


def run_torchvision(model: nn.Module, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
    with torch.no_grad():
        found: list[dict[str, Tensor]] = model.eval()([picture / 255 for picture in pictures])
    return found


CONFIGS = {
    "bn": slim(),
    "cgbn, two stages frozen": slim(norm="cgbn", frozen_stages=2),
    "frozen": slim(norm="frozen"),
    "frozen, eps 0": slim(norm="frozen", norm_eps=0.0),
    "none": slim(norm="none"),
    "as in v2": slim(fpn_norm="same", rpn={"conv_depth": 2}, roi={"head": "conv", "norm": "same"}),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_ours_in_torchvision(config: ModelConfig, pictures: list[Tensor]) -> None:
    config = as_torchvision(config)
    trained = {"norm": "none" if config.norm == "none" else "bn", "norm_eps": 1e-5}
    lively = build(config.model_copy(update=trained), seed=3)
    batch = on_canvas(pictures)
    target = Target(torch.tensor([[10.0, 10.0, 60.0, 70.0]]), torch.tensor([1]))
    batch = replace(batch, targets=(target,) * 3)
    make_lively(lively, lambda: lively(batch))
    detector = build(config, seed=1)
    detector.load_state_dict(lively.state_dict(), strict=False)

    ours = detector.eval()(batch)
    theirs = to_torchvision(detector, min_size=96)
    assert_equal(ours, run_torchvision(theirs, pictures))
    assert all(  # a copy: training it leaves ours alone
        own.data_ptr() != other.data_ptr()
        for own, other in zip(detector.parameters(), theirs.parameters(), strict=False)
    )


FEWER = {"rpn_post_nms_top_n_test": 200, "box_batch_size_per_image": 64}
"""Settings that don't show in weights: fewer boxes, to be quick."""
FEWER_HERE = as_torchvision(ModelConfig(rpn=RpnConfig(post_nms_test=200)))


def small(norm: Callable[..., nn.Module]) -> FasterRCNN:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=norm, trainable_layers=5
    )
    return FasterRCNN(backbone, num_classes=6, min_size=96, **FEWER)


def with_weights_of(theirs: FasterRCNN, model: ModelConfig) -> Detector:
    """Ours with the weights of torchvision's, as ``load_detector`` builds it."""
    state = theirs.state_dict()
    classes = state["roi_heads.box_predictor.cls_score.weight"].shape[0] - 1
    names = tuple(f"class {k}" for k in range(1, classes + 1))
    config = Config().model_copy(update={"model": model})
    ids = tuple(range(1, classes + 1))
    built = Trained(Path("theirs.pt"), config, names, ids, named=False, state=state).build()
    assert isinstance(built, Detector)
    return built


def lively_torchvision(model: FasterRCNN, pictures: list[Tensor]) -> FasterRCNN:
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1])}
    inputs = [picture / 255 for picture in pictures]
    make_lively(model, lambda: model(inputs, [target] * len(inputs)))
    return model


@pytest.mark.parametrize(
    ("norm", "eps"), [("bn", 1e-5), ("frozen", 1e-5), ("frozen", 0.0)], ids=str
)
def test_torchvisions_in_ours(norm: str, eps: float, pictures: list[Tensor]) -> None:
    torch.manual_seed(3)
    theirs = lively_torchvision(small(nn.BatchNorm2d), pictures)
    if norm == "frozen":
        freeze_norms(theirs)
        for module in theirs.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.eps = eps
    config = config_of(theirs.state_dict(), norm_eps=eps, base=FEWER_HERE)
    assert config.norm == norm
    ours = with_weights_of(theirs, config)(on_canvas(pictures))
    expected = run_torchvision(theirs, pictures)
    assert_equal(ours, expected)

    if eps == 0.0:
        wrong = config.model_copy(update={"norm_eps": 1e-5})
        other = with_weights_of(theirs, wrong)(on_canvas(pictures))
        with pytest.raises(AssertionError):
            assert_equal(other, expected)


@pytest.mark.parametrize("model", [fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2])
def test_torchvisions_published_models(
    model: Callable[..., FasterRCNN], pictures: list[Tensor]
) -> None:
    """Full size, 91 classes, with nothing told but ε."""
    torch.manual_seed(4)
    theirs = model(weights=None, weights_backbone=None, min_size=96, **FEWER)
    lively_torchvision(theirs, pictures)
    config = config_of(theirs.state_dict(), norm_eps=1e-5, base=FEWER_HERE)
    assert (config.backbone, config.fpn_channels, config.roi.width) == ("resnet50", 256, 1024)
    ours = with_weights_of(theirs, config)
    assert ours.num_classes == 90
    assert_equal(ours(on_canvas(pictures)), run_torchvision(theirs, pictures))


def test_resized_pictures_come_back_in_original_pixels(pictures: list[Tensor]) -> None:
    """torchvision's mapping back, for a picture that was halved before it came to the model."""
    torch.manual_seed(3)
    theirs = lively_torchvision(small(nn.BatchNorm2d), pictures)
    config = config_of(theirs.state_dict(), norm_eps=1e-5, base=FEWER_HERE)
    batch = on_canvas(pictures)
    infos = tuple(
        replace(info, original_size=(info.size[0] * 2, info.size[1] * 2)) for info in batch.infos
    )
    found = with_weights_of(theirs, config)(replace(batch, infos=infos))
    for own, other in zip(found, run_torchvision(theirs, pictures), strict=True):
        assert own.boxes.dtype == torch.float32
        torch.testing.assert_close(own.boxes, other["boxes"] * 2, rtol=1e-5, atol=2e-3)


def test_other_weights_are_refused() -> None:
    with pytest.raises(UserError, match=r"cls_score.*not a torchvision Faster R-CNN"):
        config_of({"conv1.weight": torch.zeros(1)}, norm_eps=0.0)
    state = build(slim()).state_dict()
    shallow = {k: v for k, v in state.items() if "layer4.1" not in k}
    with pytest.raises(UserError, match="7 residual blocks"):
        config_of(shallow, norm_eps=0.0)
