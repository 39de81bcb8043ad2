"""Statistics of a segment's first forward, handed back when the segment is computed again.

Sublinear memory (§3.3 of the paper; Chen et al. 2016) drops activations and computes them again
in the backward pass. A CGBN layer must then neither send its sums a second time nor move its
running statistics a second time: it takes the group's statistics from the tape.

Segments may lie in one another. What an inner one computes first is noted on the outer tape too;
where the outer one is computed again, the inner one's first forward takes its statistics from the
outer tape and notes them on its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
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
    rounded: Tensor | None = None
    """(C,) on a GPU: the mean in the type that it is subtracted in."""
    inverse: Tensor | None = None
    """(C,) on a GPU: 1/√(σ² + ε) of the same type."""


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
        with _around(_Active(self, False, _active.get())):
            yield

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Within it, CGBN calls of this thread take what was noted, from the first on."""
        self._next = 0
        with _around(_Active(self, True, None)), rows_per_image(self._rows):
            yield

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


class _Active(NamedTuple):
    """What CGBN calls have to do with tapes."""

    tape: Tape | None
    """None: with none; a forward pass of its own."""
    replays: bool
    outer: "_Active | None"
    """What goes on around a recording."""


_active: ContextVar[_Active | None] = ContextVar("cgbn_tape", default=None)


@contextmanager
def _around(active: _Active) -> Iterator[None]:
    token = _active.set(active)
    try:
        yield
    finally:
        _active.reset(token)


@contextmanager
def separate_forward() -> Iterator[None]:
    """Within it, CGBN calls are a forward pass of their own, though a backward pass runs.

    Only for those who run a model in training mode from a gradient hook or a backward method, and
    do not compute again what was computed before: all processes of a group must do so together.
    """
    with _around(_Active(None, False, None)):
        yield


def recording_tapes() -> Iterator[Tape]:
    """The tapes that note this call, the innermost first."""
    active = _active.get()
    while active is not None and active.tape is not None and not active.replays:
        yield active.tape
        active = active.outer


def replaying_tape() -> Tape | None:
    """The tape that this call takes its statistics from, if any."""
    active = _active.get()
    while active is not None and not active.replays:
        active = active.outer
    return None if active is None else active.tape


def in_segment() -> bool:
    """Whether this call is part of a segment, in its first computation or a later one."""
    active = _active.get()
    return active is not None and active.tape is not None


def refuse_recomputation(name: str) -> None:
    """Raise RuntimeError where a CGBN layer, ``name``, is computed again without a tape.

    Nothing but a second computation of what a backward pass needs runs a layer forward inside
    one, :func:`separate_forward` excepted.
    """
    if _active.get() is None and torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            f"{name} is computed again inside a backward pass (torch.utils.checkpoint, or the "
            "like), where a CGBN layer would send its sums and update its running statistics a "
            "second time: use megdet_hvd.memory.checkpoint in its place, which takes the same "
            "arguments; around a forward pass of its own, put megdet_hvd.bn.separate_forward()"
        )
