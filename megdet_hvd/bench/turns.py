"""Sides that take turns on one machine, so that a change of its speed meets all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class SideTimes:
    """What one side took, turn by turn."""

    name: str
    clock_s: tuple[float, ...]
    processor_s: tuple[float, ...]
    """All threads of the process together: little changed by what else the machine does."""

    @property
    def clock(self) -> float:
        """Median, seconds."""
        return statistics.median(self.clock_s)

    @property
    def processor(self) -> float:
        """Median, seconds."""
        return statistics.median(self.processor_s)


def take_turns(sides: Mapping[str, Callable[[], Any]], turns: int) -> list[SideTimes]:
    """Call the sides one after another, ``turns`` times each, after one that does not count."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for turn in range(turns + 1):
        for name, side in sides.items():
            began, processor = time.perf_counter(), time.process_time()
            side()
            if turn:
                took = time.perf_counter() - began, time.process_time() - processor
                taken[name].append(took)
    return [SideTimes(name, *zip(*pairs, strict=True)) for name, pairs in taken.items()]


def turns_table(sides: Sequence[SideTimes]) -> list[str]:
    """Lines of a table: medians, and how many times as long the others take as the first."""
    width = max(len(side.name) for side in sides) + 2
    heads = (("clock s", 10), ("ratio", 8), ("processor s", 14), ("ratio", 8))
    lines = [" " * width + "".join(f"{head:>{room}}" for head, room in heads)]
    first = sides[0]
    for side in sides:
        lines.append(
            f"{side.name:<{width}}{side.clock:10.3f}{side.clock / first.clock:8.2f}"
            f"{side.processor:14.3f}{side.processor / first.processor:8.2f}"
        )
    return lines
