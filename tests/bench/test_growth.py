"""The bench of what grows: each part runs and counts, and the table shows it."""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megdet_hvd.bench import growth_side
from megdet_hvd.bench.growth import PARTS, measure_part, table
from megdet_hvd.bench.growth_side import PARTS as MEASURED
from megdet_hvd.bench.growth_side import measured
from megdet_hvd.errors import RunError


def test_every_part_of_the_table_is_measured() -> None:
    assert set(PARTS) == set(MEASURED)
    found = {"standing": {20: measure_part("standing", 20)}}
    assert found["standing"][20]["processor_s"] > 0
    found["standing"][20] = {"processor_s": 0.25, "mb": 3.0}
    assert " ".join(table(found)[1].split()) == "where the run stands 20 lines 0.250 3"


def test_a_part_that_fails_is_named() -> None:
    with pytest.raises(RunError, match=r"no such part of 20 failed .*(?s:.)*invalid choice"):
        measure_part("no such part", 20)


@pytest.mark.tail  # a process each
@pytest.mark.parametrize("part", sorted(set(PARTS) - {"standing"}))
def test_a_part_says_what_it_takes(part: str) -> None:
    found = measure_part(part, 300)
    assert found["processor_s"] > 0 and found["mb"] >= 0


def touched(size: int) -> None:
    """Pages straight from the kernel, none that the heap had kept."""
    with mmap.mmap(-1, size) as memory:
        for place in range(0, size, mmap.PAGESIZE):
            memory[place] = 1


def test_memory_is_what_the_work_takes_and_not_what_was_there() -> None:
    """20 MB are held for a moment, after 60 MB were made and given back."""
    touched(60_000_000)
    found = measured(lambda: touched(20_000_000))
    assert 18 <= found["mb"] < 40, "the kernel counts some pages late"


def test_a_part_is_what_one_call_of_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split is worked out five times; curves are drawn twice, and the first has the peak."""
    taken: list[dict[str, float]] = []

    def measured(work: Callable[[], Any]) -> dict[str, float]:
        work()
        taken.append({"processor_s": 10.0 - len(taken), "mb": 7.0 - len(taken)})
        return taken[-1]

    monkeypatch.setattr(growth_side, "measured", measured)
    assert growth_side.split(2, tmp_path) == {"processor_s": 2.0, "mb": 7.0}
    taken.clear()
    assert growth_side.curves(3, tmp_path) == {"processor_s": 9.0, "mb": 7.0}
