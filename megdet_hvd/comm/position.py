"""Where this process stands: what it waits for, or works at.

The training thread writes it, the watchdog's thread reads it. Writing costs about a microsecond
and works without a watchdog too. How long each collective took can be noted
(:func:`note_waits`), for the time split of a step.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple

Kind = Literal["waiting", "computing", "outside"]


@dataclass(frozen=True, slots=True)
class RankPosition:
    """One place."""

    kind: Kind
    """``waiting`` in a collective, ``computing`` a training step, or ``outside`` of steps."""
    name: str
    """The collective's name, or what is being done."""
    ranks: Sequence[int]
    """Whom a collective needs; empty elsewhere."""
    elements: int
    """Length of the vector that a collective sums; 0: it has none, or of any length."""
    since: float
    """``time.monotonic()`` of coming here."""


class CollectiveTime(NamedTuple):
    """A collective that this process was in."""

    name: str
    ranks: Sequence[int]
    """Whom it needed, as its session counts them."""
    seconds: float


class _Position:
    """The one position of this process."""

    def __init__(self) -> None:
        self.waits: list[CollectiveTime] | None = None
        self.place = RankPosition("outside", "starting", (), 0, time.monotonic())
        self.step = 0
        self.moves = 0


_position = _Position()
_numbers: Sequence[int] | None = None


def place() -> tuple[RankPosition, int, int]:
    """The place, the training step (from 1; 0: none yet), and how often the place has changed."""
    return _position.place, _position.step, _position.moves


def count_steps_anew() -> None:
    """A new run begins in this process."""
    _position.step = 0


def number_ranks(numbers: Sequence[int] | None) -> None:
    """From now on, rank r of a collective is ``numbers[r]`` to whoever watches.

    For a process whose Horovod session is a part of the watched program; None: they are the same.
    """
    global _numbers
    _numbers = numbers


def note_waits() -> None:
    """From now on, until :func:`noted_waits`, keep how long each collective takes."""
    _position.waits = []


def noted_waits() -> list[CollectiveTime]:
    """What was noted, in order; no more is."""
    found, _position.waits = _position.waits, None
    return found or []


def compute(step: int, part: str) -> None:
    """Training step ``step`` goes on with ``part`` of it, ``forward`` or ``backward``."""
    _position.step = step
    _move("computing", part)


def go_outside(what: str) -> None:
    """Leave the training step: data loading, evaluation, a checkpoint."""
    _move("outside", what)


def _move(kind: Kind, name: str, ranks: Sequence[int] = (), elements: int = 0) -> None:
    _position.place = RankPosition(kind, name, ranks, elements, time.monotonic())
    _position.moves += 1


class waiting:
    """Within this block the process waits in the collective ``name`` for ``ranks``.

    An error that leaves the block is given the collective's name as a note: Horovod's own text,
    of vectors that differ in length say, has none.
    """

    __slots__ = ("_before", "_elements", "_name", "_ranks")

    def __init__(self, name: str, ranks: Sequence[int], elements: int = 0) -> None:
        self._name, self._ranks, self._elements = name, ranks, elements

    def __enter__(self) -> None:
        self._before = _position.place
        ranks = self._ranks if _numbers is None else [_numbers[rank] for rank in self._ranks]
        _move("waiting", self._name, ranks, self._elements)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            length = f" with {self._elements} values" if self._elements else ""
            error.add_note(f"in the collective {self._name}{length}, of ranks {list(self._ranks)}")
        if _position.waits is not None:
            seconds = time.monotonic() - _position.place.since
            _position.waits.append(CollectiveTime(self._name, self._ranks, seconds))
        _move(self._before.kind, self._before.name, self._before.ranks, self._before.elements)
