"""The kernel: machine code for GPUs, and its own source run on the CPU, threads for threads."""

import os
import time
from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from megdet_hvd.comm.peer import kernel, layout
from megdet_hvd.cuda import nvrtc
from megdet_hvd.cuda.driver import CudaDriver
from megdet_hvd.cuda.error import NoCudaLibrary
from tests.comm.peer.emulated import emulated_ranks
from tests.comm.peer.one_process import OneRank
from tests.cuda.emulation import emulated_driver


@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (10, 0)])
def test_it_compiles_to_machine_code(capability: tuple[int, int]) -> None:
    try:
        code = nvrtc.compile_cubin(kernel.SOURCE, capability, name="peer_sum")
    except NoCudaLibrary as error:
        if os.environ.get("MEGDET_NEED_NVRTC"):
            raise
        pytest.skip(f"the kernel was not compiled: {error}")
    assert kernel.NAME.encode() in code


@pytest.fixture
def driver() -> Iterator[CudaDriver]:
    driver = emulated_driver()
    with driver.in_primary_context(0):
        yield driver


def vectors(ranks: int, length: int, number: int) -> list[Tensor]:
    """One of each rank, of very different sizes: the order of adding up shows in the bits."""
    generator = torch.Generator().manual_seed(1000 * number + length)
    exponents = torch.randint(-20, 20, (ranks, length), generator=generator)
    values = torch.randn(ranks, length, generator=generator, dtype=torch.float64)
    return list(values * 2.0**exponents)


def in_order(parts: list[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def until(what: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("count", "first"), [(2, layout.FIRST_NUMBER), (3, layout.LAST_NUMBER - 11)]
)
def test_all_ranks_get_the_sum_in_the_ranks_order(
    driver: CudaDriver, count: int, first: int
) -> None:
    """Across the numbers' wrap-around, too."""
    ranks = emulated_ranks(driver, range(count), first=first)
    sums = []
    for number in range(30):
        parts = vectors(count, 1 + number * 5 % 23, number)
        right = in_order(parts)
        for place in range(count) if number % 2 else reversed(range(count)):
            ranks[place].add_up(parts[place], f"sum{number}")
        sums.append((parts, right))
    driver.synchronize()
    for parts, right in sums:
        for part in parts:
            assert torch.equal(part.view(torch.int64), right.view(torch.int64))
    ahead = first
    for _ in range(30):
        ahead = layout.next_number(ahead)
    for rank in ranks:
        assert rank.sums.lost() is None and rank.sums.long_sum() is None
        assert not rank.sums.is_lost()
        assert int(rank.state[0]) % 2**32 == ahead and int(rank.state[1]) == 0


def test_a_long_vector_goes_in_pieces(driver: CudaDriver) -> None:
    ranks = emulated_ranks(driver, (0, 1))
    parts = vectors(2, layout.LONGEST + 5, 0)
    right = in_order(parts)
    for rank, part in zip(ranks, parts, strict=True):
        rank.add_up(part, "long")
    driver.synchronize()
    assert torch.equal(parts[0], right) and torch.equal(parts[1], right)
    assert int(ranks[0].state[0]) == layout.FIRST_NUMBER + 2


def test_ranks_that_sum_different_things_say_so(driver: CudaDriver) -> None:
    ranks = emulated_ranks(driver, (4, 5, 6))
    first = torch.ones(6, 8, dtype=torch.float64)
    for vector, (name, rank) in zip(first, product("ab", ranks), strict=True):
        rank.add_up(vector, name)  # each has heard of both names
    wrong = [torch.ones(8, dtype=torch.float64) for _ in ranks]
    for rank, vector, name in zip(ranks, wrong, ("a", "b", "a"), strict=True):
        rank.add_up(vector, name)
    later = [torch.ones(8, dtype=torch.float64) for _ in ranks]
    for rank, vector in zip(ranks, later, strict=True):
        rank.add_up(vector, "c")
    driver.synchronize()
    told = [rank.sums.lost() or "" for rank in ranks]
    assert (
        "this one sums a (8 values), that of rank 5 b (8); every rank must run the same" in told[0]
    )
    assert "this one sums b (8 values), that of rank 4 a (8)" in told[1]
    assert "this one sums a (8 values), that of rank 5 b (8)" in told[2]
    for rank, vector in zip(ranks, later, strict=True):
        assert rank.sums.is_lost() and vector.isnan().all()


def test_a_length_of_its_own_is_something_else(driver: CudaDriver) -> None:
    ranks = emulated_ranks(driver, (0, 1))
    parts = [torch.ones(length, dtype=torch.float64) for length in (3, 20)]
    for rank, part in zip(ranks, parts, strict=True):
        rank.add_up(part, "a")
    driver.synchronize()  # nobody waits for values that never come
    told = "sums a (3 values), that of rank 1 a vector that this one never sums (20)"
    assert told in (ranks[0].sums.lost() or "")
    assert "that of rank 0 a vector that this one never sums (3)" in (ranks[1].sums.lost() or "")


def waits(rank: OneRank) -> str | None:
    found = rank.sums.long_sum()
    return found and found[0]


def test_a_rank_that_does_not_come_is_told_of_and_the_sum_given_up(driver: CudaDriver) -> None:
    here, late = emulated_ranks(driver, (2, 7), notice_s=0.05)
    vector, next_one = torch.ones(20, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    here.add_up(vector, "cgbn.layer1.forward.0")
    here.add_up(next_one, "cgbn.layer2.forward.0")
    until(lambda: waits(here))
    found = here.sums.long_sum()
    assert found is not None and found[:2] == ("cgbn.layer1.forward.0", 20)
    assert here.sums.long_sum() == found, "the same since"
    assert not driver.is_idle(here.stream) and here.sums.lost() is None
    here.sums.give_up()
    driver.synchronize()
    assert here.sums.lost() == (
        "the sum cgbn.layer1.forward.0 was given up while it waited for the part of rank 7"
    )
    assert here.sums.long_sum() is None
    assert vector.isnan().all() and next_one.isnan().all() and here.sums.is_lost()
    assert late.sums.lost() is None


def test_a_rank_that_comes_late_costs_waiting_and_nothing_more(driver: CudaDriver) -> None:
    here, late = emulated_ranks(driver, (0, 1), notice_s=0.05)
    first, second = vectors(2, 20, 0)
    right = first + second
    here.add_up(first, "a")
    until(lambda: waits(here) == "a")
    late.add_up(second, "a")
    driver.synchronize()
    assert torch.equal(first, right) and torch.equal(second, right)
    assert here.sums.long_sum() is None and here.sums.lost() is None


def test_without_a_watchdog_patience_ends(driver: CudaDriver) -> None:
    here, _ = emulated_ranks(driver, (0, 1), patience_s=0.1)
    vector = torch.ones(20, dtype=torch.float64)
    here.add_up(vector, "a")
    driver.synchronize()
    assert here.sums.lost() == "the sum a was lost: the part of rank 1 did not come"
    assert vector.isnan().all()
