"""Statistics of a segment's first forward, handed back when the segment is computed again.

Sublinear memory (§3.3 of the paper; Chen et al. 2016) drops activations and computes them again
in the backward pass. A CGBN layer must then neither send its sums a second time nor move its
running statistics a second time: it takes the group's statistics from the tape.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor

from megdet_hvd.image_rows import current_rows, rows_per_image


class Statistics(NamedTuple):
    """What one call of a CGBN layer normalised with."""

    n: Tensor
    """() float64, values per channel over the group."""
    mean: Tensor
    """(C,) float64."""
    variance: Tensor
    """(C,) float64, biased."""
    call: int = 0
    """Number of the call, which names its messages."""
    values: int = 0
    """Values per channel on this process: where there are some, n need not be asked of a GPU."""


class Tape:
    """Statistics of the CGBN calls of one segment, in the order of the calls."""

    def __init__(self) -> None:
        self._records: list[tuple[int, Statistics]] = []
        self._next = 0
        self._rows: tuple[int, ...] | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Within it, CGBN calls of this thread are noted."""
        self._rows = current_rows()
        token = _active.set((self, False))
        try:
            yield
        finally:
            _active.reset(token)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Within it, CGBN calls of this thread take what was noted, from the first on."""
        self._next = 0
        token = _active.set((self, True))
        try:
            with rows_per_image(self._rows):
                yield
        finally:
            _active.reset(token)

    def note(self, layer: object, statistics: Statistics) -> None:
        """Keep a call's statistics."""
        self._records.append((id(layer), statistics))

    def recall(self, layer: object) -> Statistics:
        """The statistics of the same call in the first forward.

        Raises:
            RuntimeError: the recomputation calls other layers than the first forward did.
        """
        if self._next >= len(self._records) or self._records[self._next][0] != id(layer):
            raise RuntimeError(
                "recomputation called CGBN layers in another order than the first forward; "
                "a recomputed segment must do the same both times"
            )
        self._next += 1
        return self._records[self._next - 1][1]


_active: ContextVar[tuple[Tape, bool] | None] = ContextVar("cgbn_tape", default=None)


def recording_tape() -> Tape | None:
    """The tape that notes this call, if any."""
    active = _active.get()
    return None if active is None or active[1] else active[0]


def replaying_tape() -> Tape | None:
    """The tape that this call takes its statistics from, if any."""
    active = _active.get()
    return None if active is None or not active[1] else active[0]
