"""The pretended device is one: numbers, mixed devices, and what is counted."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import nms, roi_align

from megdet_hvd.model import normalise
from tests.pretend_cuda.device import CUDA, pretended_cuda
from tests.pretend_cuda.tally import PACKAGE, Place


def test_numbers_are_those_of_the_cpu_and_gradients_too() -> None:
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    there = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    there.load_state_dict(own.state_dict())
    x = torch.randn(2, 3, 8, 8)
    own(x).square().sum().backward()
    with pretended_cuda():
        there.to(CUDA)
        y = there(x.to(CUDA))
        assert y.is_cuda and y.device == CUDA and not y.is_cpu
        y.square().sum().backward()
        for ours, theirs in zip(own.parameters(), there.parameters(), strict=True):
            assert ours.grad is not None and theirs.grad is not None and theirs.grad.is_cuda
            assert torch.equal(ours.grad, theirs.grad.cpu())


def test_a_cpu_tensor_that_meets_a_cuda_tensor_fails() -> None:
    with pretended_cuda():
        x = torch.ones(3, device="cuda")
        meetings: tuple[Callable[[], Tensor], ...] = (
            lambda: x + torch.ones(3),
            lambda: torch.cat([x, torch.ones(2)]),
            lambda: torch.where(torch.ones(3, dtype=torch.bool), x, x),
            lambda: x.add_(torch.ones(1)),
        )
        for meet in meetings:
            with pytest.raises(RuntimeError, match="same device, and there are cuda:0 and cpu"):
                meet()
        assert (x + torch.tensor(2.0)).tolist() == [3.0] * 3  # without dimensions it may


@pytest.mark.parametrize(
    ("kind", "wait"),
    [
        ("a value is read", lambda x: x.sum().item()),
        ("a value is read", lambda x: bool((x > 0).any())),
        ("a value is read", lambda x: float(x[0])),
        ("copy to the host", lambda x: x.tolist()),
        ("copy to the host", lambda x: x.cpu()),
        ("nonzero", lambda x: torch.where(x > 0)),
        ("index by mask", lambda x: x[x > 0]),
        ("masked_select", lambda x: x.masked_select(x > 0)),
        ("unique", lambda x: x.unique()),
        ("index from the CPU", lambda x: x[torch.tensor([0])]),
        ("nms", lambda x: nms(x.view(1, 4), x[:1], 0.5)),
        ("copy to the device from memory that is not pinned", lambda x: torch.ones(2).to(x.device)),
        ("copy to the device from memory that is not pinned", lambda x: x.copy_(torch.ones(4))),
        (
            "copy to the device from memory that is not pinned",
            lambda x: torch.ones(2).to(x.device, non_blocking=True),
        ),
        (
            "copy to the device from memory that is not pinned",
            lambda x: torch.tensor([1.0], device=x.device),
        ),
    ],
)
def test_each_wait_of_the_host_is_counted(kind: str, wait: Callable[[Tensor], object]) -> None:
    with pretended_cuda() as tally:
        x = torch.ones(4, device="cuda")
        assert not tally.syncs
        wait(x)
        assert [(kind_of, n) for (_, kind_of), n in tally.syncs.items()] == [(kind, 1)]


def test_what_does_not_wait_is_not_counted() -> None:
    with pretended_cuda() as tally:
        x = torch.arange(12, device="cuda", dtype=torch.float32).view(3, 4)
        x.topk(2), x.sort(), torch.full((3,), 1.5, device="cuda"), x.to(torch.float64)
        x[torch.arange(2, device="cuda")], x.where(x > 3, 0.0), x.masked_fill(x > 3, 0.0)
        torch.ones(3).pin_memory().to("cuda", non_blocking=True)
        roi_align(x.view(1, 1, 3, 4), torch.zeros(1, 5, device="cuda"), 2)
        assert not tally.syncs, tally.syncs_table()


def test_launches_are_those_of_operators_that_compute() -> None:
    with pretended_cuda() as tally:
        x = torch.empty(4, 4, device="cuda")
        x.view(16), x[1:], x.t(), x.detach(), torch.empty_like(x), x[:0] + 1
        assert not tally.launches, tally.launches_table()
        x.add_(1).mul(2)
        assert tally.launches.total() == 2
        assert {operator for _, operator in tally.launches} == {"add_", "mul"}


def test_a_place_is_the_packages_innermost_line() -> None:
    with pretended_cuda() as tally:
        black = torch.zeros(1, 3, 4, 4, dtype=torch.uint8, device="cuda")
        tally.clear()
        normalise.normalise(black, [(2, 2)], torch.float32)
        places = {place.own.split(":")[0] for place, _ in tally.launches}
    assert places == {"model/normalise.py"}
    assert PACKAGE.endswith("megdet_hvd")
    assert str(Place("a.py:1", "torchvision/b.py:2")) == "a.py:1 (in torchvision/b.py:2)"
