import copy
import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, convert_cross_gpu_bn
from megdet_hvd.config.load import load_config
from megdet_hvd.data.batch import Batch
from megdet_hvd.memory import recompute_segments
from megdet_hvd.memory.measure import peak_bytes
from megdet_hvd.memory.probe import made_up
from megdet_hvd.memory.recompute import Recomputed, may_draw
from megdet_hvd.memory.running import running_statistics_held
from megdet_hvd.memory.segments import MODES, Mode, segments
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.detector import Detector
from tests.engine.small import SETTINGS, thin_backbones

CLASSES = 3
RECOMPUTING: tuple[Mode, ...] = ("blocks", "stages")
CONVOLUTIONAL = ("model.fpn_norm=same", "model.roi.head=conv", "model.roi.norm=same")


def detector(*settings: str, seed: int = 1, thin: bool = True) -> Detector:
    config = load_config(None, [*SETTINGS, "model.backbone=resnet18", *settings]).model
    with thin_backbones() if thin else nullcontext():
        found = build_detector(config, CLASSES, local_norm(config), seed=seed).train()
    if config.norm == "cgbn":
        convert_cross_gpu_bn(found)
    return found


def pictures(count: int = 2, size: int = 96) -> Batch:
    return made_up(count, (size, size), 4, CLASSES)


def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Losses, gradients and buffers after a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    losses = model(batch)
    torch.stack([part.sum() for part in losses.values()]).sum().backward()
    found = {f"loss.{name}": part.detach() for name, part in losses.items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            found[f"grad.{name}"] = parameter.grad
    return {**found, **{f"buffer.{n}": b.clone() for n, b in model.named_buffers()}}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, f"{len(different)} differ: {different[:3]}"


class Calls:
    """Counts the calls of every convolution and linear layer."""

    def __init__(self, model: nn.Module) -> None:
        self.counts: dict[str, int] = {}
        for name, layer in model.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.register_forward_pre_hook(lambda *_, name=name: self._count(name))

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


@pytest.mark.parametrize("norm", ["cgbn", "bn", "frozen", "none"])
@pytest.mark.parametrize("images", [2, 0])
def test_losses_gradients_and_buffers_are_those_without_recomputation(
    norm: str, images: int
) -> None:
    settings = [f"model.norm={norm}", *(CONVOLUTIONAL if norm == "cgbn" else ())]
    batch = pictures(images)
    plain = detector(*settings)
    before = {n: b.clone() for n, b in plain.named_buffers() if "running_mean" in n}
    expected = step(plain, batch)
    if norm in ("cgbn", "bn") and images:
        assert all(not torch.equal(expected[f"buffer.{n}"], b) for n, b in before.items())
        counters = [expected[k] for k in expected if k.endswith("num_batches_tracked")]
        assert counters and all(int(counter) == 1 for counter in counters)
    for mode in RECOMPUTING:
        model = detector(*settings)
        assert recompute_segments(model, mode)
        assert_same(step(model, batch), expected)


@pytest.mark.parametrize("gradient", ["sampled", "dense"])
@pytest.mark.parametrize("mode", MODES)
def test_each_piece_is_computed_again_once_and_only_in_training(mode: Mode, gradient: str) -> None:
    """The RPN's head keeps nothing, where gradients go through the sampled anchors alone."""
    model = detector(f"model.rpn.gradient={gradient}")
    calls = Calls(model)
    recompute_segments(model, mode)
    step(model, pictures())
    twice = 1 if mode == "none" else 2
    assert calls.counts["backbone.body.conv1"] == twice
    assert calls.counts["backbone.body.layer3.1.conv2"] == twice
    assert calls.counts["backbone.fpn.inner_blocks.0.0"] == twice
    assert calls.counts["backbone.fpn.layer_blocks.1.0"] == twice
    assert calls.counts["rpn.head.conv.0.0"] == 5 * (twice if gradient == "dense" else 1)
    assert calls.counts["roi_heads.box_head.fc6"] == twice
    calls.counts.clear()
    model.eval()(pictures())
    assert calls.counts["backbone.body.layer3.1.conv2"] == 1
    assert calls.counts["rpn.head.conv.0.0"] == 5
    with torch.no_grad():
        calls.counts.clear()
        model.train()(pictures())
    assert calls.counts["roi_heads.box_head.fc6"] == 1


@pytest.mark.parametrize("mode", RECOMPUTING)
def test_frozen_stages_are_left_alone(mode: Mode) -> None:
    model = detector("model.frozen_stages=2")
    calls = Calls(model)
    found = recompute_segments(model, mode)
    assert len(found) == len(segments(detector(), mode)) - {"blocks": 3, "stages": 2}[mode]
    step(model, pictures())
    assert calls.counts["backbone.body.conv1"] == calls.counts["backbone.body.layer1.0.conv1"] == 1
    assert calls.counts["backbone.body.layer2.0.conv1"] == 2


@pytest.mark.parametrize("mode", RECOMPUTING)
def test_keys_and_classes_stay_and_it_is_taken_back(mode: Mode) -> None:
    model, plain = detector(), detector()
    recompute_segments(model, mode)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    recompute_segments(model, "none")
    assert not any(isinstance(v, Recomputed) for m in model.modules() for v in vars(m).values())


@pytest.mark.parametrize("mode", RECOMPUTING)
def test_copies_and_pickles_recompute_their_own_weights(mode: Mode, tmp_path: Path) -> None:
    batch = pictures()
    model = detector()
    recompute_segments(model, mode)
    torch.save(model, tmp_path / "model.pt")
    twins = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(tmp_path / "model.pt", weights_only=False),
    ]
    with torch.no_grad():  # twins must not see this
        for parameter in model.parameters():
            parameter.zero_()
    expected = step(detector(), batch)
    for twin in twins:
        calls = Calls(twin)
        assert_same(step(twin, batch), expected)
        assert calls.counts["backbone.body.layer4.1.conv1"] == 2


@pytest.mark.parametrize("mode", RECOMPUTING)
@pytest.mark.parametrize("norm", ["cgbn", "bn"])
def test_peak_of_live_bytes(mode: Mode, norm: str) -> None:
    model = detector(f"model.norm={norm}", "model.fpn_channels=32", thin=False)
    batch = pictures(2, 256)
    device = torch.device("cpu")

    def work() -> None:
        torch.stack([part.sum() for part in model(batch).values()]).sum().backward()

    without = peak_bytes(work, model, device)
    recompute_segments(model, mode)
    assert peak_bytes(work, model, device) < 0.65 * without


class Noisy(nn.Module):
    """Dropout and BN after a convolution; says in which types and modes it has computed."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = nn.Conv2d(3, 4, 3), norm, nn.Dropout(0.5)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        self.seen.append(y.dtype)
        y = self.dropout(self.norm(y))
        return y * y


def toy_step(recomputed: bool, precision: torch.dtype | None) -> tuple[Any, ...]:
    torch.manual_seed(3)
    toy = Noisy(CrossGPUBatchNorm2d(4))
    if recomputed:
        setattr(toy, "forward", Recomputed(toy, "forward"))  # noqa: B010
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    enabled = precision is not None
    with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=enabled):
        first, second = toy(x), toy(x * 2)  # called twice, as a head is on several levels
    torch.rand(5)  # random state must be that of the first forward, not the present one
    (first.float().sum() + second.float().sum()).backward()
    assert x.grad is not None
    after = torch.rand(5)
    gradients = [p.grad for p in toy.parameters()]
    buffers = [b.clone() for b in toy.buffers()]
    return toy.seen, [x.grad, *gradients, *buffers, first.detach(), after]


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_random_state_and_autocast_are_those_of_the_first_forward(
    precision: torch.dtype | None,
) -> None:
    seen, expected = toy_step(False, precision)
    again, found = toy_step(True, precision)
    assert seen == [precision or torch.float32] * 2
    assert again == seen * 2
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_graph_that_is_kept_can_be_asked_twice() -> None:
    model = detector()
    recompute_segments(model, "blocks")
    loss = torch.stack([part.sum() for part in model(pictures()).values()]).sum()
    weights = [p for p in model.parameters() if p.requires_grad]
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    again = torch.autograd.grad(loss, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_layer_that_is_used_twice_gets_its_own_statistics_back() -> None:
    """A head over several levels, say."""
    layer = nn.BatchNorm2d(3)
    own, before = dict(layer._buffers), copy.deepcopy(layer._buffers)
    with running_statistics_held():
        for _ in range(3):
            layer(torch.randn(2, 3, 4, 4))
        assert layer._buffers["running_mean"] is not own["running_mean"]
    for name, value in before.items():
        assert layer._buffers[name] is own[name] and torch.equal(own[name], value)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["blocks", "stages"])
def test_random_state_is_kept_only_where_a_piece_may_draw(mode: Mode) -> None:
    def keeps(model: nn.Module) -> set[bool]:
        recompute_segments(model, mode)
        found = [v for m in model.modules() for v in vars(m).values()]
        return {one.random for one in found if isinstance(one, Recomputed)}

    assert keeps(detector()) == keeps(detector(*CONVOLUTIONAL)) == {False}
    dropping = detector()
    dropping.backbone.body.layer3[1].relu = nn.Dropout(0.1)
    assert keeps(dropping) == {False, True}
    assert may_draw(Noisy(nn.BatchNorm2d(4))) and may_draw(nn.MultiheadAttention(4, 2))
