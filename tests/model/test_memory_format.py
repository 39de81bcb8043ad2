"""In which order activations lie, and that it changes rounding alone."""

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.model.detector import LOSSES, Detector
from tests.model.samples import backward, build, part, random_batch, slim


@pytest.mark.parametrize("setting", ["auto", "contiguous", "channels_last"])
def test_activations_lie_as_asked_for_and_losses_are_the_same(setting: str) -> None:
    last = {"contiguous": False, "channels_last": True, "auto": True}[setting]
    seen = []

    def look(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        own = output.is_contiguous(memory_format=torch.channels_last)
        seen.append(own and not output.is_contiguous())

    batch = part(random_batch(), [0, 1, 5])
    results: list[dict[str, Tensor]] = []
    for one in (setting, "contiguous"):
        detector = build(slim(memory_format=one, norm="frozen")).double()
        if not results:
            for name in ("body.conv1", "body.layer3.1.conv2", "fpn.layer_blocks.0.0"):
                detector.backbone.get_submodule(name).register_forward_hook(look)
        losses = detector(batch)
        backward(losses)
        assert all(p.is_contiguous() for p in detector.parameters())
        grads = {n: p.grad for n, p in detector.named_parameters() if p.grad is not None}
        results.append({**losses, **grads})
    assert seen == [last] * 3
    assert set(LOSSES) < set(results[0])
    for name, right in results[1].items():
        assert torch.allclose(results[0][name], right, rtol=1e-9, atol=1e-12), name


def test_on_a_gpu_it_must_be_asked_for() -> None:
    gpu = torch.device("cuda", 0)
    for setting in ("auto", "contiguous", "channels_last"):
        detector = build(slim(memory_format=setting))
        asked = setting == "channels_last"
        assert (detector._memory_format(gpu) == torch.channels_last) == asked


def test_not_on_a_cpu_where_onednn_writes_beyond_its_buffer() -> None:
    detector = build(slim(memory_format="channels_last"))
    body = detector.backbone.get_submodule("body")
    for channels, kernel, stride, last in ((8, 1, 2, False), (16, 1, 2, True), (8, 3, 2, True)):
        body.conv1 = nn.Conv2d(channels, 64, kernel, stride)
        own = Detector(
            detector.backbone,
            detector.rpn,
            detector.roi_heads,
            config=detector.config,
            num_classes=detector.num_classes,
            seed=0,
        )
        found = own._memory_format(torch.device("cpu"))
        assert (found == torch.channels_last) == last
        assert own._memory_format(torch.device("cuda", 0)) == torch.channels_last
