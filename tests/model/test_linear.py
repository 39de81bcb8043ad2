"""The box head's fully connected layers: torch's values and gradients, whoever multiplies."""

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.model.device import autocast
from megdet_hvd.model.linear import BoxLinear
from tests.model.samples import build, slim

CPU = torch.device("cpu")


def layers() -> tuple[nn.Linear, BoxLinear]:
    torch.manual_seed(0)
    plain = nn.Linear(300, 70)
    own = nn.Linear(300, 70)
    own.load_state_dict(plain.state_dict())
    return plain, BoxLinear(own, "onednn")


def step(layer: nn.Linear, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    y = layer(leaf)
    (y.float() * torch.arange(y.numel()).view_as(y)).sum().backward()
    assert leaf.grad is not None and layer.weight.grad is not None and layer.bias.grad is not None
    return [y, leaf.grad, layer.weight.grad, layer.bias.grad]


@pytest.mark.parametrize("rows", [0, 1, 33])
def test_values_and_gradients_are_torchs(rows: int) -> None:
    plain, own = layers()
    x = torch.randn(rows, 300)
    for theirs, ours in zip(step(plain, x), step(own, x), strict=True):
        assert ours.layout == torch.strided and ours.shape == theirs.shape
        assert rows == 0 or (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
        assert rows or torch.equal(ours, theirs)


def test_other_types_go_torchs_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, own = layers()
    x = torch.randn(5, 300)
    with autocast("bfloat16", CPU):
        assert torch.equal(own(x), plain(x)) and own(x).dtype == torch.bfloat16
    assert torch.equal(own.double()(x.double()), plain.double()(x.double()))
    plain, own = layers()
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert torch.equal(own(x), plain(x))


def test_keys_and_first_weights_stay() -> None:
    for head in ("mlp", "conv"):
        quick, plain = (
            build(slim(roi={"head": head, "linear": kernel})) for kernel in ("auto", "torch")
        )
        assert any(isinstance(module, BoxLinear) for module in quick.roi_heads.box_head.modules())
        state, other = quick.state_dict(), plain.state_dict()
        assert list(state) == list(other)
        assert all(torch.equal(state[name], other[name]) for name in state)
