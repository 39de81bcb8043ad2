"""A gradient that is not finite ends the run before it reaches the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from megdet_hvd.errors import RunError
from megdet_hvd.job.agree import mark_agreed


def check_finite(
    parameters: Iterable[tuple[str, nn.Parameter]], norm: float, iteration: int, half: bool
) -> None:
    """Look at the averaged gradient of step ``iteration``; every rank holds the same one.

    Args:
        parameters: all of the model's, with their names.
        norm: of the gradients of all of them together; finite only if all of them are.
        iteration: for the message.
        half: whether gradients travelled as float16, which is one reason more.

    Raises:
        RunError: on all ranks alike, naming the first parameter; the weights are untouched.
    """
    if math.isfinite(norm):
        return
    bad = [
        name
        for name, parameter in parameters
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
    ]
    where = bad[0] if bad else "all parameters together (its norm overflows)"
    more = f" (and of {len(bad) - 1} more parameters)" if len(bad) > 1 else ""
    fix = (
        "it travelled as float16, which ends at 65504: set horovod.predivide to the number of "
        "processes, or horovod.compression=none"
        if half
        else "try a lower learning.rate, a longer learning.warmup_iterations or "
        "learning.gradient_clip"
    )
    raise mark_agreed(
        RunError(
            f"iteration {iteration}: the gradient of {where}{more}, averaged over all "
            f"processes, is not finite; {fix}. The weights are as after iteration {iteration - 1}"
        )
    )
