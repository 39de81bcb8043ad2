"""No pictures, no boxes, no proposals: every layer runs, every parameter gets a gradient."""

import pytest
import torch
from torch import nn

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.model.detector import LOSSES
from megdet_hvd.model.proposals import Proposals
from tests.model.samples import backward, build, part, random_batch, slim

HEADS = {
    "mlp": slim(),
    "frozen, two stages fixed": slim(norm="frozen", frozen_stages=2),
    "none": slim(norm="none"),
    "norm everywhere": slim(fpn_norm="same", roi={"head": "conv", "norm": "same"}),
}


@pytest.fixture(params=HEADS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return HEADS[request.param]


def test_no_pictures(config: ModelConfig) -> None:
    detector = build(config)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    ran = []
    leaves = [m for m in detector.modules() if not list(m.children())]
    for module in leaves:
        module.register_forward_hook(lambda module, inputs, output: ran.append(module))

    losses = detector(part(random_batch(), []))
    assert tuple(losses) == LOSSES
    assert all(value.shape == (0,) for value in losses.values())
    never = {type(m).__name__ for m in leaves if m not in ran}
    assert never <= {"AnchorGenerator"}, "called by its methods; it has no parameters"

    backward(losses)
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name
    for name, value in detector.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was moved by nothing"


def test_no_pictures_in_evaluation(config: ModelConfig) -> None:
    assert build(config).eval()(part(random_batch(), [])) == []


def test_no_boxes(config: ModelConfig) -> None:
    detector = build(config)
    losses = detector(random_batch([(96, 96), (128, 70)], boxes=0))
    for name in ("rpn_class", "class"):
        assert (losses[name] > 0).all()
    for name in ("rpn_box", "box"):
        assert losses[name].tolist() == [0, 0]
    backward(losses)
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)


def test_no_proposals(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proposals nor boxes: nothing for the second stage, which still takes part."""
    detector = build(config)

    def propose(outputs: object, sizes: list[tuple[int, int]]) -> list[Proposals]:
        return [Proposals(torch.zeros(0, 4)) for _ in sizes]

    monkeypatch.setattr(detector.rpn, "propose", propose)
    losses = detector(random_batch([(96, 96), (128, 128)], boxes=0))
    assert losses["class"].tolist() == losses["box"].tolist() == [0, 0]
    backward(losses)
    for name, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    unused = detector.roi_heads.box_predictor.cls_score.weight.grad
    assert not unused.any()
    detector.eval()
    assert [len(found.boxes) for found in detector(random_batch([(96, 96)]))] == [0]


def test_plain_bn_is_torchs_own_where_there_is_data() -> None:
    detector = build(slim())
    layer = detector.backbone.body.bn1
    torchs = nn.BatchNorm2d(64)
    values = torch.randn(2, 64, 5, 5)
    assert torch.equal(layer(values), torchs(values))
    torch.testing.assert_close(layer.running_var, torchs.running_var, rtol=0, atol=0)
