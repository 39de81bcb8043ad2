"""Where the memory of a batch's pictures comes from, which whoever loads them knows.

A loader process lays them into memory that it shares with training, a GPU wants them where it can
fetch them by itself. What lays pictures on a canvas asks for room here, and is told of neither.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Room = Callable[[int], Tensor]
"""Gives so many bytes as a tensor (n,) uint8, of any content."""

_here = threading.local()


@contextmanager
def rooms_from(room: Room) -> Iterator[None]:
    """Inside, this thread's :func:`room_for` asks there."""
    before = getattr(_here, "room", None)
    _here.room = room
    try:
        yield
    finally:
        _here.room = before


def room_for(shape: Sequence[int]) -> Tensor:
    """A contiguous uint8 tensor of this shape and any content."""
    room: Room | None = getattr(_here, "room", None)
    if room is None or 0 in shape:
        return torch.empty(tuple(shape), dtype=torch.uint8)
    return room(math.prod(shape)).view(tuple(shape))
