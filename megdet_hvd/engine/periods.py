"""When something falls due: periods in epochs or iterations, as functions of progress."""

import math
from fractions import Fraction


def due_by_epochs(iteration: int, every_epochs: float, images_per_epoch: int, batch: int) -> bool:
    """Whether the step that ends at ``iteration`` completes a period of ``every_epochs``.

    A step may straddle the end of an epoch; it is due at the first step at or after it.
    0 means never.
    """
    if every_epochs <= 0 or iteration <= 0:
        return False
    period = Fraction(str(every_epochs)) * images_per_epoch
    return math.floor(iteration * batch / period) > math.floor((iteration - 1) * batch / period)


def due_by_iterations(iteration: int, every_iterations: int | None) -> bool:
    """Whether ``iteration`` is a multiple; None means never."""
    return every_iterations is not None and iteration > 0 and iteration % every_iterations == 0
