"""Which trainings run together, with their ends in this test's hands."""

import itertools
from collections.abc import Collection
from typing import Any, ClassVar, cast

import pytest

from megdet_hvd.errors import RunError
from megdet_hvd.lab.runs import LabRun
from megdet_hvd.lab.side_by_side import own_cores, run_side_by_side


class Pretended:
    """A training that ends at its third look, or fails."""

    under_way: ClassVar[list["Pretended"]] = []

    def __init__(self, processes: int = 1, *, fails: bool = False) -> None:
        self.run = LabRun(8, "cgbn", 8, processes=processes)
        self.cores: list[int] = []
        self.beside: list[int] = []
        self.fails, self.looks, self.stopped = fails, 0, False

    def start(self, cores: Collection[int]) -> None:
        self.cores = list(cores)
        self.beside = [core for other in self.under_way for core in other.cores]
        self.under_way.append(self)

    def look(self) -> bool:
        self.looks += 1
        if self.fails and self.looks == 2:
            raise RunError("it failed")
        if self.looks == 3:
            self.under_way.remove(self)
        return self.looks == 3

    def stop(self) -> None:
        self.stopped = True


def run(trainings: list[Pretended], cores: list[int]) -> list[Pretended]:
    """What is done, in its order."""
    ended: list[Pretended] = []
    run_side_by_side(cast(Any, trainings), cast(Any, ended.append), cores)
    return ended


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()

    def look_again(_: float) -> None:
        assert next(looks) < 1000, "something waits for cores that never come"

    monkeypatch.setattr("time.sleep", look_again)
    monkeypatch.setattr(Pretended, "under_way", [])


def test_each_process_has_a_core_of_its_own() -> None:
    trainings = [Pretended(), Pretended(), Pretended(2), Pretended(), Pretended()]
    assert run(trainings, [4, 7, 9]) == trainings
    assert [len(one.cores) for one in trainings] == [1, 1, 2, 1, 1]
    for one in trainings:
        assert not set(one.cores) & set(one.beside) and set(one.cores) <= {4, 7, 9}
    assert trainings[1].beside == [4] and trainings[3].beside == trainings[2].cores


def test_cores_come_free_all_of_them() -> None:
    trainings = [Pretended(2), Pretended(2), Pretended(2)]
    assert run(trainings, [0, 1]) == trainings


def test_one_core_is_shared_by_two_processes() -> None:
    trainings = [Pretended(), Pretended(2), Pretended()]
    assert run(trainings, [5]) == trainings
    assert [one.cores for one in trainings] == [[5]] * 3
    assert [one.beside for one in trainings] == [[]] * 3


def test_what_fails_stops_the_others() -> None:
    trainings = [Pretended(fails=True), Pretended(), Pretended()]
    with pytest.raises(RunError, match="it failed"):
        run(trainings, [0, 1])
    assert [one.stopped for one in trainings] == [True, True, False]
    assert trainings[2].looks == 0


def test_jobs_bound_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 1, 2})
    assert (own_cores(None), own_cores(2), own_cores(9)) == ([1, 2, 3], [1, 2], [1, 2, 3])
