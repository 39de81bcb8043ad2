"""A GPU that waits in a sum is let go when a rank of it has failed, and only then."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from megdet_hvd.comm import position
from megdet_hvd.job.watch.hub import Hub
from megdet_hvd.job.watch.rank_state import OwnState
from megdet_hvd.job.watch.start import Watchdog
from tests.job.watch.test_failures import watched_pair


class GpuSums:
    """Of ranks 0 and 1."""

    ranks: tuple[int, ...] = (0, 1)

    def __init__(self) -> None:
        self.given_up = False
        self.long: tuple[str, int, float] | None = None

    def long_sum(self) -> tuple[str, int, float] | None:
        return self.long

    def give_up(self) -> None:
        self.given_up = True


@pytest.fixture
def sums() -> Iterator[GpuSums]:
    found = GpuSums()
    position.watch_device(found)
    yield found
    position.watch_device(None)
    position.number_ranks(None)


def given_up(sums: GpuSums) -> bool:
    end = time.monotonic() + 20
    while not sums.given_up and time.monotonic() < end:
        time.sleep(0.02)
    return sums.given_up


@pytest.mark.parametrize("who", [0, 1])
def test_the_failure_of_either_rank_lets_it_go(sums: GpuSums, who: int) -> None:
    members = watched_pair([])
    Watchdog(members[who]).fail("ZeroDivisionError: in a step")
    assert given_up(sums)
    for member in reversed(members):
        member.stop()


def test_rank_0_tells_of_others_that_failed(sums: GpuSums) -> None:
    hub, spoke = watched_pair([])
    hub.failures[1] = "as a third rank hears it"
    assert hub.beat(hub.own.read(0.0))["fallen"] == [1]
    assert given_up(sums)
    spoke.stop()
    hub.stop()


def test_whose_failure_matters(sums: GpuSums) -> None:
    position.give_up_device_sums([2, 3])
    position.number_ranks([4, 5])  # its session is a part of a larger program
    position.give_up_device_sums([0, 1])
    assert not sums.given_up
    position.give_up_device_sums([5])
    assert sums.given_up


def test_the_place_is_the_gpus_as_long_as_it_waits(sums: GpuSums) -> None:
    own = OwnState(1.0)
    position.go_outside("a checkpoint")
    assert own.read(0.0).name == "a checkpoint"
    sums.long = ("cgbn.layer1.forward.0", 9, time.monotonic())
    first = own.read(10.0)
    assert (first.kind, first.name, first.ranks) == ("waiting", "cgbn.layer1.forward.0", (0, 1))
    assert first.elements == 9 and first.age_s < 2 and own.read(17.0).age_s >= 7
    sums.long = (*sums.long[:2], time.monotonic() + 1)  # of the next step
    assert own.read(18.0).age_s < 2
    sums.long = None
    assert own.read(19.0).name == "a checkpoint"


def test_a_hang_is_ended_only_with_the_gpu_let_go(
    sums: GpuSums, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        pass

    def end(*_: Any) -> None:
        assert sums.given_up
        raise Ended

    hub, spoke = watched_pair([])
    spoke.stop()
    hub.stop()
    monkeypatch.setattr("megdet_hvd.job.watch.member.report", end)
    with pytest.raises(Ended):
        Hub(hub.job, None).end(None, {}, {})  # type: ignore[arg-type]


class LastRanks(tuple[int, ...]):
    """Their session ends, in another thread, while they are looked at."""

    def __iter__(self) -> Iterator[int]:
        position.watch_device(None)
        return super().__iter__()


def test_a_session_may_end_while_the_watchdog_looks(sums: GpuSums) -> None:
    """Its thread would end otherwise, and nobody watch any more."""
    sums.ranks = LastRanks((0, 1))
    position.give_up_device_sums([1])
    assert sums.given_up
    sums.long = ("cgbn.layer1.forward.0", 9, 3.0)
    position.watch_device(sums)
    position.number_ranks([4, 5])
    place = position.device_place()
    assert place is not None and list(place.ranks) == [4, 5]
    assert position.device_place() is None
