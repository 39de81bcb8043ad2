"""CGBN among what surrounds it in training: compilers, autocast, frozen layers, accumulation."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.bn import CrossGPUBatchNorm2d, convert_cross_gpu_bn
from megdet_hvd.bn.carriers import Carrier


class Twin(Carrier):
    """A group of two whose other process has the same images: the sum is twice one's own."""

    name = "twin"

    def __init__(self) -> None:
        super().__init__((0, 1))
        self.names: list[str] = []

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        self.names.append(name)
        return vector * 2


class Network(nn.Module):
    """Two convolutions with BN, the second one frozen before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.frozen = FrozenBatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu_()
        y: Tensor = self.bn2(self.frozen(self.conv2(x)))
        return y.sigmoid()


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def with_twin(plain: Network) -> tuple[Network, Twin]:
    model, twin = copy.deepcopy(plain), Twin()
    convert_cross_gpu_bn(model)
    for layer in model.modules():
        if isinstance(layer, CrossGPUBatchNorm2d):
            layer.carrier = twin
    return model, twin


def pictures() -> Tensor:
    return torch.randn(4, 3, 12, 10, generator=torch.Generator().manual_seed(2))


def test_compiled_it_breaks_the_graph_and_gives_the_same() -> None:
    eager, _ = with_twin(network())
    compiled, twin = with_twin(network())
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    run = torch.compile(compiled, backend=keep)
    for _ in range(2):
        ours, theirs = run(pictures()), eager(pictures())
        assert torch.equal(ours, theirs)
        ours.square().sum().backward()
        theirs.square().sum().backward()
    for own, other in zip(compiled.parameters(), eager.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)  # type: ignore[arg-type]
    assert twin.names == 2 * [f"cgbn.{k}" for k in _calls()]
    seen = [str(node.target) for graph in graphs for node in graph.graph.nodes]
    assert sum("conv" in target for target in seen) >= 2, "what stands around it is compiled"
    assert len(graphs) >= 2 and not any("GroupNormalise" in target for target in seen)


def _calls() -> list[str]:
    return ["bn1.forward.0", "bn2.forward.0", "bn2.backward.0", "bn1.backward.0"]


def test_frozen_layers_among_it_stay_as_they_are() -> None:
    plain = network()
    model, twin = with_twin(plain)
    both = torch.cat([pictures(), pictures()])
    expected = plain(both)
    assert torch.allclose(model(pictures()), expected[:4], atol=1e-5)
    assert isinstance(model.frozen, FrozenBatchNorm2d)
    assert twin.names == ["cgbn.bn1.forward.0", "cgbn.bn2.forward.0"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_statistics_are_float32(dtype: torch.dtype) -> None:
    model, _ = with_twin(network())
    with torch.autocast("cpu", dtype=dtype):
        convolved = model.conv1(pictures())
        y = model.bn1(convolved)
        assert convolved.dtype == y.dtype == dtype
    y.float().square().sum().backward()
    layer = model.bn1
    assert layer.running_var is not None and layer.weight.grad is not None
    assert layer.running_var.dtype == torch.float32 and layer.weight.grad.dtype == torch.float32
    exact = network()
    exact(torch.cat([pictures(), pictures()]))
    assert exact.bn1.running_var is not None
    assert torch.allclose(layer.running_var, exact.bn1.running_var, rtol=0.02)


def test_accumulated_passes_have_statistics_of_their_own() -> None:
    plain = network()
    model, twin = with_twin(plain)
    first, second = pictures(), pictures() * 3 + 1
    for part in (first, second):
        both = torch.cat([part, part])
        y = model(part)
        assert torch.allclose(y, plain(both)[: len(part)], atol=1e-4)
        y.square().mean().backward()
    assert twin.names == 2 * [f"cgbn.{k}" for k in _calls()]
    for own, other in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.allclose(own, other, atol=1e-5)
