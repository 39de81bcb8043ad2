"""What each quantity should be, written down before the first visit, and where that is from.

A range is closed. ``cuda``: the figure means something on a GPU alone; ``any``: on a CPU, too.
"""

from typing import Literal, NamedTuple


class Expected(NamedTuple):
    """Of one quantity."""

    part: str
    quantity: str
    low: float
    high: float
    where: Literal["cuda", "any"]
    source: str


ALWAYS = float("inf")

EXPECTED: tuple[Expected, ...] = (
    Expected("machine", "GPUs", 1, ALWAYS, "cuda", "the visit's premise"),
)
