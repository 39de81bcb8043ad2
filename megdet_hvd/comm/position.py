"""Where this process stands: what it waits for, or works at.

The training thread writes it, the watchdog's thread reads it. Writing costs about a microsecond
and works without a watchdog too. How long each collective took can be noted
(:func:`note_waits`), for the time split of a step.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

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


class DeviceSums(Protocol):
    """Sums that a GPU waits in, and the host does not. All methods may be called by any thread."""

    ranks: tuple[int, ...]
    """Whom they need."""

    def long_sum(self) -> tuple[str, int, float] | None:
        """Name, length, and since when by ``time.monotonic()``, of one that takes long."""

    def give_up(self) -> None:
        """Leave the one that it waits in, and all later ones."""


class _Position:
    """The one position of this process."""

    def __init__(self) -> None:
        self.waits: list[CollectiveTime] | None = None
        self.place = RankPosition("outside", "starting", (), 0, time.monotonic())
        self.step = 0
        self.moves = 0


_position = _Position()
_numbers: Sequence[int] | None = None
_device: DeviceSums | None = None
_device_place: RankPosition | None = None


def place() -> tuple[RankPosition, int, int]:
    """The place, the training step (from 1; 0: none yet), and how often the place has changed."""
    return _position.place, _position.step, _position.moves


def watch_device(sums: DeviceSums | None) -> None:
    """From now on this process's GPU may wait in ``sums``; None: it does not."""
    global _device, _device_place
    _device, _device_place = sums, None


def device_place() -> RankPosition | None:
    """The sum that the GPU waits in for long, whatever the host does; None: there is none.

    The same object as long as it is the same sum.
    """
    global _device_place
    device, place = _device, _device_place  # another thread may end the session meanwhile
    found = None if device is None else device.long_sum()
    if found is None or device is None:
        _device_place = None
        return None
    name, elements, since = found
    if place is None or place.since != since:
        place = RankPosition("waiting", name, _numbered(device.ranks), elements, since)
        _device_place = place
    return place


def give_up_device_sums(fallen: Sequence[int] | None = None) -> None:
    """Let this process's GPU go from what it waits in, since the job ends.

    ``fallen``: only if one of these ranks, as whoever watches counts them, is needed there.
    """
    device = _device  # another thread may end the session meanwhile
    if device is not None and (fallen is None or set(fallen) & set(_numbered(device.ranks))):
        device.give_up()


def _numbered(ranks: Sequence[int]) -> Sequence[int]:
    numbers = _numbers
    return ranks if numbers is None else [numbers[rank] for rank in ranks]


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
        _move("waiting", self._name, _numbered(self._ranks), self._elements)

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
