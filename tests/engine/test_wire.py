import pytest
import torch
from torch import nn

from megdet_hvd.config.schema import HorovodConfig
from megdet_hvd.engine.step.compression import Wire, wire_for
from megdet_hvd.engine.step.finite import check_finite
from megdet_hvd.errors import RunError, UserError
from tests.pool import on_ranks
from tests.ranks import Launcher


@pytest.mark.parametrize(("launcher", "np"), [("mpirun", 3), ("gloo", 2)])
def test_gradients_and_status_between_processes(launcher: Launcher, np: int) -> None:
    on_ranks("tests.engine.check_wire:the_wire_holds", np, launcher=launcher)


@pytest.mark.parametrize("half", [False, True])
def test_what_travels_is_contiguous_and_what_returns_is_not(half: bool) -> None:
    gradient = torch.arange(24.0).view(2, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    expected = gradient.clone(memory_format=torch.contiguous_format)
    wire = Wire(half=half, before=0.5, after=4.0)
    sent, place = wire.compress(gradient)
    assert sent.is_contiguous() and sent.dtype == (torch.float16 if half else torch.float32)
    assert torch.equal(sent.float(), expected / 2)
    mean = wire.decompress(sent, place)
    wire.finish([mean])
    assert mean is gradient and torch.equal(mean, 2 * expected)
    assert mean.is_contiguous(memory_format=torch.channels_last)


def test_only_float32_is_made_smaller() -> None:
    wire = Wire(half=True, before=1.0, after=1.0)
    for dtype, travels_as in (
        (torch.float32, torch.float16),
        (torch.float64, torch.float64),
        (torch.float16, torch.float16),
    ):
        sent, _ = wire.compress(torch.ones(3, dtype=dtype))
        assert sent.dtype == travels_as
    for half in (False, True):
        with pytest.raises(UserError, match=r"bfloat16.*Horovod 0\.28\.1"):
            Wire(half, 1.0, 1.0).compress(torch.ones(3, dtype=torch.bfloat16))


def test_without_compression_nothing_is_copied() -> None:
    gradient = torch.ones(3)
    sent, _ = wire_for(HorovodConfig(), 4).compress(gradient)
    assert sent is gradient


def test_the_mean_is_taken_in_two_steps() -> None:
    wire = wire_for(HorovodConfig(predivide=8), 16)
    assert (wire.before, wire.after, wire.half) == (1 / 8, 0.5, False)
    assert wire_for(HorovodConfig(compression="fp16"), 4) == Wire(True, 1.0, 0.25)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 1)})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def look(half: bool = False) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item()
        check_finite(model.named_parameters(), norm, 12, half)

    look()
    parameters = dict(model.named_parameters())
    for bad in (float("nan"), float("inf"), float("-inf")):
        for name in ("a.bias", "b.weight"):
            parameters[name].grad = torch.full_like(parameters[name], bad)
        with pytest.raises(
            RunError,
            match=r"iteration 12: the gradient of a\.bias \(and of 1 more parameters\).*"
            r"learning\.rate.*after iteration 11",
        ):
            look()
    with pytest.raises(RunError, match=r"float16, which ends at 65504.*compression=none"):
        look(half=True)
