"""Sums between GPUs over the life of a session; the GPUs are emulated on the CPU."""

import pytest
import torch

from megdet_hvd.job.peer import MAX_CONNECTIONS, open_peer_sums, refusal
from megdet_hvd.job.world import World
from tests.cuda.emulation import compiler
from tests.pool import on_ranks


@pytest.mark.parametrize(
    ("check", "np"),
    [
        ("opened_or_refused", 2),
        ("machines_apart", 3),
        ("a_lost_sum_ends_the_step", 2),
        ("where_the_gpu_waits", 2),
        ("a_session_ends_under_a_sum", 2),
    ],
)
def test_on_ranks(check: str, np: int) -> None:
    compiler()  # or a skip, with the reason
    on_ranks(f"tests.job.check_peer:{check}", np)


def test_without_a_session_there_is_nothing_to_open() -> None:
    with pytest.raises(RuntimeError, match=r"call megdet_hvd\.job\.session\.start\(\) instead of"):
        open_peer_sums(World(rank=0, size=2, machines=((0, 1),)), torch.device("cuda", 0))


def test_what_is_refused_before_any_gpu_is_asked() -> None:
    world = World(rank=5, size=8, machines=((0, 1, 2, 3), (4, 5, 6, 7)))
    gpu = torch.device("cuda", 1)
    assert refusal(world, (4, 5, 6, 7), gpu, {}) is None
    assert refusal(world, (4, 5, 6, 7), gpu, {MAX_CONNECTIONS: "8"}) is None
    assert "one queue" in str(refusal(world, (4, 5), gpu, {MAX_CONNECTIONS: "1"}))
    assert "spans several machines" in str(refusal(world, (3, 5), gpu, {}))
    assert "computes on cpu" in str(refusal(world, (4, 5), torch.device("cpu"), {}))
