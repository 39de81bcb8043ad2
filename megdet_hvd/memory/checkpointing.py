"""torch's activation checkpointing for any module, CGBN and other normalisation among it.

The second computation must repeat the first:

* random state and autocast are restored by torch;
* a CGBN layer takes its statistics from a tape: no second collective, no second update of the
  running statistics. So processes need not recompute together, nor in the same way;
* other layers with running statistics compute theirs again and leave the running ones alone.

The backward pass of a CGBN layer runs once, with its one collective.
"""

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, overload

import torch.utils.checkpoint
from torch import Tensor, nn

from megdet_hvd.bn.eager import outside_graphs
from megdet_hvd.bn.tape import Tape
from megdet_hvd.memory.running import running_statistics_held

T = TypeVar("T")


@overload
def checkpoint(
    function: Callable[..., T], *args: Any, use_reentrant: bool | None = False, **words: Any
) -> T: ...
@overload
def checkpoint(
    function: None = None, *, use_reentrant: bool | None = False, **words: Any
) -> Callable[[Callable[..., T]], Callable[..., T]]: ...
def checkpoint(
    function: Callable[..., Any] | None = None,
    *args: Any,
    use_reentrant: bool | None = False,
    **words: Any,
) -> Any:
    """``torch.utils.checkpoint.checkpoint`` that is right for CGBN, and for BN of any kind.

    Outputs, gradients and running statistics are those without it, bit for bit, with as many
    messages; calls may lie in one another. torch's own lets every layer with running statistics
    (``nn.BatchNorm2d``, ``nn.SyncBatchNorm``) count each batch twice, so that they follow the
    newest batches more closely than their ``momentum`` says; a CGBN layer, which would send its
    sums twice too, refuses to be computed again by it, and names this function.

    Wrappers that take a checkpoint function can be given this one.

    Args:
        function: what to compute now, and again in the backward pass: a module or any callable.
            None: a decorator is returned.
        args: its inputs.
        use_reentrant: as torch's; here False unless said otherwise, as torch recommends.
        words: torch's other settings (``preserve_rng_state``, ``context_fn``,
            ``determinism_check``, ``debug``, …), and ``function``'s own.

    Returns:
        What ``function`` returns.

    Raises:
        RuntimeError: in the backward pass; the second computation is not as the first.
    """
    if function is None:
        return functools.partial(_decorated, use_reentrant=use_reentrant, **words)
    return _checkpoint(function, args, use_reentrant, words)


def checkpoint_sequential(
    functions: nn.Sequential | Sequence[Callable[..., Any]],
    segments: int,
    input: Tensor,
    use_reentrant: bool | None = False,
    **words: Any,
) -> Any:
    """``torch.utils.checkpoint.checkpoint_sequential`` by :func:`checkpoint`.

    ``functions`` run one after another, cut into ``segments``; all but the last are recomputed.
    ``words``: settings for :func:`checkpoint`.
    """
    steps = list(functions.children()) if isinstance(functions, nn.Sequential) else list(functions)
    if not 0 < segments <= len(steps):
        raise ValueError(f"segments={segments} of {len(steps)} functions: give 1 to {len(steps)}")
    size = len(steps) // segments
    last = size * (segments - 1)
    for start in range(0, last, size):
        part = functools.partial(_one_after_another, steps[start : start + size])
        input = checkpoint(part, input, use_reentrant=use_reentrant, **words)
    return _one_after_another(steps[last:], input)


def _one_after_another(steps: Sequence[Callable[..., Any]], input: Any) -> Any:
    for step in steps:
        input = step(input)
    return input


def _decorated(function: Callable[..., Any], **words: Any) -> Callable[..., Any]:
    def call(*args: Any, **more: Any) -> Any:
        return checkpoint(function, *args, **words, **more)

    # Not functools.wraps: a module would lend its attributes.
    call.__name__ = getattr(function, "__name__", type(function).__name__)
    call.__doc__ = function.__doc__
    return call


@outside_graphs
def _checkpoint(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    use_reentrant: bool | None,
    words: dict[str, Any],
) -> Any:
    twice = _Twice(function)
    return torch.utils.checkpoint.checkpoint(twice, *args, use_reentrant=use_reentrant, **words)


class _Twice:
    """A function whose first call notes its statistics; each further one takes those."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._tape = Tape()
        self._called = False

    def __call__(self, *args: Any, **words: Any) -> Any:
        with ExitStack() as inside:
            if self._called:  # a graph that is kept may be asked for more than once
                inside.enter_context(self._tape.replaying())
                inside.enter_context(running_statistics_held())
            else:
                self._called = True
                inside.enter_context(self._tape.recording())
            return self._function(*args, **words)
