"""Gradients through the sampled anchors alone are those through all of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from megdet_hvd.model.detector import LOSSES, Detector
from megdet_hvd.model.device import autocast
from megdet_hvd.model.draw_versions import NEWEST_DRAW, draw_of
from megdet_hvd.model.rpn_sampled import outputs_of_anchors
from tests.model.samples import backward, build, part, random_batch, slim

WAYS = ("dense", "sampled")


def detector_of(way: str, **changes: Any) -> Detector:
    return build(slim(rpn={"gradient": way}, norm="frozen", **changes))


def test_outputs_are_those_of_the_whole_head() -> None:
    """Every anchor of both pictures, at the borders too."""
    rpn = detector_of("dense").double().rpn
    random = torch.Generator().manual_seed(0)
    shapes = [(5, 7), (3, 4), (2, 2), (1, 3), (1, 1)]
    levels = [torch.randn(2, 32, *shape, generator=random).double() for shape in shapes]
    with torch.no_grad():
        for parameter in rpn.head.parameters():
            parameter.normal_(generator=random)
    names = ("0", "1", "2", "3", "pool")
    whole = rpn(dict(zip(names, levels, strict=True)), (20, 28))
    number = sum(h * w for h, w in shapes) * 3
    assert whole.logits.shape == (2, number)
    pictures = torch.arange(2).repeat_interleave(number)
    logits, deltas = outputs_of_anchors(rpn.head, levels, pictures, torch.arange(number).repeat(2))
    assert whole.logits.abs().max() > 1
    assert torch.allclose(logits.view(2, -1), whole.logits, rtol=1e-12, atol=1e-12)
    assert torch.allclose(deltas.view(2, -1, 4), whole.deltas, rtol=1e-12, atol=1e-12)


def found_by(way: str, precision: str = "float64") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    detector = detector_of(way)
    if precision == "float64":
        detector.double()
    with autocast("bfloat16" if precision == "bfloat16" else "float32", torch.device("cpu")):
        losses = detector(random_batch())
    backward(losses)
    found = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    assert found.keys() == {n for n, p in detector.named_parameters() if p.requires_grad}
    return losses, found


@pytest.mark.parametrize(
    ("precision", "rounding"), [("float64", 1e-11), ("float32", 1e-4), ("bfloat16", 0.1)]
)
def test_losses_and_gradients_are_the_same_up_to_rounding(precision: str, rounding: float) -> None:
    """Of every parameter; the cast of none is taken from the pass for the proposals."""
    (dense, theirs), (sampled, ours) = (found_by(way, precision) for way in WAYS)
    for name in LOSSES:
        assert torch.allclose(dense[name], sampled[name], rtol=rounding, atol=0)
    for name, right in theirs.items():
        norm = right.double().norm()
        assert norm > 0, name
        assert (right.double() - ours[name].double()).norm() <= rounding * norm, name


def test_nothing_of_the_pass_for_the_proposals_is_kept() -> None:
    kept: dict[str, int] = {}
    for way in WAYS:
        detector = detector_of(way)

        def count(value: Tensor, way: str = way) -> Tensor:
            kept[way] = kept.get(way, 0) + value.numel() * value.element_size()
            return value

        features = {
            name: torch.randn(1, 32, 64 >> level, 64 >> level, requires_grad=True)
            for level, name in enumerate(("0", "1", "2", "3", "pool"))
        }
        batch = part(random_batch([(256, 256)]), [0])
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            outputs = detector.rpn(features, (256, 256))
            detector.rpn.losses(outputs, batch.targets, [1], draw_of(NEWEST_DRAW).sampler)
    assert kept["sampled"] < kept["dense"] / 2, kept


def test_a_deeper_head_is_dense() -> None:
    detector = build(slim(rpn={"gradient": "sampled", "conv_depth": 2}))
    assert detector.rpn.choice.kernel == "dense"
    backward(detector(random_batch()))
    assert all(parameter.grad is not None for parameter in detector.rpn.parameters())
