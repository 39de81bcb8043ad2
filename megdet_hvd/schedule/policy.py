"""When the learning rate drops, and when training ends (MegDet §4).

Epochs count passes over the data: "at epoch 8" means after eight passes. Training is one stream
of pictures, so a batch may straddle two passes and an iteration number need not fall on an
epoch's end; the first iteration that starts at or after the milestone has the lower rate.
"""

import math
from dataclasses import dataclass

from megdet_hvd.schedule.exact import exact


@dataclass(frozen=True)
class Drop:
    """A change of the rate."""

    epoch: float
    """After this many passes over the data."""
    factor: float
    """The rate is multiplied by this."""


@dataclass(frozen=True)
class Policy:
    """Drops of the learning rate, and the end."""

    drops: tuple[Drop, ...]
    end_epoch: float


NORMAL = Policy(drops=(Drop(8, 0.1), Drop(10, 0.1)), end_epoch=11)
"""MegDet's policy unless said otherwise: ×0.1 at epochs 8 and 10, end at 11."""

LONG = Policy(drops=(Drop(11, 0.1), Drop(14, 0.1), Drop(17, 0.5)), end_epoch=18)
"""MegDet's longer policy: ×0.1 at epochs 11 and 14, ×0.5 at 17, end at 18."""


def milestone_iteration(epoch: float, images_per_epoch: int, global_batch: int) -> int:
    """Index of the first iteration that starts after ``epoch`` passes: ceil(epoch·N/batch).

    Exact for any N: ``milestone_iteration(8, 118287, 16) == 59144``.
    """
    return math.ceil(exact(epoch) * images_per_epoch / global_batch)
