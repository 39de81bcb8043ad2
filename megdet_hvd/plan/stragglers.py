"""A step ends with its slowest rank: the expected maximum over ranks, and late steps of a run."""

import math
from functools import cache

LATE_TO_EARLY = 0.152 / 0.135
"""Seconds of an iteration at a run's end to those of its first 50 iterations: 8 A100, MLPerf v2.0,
NVIDIA/results/dgxa100_ngc22.04_pytorch: more proposals and boxes survive as the detector learns."""
_STEPS = 4000
_EDGE = 9.0


@cache
def expected_maximum(ranks: int) -> float:
    """Of ``ranks`` independent standard normal numbers: 0, 0.564, 0.846, … 2.59 at 128.

    ∫ (1 − Φ(x)^P) over x > 0, less ∫ Φ(x)^P over x < 0, by the trapezoidal rule to 1e-6.
    """
    if ranks == 1:
        return 0.0
    width = _EDGE / _STEPS
    total = 0.0
    for k in range(_STEPS + 1):
        x = k * width
        above = (0.5 * math.erfc(-x / math.sqrt(2))) ** ranks
        below = (0.5 * math.erfc(x / math.sqrt(2))) ** ranks
        total += (0.5 if k in (0, _STEPS) else 1.0) * (1 - above - below)
    return total * width


def straggler_images(images: int, ranks: int) -> float:
    """√n · E_P: what waiting for the slowest rank costs, in spreads of one image's time."""
    return math.sqrt(images) * expected_maximum(ranks)
