"""Segments recomputed: forward twice, statistics and random numbers once.

Autograd builds the same graph as without (``use_reentrant=False``: only what its nodes saved is
computed again), so gradients add up in the same order and come out bit for bit the same.

The second computation must repeat the first:

* random state and autocast are restored by torch's checkpoint;
* a CGBN layer takes its statistics from a tape: no second collective, no second update of the
  running statistics. So processes need not recompute together, nor in the same mode;
* plain BN computes its statistics again and leaves the running ones alone.

The backward pass of a CGBN layer runs once, with its one collective.
"""

from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from megdet_hvd.bn.tape import Tape
from megdet_hvd.memory.segments import Mode, Segment, segments
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.norm import running_statistics_held


class Recomputed:
    """A module's method, whose activations are dropped and computed again in the backward pass.

    It hides the method of that name on one instance (``module.forward = Recomputed(…)``). The
    module's class, state-dict keys and hooks stay; it can be copied and pickled. In evaluation
    mode, and where no gradients are asked for, it is the method itself.
    """

    def __init__(self, owner: nn.Module, method: str) -> None:
        self.owner = owner
        self.method = method

    def __call__(self, *inputs: Any) -> Any:
        """What the method gives for the ``inputs``."""
        compute = getattr(type(self.owner), self.method).__get__(self.owner)
        if not (self.owner.training and torch.is_grad_enabled()):
            return compute(*inputs)
        return checkpoint(
            compute,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=True,
            context_fn=_first_and_again,
        )


def recompute_segments(detector: Detector, mode: Mode) -> list[Segment]:
    """Recompute the segments of ``mode`` from now on; returns them. ``none`` takes it all back."""
    for module in detector.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Recomputed):
                delattr(module, name)
    found = segments(detector, mode)
    for segment in found:
        setattr(segment.owner, segment.method, Recomputed(segment.owner, segment.method))
    return found


def _first_and_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the two computations of one call."""
    tape = Tape()
    return tape.recording(), _Again(tape)


class _Again(AbstractContextManager[None]):
    """The second computation, and each further one: a graph that is kept may be asked for again."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def __enter__(self) -> None:
        self._inside = ExitStack()
        self._inside.enter_context(self._tape.replaying())
        self._inside.enter_context(running_statistics_held())

    def __exit__(self, *error: object) -> None:
        self._inside.close()
