"""megdet_hvd.memory.checkpoint around models that are not ours, against none, and torch's own."""

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, separate_forward
from megdet_hvd.bn.carriers import Carrier
from megdet_hvd.memory import checkpoint, checkpoint_sequential
from tests.bn.sent import watched_messages

STEPS = 10
Way = Callable[[nn.Sequential, Tensor], Tensor]


class Mirror(Carrier):
    """Sums over two processes that hold the same; messages are counted as real ones are."""

    name = "mirror"

    def __init__(self) -> None:
        super().__init__((0, 1))

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        return vector * 2


def cgbn(channels: int) -> nn.Module:
    layer = CrossGPUBatchNorm2d(channels)
    layer.carrier = Mirror()
    return layer


def three_layers(norm: Callable[[int], nn.Module]) -> nn.Sequential:
    torch.manual_seed(1)
    blocks = [nn.Sequential(nn.Conv2d(4, 4, 3), norm(4), nn.Dropout(0.3), nn.ReLU())]
    blocks += [nn.Sequential(nn.Conv2d(4, 4, 3), norm(4), nn.Dropout(0.3)) for _ in range(2)]
    return nn.Sequential(*blocks)


def trained(norm: Callable[[int], nn.Module], way: Way) -> tuple[list[Tensor], dict[str, int]]:
    """Outputs, gradients, weights and buffers of ten steps, and the messages they took."""
    model = three_layers(norm)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(2)
    kept: list[Tensor] = []
    with watched_messages() as sent:
        for _ in range(STEPS):
            x = torch.randn(2, 4, 12, 12, requires_grad=True)
            y = way(model, x)
            torch.rand(3)  # between forward and backward random state goes on
            y.square().mean().backward()
            assert x.grad is not None
            kept += [
                y.detach(),
                x.grad,
                *(p.grad.clone() for p in model.parameters() if p.grad is not None),
            ]
            optimizer.step()
            optimizer.zero_grad()
    kept += [value.clone() for value in model.state_dict().values()]
    kinds = Counter(name.split(".")[-2] for name in sent.names)
    return kept, dict(kinds)


def plain(model: nn.Sequential, x: Tensor) -> Tensor:
    return model(x)  # type: ignore[no-any-return]


def each(model: nn.Sequential, x: Tensor, **words: Any) -> Tensor:
    for block in model:
        x = checkpoint(block, x, **words)
    return x


def nested(model: nn.Sequential, x: Tensor, **words: Any) -> Tensor:
    def inner(y: Tensor) -> Tensor:
        return each(model[1:], checkpoint(model[0], y, **words), **words)

    return checkpoint(inner, x, **words)


def sequential(model: nn.Sequential, x: Tensor) -> Tensor:
    return checkpoint_sequential(model, 3, x)  # type: ignore[no-any-return]


def decorated(model: nn.Sequential, x: Tensor) -> Tensor:
    @checkpoint(determinism_check="none")
    def work(y: Tensor, *, scale: float) -> Tensor:
        return model(y) * scale  # type: ignore[no-any-return]

    return work(x, scale=1.0)


def in_contexts(model: nn.Sequential, x: Tensor) -> Tensor:
    entered = []

    class Context:
        def __enter__(self) -> None:
            entered.append(self)

        def __exit__(self, *_: object) -> None:
            return None

    y = checkpoint(model, x, context_fn=lambda: (Context(), Context()))
    assert len(entered) == 1
    return y  # type: ignore[no-any-return]


def selective(model: nn.Sequential, x: Tensor) -> Tensor:
    """What the convolutions return is kept, the rest computed again."""
    kept = [torch.ops.aten.convolution.default]
    contexts = functools.partial(torch.utils.checkpoint.create_selective_checkpoint_contexts, kept)
    return checkpoint(model, x, context_fn=contexts)  # type: ignore[no-any-return]


WAYS: dict[str, Way] = {
    "each": each,
    "reentrant": functools.partial(each, use_reentrant=True),
    "whole": lambda model, x: checkpoint(model, x),
    "without early stop": functools.partial(each, early_stop=False),
    "debug": functools.partial(each, debug=True),
    "nested": nested,
    "nested reentrant": functools.partial(nested, use_reentrant=True),
    "sequential": sequential,
    "decorated": decorated,
    "in contexts": in_contexts,
    "selective": selective,
    "compiled": lambda model, x: torch.compile(each, backend="eager")(model, x),
}
SLOW = ("debug", "compiled")
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "cgbn": cgbn,
    "bn": nn.BatchNorm2d,
    "cumulative": functools.partial(nn.BatchNorm2d, momentum=None),
    "instance": functools.partial(nn.InstanceNorm2d, track_running_stats=True, affine=True),
}


@functools.cache
def expected(norm: str) -> tuple[list[Tensor], dict[str, int]]:
    return trained(NORMS[norm], plain)


@pytest.mark.parametrize(
    ("norm", "way"),
    [(norm, way) for norm in NORMS for way in WAYS if norm == "cgbn" or way not in SLOW],
)
def test_ten_steps_are_those_without_it(norm: str, way: str) -> None:
    values, messages = trained(NORMS[norm], WAYS[way])
    assert len(values) == len(expected(norm)[0])
    assert all(torch.equal(a, b) for a, b in zip(values, expected(norm)[0], strict=True))
    assert messages == expected(norm)[1]
    counters = [int(v) for v in values if v.dtype == torch.long]
    counted = 0 if norm == "instance" else STEPS  # torch's InstanceNorm counts none
    assert counters == [counted] * 3


def test_what_is_expected_has_its_messages_and_drops_something() -> None:
    values, messages = expected("cgbn")
    assert messages == {"forward": 3 * STEPS, "backward": 3 * STEPS}
    assert bool((values[0] == 0).any()), "dropout"


@pytest.mark.parametrize("reentrant", [False, True])
def test_torchs_own_is_refused_for_cgbn_and_counts_twice_for_others(reentrant: bool) -> None:
    own = functools.partial(torch.utils.checkpoint.checkpoint, use_reentrant=reentrant)
    model = three_layers(cgbn)
    x = torch.randn(2, 4, 12, 12, requires_grad=True)
    y = own(model, x)
    with (
        watched_messages() as sent,
        pytest.raises(RuntimeError, match=r"use megdet_hvd\.memory\.checkpoint in its place"),
    ):
        y.sum().backward()
    assert not sent.names
    assert [int(v) for n, v in model.state_dict().items() if "tracked" in n] == [1, 1, 1]
    other = three_layers(nn.BatchNorm2d)
    own(other, x).sum().backward()
    # Without reentry torch stops at the last tensor that is needed, here the last convolution's.
    counted = [int(v) for n, v in other.state_dict().items() if "tracked" in n]
    assert counted[:2] == [2, 2], "as the docstring says"


def test_a_forward_pass_of_its_own_may_be_inside_a_backward_pass() -> None:
    model, aside = three_layers(cgbn), cgbn(4)
    x = torch.randn(2, 4, 12, 12)
    y = model(x)

    def hook(gradient: Tensor) -> None:
        with separate_forward():
            aside(gradient.detach())

    y.register_hook(hook)
    y.sum().backward()
    assert isinstance(aside, CrossGPUBatchNorm2d) and int(aside.num_batches_tracked or 0) == 1
    y = model(x)
    y.register_hook(lambda gradient: aside.eval()(gradient) and None)
    with pytest.raises(RuntimeError, match="Boolean value"):  # evaluation is no second computation
        y.sum().backward()


def test_gradients_of_gradients_and_kept_graphs_raise_no_alarm() -> None:
    model = three_layers(cgbn)
    x = torch.randn(2, 4, 12, 12, requires_grad=True)
    y = checkpoint(model, x).square().sum()
    weights = list(model.parameters())
    first = torch.autograd.grad(y, weights, retain_graph=True)
    again = torch.autograd.grad(y, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [int(v) for n, v in model.state_dict().items() if "tracked" in n] == [1, 1, 1]
    conv = nn.Conv2d(4, 4, 3)
    loss = conv(x).square().sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    (model(x).sum() + gradient.square().sum()).backward()


def test_layers_have_their_own_buffers_back_after_an_error() -> None:
    layer = nn.BatchNorm2d(4)
    own = layer.running_mean
    calls = []

    def fails_again(x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        calls.append(layer.running_mean is own)
        if len(calls) > 1:
            raise KeyError("of the function")
        return y * y

    y = checkpoint(fails_again, torch.randn(2, 4, 5, 5, requires_grad=True), early_stop=False)
    with pytest.raises(KeyError):
        y.sum().backward()
    assert calls == [True, False] and layer.running_mean is own
    assert int(layer.num_batches_tracked or 0) == 1


def test_without_gradients_it_is_the_function_itself() -> None:
    model = three_layers(cgbn).eval()
    x = torch.randn(2, 4, 12, 12)
    with torch.no_grad():
        assert torch.equal(checkpoint(model, x), model(x))


@pytest.mark.parametrize("segments", [0, 4])
def test_segments_that_can_not_be_made_are_refused(segments: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 3"):
        checkpoint_sequential(three_layers(cgbn), segments, torch.randn(2, 4, 12, 12))
