"""The gradient doesn't depend on which process has which pictures (eq. (1))."""

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.model.detector import Detector
from tests.model.samples import backward, build, part, random_batch, slim

BOXES = [4, 0, 3, 1, 6, 2, 5, 4]
SPLITS = {
    "eight processes": [[0], [1], [2], [3], [4], [5], [6], [7]],
    "four processes": [[0, 1], [2, 3], [4, 5], [6, 7]],
    "two, in another order": [[7, 2, 5, 0], [1, 6, 3, 4]],
    "uneven, one without pictures": [[0, 1, 2, 3, 4], [], [5, 6, 7]],
}


def gradients(detector: Detector, parts: list[list[int]]) -> dict[str, Tensor]:
    """Sum over the processes' parts, each computed as its own process would."""
    detector.zero_grad(set_to_none=True)
    batch = random_batch(boxes=BOXES)
    for positions in parts:
        backward(detector(part(batch, positions)))
    return {n: p.grad.clone() for n, p in detector.named_parameters() if p.grad is not None}


def in_float64(norm: str) -> Detector:
    """In float32, rounding can flip a proposal. BN, if any, normalises by running statistics."""
    detector = build(slim(norm=norm)).double().train()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return detector


@pytest.fixture(scope="module")
def whole() -> tuple[Detector, dict[str, Tensor]]:
    """A detector and its gradient on one process with eight pictures."""
    detector = in_float64("frozen")
    return detector, gradients(detector, [list(range(8))])


@pytest.mark.parametrize("split", SPLITS)
def test_gradients_equal_those_of_one_process(
    whole: tuple[Detector, dict[str, Tensor]], split: str
) -> None:
    detector, expected = whole
    assert_equal(gradients(detector, SPLITS[split]), expected, detector)


def test_gradients_equal_with_bn_in_evaluation() -> None:
    detector = in_float64("bn")
    expected = gradients(detector, [list(range(8))])
    assert_equal(gradients(detector, [[0, 1, 2, 3, 4], [], [5, 6, 7]]), expected, detector)


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], detector: Detector) -> None:
    assert found.keys() == expected.keys() == dict(detector.named_parameters()).keys()
    for name, gradient in found.items():
        assert expected[name].abs().max() > 0, f"{name} is not tested"
        torch.testing.assert_close(gradient, expected[name], rtol=1e-8, atol=1e-8)
