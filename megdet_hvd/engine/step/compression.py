"""The form in which a gradient travels between processes, and how it comes back.

Horovod takes contiguous tensors only ("Tensor is required to be contiguous"), and a channels_last
model has gradients that are not. So what travels is contiguous in the order of the gradient's own
dimensions; that is the same on every process, whatever the layouts there. What comes back lies in
the gradient's own memory format and type.

The mean over processes is taken in two steps around the sum, g/f before it and f/processes after
it, where f is ``horovod.predivide``; Horovod's own ``gradient_predivide_factor`` does the same, but
is silently left out where gradients go as a group (``_grouped_allreduce_grad_async`` in
horovod/torch/optimizer.py, 0.28.1). Both divisions are made here in the gradient's own type, so
that with ``fp16`` a small mean does not lose digits to a second rounding; the second one for all
gradients together (:meth:`Wire.finish`), on a GPU in a few launches.

With ``fp16`` float32 gradients travel as float16: values beyond ±65504 become infinite, those below
6e-8 zero, and the rest has 11 binary digits. The sum is in float16 too. float16 and float64
gradients travel as they are. bfloat16 gradients are refused: Horovod has no such type for torch,
and no other type is put in its place unasked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from megdet_hvd.config.schema import HorovodConfig
from megdet_hvd.errors import UserError


@dataclass(frozen=True)
class Wire:
    """A ``compression`` for ``hvd.DistributedOptimizer`` with ``op=hvd.Sum``.

    Gives the mean, once :meth:`finish` was called.
    """

    half: bool
    """Whether float32 gradients travel as float16."""
    before: float
    """Gradients are multiplied by this before the sum: 1/f."""
    after: float
    """And by this after it: f/processes."""

    def compress(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """What to sum (contiguous; changed in place), and where the mean is to go.

        Raises:
            UserError: a bfloat16 gradient.
        """
        if gradient.dtype == torch.bfloat16:
            raise UserError(
                "a gradient has the type bfloat16, which Horovod 0.28.1 can't send for torch; keep "
                "the parameters in float32 (precision=bfloat16 computes in bfloat16 all the same)"
            )
        if self.before != 1:
            gradient.mul_(self.before)
        half = self.half and gradient.dtype == torch.float32
        sent = gradient.half() if half else gradient
        return sent.contiguous(), gradient

    def decompress(self, total: Tensor, gradient: Tensor) -> Tensor:
        """The sum over all processes, in ``gradient`` itself: its memory format and type."""
        if total is not gradient:
            gradient.copy_(total)
        return gradient

    @torch.no_grad()
    def finish(self, gradients: Sequence[Tensor]) -> None:
        """Make means of what came back, once all have."""
        if self.after != 1 and gradients:
            torch._foreach_mul_(list(gradients), self.after)


def wire_for(config: HorovodConfig, processes: int) -> Wire:
    """The form that ``config`` asks for, in a job of ``processes``."""
    return Wire(
        half=config.compression == "fp16",
        before=1 / config.predivide,
        after=config.predivide / processes,
    )
