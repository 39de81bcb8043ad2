"""What is known of a rank, and this process's own part of it."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from megdet_hvd.comm import position
from megdet_hvd.comm.position import Kind, RankPosition

LinkState = Literal["open", "closed", "left", "never"]
_LONGEST_NAME = 300
"""Characters of a place's name that travel: it comes in every line that is said of a rank."""


@dataclass(frozen=True, slots=True)
class RankState:
    """Where a rank stood when it was last heard of, and how long ago that was.

    Times are seconds by the clock of whoever measured them, so that no clocks need agree.
    """

    kind: Kind
    """``waiting`` in a collective, ``computing`` a step, or ``outside`` of steps."""
    name: str
    """The collective, or what is being done."""
    ranks: tuple[int, ...] = ()
    """Whom the collective needs."""
    elements: int = 0
    """Length of its vector; 0: none, or any."""
    age_s: float = 0.0
    """How long it had been there, by its own count: never more than the truth."""
    step: int = 0
    """Training step, from 1; 0: none yet."""
    link: LinkState = "open"
    """``closed`` without a word, ``left`` in order, or ``never`` heard of."""
    silent_s: float = 0.0
    """Since the last sign of life; of a closed connection: since it closed."""
    others_went: int = 0
    """Steps that others have gone on since it was missed."""

    def as_message(self) -> dict[str, Any]:
        """What travels."""
        return {
            "kind": self.kind,
            "name": self.name[:_LONGEST_NAME],
            "ranks": self.ranks,
            "elements": self.elements,
            "age_s": self.age_s,
            "step": self.step,
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "RankState":
        """The inverse of :meth:`as_message`.

        Raises:
            ValueError, TypeError, KeyError: it is none, so that nothing else need look again.
        """
        kind, ranks = message["kind"], tuple(message["ranks"])
        numbers = message["elements"], message["step"], *ranks
        if kind not in get_args(Kind) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"no rank state: {str(message)[:200]}")
        age_s = float(message["age_s"])
        if not math.isfinite(age_s):
            raise ValueError(f"no rank state: age_s={age_s}")
        name = str(message["name"])[:_LONGEST_NAME]
        return cls(kind, name, ranks, message["elements"], age_s, message["step"])


MISSED_S = 3.0
"""Without a beat for so long, a rank is missed: it may not hear what it is told."""
NEVER_HEARD = RankState("outside", "unknown", link="never")


class AwakeClock:
    """Seconds that this process was awake.

    A batch system may stop a whole job and let it go on an hour later. Then nobody has waited
    for an hour: between two ticks, no more than ``largest_step_s`` counts.
    """

    def __init__(self, largest_step_s: float) -> None:
        self._largest_step_s = largest_step_s
        self._last = time.monotonic()
        self.now = 0.0

    def tick(self) -> float:
        """The time by now."""
        now = time.monotonic()
        self.now += min(now - self._last, self._largest_step_s)
        self._last = now
        return self.now


class Silence:
    """How long somebody has been silent, and how far the others went meanwhile."""

    def __init__(self) -> None:
        self.heard = 0.0
        self._step_when_missed: int | None = None

    def hear(self, now: float) -> None:
        """A sign of life."""
        self.heard, self._step_when_missed = now, None

    def add_to(self, state: RankState, now: float, newest_step: int) -> RankState:
        """The rank's state, with its silence. ``newest_step``: the furthest that anybody is."""
        silent_s = now - self.heard
        if silent_s < MISSED_S:
            return replace(state, silent_s=silent_s)
        if self._step_when_missed is None:
            self._step_when_missed = newest_step
        went = newest_step - self._step_when_missed
        return replace(state, silent_s=silent_s, others_went=went)


class OwnState:
    """Reads where this process's training thread stands."""

    def __init__(self, interval_s: float) -> None:
        """``interval_s``: how often it is read, hence how old an unseen place may be."""
        self._interval_s = interval_s
        self._seen: RankPosition | None = None
        self._arrived = 0.0

    def read(self, now: float) -> RankState:
        """The state at ``now`` of an :class:`AwakeClock`."""
        host, step, _ = position.place()
        place = position.device_place() or host  # whatever the host does, it can't go on
        if place is not self._seen:
            self._seen = place
            self._arrived = now - min(time.monotonic() - place.since, self._interval_s)
        return RankState(
            place.kind,
            place.name,
            tuple(place.ranks),
            place.elements,
            max(now - self._arrived, 0.0),
            step,
        )
